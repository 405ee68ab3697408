"""Archives made of published files: splits by class, bytes that never change, bounded memory, whole or not there."""

import hashlib
import multiprocessing

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from tests.data.published import cifar_arrays, cifar_entry, cifar_members, idx_set, made, pixels, tar, write
from visionforge.data import converting
from visionforge.data.archive import read_split
from visionforge.data.checks import check_dataset
from visionforge.data.converting import draw_splits, make_archive, scaled
from visionforge.data.download import ensure_archive
from visionforge.data.import_files import write_pair
from visionforge.data.info import Archive, DatasetInfo
from visionforge.data.originals import SPLIT_SEED
from visionforge.data.store import open_archive, open_split
from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES


def test_splits_are_by_class_disjoint_and_whole():
    labels = np.repeat(np.arange(4), [400, 200, 200, 4])
    train, val, test = draw_splits(labels, SPLIT_SEED, 80, 160)
    assert sorted(np.concatenate([train, val, test]).tolist()) == list(range(len(labels)))
    for positions in (train, val, test):
        assert np.all(np.diff(positions) > 0)
    assert np.abs(np.bincount(labels[val], minlength=4) - [40, 20, 20, 0]).max() <= 1
    assert np.abs(np.bincount(labels[test], minlength=4) - [80, 40, 40, 1]).max() <= 1


def test_the_draw_never_changes():
    """Published results stand on it."""
    _, val, _ = draw_splits(np.arange(60_000) % 10, SPLIT_SEED, 5000, 0)
    assert hashlib.md5(val.astype("<i8").tobytes()).hexdigest() == "ede45ec29b56815dedd56897e59a6012"


def test_another_seed_draws_other_images():
    labels = np.arange(100) % 5
    first, again, other = (draw_splits(labels, seed, 20, 0)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_seed_of_an_entry_decides(tmp_path):
    info, files, _ = idx_set()
    write(tmp_path / "a", files)
    write(tmp_path / "b", files)
    other = info.model_copy(update={"original": info.original.model_copy(update={"split_seed": 1})})
    ours, theirs = made(info, tmp_path / "a"), made(other, tmp_path / "b")
    assert not np.array_equal(ours["val_images"], theirs["val_images"])
    np.testing.assert_array_equal(ours["test_images"], theirs["test_images"])


def test_equal_files_give_equal_bytes_whatever_a_block_holds(tmp_path, monkeypatch):
    info, files, _ = idx_set()
    content = {}
    for block in (1 << 24, 1000, 1):
        monkeypatch.setattr(converting, "BLOCK_BYTES", block)
        write(tmp_path / str(block), files)
        made(info, tmp_path / str(block))
        content[block] = (tmp_path / str(block) / "published_8.npz").read_bytes()
    assert len(set(content.values())) == 1
    assert hashlib.md5(content[1]).hexdigest() == "d684f65ac1ac882fa17e0d04f160f641"


def test_blocks_of_several_files_join_where_they_should(tmp_path, monkeypatch):
    arrays = cifar_arrays()
    content = tar(cifar_members(arrays))
    for block in (1 << 24, 7 * 192):
        monkeypatch.setattr(converting, "BLOCK_BYTES", block)
        write(tmp_path / str(block), {"cifar.tar.gz": content})
    results = [made(cifar_entry(content), tmp_path / str(block)) for block in (1 << 24, 7 * 192)]
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_archive_goes_the_way_of_all_archives(tmp_path):
    info, files, arrays = idx_set()
    write(tmp_path, files)
    path = ensure_archive(info, 8, str(tmp_path), download=False)
    members = open_archive(path, info, 8)
    assert all(member.path == path for member in members.values())  # mapped in place, not unpacked again
    np.testing.assert_array_equal(open_split(path, info, 8, "test").images, arrays["test_images"])
    np.testing.assert_array_equal(read_split(path, info, "test").labels, arrays["test_labels"])
    report = check_dataset(info, 8, str(tmp_path), exactly=True)
    assert report.ok
    assert report.separate
    for name in files:  # they may be deleted now
        (tmp_path / name).unlink()
    assert ensure_archive(info, 8, str(tmp_path), download=False) == path


def test_archive_with_another_md5_than_the_entry_says(tmp_path):
    info, files, _ = idx_set()
    info = info.model_copy(update={"archives": {8: Archive(url=None, md5="0" * 32)}})
    write(tmp_path, files)
    path = ensure_archive(info, 8, str(tmp_path), download=False)
    with pytest.raises(DataError, match=r"MD5 is .*, the catalog says 0000"):
        open_archive(path, info, 8)


def test_smaller_images_are_antialiased_as_torchvision_does():
    images = pixels(3, 64, 3)
    ours = scaled(images, 24)
    theirs = functional.resize(
        torch.from_numpy(images).permute(0, 3, 1, 2), [24, 24], functional.InterpolationMode.BICUBIC, antialias=True
    )
    assert np.abs(ours.astype(int) - theirs.permute(0, 2, 3, 1).numpy()).max() <= 1
    assert scaled(images[..., 0], 24).shape == (3, 24, 24)


def test_several_resolutions_show_the_same_images(tmp_path):
    arrays = cifar_arrays(32)
    content = tar(cifar_members(arrays))
    info = cifar_entry(content, side=32)
    info = info.model_copy(update={"archives": {16: Archive(url=None), 32: Archive(url=None)}, "resolutions": (16, 32)})
    write(tmp_path, {"cifar.tar.gz": content})
    small, large = made(info, tmp_path, 16), made(info, tmp_path, 32)
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(small[f"{split}_labels"], large[f"{split}_labels"])
        np.testing.assert_array_equal(small[f"{split}_images"], scaled(large[f"{split}_images"], 16))


def test_data_set_that_is_made_of_this_one_is_not_made_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    info, files, _ = idx_set()
    write(tmp_path, files)
    own, _ = write_pair(
        info, 8, made(info, tmp_path), tmp_path / "data", replace=False
    )  # such as with corrected labels
    assert own.original is None


def test_label_beyond_the_classes(tmp_path):
    info, files, _ = idx_set()
    write(tmp_path, files)
    info = info.model_copy(update={"classes": info.classes[:4]})
    with pytest.raises(DataError, match=r"^published: a published label is 4, but there are 4 classes$"):
        make_archive(info, 8, tmp_path, download=False, retries=DEFAULT_RETRIES)
    assert not (tmp_path / "published_8.npz").exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    info, files, _ = idx_set()
    write(tmp_path, {**files, ".published_8.npz.abc.tmp": b"half of it"})
    made(info, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "published_8.npz"])


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    info, files, _ = idx_set()
    write(tmp_path, files)
    monkeypatch.setattr(converting, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DataError, match=r"published_8\.npz: cannot be written \(.* MB are needed\)"):
        make_archive(info, 8, tmp_path, download=False, retries=DEFAULT_RETRIES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def make_in_another_process(info, folder, barrier):
    barrier.wait()
    assert ensure_archive(info, 8, folder, download=False).is_file()


def test_processes_that_want_the_same_archive_make_it_once(tmp_path):
    info, files, _ = idx_set()
    write(tmp_path, files)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [context.Process(target=make_in_another_process, args=(info, str(tmp_path), barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "published_8.npz"])


# --- what an entry may say


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"md5": None}, "cifar.tar.gz: needs an md5 or a sha256"),
        ({"file": "../cifar.tar.gz"}, "archive.file: '../cifar.tar.gz' is not allowed"),
        ({"max_bytes": 0}, "archive.max_bytes: 0 is not allowed; allowed: an integer, 1 to"),
    ],
)
def test_files_of_an_entry(change, problem):
    content = cifar_entry(b"x").model_dump()
    content["original"]["archive"].update(change)
    with pytest.raises(ValueError, match=problem):
        DatasetInfo.model_validate(content)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train": ["../x.bin"]}, r"\.\./x\.bin: leads out of the archive"),
        ({"train": ["/x.bin"]}, "leads out of the archive"),
        ({"train": ["x.bin"], "test": ["x.bin"]}, "a file stands there twice"),
        ({"format": "tfrecord"}, "format: 'tfrecord' is not allowed; allowed: idx, cifar, hdf5"),
        ({"resolution": 7}, "resolution: 7 is not allowed; allowed: an integer, 8 to 1024"),
        ({"label_bytes": 3}, "label_bytes: 3 is not allowed; allowed: one of 1, 2"),
    ],
)
def test_originals_of_an_entry(change, problem):
    content = cifar_entry(b"x").model_dump()
    content["original"].update(change)
    with pytest.raises(ValueError, match=problem):
        DatasetInfo.model_validate(content)


def test_archives_larger_than_the_published_images():
    content = cifar_entry(b"x").model_dump()
    content["archives"] = {64: {"url": None}}
    with pytest.raises(ValueError, match="archives: 64 is larger than the 8 pixels of original"):
        DatasetInfo.model_validate(content)


def test_published_files_are_of_images_with_one_class_each():
    content = cifar_entry(b"x").model_dump()
    with pytest.raises(ValueError, match="original: archives are made of images with one class each"):
        DatasetInfo.model_validate({**content, "task": "multi-label"})
