"""How a run ends: what an error means for its state, and what the user is told."""

import errno
import logging
import re

from lightning.fabric.utilities.exceptions import MisconfigurationException

from visionforge.config.problems import nearest
from visionforge.engine.out_of_memory import is_out_of_memory as is_out_of_memory
from visionforge.errors import PeerEndedError, SettingsError, TrainingError, VisionForgeError
from visionforge.runs.manifest import State
from visionforge.runs.session import FOREIGN, TRAININGS, ActiveRun
from visionforge.runs.signals import Interrupted

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_FLAGS = "`val_check_interval`"  # an error of Lightning's for a mistake of the user begins so


def translate(error: BaseException) -> BaseException:
    """Return what the user is told instead of an error of the libraries, which stays its cause; others as they are."""
    text = str(error).strip()
    told: VisionForgeError
    kernel = re.search(r"(\S+) does not have a deterministic implementation", text)
    if isinstance(error, RuntimeError) and kernel is not None:
        told = TrainingError(
            f"trainer.deterministic: {kernel[1]} has no deterministic form on this device; choose another "
            "backbone, set trainer.accelerator to cpu, or trainer.deterministic to warn (gives up repeatability)"
        )
    elif (monitor := _unknown_metric(text)) is not None:
        told = TrainingError(monitor)
    elif is_out_of_memory(error):
        told = TrainingError(
            "data.batch_size: out of memory; set a smaller batch_size (with trainer.accumulate_grad_batches to keep "
            "the effective one), a smaller backbone, data.resolution or data.resize.size "
            f"({text.splitlines()[0][:160] if text else ''})"
        )
    elif _is_of_another_optimiser(error):
        told = SettingsError(
            "model.optimizer: the checkpoint has the state of another optimiser or of other groups of parameters; "
            "begin with the optimiser that it was trained with, or from its weights alone (model.backbone.weights)"
        )
    elif "Expected more than 1 value per channel" in text:
        told = TrainingError(
            "data.batch_size: 1 is too small for this backbone, whose batch normalisation sees a single value; at "
            "least 2"
        )
    elif isinstance(error, MisconfigurationException) or text.startswith(_OF_FLAGS):
        told = SettingsError(f"trainer: {' '.join(text.split())}")
    else:
        return error
    told.__cause__ = error
    return told


def _is_of_another_optimiser(error: BaseException) -> bool:
    """Return whether an error came up where a Trainer gives its optimisers the state of a checkpoint."""
    trace, names = error.__traceback__, set()
    while trace is not None:
        names.add(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return isinstance(error, KeyError | ValueError) and "restore_optimizers" in names


def _unknown_metric(text: str) -> str | None:
    """Return what is told of a callback that watches a metric that nobody logs; None for other messages."""
    found = re.search(r"(?s)conditioned on metric `([^`]*)` which is not available.*following: (.+)$", text)
    found = found or re.search(r"(?s)\(monitor='([^']*)'\)` could not find the monitored key.*?: \[(.+?)\]", text)
    if found is None:
        return None
    names = re.findall(r"[`']([^`']+)[`']", found[2])
    close = nearest(found[1].replace("_", "/"), names)
    hint = f"nearest: {', '.join(close)}; " if close else ""
    return f"trainer.callbacks: monitor: {found[1]} is no metric of this training; {hint}there are: {', '.join(names)}"


def conclude(active: ActiveRun, error: BaseException | None, pruned: bool = False) -> None:
    """Write how a run ended; a run that failed by a mistake before its first checkpoint is removed.

    Args:
        active: The run.
        error: What ended it, or None.
        pruned: The error only says that a study has seen enough.
    """
    if pruned:
        active.finish("pruned", str(error))
        return
    if error is None:
        active.finish("complete")
        return
    mistake = isinstance(error, VisionForgeError | OSError) and not is_out_of_memory(error)
    mistake = mistake and getattr(error, "mistake", True)
    evaluation = active.manifest.stage not in TRAININGS
    if active.new and not active.workspace.trained and (mistake or evaluation):
        active.discard()
        return
    state, reason = how_it_ended(error)
    if state == "failed" and not mistake:
        log.error("%s", reason, exc_info=error, extra={"file_only": True})  # the console has it from Python itself
    active.finish(state, reason)
    if state == "interrupted":
        foreign = active.manifest.stage == FOREIGN
        how = "by the same program" if foreign else f"with `visionforge fit --resume {active.workspace.path}`"
        log.warning("%s; continue it %s", reason, how)


def how_it_ended(error: BaseException) -> tuple[State, str]:
    """Return the state after an error, and why: interrupted if the same run may well go on later."""
    if isinstance(error, Interrupted):
        return "interrupted", f"interrupted by {error.name}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted by SIGINT"
    if isinstance(error, PeerEndedError):
        return "failed" if error.mistake else "interrupted", error.problems[0]
    if is_out_of_memory(error):
        cause = error.__cause__ or error
        return "interrupted", f"out of memory: {next(iter(str(cause).splitlines()), type(cause).__name__)}"
    if isinstance(error, OSError):
        state: State = "interrupted" if error.errno in _FULL else "failed"
        return state, f"{(error.strerror or str(error)).lower()}"
    text = str(error).splitlines()[0] if str(error) else ""
    return "failed", text if isinstance(error, VisionForgeError) else f"{type(error).__name__}: {text}"
