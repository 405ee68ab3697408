"""`visionforge export --run RUN --format …`: an artifact, the proof that it is the network, and a model card."""

import datetime
import json
import re
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from visionforge.cli.arguments import CommandParser, add_target_flags, plain_table, print_table, say, warn
from visionforge.config.loading import normalise
from visionforge.config.schema import DataSettings, TtaMode
from visionforge.data.info import DatasetInfo, Split
from visionforge.data.picture_sources import list_pictures
from visionforge.data.registry import dataset_info
from visionforge.data.stream import picture_batches
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.evaluation.comparison import positive_of
from visionforge.exporting.formats import FILES, OPSET, OPSETS, require_packages
from visionforge.inference.loading import Target, find_target, load_classifier
from visionforge.reading import read_json_text
from visionforge.runs.anchors import shown
from visionforge.runs.owned_files import Listed, OwnedFolder, described
from visionforge.runs.signals import Interruption
from visionforge.runs.store import load_run

IMAGES = 1000  # of the proof
CALIBRATION_IMAGES = 256
INT8 = "model_int8.onnx"
DESCRIPTION, CARD = "export.json", "model_card.md"
_OURS = "|".join(map(re.escape, (*FILES.values(), INT8, CARD)))
_PACKAGES = ("visionforge", "torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


def run_export(arguments: list[str]) -> int:
    """Run `visionforge export …` and return its exit status.

    Args:
        arguments: What follows `export` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if the artifact is not the network; nothing is
            left behind then.
    """
    options = _parser().parse_args(normalise(arguments))
    _check(options)
    target = find_target("export", options.run, options.ckpt_path)
    folder = options.out or _default_folder(target, options.format)
    owned = OwnedFolder(folder, DESCRIPTION, _listed, _OURS)
    owned.require([FILES[options.format], *([INT8] if options.int8 else []), CARD], options.overwrite)
    with Interruption(), owned.writing(options.overwrite) as staged:
        content = _export(options, target, staged)
    _tell(content, folder)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="visionforge export", description="Write a network as a file that predicts without visionforge."
    )
    add = parser.add_argument
    add_target_flags(parser)
    add(
        "--format",
        choices=(*FILES, "torchscript"),
        default="onnx",
        help="onnx; torch: a torch.export program; safetensors: the weights; default onnx",
    )
    add("--out", type=Path, metavar="FOLDER", help="default export/FORMAT in the run, or in the working folder")
    add("--overwrite", action="store_true", help="replace what an earlier export wrote there")
    add("--input", choices=("uint8", "float32"), default="uint8", help="pixels 0 to 255, or 0 to 1; default uint8")
    add("--tta", action="store_true", default=None, help="test-time views inside; default as the network is set")
    add("--no-tta", "--no_tta", dest="tta", action="store_false", help="the image alone")
    add("--opset", type=int, default=OPSET, help=f"of ONNX, {OPSETS[0]} to {OPSETS[-1]}; default {OPSET}")
    add("--int8", action="store_true", help="ONNX: write a quantised model, too, and measure what it loses")
    add("--benchmark", action="store_true", help="measure latency and throughput beside PyTorch's")
    add("--images", nargs="+", type=Path, metavar="PATH", help="prove it on these instead of the test split")
    add("--root", help="folder of the archives; default as the run was configured")
    return parser


def _check(options: Namespace) -> None:
    if options.format == "torchscript":
        raise SettingsError(
            "--format: torchscript is deprecated by PyTorch and is not written; --format torch is its successor"
        )
    if options.opset not in OPSETS:
        raise SettingsError(f"--opset: {options.opset} is not allowed; allowed: {OPSETS[0]} to {OPSETS[-1]}")
    if options.int8 and options.format != "onnx":
        raise SettingsError(f"--int8: is a form of ONNX; --format is {options.format}")
    if options.opset != OPSET and options.format != "onnx":
        raise SettingsError(f"--opset: belongs to ONNX; --format is {options.format}")
    require_packages(options.format)


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


def _export(options: Namespace, target: Target, folder: Path) -> dict[str, Any]:
    """Write everything into a folder; return the content of `export.json`."""
    from visionforge.exporting.card import model_card
    from visionforge.exporting.contract import contract_of
    from visionforge.exporting.formats import (
        load_onnx,
        load_program,
        load_weights,
        quantise,
        write_onnx,
        write_program,
        write_weights,
    )
    from visionforge.exporting.module import ExportedClassifier
    from visionforge.exporting.parity import BOUND, calibration_batches, compare, expected

    model = load_classifier(target.checkpoint)
    model.settings = model.settings.model_copy(update=_tta(options.tta, model.settings.tta))
    assert model.spec is not None
    config_hash = target.config_hash
    run_name = None if target.run is None else target.run.path.name
    contract = contract_of(model, options.input, run_name, config_hash, target.checkpoint.name)
    images = _given_images(options, model.spec) if options.images else _split_images(options, target, "test", IMAGES)
    module = ExportedClassifier(model, contract)
    path = folder / FILES[options.format]
    if options.format == "onnx":
        write_onnx(module, contract, path, options.opset)
    elif options.format == "torch":
        write_program(module, contract, path)
    else:
        write_weights(module, contract, path)
    load = {"onnx": load_onnx, "torch": load_program, "safetensors": load_weights}[options.format]
    runtime = load(path)
    wanted = expected(model, images)
    artifacts = [{**described(path), "parity": compare(model.spec, wanted, runtime, images, BOUND).as_dict()}]
    runtimes = {options.format: runtime}
    if options.int8:
        val = _given_images(options, model.spec) if options.images else _split_images(options, target, "val", None)
        small = folder / INT8
        quantise(path, small, contract, calibration_batches(val, CALIBRATION_IMAGES))
        runtimes["int8"] = load_onnx(small)
        parity = compare(model.spec, wanted, runtimes["int8"], images, None)
        artifacts.append({**described(small), "parity": parity.as_dict(), "calibrated_on": val.source})
    content: dict[str, Any] = {
        "format": options.format,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run_name,
        "config_hash": config_hash,
        "checkpoint": target.checkpoint.name,
        "dataset": model.spec.dataset,
        "task": model.spec.task,
        "backbone": model.settings.backbone.name,
        **({"opset": options.opset} if options.format == "onnx" else {}),
        **contract.as_text(),
        "artifacts": artifacts,
        "versions": _versions(),
    }
    if options.benchmark:
        from visionforge.exporting.speed import compiled, eager, speed_table

        works: dict[str, Any] = {"PyTorch": eager(model), "PyTorch, compiled": compiled(module, contract)}
        works |= {_RUNTIMES[name]: runtime.run for name, runtime in runtimes.items()}
        content["speed"] = speed_table(works, contract.shape[1:])
    metrics = load_run(target.run).metrics if target.run is not None and target.run.manifest.is_file() else {}
    metrics = {**metrics, "positive": positive_of(metrics)}  # which the run's figures are of
    info = _info(model.spec.dataset)
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
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _info(dataset: str) -> DatasetInfo | None:
    try:
        return dataset_info(dataset)
    except VisionForgeError:
        return None


# --- images


def _split_images(options: Namespace, target: Target, split: Split, limit: int | None) -> Any:
    """Return images of a split of the run's data, evenly drawn.

    Raises:
        DataError: If the data is not here, with what to do.
    """
    from visionforge.data.datamodule import MedMNISTDataModule
    from visionforge.exporting.parity import Images

    given = {**target.config.get("data", {}), **({"root": options.root} if options.root else {})}
    settings = DataSettings.model_validate({**given, "cache": "auto", "num_workers": 0})
    try:
        module = MedMNISTDataModule(
            dataset=settings.dataset,
            root=settings.root,
            download=settings.download,
            resolution=settings.resolution,
            force_rgb=settings.force_rgb,
            synthetic=settings.synthetic,
        )
        dataset = module.dataset_for(split)
    except VisionForgeError as error:
        raise DataError(f"{error}; an export is proven on real images: name some with --images") from error
    count = len(dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(limit or count, count)).astype(np.int64)).tolist()
    pixels, labels = dataset.__getitems__(chosen)
    return Images(_channels(pixels.numpy(), module.spec.channels), labels.numpy(), f"{settings.dataset}, {split} split")


def _given_images(options: Namespace, spec: Any) -> Any:
    from visionforge.exporting.parity import Images

    parts, names = [], 0
    for batch in picture_batches(list_pictures(options.images), spec.resolution, spec.channels, 64, 2):
        for name, reason in batch.failures:
            warn(f"warning: {name}: {reason}")
        if batch.names:
            parts.append(batch.images.numpy())
            names += len(batch.names)
        if names >= IMAGES:
            break
    if not parts:
        raise DataError("--images: none of the files could be read, so the artifact cannot be proven")
    return Images(np.concatenate(parts)[:IMAGES], None, "given images")


def _channels(pixels: Any, channels: int) -> Any:
    return np.repeat(pixels, channels, axis=1) if pixels.shape[1] != channels else pixels


# --- text


def _tell(content: dict[str, Any], folder: Path) -> None:
    for artifact in content["artifacts"]:
        parity = artifact["parity"]
        size = f"{artifact['bytes'] / 1e6:,.1f} MB"
        change = {name: parity["change"].get(name) for name in ("accuracy", "auc")}
        told = ", ".join(f"{name} {value:+.4f}" for name, value in change.items() if value is not None)
        say(
            f"{artifact['file']}: {size}; {parity['images']:,} images ({parity['source']}): {parity['agreement']:.2%} "
            f"have the same prediction, largest deviation {parity['largest_deviation']:.2g}"
            f"{f'; {told}' if told else ''}"
        )
    if "speed" in content:
        print_table(_speed(content["speed"]))
    for name in (DESCRIPTION, CARD):
        say(f"{shown(folder / name)}")


def _speed(rows: list[dict[str, Any]]) -> Table:
    table = plain_table("runtime", "batch", "ms per batch", "images/s", right=("batch", "ms per batch", "images/s"))
    for row in rows:
        spans = ("{:,.2f} ({:,.2f} to {:,.2f})".format(*row[key]) for key in ("milliseconds", "images_per_second"))
        table.add_row(row["runtime"], str(row["batch"]), *spans)
    return table
