"""Exported artifacts, loaded by their own runtime, in the place of a network."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.config.schema import ModelSettings
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError, SettingsError, WeightsError
from visionforge.inference.contract import KEY, Contract, read_contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.predictor import Floats
from visionforge.training.classifier import ImageClassifier

MAX_BYTES = 2_000_000_000  # of a model file: protobuf, which ONNX is, takes no more
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Runtime:
    """An artifact that was loaded.

    Attributes:
        contract: What it says of itself.
        run: Maps uint8 pixels (N, C, R, R) to calibrated probabilities (N, K).
    """

    contract: Contract
    run: Callable[[Pixels], Floats]


def prepared(images: Pixels, contract: Contract) -> npt.NDArray[Any]:
    """Return uint8 pixels as the artifact takes them."""
    return images if contract.input == "uint8" else images.astype(np.float32) / np.float32(255)


class ArtifactPredictor:
    """What an artifact says of images; its probabilities are calibrated already.

    Decisions belong to probabilities before calibration, so tasks that calibrate make them of those.

    Args:
        runtime: The loaded artifact.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.spec: TaskSpec = runtime.contract.spec
        self.settings: ModelSettings = runtime.contract.settings
        self._runtime = runtime

    def __call__(self, images: Tensor) -> Any:
        """Return what it says of uint8 images (B, C, R, R), as the task's predictor would."""
        return self.spec.kind.answer(self.outputs(images), self._runtime.contract)

    @property
    def averages(self) -> bool:
        """Return whether it averages test-time views."""
        return len(self._runtime.contract.views) > 1

    def outputs(self, images: Tensor) -> Tensor:
        """Return what it gives for uint8 images (B, C, R, R): probabilities (B, K), or boxes."""
        return torch.from_numpy(self._runtime.run(images.numpy()))


def load_predictor(path: Path) -> ArtifactPredictor:
    """Load an artifact that may come from a stranger, to predict with it.

    Raises:
        RunError: If it does not exist, is of a format that may carry code, or cannot be read.
        SettingsError: If its runtime is not installed.
    """
    return ArtifactPredictor(load_artifact(path))


def load_artifact(path: Path) -> Runtime:
    """Load an artifact that may come from a stranger.

    Raises:
        RunError: If it does not exist, is of a format that may carry code, or cannot be read.
    """
    if not path.is_file():
        raise RunError(f"artifact: {path} does not exist")
    if path.suffix not in LOADERS:
        hint = (
            "; loading a torch.export program can run code, so it is left to torch.export.load"
            if path.suffix == ".pt2"
            else ""
        )
        raise RunError(f"artifact: {path} is of no format that is loaded here; allowed: {', '.join(LOADERS)}{hint}")
    return LOADERS[path.suffix](path)


# --- formats


def load_onnx(path: Path) -> Runtime:
    """Load an ONNX model with ONNX Runtime on the CPU.

    Args:
        path: The file.

    Raises:
        RunError: If it cannot be loaded, or was not exported by visionforge.
        SettingsError: If ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise SettingsError(f'{path}: needs onnxruntime: pip install "visionforge[onnx]"')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings speak of optimisations
    _require_bounded(path)
    data = path.read_bytes()  # bytes, not a path: the model cannot name further files that would be read
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no common base
        raise RunError(f"{path}: cannot be loaded by ONNX Runtime ({reason_of(error)})") from error
    contract = read_contract(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
    given, found = session.get_inputs(), session.get_outputs()
    kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[contract.input]
    if len(given) != 1 or given[0].type != kind or list(given[0].shape[1:]) != list(contract.shape[1:]) or not found:
        raise RunError(f"{path}: does not take what its metadata says, so it was changed after the export")

    def run(images: Pixels) -> Floats:
        (result,) = session.run([found[0].name], {given[0].name: prepared(images, contract)})
        return _checked(result, len(images), contract, path)

    return Runtime(contract, run)


def load_weights(path: Path) -> Runtime:
    """Rebuild the network of a weight file.

    Raises:
        RunError: If it cannot be read, or does not fit its own contract.
    """
    from safetensors import SafetensorError, safe_open

    _require_bounded(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            contract = read_contract((file.metadata() or {}).get(KEY), str(path))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({reason_of(error)})") from error
    model = ImageClassifier(**contract.settings.model_dump(mode="json"), spec=contract.spec, restoring=True)
    model.members = contract.members
    try:
        model.build_for(state)
    except WeightsError as error:
        raise RunError([f"{path}: {problem}" for problem in error.problems]) from error
    module = ExportedClassifier(model, contract)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{path}: its tensors are not those of {contract.settings.backbone.name}") from error
    return torch_runtime(module, contract, path)


def _require_bounded(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path}: larger than {MAX_BYTES:,} bytes, so it is no model of this kind")


def torch_runtime(module: Callable[[torch.Tensor], torch.Tensor], contract: Contract, path: Path) -> Runtime:
    """Return a module of PyTorch as a loaded artifact."""

    def run(images: Pixels) -> Floats:
        with torch.inference_mode():
            result: Floats = module(torch.from_numpy(prepared(images, contract))).numpy()
        return _checked(result, len(images), contract, path)

    return Runtime(contract, run)


def _checked(result: Floats, images: int, contract: Contract, path: Path) -> Floats:
    spec = contract.spec
    expected = (images, *spec.kind.output_shape(spec, contract.settings))
    if result.shape != expected:
        raise RunError(
            f"{path}: gives the shape {result.shape}, not {expected} ({spec.kind.output_meaning}); it was changed"
        )
    if not np.isfinite(result).all():
        raise RunError(f"{path}: its outputs are not finite; export another checkpoint")
    return result


def reason_of(error: Exception) -> str:
    """Return the first line of an error of a library, at most 200 characters."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[0].split())[:200] if lines else type(error).__name__


LOADERS: dict[str, Callable[[Path], Runtime]] = {".onnx": load_onnx, ".safetensors": load_weights}
