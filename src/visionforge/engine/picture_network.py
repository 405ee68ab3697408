"""The network that is asked about pictures: of a checkpoint on a device, or an exported artifact."""

from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.engine.first_imports import import_torch
from visionforge.engine.validation import AUTO, device_facts
from visionforge.errors import SettingsError
from visionforge.inference.artifacts import load_predictor, require_torch
from visionforge.inference.loading import FULL, PRECISIONS, Target, device_of, load_network

if TYPE_CHECKING:
    import torch

    from visionforge.inference.predictions import Predictor
    from visionforge.training.trained_network import TrainedNetwork


def arithmetic_of(precision: str, accelerator: str) -> "torch.dtype | None":
    """Return what layers multiply in; None is what the weights are in.

    Raises:
        SettingsError: If there is no such precision, or the device does not have it.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision: {precision} is not allowed; allowed: {', '.join(PRECISIONS)}")
    if precision == FULL:
        return None
    import torch

    device = device_facts(accelerator)
    if precision == AUTO:
        return torch.bfloat16 if device is not None and device.fast_bfloat16 else None
    if device is not None and not device.bfloat16:
        raise SettingsError(f"precision: {precision} needs bfloat16, which {device.name} lacks; set it to {FULL}")
    return torch.bfloat16


def predictor_of(
    target: Target | None,
    artifact: Path | None,
    tta: bool | None,
    accelerator: str,
    num_threads: int | None,
    arithmetic: "torch.dtype | None" = None,
) -> "Predictor":
    """Return the network of a checkpoint on its device, or an artifact.

    Args:
        target: The checkpoint.
        artifact: The exported file, where there is no target.
        tta: Average over test-time views; None is as the network is set.
        accelerator: The device.
        num_threads: CPU threads of the network.
        arithmetic: What the network's layers multiply in; None is what its weights are in.

    Raises:
        RunError: If it cannot be loaded.
        SettingsError: If the device is not present, or what runs it is not installed.
    """
    if target is None:
        assert artifact is not None
        loaded = load_predictor(artifact, num_threads)
        if loaded.spec.kind.located:
            require_torch(f"artifact: {artifact} predicts {loaded.spec.kind.forms[0]}")
        return loaded
    model = model_of(target, tta, accelerator, num_threads)
    model.arithmetic = arithmetic
    assert model.spec is not None
    found: Predictor = model.spec.kind.predictor(model, tta)
    return found


def model_of(target: Target, tta: bool | None, accelerator: str, num_threads: int | None) -> "TrainedNetwork":
    """Return the network of a checkpoint on its device; see `predictor_of`."""
    import_torch()
    if num_threads is not None:
        import torch

        torch.set_num_threads(num_threads)
    model = load_network(target.checkpoint)
    if tta and model.settings.tta == "off":
        model.settings = model.settings.model_copy(update={"tta": "full"})
    return model.to(device_of(accelerator))


def check_artifact(named: bool, tta: bool | None, accelerator: str, precision: str = FULL) -> None:
    """Refuse what an artifact does not have.

    Args:
        named: Whether a run or a checkpoint was named, too.
        tta: Whether test-time views were asked for.
        accelerator: The device.
        precision: What layers multiply in.

    Raises:
        SettingsError: If something was asked for that an artifact does not have.
    """
    if named:
        raise SettingsError("artifact: is given instead of `run` and `checkpoint`")
    if tta is not None:
        raise SettingsError("tta: an artifact has its views inside, or none; export it with them, or without")
    if accelerator not in ("auto", "cpu"):
        raise SettingsError(f"accelerator: artifacts run on the CPU; {accelerator} was given")
    if precision != FULL:
        raise SettingsError(f"precision: artifacts multiply in 32 bits; {precision} was given")
