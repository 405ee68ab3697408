"""`visionforge reproduce`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.reproduce import run_reproduce

    return run_reproduce(arguments)


COMMAND = Command(
    "reproduce",
    "run a run again, and say where the first difference is",
    _run,
    place=90,
)
