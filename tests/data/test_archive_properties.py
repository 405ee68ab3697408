"""Any archive is read exactly or refused with our error: over shapes and tasks, and over thousands of damaged files."""

import random
import shutil

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.data.registry import dataset_info
from visionforge.data.store import open_archive, open_split, store_folder
from visionforge.errors import DataError

MUTATIONS = 10_000


def entry(task: str, channels: int, classes: int, sizes: tuple[int, int, int], resolution: int) -> DatasetInfo:
    return DatasetInfo.model_validate(
        {
            **dataset_info("breastmnist").model_dump(),
            "name": "fuzz",
            "task": task,
            "positive": None,
            "classes": [str(k) for k in range(classes)],
            "channels": channels,
            "splits": dict(zip(SPLITS, sizes, strict=True)),
            "archives": {resolution: {"url": None, "md5": None}},
            "resolutions": [resolution],
            "normalisation": {"mean": [0.5] * channels, "std": [0.5] * channels, "source": "computed"},
        }
    )


def content(info: DatasetInfo, resolution: int, label_dtype: str, flat: bool, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for split in SPLITS:
        count, classes = getattr(info.splits, split), len(info.classes)
        shape = (count, resolution, resolution) + ((3,) if info.channels == 3 else ())
        out[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        if info.task == "multi-label":
            labels = rng.integers(0, 2, (count, classes))
        else:
            labels = rng.integers(0, classes, count if flat else (count, 1))
        out[f"{split}_labels"] = labels.astype(label_dtype)
    return out


@given(
    task=st.sampled_from(["binary", "multi-class", "multi-label", "ordinal"]),
    channels=st.sampled_from([1, 3]),
    classes=st.integers(2, 20),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    resolution=st.integers(8, 12),
    label_dtype=st.sampled_from(["u1", "i1", "<u2", ">i4", "<i8", ">u8"]),
    flat=st.booleans(),
    compressed=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_valid_archive_is_read_exactly(
    tmp_path, task, channels, classes, sizes, resolution, label_dtype, flat, compressed, seed
):
    info = entry(task, channels, classes, sizes, resolution)
    arrays = content(info, resolution, label_dtype, flat, seed)
    path = tmp_path / "fuzz.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    shutil.rmtree(store_folder(), ignore_errors=True)
    for split in SPLITS:
        got = open_split(path, info, resolution, split)
        np.testing.assert_array_equal(got.images, arrays[f"{split}_images"])
        labels = arrays[f"{split}_labels"]
        np.testing.assert_array_equal(got.labels, labels if task == "multi-label" else labels.reshape(-1))


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a file with one to three kinds of damage."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        where, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 4, 16, 200])
        match rng.randrange(7):
            case 0:
                data[where] ^= 1 << rng.randrange(8)
            case 1:
                data[where : where + length] = rng.randbytes(len(data[where : where + length]))
            case 2:
                data[where : where + length] = bytes(len(data[where : where + length]))
            case 3:
                del data[where : where + length]
            case 4:
                data[where:where] = rng.randbytes(length)
            case 5:
                del data[max(1, where) :]
            case _:  # the sizes and offsets of the directory at the end
                tail = max(0, len(data) - rng.randrange(1, 500))
                data[tail : tail + length] = rng.choice([b"\xff", b"\x00"]) * len(data[tail : tail + length])
    return bytes(data)


def open_or_refuse(path, info: DatasetInfo):
    """Return (what was wrong, the members); anything but our own error is a failure of the test."""
    try:
        return (), open_archive(path, info, 8)
    except DataError as error:
        return error.problems, {}


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_damaged_bytes_are_read_right_or_refused(tmp_path, save):
    info = entry("multi-class", 3, 4, (6, 3, 3), 8)
    arrays = content(info, 8, "u1", False, 0)
    path = tmp_path / "fuzz.npz"
    save(path, **arrays)
    raw, rng = path.read_bytes(), random.Random(0)
    process, refused = psutil.Process(), 0
    before = process.memory_info().rss
    for number in range(MUTATIONS // 2):
        path.write_bytes(mutate(raw, rng))
        shutil.rmtree(store_folder(), ignore_errors=True)
        problems, members = open_or_refuse(path, info)
        if problems:
            refused += 1
            assert len(problems) == 1, number
            assert problems[0].isprintable(), number
        for name, member in members.items():
            np.testing.assert_array_equal(member.map(), arrays[name], err_msg=f"mutation {number}")
    assert refused > MUTATIONS // 4
    assert process.memory_info().rss - before < 100_000_000
