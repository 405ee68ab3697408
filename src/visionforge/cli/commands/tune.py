"""`visionforge tune`: a search for hyperparameters, or the reports of one anew."""

from typing import TYPE_CHECKING

from visionforge.cli.arguments import flags_named
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.cli.stages import read_settings
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import say

if TYPE_CHECKING:
    from visionforge.tuning.found import Study


def run(arguments: list[str]) -> int:
    """Run the command; return 1 if there was no trial that could be trained again, and 0 otherwise."""
    raw = read_settings("tune", arguments)
    if raw is None:
        return 0
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.tuning import rebuild, take_folds, tune

    report = raw.values.pop("report", None)
    if report is not None:
        with flags_named({"study": "--report"}):
            study = rebuild(str(report), check_arguments(raw, "predict"))
        print_json(study.as_dict()) if raw.json else _print_summary(study)
        return 0
    take_folds(raw)
    settings = check_arguments(raw, "fit")
    with Interruption() as interruption:
        study = tune(settings, interruption, _print_summary)
    print_json(study.as_dict()) if raw.json else _print_refit(study)
    return int(settings.tune.refit and study.refit is None)


def _print_summary(study: "Study") -> None:
    from visionforge.tuning.folder import StudyFolder
    from visionforge.tuning.live import print_summary

    print_summary(study.optuna, StudyFolder(study.path), study.objectives)


def _print_refit(study: "Study") -> None:
    from visionforge.cli.result_tables import print_results

    refit = study.refit
    if refit is not None and study.refitted and refit.result.checkpoint is not None:
        print_results(refit.result.content, refit.workspace, refit.result.checkpoint)
    elif refit is not None and not study.refitted:
        say(f"refit: complete already, {shown(refit.path)}")


COMMAND = Command(
    "tune",
    "search hyperparameters; the same command again resumes the study",
    run,
    place=20,
    examples=("tune --config configs/tune_resnet18_28.yaml --tune.n_trials 20",),
)
