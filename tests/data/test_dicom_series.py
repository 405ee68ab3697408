"""Files of one slice each are the volume that the same frames in one file are, in the order of their places."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

import visionforge as vf
from tests.data.test_dicom import CT, FILES, saved
from visionforge.cli.main import main
from visionforge.data import dicom_series
from visionforge.data.dicom_series import series_of, stand_ins
from visionforge.data.dicom_volumes import read_frames
from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.picture_sources import list_pictures, read_by
from visionforge.data.pictures import PictureError
from visionforge.data.registry import dataset_info
from visionforge.data.source import load_split
from visionforge.errors import DataError

ACROSS = [1, 0, 0, 0, 1, 0]  # slices across the body
SERIES = "1.2.3"


def scan(seed=0, slices=6, size=12):
    """Return (slices, size, size) values that are brighter towards the head."""
    noise = np.random.default_rng(seed).integers(0, 400, (slices, size, size))
    return (200 * np.arange(slices)[:, None, None] + noise).astype(np.int16)


def written(folder, values, series=SERIES, apart=2.5, order=None, **facts):
    """Write slices, whose names say nothing of where they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    names = itertools.count()
    for place in order or range(len(values)):
        at = {"ImagePositionPatient": [0, 0, apart * place - 30], "ImageOrientationPatient": ACROSS}
        told = {"SeriesInstanceUID": series, "PixelSpacing": [2.0, 2.0], **at, **CT, **facts}
        told = {name: value(place) if callable(value) else value for name, value in told.items()}
        told = {name: value for name, value in told.items() if value is not None}
        saved(folder / f"IM{next(names):03}.dcm", values[place], **told)
    return folder


def test_slices_are_the_volume_that_the_frames_of_one_file_are(tmp_path):
    values = scan()
    folder = written(tmp_path / "scan", values, order=[3, 0, 5, 1, 4, 2])
    whole = saved(tmp_path / "whole.dcm", values, PixelSpacing=[2.0, 2.0], SpacingBetweenSlices=2.5, **CT)
    expected = read_frames(whole, 12)
    for path in folder.iterdir():  # each stands for all
        np.testing.assert_array_equal(read_frames(path, 12), expected)
    assert series_of(folder / "IM000.dcm").apart == 2.5
    assert expected[-1].mean() > expected[0].mean() + 100


def test_padding_of_all_slices_has_the_smallest_value_of_the_series(tmp_path):
    values = scan()
    values[:, :2] = -2000
    padded = {"PixelPaddingValue": -2000, "PixelRepresentation": 1}
    folder = written(tmp_path / "scan", values, **padded)
    whole = saved(tmp_path / "w.dcm", values, PixelSpacing=[2.0, 2.0], SpacingBetweenSlices=2.5, **CT, **padded)
    np.testing.assert_array_equal(read_frames(folder / "IM001.dcm", 12), read_frames(whole, 12))


def test_without_places_their_numbers_say_the_order(tmp_path):
    values = scan()
    nowhere = {"ImagePositionPatient": None, "InstanceNumber": lambda place: 10 - place}
    folder = written(tmp_path / "scan", values, **nowhere, SliceThickness="2.5")
    whole = saved(tmp_path / "w.dcm", values[::-1], PixelSpacing=[2.0, 2.0], SpacingBetweenSlices=2.5, **CT)
    np.testing.assert_array_equal(read_frames(folder / "IM000.dcm", 12), read_frames(whole, 12))


@pytest.mark.parametrize(
    ("order", "facts", "told"),
    [
        ([0], {}, "has one frame; a volume has several, or several files of its series in the same folder"),
        ([0, 1, 2, 4, 5], {}, "slices seem to be missing, between IM002.dcm and IM003.dcm"),
        (range(6), {"ImagePositionPatient": lambda k: [0, 0, k // 2]}, "several slices at the same place"),
        (range(6), {"ImagePositionPatient": None}, "does not say in which order"),
        (range(6), {"ImageOrientationPatient": lambda k: ACROSS if k else [0, 1, 0, 0, 0, 1]}, "not parallel"),
        (range(6), {"PhotometricInterpretation": lambda k: f"MONOCHROME{1 + k % 2}"}, "of several sizes or kinds"),
        (range(6), {"ImagePositionPatient": lambda k: [0, 0, 1000 * k]}, "longer along one axis than"),
    ],
)
def test_slices_that_make_no_volume_are_told(tmp_path, order, facts, told):
    folder = written(tmp_path / "scan", scan(), order=list(order), **facts)
    with pytest.raises(PictureError, match=told):
        read_frames(folder / "IM000.dcm", 12)


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    folder = written(tmp_path / "scan", scan())
    monkeypatch.setattr(dicom_series, "MAX_FILES", 5)
    with pytest.raises(PictureError, match="a folder of more than 5 files"):
        read_frames(folder / "IM000.dcm", 12)


def test_series_of_a_folder_are_told_apart_and_damaged_files_stand_for_themselves(tmp_path):
    folder = written(tmp_path, scan(1))
    for place, values in enumerate(scan(2)):
        at = {"ImagePositionPatient": [0, 0, place], "ImageOrientationPatient": ACROSS}
        saved(folder / f"other{place}.dcm", values, SeriesInstanceUID="4", **at)
    (folder / "damaged.dcm").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("x")
    os.mkfifo(folder / "pipe.dcm")  # which is waited for if it is opened
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    paths = sorted(folder.iterdir())
    alone = [paths[k].name for k in sorted(set(stand_ins(paths)))]
    assert alone == ["IM000.dcm", "damaged.dcm", "gone.dcm", "notes.txt", "other0.dcm", "pipe.dcm"]
    assert len(series_of(folder / "IM000.dcm").paths) == 6
    listed = list_pictures([folder])
    assert [len(each) for each in read_by(listed, 3)] == [3]
    assert [len(each) for each in read_by(listed, 2)] == [13]


def test_slices_that_are_named_one_by_one_are_a_volume(tmp_path):
    folder = written(tmp_path / "scan", scan(slices=4))
    paths = sorted(folder.iterdir())
    found = read_by(list_pictures(paths), 3)
    assert [list(each.paths) for each in found] == [[str(paths[0])], [], [], []]
    assert sum(map(len, read_by(list_pictures(paths), 2))) == 4


def test_what_was_written_since_is_seen(tmp_path):
    folder = written(tmp_path / "scan", scan(slices=4))
    assert len(series_of(folder / "IM000.dcm").paths) == 4
    written(folder, scan(slices=6))
    assert len(series_of(folder / "IM000.dcm").paths) == 6


def scans(folder, count=12):
    for number in range(count):
        label = "sick" if number % 2 else "well"
        written(folder / label / f"scan{number}", scan(number), f"1.9.{number}", PatientID=f"P{number // 2}")


def test_an_import_makes_a_volume_of_each_series(tmp_path):
    scans(tmp_path / "ct")
    settings = ImportSettings(tmp_path / "ct", "ct", resolution=12, frames="volume")
    report = import_images(settings)
    assert (report.info.images, report.info.spatial_dims, report.broken) == (12, 3, [])
    assert "72 files are the slices of 12 series; each series is a volume" in report.notes
    assert any("12 files of 6 patients" in note for note in report.notes)
    arrays = load_split(dataset_info("ct"), 12, None, "test")
    known = {read_frames(path, 12).tobytes() for path in (tmp_path / "ct").glob("*/*/IM000.dcm")}
    assert all(np.asarray(image).tobytes() in known for image in arrays.images)


def test_slices_as_pictures_are_told_to_be_slices(tmp_path):
    scans(tmp_path / "ct")
    report = import_images(ImportSettings(tmp_path / "ct", "ct", resolution=12))
    assert (report.info.images, report.info.spatial_dims) == (72, 2)
    told = "72 files are slices of 12 series, and each is a picture of its own; `frames` volume makes a volume of each"
    assert any(note.startswith(told) for note in report.notes)


def test_a_table_may_name_one_slice_or_all(tmp_path):
    scans(tmp_path / "ct", count=20)
    first, every = ["path,label"], ["path,label"]
    for path in sorted((tmp_path / "ct").rglob("*.dcm")):
        line = f"{path.relative_to(tmp_path)},{path.parts[-3]}"
        every.append(line)
        first += [line] if path.name == "IM000.dcm" else []
    reports = []
    for name, lines in (("first", first), ("every", every)):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        reports.append(import_images(ImportSettings(tmp_path / f"{name}.csv", name, resolution=12, frames="volume")))
    one, two = (report.info.archives[12].md5 for report in reports)
    assert one == two
    every[1] = every[1].replace(",sick", ",well")
    (tmp_path / "every.csv").write_text("\n".join(every))
    with pytest.raises(DataError, match=r"are slices of one series, which is a volume, and have different labels"):
        import_images(ImportSettings(tmp_path / "every.csv", "odd", resolution=12, frames="volume"))


@pytest.mark.slow
def test_from_a_folder_of_scans_to_a_prediction_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scans(tmp_path / "ct", 24)
    assert main(["init", "ct"]) == 2
    assert "folders of DICOM series in folders of classes are volumes: add --frames volume" in capsys.readouterr().err
    assert main(["init", "ct", "--frames", "volume", "--resolution", "16", "--minutes", "1"]) == 0
    quick = ["--trainer.max_epochs", "1", "--evaluation.report", "false", "--evaluation.figures", "false"]
    assert main(["fit", "--config", "ct.yaml", *quick]) == 0
    command = ["predict", "--run", "latest", "--images", "ct/sick", "ct/well/scan0/IM003.dcm", "--out", "p.csv"]
    assert main(command) == 0
    rows = pd.read_csv("p.csv")
    assert rows["path"].tolist()[-1] == "ct/well/scan0/IM003.dcm"
    assert len(rows) == 13
    assert len(vf.embed("latest", "ct/sick/scan1").features) == 1
    assert main(["explain", "--run", "latest", "--images", "ct/sick/scan1", "--out", "maps"]) == 0
    assert len(list((tmp_path / "maps").glob("*.png"))) == 1


def test_a_pipe_that_a_table_names_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    rows = [f"pipe.dcm,{label}" for label in ("a",)]
    for number in range(24):
        saved(tmp_path / f"{number}.dcm", scan(number)[0], PatientID=f"P{number // 2}", **CT)
        rows.append(f"{number}.dcm,{'ab'[number % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    report = import_images(ImportSettings(tmp_path / "t.csv", "t", resolution=12))
    assert [(path.name, reason) for path, reason in report.broken] == [("pipe.dcm", "is no file")]


DISCS = FILES / "dicomdirtests"  # of pydicom: real scanners', in files without a suffix


def test_a_real_ct_is_in_the_order_of_its_positions():
    folder = DISCS / "98892001" / "CT5N"
    headers = [pydicom.dcmread(path) for path in folder.iterdir()]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    found = series_of(next(folder.iterdir()))
    assert [path.name for path in found.paths] == [Path(header.filename).name for header in headers]
    assert found.apart == 2.5
    assert read_frames(found.paths[0], 16).shape == (16, 16, 16)


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("77654033/CT2", "slices seem to be missing, between 17106 and 17136"),  # number 18, and then 180
        ("98892003/MR700", "not parallel"),  # around an axis
    ],
)
def test_real_series_that_are_no_volume_are_told(folder, told):
    with pytest.raises(PictureError, match=told):
        read_frames(next((DISCS / folder).iterdir()), 16)
