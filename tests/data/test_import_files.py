"""Archive and entry belong together, also when an import is killed between them, or two run at once."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from visionforge.data.archive import verify_archive
from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.info import SPLITS
from visionforge.data.registry import catalog_folder, dataset_info
from visionforge.data.source import load_split
from visionforge.errors import DataError
from visionforge.runs.locks import held


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    return tmp_path


def source(folder, seed):
    rng = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def imported(folder, **changes):
    return import_images(ImportSettings(**{"source": folder, "name": "mine", "resolution": 16, **changes}))


def files(place):
    return sorted(path.name for path in (place / "data").iterdir())


def test_a_new_archive_takes_the_place_of_the_old_one_and_of_no_other(place):
    one, two = source(place / "one", 1), source(place / "two", 2)
    first = imported(one)
    assert first.archive.name == f"mine_16-{first.info.archives[16].md5[:12]}.npz"
    again = imported(one, replace=True)
    assert files(place) == [first.archive.name] == [again.archive.name]
    other = imported(two, name="mine_16")  # whose archives have names that begin alike
    second = imported(two, replace=True)
    assert files(place) == sorted([other.archive.name, second.archive.name])
    for name in ("mine", "mine_16"):
        info = dataset_info(name)
        verify_archive(place / "data" / info.archive_name(16), info, 16)
    third = imported(one, replace=True, resolution=28)
    assert files(place) == sorted([other.archive.name, third.archive.name])
    assert third.archive.name.startswith("mine-")


def test_archive_that_another_entry_names_is_kept(place):
    first = imported(source(place / "one", 1))
    text = first.entry.read_text().replace("name: mine\n", "name: copy\n")
    (catalog_folder() / "copy.yaml").write_text(text)
    imported(source(place / "two", 2), replace=True)
    info = dataset_info("copy")
    verify_archive(first.archive, info, 16)


def test_entry_of_before_names_its_archive_by_convention(place):
    first = imported(source(place / "one", 1))
    first.archive.rename(place / "data" / "mine_16.npz")
    lines = first.entry.read_text().splitlines()
    first.entry.write_text("\n".join(line for line in lines if "file:" not in line))
    info = dataset_info("mine")
    assert info.archive_name(16) == "mine_16.npz"
    assert load_split(info, 16, None, "train").images.shape[0] == 14
    second = imported(source(place / "two", 2), replace=True)
    assert files(place) == [second.archive.name]


def test_killed_between_archive_and_entry_the_old_pair_is_whole(place):
    """The import waits for the entry's lock, which this process holds, when its archive is in its place already."""
    first = imported(source(place / "one", 1))
    two = source(place / "two", 2)
    (place / "data" / "mine_16-0123456789ab.npz").write_bytes(b"somebody else's")
    command = [sys.executable, "-m", "visionforge", "datasets", "import", str(two), "--name", "mine"]
    with held(catalog_folder() / "mine.yaml.lock", "the test", 0):
        process = subprocess.Popen([*command, "--resolution", "16", "--replace"], env=os.environ)
        deadline = time.monotonic() + 60
        while len(list((place / "data").glob("mine_16-*.npz"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert dataset_info("mine") == first.info
    verify_archive(first.archive, first.info, 16)
    assert len(list((place / "data").glob("*.npz"))) == 3
    third = imported(source(place / "three", 3), replace=True)
    left = [name for name in files(place) if not name.startswith(".")]
    assert left == sorted(["mine_16-0123456789ab.npz", third.archive.name])  # what no import left is not ours to remove
    verify_archive(third.archive, dataset_info("mine"), 16)


def test_failure_leaves_the_old_pair_and_nothing_else(place):
    first = imported(source(place / "one", 1))
    two = source(place / "two", 2)
    first.entry.unlink()
    first.entry.mkdir()  # cannot be replaced by a file
    with pytest.raises(DataError, match="cannot be written"):
        imported(two, replace=True)
    assert files(place) == [first.archive.name]


@pytest.mark.slow
def test_imports_at_once_give_one_pair(place):
    folders = [source(place / f"s{k}", k) for k in range(3)]
    command = [sys.executable, "-m", "visionforge", "datasets", "import"]
    rest = ["--name", "mine", "--resolution", "16", "--replace"]
    running = [subprocess.Popen([*command, str(folder), *rest], env=os.environ) for folder in folders]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    info = dataset_info("mine")
    assert files(place) == [info.archive_name(16)]
    verify_archive(place / "data" / info.archive_name(16), info, 16)
    for split in SPLITS:
        assert load_split(info, 16, None, split).images.shape[0] > 0
