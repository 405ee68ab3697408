"""Real archives are read right; anything else is refused in one line that says what is wrong."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from visionforge.data.archive import read_split, verify_archive
from visionforge.data.batches import ArrayDataset
from visionforge.data.info import DatasetInfo
from visionforge.data.registry import dataset_info
from visionforge.data.store import open_split
from visionforge.errors import DataError

SIZES = {"train": 12, "val": 4, "test": 4}


def entry(task: str = "multi-class", channels: int = 1, classes: int = 3) -> DatasetInfo:
    """Return an entry without an MD5, so that the other checks are reached."""
    base = dataset_info("breastmnist").model_dump()
    return DatasetInfo.model_validate(
        {
            **base,
            "task": task,
            "positive": None,
            "classes": [str(k) for k in range(classes)],
            "channels": channels,
            "splits": SIZES,
            "archives": {28: {"url": "https://example.org/x.npz", "md5": None}},
            "resolutions": [28],
            "normalisation": {"mean": [0.5] * channels, "std": [0.5] * channels, "source": "computed"},
        }
    )


def arrays(channels: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for split, count in SIZES.items():
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, 3)
        out[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        out[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return out


def volume_entry(channels: int = 1) -> DatasetInfo:
    content = {**entry(channels=channels).model_dump(), "spatial_dims": 3, "resolutions": [12]}
    content["archives"] = {12: {"url": "https://example.org/x.npz", "md5": None}}
    return DatasetInfo.model_validate(content)


def volume_arrays(channels: int = 1) -> dict[str, np.ndarray]:
    rng, content = np.random.default_rng(0), arrays()
    for split, count in SIZES.items():
        shape = (count, 12, 12, 12) if channels == 1 else (count, 12, 12, 12, 3)
        content[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
    return content


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_volumes_are_read_exactly_from_memory_and_from_the_map(path, channels, save, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CACHE", str(tmp_path / "cache"))
    content, info = volume_arrays(channels), volume_entry(channels)
    save(path, **content)
    verify_archive(path, info, 12)
    for split in SIZES:
        wanted = content[f"{split}_images"]
        np.testing.assert_array_equal(read_split(path, info, split).images, wanted)
        mapped = open_split(path, info, 12, split)
        assert isinstance(mapped.images, np.memmap)
        first = torch.from_numpy(wanted[:, None] if channels == 1 else np.moveaxis(wanted, -1, 1))
        for in_memory in (True, False):
            data = ArrayDataset(mapped, [3, 1, 2], in_memory=in_memory)
            assert torch.equal(data.__getitems__([2, 0])[0], first[[2, 3]])
            assert data[1][0].shape == (channels, 12, 12, 12)
    assert path.stat().st_size < info.max_archive_bytes(12)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a[:, 0], "test_images: shape is (4, 12, 12), expected (4, 12, 12, 12)"),
        (lambda a: a[:, :, :, :9], "test_images: shape is (4, 12, 12, 9), expected (4, 12, 12, 12)"),
        (lambda a: np.repeat(a[..., None], 3, axis=-1), "shape is (4, 12, 12, 12, 3), expected (4, 12, 12, 12)"),
    ],
)
def test_what_is_no_volume_is_refused(path, change, complaint):
    content = volume_arrays()
    content["test_images"] = change(content["test_images"])
    np.savez(path, **content)
    with pytest.raises(DataError) as caught:
        verify_archive(path, volume_entry(), 12)
    assert complaint in str(caught.value)


def test_volumes_are_not_taken_for_images(path):
    np.savez(path, **volume_arrays())
    info = volume_entry().model_copy(update={"spatial_dims": 2})
    with pytest.raises(DataError, match=r"expected \(12, 12, 12\)"):
        verify_archive(path, info, 12)


def test_largest_archive_of_volumes_grows_with_the_third_power():
    info = dataset_info("adrenalmnist3d")
    voxels = info.images * (64**3 - 28**3)
    assert info.max_archive_bytes(64) - info.max_archive_bytes(28) == voxels


def read_whole(path, info) -> None:
    verify_archive(path, info, 28)
    for split in SIZES:
        read_split(path, info, split)


def refused(path, info=None) -> str:
    info = info or entry()
    with pytest.raises(DataError) as caught:
        read_whole(path, info)
    (line,) = caught.value.problems
    assert str(path) in line
    assert "\n" not in line
    return line


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.npz"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_good_archive_is_read_exactly(path, channels, save):
    content = arrays(channels)
    save(path, **content)
    info = entry(channels=channels)
    verify_archive(path, info, 28)
    for split in SIZES:
        got = read_split(path, info, split)
        np.testing.assert_array_equal(got.images, content[f"{split}_images"])
        np.testing.assert_array_equal(got.labels, content[f"{split}_labels"][:, 0])
        assert got.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "resolution"), [("breastmnist", 28), ("breastmnist", 64), ("retinamnist", 28), ("adrenalmnist3d", 28)]
)
def test_real_archive(archives, name, resolution):
    info = dataset_info(name)
    path = archives / info.archive_name(resolution)
    verify_archive(path, info, resolution)
    with np.load(path) as reference:
        for split in SIZES:
            got = read_split(path, info, split)
            np.testing.assert_array_equal(got.images, reference[f"{split}_images"])
            np.testing.assert_array_equal(got.labels[:, None], reference[f"{split}_labels"])


def test_wrong_md5(path):
    np.savez(path, **arrays())
    info = entry().model_copy(update={"archives": dataset_info("breastmnist").archives})
    assert "the catalog says 750601b1f35ba3300ea97c75c52ff8f6" in refused(path, info)


def test_truncated(path, archives):
    whole = (archives / "breastmnist.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    line = refused(path, dataset_info("breastmnist"))
    assert "MD5 is" in line
    assert "no complete ZIP file" in line


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + b"\0" * 100])
def test_no_zip(path, content):
    path.write_bytes(content)
    assert "no complete ZIP file" in refused(path)


def test_pickled_arrays_are_never_loaded(path):
    content = arrays()
    trap = np.empty(SIZES["train"], dtype=object)
    np.savez(path, **{**content, "train_labels": trap})
    assert "pickle" in refused(path)


def test_pickled_archive(path):
    path.write_bytes(pickle.dumps({"train_images": 1}))
    assert "no complete ZIP file" in refused(path)


def test_missing_keys(path):
    content = arrays()
    del content["val_labels"]
    np.savez(path, **content)
    assert "missing keys: val_labels" in refused(path)


@pytest.mark.parametrize(
    ("key", "change", "complaint"),
    [
        ("train_images", lambda a: a.astype(np.float32), "train_images: dtype is float32, expected uint8"),
        ("val_labels", lambda a: a.astype(np.float64), "val_labels: dtype is float64, expected integers"),
        ("test_images", lambda a: a[:, :14], "test_images: shape is (4, 14, 28), expected (4, 28, 28)"),
        ("train_images", lambda a: a[:-1], "train_images: shape is (11, 28, 28), expected (12, 28, 28)"),
        (
            "train_labels",
            lambda a: np.repeat(a, 2, axis=1),
            "train_labels: shape is (12, 2), expected (12, 1) or (12,)",
        ),
        ("train_labels", lambda a: a + 3, "train_labels: 12 of 12 labels out of range (3 to 5); allowed: 0 to 2"),
        ("test_labels", lambda a: a.astype(np.int64) - 1, "test_labels: 2 of 4 labels out of range (-1 to 1)"),
    ],
)
def test_wrong_content(path, key, change, complaint):
    content = arrays()
    content[key] = change(content[key])
    np.savez(path, **content)
    assert complaint in refused(path)


def test_all_structural_problems_are_in_the_line(path):
    content = arrays()
    content["train_images"] = content["train_images"].astype(np.int16)
    content["val_images"] = content["val_images"][:, :5]
    np.savez(path, **content)
    line = refused(path)
    assert "train_images: dtype" in line
    assert "val_images: shape" in line


def test_damaged_data_is_found_by_its_checksum(path):
    np.savez(path, **arrays())
    raw = bytearray(path.read_bytes())
    raw[400] ^= 0xFF  # inside the data of the first member
    path.write_bytes(bytes(raw))
    assert "train_images cannot be unpacked" in refused(path)


def test_member_that_unpacks_to_more_than_its_header_says(path):
    np.savez(path, **arrays())
    bomb = tmp = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data + b"\0" * 50_000_000 if name == "train_images.npy" else data)
    path.write_bytes(bomb.getvalue())
    assert "unpacks to 50," in refused(path)


def test_multi_label(path):
    content = arrays()
    for split, count in SIZES.items():
        content[f"{split}_labels"] = (np.arange(count * 3).reshape(count, 3) % 2).astype(np.uint8)
    np.savez(path, **content)
    info = entry("multi-label")
    verify_archive(path, info, 28)
    labels = read_split(path, info, "train").labels
    assert labels.shape == (12, 3)
    assert labels.dtype == np.uint8
    content["train_labels"][0, 0] = 2
    np.savez(path, **content)
    assert "allowed: 0 to 1" in refused(path, info)
