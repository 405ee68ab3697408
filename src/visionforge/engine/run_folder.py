"""A run folder for the training of anybody's LightningModule, by a callback alone."""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from visionforge.engine.callbacks import fit_callbacks
from visionforge.engine.failure import conclude, translate
from visionforge.engine.lightning_compat import begin_from, use_current_leaf_spec
from visionforge.engine.provenance import describe_session
from visionforge.engine.resume import runs_like
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import digest
from visionforge.runs.logfile import LEVELS, RunLog
from visionforge.runs.paths import outputs_folder, resolve, shown
from visionforge.runs.session import FOREIGN, ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.signature import CONFIGURATION, canonical_content, is_signed
from visionforge.runs.workspace import Workspace
from visionforge.training.checkpoints import WholeFiles, checkpoint_to_resume
from visionforge.training.epoch_log import EpochLog
from visionforge.training.monitor import Monitor

log = logging.getLogger(__name__)

_FLAGS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")  # change the result


class RunFolder(Checkpoint):
    """Gives a training a run folder: identity, lock, manifest, log, table of epochs, whole checkpoints, resume.

    In the Trainer's `callbacks` it is enough: the folder appears when the training begins, a signal such as Ctrl-C ends
    the training after a step, and the same program started again goes on where it was interrupted, bit for bit: the
    state of Python's, NumPy's and torch's generators at the beginning of an epoch is kept with it. A data loader with
    a `state_dict` of its own goes on within an epoch, any other at its beginning.

    The identity of the run is a digest of `config`, the module's hyperparameters and the Trainer's flags that change
    the result. Two trainings that differ in anything else need a `config` that says so.

    Args:
        outputs: The folder of all runs; None is that of `visionforge fit`.
        data: Name of the data, for the folder's name.
        model: Name of the model; None is the name of the module's class.
        config: Plain settings that identify the run; None is only the module's hyperparameters.
        monitor: The logged metric by which the best epoch is chosen.
        mode: ``min`` or ``max``.
        resume: ``auto`` continues the newest interrupted run of the same identity; ``never`` begins a new one.
        checkpoint_minutes: Longest time between two checkpoints within an epoch, in minutes.
        log_level: Least severity on the console; the file has everything from ``info`` on.

    Attributes:
        workspace: The folder, once the training has begun.

    Raises:
        SettingsError: If a value is not allowed.
        VisionForgeError: When the training begins, if no folder can be made, or another process works on the run.

    >>> import lightning.pytorch as pl, visionforge as vf
    >>> folder = vf.RunFolder("outputs", data="shapes", config={"noise": 0.1}, monitor="val/loss")
    >>> trainer = pl.Trainer(max_epochs=3, callbacks=[folder], logger=False)
    """

    def __init__(
        self,
        outputs: str | Path | None = None,
        *,
        data: str = "data",
        model: str | None = None,
        config: Mapping[str, Any] | None = None,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        resume: Literal["auto", "never"] = "auto",
        checkpoint_minutes: float = 10.0,
        log_level: Literal["debug", "info", "warning", "error"] = "info",
    ) -> None:
        allowed = {"mode": ("min", "max"), "resume": ("auto", "never"), "log_level": tuple(LEVELS)}
        given = {"mode": mode, "resume": resume, "log_level": log_level}
        problems = [
            f"{name}: {value!r} is not allowed; allowed: {', '.join(allowed[name])}"
            for name, value in given.items()
            if value not in allowed[name]
        ]
        if not checkpoint_minutes > 0:
            problems.append(f"checkpoint_minutes: {checkpoint_minutes} is not allowed; allowed: a number above 0")
        if problems:
            raise SettingsError(problems)
        self._outputs = outputs_folder() if outputs is None else resolve(str(outputs))
        self._names = data, model
        self._config = dict(config or {})
        self._monitor = Monitor(monitor, higher=mode == "max")
        self._resume = resume
        self._minutes = checkpoint_minutes
        self._level = log_level
        self._interruption = Interruption()
        self._active: ActiveRun | None = None
        self._run_log: RunLog | None = None
        self._restored: dict[str, Any] | None = None
        self.workspace: Workspace | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make or take up the folder, and equip the Trainer with what writes into it."""
        if stage != "fit" or self.workspace is not None:
            return
        use_current_leaf_spec()
        self._run_log = RunLog(self._level, trainer.global_rank)
        self._run_log.start()
        self._interruption.remember()  # LastCheckpoint installs them when Lightning has installed its own
        try:
            checkpoint = self._take_folder(trainer, pl_module)
            assert self.workspace is not None
            self._equip(trainer)
            if checkpoint is not None:
                log.info("continues from %s", shown(checkpoint))
                begin_from(trainer, checkpoint)
        except BaseException as error:
            self._close(error)
            raise

    def _take_folder(self, trainer: pl.Trainer, module: pl.LightningModule) -> Path | None:
        """Make or take up the folder; return the checkpoint to begin from."""
        assert self._run_log is not None
        found: tuple[str, str] | None = None
        if trainer.is_global_zero:
            config = self._identity(trainer, module)
            names = self._names[0], self._names[1] or type(module).__name__.lower()
            run = self._interrupted(config) if self._resume == "auto" else None
            checkpoint = None
            if run is not None:
                self._active = ActiveRun.reopen(run)
                checkpoint = checkpoint_to_resume(run.checkpoints)
            else:
                never = self._resume == "never"
                self._active = ActiveRun.create(
                    self._outputs, config, digest(config), stage=FOREIGN, names=names, past_interrupted=never
                )
            found = str(self._active.workspace.path), str(checkpoint or "")
        folder, begin = trainer.strategy.broadcast(found)  # type: ignore[misc]  # of the first process
        self.workspace = Workspace(Path(folder))
        first = trainer.is_global_zero
        self._run_log.attach(self.workspace.log if first else self.workspace.rank_log(trainer.global_rank))
        log.info("run folder %s", shown(self.workspace.path))
        if self._active is not None:
            describe_session(self._active, trainer, Path(begin).name if begin else None)
        return Path(begin) if begin else None

    def _identity(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """Return what identifies the run, as plain values."""
        flags = {name: getattr(trainer, name) for name in _FLAGS}
        kind = type(module)
        return {
            "module": f"{kind.__module__}.{kind.__qualname__}",
            "hyperparameters": _plain(dict(module.hparams)),
            "data": {"dataset": self._names[0]},
            "trainer": _plain({**flags, "devices": trainer.world_size}),
            "config": _plain(self._config),
        }

    def _interrupted(self, config: Mapping[str, Any]) -> Workspace | None:
        """Return the newest interrupted run of the same identity that this user has made."""
        same = [run for run in runs_like(config, self._outputs, FOREIGN) if run.state == "interrupted"]
        own = [run for run in same if is_signed(canonical_content(run.config), run.manifest.signature, CONFIGURATION)]
        return own[-1].workspace if own else None

    def _equip(self, trainer: pl.Trainer) -> None:
        assert self.workspace is not None
        rows = EpochLog(self.workspace.epochs, ("epoch",))
        trainer.loggers = [*trainer.loggers, rows]
        trainer.strategy.checkpoint_io = WholeFiles()
        trainer.callbacks.extend(  # type: ignore[attr-defined]
            fit_callbacks(self.workspace, self._minutes, self._interruption, rows, self._monitor, self._progress)
        )

    def _progress(self, epochs: int, steps: int) -> None:
        if self._active is not None:
            self._active.update(progress={"epochs": epochs, "steps": steps})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write how the run ended."""
        self._close(exception)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write that the run is complete."""
        if stage == "fit":
            self._close(None)

    # --- the generators

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators, in tensors and plain values."""
        return {"generators": _generators()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the training goes on."""
        self._restored = state_dict.get("generators")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the generators where they were, before the Trainer takes the order of the first epoch from them."""
        if self._restored is not None:
            _restore_generators(self._restored)
            self._restored = None

    def _close(self, error: BaseException | None) -> None:
        if self._run_log is None:
            return
        with self._interruption.deferred():
            if self._active is not None:
                conclude(self._active, None if error is None else translate(error))
                self._active = None
        self._interruption.__exit__(None, None, None)
        self._run_log.stop()
        self._run_log = None


def _generators() -> dict[str, Any]:
    """Return the states of all generators, as a checkpoint of tensors and plain values can hold them."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _restore_generators(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _plain(value: Any) -> Any:
    """Return a value of which YAML and JSON can be made; of what is neither number nor text, its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
