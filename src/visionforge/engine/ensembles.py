"""Networks of several runs as one: which may be joined, and the run folder that they get."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from visionforge.config.environment import warn_of_environment
from visionforge.config.loading import RawConfig
from visionforge.config.schema import Resize, RunSettings
from visionforge.engine.evaluate import target_of
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.run import Run, open_run
from visionforge.errors import RunError, SettingsError
from visionforge.runs.logfile import RunLog
from visionforge.runs.query import stored_runs
from visionforge.runs.session import ENSEMBLE, SINGLE
from visionforge.runs.signals import Interruption

MOST = 100
_SAME = (
    *("dataset", "synthetic", "resolution", "force_rgb"),
    *("folds", "fold_pool", "fold_repeats", "fold_seed", "groups"),
)


def make_ensemble(
    runs: Sequence[str | Path | Run],
    interruption: Interruption,
    outputs: Path | None = None,
    anew: bool = False,
    log_level: str | None = None,
) -> Run:
    """Join the best networks of several runs, test them together, and write that into a run folder.

    Runs that are all the folds of a division also give predictions of every image by networks that have not learnt it.
    An ensemble of the same runs that is complete is taken as it is.

    Args:
        runs: Folders, names, or the objects: complete fits on the same data, at least two.
        interruption: Handles the signals.
        outputs: The folder of all runs; None is that in which the first of the runs lies.
        anew: Make it also where it is there already.
        log_level: What is logged; None is what runs log by default.

    Raises:
        SettingsError: If the runs cannot be joined.
        VisionForgeError: If a run, its checkpoint or the data cannot be used; nothing is left then.
        Interrupted: If a signal ended it; nothing is left then, either.
    """
    found = [open_run(run) for run in runs]
    _require_fits(found)
    asked = [target_of(RawConfig({"run": str(run.path)}), ENSEMBLE) for run in found]
    settings = [each for _, each, _ in asked]
    _require_same_data(found, settings)
    _require_all_folds(settings)
    digest = _digest(found)
    folder = found[0].path.parent if outputs is None else outputs
    if not anew:
        same = [run for run in stored_runs(folder, digest)[0] if run.manifest.hash == digest]
        same = [run for run in same if run.manifest.stage == ENSEMBLE]
        if done := [run for run in same if run.state == "complete" and run.metrics]:
            return Run.of(done[-1])

    import_lightning()  # see `fit.fit`
    from visionforge.engine.construction import Construction
    from visionforge.engine.ensembling import Ensembling, Member

    trainer = type(settings[0].trainer).model_validate(
        {**settings[0].trainer.model_dump(), "default_root_dir": str(folder), "devices": 1, "num_nodes": 1}
    )
    data = settings[0].data
    if any(each.data.resize != data.resize for each in settings):  # each network resizes by itself
        data = data.model_copy(update={"resize": Resize()})
    changed = {"data": data, "trainer": trainer, "log_level": log_level or settings[0].log_level}
    first = settings[0].model_copy(update=changed)
    members = [Member(run, target, each.data.fold) for run, (target, each, _) in zip(found, asked, strict=True)]
    with RunLog(first.log_level) as run_log:
        warn_of_environment()
        making = Ensembling(Construction(first, evaluation=True), run_log, interruption, members, digest)
        making.run()
    return Run(making.workspace)


def _require_fits(runs: Sequence[Run]) -> None:
    if not 2 <= len(runs) <= MOST:
        raise SettingsError(f"ensemble: {len(runs)} run{'s' * (len(runs) != 1)} given; allowed: 2 to {MOST}")
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise SettingsError("ensemble: a run is named twice; name each once")
    for run in runs:
        stage, state = run.stored.manifest.stage, run.state
        if stage not in SINGLE or state != "complete":
            raise RunError(
                f"ensemble: {run.name} is {state if stage in SINGLE else f'no fit ({stage})'}; only complete fits are "
                "joined"
            )


def _require_same_data(runs: Sequence[Run], settings: Sequence[RunSettings]) -> None:
    one = settings[0].data
    problems = [
        f"ensemble: data.{name} is {getattr(one, name)} in {runs[0].name} and {getattr(other.data, name)} in "
        f"{run.name}; only networks of the same data are joined"
        for run, other in zip(runs[1:], settings[1:], strict=True)
        for name in _SAME
        if getattr(other.data, name) != getattr(one, name)
    ]
    if problems:
        raise SettingsError(problems)


def _require_all_folds(settings: Sequence[RunSettings]) -> None:
    data = settings[0].data
    if data.folds is None:
        return
    wanted = set(range(data.folds * data.fold_repeats))
    given = [each.data.fold for each in settings]
    if sorted(fold for fold in given if fold is not None) != sorted(wanted):
        missing = sorted(wanted - set(given))
        told = f"missing: {', '.join(map(str, missing))}" if missing else "one is there twice"
        raise SettingsError(
            f"ensemble: each of the {len(wanted)} folds is needed once, {told}; `visionforge fit --folds {data.folds}` "
            "trains those that are not there"
        )


def _digest(runs: Sequence[Run]) -> str:
    """Return six digits by which the same networks are known again, in whatever order they are named."""
    marks = sorted(run.stored.manifest.mark for run in runs)
    return hashlib.blake2b("/".join(marks).encode(), digest_size=3).hexdigest()
