"""What `validate`, `test` and `predict` evaluate: a run or a checkpoint file, never an untrained network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from visionforge.config.loading import is_first_process, read_yaml
from visionforge.config.schema import ModelSettings, TrainerSettings
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError, SettingsError
from visionforge.inference.trust import evaluation_config, require_fit
from visionforge.runs.config_hash import digest
from visionforge.runs.files import refuse_links
from visionforge.runs.paths import shown
from visionforge.runs.query import find_run, load_run
from visionforge.runs.workspace import Workspace
from visionforge.streams import caution
from visionforge.training.loading import load_classifier as load_classifier
from visionforge.training.loading import load_network as load_network
from visionforge.training.loading import read_checkpoint as read_checkpoint
from visionforge.training.loading import restore as restore

if TYPE_CHECKING:
    import torch

_USES = ("validate", "test", "predict", "export", "explain")  # commands to which it matters how far a training came


@dataclass(frozen=True)
class Target:
    """A trained network and the configuration it was trained with.

    Attributes:
        checkpoint: The checkpoint file.
        config: The run's configuration as far as an evaluation takes it, which flags and files on the command line
            override.
        run: The run folder, if the checkpoint lies in one.
        config_hash: Digest of the run's whole configuration.
    """

    checkpoint: Path
    config: dict[str, Any]
    run: Workspace | None
    config_hash: str | None = None


def find_target(stage: str, run: object, ckpt_path: object) -> Target:
    """Resolve ``--run FOLDER`` and ``--ckpt_path best|last|FILE``.

    Raises:
        RunError: If there is neither, or the folder or checkpoint does not exist.
    """
    if run is None and ckpt_path is None:
        raise RunError(
            f"{stage}: give a trained network with --run FOLDER (its best checkpoint), or --ckpt_path FILE; "
            "untrained weights are not evaluated"
        )
    if run is None:
        return _from_file(stage, str(ckpt_path))
    workspace = find_run(str(run), "--run")
    if not workspace.config.is_file():
        raise RunError(f"--run: {workspace.path} holds no config.yaml, so it is no run folder")
    choice = "best" if ckpt_path is None else str(ckpt_path)
    checkpoint = workspace.checkpoints / f"{choice}.ckpt" if choice in ("best", "last") else Path(choice)
    if not checkpoint.is_file():
        present = sorted(path.name for path in workspace.checkpoints.glob("*.ckpt"))
        raise RunError(
            f"--run: {checkpoint} does not exist; the run has "
            + (f"only {', '.join(present)}" if present else "no checkpoint, so it was not trained")
        )
    return _of_run(stage, checkpoint, workspace)


def _of_run(stage: str, checkpoint: Path, workspace: Workspace) -> Target:
    refuse_links(workspace.path)  # evaluations, tables and exports are written into it
    require_fit(workspace, "--run")
    if stage in _USES and workspace.manifest.is_file() and is_first_process():
        _warn_of_interruption(workspace)
    config = read_yaml(workspace.config)
    return Target(checkpoint, evaluation_config(config), workspace, digest(config))


def _warn_of_interruption(workspace: Workspace) -> None:
    run = load_run(workspace)
    if run.state == "interrupted":
        done, planned = (run.manifest.progress.get(name) for name in ("epochs", "max_epochs"))
        came = f"{done or 0}" if planned is None else f"{done or 0} of {planned}"
        name = shown(workspace.path)
        caution(f"{name} was interrupted after epoch {came}; this is what it had learnt until then")


def _from_file(stage: str, ckpt_path: str) -> Target:
    checkpoint = Path(ckpt_path)
    if ckpt_path in ("best", "last"):
        raise RunError(f"--ckpt_path: {ckpt_path!r} needs --run FOLDER, in which it is looked up")
    if not checkpoint.is_file():
        raise RunError(f"--ckpt_path: {checkpoint} does not exist; allowed: best or last (with --run), or a file")
    workspace = Workspace(checkpoint.parent.parent)
    if checkpoint.parent.name == "checkpoints" and workspace.config.is_file():
        return _of_run(stage, checkpoint, workspace)
    return Target(checkpoint, _config_of(checkpoint), None)


def _config_of(checkpoint: Path) -> dict[str, Any]:
    """Return the configuration that a lone checkpoint carries."""
    hyperparameters = dict(read_checkpoint(checkpoint).get("hyper_parameters") or {})
    spec = hyperparameters.pop("spec", None)
    hyperparameters.pop("restoring", None)
    for name in ("members", "inputs", "heads"):
        hyperparameters.pop(name, None)
    hyperparameters.pop("distillation", None)  # of its training: an evaluation asks no teacher
    if not isinstance(spec, dict):
        raise RunError(
            f"--ckpt_path: {checkpoint} was not written by visionforge: it does not say what it was trained on"
        )
    try:
        told = TaskSpec.model_validate(spec)
        settings = ModelSettings.model_validate(hyperparameters)
    except ValidationError as error:
        reason = f"{error.error_count()} values of its settings are not allowed, the first: {error.errors()[0]['msg']}"
        raise RunError(f"--ckpt_path: {checkpoint} does not fit this version of visionforge ({reason})") from error
    data = {"dataset": told.dataset, "resolution": told.resolution, "force_rgb": told.channels == 3}
    data["resize"] = told.resize.model_dump()
    return {"data": data, "model": settings.model_dump(mode="json")}


def require_more_training(checkpoint: Path, trainer: TrainerSettings) -> None:
    """Check that a training can begin from a checkpoint, and has something left to do.

    Raises:
        RunError: If it cannot be read, or holds weights only.
        SettingsError: If it has reached the end of the training that is asked for.
    """
    content = read_checkpoint(checkpoint)
    if "optimizer_states" not in content:
        raise RunError(
            f"ckpt_path: {checkpoint} holds weights only, from which no training goes on; name the run's last.ckpt, or "
            "begin anew from these weights with model.backbone.weights"
        )
    flags = trainer.model_extra or {}
    if flags.get("fast_dev_run"):  # which has an end of its own
        return
    epoch, step = content.get("epoch"), content.get("global_step")
    most = flags.get("max_steps")
    if isinstance(epoch, int) and _epochs_done(content, epoch) >= trainer.max_epochs:
        reached, limit = f"epoch {epoch + 1}", f"trainer.max_epochs is {trainer.max_epochs}"
    elif isinstance(step, int) and isinstance(most, int) and 0 <= most <= step:
        reached, limit = f"step {step}", f"trainer.max_steps is {most}"
    else:
        return
    raise SettingsError(f"ckpt_path: {checkpoint} was trained up to {reached}, and {limit}; raise it to train further")


def _epochs_done(content: Mapping[str, Any], epoch: int) -> int:
    """Return how many epochs a checkpoint has behind it; one from the middle of an epoch has not finished that."""
    try:
        return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError):
        return epoch


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")  # that `device_of` knows
FULL = "32-true"
PRECISIONS = (FULL, "bf16-mixed", "auto")  # of a network's layers, as it is asked about pictures


def device_of(accelerator: str) -> "torch.device":
    """Return the device that a flag means.

    Args:
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.

    Raises:
        SettingsError: If it is not present.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    for name in wanted:
        if present.get(name):
            return torch.device(name)
    names = ", ".join(name for name, there in present.items() if there)
    raise SettingsError(f"--accelerator: {accelerator} is not present on this machine; present: {names}")
