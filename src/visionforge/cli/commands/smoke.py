"""`visionforge smoke`: the whole pipeline on rendered images in a temporary folder, one line per stage."""

import time
from typing import TYPE_CHECKING

from visionforge.cli.command import Command
from visionforge.errors import SettingsError
from visionforge.streams import say, say_text

if TYPE_CHECKING:
    from visionforge.engine.smoke import StageResult

EXIT_FAILED = 1
USAGE = "usage: visionforge smoke\n\nTry the whole pipeline on rendered images; exit status 1 if it fails."


def run(arguments: list[str]) -> int:
    """Run all stages; return 0 if every one passed and 1 otherwise."""
    if arguments in (["--help"], ["-h"]):
        say_text(USAGE)
        return 0
    if arguments:
        raise SettingsError(f"smoke: {arguments[0]}: takes no arguments")
    from visionforge.engine.smoke import smoke

    started = time.perf_counter()
    results = smoke(_print)
    passed = sum(result.passed for result in results)
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
