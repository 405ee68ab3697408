"""A search: check everything, open the study, run its trials as fits, and keep its reports current."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from visionforge.config.environment import warn_of_environment
from visionforge.config.loading import RawConfig
from visionforge.config.resizing import network_resolution
from visionforge.config.schema import RunSettings
from visionforge.config.schema.metrics import watched_problem
from visionforge.config.schema.tasks import task_named
from visionforge.data.registry import dataset_info
from visionforge.data.source import prepare
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.fit import Origin, Request, TrialPart, fit
from visionforge.engine.folds import number_of_folds
from visionforge.engine.other_data import other_data
from visionforge.engine.resume import complete_run, outputs_of
from visionforge.engine.run import Run
from visionforge.engine.validation import check_settings
from visionforge.errors import DataError, RunError, SettingsError, VisionForgeError
from visionforge.inference.trust import training_config
from visionforge.models.registry import backbone_entry, backbone_names
from visionforge.redaction import hidden_settings, redact_settings
from visionforge.runs.config_hash import canonical, digest, processes_of, six_digits, with_portable_paths
from visionforge.runs.files import refuse_links, write_atomic
from visionforge.runs.logfile import RunLog
from visionforge.runs.paths import shown
from visionforge.runs.query import find_checkpoint, load_run
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.found import Study

if TYPE_CHECKING:  # imported where it is needed, because torch and optuna take seconds
    import optuna

    from visionforge.tuning.objective import TrialFit

log = logging.getLogger(__name__)

HIDDEN = "…"
FIGURES_SHARE = 0.1  # of the time may go into figures while the search runs; at its end they are always written


def tune(
    settings: RunSettings,
    interruption: Interruption,
    told: Callable[[Study], None] = lambda _: None,
    worker: bool = False,
) -> Study:
    """Search hyperparameters; the same settings again go on with the study.

    Args:
        settings: The settings, which are valid.
        interruption: Handles the signals.
        told: Called with the study when the search has ended, before its best trial is trained again.
        worker: Another process tells of the trials and writes the reports.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended the search.
    """
    settings = with_metric(settings)
    require_tunable(settings)
    return Tuning(settings, worker).run(interruption, told)


def take_folds(raw: RawConfig) -> None:
    """Turn ``--folds 5`` into the settings that it is short for.

    Raises:
        SettingsError: If it is no number of folds, or differs from `data.folds`.
    """
    given = raw.values.pop("folds", None)
    if given is None:
        return
    folds = number_of_folds(given)
    told = raw.values.get("data", {}).get("folds")
    if told not in (None, folds):
        raise SettingsError(f"data.folds: {told} and --folds {folds} differ; leave one of them out")
    raw.merge({"data": {"folds": folds}, "tune": {"cross_validate": True}}, "with --folds")


def with_metric(settings: RunSettings) -> RunSettings:
    """Return settings that name what is searched for."""
    if settings.tune.metric != "auto":
        return settings
    task = task_named(dataset_info(settings.data.dataset, settings.data.synthetic).task)
    return settings.model_copy(update={"tune": settings.tune.model_copy(update={"metric": task.monitor})})


def require_tunable(settings: RunSettings) -> None:
    """Check the rules of a search.

    Raises:
        RunError: If all trials are to learn from a teacher that is not there.
        SettingsError: With a line for every broken one.
    """
    tune, problems = settings.tune, []
    if (teacher := settings.model.distillation.teacher) is not None:
        find_checkpoint(teacher, "model.distillation.teacher")
    if (nodes := settings.trainer.model_dump().get("num_nodes") or 1) > 1:
        problems.append(
            f"trainer.num_nodes: {nodes} is not allowed; a trial runs on one machine, and others take part with a "
            "search of their own on the same tune.storage"
        )
    if settings.ckpt_path is not None or settings.resume is not None:
        problems.append("ckpt_path and resume: a search begins anew or goes on by itself; leave them out")
    if tune.second_metric is not None and tune.pruner != "none":
        problems.append("tune.pruner: nothing can be pruned with two objectives; set it to none")
    if tune.sampler == "nsgaii" and tune.second_metric is None:
        problems.append("tune.sampler: nsgaii is for two objectives; set tune.second_metric, or take tpe")
    if tune.second_metric is not None and tune.sampler not in ("nsgaii", "tpe", "random"):
        problems.append(f"tune.sampler: {tune.sampler} takes one objective; allowed with two: nsgaii, tpe, random")
    if tune.sampler == "grid" and tune.start_from is not None:
        problems.append("tune.start_from: a grid tries every point in any case; leave it out, or take another sampler")
    if tune.pool is not None and tune.preset != "architectures":
        problems.append(f"tune.pool: would be ignored, because tune.preset is {tune.preset}; set it to architectures")
    if tune.cross_validate:
        if settings.data.folds is None:
            problems.append("tune.cross_validate: needs data.folds; say how many folds there are")
        if settings.data.fold is not None:
            problems.append(f"data.fold: {settings.data.fold} is one fold, tune.cross_validate trains all; leave it")
        if tune.pruner == "halving":
            problems.append("tune.pruner: halving pauses within a training; with tune.cross_validate take median")
        if tune.refit:
            problems.append("tune.refit: trains one network; train the best with `visionforge fit --folds`")
    task = dataset_info(settings.data.dataset, settings.data.synthetic).task
    if problem := watched_problem(tune.metric, task):
        problems.append(f"tune.metric: {problem}")
    flags = settings.trainer.model_extra or {}
    if flags.get("limit_val_batches") in (0, 0.0) and flags.get("limit_val_batches") is not False:
        problems.append("trainer.limit_val_batches: 0 leaves no metric to search for; raise it")
    if flags.get("val_check_interval") not in (None, 1.0):
        problems.append("trainer.val_check_interval: a search compares whole epochs; leave it out")
    for name in tune.pool or ():
        try:
            backbone_entry(name)
        except VisionForgeError as error:
            problems += [problem.replace("model.backbone.name", "tune.pool") for problem in error.problems]
    if problems:
        raise SettingsError(problems)


def studies_folder(settings: RunSettings) -> Path:
    """Return the folder of all studies."""
    return outputs_of(settings) / "studies"


class Tuning:
    """One search: the study it works on, and what it tells and writes.

    Args:
        settings: The settings.
        worker: Another process tells of the trials and writes the reports.
    """

    def __init__(self, settings: RunSettings, worker: bool = False) -> None:
        import_lightning()
        from visionforge.tuning.folder import StudyFolder
        from visionforge.tuning.samplers import grid_of
        from visionforge.tuning.search import quiet_optuna
        from visionforge.tuning.space import build_space
        from visionforge.tuning.study import objectives

        quiet_optuna()
        self.settings = settings
        self.worker = worker
        self.info = dataset_info(settings.data.dataset, settings.data.synthetic)
        self.space = build_space(_with_fold(settings), self.info.flags, self._pool(), self._check)
        if settings.tune.sampler == "grid":
            grid_of(self.space)
        self.config = with_portable_paths(self.space.base)
        self.searched = self._searched()
        self.name = settings.tune.study or self._default_name()
        self.folder = StudyFolder(studies_folder(settings) / self.name)
        self.objectives = objectives(settings.tune)
        self.starts = self._starts()
        self._figures_took = 0.0
        self._figures_at = time.monotonic()

    def _pool(self) -> list[str]:
        """Return the built-in backbones that fit the images, for the preset `architectures`."""
        data, dims = self.settings.data, self.info.spatial_dims
        resolution = network_resolution(data.resize, data.resolution)
        found = []
        for entry in (backbone_entry(name) for name in backbone_names()):
            if not entry.is_builtin or dims not in entry.spatial_dims:
                continue
            fits = resolution >= entry.min_resolution and resolution % entry.multiple_of(resolution, True, dims) == 0
            if fits and (entry.has_published_weights or not self.settings.model.backbone.pretrained):
                found.append(entry.name)
        return found

    def _starts(self) -> list[dict[str, Any]]:
        """Return the values of earlier studies that are tried first."""
        tune = self.settings.tune
        if tune.start_from is None or self.worker:
            return []
        from visionforge.tuning.starts import earlier_values

        return earlier_values(tune.start_from, tune.start_trials, self.space, studies_folder(self.settings))

    @staticmethod
    def _check(values: Mapping[str, Any]) -> list[str]:
        try:
            check_settings(values, "fit")
        except SettingsError as error:
            return list(error.problems)
        return []

    def _searched(self) -> dict[str, Any]:
        """Return what a study keeps when it is resumed."""
        tune = self.settings.tune
        kept = ["metric", "second_metric", "epochs", "sampler", "pruner"]
        if tune.pruner == "halving":  # trials that wait were compared on these rungs
            kept += ["n_warmup_epochs", "reduction_factor"]
        return {
            "space": self.space.described(),
            "configuration": digest(self.config),
            "resolution": self.settings.data.resolution,
            **{f"tune.{name}": getattr(tune, name) for name in kept},
            **({"tune.cross_validate": True} if tune.cross_validate else {}),
        }

    def _default_name(self) -> str:
        number = six_digits(canonical(self.config) + json.dumps(self.searched, sort_keys=True))
        return f"{self.info.name}_{self.settings.model.backbone.name.replace('/', '-')}_{number}"

    # --- the search

    def run(self, interruption: Interruption, told: Callable[[Study], None]) -> Study:
        """Search, report, and refit if that is asked for; see `tune`."""
        from visionforge.tuning.halving import Ladder
        from visionforge.tuning.objective import trial_epochs
        from visionforge.tuning.storage import shown_storage
        from visionforge.tuning.study import open_study

        data = self.settings.data
        prepare(self.info, data.resolution, data.root, data.download)
        level = self.settings.log_level
        with RunLog("error" if self.worker and level != "debug" else level) as run_log:
            ladder = Ladder.of(self.settings.tune, trial_epochs(self.settings))
            study = open_study(self.settings.tune, self.folder, self.name, self.searched, ladder)
            self._require_same_data(study)
            self._write_settings()
            if not self.worker:
                run_log.attach(self.folder.log)
                warn_of_environment()
            for line in self.space.left_out:
                log.info("%s", line)
            log.info("study %s in %s", self.name, shown(self.folder.path))
            log.info("kept in %s", shown_storage(self.settings.tune, self.folder))
            with interruption.afterwards():  # a job is requeued when its study is written
                try:
                    reason = self._search(study, interruption)
                except BaseException as error:
                    self._say_how_to_go_on(error)
                    raise
                finally:
                    with interruption.deferred():
                        if not self.worker:
                            self.report(study, figures=True)
            log.info("%s", reason)
            found = Study(self.folder.path, study, self.objectives)
            if not self.worker:
                told(found)
                if self.settings.tune.refit:
                    self._refit(found, interruption)
            return found

    def _require_same_data(self, study: "optuna.Study") -> None:
        """Raise DataError if trials were of a data set that is another one now: values of both do not compare."""
        from visionforge.tuning.trials import run_of

        for trial in reversed(study.get_trials(deepcopy=False)):
            run = run_of(trial, self.folder)
            if run is None or not run.manifest.is_file():
                continue
            if (changed := other_data(load_run(run))) is not None:
                raise DataError(f"tune.study: {changed}; begin another study with --tune.study NAME")
            return

    def _write_settings(self) -> None:
        if self.worker or self.folder.settings.exists():
            return
        storage = self.settings.tune.storage
        shown_storage = storage if storage in (None, "journal") else HIDDEN  # it may hold a password
        content = {**self.config, "tune": {**self.settings.tune.model_dump(mode="json"), "storage": shown_storage}}
        write_atomic(self.folder.settings, yaml.safe_dump(redact_settings(content), sort_keys=False))

    def _search(self, study: "optuna.Study", interruption: Interruption) -> str:
        from visionforge.tuning.live import Progress
        from visionforge.tuning.objective import Objective
        from visionforge.tuning.search import begin, search
        from visionforge.tuning.workers import run_workers

        tune = self.settings.tune
        minutes = tune.timeout_minutes
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        if not self.worker:
            begin(study, self.space, self.starts, grid=tune.sampler == "grid")
        with Progress(study, tune.n_trials, self.objectives, quiet=self.worker) as progress:
            if tune.workers > 1 and not self.worker:
                return run_workers(
                    study,
                    self.settings,
                    self.space,
                    deadline,
                    lambda: self._trial_ended(study, progress.refresh),
                    progress.tick,
                    interruption,
                )
            runner = _Runner(self.settings, interruption)
            objective = Objective(self.settings, self.space, runner, self.folder, self.name, progress.epoch)
            return search(
                study,
                self.settings,
                self.space,
                objective,
                lambda trial: self._trial_ended(study, lambda: progress.ended(trial)),
                deadline,
            )

    def _trial_ended(self, study: "optuna.Study", tell: Callable[[], None]) -> None:
        """Tell of a trial and bring the reports up to date; figures only as often as their time allows."""
        tell()
        if not self.worker:
            due = time.monotonic() - self._figures_at >= self._figures_took / FIGURES_SHARE
            self.report(study, figures=due)

    def report(self, study: "optuna.Study", figures: bool) -> None:
        """Write the tables, and the figures if asked."""
        from visionforge.tuning.figures import write_figures
        from visionforge.tuning.report import write_tables

        settings = self.settings.tune.model_dump(mode="json", exclude={"storage"})
        content = write_tables(study, self.folder, self.objectives, settings)
        if figures:
            started = time.monotonic()
            write_figures(study, self.folder, content)
            self._figures_at = time.monotonic()
            self._figures_took = self._figures_at - started

    def _say_how_to_go_on(self, error: BaseException) -> None:
        if isinstance(error, Interrupted):
            log.warning("interrupted by %s; the same command goes on with the study %s", error.name, self.name)

    def _refit(self, study: Study, interruption: Interruption) -> None:
        """Train the best trial's configuration at full length and test it; a run that is complete is taken as it is."""
        from visionforge.engine.construction import Construction
        from visionforge.tuning.study import best_trials
        from visionforge.tuning.trials import run_of

        best = best_trials(study.optuna)
        if not best:
            log.warning("no trial was completed, so there is nothing to train at full length")
            return
        run = run_of(best[0], self.folder)
        if run is None:
            raise RunError(f"tune.refit: trial {best[0].number} does not say which run it was")
        config = training_config(run, None, "tune.refit")
        trainer = {**config["trainer"], "max_epochs": self.settings.trainer.max_epochs}
        trainer["default_root_dir"] = str(outputs_of(self.settings))
        parent = {"study": self.name, "trial": best[0].number, "reason": "refit"}
        # no stored configuration has secrets; this process does
        for key in {path.split(".")[1] for path in hidden_settings(config["trainer"], "trainer")}:
            trainer[key] = self.space.base["trainer"][key]
        refit = check_settings({**config, "trainer": trainer, "resume": "auto"}, "fit")
        known = complete_run(Construction(refit).resolved, outputs_of(refit))
        if known is not None:
            study.refit, study.refitted = Run.of(known), False
            return
        study.refit, study.refitted = fit(Request(refit, {}), interruption, Origin(parent)), True


def _with_fold(settings: RunSettings) -> RunSettings:
    """Return settings that hold for every trial; under cross-validation each trial takes one fold after the other."""
    if not settings.tune.cross_validate:
        return settings
    return settings.model_copy(update={"data": settings.data.model_copy(update={"fold": 0})})


class _Runner:
    """Runs a trial as `visionforge fit` would, in this process.

    Args:
        settings: The settings of the study.
        interruption: Handles the signals.
    """

    def __init__(self, settings: RunSettings, interruption: Interruption) -> None:
        self._settings = settings
        self._interruption = interruption

    def __call__(self, trial: "TrialFit") -> Path:
        """Fit, and return the run folder."""
        import optuna

        config = {key: value for key, value in trial.config.items() if key not in ("resume", "ckpt_path")}
        processes = processes_of(config["trainer"]) or 1
        devices = {} if processes > 1 else {"devices": 1}
        config["trainer"] = {**config["trainer"], "default_root_dir": str(trial.folder), **devices}
        settings = check_settings(config, "fit")
        if processes > 1:
            return self._apart(trial, settings, processes)
        part = TrialPart(trial.callbacks, optuna.TrialPruned, self._settings.tune.metric)
        stored = None if trial.run is None else training_config(trial.run, None, "trial")
        request = Request(settings, {}, run=trial.run, stored=stored)
        return fit(request, self._interruption, Origin(trial.parent, part)).path

    def _apart(self, trial: "TrialFit", settings: RunSettings, processes: int) -> Path:
        """Fit in processes of its own."""
        from visionforge.tuning.apart import Watch, fit_apart

        def begun(run: Path) -> None:
            trial.best.run = run

        def ended(epoch: int, value: float) -> bool:
            trial.best.take(epoch, value)
            return trial.ends is not None and trial.ends(epoch, value)

        watch = Watch(begun, ended, trial.pauses, trial.waits, self._settings.tune.metric)
        return fit_apart(settings, processes, trial.run, trial.parent, watch, self._interruption)


def rebuild(text: str, settings: RunSettings) -> Study:
    """Write all reports of a study anew.

    Args:
        text: Folder or name of the study.
        settings: Where the studies are, and `tune.storage` where this one is not kept in its folder.

    Raises:
        VisionForgeError: If there is no such study, or it cannot be read.
    """
    from visionforge.tuning.figures import write_figures
    from visionforge.tuning.report import find_study, write_tables
    from visionforge.tuning.search import quiet_optuna
    from visionforge.tuning.stored_settings import stored_tune
    from visionforge.tuning.study import load_study, objectives

    quiet_optuna()
    folder = find_study(text, studies_folder(settings))
    refuse_links(folder.path)
    tune = stored_tune(folder.settings, settings.tune.storage)
    study = load_study(tune, folder, folder.path.name)
    names = objectives(tune)
    content = write_tables(study, folder, names, tune.model_dump(mode="json", exclude={"storage"}))
    write_figures(study, folder, content)
    return Study(folder.path, study, names)
