"""Archives are unpacked once, whole or not at all, and noticed when they change."""

import json
import multiprocessing
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_archive import SIZES, arrays, entry
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.data.info import SPLITS
from visionforge.data.registry import dataset_info
from visionforge.data.store import MANIFEST, StoreError, open_archive, open_split, store_folder, stored_md5
from visionforge.errors import DataError


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
def archive(request, tmp_path):
    path = tmp_path / "x.npz"
    request.param(path, **arrays(3))
    return path


def stores() -> list:
    return [path for path in store_folder().iterdir() if path.is_dir()] if store_folder().is_dir() else []


def check(path, content, channels=3):
    for split in SIZES:
        got = open_split(path, entry(channels=channels), 28, split)
        np.testing.assert_array_equal(got.images, content[f"{split}_images"])
        np.testing.assert_array_equal(got.labels, content[f"{split}_labels"][:, 0])


def test_arrays_are_mapped_and_exact(archive):
    check(archive, arrays(3))
    got = open_split(archive, entry(channels=3), 28, "train")
    assert isinstance(got.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        got.images[0, 0, 0] = 1
    (store,) = stores()
    in_place = str(got.images.filename) == str(archive)
    assert in_place == (not list(store.glob("*.npy")))
    assert not list(store_folder().glob(".*"))


def test_second_opening_reads_no_archive(archive):
    check(archive, arrays(3))
    (store,) = stores()
    before = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    check(archive, arrays(3))
    assert {path.name: path.stat().st_mtime_ns for path in store.iterdir()} == before


def test_changed_archive_is_unpacked_again(archive):
    check(archive, arrays(3))
    content = {name: array[::-1].copy() for name, array in arrays(3).items()}
    np.savez_compressed(archive, **content)
    check(archive, content)
    assert len(stores()) == 1


@pytest.mark.parametrize("damage", ["truncate", "flip a byte", "remove", "manifest", "manifest gone"])
def test_damaged_store_is_rebuilt(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays(3))
    check(path, arrays(3))
    (store,) = stores()
    member = store / "train_images.npy"
    raw = bytearray(member.read_bytes())
    match damage:
        case "truncate":
            member.write_bytes(bytes(raw[:-5]))
        case "flip a byte":
            raw[len(raw) // 2] ^= 1
            member.write_bytes(bytes(raw))
        case "remove":
            member.unlink()
        case "manifest":
            (store / MANIFEST).write_text("{")
        case _:
            (store / MANIFEST).unlink()
    check(path, arrays(3))


def test_same_name_in_two_places_does_not_mix(tmp_path):
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        content = arrays(3)
        content["train_images"] = np.full_like(content["train_images"], index)
        np.savez_compressed(tmp_path / str(index) / "x.npz", **content)
    for index in range(2):
        assert int(open_split(tmp_path / str(index) / "x.npz", entry(channels=3), 28, "train").images.max()) == index


def test_bad_archive_writes_nothing(tmp_path):
    path = tmp_path / "x.npz"
    content = arrays(3)
    content["train_labels"] = content["train_labels"] + 9
    np.savez_compressed(path, **content)
    with pytest.raises(DataError, match="out of range"):
        open_archive(path, entry(channels=3), 28)
    assert not store_folder().exists()


def test_damaged_data_in_place_is_found(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays(3))
    with zipfile.ZipFile(path) as file:
        offset = file.getinfo("train_images.npy").header_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 5000] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="train_images is damaged"):
        open_archive(path, entry(channels=3), 28)
    assert stores() == []


def test_md5_comes_from_the_manifest(archives):
    path, info = archives / "breastmnist.npz", dataset_info("breastmnist")
    open_archive(path, info, 28)
    (store,) = stores()
    manifest = json.loads((store / MANIFEST).read_text())
    assert manifest["md5"] == stored_md5(path) == info.archives[28].md5


def open_in_another_process(path, barrier, queue):
    barrier.wait()
    got = open_split(path, entry(channels=3), 28, "train")
    queue.put((os.getpid(), int(got.images.sum())))


def test_eight_processes_unpack_once(tmp_path, caplog):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays(3))
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    workers = [context.Process(target=open_in_another_process, args=(path, barrier, queue)) for _ in range(8)]
    for worker in workers:
        worker.start()
    sums = {queue.get(timeout=60)[1] for _ in workers}
    for worker in workers:
        worker.join(timeout=60)
    assert sums == {int(arrays(3)["train_images"].sum())}
    assert len(stores()) == 1
    assert not list(store_folder().glob(".*"))


def test_store_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays(3))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISIONFORGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="VISIONFORGE_CACHE"):
        open_archive(path, entry(channels=3), 28)


def test_without_room_for_the_store_images_are_read_into_memory(archives, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISIONFORGE_CACHE", str(tmp_path / "file"))
    data = MedMNISTDataModule("breastmnist", root=str(archives), cache="mmap")
    with caplog.at_level("INFO"):
        data.prepare_data()
        data.setup("test")
    assert len(data.dataset_for("test")) == 156
    assert "cannot be written" in caplog.text
    assert "in memory (there is no file to map)" in caplog.text


# --- labels as large as images


def masks_of(classes=3, kind=np.uint8):
    content = arrays(1)
    for split in SPLITS:
        images = content[f"{split}_images"]
        masks = np.random.default_rng(len(images)).integers(0, classes, images.shape).astype(kind)
        masks[:, :2] = 255
        content[f"{split}_labels"] = masks
    return content


def mask_entry():
    return entry(channels=1).model_copy(
        update={"task": "segmentation", "classes": ("background", "a", "b"), "positive": None}
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, ">i4"])
def test_masks_are_mapped_as_bytes_whatever_they_were(tmp_path, monkeypatch, kind, save):
    monkeypatch.setattr("visionforge.data.mapped_labels._CHUNK_BYTES", 20_000)  # a few masks
    content = masks_of(kind=kind)
    save(tmp_path / "x.npz", **content)
    for _ in range(2):
        for split in SPLITS:
            got = open_split(tmp_path / "x.npz", mask_entry(), 28, split)
            assert isinstance(got.labels, np.memmap)
            assert got.labels.dtype == np.uint8
            np.testing.assert_array_equal(got.labels, content[f"{split}_labels"])
            np.testing.assert_array_equal(got.images, content[f"{split}_images"])
            in_place = Path(got.labels.filename) == tmp_path / "x.npz"
            assert in_place == (save is np.savez and kind is np.uint8)
    assert not [path for store in stores() for path in store.glob("*.tmp")]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("kind", "value"),
    [(np.uint8, 3), (np.uint8, None), (np.int16, 3), (np.int16, -1), (np.int16, 300), (np.int16, None)],
)
def test_masks_that_are_wrong_leave_no_store(tmp_path, kind, save, value):
    content = masks_of(kind=kind)
    if value is None:
        content["test_labels"][:] = 255
    else:
        content["val_labels"][3, 5, 6] = value
    save(tmp_path / "x.npz", **content)
    with pytest.raises(DataError) as raised:
        open_archive(tmp_path / "x.npz", mask_entry(), 28)
    (line,) = raised.value.problems
    wanted = "x.npz: test_labels: no pixel counts" if value is None else f"val_labels: 1 pixels of no class ({value})"
    assert wanted in line
    assert list(store_folder().iterdir()) == []


KEPT = """
import sys
from pathlib import Path
from visionforge.data import MedMNISTDataModule
from visionforge.config.schema import Synthetic

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000

class Watch:
    # the largest amount of memory that is no map of a file, looked at often
    def __init__(self):
        import threading
        self.start = self.most = anonymous()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
    def look(self):
        while not self.ended.wait(0.002):
            self.most = max(self.most, anonymous())
    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.most - self.start

import torch
torch.zeros(1).add(1)
watch = Watch()
for name in ("bytes", "wide") * 2:  # at their first use, and at the next
    data = MedMNISTDataModule(name, root=sys.argv[1], resolution=64, batch_size=64, cache="mmap", synthetic=Synthetic())
    data.prepare_data()
    data.setup("fit")
    for images, masks in data.train_dataloader():
        assert masks.shape[1:] == (64, 64)
    data.class_counts()
print(watch.stop())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of the process")
def test_no_training_holds_all_masks_in_memory(tmp_path):
    splits = {"train": 12_000, "val": 10, "test": 10}
    masks = np.zeros((splits["train"], 64, 64), np.uint8)  # 49 MB
    masks[:, 10:20, 10:20] = 1
    made = {
        "title": "Made",
        "description": "Squares.",
        "task": "segmentation",
        "classes": ["background", "square"],
        "channels": 1,
        "splits": splits,
        "archives": {64: {"url": None}},
        "normalisation": {"mean": [0.5], "std": [0.3], "source": "assumed"},
        "flags": {"hflip": True, "vflip": True, "rotation": "any", "texture_is_label": True, "colour_is_label": True},
        "licence": "any",
        "citation": "none",
    }
    (tmp_path / "catalog").mkdir()
    for name, kind in (("bytes", np.uint8), ("wide", np.int32)):
        content = {f"{split}_images": masks[:count] * 100 for split, count in splits.items()}
        content |= {f"{split}_labels": masks[:count].astype(kind) for split, count in splits.items()}
        np.savez_compressed(tmp_path / f"{name}_64.npz", **content)
        (tmp_path / "catalog" / f"{name}.yaml").write_text(json.dumps({**made, "name": name}))
    done = subprocess.run(
        [sys.executable, "-c", KEPT, str(tmp_path)],
        env={**os.environ, "VISIONFORGE_CATALOG": str(tmp_path / "catalog")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 35, "MB; the masks have 49 as bytes"
