"""Lines that name settings of an import get the command that takes them."""

from pathlib import Path

import pytest

from visionforge.cli.commands.datasets import subcommands
from visionforge.data.import_commands import import_command, with_command
from visionforge.data.import_settings import ImportSettings


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x (`intensity`: others)", "x (--intensity: others) (`init a --intensity LOW HIGH --replace`)"),
        (
            "choose `group_column` pid, or `no_groups` if",
            "choose --group-column pid, or --no-groups if (`init a --group-column pid --replace`)",
        ),
        ("`ignore` 255 if it stands", "--ignore 255 if it stands (`init a --ignore 255 --replace`)"),
        ("too, with `classes` cell,other", "too, with --classes cell,other (`init a --classes cell,other --replace`)"),
        ("`classes` names them. One", "--classes names them. One (`init a --classes NAME,NAME --replace`)"),
        ("task: x was made as binary", "--task: x was made as binary"),
        ("nothing of `the` kind", "nothing of `the` kind"),
    ],
)
def test_a_setting_is_named_by_what_is_typed(line, told):
    assert with_command(line, "init a", "--replace").startswith(told)


def test_a_command_gives_the_settings_that_it_was_made_of():
    settings = ImportSettings(
        Path("my photos"), "mine", 64, fractions=(0.5, 0.25, 0.25), hflip=False, intensity=(-1000.0, 400.0), ignore=255
    )
    words = import_command(settings)
    assert words == (
        "visionforge datasets import 'my photos' --name mine --resolution 64 --fractions 0.5 0.25 0.25 --ignore 255 "
        "--intensity -1000 400 --no-hflip"
    )


def test_underscores_are_taken_for_hyphens():
    arguments = ["import", "a_b", "--name", "mine", "--mask_values=foreground", "--no_hflip"]
    options = subcommands().parser.parse_args(arguments)
    assert (options.source, options.mask_values, options.hflip) == (Path("a_b"), "foreground", False)
