"""`visionforge models`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.models import run_models

    return run_models(arguments)


COMMAND = Command(
    "models",
    "list | info: the backbones, what they cost and what they see",
    _run,
    place=120,
    tells=True,
)
