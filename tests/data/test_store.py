"""Archives are unpacked once, whole or not at all, and noticed when they change."""

import json
import multiprocessing
import os
import zipfile

import numpy as np
import pytest

from tests.data.test_archive import SIZES, arrays, entry
from visionforge.data.datamodule import MedMNISTDataModule
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
