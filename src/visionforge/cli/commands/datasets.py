"""`visionforge datasets`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.datasets import run_datasets

    return run_datasets(arguments)


COMMAND = Command(
    "datasets",
    "list | info | download | check | stats | show | import: the catalog of data sets",
    _run,
    place=110,
    tells=True,
)
