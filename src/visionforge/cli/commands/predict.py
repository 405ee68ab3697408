"""`visionforge predict`: the test split, or with `--images` any pictures."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.lightning import run_stage

    if any(argument.partition("=")[0] == "--images" for argument in arguments):
        from visionforge.cli.predict_images import run_predict_images

        return run_predict_images(arguments)
    return run_stage("predict", arguments)


COMMAND = Command(
    "predict",
    "write the class probabilities of a run for the test split, or with --images for any pictures",
    _run,
    place=50,
)
