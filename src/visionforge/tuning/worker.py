"""A worker of a search: it reads settings from standard input, and works on their study like every other worker."""

import json
import sys

from visionforge.config.imports import import_modules
from visionforge.config.schema import RunSettings
from visionforge.errors import VisionForgeError
from visionforge.printable import LONGEST_LINE, printable
from visionforge.redaction import redact_text
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.tuning import tune
from visionforge.tuning.workers import EXIT_MISTAKE


def main() -> int:
    """Search with the settings that the first process has sent; return the exit status."""
    values = json.load(sys.stdin.buffer)
    try:
        import_modules(values.get("imports", ()))  # before the settings, which may name what is registered there
        settings = RunSettings.model_validate(values)
        with Interruption() as interruption:
            tune(settings, interruption, lambda _: None, worker=True)
    except VisionForgeError as error:
        for problem in error.problems:
            print(f"error: {printable(redact_text(problem), LONGEST_LINE)}", file=sys.stderr)
        return EXIT_MISTAKE
    except Interrupted as interrupted:
        return interrupted.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
