"""`visionforge tune`: a search for hyperparameters, or the reports of one anew."""

from typing import TYPE_CHECKING

from visionforge.cli.arguments import flags_named
from visionforge.cli.command import Command
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import say, say_text

if TYPE_CHECKING:
    from visionforge.tuning.found import Study

USAGE = """\
usage: visionforge tune --config FILE [--tune.n_trials 20] [--section.key VALUE ...]
       visionforge tune --report STUDY

Search hyperparameters. Every trial is an ordinary fit; the same command again resumes the study.

  --config FILE
      YAML file with settings; may be given several times, a later one wins key by key.
  --report STUDY
      Search nothing; write the reports of a study, given by its folder or its name, anew. It takes --tune.storage
      where the study is not kept in its folder.

All settings of `visionforge fit --help` apply, and these:

"""


def run(arguments: list[str]) -> int:
    """Run the command; return 1 if there was no trial that could be trained again, and 0 otherwise."""
    from visionforge.config.loading import read_arguments

    raw = read_arguments(arguments)
    if raw.help is not None:
        return _help()
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.tuning import rebuild, tune

    report = raw.values.pop("report", None)
    if report is not None:
        with flags_named({"study": "--report"}):
            _print_summary(rebuild(str(report), check_arguments(raw, "predict")))
        return 0
    settings = check_arguments(raw, "fit")
    with Interruption() as interruption:
        study = tune(settings, interruption, _print_summary)
    _print_refit(study)
    return int(settings.tune.refit and study.refit is None)


def _help() -> int:
    from visionforge.config.schema import TuneSettings
    from visionforge.engine.settings_help import section_help

    say_text(USAGE + section_help(TuneSettings, "tune."))
    return 0


def _print_summary(study: "Study") -> None:
    from visionforge.tuning.live import print_summary
    from visionforge.tuning.storage import StudyFolder

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
