"""`visionforge test`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.lightning import run_stage

    return run_stage("test", arguments)


COMMAND = Command(
    "test",
    "evaluate a run on the test split",
    _run,
    place=40,
    examples=("test --run outputs/20261123_breastmnist_resnet18_a3f7c2",),
)
