"""`visionforge smoke`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.smoke import run_smoke

    return run_smoke(arguments)


COMMAND = Command(
    "smoke",
    "try the whole pipeline on rendered images in a temporary folder",
    _run,
    place=130,
)
