"""Batches of images that lie in shards on disk, of more than memory holds, beside the same images in memory.

    python -m benchmarks.shards write FOLDER [--gigabytes 20]
    python -m benchmarks.shards read FOLDER [--peers]
    python -m benchmarks.shards train FOLDER [--network resnet18] [--limit-gb 1]

`write` makes two data sets of rendered noise, 28×28 in colour: one of that size, and one of 1 GB for the sides in
memory. `read` times batches of 128 in random order, without a network: each side is a process, in turn, with
`ROUNDS` rounds. `train` times steps of a network with augmentation, where the shards are read under a limit of memory
(a control group, where this may be made: page cache counts there, too). The peers are read as their pages say: litdata
and WebDataset shuffle a window, not the whole set.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH, ROUNDS, SECONDS = 128, 5, 5.0
TRAINED = {"resnet18": 32, "mini_cnn": 128}  # images of a step; 128 of ResNet-18 take over 1 GB themselves
SMALL_GB, VALIDATION, AT_ONCE = 1.0, 2000, 1 << 14
BLOCKS = {"name": "blocks", "size": 8192, "together": 8}
GROUP = Path("/sys/fs/cgroup/memory/visionforge_benchmark")


def blocks(images: int) -> Iterator[tuple[Any, npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Yield images of noise, and labels of eight classes."""
    rng = np.random.default_rng(0)
    for split, count in (("val", VALIDATION), ("test", VALIDATION), ("train", images - 2 * VALIDATION)):
        for start in range(0, count, AT_ONCE):
            some = min(AT_ONCE, count - start)
            yield split, rng.integers(0, 256, (some, 28, 28, 3), np.uint8), rng.integers(0, 8, some)


def write(folder: Path, gigabytes: float) -> None:
    """Write both data sets, with their entries in the folder."""
    from visionforge.config.schema import Synthetic
    from visionforge.data.registry import synthetic_info
    from visionforge.data.sharding import write_shards

    for name, size in (("large", gigabytes), ("small", SMALL_GB)):
        entry = {"name": name, "source": "archive", "resolutions": (28,)}
        info = synthetic_info(Synthetic(classes=8)).model_copy(update=entry)
        started = time.perf_counter()
        made = write_shards(info, 28, blocks(int(size * 1e9 / 2352)), output=folder, replace=True)
        print(f"{name}: {made.size / 1e9:.1f} GB, {made.shards} shards, {time.perf_counter() - started:.0f} s")


def module(folder: Path, name: str, **changes: Any) -> Any:
    """Return the data module of a set."""
    import visionforge as vf

    settings = {"resolution": 28, "batch_size": BATCH, "balanced_sampling": False, "download": False}
    return vf.ImageDataModule(dataset=name, root=str(folder), **{**settings, **changes})


SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "in memory": ("small", {"cache": "ram"}),
    "shards, whole order": ("large", {"cache": "mmap"}),
    "shards, blocks": ("large", {"cache": "mmap", "sampler": BLOCKS}),
}


def peer_batches(folder: Path, peer: str) -> Iterator[Any]:
    """Yield batches of a peer, whose files are made first if they are missing."""
    import torch

    target = folder / f"peer_{peer}"
    if peer == "litdata":
        import litdata

        if not target.is_dir():
            litdata.optimize(_sample, list(_samples(folder)), output_dir=str(target), chunk_bytes="64MB", num_workers=1)
        data = litdata.StreamingDataset(str(target), shuffle=True)
        while True:
            yield from litdata.StreamingDataLoader(data, batch_size=BATCH)
    import webdataset

    if not target.is_dir():
        target.mkdir()
        _tars(folder, target)
    urls = sorted(map(str, target.glob("*.tar")))

    def decoded(sample: dict[str, bytes]) -> tuple[Any, int]:
        return torch.frombuffer(bytearray(sample["image"]), dtype=torch.uint8).view(28, 28, 3), int(sample["label"])

    pipeline = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(8192).map(decoded).batched(BATCH)
    while True:
        yield from pipeline


def _samples(folder: Path) -> Iterator[tuple[int, str]]:
    yield from ((position, str(folder)) for position in range(len(_train(folder).images)))


_open: dict[str, Any] = {}


def _train(folder: Path) -> Any:
    from visionforge.data.registry import dataset_info
    from visionforge.data.source import load_split

    if str(folder) not in _open:
        _open[str(folder)] = load_split(dataset_info("small"), 28, str(folder), "train")
    return _open[str(folder)]


def _sample(given: tuple[int, str]) -> dict[str, Any]:
    arrays = _train(Path(given[1]))
    return {"image": arrays.images[given[0]], "label": int(arrays.labels[given[0]])}


def _tars(folder: Path, target: Path) -> None:
    arrays = _train(folder)
    for number, start in enumerate(range(0, len(arrays.images), 27_000)):
        images, labels = arrays.images[start : start + 27_000], arrays.labels[start : start + 27_000]
        with tarfile.open(target / f"{number:05d}.tar", "w") as archive:
            for place, (image, label) in enumerate(zip(images, labels, strict=True)):
                for name, content in (("image", image.tobytes()), ("label", str(int(label)).encode())):
                    member = tarfile.TarInfo(f"{start + place:09d}.{name}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def read_one(folder: Path, side: str) -> dict[str, float]:
    """Return images per second of one side, and its memory."""
    import torch

    torch.set_num_threads(1)
    batches: Iterator[Any]
    if side in SIDES:
        name, changes = SIDES[side]
        data = module(folder, name, **changes)
        data.prepare_data()
        data.setup("fit")
        batches = (batch for _ in itertools.count() for batch in data.train_dataloader())
    else:
        batches = iter(peer_batches(folder, side))
    first = time.perf_counter()
    for _ in range(20):
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        next(batches)
        count += 1
    rate = BATCH * count / (time.perf_counter() - started)
    return {"rate": rate, "gigabytes": _resident(), "first": started - first}


def train_one(folder: Path, side: str, network: str) -> dict[str, float]:
    """Return images per second of training steps, and the memory of the process."""
    import lightning.pytorch as pl

    import visionforge as vf
    from visionforge.config.schema import Backbone

    name, changes = SIDES[side]
    data = module(folder, name, batch_size=TRAINED[network], **changes)
    model = vf.ImageClassifier(spec=data.spec, backbone=Backbone(name=network, pretrained=False))
    times: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    steps = 60 if network == "resnet18" else 400
    warm = steps // 6
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=steps, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[Clock()],
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    rate = TRAINED[network] * (steps - 1 - warm) / (times[-1] - times[warm])
    return {"rate": rate, "gigabytes": _resident()}


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def compare(mode: str, folder: Path, sides: list[str], network: str, limit: float | None) -> None:
    """Run the sides in turn, and print what was found."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    if limit is not None:
        with contextlib.suppress(FileExistsError):
            GROUP.mkdir()
        (GROUP / "memory.limit_in_bytes").write_text(str(int(limit * (1 << 30))))
    for number in range(ROUNDS):
        for side in sides if number % 2 == 0 else sides[::-1]:
            limited = limit is not None and side.startswith("shards")
            arguments = [sys.executable, "-m", "benchmarks.shards", f"{mode}-one", str(folder), "--side", side]
            process = subprocess.run(
                [*arguments, "--network", network],
                capture_output=True, text=True, check=False,
                preexec_fn=_enter if limited else None,
            )  # fmt: skip
            if process.returncode:
                print(process.stderr[-2000:])
                raise SystemExit(f"{side}: failed with {process.returncode}")
            found[side].append(json.loads(process.stdout.splitlines()[-1]))
    ours = found[sides[0]]
    for side, results in found.items():
        rates = [result["rate"] for result in results]
        ratios = [result["rate"] / other["rate"] for result, other in zip(results, ours, strict=True)]
        memory = max(result["gigabytes"] for result in results)
        print(
            f"{side}: {statistics.median(rates):,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f}), "
            f"{statistics.median(ratios):.2f}x of {sides[0]} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{memory:.2f} GB resident"
        )


def _enter() -> None:
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))


def main() -> None:
    """Parse, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("write", "read", "train", "read-one", "train-one"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--limit-gb", type=float)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--side")
    options = parser.parse_args()
    folder = options.folder.absolute()
    os.environ.setdefault("VISIONFORGE_CATALOG", str(folder / "catalog"))
    if options.mode == "write":
        write(folder, options.gigabytes)
    elif options.mode == "read-one":
        print(json.dumps(read_one(folder, options.side)))
    elif options.mode == "train-one":
        print(json.dumps(train_one(folder, options.side, options.network)))
    else:
        peers = ["litdata", "webdataset"] if options.peers else []
        compare(options.mode, folder, [*SIDES, *peers], options.network, options.limit_gb)


if __name__ == "__main__":
    main()
