"""`visionforge explain`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.explain import run_explain

    return run_explain(arguments)


COMMAND = Command(
    "explain",
    "show on pictures where the network of a run looks",
    _run,
    place=60,
)
