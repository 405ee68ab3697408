"""An artifact, the proof that it is the network, and a model card, written into a folder."""

import datetime
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.config.schema import DataSettings, TtaMode
from visionforge.config.schema.task import Task
from visionforge.data.info import DatasetInfo, Split
from visionforge.data.picture_sources import list_pictures, read_by
from visionforge.data.registry import dataset_info
from visionforge.data.stream import picture_batches
from visionforge.distribution import distributed_as
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.evaluation.comparison import positive_of
from visionforge.evaluation.metric_names import PROVEN
from visionforge.exporting.formats import FILES, OPSET, OPSETS, require_packages
from visionforge.inference.loading import Target, find_target, load_classifier
from visionforge.printable import LONGEST_LINE, printable
from visionforge.reading import read_json_text
from visionforge.runs.owned_files import Listed, OwnedFolder, described
from visionforge.runs.paths import shown
from visionforge.runs.query import load_run

IMAGES = 1000  # of the proof
MOST_VALUES = 1 << 27  # outputs of the proof that are compared; of masks fewer images have as many
LEAST_IMAGES = 16
CALIBRATION_IMAGES = 256
INT8 = "model_int8.onnx"
INPUTS = ("uint8", "float32")
DESCRIPTION, CARD = "export.json", "model_card.md"
_OURS = "|".join(map(re.escape, (*FILES.values(), INT8, CARD)))
_PACKAGES = ("visionforge", "torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


class ExportResult:
    """An exported network, as it lies in a folder.

    Args:
        path: The folder.
        content: The whole content of `export.json`.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @property
    def artifacts(self) -> list[Path]:
        """The files that predict."""
        return [self.path / artifact["file"] for artifact in self.content["artifacts"]]

    @property
    def files(self) -> list[Path]:
        """What describes them: `export.json` and the model card."""
        return [self.path / DESCRIPTION, self.path / CARD]

    def proofs(self) -> list[str]:
        """Return a line per artifact that says how well it agrees with the network."""
        return [_proof(artifact) for artifact in self.content["artifacts"]]

    def as_dict(self) -> dict[str, Any]:
        """Return the folder, and everything as `export.json` has it."""
        return {"path": str(self.path), **self.content}

    def __repr__(self) -> str:
        """Return where the artifacts are, and how well each agrees with the network."""
        lines = [f"{self.content['format']} export: {shown(self.path)}", *(f"  {line}" for line in self.proofs())]
        return "\n".join(printable(line, LONGEST_LINE) for line in lines)


def _proof(artifact: dict[str, Any]) -> str:
    parity = artifact["parity"]
    size = f"{artifact['bytes'] / 1e6:,.1f} MB"
    change = {name: parity["change"].get(name) for name in PROVEN}
    told = ", ".join(f"{name} {value:+.4f}" for name, value in change.items() if value is not None)
    return (
        f"{artifact['file']}: {size}; {parity['images']:,} images ({parity['source']}): {parity['agreement']:.2%} "
        f"have the same prediction, largest deviation {parity['largest_deviation']:.2g}"
        f"{f'; {told}' if told else ''}"
    )


@dataclass(frozen=True)
class _Wanted:
    """What is exported and how; see `export_network`."""

    format: Any
    input: Any
    tta: bool | None
    opset: int
    int8: bool
    benchmark: bool
    pictures: Sequence[Path] | None
    root: str | None
    warn: Callable[[str], None]

    def check(self) -> None:
        """Refuse what does not go together, before anything is read.

        Raises:
            SettingsError: If something is not allowed, or a package is missing.
        """
        if self.format == "torchscript":
            raise SettingsError(
                "format: torchscript is deprecated by PyTorch and is not written; `format` torch is its successor"
            )
        for name, value, allowed in (("format", self.format, tuple(FILES)), ("input", self.input, INPUTS)):
            if value not in allowed:
                raise SettingsError(f"{name}: {value} is not allowed; allowed: {', '.join(allowed)}")
        if self.opset not in OPSETS:
            raise SettingsError(f"opset: {self.opset} is not allowed; allowed: {OPSETS[0]} to {OPSETS[-1]}")
        if self.int8 and self.format != "onnx":
            raise SettingsError(f"int8: is a form of ONNX; `format` is {self.format}")
        if self.opset != OPSET and self.format != "onnx":
            raise SettingsError(f"opset: belongs to ONNX; `format` is {self.format}")
        require_packages(self.format)

    def check_task(self, kind: Task) -> None:
        """Refuse what networks of a task cannot be written as.

        Raises:
            SettingsError: If it is asked for.
        """
        if self.format not in kind.export_formats:
            allowed = ", ".join(kind.export_formats)
            raise SettingsError(
                f"format: {self.format} is not allowed for {kind.name}, whose networks have an operation that only "
                f"visionforge and ONNX have; allowed: {allowed}"
            )
        if self.int8 and not kind.quantises:
            raise SettingsError(f"int8: is not for {kind.name}: places in an image need more than 8 bits; leave it out")


def export_network(
    *,
    run: str | None = None,
    checkpoint: str | None = None,
    format: str = "onnx",
    out: Path | None = None,
    overwrite: bool = False,
    input: str = "uint8",
    tta: bool | None = None,
    opset: int = OPSET,
    int8: bool = False,
    benchmark: bool = False,
    pictures: Sequence[Path] | None = None,
    root: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> ExportResult:
    """Write a network as a file that predicts without visionforge, and prove on images that it is the same.

    Args:
        run: The run, by folder or name.
        checkpoint: `best`, `last` or a file; None is the best of the run.
        format: `onnx`, `torch` (a torch.export program) or `safetensors` (the weights).
        out: The folder; None is one in the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier export wrote there.
        input: Pixels 0 to 255 (`uint8`), or 0 to 1 (`float32`).
        tta: Test-time views inside; None is as the network is set.
        opset: Of ONNX.
        int8: Write a quantised ONNX model, too, and measure what it loses.
        benchmark: Measure latency and throughput beside PyTorch's.
        pictures: Folders, files and archives to prove it on; None is the test split.
        root: Folder of the archives; None is as the run was configured.
        warn: Told of pictures that could not be read.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if the artifact is not the network; nothing is
            left behind then.
    """
    wanted = _Wanted(format, input, tta, opset, int8, benchmark, pictures, root, warn)
    wanted.check()
    target = find_target("export", run, checkpoint)
    folder = out or _default_folder(target, format)
    owned = OwnedFolder(folder, DESCRIPTION, _listed, _OURS)
    owned.require([FILES[wanted.format], *([INT8] if int8 else []), CARD], overwrite)
    with owned.writing(overwrite) as staged:
        content = _export(wanted, target, staged)
    return ExportResult(folder, content)


def _listed(description: str) -> Listed:
    """Return the files that an `export.json` lists; earlier versions listed the artifacts only."""
    content = read_json_text(description)
    entries = content["files"] if "files" in content else content["artifacts"]
    return {str(entry["file"]): str(entry["sha256"]) for entry in entries}


def _default_folder(target: Target, kind: str) -> Path:
    base = Path("export") if target.run is None else target.run.path / "export"
    return base / kind


def _tta(wanted: bool | None, setting: TtaMode) -> dict[str, TtaMode]:
    """Return what a flag changes in the settings; `predict` understands it in the same way."""
    if wanted is None:
        return {}
    return {"tta": "off" if not wanted else "full" if setting == "off" else setting}


def _export(wanted: _Wanted, target: Target, folder: Path) -> dict[str, Any]:
    """Write everything into a folder; return the content of `export.json`."""
    from visionforge.exporting.card import model_card
    from visionforge.exporting.formats import load_program, quantise, write_onnx, write_program, write_weights
    from visionforge.exporting.parity import BOUND, calibration_batches, compare, expected
    from visionforge.inference.artifacts import load_onnx, load_weights
    from visionforge.inference.contract import contract_of
    from visionforge.inference.exported import ExportedClassifier

    model = load_classifier(target.checkpoint)
    model.settings = model.settings.model_copy(update=_tta(wanted.tta, model.settings.tta))
    assert model.spec is not None
    wanted.check_task(model.spec.kind)
    config_hash = target.config_hash
    run_name = None if target.run is None else target.run.path.name
    contract = contract_of(model, wanted.input, run_name, config_hash, target.checkpoint.name)
    outputs = prod(model.spec.kind.output_shape(model.spec, model.settings))
    most = min(IMAGES, max(LEAST_IMAGES, MOST_VALUES // outputs))
    images = _given_images(wanted, model.spec, most) if wanted.pictures else _split_images(wanted, target, "test", most)
    module = ExportedClassifier(model, contract)
    path = folder / FILES[wanted.format]
    if wanted.format == "onnx":
        write_onnx(module, contract, path, wanted.opset)
    elif wanted.format == "torch":
        write_program(module, contract, path)
    else:
        write_weights(module, contract, path)
    load = {"onnx": load_onnx, "torch": load_program, "safetensors": load_weights}[wanted.format]
    runtime = load(path)
    said = expected(model, images)
    artifacts = [{**described(path), "parity": compare(model.spec, said, runtime, images, BOUND).as_dict()}]
    runtimes = {wanted.format: runtime}
    if wanted.int8:
        val = (
            _given_images(wanted, model.spec, IMAGES) if wanted.pictures else _split_images(wanted, target, "val", None)
        )
        small = folder / INT8
        quantise(path, small, contract, calibration_batches(val, CALIBRATION_IMAGES))
        runtimes["int8"] = load_onnx(small)
        parity = compare(model.spec, said, runtimes["int8"], images, None)
        artifacts.append({**described(small), "parity": parity.as_dict(), "calibrated_on": val.source})
    content: dict[str, Any] = {
        "format": wanted.format,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run_name,
        "config_hash": config_hash,
        "checkpoint": target.checkpoint.name,
        "dataset": model.spec.dataset,
        "task": model.spec.task,
        "backbone": model.settings.backbone.name,
        **({"opset": wanted.opset} if wanted.format == "onnx" else {}),
        **contract.as_text(),
        "artifacts": artifacts,
        "versions": _versions(),
    }
    if wanted.benchmark:
        from visionforge.exporting.speed import compiled, eager, speed_table

        works: dict[str, Any] = {"PyTorch": eager(model), "PyTorch, compiled": compiled(module, contract)}
        works |= {_RUNTIMES[name]: runtime.run for name, runtime in runtimes.items()}
        content["speed"] = speed_table(works, contract.shape[1:], outputs)
    metrics = load_run(target.run).metrics if target.run is not None and target.run.manifest.is_file() else {}
    metrics = {**metrics, "positive": positive_of(metrics)}  # which the run's figures are of
    info = catalog_entry(model.spec.dataset)
    (folder / CARD).write_text(model_card(contract, info, content, metrics), encoding="utf-8")
    content["files"] = [described(path) for path in sorted(folder.iterdir())]
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


_RUNTIMES = {
    "onnx": "ONNX Runtime",
    "int8": "ONNX Runtime, INT8",
    "torch": "torch.export",
    "safetensors": "safetensors",
}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(distributed_as(name))
        except PackageNotFoundError:
            continue
    return found


def catalog_entry(dataset: str) -> DatasetInfo | None:
    """Return what the catalog here says of a data set; None if it does not know it."""
    try:
        return dataset_info(dataset)
    except VisionForgeError:
        return None


# --- images


def _split_images(wanted: _Wanted, target: Target, split: Split, limit: int | None) -> Any:
    """Return images of a split of the run's data, evenly drawn.

    Raises:
        DataError: If the data is not here, with what to do.
    """
    from visionforge.data.datamodule import ImageDataModule
    from visionforge.exporting.parity import Images

    given = {**target.config.get("data", {}), **({"root": wanted.root} if wanted.root else {})}
    settings = DataSettings.model_validate({**given, "cache": "auto", "num_workers": 0})
    try:
        module = ImageDataModule.of_images(settings)
        dataset = module.dataset_for(split)
    except VisionForgeError as error:
        raise DataError(f"{error}; an export is proven on real images: name some with `pictures`") from error
    count = len(dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(limit or count, count)).astype(np.int64)).tolist()
    pixels, labels = dataset.__getitems__(chosen)
    return Images(_channels(pixels.numpy(), module.spec.channels), labels.numpy(), f"{settings.dataset}, {split} split")


def _given_images(wanted: _Wanted, spec: Any, most: int) -> Any:
    from visionforge.exporting.parity import Images

    parts, names = [], 0
    listed = read_by(list_pictures(wanted.pictures or ()), spec.spatial_dims)
    for batch in picture_batches(
        listed, spec.resolution, spec.channels, 64, 2, spec.spatial_dims, spec.fit, spec.intensity
    ):
        for name, reason in batch.failures:
            wanted.warn(f"{name}: {reason}")
        if batch.names:
            parts.append(batch.images.numpy())
            names += len(batch.names)
        if names >= most:
            break
    if not parts:
        raise DataError("pictures: none of the files could be read, so the artifact cannot be proven")
    return Images(np.concatenate(parts)[:most], None, "given images")


def _channels(pixels: Any, channels: int) -> Any:
    return np.repeat(pixels, channels, axis=1) if pixels.shape[1] != channels else pixels
