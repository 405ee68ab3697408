"""Pictures come in order and as training data comes, whatever they are; broken ones are named; few are in memory."""

import inspect
import io
import os
import struct
import sys
import threading
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionforge.data import stream
from visionforge.data.picture_sources import ArchiveImages, list_pictures, read_by
from visionforge.data.pictures import read_picture
from visionforge.data.stream import picture_batches
from visionforge.errors import DataError

RNG = np.random.default_rng(0)


def save(path, value=50, size=(20, 24), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value, value, value)).save(path)
    return path


def paths(*sources, split=None):
    return [path for source in list_pictures(sources, split) for path in source.paths]


def read(*sources, resolution=16, channels=3, batch_size=4, threads=2, split=None):
    return list(picture_batches(list_pictures(sources, split), resolution, channels, batch_size, threads))


def joined(batches):
    return np.concatenate([batch.images.numpy() for batch in batches])


# --- listing


def test_folder_is_walked_in_sorted_order(tmp_path, monkeypatch):
    for name in ("b.png", "a/2.JPG", "a/1.png", "a/c/0.webp", "c.tiff", ".hidden.png", ".git/x.png", "a/notes.txt"):
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path / "p")
    expected = ["a/1.png", "a/2.JPG", "a/c/0.webp", "b.png", "c.tiff"]
    assert paths(tmp_path / "p") == [str(tmp_path / "p" / name) for name in expected]
    assert paths(Path()) == expected


def test_of_a_folder_with_pictures_and_volumes_a_network_reads_its_own(tmp_path):
    for name in ("a.png", "b.jfif", "scan/c.npy", "scan/preview.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith(".npy"):
            np.save(tmp_path / name, np.zeros((4, 4, 4), np.uint8))
        else:
            Image.new("L", (4, 4)).save(tmp_path / name, "JPEG" if "jf" in name else "PNG")
    listed = list_pictures([tmp_path, tmp_path / "a.png"])
    found = {dims: [[Path(path).name for path in each.paths] for each in read_by(listed, dims)] for dims in (2, 3)}
    assert found == {2: [["a.png", "b.jfif", "preview.png"], ["a.png"]], 3: [["c.npy"], ["a.png"]]}
    (tmp_path / "scan" / "c.npy").unlink()
    assert len(read_by(list_pictures([tmp_path]), 3)[0]) == 3, "each of them is told to be no volume"


def test_sources_are_mixed_in_the_given_order(tmp_path):
    first, second = save(tmp_path / "z.dat.png"), save(tmp_path / "f" / "a.png")
    odd = first.rename(tmp_path / "picture.dat")  # named, so it is taken whatever its suffix
    hidden = save(tmp_path / ".h.png")
    assert paths(odd, tmp_path / "f", hidden) == [str(odd), str(second), str(hidden)]


def test_links_do_not_lead_in_circles(tmp_path):
    save(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "b.png").symlink_to(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "dead.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    assert paths(tmp_path / "link") == [str(tmp_path / "link" / name) for name in ("a.png", "b.png")]


def test_folders_may_be_nested_deeper_than_calls(tmp_path):
    deepest = tmp_path.joinpath(*["d"] * 200)
    deepest.mkdir(parents=True)
    expected = str(save(deepest / "a.png"))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)  # really nested folders of that depth could not be removed again
    try:
        found = paths(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == [expected]


def test_all_mistakes_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError) as caught:
        list_pictures([tmp_path / "empty", tmp_path / "nowhere", tmp_path / "pipe.png"])
    empty, nowhere, pipe = caught.value.problems
    assert "holds no pictures (.bmp, .dcm, .dicom, .gif" in empty
    assert nowhere.endswith("nowhere does not exist")
    assert pipe.endswith("is neither a file nor a folder")


# --- reading


def bomb(path):
    """Write a PNG whose header promises 60,000 × 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    path.write_bytes(b"".join(parts))


@pytest.fixture
def odd_folder(tmp_path):
    """Pictures of every kind, and files that are none; noise does not compress, so that a cut file ends in its data."""
    folder = tmp_path / "odd"
    folder.mkdir()
    noise = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(np.full((20, 20), 200 * 257, np.uint16)).save(folder / "16bit.png")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
    frames = [Image.new("L", (20, 20), value) for value in (10, 200)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (20, 20), (200, 100, 50, 0)).save(folder / "rgba.png")
    Image.new("1", (20, 20), 1).save(folder / "onebit.png")
    Image.fromarray(noise).save(folder / "wide.png")
    Image.new("RGB", (20, 20), (1, 2, 3)).save(folder / "naïve 猫.png")
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    bomb(folder / "bomb.png")
    return folder


GOOD = ["16bit.png", "animated.gif", "cmyk.jpg", "naïve 猫.png", "onebit.png", "rgba.png", "wide.png"]
BROKEN = ["bomb.png", "empty.png", "text.png", "truncated.jpg"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_odd_pictures_are_read_or_named(odd_folder, batch_size):
    batches = read(odd_folder, batch_size=batch_size)
    assert [name.rpartition("/")[2] for batch in batches for name in batch.names] == GOOD
    failures = dict(failure for batch in batches for failure in batch.failures)
    assert [name.rpartition("/")[2] for name in failures] == BROKEN
    huge, empty, text, cut = failures.values()
    assert huge.startswith("cannot be read (Image size (3600000000 pixels) exceeds limit")
    assert empty == text == "is no picture"
    assert cut.startswith("cannot be read (image file is truncated")
    images = dict(zip(GOOD, joined(batches), strict=True))
    assert all(image.shape == (3, 16, 16) for image in images.values())
    assert np.unique(images["16bit.png"]).tolist() == [200]
    assert images["animated.gif"].max() <= 12
    assert np.unique(images["onebit.png"]).tolist() == [255]
    assert images["rgba.png"].max() == 0  # transparency is put on black
    assert images["naïve 猫.png"][:, 0, 0].tolist() == [1, 2, 3]
    for name in ("wide.png", "cmyk.jpg"):
        np.testing.assert_array_equal(images[name].transpose(1, 2, 0), read_picture(odd_folder / name, 16))


def test_colours_become_luma_for_a_grey_network(tmp_path):
    save(tmp_path / "a_grey.png", 77, mode="L")
    Image.new("RGB", (20, 20), (200, 100, 50)).save(tmp_path / "b_colour.png")
    images = joined(read(tmp_path, channels=1))
    assert images.shape == (2, 1, 16, 16)
    assert np.unique(images[0]).tolist() == [77]
    assert np.unique(images[1]).tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_order_is_that_of_the_input_and_batches_are_full(tmp_path):
    for number in range(75):
        save(tmp_path / f"{number:03d}.png", number, size=(400, 400) if number % 7 == 0 else (5, 5))  # some take longer
    batches = read(tmp_path, batch_size=20, threads=4)
    assert [len(batch.names) for batch in batches] == [20, 20, 20, 15]
    assert joined(batches)[:, 0, 0, 0].tolist() == list(range(75))


def test_no_more_is_decoded_ahead_than_asked_for(tmp_path, monkeypatch):
    for number in range(400):
        (tmp_path / f"{number:03d}.png").touch()
    decoded = []
    monkeypatch.setattr(
        stream,
        "read_picture",
        lambda path, size, fit, intensity: decoded.append(path) or np.zeros((size, size), np.uint8),
    )
    before = set(threading.enumerate())
    batches = picture_batches(list_pictures([tmp_path]), 8, 1, 10, 2)
    next(batches)
    time.sleep(0.2)
    assert len(decoded) <= 10 + (2 + 2) * stream.PIECE
    batches.close()
    ended = len(decoded)
    time.sleep(0.05)
    assert len(decoded) == ended < 400
    threads = set(threading.enumerate()) - before
    assert not [thread for thread in threads if thread.name.startswith("visionforge-decode")]


def test_unforeseen_errors_of_a_reader_name_the_file(tmp_path, monkeypatch):
    def read_picture(path, size, fit, intensity):
        raise IndexError

    save(tmp_path / "a.png")
    monkeypatch.setattr(stream, "read_picture", read_picture)
    (batch,) = read(tmp_path)
    assert batch.failures == [(str(tmp_path / "a.png"), "cannot be read (IndexError)")]
    assert batch.images.shape == (0, 3, 16, 16)


def test_warning_filters_are_left_as_they_were(tmp_path):
    for number in range(200):
        save(tmp_path / f"{number}.png", size=(4, 4))
    before = list(warnings.filters)
    read(tmp_path, threads=8)
    assert list(warnings.filters) == before


def test_undecodable_file_name_can_be_written(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    (batch,) = read(tmp_path)
    assert batch.names == [str(tmp_path / "\\udcff.png")]


# --- archives


def archive(path, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_archive_gives_the_images_of_a_split(tmp_path, compressed):
    parts = {f"{split}_images": RNG.integers(0, 256, (37, 16, 16, 3), dtype=np.uint8) for split in ("train", "test")}
    path = archive(tmp_path / "x.npz", compressed, **parts, test_labels=np.zeros((37, 1), np.uint8))
    for split, name in ((None, "test"), ("test", "test"), ("train", "train")):
        batches = read(path, split=split, batch_size=10)
        np.testing.assert_array_equal(joined(batches).transpose(0, 2, 3, 1), parts[f"{name}_images"])
        assert [n for batch in batches for n in batch.names] == [f"{path}:{name}/{k:06d}" for k in range(37)]


@pytest.mark.parametrize("shape", [(5, 16, 16), (5, 16, 16, 1), (5, 30, 41), (5, 30, 41, 3)])
@pytest.mark.parametrize("key", ["images", "arr_0"])
def test_images_of_any_size_are_scaled_as_pictures_are(tmp_path, shape, key):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    got = joined(read(archive(tmp_path / "x.npz", **{key: images})))
    for k, image in enumerate(images):
        Image.fromarray(image[:, :, 0] if shape[3:] == (1,) else image).save(tmp_path / f"{k}.png")
    np.testing.assert_array_equal(got, joined(read(*(tmp_path / f"{k}.png" for k in range(5)))))


@pytest.mark.parametrize(
    ("arrays", "split", "complaint"),
    [
        (
            {"train_images": np.zeros((2, 4, 4), np.uint8)},
            None,
            "has no array test_images (it has: train_images); choose",
        ),
        (
            {"test_images": np.zeros((2, 4, 4), np.uint8)},
            "val",
            "has no array val_images (it has: test_images); choose",
        ),
        ({"a": np.zeros(2), "b": np.zeros(2)}, None, "has no array test_images (it has: a, b)"),
        ({}, None, "has no array test_images (it has: none)"),
        ({"images": np.zeros((2, 4, 4))}, None, "images holds float64; images are uint8"),
        ({"images": np.array([None])}, None, "images holds Python objects, which are never loaded; images are uint8"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, None, "images has the shape (0, 4, 4); images are (N, H, W)"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, None, "images has the shape (2, 4, 4, 2); images are (N, H, W)"),
        ({"images": np.zeros((3, 4, 5), np.uint8).T}, None, "stored in Fortran order"),
    ],
)
def test_archive_that_cannot_be_taken(tmp_path, arrays, split, complaint):
    path = archive(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError) as caught:
        list_pictures([path], split)
    (line,) = caught.value.problems
    assert line.startswith(f"pictures: {path}")
    assert complaint in line


def test_archive_that_is_none(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="is no complete NPZ archive"):
        list_pictures([tmp_path / "x.npz"])
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as file:
        file.writestr("images.npy", b"no array")
    with pytest.raises(DataError, match="cannot be read as an NPZ archive"):
        list_pictures([tmp_path / "y.npz"])


def test_header_that_promises_more_than_there_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file, file.open("images.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(DataError, match="unpacks to 128 bytes, expected 784,000,000,000,128"):
        list_pictures([tmp_path / "x.npz"])


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_data_is_never_predicted_silently(tmp_path, compressed):
    images = RNG.integers(0, 256, (50, 16, 16), dtype=np.uint8)
    path = archive(tmp_path / "x.npz", compressed, images=images)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert isinstance(list_pictures([path])[0], ArchiveImages)  # the header is good
    with pytest.raises(DataError, match="images cannot be unpacked"):
        read(path)
