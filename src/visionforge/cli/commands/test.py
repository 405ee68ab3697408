"""`visionforge test`."""

from functools import partial

from visionforge.cli.command import Command
from visionforge.cli.stages import evaluate_stage

COMMAND = Command(
    "test",
    "evaluate a run on the test split",
    partial(evaluate_stage, "test"),
    place=40,
    examples=("test --run outputs/20261123_breastmnist_resnet18_a3f7c2",),
)
