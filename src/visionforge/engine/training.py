"""The training of one run: what it is equipped with, what it says, and the test of its best checkpoint."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from visionforge.config.resizing import network_resolution
from visionforge.config.rules import cut_short
from visionforge.config.schema.metrics import watched_names
from visionforge.data.info import TaskSpec
from visionforge.engine.callbacks import check_callbacks, checkpoint_plugins, fit_callbacks
from visionforge.engine.construction import Construction, as_list
from visionforge.engine.distillation import describe_teacher, require_untaught
from visionforge.engine.distributed import current_rank, expected_processes, inherited_folder
from visionforge.engine.fit import Origin
from visionforge.engine.limits import limited, validation_limit
from visionforge.engine.profiling import StepProfiler
from visionforge.engine.provenance import describe_data, describe_session, warn_of_leaks
from visionforge.engine.resume import outputs_of, parent_of
from visionforge.engine.stage import Stage
from visionforge.engine.validation import device_facts, gather_facts
from visionforge.errors import SettingsError
from visionforge.inference.loading import read_checkpoint, require_more_training
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state
from visionforge.reporting.results import write_training_curves
from visionforge.runs.logfile import RunLog
from visionforge.runs.paths import resolve, shown
from visionforge.runs.session import ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace
from visionforge.training.checkpoints import BEST, LAST
from visionforge.training.distillation import Teacher
from visionforge.training.epoch_log import COLUMNS, EpochLog
from visionforge.training.monitor import Monitor, monitor_for, monitor_named, undefined_metric
from visionforge.training.rate_curve import steps_per_epoch

log = logging.getLogger(__name__)


class Training(Stage):
    """A fit.

    Args:
        construction: The resolved configuration.
        run_log: Takes the log file once the run folder exists.
        interruption: Handles the signals.
        origin: What the run comes from.
        active: The run that is continued; None makes a new one.
        checkpoint: What the training goes on from; None begins anew, or from `ckpt_path`.
        profile: Measure where the time goes, and write it.
    """

    name = "fit"

    def __init__(
        self,
        construction: Construction,
        run_log: RunLog,
        interruption: Interruption,
        origin: Origin,
        active: ActiveRun | None,
        checkpoint: Path | None,
        profile: bool = False,
    ) -> None:
        super().__init__(construction, run_log, interruption, active)
        self.trial = origin.trial
        self.parent = origin.parent or {}
        self._resumed = checkpoint is not None
        self._profiles = profile
        self._profiler: StepProfiler | None = None
        given = self.settings.ckpt_path
        self.checkpoint = checkpoint or (None if given is None else resolve(given))

    def is_pruned(self, error: BaseException | None) -> bool:
        """Return whether an error only says that the study has seen enough of this trial."""
        return self.trial is not None and isinstance(error, self.trial.pruned)

    # --- before the training

    def check_sources(self) -> None:
        """Download and verify archive, pretrained weights and teacher, before anything is made."""
        super().check_sources()
        backbone, data = self.settings.model.backbone, self.settings.data
        if backbone.pretrained and not self._resumed:
            pretrained_state(
                backbone_entry(backbone.name), backbone.weights, network_resolution(data.resize, data.resolution)
            )
        if self.checkpoint is not None and not self._resumed:
            require_more_training(self.checkpoint, self.settings.trainer)
        if self.settings.model.distillation.teacher is not None:
            Teacher.of(self.settings.model.distillation, TaskSpec.of(self.info, data.resolution, data.force_rgb))
            require_untaught(self.settings)

    def take_workspace(self) -> Workspace:
        """Return the run folder, made if need be; only the first process makes one and writes into it."""
        if current_rank() != 0:  # the Trainer tells it where the checkpoints are
            return self.workspace_of_another()
        settings = self.settings
        if self.active is None:
            self.active = ActiveRun.create(
                outputs_of(settings),
                self.construction.resolved,
                self.construction.hash,
                parent=self.parent or parent_of(settings),
                past_interrupted=settings.resume == "never" or self.trial is not None,
                past_running=self.trial is not None,  # another worker may try the same values
            )
        return self.active.workspace

    def build(self) -> None:
        """Write the log into the folder from now on, and into the manifest what is read; then build."""
        if self.active is not None:
            self.run_log.attach(self.workspace.log)
            describe_data(self.active, self.info, self.settings.data)
            if (teacher := self.settings.model.distillation.teacher) is not None:
                describe_teacher(self.active, teacher)
            if self.trial is None:
                warn_of_leaks(self.active, self.info, self.settings.data)
        elif inherited_folder() is not None:
            self.run_log.attach(self.workspace.rank_log(current_rank()))
        super().build()

    def equip(self, callbacks: list[Callback], loggers: list[Logger]) -> dict[str, Any]:
        """Add what every run has: checkpoints, and the table of epochs."""
        watched = watched_names(self.datamodule.info.task)
        columns = [name for name in COLUMNS if not name.startswith("val/") or name in watched]
        rows = EpochLog(self.workspace.epochs, columns)
        check_callbacks(callbacks, watched)
        if self.trial is not None:
            callbacks += self.trial.callbacks
        monitor = self._choose_monitor(callbacks)
        minutes = self.settings.checkpoint_minutes
        callbacks += fit_callbacks(self.workspace, minutes, self.interruption, rows, monitor, self._progress)
        loggers.insert(0, rows)
        flags = self.construction.flags
        more: dict[str, Any] = {"plugins": [*as_list(flags.get("plugins")), *checkpoint_plugins(flags.get("strategy"))]}
        if self._profiles and current_rank() == 0:
            self._profiler = more["profiler"] = StepProfiler(self.workspace.trace)
        return more

    def shows_progress(self) -> bool:
        """Return whether there is a progress bar where nobody has said so; a study has its own."""
        return self.trial is None and super().shows_progress()

    def _watched(self, callbacks: Sequence[Any]) -> dict[str, str]:
        """Return what epochs or trials are compared by → which setting says so."""
        by = {getattr(callback, "monitor", None): type(callback).__name__ for callback in callbacks}
        found = {name: f"trainer.callbacks: {who} goes by {name}, and" for name, who in by.items() if name is not None}
        if self.trial is not None:
            found[self.trial.metric] = "tune.metric:"
        if (chosen := self.settings.model.monitor) is not None:
            found[chosen] = "model.monitor:"
        return found

    def _choose_monitor(self, callbacks: Sequence[Any]) -> Monitor:
        """Return what the epochs are compared by, which has to be defined on the validation split.

        Raises:
            SettingsError: If a setting, a callback or the search goes by a metric that is undefined.
        """
        data, spec = self.datamodule.settings, self.datamodule.spec
        labels = self.datamodule.source.labels("val")
        limit = validation_limit(self.construction.flags)
        most = limited(len(labels), limit, data.images_of(expected_processes(self.settings)))
        seen, watched = np.asarray(labels[:most]), self._watched(callbacks)
        for name, who in watched.items():
            if name in watched_names(spec.task) and (reason := undefined_metric(name, seen, spec)):
                told = f"{name} is undefined on the validation split, because {reason}"
                mend = "let it go by val/loss" if who.startswith("trainer") else "set it to val/loss, or mend the split"
                raise SettingsError(f"{who} {told}; {mend}")
        monitor, reason = monitor_for(seen, spec)
        if (chosen := self.settings.model.monitor) is not None:
            monitor = monitor_named(chosen)
        elif reason is not None:
            told = f"{spec.kind.monitor} is undefined on the validation split, because {reason}"
            log.warning("%s; epochs are compared by %s instead", told, monitor.name)
        self.model.monitor, self.model.watched = monitor, tuple(watched)
        return monitor

    def _progress(self, epochs: int, steps: int) -> None:
        """Write into the manifest how far the training has come."""
        if self.active is not None:
            longest, most = self.settings.trainer.max_epochs, self.trainer.max_steps
            if most > 0:
                longest = min(longest, math.ceil(most / steps_per_epoch(self.trainer)))
            self.active.update(progress={"epochs": epochs, "max_epochs": longest, "steps": steps})

    # --- the training

    def work(self) -> None:
        """Train, and test the best checkpoint; a trial of a study does not touch the test split."""
        self._announce()
        if self.checkpoint is not None:
            content = read_checkpoint(self.checkpoint)  # the Trainer would not say in a line what is wrong with it
            if self._resumed:
                self._require_same_steps(content)
        beginning = None if self.checkpoint is None else str(self.checkpoint)
        with self.interruption.deferred(), self._profiled():
            self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=beginning, weights_only=True)
        self.interruption.check()
        if self.trial is not None:
            self.write_transfer()
        else:
            self._test()

    def _require_same_steps(self, content: Mapping[str, Any]) -> None:
        """Let a run go on with another number of processes only if these have as many images together.

        Raises:
            SettingsError: If a step would take more or fewer.
        """
        then = content.get(type(self.datamodule).__qualname__)
        values = [then.get(name) for name in ("images_of_step", "processes")] if isinstance(then, dict) else []
        said = [number for number in values if isinstance(number, int) and number > 0]
        if len(said) != 2:  # of an earlier version
            return
        images, before, processes = *said, self.trainer.world_size
        if (now := self.datamodule.settings.images_of(processes)) != images:
            raise SettingsError(
                f"data.batch_size: {now} images a step of {_devices(processes)} given, {shown(self.workspace.path)} "
                f"was begun with {images} of {_devices(before)}; set data.global_batch_size to {images}"
            )
        if processes == before:
            return
        sums = "sums are made in another order, so numbers differ in their last digits"
        if self._normalises_by_batch(content):
            sums = (
                f"batch normalisation takes the statistics of {images // processes} of them, {images // before} before"
            )
        told = "goes on with %s in the place of %s, on %d images a step as before; %s"
        log.warning(told, _devices(processes), _devices(before), images, sums)

    def _normalises_by_batch(self, content: Mapping[str, Any]) -> bool:
        """Return whether what a checkpoint's network learns depends on which images a process has."""
        together = bool(self.construction.flags.get("sync_batchnorm"))
        return not together and any(name.endswith("running_mean") for name in content["state_dict"])

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        """Measure within where the time goes, if that is asked for, and write what was found."""
        if self._profiler is None:
            yield
            return
        with self._profiler.training(self.trainer.strategy.root_device, self.trainer.loggers):
            yield
        self._profiler.found().write(self.workspace.profile)

    def _announce(self) -> None:
        """Say what is about to be trained, and where."""
        log.info("run folder %s", shown(self.workspace.path))
        if self.trial is None and str(self.settings.trainer.precision) in ("32", "32-true"):
            device = device_facts(self.settings.trainer.accelerator)
            if device is not None and device.fast_bfloat16:
                log.info("%s multiplies in bfloat16: --trainer.precision auto trains most networks faster", device.name)
        if (reason := self.settings.model.backbone._from_scratch) is not None and not self._resumed:
            log.info("random first weights: %s", reason)
        if told := cut_short(self.settings, gather_facts(self.settings)):
            log.warning("%s", told)
        if self.checkpoint is not None:
            log.info("continues from %s", shown(self.checkpoint))
        if self.active is not None:
            describe_session(self.active, self.trainer, None if self.checkpoint is None else self.checkpoint.name)
        self.introduce(self.workspace.path.name)
        data = self.datamodule
        log.info(
            "%s: %s, %d classes, %s train / %s val / %s test %s of %s",
            data.spec.dataset,
            data.spec.task,
            len(data.spec.classes),
            *(f"{n:,}" for n in data.source.sizes().values()),
            "volumes" if data.spec.spatial_dims == 3 else "images",
            data.spec.size_text,
        )

    def _test(self) -> None:
        """Test the best checkpoint, or the last of a training without validation, and write the results."""
        checkpoint: Path | None = self.trainer.strategy.broadcast(self._tested())
        if checkpoint is None:
            log.warning("no checkpoint was written, so there is nothing to test")
            return
        if checkpoint.name != BEST:
            log.warning("no epoch was validated, so that none is known to be the best; the last one is tested")
        if self.trainer.is_global_zero:
            if self.settings.evaluation.figures:
                title = f"{self.model.spec.dataset}, {self.model.settings.backbone.name}"
                picture = self.workspace.figures / "training_curves.png"
                dpi = self.settings.evaluation.figure_dpi
                write_training_curves(self.workspace.epochs, picture, title, dpi, self.model.monitor)
            self.write_transfer()
        self.evaluate("test", checkpoint, self.restore(checkpoint), self.workspace)

    def _tested(self) -> Path | None:
        paths = (self.workspace.checkpoints / name for name in (BEST, LAST))
        return next((path for path in paths if path.is_file()), None)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
