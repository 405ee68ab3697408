"""HDF5 files are divided by class; whatever is wrong with one is told in one line."""

import io

import numpy as np
import pytest

from tests.data.published import (
    TEST,
    TRAIN,
    VAL,
    hdf5_entry,
    labels,
    made,
    pixels,
    pooled,
    refused,
    write,
)
from visionforge.data.converting import make_archive
from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")

ALL = TRAIN + VAL + TEST


def hdf5(side=8, **changes):
    """Return the bytes of an HDF5 file; a change is a function of the open file, or an array."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        content = {"images": pixels(ALL, side, 3), "ans": labels(ALL), **changes}
        for name, value in content.items():
            if callable(value):
                value(file)
            elif value is not None:
                file.create_dataset(name, data=value, **({"compression": "gzip"} if value.ndim > 1 else {}))
    return target.getvalue()


def test_hdf5_is_divided_by_class(tmp_path):
    content = hdf5()
    write(tmp_path, {"all.h5": content})
    ours = made(hdf5_entry(content), tmp_path)
    whole = {"all_images": pixels(ALL, 8, 3), "all_labels": labels(ALL)}
    assert pooled(ours, "train", "val", "test") == pooled(whole, "all")
    for split, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        assert np.bincount(ours[f"{split}_labels"]).tolist() == [count // 5] * 5


def test_images_of_one_object_are_all_training_images(tmp_path):
    images, ra, dec = pixels(ALL, 8, 3), np.arange(ALL, dtype=float), np.zeros(ALL)
    ra[[3, 30, 60]] = 7.0  # with image 7, four of one
    dec[60] = 1.0  # but this is another
    content = hdf5(images=images, ra=ra, dec=dec)
    write(tmp_path, {"all.h5": content})
    ours = made(hdf5_entry(content, groups=["ra", "dec"]), tmp_path)
    train = {image.tobytes() for image in ours["train_images"]}
    assert all(images[k].tobytes() in train for k in (3, 7, 30))
    write(tmp_path / "other", {"all.h5": content})
    unaware = made(hdf5_entry(content), tmp_path / "other")
    assert {image.tobytes() for image in unaware["train_images"]} != train
    assert [len(ours[f"{split}_labels"]) for split in ("train", "val", "test")] == [TRAIN, VAL, TEST]


def test_too_few_images_stand_alone(tmp_path):
    content = hdf5(ra=np.zeros(ALL))
    write(tmp_path, {"all.h5": content})
    line = refused(hdf5_entry(content, groups=["ra"]), tmp_path)
    assert line == "original: 0 images stand alone, 30 are to be drawn"


def outside(file):
    file.create_dataset("images", (ALL, 8, 8, 3), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def soft(file):
    file["images"] = h5py.SoftLink("/ans")


def elsewhere(file):
    file["images"] = h5py.ExternalLink("other.h5", "images")


def virtual(file):
    layout = h5py.VirtualLayout((ALL, 8, 8, 3), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "images", (ALL, 8, 8, 3))
    file.create_virtual_dataset("images", layout)


def group(file):
    file.create_group("images")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"no HDF5 file", ""),
        (hdf5()[:-1000], ""),
        (hdf5(images=None), "lacks images; it has ans"),
        (hdf5(images=outside), "the data of images is in other files"),
        (hdf5(images=virtual), "the data of images is in other files"),
        (hdf5(images=soft), "images is a link to something else"),
        (hdf5(images=group), "images is no array"),
        (hdf5(images=pixels(ALL, 9, 3)), f"images has the shape ({ALL}, 9, 9, 3), expected ({ALL}, 8, 8, 3)"),
        (hdf5(ans=labels(ALL - 1)), f"ans has the shape ({ALL - 1},), expected ({ALL},)"),
        (hdf5(images=pixels(ALL, 8, 3).astype(np.float32)), "images is of float32, expected uint8"),
        (hdf5(ans=labels(ALL).astype(np.float32)), "ans is of float32, expected integers"),
    ],
)
def test_hdf5_file_that_is_not_what_it_should_be(content, problem, tmp_path):
    write(tmp_path, {"all.h5": content})
    line = refused(hdf5_entry(content), tmp_path)
    assert line.startswith(f"{tmp_path / 'all.h5'}: not the HDF5 file that was expected ({problem}")


def test_external_link_is_not_followed(tmp_path):
    content = hdf5(images=elsewhere)
    write(tmp_path, {"all.h5": content, "other.h5": hdf5()})
    line = refused(hdf5_entry(content), tmp_path)
    assert "images is a link to something else" in line or "lacks images" in line


def test_hdf5_with_pieces_that_memory_may_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("visionforge.data.formats.hdf5.MAX_CHUNK", 100)
    content = hdf5()
    write(tmp_path, {"all.h5": content})
    assert "images is packed in pieces of more than 100 bytes" in refused(hdf5_entry(content), tmp_path)


def test_package_is_asked_for_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("visionforge.data.converting.has_h5py", lambda: False)
    info = hdf5_entry(b"x")
    with pytest.raises(DataError) as caught:
        make_archive(info, 8, tmp_path / "data", download=True, retries=DEFAULT_RETRIES)
    assert caught.value.problems == ('published: needs the package h5py: pip install "visionforge-lightning[hdf5]"',)
    assert not (tmp_path / "data").exists()
