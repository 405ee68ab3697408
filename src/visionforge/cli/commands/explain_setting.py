"""`visionforge explain-setting`: everything that is known of a setting."""

import argparse

from visionforge.cli.arguments import CommandParser, add_import_flag, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.streams import say_lines


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _explain)


def parser() -> CommandParser:
    """Return the parser of the command."""
    made = CommandParser(
        prog="visionforge explain-setting",
        description="Tell what a setting means, what it takes, what reads it, and which others it is checked with.",
    )
    made.add_argument("setting", help="dotted name, such as model.mixup.alpha")
    add_import_flag(made, "settings are known, too")
    add_json_flag(made)
    return made


def _explain(options: argparse.Namespace) -> int:
    from visionforge.engine.setting_facts import explain_setting

    found = explain_setting(options.setting)
    if options.json:
        print_json(found.as_dict())
    else:
        say_lines(found.lines())
    return 0


COMMAND = Command(
    "explain-setting",
    "what a setting means, what it takes, and which others it is checked with",
    run,
    place=92,
    tells=True,
    examples=("explain-setting model.mixup.alpha",),
)
