"""The formats: each writes an artifact and reads it back with its own runtime."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from visionforge.errors import RunError, SettingsError, WeightsError
from visionforge.exporting.contract import KEY, Contract, read_contract
from visionforge.exporting.module import ExportedClassifier
from visionforge.training.classifier import ImageClassifier

log = logging.getLogger(__name__)

Format = Literal["onnx", "torch", "safetensors"]
FILES: dict[Format, str] = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
OPSETS = range(18, 24)  # 18 is the lowest that PyTorch's exporter writes
OPSET = 18
MAX_BYTES = 2_000_000_000  # of a model file: protobuf, which ONNX is, takes no more
_EXAMPLES = 2  # images of the example; with one, the exporter would take the batch for a constant
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


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


def require_packages(kind: Format) -> None:
    """Check that what a format needs is installed.

    Raises:
        SettingsError: If it is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" and find_spec(name) is None]
    if missing:
        raise SettingsError(f'--format: onnx needs {", ".join(missing)}: pip install "visionforge[onnx]"')


# --- ONNX


def write_onnx(module: ExportedClassifier, contract: Contract, path: Path, opset: int) -> None:
    """Write an ONNX model with a free batch size and the contract in its metadata.

    Raises:
        RunError: If the network has an operation that cannot be written.
    """
    import onnx

    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (_example(contract),),
                input_names=["images"],
                output_names=["probabilities"],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # the exporter wraps what it meets in errors of its own
        raise RunError(
            f"format: onnx: {contract.settings.backbone.name} cannot be exported ({_reason(error)})"
        ) from error
    written = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise RunError(f"opset: {opset} was asked for, the exporter gives {written} for this network; choose that")
    _describe(model, contract)
    model.producer_name, model.producer_version = "visionforge", contract.version
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _describe(model: Any, contract: Contract) -> None:
    """Write the contract into the metadata of an ONNX model."""
    import onnx

    onnx.helper.set_model_props(model, {KEY: contract.model_dump_json(), "classes": json.dumps(contract.spec.classes)})


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
        raise RunError(f"{path}: cannot be loaded by ONNX Runtime ({_reason(error)})") from error
    contract = read_contract(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
    given, found = session.get_inputs(), session.get_outputs()
    kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[contract.input]
    if len(given) != 1 or given[0].type != kind or list(given[0].shape[1:]) != list(contract.shape[1:]) or not found:
        raise RunError(f"{path}: does not take what its metadata says, so it was changed after the export")

    def run(images: Pixels) -> Floats:
        (result,) = session.run([found[0].name], {given[0].name: prepared(images, contract)})
        return _checked(result, contract, path)

    return Runtime(contract, run)


def quantise(source: Path, target: Path, contract: Contract, images: Sequence[Pixels]) -> None:
    """Write a copy in INT8: weights per channel, activations by their range over real images.

    Static quantisation of ONNX Runtime, as pairs of quantise and dequantise nodes.

    Args:
        source: The float32 model.
        target: The new file.
        contract: Its contract.
        images: Batches of uint8 pixels (N, C, R, R) to calibrate with.

    Raises:
        RunError: If the model cannot be quantised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": prepared(batch, contract)}

    plain = target.with_name(f".{target.name}.plain")
    try:
        with _quiet():
            quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
            quantize_static(
                str(plain),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        model = onnx.load(str(target))
        _describe(model, contract)
        onnx.save(model, str(target))
    except Exception as error:
        raise RunError(f"int8: this network cannot be quantised ({_reason(error)})") from error
    finally:
        plain.unlink(missing_ok=True)


# --- torch.export


def write_program(module: ExportedClassifier, contract: Contract, path: Path) -> None:
    """Write a `torch.export` program with a free batch size.

    Raises:
        RunError: If the network cannot be traced.
    """
    try:
        with _quiet():
            shapes = {"images": {0: torch.export.Dim("batch")}}
            program = torch.export.export(module, (_example(contract),), dynamic_shapes=shapes)
            torch.export.save(program, path, extra_files={KEY: contract.model_dump_json()})
    except Exception as error:  # tracing meets anything that a network's code raises
        name = contract.settings.backbone.name
        raise RunError(f"format: torch: {name} cannot be exported ({_reason(error)})") from error


def load_program(path: Path) -> Runtime:
    """Load a program that this process has just written; the format is not made for files of strangers."""
    extra = {KEY: ""}
    with _quiet():
        program = torch.export.load(path, extra_files=extra)
    contract = read_contract(extra[KEY] or None, str(path))
    return _torch_runtime(program.module(), contract, path)


# --- safetensors


def write_weights(module: ExportedClassifier, contract: Contract, path: Path) -> None:
    """Write the weights alone; the contract in the header says how to rebuild the network."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    save_file(tensors, str(path), metadata={KEY: contract.model_dump_json(), "format": "pt"})


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
        raise RunError(f"{path}: cannot be read as safetensors ({_reason(error)})") from error
    model = ImageClassifier(**contract.settings.model_dump(mode="json"), spec=contract.spec, restoring=True)
    try:
        model.build_for(state)
    except WeightsError as error:
        raise RunError([f"{path}: {problem}" for problem in error.problems]) from error
    module = ExportedClassifier(model, contract)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{path}: its tensors are not those of {contract.settings.backbone.name}") from error
    return _torch_runtime(module, contract, path)


LOADERS: dict[str, Callable[[Path], Runtime]] = {".onnx": load_onnx, ".safetensors": load_weights}


def load_artifact(path: Path) -> Runtime:
    """Load an artifact that may come from a stranger.

    Raises:
        RunError: If it does not exist, is of a format that may carry code, or cannot be read.
    """
    if not path.is_file():
        raise RunError(f"--model: {path} does not exist")
    if path.suffix not in LOADERS:
        hint = (
            "; loading a torch.export program can run code, so it is left to torch.export.load"
            if path.suffix == ".pt2"
            else ""
        )
        raise RunError(f"--model: {path} is of no format that is loaded here; allowed: {', '.join(LOADERS)}{hint}")
    return LOADERS[path.suffix](path)


# --- helpers


def _example(contract: Contract) -> torch.Tensor:
    shape = (_EXAMPLES, *contract.shape[1:])
    return torch.zeros(shape, dtype=torch.uint8 if contract.input == "uint8" else torch.float32)


def _require_bounded(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path}: larger than {MAX_BYTES:,} bytes, so it is no model of this kind")


def _torch_runtime(module: Callable[[torch.Tensor], torch.Tensor], contract: Contract, path: Path) -> Runtime:
    """Return a module of PyTorch as a loaded artifact."""

    def run(images: Pixels) -> Floats:
        with torch.inference_mode():
            result: Floats = module(torch.from_numpy(prepared(images, contract))).numpy()
        return _checked(result, contract, path)

    return Runtime(contract, run)


def _checked(result: Floats, contract: Contract, path: Path) -> Floats:
    if result.ndim != 2 or result.shape[1] != len(contract.spec.classes):
        raise RunError(f"{path}: gives the shape {result.shape}, not a probability of each class; it was changed")
    return result


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[0].split())[:200] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own messages out of the way; what matters is in the errors that they raise."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "root")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
