"""Exported artifacts, loaded by their own runtime, in the place of a network; those in ONNX need no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import ModelSettings
from visionforge.data.info import TaskSpec
from visionforge.distribution import how_to_install
from visionforge.errors import RunError, SettingsError, WeightsError
from visionforge.inference.contract import KEY, Contract, read_contract
from visionforge.inference.predictions import DISAGREEMENT, OOD_SCORE, Floats, Pixels, distance_columns

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.training.task_network import TaskNetwork

MAX_BYTES = 2_000_000_000  # of a model file: protobuf, which ONNX is, takes no more
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Runtime:
    """An artifact that was loaded.

    Attributes:
        contract: What it says of itself.
        answers: Maps uint8 pixels (N, C, R, R) to what the contract names: calibrated probabilities (N, K), and more.
    """

    contract: Contract
    answers: Callable[[Pixels], Mapping[str, Array]]

    def run(self, images: Pixels) -> Floats:
        """Return calibrated probabilities (N, K) of uint8 pixels (N, C, R, R)."""
        found: Floats = self.answers(images)[self.contract.output_names[0]]
        return found


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

    def __call__(self, images: "Pixels | Tensor") -> Any:
        """Return what it says of uint8 images (B, C, R, R), as the task's predictor would."""
        contract = self._runtime.contract
        found = self._runtime.answers(np.asarray(images))
        main, *further = contract.output_names
        said = self.spec.kind.answer(found[main], contract)
        if not self.spec.kind.abstains:
            return said
        columns: dict[str, Array] = {}
        images_of, below = np.arange(len(said.labels)), contract.abstain_below
        if contract.sets is not None:
            columns["set"] = found["set"]
            columns["abstain"] = (found["set"].sum(axis=1) != 1) | ~found["set"][images_of, said.labels]
        if below is not None:
            columns["abstain"] = found[main][images_of, said.labels] < below
        for name in further:
            columns |= distance_columns(found[name], self.farthest) if name == OOD_SCORE else {name: found[name]}
        return replace(said, columns=columns)

    @property
    def contract(self) -> Contract:
        """Return what it says of itself."""
        return self._runtime.contract

    @property
    def averages(self) -> bool:
        """Return whether it averages test-time views."""
        return len(self._runtime.contract.views) > 1

    @property
    def farthest(self) -> float | None:
        """Return the `ood_score` above which an image is unlike those of the training; None if there is none."""
        ood = self._runtime.contract.ood
        return None if ood is None else ood.threshold

    def outputs(self, images: "Tensor") -> "Tensor":
        """Return what it gives for uint8 images (B, C, R, R): probabilities (B, K), or boxes."""
        import torch

        return torch.from_numpy(self._runtime.run(images.numpy()))


def load_predictor(path: Path, threads: int | None = None) -> ArtifactPredictor:
    """Load an artifact that may come from a stranger, to predict with it; see `load_artifact`."""
    return ArtifactPredictor(load_artifact(path, threads))


def load_artifact(path: Path, threads: int | None = None) -> Runtime:
    """Load an artifact that may come from a stranger.

    Args:
        path: The file.
        threads: CPU threads of its runtime; None leaves them to it, and those of torch as they are.

    Raises:
        RunError: If it does not exist, is of a format that may carry code, or cannot be read.
        SettingsError: If its runtime is not installed.
    """
    if path.is_dir():
        inside = sorted(each.name for each in path.iterdir() if each.suffix in LOADERS)
        hint = f"; name the file in it: {', '.join(str(path / name) for name in inside[:3])}" if inside else ""
        raise RunError(f"artifact: {path} is a folder{hint}")
    if not path.is_file():
        raise RunError(f"artifact: {path} does not exist")
    if path.suffix not in LOADERS:
        hint = (
            "; loading a torch.export program can run code, so it is left to torch.export.load"
            if path.suffix == ".pt2"
            else ""
        )
        raise RunError(f"artifact: {path} is of no format that is loaded here; allowed: {', '.join(LOADERS)}{hint}")
    return LOADERS[path.suffix](path, threads)


# --- formats


def load_onnx(path: Path, threads: int | None = None) -> Runtime:
    """Load an ONNX model with ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: Those of an operation; None takes all cores.

    Raises:
        RunError: If it cannot be loaded, or was not exported by visionforge.
        SettingsError: If ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise SettingsError(f"{path}: needs onnxruntime: {how_to_install('onnx')}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings speak of optimisations
    options.intra_op_num_threads = threads or 0
    _require_bounded(path)
    data = path.read_bytes()  # bytes, not a path: the model cannot name further files that would be read
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no common base
        raise RunError(f"{path}: cannot be loaded by ONNX Runtime ({reason_of(error)})") from error
    contract = read_contract(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
    given, found = session.get_inputs(), session.get_outputs()
    kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[contract.input]
    names = contract.output_names
    if [each.name for each in found][: len(names)] != list(names) and len(names) > 1:
        raise RunError(f"{path}: does not give what its metadata says, so it was changed after the export")
    if len(given) != 1 or given[0].type != kind or list(given[0].shape[1:]) != list(contract.shape[1:]) or not found:
        raise RunError(f"{path}: does not take what its metadata says, so it was changed after the export")

    def answers(images: Pixels) -> Mapping[str, Array]:
        asked = [each.name for each in found[: len(names)]]
        return _checked(session.run(asked, {given[0].name: prepared(images, contract)}), len(images), contract, path)

    return Runtime(contract, answers)


def load_weights(path: Path, threads: int | None = None) -> Runtime:
    """Rebuild the network of a weight file.

    Args:
        path: The file.
        threads: CPU threads of torch, which keeps them; None leaves them as they are.

    Raises:
        RunError: If it cannot be read, or does not fit its own contract.
        SettingsError: If torch is not installed.
    """
    require_torch(str(path))
    import torch
    from safetensors import SafetensorError, safe_open

    from visionforge.inference.exported import ExportedClassifier
    from visionforge.training.trained_network import TrainedNetwork

    _require_bounded(path)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with safe_open(str(path), framework="pt") as file:
            contract = read_contract((file.metadata() or {}).get(KEY), str(path))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({reason_of(error)})") from error
    model = TrainedNetwork(contract.spec, contract.settings.model_dump(mode="json"))
    model.members, model.inputs, model.heads = contract.members, contract.inputs, contract.heads
    try:
        model.build_for(state)
    except WeightsError as error:
        raise RunError([f"{path}: {problem}" for problem in error.problems]) from error
    try:
        _take_outliers(model, contract, state)
        module = ExportedClassifier(model, contract)
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"{path}: its tensors are not those of {contract.settings.backbone.name}") from error
    return torch_runtime(module, contract, path)


def contract_of_weights(path: Path, where: str) -> Contract:
    """Return what a weight file says of itself; its tensors are not read.

    Args:
        path: The file.
        where: Whose it is, for messages.

    Raises:
        RunError: If it cannot be read, or says nothing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{where}: cannot be read as safetensors ({reason_of(error)})") from error
    return read_contract(text, where)


def require_torch(what: str) -> None:
    """Check that torch is there, which an ONNX model of classes does without.

    Args:
        what: What needs it.

    Raises:
        SettingsError: If it is not.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"{what}: needs torch: pip install torch torchvision") from error


def _take_outliers(model: "TaskNetwork", contract: Contract, state: "Mapping[str, Tensor]") -> None:
    """Give a model the score of images that are far out, whose tensors are among those of a file.

    Raises:
        ValueError: If they are not those of the network.
    """
    if contract.ood is None:
        return
    tensors = {name.removeprefix("ood_"): each for name, each in state.items() if name.startswith("ood_")}
    values = {**contract.ood.model_dump(), "images": contract.ood.validation_images, "tensors": tensors}
    model.outliers = model.read_outliers(values)


def _require_bounded(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path}: larger than {MAX_BYTES:,} bytes, so it is no model of this kind")


def torch_runtime(module: "Callable[[Tensor], Tensor | tuple[Tensor, ...]]", contract: Contract, path: Path) -> Runtime:
    """Return a module of PyTorch as a loaded artifact."""
    import torch

    def answers(images: Pixels) -> Mapping[str, Array]:
        with torch.inference_mode():
            given = module(torch.from_numpy(prepared(images, contract)))
        results = given if isinstance(given, tuple | list) else (given,)
        return _checked([each.numpy() for each in results], len(images), contract, path)

    return Runtime(contract, answers)


def _checked(results: Sequence[Array], images: int, contract: Contract, path: Path) -> Mapping[str, Array]:
    """Return outputs by name, looked at: shapes, and whether they are finite."""
    found = dict(zip(contract.output_names, results, strict=True))
    classes = len(contract.spec.classes)
    shapes = {"set": (images, classes), "ood_score": (images,), DISAGREEMENT: (images,)}
    for name, each in list(found.items())[1:]:
        if each.shape != shapes[name] or (each.dtype == np.bool_) != (name == "set"):
            raise RunError(f"{path}: gives {name} of the shape {each.shape}, not {shapes[name]}; it was changed")
        if name != "set" and not np.isfinite(each).all():
            raise RunError(f"{path}: its outputs are not finite; export another checkpoint")
    result, spec = results[0], contract.spec
    expected = (images, *spec.kind.output_shape(spec, contract.settings))
    if result.shape != expected:
        raise RunError(
            f"{path}: gives the shape {result.shape}, not {expected} ({spec.kind.output_meaning}); it was changed"
        )
    if not np.isfinite(result).all():
        raise RunError(f"{path}: its outputs are not finite; export another checkpoint")
    return found


def reason_of(error: Exception) -> str:
    """Return the first line of an error of a library, at most 200 characters."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[0].split())[:200] if lines else type(error).__name__


LOADERS: dict[str, Callable[[Path, int | None], Runtime]] = {".onnx": load_onnx, ".safetensors": load_weights}
