"""An NPZ file in MedMNIST's layout becomes a data set whose arrays are those of the file."""

import numpy as np
import pytest

import visionforge as vf
from visionforge import SettingsError
from visionforge.cli.main import main
from visionforge.data.archive import read_split
from visionforge.data.import_settings import ImportSettings
from visionforge.data.importing import import_images
from visionforge.errors import DataError

COUNTS = {"train": 12, "val": 4, "test": 6}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("data", "catalog", "cache"):
        monkeypatch.setenv(f"VISIONFORGE_{name.upper()}", str(tmp_path / name))


def arrays(shape=(28, 28, 3), width=1, classes=3, **changes):
    rng = np.random.default_rng(0)
    found = {}
    for split, count in COUNTS.items():
        found[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        labels = np.arange(count)[:, None] % classes if width == 1 else rng.integers(0, 2, (count, width))
        found[f"{split}_labels"] = labels.astype(np.uint8)
    return {name: array for name, array in {**found, **changes}.items() if array is not None}


def imported(tmp_path, content, **settings):
    np.savez(tmp_path / "own.npz", **content)
    return import_images(ImportSettings(source=tmp_path / "own.npz", name="own", **settings))


@pytest.mark.parametrize(
    ("content", "task", "classes", "channels"),
    [
        (arrays(), "multi-class", 3, 3),
        (arrays(classes=2, shape=(64, 64)), "binary", 2, 1),
        (arrays(width=4, shape=(28, 28, 1)), "multi-label", 4, 1),
        (arrays(shape=(28, 28, 28)), "multi-class", 3, 1),
        (
            {name: array.reshape(-1) if "labels" in name else array for name, array in arrays().items()},
            "multi-class",
            3,
            3,
        ),
        (arrays(train_labels=np.arange(12, dtype=np.int64)[:, None] % 3), "multi-class", 3, 3),
    ],
)
def test_arrays_stay_as_they_are(tmp_path, content, task, classes, channels):
    report = imported(tmp_path, content)
    info = report.info
    assert (info.task, len(info.classes), info.channels, info.splits.model_dump()) == (task, classes, channels, COUNTS)
    for split in COUNTS:
        stored = read_split(report.archive, info, split)
        assert np.array_equal(
            np.asarray(stored.images), np.squeeze(content[f"{split}_images"]).reshape(stored.images.shape)
        )
        truth = content[f"{split}_labels"].reshape(len(stored.labels), -1)
        assert np.array_equal(np.asarray(stored.labels).reshape(truth.shape), truth)


def test_published_archives_give_what_the_catalog_says(archives):
    for name in ("breastmnist", "retinamnist"):
        report = import_images(
            ImportSettings(source=archives / f"{name}.npz", name=f"own_{name}", task=vf.dataset_info(name).task)
        )
        known = vf.dataset_info(name)
        assert report.info.splits == known.splits
        assert (len(report.info.classes), report.info.channels) == (len(known.classes), known.channels)
        np.testing.assert_allclose(report.info.normalisation.mean, known.normalisation.mean, atol=2e-3)


def test_names_and_flags_are_taken(tmp_path):
    info = imported(tmp_path, arrays(), classes="a, b,c", task="ordinal", hflip=False, rotation="none").info
    assert (info.classes, info.task, info.flags.hflip, info.flags.rotation) == (
        ("a", "b", "c"),
        "ordinal",
        False,
        "none",
    )


def test_init_and_fit_take_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "Own cells.npz", **arrays(classes=2))
    assert main(["init", "Own cells.npz"]) == 0
    assert (tmp_path / "own_cells.yaml").is_file()
    assert "✓ own_cells: binary, 2 classes, 12 train / 4 val / 6 test" in capsys.readouterr().out
    assert vf.starter("Own cells.npz").note is not None


@pytest.mark.parametrize(
    ("content", "settings", "line"),
    [
        (arrays(val_images=None), {}, "has no array val_images"),
        (arrays(test_labels=None), {}, "has no array test_labels"),
        (arrays(train_images=np.zeros((12, 28, 30), np.uint8)), {}, "different shapes"),
        (arrays(shape=(28, 30)), {}, "images of 30×28 pixels; allowed: squares"),
        (arrays(train_labels=np.zeros((11, 1), np.uint8)), {}, "train_labels has the shape (11, 1)"),
        (arrays(train_labels=np.zeros((12, 1))), {}, "of float64; expected integers"),
        (arrays(train_labels=np.full((12, 1), -1)), {}, "train_labels go from -1 to -1"),
        (arrays(train_labels=np.full((12, 1), 10**9)), {}, "allowed: 0 to 9,999"),
        (arrays(width=3, val_labels=np.full((4, 3), 2, np.uint8)), {}, "are 0 and 1, these go to 2"),
        (arrays(width=3, val_labels=np.zeros((4, 2), np.uint8)), {}, "different widths: 2, 3"),
        (arrays(train_images=np.array([{}] * 12, dtype=object)), {}, "Python objects, which are never loaded"),
        (arrays(train_labels=np.array([{}] * 12, dtype=object)), {}, "holds Python objects (pickle)"),
        (arrays(), {"classes": "a,b"}, "classes: "),
        (arrays(), {"task": "multi-label"}, "task: multi-label does not fit"),
        (arrays(), {"task": "segmentation"}, "task: segmentation does not fit"),
        (arrays(), {"resolution": 64}, "resolution: the images of"),
        (arrays(), {"group_column": "patient"}, "group_column: is for pictures"),
        (arrays(), {"fractions": (0.5, 0.2, 0.3)}, "fractions: is for pictures"),
    ],
)
def test_what_cannot_be_taken_is_one_line(tmp_path, content, settings, line):
    with pytest.raises((DataError, SettingsError)) as caught:
        imported(tmp_path, content, **settings)
    assert line in str(caught.value)
    assert not list((tmp_path / "catalog").glob("*")) if (tmp_path / "catalog").exists() else True


def test_a_damaged_file_is_one_line(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", **arrays())
    whole = (tmp_path / "own.npz").read_bytes()
    for damaged in (whole[:-40], b"no zip", whole.replace(whole[200:240], b"x" * 40, 1)):
        (tmp_path / "own.npz").write_bytes(damaged)
        with pytest.raises(DataError):
            import_images(ImportSettings(source=tmp_path / "own.npz", name="own"))
