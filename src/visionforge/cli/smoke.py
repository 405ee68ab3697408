"""`visionforge smoke`: the whole pipeline on rendered images in a temporary folder, one line per stage."""

import time

from visionforge.cli.arguments import say, say_text
from visionforge.engine.smoke import StageResult, smoke
from visionforge.errors import SettingsError

EXIT_FAILED = 1


def run_smoke(arguments: list[str]) -> int:
    """Run all stages; return 0 if every one passed and 1 otherwise."""
    if arguments in (["--help"], ["-h"]):
        say_text("usage: visionforge smoke\n\nTry the whole pipeline on rendered images; exit status 1 if it fails.")
        return 0
    if arguments:
        raise SettingsError(f"smoke: {arguments[0]}: takes no arguments")
    started = time.perf_counter()
    results = smoke(_tell)
    passed = sum(result.passed for result in results)
    say(f"{passed} of {len(results)} stages passed in {time.perf_counter() - started:.1f} s")
    return 0 if passed == len(results) else EXIT_FAILED


def _tell(result: StageResult) -> None:
    if result.passed:
        say(f"✓ {result.name}: {result.found} ({result.seconds:.1f} s)")
    else:
        say(f"✗ {result.name}: {result.found}")
