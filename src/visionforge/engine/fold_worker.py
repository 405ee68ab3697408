"""A worker of a cross-validation: it reads settings from standard input, and fits folds that nobody else is at."""

import json
import sys

from visionforge.config.imports import import_modules
from visionforge.config.schema import RunSettings
from visionforge.engine.fit import Request
from visionforge.engine.folds import of_each_fold, work_on
from visionforge.errors import VisionForgeError
from visionforge.printable import LONGEST_LINE, printable
from visionforge.redaction import redact_text
from visionforge.runs.signals import Interrupted, Interruption

EXIT_MISTAKE = 2


def main() -> int:
    """Fit with the settings that the first process has sent; return the exit status."""
    values = json.load(sys.stdin.buffer)
    try:
        import_modules(values.get("imports", ()))  # before the settings, which may name what is registered there
        requests = [Request(settings, {}) for settings in of_each_fold(RunSettings.model_validate(values))]
        with Interruption() as interruption:
            work_on(requests[::-1], interruption)  # from the other end, so that two seldom meet
    except VisionForgeError as error:
        for problem in error.problems:
            print(f"error: {printable(redact_text(problem), LONGEST_LINE)}", file=sys.stderr)
        return EXIT_MISTAKE
    except Interrupted as interrupted:
        return interrupted.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
