"""Resident memory while a 4 GB archive is read through, and the time to the first batch of a second start.

    python benchmarks/memory.py [--images 120000] [--pixels 105] [--folder DIR]

The archive is made, compressed, in a temporary folder (about 10 GB of free disk are needed with the unpacked arrays).
Each start is a process of its own; imports are not part of its time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from visionforge.data.info import Archive, DatasetInfo, DomainFlags, Normalisation, Splits

STARTS = 5


def make_archive(folder: Path, name: str, images: int, pixels: int) -> DatasetInfo:
    """Write a compressed archive piece by piece, and return its entry."""
    sizes = {"train": images, "val": 200, "test": 200}
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (64, pixels, pixels, 3), dtype=np.uint8)
    path = folder / (f"{name}.npz" if pixels == 28 else f"{name}_{pixels}.npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for split, count in sizes.items():
            labels = (np.arange(count) % 4).astype(np.uint8)[:, None]
            with archive.open(f"{split}_labels.npy", "w") as file:
                np.lib.format.write_array(file, labels)
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, pixels, pixels, 3)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, count, 64):
                    part = tile[: count - start] if count - start < 64 else tile
                    file.write(part.tobytes())
    return DatasetInfo(
        name=name, title=name, description="Made for a benchmark.", task="multi-class", classes=("a", "b", "c", "d"),
        channels=3, splits=Splits(**sizes), archives={pixels: Archive(url=None)},
        normalisation=Normalisation(mean=(0.5,) * 3, std=(0.29,) * 3, source="computed"),
        flags=DomainFlags(hflip=True, vflip=False, rotation="small", texture_is_label=False, colour_is_label=False),
        licence="none needed", citation="none needed",
    )  # fmt: skip


CHILD = """
import json, sys, time
import psutil, torch
from visionforge.data import MedMNISTDataModule, DatasetInfo, register_dataset
entry, root, whole = sys.argv[1], sys.argv[2], sys.argv[3] == "whole"
info = DatasetInfo.model_validate_json(entry)
register_dataset(info)
torch.set_num_threads(1)
process = psutil.Process()
started, before = time.perf_counter(), process.memory_info().rss
data = MedMNISTDataModule(info.name, root=root, resolution=info.resolutions[0], batch_size=128)
data.prepare_data()
data.setup("fit")
peak, count, first = before, 0, None
for step, (images, labels) in enumerate(data.train_dataloader()):
    batch = data.augment(images, 0, step)
    first = first or time.perf_counter() - started
    count += len(batch)
    peak = max(peak, process.memory_info().rss)
    if not whole:
        break
print(json.dumps({"first_s": first, "growth_mb": (peak - before) / 1e6, "images": count,
                  "seconds": time.perf_counter() - started}))
"""


def start(info: DatasetInfo, folder: Path, how: str) -> dict[str, float]:
    """Run one process, and return what it measured."""
    environment = {**os.environ, "VISIONFORGE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", CHILD, info.model_dump_json(), str(folder), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--pixels", type=int, default=105)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    options = parser.parse_args()
    print("| archive | measure | value |\n|---|---|---|")
    for name, images, pixels in (("large", options.images, options.pixels), ("small", 12_000, 28)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            info = make_archive(Path(folder), name, images, pixels)
            label = f"{images:,} images of {pixels}×{pixels}×3, {images * pixels * pixels * 3 / 1e9:.2f} GB"
            began = time.perf_counter()
            start(info, Path(folder), "first")
            print(f"| {label} | first start, which verifies and unpacks | {time.perf_counter() - began:.1f} s |")
            firsts = [start(info, Path(folder), "first")["first_s"] for _ in range(STARTS)]
            print(
                f"| {label} | later start to first batch, median of {STARTS} (range) | "
                f"{statistics.median(firsts):.3f} s ({min(firsts):.3f} to {max(firsts):.3f}) |"
            )
            whole = start(info, Path(folder), "whole")
            print(f"| {label} | growth of resident memory over one epoch | {whole['growth_mb']:.0f} MB |")
            rate = whole["images"] / whole["seconds"]
            print(
                f"| {label} | reading, augmentation and normalisation, one thread | {rate:,.0f} images/s |", flush=True
            )


if __name__ == "__main__":
    main()
