"""`visionforge tune`."""

from visionforge.cli.arguments import say, say_text
from visionforge.cli.help import setting_text
from visionforge.cli.report import print_results
from visionforge.config.environment import ordered_arguments
from visionforge.config.loading import normalise, read_arguments
from visionforge.config.problems import flatten
from visionforge.config.schema import TuneSettings
from visionforge.engine.validation import check_arguments
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.tuning.found import Study
from visionforge.tuning.tuning import rebuild, require_tunable, tune

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


def run_tune(arguments: list[str]) -> int:
    """Run `visionforge tune` and return its exit status: 1 if there was no trial that could be trained again.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended the search.
    """
    raw = read_arguments(ordered_arguments(normalise(arguments)))
    if raw.help is not None:
        say_text(
            "\n".join([USAGE.rstrip(), "", *(setting_text(*item) for item in flatten(TuneSettings, "tune.").items())])
        )
        return 0
    report = raw.values.pop("report", None)
    if report is not None:
        _print_summary(rebuild(str(report), check_arguments(raw, "predict")))
        return 0
    settings = check_arguments(raw, "fit")
    require_tunable(settings)
    with Interruption() as interruption:
        study = tune(settings, interruption, _print_summary)
    refit = study.refit
    if refit is not None and study.refitted and refit.result.checkpoint is not None:
        print_results(refit.result.content, refit.workspace, refit.result.checkpoint)
    elif refit is not None and not study.refitted:
        say(f"refit: complete already, {shown(refit.path)}")
    return int(settings.tune.refit and refit is None)


def _print_summary(study: Study) -> None:
    from visionforge.tuning.live import print_summary
    from visionforge.tuning.storage import StudyFolder

    print_summary(study.optuna, StudyFolder(study.path), study.objectives)
