"""What the experiment loggers of `trainer.logger` receive beyond the metrics that Lightning sends them.

Lightning and the packages of the loggers are imported where they are used: the check of the settings needs neither.
"""

import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.distribution import how_to_install
from visionforge.errors import SettingsError
from visionforge.redaction import redact_settings
from visionforge.runs.workspace import Workspace

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

log = logging.getLogger(__name__)

EXTRAS = {  # logger → the packages of which it needs one, and the extra that installs it
    "TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "MLFlowLogger": (("mlflow",), "mlflow"),
    "WandbLogger": (("wandb",), "wandb"),
}
_KINDS = {  # base class, as messages name it → flag
    "loggers.logger.Logger": "trainer.logger",
    "callbacks.callback.Callback": "trainer.callbacks",
    "profilers.profiler.Profiler": "trainer.profiler",
    "strategies.strategy.Strategy": "trainer.strategy",
    "plugins.precision.precision.Precision": "trainer.plugins",
}
LONGEST_VALUE = 250  # MLflow stores 6000 characters, but Lightning cuts at 250, and without a sign that it did
HIDDEN = ("trainer.logger",)  # says where the settings are sent, and may hold the password of that place
SHIELDED = ("log_metrics", "log_graph", "save", "after_save_checkpoint", "finalize")  # what Lightning calls in a fit


def logger_problems(chosen: object) -> list[str]:
    """Return a line for every logger whose package is not installed.

    Args:
        chosen: The setting `trainer.logger`: a name, a mapping with `class_path`, a list of these, or none of them.
    """
    problems = []
    for item in chosen if isinstance(chosen, list | tuple) else [chosen]:
        path = item.get("class_path") if isinstance(item, Mapping) else item
        name = str(path).rpartition(".")[2]
        packages, extra = EXTRAS.get(name, ((), ""))
        if packages and not any(find_spec(package) for package in packages):
            problems.append(
                f"trainer.logger: {name} needs the package {packages[0]}, which is not installed; "
                f"{how_to_install(extra)}, or leave the logger out"
            )
    return problems


def logger_error(error: Exception) -> SettingsError | None:
    """Return what the user is told of an error while Trainer flags were instantiated; None if no class made it."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    packages = {name for names, _ in EXTRAS.values() for name in names}
    of_a_logger = type(error).__module__.partition(".")[0] in packages
    if of_a_logger or isinstance(error, ImportError | MisconfigurationException):
        return SettingsError(f"trainer: {_one_line(error)}")
    flag = next((flag for kind, flag in _KINDS.items() if kind in str(error)), None)
    if isinstance(error, ValueError) and flag is not None:
        # jsonargparse has tried a logger, a list of them, a boolean and null, and tells of all; one line says why
        reasons = re.findall(r"^ *- (?!Not a valid subclass|Expected a|a (?:class path|dict) )(.+)$", str(error), re.M)
        return SettingsError(f"{flag}: {' '.join(reasons) or _one_line(error)}")
    return None


def hyperparameters(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their dotted names, and then the facts; all values are numbers, booleans or short texts.

    Args:
        config: The resolved configuration.
        facts: What else identifies the run, by the name that the loggers show.
    """
    values: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            path = f"{prefix}{key}"
            if path in HIDDEN:
                continue
            if isinstance(value, Mapping) and value:
                walk(value, f"{path}.")
            else:
                values[path] = _short(value)

    walk(redact_settings(config), "")
    return {**values, **{key: _short(value) for key, value in facts.items()}}


def _short(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)  # null, as in the configuration
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def log_hyperparameters(loggers: Sequence["Logger"], config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Send the resolved configuration, which also opens the logger's own run; only the first process may call it.

    Raises:
        SettingsError: If a logger cannot be used: nothing has been trained yet that could be lost.
    """
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    values = hyperparameters(config, facts)
    for logger in chosen_loggers(loggers):
        try:
            if isinstance(logger, MLFlowLogger):
                _log_parameters(logger, values)
            else:
                logger.log_hyperparams(values)
        except Exception as error:  # each package has its own for a server that is away, a disk that is full, …
            raise SettingsError(
                f"trainer.logger: {type(logger).__name__} cannot be used ({_one_line(error)}); mend that, or leave "
                "the logger out"
            ) from error
        if not isinstance(logger, TensorBoardLogger | CSVLogger | MLFlowLogger | WandbLogger):
            log.info("%s receives settings and metrics; figures and report stay in the run", type(logger).__name__)


def _log_parameters(logger: "MLFlowLogger", values: Mapping[str, Any]) -> None:
    """Send parameters to MLflow; a run that is gone on with by its `run_id` keeps those that it has.

    MLflow refuses another value of a parameter, and where a run is resumed, devices and folders may well differ.
    """
    assert logger.run_id is not None
    known = logger.experiment.get_run(logger.run_id).data.params
    values = {_plain(key): value for key, value in values.items()}
    logger.log_hyperparams({key: value for key, value in values.items() if key not in known})


def final_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of an evaluation by names such as ``test/accuracy`` and ``test_tta/accuracy``.

    Args:
        metrics: The content of `metrics.json`; its split is the first part of the names.
    """
    split = str(metrics["split"])
    values: dict[str, float] = {}
    for key, prefix in (("without_tta", split), ("with_tta", f"{split}_tta")):
        for name, value in (metrics.get(key) or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                values[f"{prefix}/{name}"] = float(value)
    return values


def log_results(loggers: Sequence["Logger"], workspace: Workspace, metrics: Mapping[str, Any], step: int) -> None:
    """Send final metrics, figures, report and spreadsheet, as far as they exist; only the first process may call it.

    A logger that fails is told of in one line of the log, and the others get everything all the same.

    Args:
        loggers: The Trainer's loggers.
        workspace: Where the results lie.
        metrics: The content of `metrics.json`.
        step: Training steps so far.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    values = final_metrics(metrics)
    ranking = [value for name, value in values.items() if name.endswith("/auc")]  # with test-time views, if any, last
    pictures = sorted(workspace.figures.glob("*.png"))
    documents = [path for path in (workspace.report, workspace.summary) if path.is_file()]
    for logger in chosen_loggers(loggers):
        try:
            type(logger).log_metrics(logger, values, step)  # of the class: a shielded one would not raise
            if isinstance(logger, TensorBoardLogger) and ranking:
                type(logger).log_metrics(logger, {"hp_metric": ranking[-1]}, step)  # -1 until now
            _send_files(logger, workspace.path, pictures, documents, step)
            type(logger).save(logger)
        except Exception as error:  # see log_hyperparameters; here, a trained network would be lost
            _warn(logger, error, "it lacks some of the results")


def _send_files(logger: "Logger", folder: Path, pictures: Sequence[Path], documents: Sequence[Path], step: int) -> None:
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    if isinstance(logger, TensorBoardLogger):
        _show_pictures(logger, pictures, step)
        _copy(documents, folder, logger.log_dir)
    elif isinstance(logger, CSVLogger):
        _copy([*pictures, *documents], folder, logger.log_dir)
    elif isinstance(logger, MLFlowLogger):
        assert logger.run_id is not None
        for path in (*pictures, *documents):
            place = path.relative_to(folder).parent.as_posix()
            logger.experiment.log_artifact(logger.run_id, str(path), None if place == "." else place)
    elif isinstance(logger, WandbLogger):
        _send_wandb(logger, folder, pictures, documents, step)


def _show_pictures(logger: "TensorBoardLogger", pictures: Sequence[Path], step: int) -> None:
    import numpy as np
    from PIL import Image

    for path in pictures:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        logger.experiment.add_image(f"figures/{path.stem}", pixels, step, dataformats="HWC")


def _copy(paths: Sequence[Path], folder: Path, target: str) -> None:
    """Copy files of a run to where a logger keeps its own, at the same places below it."""
    if "://" in target:
        log.info("%s: figures and report are copied to local folders only", target)
        return
    for path in paths:
        copy = Path(target) / path.relative_to(folder)
        if copy.exists() and copy.samefile(path):
            continue  # the logger writes into the run folder
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _send_wandb(
    logger: "WandbLogger", folder: Path, pictures: Sequence[Path], documents: Sequence[Path], step: int
) -> None:
    import wandb

    run = logger.experiment
    for path in pictures:
        logger.log_image(f"figures/{path.stem}", [str(path)], step)
    for path in documents:
        if path.suffix == ".html":
            with path.open(encoding="utf-8") as file:
                run.log({path.stem: wandb.Html(file, inject=False), "trainer/global_step": step})
        else:  # W&B would link to it, and find nothing if an offline run is sent later, from elsewhere
            _copy([path], folder, run.dir)
            run.save(str(Path(run.dir) / path.relative_to(folder)), base_path=run.dir, policy="now")


def close_loggers(loggers: Sequence["Logger"], failed: bool) -> None:
    """Let the loggers finish their runs; the next fit of this process then begins its own.

    Args:
        loggers: The Trainer's loggers.
        failed: The run did not come to its end.
    """
    from lightning.pytorch.loggers import WandbLogger

    for logger in chosen_loggers(loggers):
        try:
            type(logger).finalize(logger, "failed" if failed else "success")
            if isinstance(logger, WandbLogger):
                wandb = sys.modules.get("wandb")  # Lightning leaves the run open
                if wandb is not None and wandb.run is not None and wandb.run.id == logger.version:
                    wandb.run.finish(exit_code=int(failed))
        except Exception as error:
            _warn(logger, error, "its run may be incomplete")


def chosen_loggers(loggers: Sequence["Logger"]) -> list["Logger"]:
    """Return the loggers without the run's own table of epochs."""
    from visionforge.training.epoch_log import EpochLog

    return [logger for logger in loggers if not isinstance(logger, EpochLog)]


def shield(loggers: Sequence["Logger"]) -> None:
    """Let a training go on without a logger that fails: Lightning would end it."""
    for logger in chosen_loggers(loggers):
        for name in SHIELDED:
            setattr(logger, name, _Shielded(logger, name))


class _Shielded:
    """A method of a logger that warns, once, where the method would raise.

    It looks the method up by name, so that a logger can still be sent to other processes.

    Args:
        logger: The logger.
        name: The method.
    """

    def __init__(self, logger: "Logger", name: str) -> None:
        self._logger = logger
        self._name = name
        self._failed = False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        method: Callable[..., None] = getattr(type(self._logger), self._name)
        try:
            method(self._logger, *args, **kwargs)
        except Exception as error:  # see log_hyperparameters
            if not self._failed:
                _warn(self._logger, error, f"{self._name} has failed, the training goes on")
            self._failed = True


def _warn(logger: "Logger", error: Exception, consequence: str) -> None:
    log.warning("trainer.logger: %s: %s (%s)", type(logger).__name__, consequence, _one_line(error))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _plain(name: str) -> str:
    """Return a name of the characters that MLflow allows; those of classes may have others."""
    return re.sub(r"[^a-zA-Z0-9_/. -]", "_", name)
