"""`visionforge runs`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.runs import run_runs

    return run_runs(arguments)


COMMAND = Command(
    "runs",
    "list | show | diff | compare | clean: what the outputs folder holds",
    _run,
    place=80,
    tells=True,
)
