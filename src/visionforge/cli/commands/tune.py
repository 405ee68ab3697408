"""`visionforge tune`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.tune import run_tune

    return run_tune(arguments)


COMMAND = Command(
    "tune",
    "search hyperparameters; the same command again resumes the study",
    _run,
    place=20,
    examples=("tune --config configs/tune_resnet18_28.yaml --tune.n_trials 20",),
)
