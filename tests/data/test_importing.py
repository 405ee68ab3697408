"""Pictures of any kind become a data set; splits keep classes and groups; what is broken is listed."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from visionforge.data.archive import verify_archive
from visionforge.data.importing import ImportSettings, channel_statistics, import_images
from visionforge.data.info import SPLITS
from visionforge.data.pictures import PictureError, read_picture
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.data.source import load_split
from visionforge.errors import DataError


def picture(path, value, size=(20, 24), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(("cat", "dog", "owl")):
        for number in range(20):
            picture(tmp_path / "pics" / name / f"{number}.png", (index * 80, number, 10))
    return tmp_path / "pics"


def imported(source, **changes):
    return import_images(ImportSettings(**{"source": source, "name": "mine", "resolution": 16, **changes}))


def test_class_folders_become_a_data_set(folder):
    report = imported(folder)
    assert "mine" in dataset_names()
    info = dataset_info("mine")
    assert info == report.info
    assert info.classes == ("cat", "dog", "owl")
    assert info.task == "multi-class"
    assert info.splits.model_dump() == {"train": 42, "val": 6, "test": 12}
    verify_archive(report.archive, info, 16)
    assert info.archives[16].md5
    for split in SPLITS:
        part = load_split(info, 16, None, split)
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels * 80)  # each image keeps its own label
        counts = np.bincount(part.labels)
        assert counts.max() - counts.min() <= 1
    train = load_split(info, 16, None, "train").images / 255
    np.testing.assert_allclose(info.normalisation.mean, train.mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(info.normalisation.std, train.std(axis=(0, 1, 2)), atol=1e-6)


def test_same_seed_gives_the_same_split(folder):
    first = imported(folder).archive.read_bytes()
    assert imported(folder, replace=True).archive.read_bytes() == first
    assert imported(folder, replace=True, seed=1).archive.read_bytes() != first


def test_given_splits_are_kept(tmp_path):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for name in ("no", "yes"):
            for number in range(count):
                picture(tmp_path / "pics" / split / name / f"{number}.jpg", 50, mode="L")
    info = imported(tmp_path / "pics").info
    assert info.splits.model_dump() == {"train": 8, "val": 4, "test": 6}
    assert info.task == "binary"
    assert info.channels == 1


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_groups_are_never_spread_over_splits(tmp_path):
    rows = []
    for patient in range(30):
        for number in range(4):
            name = f"{patient}_{number}.png"
            picture(tmp_path / name, (patient, patient, patient))
            rows.append({"path": name, "label": "ill" if patient % 3 else "well", "patient": patient})
    info = imported(write_csv(tmp_path / "list.csv", rows), group_column="patient").info
    patients = {s: set(load_split(info, 16, None, s).images[:, 0, 0, 0].tolist()) for s in SPLITS}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert not patients["val"] & patients["test"]
    assert set.union(*patients.values()) == set(range(30))
    assert 0.1 <= info.splits.test / 120 <= 0.3


def test_multi_label_csv_with_splits(tmp_path):
    rows = []
    for number in range(12):
        picture(tmp_path / f"{number}.png", number * 20, mode="L")
        labels = "|".join(name for bit, name in enumerate(("a", "b", "c")) if number >> bit & 1)
        rows.append({"file": f"{number}.png", "findings": labels, "split": SPLITS[number % 3]})
    info = imported(write_csv(tmp_path / "list.csv", rows), label_column="findings", task="multi-label").info
    assert info.task == "multi-label"
    for index, split in enumerate(SPLITS):
        part = load_split(info, 16, None, split)
        for image, labels in zip(part.images, part.labels, strict=True):
            number = int(image[0, 0]) // 20
            assert number % 3 == index
            assert labels.tolist() == [number >> bit & 1 for bit in range(3)]


def test_numbers_are_ordered_as_numbers(tmp_path):
    rows = []
    for number in range(40):
        picture(tmp_path / f"{number}.png", number, mode="L")
        rows.append({"path": f"{number}.png", "label": number % 12})
    info = imported(write_csv(tmp_path / "list.csv", rows), task="ordinal").info
    assert info.classes == tuple(str(k) for k in range(12))
    assert info.task == "ordinal"


def test_broken_pictures_are_listed(folder):
    (folder / "cat" / "text.png").write_text("no picture")
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    whole = folder / "dog" / "0.png"
    (folder / "dog" / "cut.png").write_bytes(whole.read_bytes()[:60])
    report = imported(folder)
    assert sorted(path.name for path, _ in report.broken) == ["cut.png", "empty.jpg", "text.png"]
    assert all(reason for _, reason in report.broken)
    assert report.info.images == 60


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "nowhere"}, "no such folder"),
        ({"name": "bloodmnist"}, "built-in"),
        ({"task": "binary"}, "binary needs 2 classes"),
    ],
)
def test_what_cannot_be_imported(folder, changes, complaint, tmp_path):
    if "source" in changes:
        changes = {"source": tmp_path / changes["source"]}
    with pytest.raises(DataError, match=complaint):
        imported(changes.pop("source", folder), **changes)


def test_taken_name_needs_replace(folder):
    imported(folder)
    with pytest.raises(DataError, match="exists already"):
        imported(folder)


def test_csv_never_reads_outside_its_folder(tmp_path):
    picture(tmp_path / "secret.png", (1, 2, 3))
    (tmp_path / "in").mkdir()
    rows = [{"path": "../secret.png", "label": "a"}, {"path": str(tmp_path / "secret.png"), "label": "b"}]
    with pytest.raises(DataError) as caught:
        imported(write_csv(tmp_path / "in" / "list.csv", rows))
    (line,) = caught.value.problems
    assert "2 paths lie outside the folder of the table (the first, line 2: ../secret.png); move the table" in line


def test_files_of_a_table_that_are_not_there_are_one_line(folder):
    files = [f"cat/{i}.png" for i in range(20)] + [f"dog/{i}.png" for i in range(20)] + ["gone/a.png", "gone/b.png"]
    report = imported(
        write_csv(
            folder / "list.csv",
            [{"path": file, "label": file[:3]} for file in files[:-2]]
            + [{"path": file, "label": "cat"} for file in files[-2:]],
        )
    )
    assert len(report.broken) == 2
    (line,) = [line for line in report.lines() if line.startswith("✗")]
    assert line.startswith("✗ 2 of the table's files are not there (the first: ")
    assert "gone/a.png); left out; correct the paths, which begin in the folder of the table" in line


def test_columns_that_look_like_groups_are_never_passed_over(folder):
    rows = [
        {"path": f"{name}/{i}.png", "label": name, "group": f"{i // 2}"} for name in ("cat", "dog") for i in range(20)
    ]
    for heading in ("pid", "MRN", "accession", "AccessionNumber", "accessionnumber", "patientid", "patientname"):
        table = write_csv(
            folder / "list.csv", [{"path": r["path"], "label": r["label"], heading: r["group"]} for r in rows]
        )
        with pytest.raises(DataError, match=f"the column {heading} may say which pictures belong together"):
            imported(table)
    for heading in ("spid", "confidence", "midline"):
        table = write_csv(
            folder / "list.csv", [{"path": r["path"], "label": r["label"], heading: r["group"]} for r in rows]
        )
        assert imported(table, replace=True).info.images == 40


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("p{0:03}_{1}.png", True),
        ("p{0:03}-{1}.png", True),
        ("p{0:03} {1}.PNG", True),
        ("img_{0:02}{1}.png", False),
        ("{0:02}{1}.png", False),
        ("{2}_{0:02}{1}.png", False),
    ],
)
def test_names_of_several_pictures_of_the_same_are_told(tmp_path, name, told):
    for number in range(36):
        label = "abcdef"[number // 3 % 6]
        (tmp_path / label).mkdir(exist_ok=True)
        picture(tmp_path / label / name.format(number // 3, number % 3, label), number * 7)
    notes = [note for note in imported(tmp_path).notes if "divided one by one" in note]
    assert len(notes) == told
    if told:
        assert "look like several pictures of each of 12 patients or the like (" in notes[0]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "path,label,split\nx.png,a,holdout\n"])
def test_bad_csv_is_one_line(tmp_path, content):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "list.csv")
    assert len(caught.value.problems) == 1


def ramp() -> np.ndarray:
    return np.linspace(0, 1, 40)[None, :].repeat(40, axis=0)


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F", "1", "P", "LA", "RGBA", "CMYK", "RGB"])
def test_every_mode_is_read(tmp_path, mode):
    path = tmp_path / "x.tif"
    eight = Image.fromarray((ramp() * 255).astype(np.uint8))
    if mode == "I;16":
        Image.fromarray((ramp() * 65535).astype(np.uint16)).save(path)
    elif mode == "I":
        Image.fromarray((ramp() * 65535).astype(np.int32)).save(path)
    elif mode == "F":
        Image.fromarray((ramp() * 3 - 1).astype(np.float32)).save(path)
    else:
        path = tmp_path / ("x.png" if mode in ("P", "LA", "RGBA", "1") else "x.tif")
        (eight.convert("RGB").convert(mode) if mode == "CMYK" else eight.convert(mode)).save(path)
    got = read_picture(path, 40)
    grey = got if got.ndim == 2 else got.mean(axis=2)
    assert got.ndim == (3 if mode in ("P", "RGBA", "CMYK", "RGB") else 2)
    difference = np.abs(grey - ramp() * 255)
    assert difference.mean() < 120 if mode == "1" else difference.max() <= 2  # one bit is dithered


def test_wide_picture_is_scaled_and_its_middle_taken(tmp_path):
    array = np.zeros((20, 60), np.uint8)
    array[:, 20:40] = 200
    Image.fromarray(array).save(tmp_path / "wide.png")
    got = read_picture(tmp_path / "wide.png", 10)
    assert got.shape == (10, 10)
    assert got[:, 2:8].min() > 190


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (20, 20), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.gif", 20).max() <= 12


def test_bomb_is_refused(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(PictureError):
        read_picture(tmp_path / "bomb.png", 28)


def test_statistics_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), atol=1e-6)


def test_entry_is_plain_yaml(folder):
    report = imported(folder)
    assert yaml.safe_load(report.entry.read_text())["name"] == "mine"


def test_from_python_every_setting_is_passed_on(monkeypatch):
    """The function has the settings of the command, each with the same default, and none goes astray."""
    import inspect

    from visionforge.data import import_dataset as module

    taken = []
    monkeypatch.setattr(module, "import_images", taken.append)
    module.import_dataset("photos", "mine")
    assert taken == [ImportSettings(Path("photos"), "mine")]
    other = {
        **{"resolution": 64, "task": "ordinal", "fractions": (0.5, 0.2, 0.3), "seed": 1, "path_column": "p"},
        **{"label_column": "l", "split_column": "s", "group_column": "g", "columns": ["a", "b"], "no_groups": True},
        **{
            "positive": "x",
            "masks": "m",
            "mask_values": "foreground",
            "ignore": 9,
            "boxes": "b",
            "classes": ("c", "d"),
        },
        **{"fit": "pad", "intensity": (0.0, 9.0), "frames": "volume", "hflip": False, "vflip": True, "dflip": True},
        **{"rotation": "any", "corrections": "s.csv", "replace": True, "root": "r"},
    }
    assert set(other) | {"source", "name"} == set(inspect.signature(module.import_dataset).parameters)
    module.import_dataset("photos", "mine", **other)
    texts = {
        "columns": "a,b",
        "classes": "c,d",
        **{name: Path(other[name]) for name in ("masks", "boxes", "corrections")},
    }
    assert taken[1] == ImportSettings(Path("photos"), "mine", **{**other, **texts})


def test_names_say_nothing_where_groups_or_splits_are_given(tmp_path):
    rows = []
    for number in range(36):
        name = f"p{number // 3:03}_{number % 3}.png"
        picture(tmp_path / name, number * 7)
        rows.append({"path": name, "label": "ab"[number % 2], "id": f"{number // 3}", "part": SPLITS[number // 3 % 3]})
    table = write_csv(tmp_path / "list.csv", rows)
    for changes, told in (
        ({}, 1),
        ({"group_column": "id"}, 0),
        ({"split_column": "part"}, 0),
        ({"no_groups": True}, 0),
    ):
        notes = imported(table, replace=True, **changes).notes
        assert sum("divided one by one" in note for note in notes) == told, changes
