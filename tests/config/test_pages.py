"""Pages that settings and errors name are in the documentation, under the titles that it has."""

import inspect

import pytest
import yaml

from tests.conftest import REPOSITORY
from visionforge import errors
from visionforge.cli.commands import commands
from visionforge.cli.main import main
from visionforge.config.pages import ARGUMENTS, COMMANDS, ERRORS, SETTINGS, TITLES
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.engine.error_help import error_help
from visionforge.engine.validation import trainer_flags


class _Loader(yaml.SafeLoader):
    """Reads what mkdocs.yml names of Python as nothing."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def titles() -> dict[str, str]:
    nav = yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"]
    found = {}
    for entry in nav:
        ((section, pages),) = entry.items()
        if isinstance(pages, str):
            found[pages] = section
        else:
            found |= {page: f"{section} › {title}" for each in pages for title, page in each.items()}
    return found


def test_pages_are_in_the_documentation_under_their_titles():
    known = titles()
    assert {page.partition("#")[0] for page in SETTINGS.values()} <= set(known)
    assert {page: known[page] for page in TITLES} == TITLES
    assert {*ARGUMENTS.values(), *ERRORS.values(), *COMMANDS.values()} == set(TITLES)


def test_what_pages_are_of_exists():
    paths = {*flatten(RunSettings), *(f"trainer.{flag}" for flag in trainer_flags())}
    for start in SETTINGS:
        assert any(path.startswith(start) for path in paths), start
    kinds = dict(inspect.getmembers(errors, inspect.isclass))
    assert all(kinds[kind.__name__] is kind for kind in ERRORS)
    assert {name.split()[0] for name in COMMANDS} <= set(commands())


HELPED = {
    "a setting": (["fit", "--data.batch_size", "0"], "visionforge explain-setting data.batch_size"),
    "a flag of the Trainer": (
        ["fit", "--trainer.max_epochs", "many"],
        "visionforge explain-setting trainer.max_epochs",
    ),
    "several settings": (
        ["fit", "--data.batchsize", "3", "--model.tta", "7", "--data.batch_size", "0"],
        "visionforge explain-setting data.batch_size",
    ),
    "an argument": (["fit", "--folds", "1"], "documentation, How-to › Cross-validation and ensembles"),
    "a command": (["submit", "--", "fot"], "documentation, How-to › Clusters"),
    "data": (
        ["fit", "--data.dataset", "breastmnist", "--data.root", ".", "--data.download", "false"],
        "documentation, Guide › Data",
    ),
    "own data": (["datasets", "import", "none", "--name", "x"], "documentation, How-to › Your own data"),
    "an unknown setting, whose neighbours are told": (["fit", "--data.batchsize", "3"], None),
    "a problem that names a command": (["runs", "show", "none"], None),
    "a mistyped flag": (["submit", "--nothing"], None),
}


@pytest.mark.parametrize("name", HELPED)
def test_one_line_after_all_problems_says_where_more_is_to_be_read(capsys, name):
    arguments, more = HELPED[name]
    assert main(arguments) == 2
    *problems, last = capsys.readouterr().err.splitlines()
    if more is None:
        assert not last.startswith("help: ")
    else:
        assert last == f"help: {more}"
        assert problems
    assert not any(line.startswith("help: ") for line in problems)


def test_what_is_told_can_be_typed(capsys):
    assert main(["fit", "--model.optimizer.learning_rate", "2"]) == 2
    words = capsys.readouterr().err.splitlines()[-1].removeprefix("help: visionforge ").split()
    assert main(words) == 0
    assert "training.md#optimiser" in capsys.readouterr().out


def test_kinds_of_errors():
    assert error_help(errors.WeightsError("the file holds nothing")) == "documentation, Guide › Models"
    assert error_help(errors.TrainingError("the training cannot go on")) is None
    for name, page in ARGUMENTS.items():
        assert error_help(errors.SettingsError(f"--{name}: this is not allowed")) == f"documentation, {TITLES[page]}"
