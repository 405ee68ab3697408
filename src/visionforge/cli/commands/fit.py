"""`visionforge fit`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.lightning import run_stage

    return run_stage("fit", arguments)


COMMAND = Command(
    "fit",
    "train a network, test its best checkpoint, write the run folder; with --seeds 3, for three seeds",
    _run,
    place=10,
    examples=(
        "fit --config configs/quickstart.yaml",
        "fit --config configs/resnet18_28.yaml --data.dataset breastmnist --trainer.max_epochs 10",
    ),
)
