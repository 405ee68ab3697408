"""`visionforge init`: a commented configuration for what is there."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.runs.paths import shown
from visionforge.streams import say, say_lines


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _init)


def parser() -> CommandParser:
    """Return the parser of the command."""
    from visionforge.data.import_settings import import_flags
    from visionforge.engine.starter import MINUTES

    made = CommandParser(
        prog="visionforge init",
        description="Look at what is there, make a data set of pictures, and write a commented configuration that "
        "trains on it in some minutes.",
    )
    made.add_argument(
        "source",
        nargs="?",
        default=".",
        help="folder of class folders, of images and masks or with boxes; table (.csv, .xlsx) of paths and labels; or "
        "a name of the catalog; default: what lies in this folder",
    )
    made.add_argument("--name", help="catalog name of the new data set; default: that of the folder or table")
    made.add_argument("--minutes", type=float, default=MINUTES, help="for the training on a CPU; default %(default)g")
    made.add_argument("--output", type=Path, help="YAML file to write; default: NAME.yaml")
    made.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    add_json_flag(made)
    chosen = made.add_argument_group("of pictures", "What is chosen by what is there, or what `datasets import` takes.")
    for flag, given in import_flags().items():
        if flag == "--resolution":
            given["help"] = "height and width in pixels; default: by the pictures"
        chosen.add_argument(flag, **{**given, "default": argparse.SUPPRESS})
    return made


def _init(options: argparse.Namespace) -> int:
    from visionforge.engine.starter import begin, check_output

    given = dict(vars(options))
    as_json, output, overwrite = given.pop("json"), given.pop("output"), given.pop("overwrite")
    if output is not None:
        check_output(output, overwrite)  # before pictures are read
    own = {key: given.pop(key, None) for key in ("source", "name", "minutes", "root")}
    found = begin(**own, importing=given)
    path = found.write(output or Path(f"{found.info.name}.yaml"), overwrite)
    if as_json:
        print_json(
            {"file": str(path), "dataset": found.info.name, "minutes": found.minutes, "settings": found.settings}
        )
        return 0
    say_lines(found.lines("--replace --overwrite"))
    say(f"  file     {shown(path)}")
    say(f"  next     visionforge fit --config {shown(path)}{duration(found.minutes)}")
    return 0


def duration(minutes: float | None) -> str:
    """Return how long a training takes, as the end of a line."""
    return "" if minutes is None else f"     (about {max(1, round(minutes))} min)"


COMMAND = Command(
    "init",
    "look at what is there and write a commented configuration that trains on it in minutes",
    run,
    place=5,
    examples=("init photos/", "init patients.csv --minutes 30", "init bloodmnist"),
)
