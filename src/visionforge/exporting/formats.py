"""The formats in which an artifact is written."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from visionforge.distribution import how_to_install
from visionforge.errors import RunError, SettingsError
from visionforge.exporting.onnx_operations import translations
from visionforge.inference.artifacts import Runtime, prepared, reason_of, torch_runtime
from visionforge.inference.contract import KEY, Contract, read_contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.predictions import Pixels

log = logging.getLogger(__name__)

Format = Literal["onnx", "torch", "safetensors"]
FILES: dict[Format, str] = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
OPSETS = range(18, 24)  # 18 is the lowest that PyTorch's exporter writes
OPSET = 18
_TRACE = "pkg.torch.onnx.stack_trace"  # of a node: files and lines, by the exporter
_EXAMPLES = 2  # images of the example; with one, the exporter would take the batch for a constant


def require_packages(kind: Format) -> None:
    """Check that what a format needs is installed.

    Raises:
        SettingsError: If it is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" and find_spec(name) is None]
    if missing:
        raise SettingsError(f"--format: onnx needs {', '.join(missing)}: {how_to_install('onnx')}")


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
                output_names=list(contract.output_names),
                opset_version=opset,
                dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                custom_translation_table=translations(),
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # the exporter wraps what it meets in errors of its own
        raise RunError(
            f"format: onnx: {contract.settings.backbone.name} cannot be exported ({reason_of(error)})"
        ) from error
    written = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise RunError(f"opset: {opset} was asked for, the exporter gives {written} for this network; choose that")
    _describe(model, contract)
    model.producer_name, model.producer_version = "visionforge", contract.version
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _describe(model: Any, contract: Contract) -> None:
    """Write the contract into the metadata of an ONNX model, and take out where on this machine its code lies."""
    import onnx

    for node in model.graph.node:
        kept = [each for each in node.metadata_props if each.key != _TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.helper.set_model_props(model, {KEY: contract.model_dump_json(), "classes": json.dumps(contract.spec.classes)})


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
        raise RunError(f"int8: this network cannot be quantised ({reason_of(error)})") from error
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
        raise RunError(f"format: torch: {name} cannot be exported ({reason_of(error)})") from error


def load_program(path: Path) -> Runtime:
    """Load a program that this process has just written; the format is not made for files of strangers."""
    extra = {KEY: ""}
    with _quiet():
        program = torch.export.load(path, extra_files=extra)
    contract = read_contract(extra[KEY] or None, str(path))
    return torch_runtime(program.module(), contract, path)


# --- safetensors


def write_weights(module: ExportedClassifier, contract: Contract, path: Path) -> None:
    """Write the weights alone; the contract in the header says how to rebuild the network."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    # one entry alone: several are written in an order that changes from time to time, and with it the SHA-256
    save_file(tensors, str(path), metadata={KEY: contract.model_dump_json()})


# --- helpers


def _example(contract: Contract) -> torch.Tensor:
    shape = (_EXAMPLES, *contract.shape[1:])
    return torch.zeros(shape, dtype=torch.uint8 if contract.input == "uint8" else torch.float32)


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
