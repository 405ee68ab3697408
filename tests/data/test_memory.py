"""The place of the images follows their number and the free memory, and changes no batch."""

import numpy as np
import pytest
import torch

from visionforge.data import MedMNISTDataModule
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.memory import choose_cache, free_memory
from visionforge.errors import SettingsError

GB = 10**9


@pytest.mark.parametrize(
    ("images", "size", "free", "device_free", "kind"),
    [
        (1_000, GB // 10, 8 * GB, None, "ram"),
        (49_999, 3 * GB, 8 * GB, None, "ram"),
        (49_999, 5 * GB, 8 * GB, None, "mmap"),
        (80_000, 3 * GB, 8 * GB, None, "ram"),
        (100_001, GB, 80 * GB, None, "mmap"),
        (100_001, GB, 80 * GB, 8 * GB, "device"),
        (1_000, 5 * GB, 80 * GB, 8 * GB, "ram"),
    ],
)
def test_auto(images, size, free, device_free, kind):
    choice = choose_cache("auto", images, size, size, free, device_free)
    assert choice.kind == kind
    assert choice.reason


@pytest.mark.parametrize("mode", ["ram", "mmap", "device"])
def test_setting_wins(mode):
    assert choose_cache(mode, 10, 10, 10, GB, GB).kind == mode


def test_free_memory_is_plausible():
    assert 10**7 < free_memory() < 10**14


def test_every_place_gives_the_same_batches(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    mapped = SplitArrays(np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(50))
    kept = [3, 9, 20, 49]
    for indices in (None, kept):
        ram = ArrayDataset(mapped, indices)
        slices = ArrayDataset(mapped, indices, in_memory=False)
        moved = ArrayDataset(mapped, indices, in_memory=False).to(torch.device("cpu"))
        wanted = [2, 0, 3, 2]
        reference = images[kept if indices else slice(None)][wanted].transpose(0, 3, 1, 2)
        for dataset in (ram, slices, moved):
            batch, labels = dataset.__getitems__(wanted)
            np.testing.assert_array_equal(batch.numpy(), reference)
            assert labels.tolist() == (np.array(kept)[wanted] if indices else np.array(wanted)).tolist()
            assert torch.equal(dataset.images, ram.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_modes_of_the_data_module(archives, workers, caplog):
    batches = []
    for cache in ("ram", "mmap", "auto"):
        data = MedMNISTDataModule(
            "breastmnist", root=str(archives), batch_size=64, cache=cache, max_samples=300, num_workers=workers
        )
        data.prepare_data()
        with caplog.at_level("INFO"):
            data.setup("fit")
        batches.append([images for images, _ in data.train_dataloader()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*batches, strict=True))
    assert "breastmnist train split: memory-mapped (as set)" in caplog.text
    assert "in memory (fewer than 50,000 images" in caplog.text


def test_device_without_a_gpu_is_one_line(archives):
    data = MedMNISTDataModule("breastmnist", root=str(archives), cache="device")
    data.prepare_data()
    with pytest.raises(SettingsError, match=r"data\.cache: 'device' needs a GPU"):
        data.setup("fit")


def test_mapped_records_are_read_by_position(tmp_path):
    import pickle

    from visionforge.data.records import MappedRecords

    array = np.random.default_rng(0).integers(0, 256, (40, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    records = MappedRecords(np.load(tmp_path / "a.npy", mmap_mode="r"))
    for positions in ([0], [39], [3, 4, 5, 9, 9, 0, 1], list(range(40)), [7, 6, 5]):
        np.testing.assert_array_equal(records[np.array(positions)], array[positions])
    again = pickle.loads(pickle.dumps(records))
    np.testing.assert_array_equal(again[np.array([8, 2])], array[[8, 2]])
    assert len(pickle.dumps(records)) < 1000
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(300)
    with pytest.raises(OSError, match="shorter"):
        records[np.array([39])]
