"""`visionforge validate`."""

from functools import partial

from visionforge.cli.command import Command
from visionforge.cli.stages import evaluate_stage

COMMAND = Command(
    "validate",
    "evaluate a run on the validation split",
    partial(evaluate_stage, "validate"),
    place=30,
)
