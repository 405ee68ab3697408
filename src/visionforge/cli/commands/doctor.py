"""`visionforge doctor`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.doctor import run_doctor

    return run_doctor(arguments)


COMMAND = Command(
    "doctor",
    "this machine, its folders, and processes that dead runs left behind",
    _run,
    place=100,
    tells=True,
)
