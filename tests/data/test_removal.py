"""What a data set takes on the disk is told, and removed only where it can be had again or was made by an import."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import visionforge as vf
from visionforge import SettingsError
from visionforge.cli.main import main
from visionforge.data.import_files import entry_path
from visionforge.data.removal import disk_bytes, remove_dataset
from visionforge.data.store import open_archive, unpacked_folder
from visionforge.errors import DataError
from visionforge.runs.paths import shown


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    """Pictures, and a data set that was made of them and opened once."""
    for name in ("data", "catalog", "cache"):
        monkeypatch.setenv(f"VISIONFORGE_{name.upper()}", str(tmp_path / name))
    for k, name in enumerate(("a", "b")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng((k, i)).integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    assert main(["datasets", "import", str(tmp_path / "pictures"), "--name", "mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  next     visionforge fit mine"
    info = vf.dataset_info("mine")
    archive = tmp_path / "data" / info.archive_name(28)
    open_archive(archive, info, 28)
    return archive


def test_an_imported_one_goes_with_its_entry_and_its_pictures_stay(imported, tmp_path, capsys):
    arrays, entry = unpacked_folder(imported), entry_path("mine")
    assert main(["datasets", "remove", "mine"]) == 0
    told = capsys.readouterr().out
    named = [line.split(": ")[1].split(" (")[0] for line in told.splitlines()[:3]]
    assert named == [str(shown(path)) for path in (imported, arrays, entry)]
    assert "nothing was removed; `--yes` removes" in told
    assert all(path.exists() for path in (imported, arrays, entry))
    sizes = remove_dataset("mine").sizes
    assert sizes[imported] == imported.stat().st_size
    assert disk_bytes(vf.dataset_info("mine")) == sizes[imported] + sizes[arrays]
    assert main(["datasets", "remove", "mine", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] is True
    assert not any(path.exists() for path in (imported, arrays, entry))
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 24
    with pytest.raises(SettingsError, match="'mine' is unknown"):
        remove_dataset("mine")


def test_what_is_not_what_the_catalog_says_is_kept(imported, capsys):
    with imported.open("ab") as file:
        file.write(b"changed")
    assert main(["datasets", "remove", "mine", "--yes"]) == 0
    assert f"kept: {imported} is not the archive that the catalog describes" in capsys.readouterr().out
    assert imported.exists()
    assert entry_path("mine").exists()


def test_an_entry_that_somebody_wrote_stays(imported):
    entry = yaml.safe_load(entry_path("mine").read_text())
    own = imported.with_name("mine.npz")
    shutil.copy(imported, own)
    entry["archives"]["28"]["file"] = own.name
    entry_path("mine").write_text(yaml.safe_dump(entry))
    found = remove_dataset("mine", remove=True)
    assert not found.sizes
    assert found.notes == [f"{own} lies on this machine only, and no import has written it"]
    assert all(path.exists() for path in (entry_path("mine"), imported, own))


def test_an_entry_without_archives_or_whose_archive_is_elsewhere_stays(imported, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(imported, moved / imported.name)
    found = remove_dataset("mine", remove=True)
    assert entry_path("mine").exists()
    assert any("so the entry is kept; name its folder with `root`" in note for note in found.notes)
    assert (moved / imported.name).exists()
    entry = yaml.safe_load(entry_path("mine").read_text())
    entry_path("mine").write_text(yaml.safe_dump({**entry, "archives": {}, "resolutions": [28]}))
    assert not remove_dataset("mine", remove=True).sizes
    assert entry_path("mine").exists()


def test_an_archive_that_another_entry_names_stays(imported):
    entry = yaml.safe_load(entry_path("mine").read_text())
    entry_path("other").write_text(yaml.safe_dump({**entry, "name": "other"}))
    found = remove_dataset("mine", remove=True)
    assert imported.exists()
    assert any("is named by another entry, too" in note for note in found.notes)


def test_one_resolution_and_a_wrong_one(imported):
    with pytest.raises(DataError, match="resolution: mine has no archive of 64 pixels; it has: 28"):
        remove_dataset("mine", resolution=64)
    assert remove_dataset("mine", resolution=28).sizes.keys() == remove_dataset("mine").sizes.keys()


def test_nothing_there_is_told(imported, capsys):
    assert main(["datasets", "remove", "bloodmnist"]) == 0
    assert capsys.readouterr().out == "nothing of bloodmnist is on the disk\n"


def test_lists_tell_what_is_on_the_disk(imported, capsys):
    assert main(["datasets", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("on disk: ")
    assert main(["datasets", "list", "--json"]) == 0
    sizes = {entry["name"]: entry["bytes"] for entry in json.loads(capsys.readouterr().out)}
    assert sizes["mine"] == disk_bytes(vf.dataset_info("mine")) > 0
    assert sizes["chestmnist"] == 0
