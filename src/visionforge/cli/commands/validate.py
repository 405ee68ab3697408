"""`visionforge validate`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.lightning import run_stage

    return run_stage("validate", arguments)


COMMAND = Command(
    "validate",
    "evaluate a run on the validation split",
    _run,
    place=30,
)
