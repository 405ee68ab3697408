"""`visionforge smoke`: the whole pipeline on rendered images in a temporary folder, one line per stage."""

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.streams import say

if TYPE_CHECKING:
    from visionforge.engine.smoke import StageResult

EXIT_FAILED = 1


def parser() -> CommandParser:
    """Return the command's parser."""
    text = "Try the whole pipeline on rendered images; exit status 1 if it fails."
    made = CommandParser(prog="visionforge smoke", description=text)
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run all stages; return 0 if every one passed and 1 otherwise."""
    return parser().run(arguments, _smoke)


def _smoke(options: argparse.Namespace) -> int:
    from visionforge.engine.smoke import smoke

    started = time.perf_counter()
    results = smoke(_print)
    passed = sum(result.passed for result in results)
    if options.json:
        print_json([asdict(result) for result in results])
    say(f"{passed} of {len(results)} stages passed in {time.perf_counter() - started:.1f} s")
    return 0 if passed == len(results) else EXIT_FAILED


def _print(result: "StageResult") -> None:
    if result.passed:
        say(f"✓ {result.name}: {result.found} ({result.seconds:.1f} s)")
    else:
        say(f"✗ {result.name}: {result.found}")


COMMAND = Command(
    "smoke",
    "try the whole pipeline on rendered images in a temporary folder",
    run,
    place=130,
)
