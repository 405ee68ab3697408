"""Whole pictures come in order and at their size; broken ones are named; masks in a map are those in memory."""

import json
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.helpers import drawn_masks, noise
from visionforge.config.schema import Synthetic
from visionforge.data import MedMNISTDataModule
from visionforge.data import whole_pictures as module
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.picture_sources import list_pictures
from visionforge.data.pictures import PIXEL_BYTES, read_whole, scaled_whole
from visionforge.data.whole_pictures import whole_pictures
from visionforge.errors import DataError


def save(path, height, width, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(1, height, width, seed=height)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def read(*sources, side=16, channels=3, threads=2, split=None, **changes):
    return list(whole_pictures(list_pictures(sources, split), side, channels, threads, **changes))


@pytest.mark.parametrize("threads", [1, 4])
def test_they_come_in_order_at_their_size(tmp_path, threads):
    sizes = [(5 + 3 * k, 40 - k) for k in range(15)]
    paths = [save(tmp_path / f"{k:02d}.png", *size) for k, size in enumerate(sizes)]
    found = read(tmp_path, side=None, threads=threads)
    assert [each.name for each in found] == [str(path) for path in paths]
    for each, path, size in zip(found, paths, sizes, strict=True):
        assert each.size == size
        np.testing.assert_array_equal(each.image, np.asarray(Image.open(path)).transpose(2, 0, 1))
        assert each.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("fit", "size", "shape"),
    [
        ("crop", (20, 40), (16, 32)),
        ("crop", (40, 20), (32, 16)),
        ("pad", (20, 40), (8, 16)),
        ("crop", (8, 10), (16, 20)),
        ("crop", (16, 50), (16, 50)),
        ("pad", (1, 90), (1, 16)),
    ],
)
def test_one_side_is_scaled_and_the_own_size_kept(tmp_path, fit, size, shape):
    save(tmp_path / "one.png", *size)
    (found,) = read(tmp_path / "one.png", fit=fit)
    assert found.image.shape == (3, *shape)
    assert found.size == size


def test_they_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    save(tmp_path / "one.png", 20, 30, exif=exif)
    (found,) = read(tmp_path / "one.png", side=None)
    stored = np.asarray(Image.open(tmp_path / "one.png"))
    assert found.size == (30, 20)
    np.testing.assert_array_equal(found.image, np.rot90(stored, -1).transpose(2, 0, 1))


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGB", 1), ("L", 1), ("RGBA", 3)])
def test_channels_are_those_of_the_network(tmp_path, mode, channels):
    save(tmp_path / "one.png", 20, 30, mode)
    (found,) = read(tmp_path / "one.png", side=None, channels=channels)
    assert found.image.shape == (channels, 20, 30)
    if mode == "L":
        np.testing.assert_array_equal(found.image[0], np.asarray(Image.open(tmp_path / "one.png")))
        assert (found.image == found.image[:1]).all()


def test_broken_ones_are_named_and_the_others_come(tmp_path):
    save(tmp_path / "0.png", 20, 20)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    (tmp_path / "2.png").write_text("no picture")
    save(tmp_path / "3.png", 2, 300)
    save(tmp_path / "4.png", 20, 20)
    found = read(tmp_path)
    assert [each.image is not None for each in found] == [True, False, False, False, True]
    assert "cannot be read" in found[1].reason
    assert found[2].reason == "is no picture"
    assert "longer than 100 times its width" in found[3].reason
    assert found[1].size == (0, 0)


def test_images_of_archives_and_not_their_volumes(tmp_path):
    images = noise(3, 20, 20)
    np.savez(tmp_path / "colour.npz", test_images=images.permute(0, 2, 3, 1).numpy())
    np.savez(tmp_path / "grey.npz", test_images=images[:, 0].numpy())
    np.savez(tmp_path / "volumes.npz", test_images=np.zeros((2, 12, 12, 12), np.uint8))
    found = read(tmp_path / "colour.npz", tmp_path / "grey.npz", side=None)
    np.testing.assert_array_equal(np.stack([each.image for each in found[:3]]), images)
    np.testing.assert_array_equal(found[4].image[0], images[1, 0])
    assert found[4].name.endswith("grey.npz:test/000001")
    with pytest.raises(DataError, match=r"holds volumes .*; the network takes images"):
        read(tmp_path / "volumes.npz")


def test_a_stream_that_is_closed_early_ends_its_threads(tmp_path):
    for k in range(30):
        save(tmp_path / f"{k:02d}.png", 10, 10)
    stream = whole_pictures(list_pictures([tmp_path], None), 16, 3, 2)
    assert next(stream).size == (10, 10)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


@pytest.fixture
def begun(monkeypatch):
    """The names of the pictures that threads have begun to decode."""
    names = []

    def noted(path, side, fit, intensity=None):
        names.append(path.name)
        return read_whole(path, side, fit, intensity)

    monkeypatch.setattr(module, "read_whole", noted)
    return names


@pytest.mark.parametrize(("room", "most"), [(1, 1), (3, 3), (1000, 9)])  # in pictures; 2 for each thread, and one
@pytest.mark.parametrize("threads", [4])
def test_as_many_are_decoded_ahead_as_there_is_room_for(tmp_path, monkeypatch, begun, room, most, threads):
    for k in range(20):
        save(tmp_path / f"{k:02d}.png", 40, 50)
    monkeypatch.setattr(module, "AHEAD_BYTES", room * 40 * 50 * PIXEL_BYTES)
    ahead = []
    for done, _ in enumerate(whole_pictures(list_pictures([tmp_path], None), None, 3, threads)):
        ahead.append(len(begun) - done)  # the one that is here included
    assert len(ahead) == 20
    assert max(ahead) <= most


def test_scaled_ones_take_what_is_left_of_them(tmp_path, monkeypatch, begun):
    for k in range(12):
        save(tmp_path / f"{k:02d}.png", 100, 100)  # two of which fit
    monkeypatch.setattr(module, "AHEAD_BYTES", 2 * 100 * 100 * PIXEL_BYTES)
    monkeypatch.setattr(module, "ThreadPoolExecutor", AtOnce)
    stream = whole_pictures(list_pictures([tmp_path], None), 10, 3, 4)
    next(stream)
    assert len(begun) == 9
    stream.close()


class AtOnce:
    """Decodes when it is asked to, in the thread of whoever asks."""

    def __init__(self, threads, name):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, cancel_futures):
        pass


def test_a_picture_that_is_larger_than_the_room_comes_alone(tmp_path, monkeypatch, begun):
    sizes = [(10, 10), (10, 10), (60, 60), (10, 10), (70, 60)]
    for k, size in enumerate(sizes):
        save(tmp_path / f"{k}.png", *size)
    (tmp_path / "5.png").write_text("no picture")
    monkeypatch.setattr(module, "AHEAD_BYTES", 10 * 10 * PIXEL_BYTES)
    found = read(tmp_path, side=None, threads=4)
    assert [each.size for each in found] == [*sizes, (0, 0)]


def test_images_of_archives_are_bounded_too(tmp_path, monkeypatch):
    images = noise(9, 20, 20).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "colour.npz", test_images=images)
    asked = []
    monkeypatch.setattr(module, "scaled_whole", lambda *given: asked.append(0) or scaled_whole(*given))
    monkeypatch.setattr(module, "AHEAD_BYTES", 20 * 20 * PIXEL_BYTES)
    for done, _ in enumerate(whole_pictures(list_pictures([tmp_path / "colour.npz"], None), None, 3, 4)):
        assert len(asked) - done == 1
    assert done == 8


# --- masks of a split


def test_mapped_masks_give_the_batches_of_masks_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("visionforge.data.batches._LABELS_AT_ONCE", 3)
    images, masks = noise(20, channels=1)[:, 0].numpy(), drawn_masks(20, ignored=0.1)
    for name, array in (("images", images), ("masks", masks)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = SplitArrays(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "masks")))
    for indices in (None, [3, 4, 5, 11, 0]):
        memory = ArrayDataset(SplitArrays(images, masks), indices)
        lazy = ArrayDataset(mapped, indices, in_memory=False)
        assert len(lazy) == len(memory)
        for chosen in ([0], [4, 1, 2, 3], list(range(len(memory)))):
            for ours, theirs in zip(lazy.__getitems__(chosen), memory.__getitems__(chosen), strict=True):
                assert ours.dtype == theirs.dtype == torch.uint8
                assert torch.equal(ours, theirs)
        assert torch.equal(lazy.labels, memory.labels)
        parts = list(lazy.label_parts())
        assert max(map(len, parts)) <= 3
        np.testing.assert_array_equal(np.concatenate(parts), memory.labels)
        assert len(list(memory.label_parts())) == 1
        assert torch.equal(lazy.to(torch.device("cpu")).labels, memory.labels)
        assert memory.device.type == "cpu"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, ">i2"])
def test_a_training_reads_the_same_from_a_map(tmp_path, monkeypatch, kind, save):
    monkeypatch.setattr("visionforge.data.batches._LABELS_AT_ONCE", 3)
    arrays = {}
    for split, count in (("train", 20), ("val", 6), ("test", 6)):
        arrays[f"{split}_images"] = noise(count, channels=1)[:, 0].numpy()
        arrays[f"{split}_labels"] = drawn_masks(count, ignored=0.1).astype(kind)
    save(tmp_path / "made_16.npz", **arrays)
    entry = {
        "name": "made",
        "title": "Made",
        "description": "Noise.",
        "task": "segmentation",
        "classes": ["background", "a", "b"],
        "channels": 1,
        "splits": {"train": 20, "val": 6, "test": 6},
        "archives": {16: {"url": None}},
        "normalisation": {"mean": [0.5], "std": [0.3], "source": "assumed"},
        "flags": {"hflip": True, "vflip": True, "rotation": "any", "texture_is_label": True, "colour_is_label": True},
        "licence": "any",
        "citation": "none",
    }
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "made.yaml").write_text(json.dumps(entry))
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))

    def batches(cache):
        shared = {"root": str(tmp_path), "resolution": 16, "batch_size": 8, "cache": cache, "synthetic": Synthetic()}
        data = MedMNISTDataModule("made", **shared)
        data.prepare_data()
        data.setup("fit")
        return list(data.train_dataloader()), data.class_counts()

    (mapped, counts), (memory, same) = batches("mmap"), batches("ram")
    assert len(mapped) == 2
    for (images, masks), (images_too, masks_too) in zip(mapped, memory, strict=True):
        assert torch.equal(images, images_too)
        assert torch.equal(masks, masks_too)
        assert masks.dtype == torch.uint8
    labels = arrays["train_labels"]
    assert torch.equal(counts[0], same[0])
    assert counts[0].tolist() == [(labels == k).sum() for k in range(3)]
