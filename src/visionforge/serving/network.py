"""What is served: the network of a run or a checkpoint, or an exported artifact."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.data.info import TaskSpec
from visionforge.engine.picture_network import check_artifact, model_of, predictor_of
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.inference.loading import find_target
from visionforge.serving.reading import ClassReader, Reader

if TYPE_CHECKING:
    from visionforge.inference.predictions import Predictor

ARTIFACTS = (".onnx", ".safetensors", ".pt2")  # the last is refused, with the reason
_FLAGS = re.compile(r"^(?:--run|--ckpt_path|artifact):")  # with which a problem of what is served begins


@dataclass(frozen=True)
class ServedNetwork:
    """A network that is served.

    Attributes:
        name: Of its run or its file.
        spec: The task.
        about: What an artifact of it says of itself, and where it comes from.
        reader: Reads pictures, and answers them.
    """

    name: str
    spec: TaskSpec
    about: dict[str, Any]
    reader: Reader


def open_network(
    source: str | Path,
    *,
    tta: bool | None = None,
    accelerator: str = "auto",
    num_threads: int | None = None,
    batch_size: int = 1,
) -> ServedNetwork:
    """Open what is served.

    Args:
        source: A run (folder or name), a checkpoint file, or an exported `.onnx` or `.safetensors` file.
        tta: Average over test-time views; None is as the network is set.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        num_threads: CPU threads of the network; None leaves them to its runtime.
        batch_size: Tiles of a picture at once, of masks and boxes.

    Raises:
        RunError: If there is no such network, or it cannot be read.
        SettingsError: If something is asked for that it does not have.
    """
    if num_threads is not None and num_threads < 1:
        raise SettingsError(f"num_threads: {num_threads} is not allowed; allowed: whole numbers from 1")
    path = Path(source)
    is_file = path.suffix in ARTIFACTS and not path.is_dir()
    try:
        predictor, about = (_artifact if is_file else _checkpoint)(path, tta, accelerator, num_threads)
    except VisionForgeError as error:
        error.problems = tuple(_FLAGS.sub("source:", problem) for problem in error.problems)
        raise
    spec = predictor.spec
    if spec.kind.located:
        from visionforge.serving.places import PlaceReader

        return ServedNetwork(about["name"], spec, about, PlaceReader(predictor, batch_size))
    return ServedNetwork(about["name"], spec, about, ClassReader(predictor))


def _artifact(
    path: Path, tta: bool | None, accelerator: str, num_threads: int | None
) -> "tuple[Predictor, dict[str, Any]]":
    from visionforge.inference.artifacts import ArtifactPredictor

    check_artifact(False, tta, accelerator)
    predictor = predictor_of(None, path, None, accelerator, num_threads)
    assert isinstance(predictor, ArtifactPredictor)
    contract = predictor.contract
    return predictor, _about(path.name, contract.as_text(), contract.run, contract.config_hash, contract.version)


def _checkpoint(
    path: Path, tta: bool | None, accelerator: str, num_threads: int | None
) -> "tuple[Predictor, dict[str, Any]]":
    from visionforge.inference.contract import contract_of

    is_file = path.suffix == ".ckpt" and not path.is_dir()
    target = find_target("serve", None if is_file else str(path), str(path) if is_file else None)
    model = model_of(target, tta, accelerator, num_threads)
    if tta is False:
        model.settings = model.settings.model_copy(update={"tta": "off"})
    assert model.spec is not None
    run = None if target.run is None else target.run.path.name
    contract = contract_of(model, "uint8", run, target.config_hash, target.checkpoint.name)
    name = target.checkpoint.name if run is None else run
    predictor: Predictor = model.spec.kind.predictor(model, tta)
    return predictor, _about(name, contract.as_text(), run, target.config_hash, contract.version)


def _about(name: str, text: dict[str, Any], run: str | None, config_hash: str | None, version: str) -> dict[str, Any]:
    return {"name": name, "run": run, "config_hash": config_hash, "version": version, **text}
