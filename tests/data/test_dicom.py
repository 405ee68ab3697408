"""DICOM files: pydicom's own, and some that are made here, against pydicom's functions and plain formulas."""

import copy
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_windowing, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from visionforge.data import dicom, pictures
from visionforge.data.dicom import DicomFile, is_dicom
from visionforge.data.dicom_header import read_header
from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.info import TaskSpec
from visionforge.data.intensity import Window
from visionforge.data.picture_sources import list_pictures
from visionforge.data.pictures import PictureError, decoded_bytes, deep_range, picture_size, read_picture, read_whole
from visionforge.data.stream import picture_batches
from visionforge.data.volume_files import read_volume
from visionforge.errors import DataError, SettingsError

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def saved(path: Path, values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **facts: object) -> Path:
    """Write values (H, W), (F, H, W) or (H, W, 3) as a DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.set_original_encoding(False, syntax != ExplicitVRBigEndian)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName = "Somebody^Real"
    colours = values.ndim == 3 and values.shape[-1] == 3
    frames = values.shape[0] if values.ndim == 3 and not colours else 1
    made.Rows, made.Columns = values.shape[:2] if colours else values.shape[-2:]
    if frames > 1:
        made.NumberOfFrames = frames
    made.SamplesPerPixel = 3 if colours else 1
    made.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        made.PlanarConfiguration = 0
    bits = 8 * values.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    for name, value in facts.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


@contextmanager
def opened(path: Path) -> Iterator[DicomFile]:
    with path.open("rb") as file:
        yield DicomFile(read_header(file, 1 << 24), file)


def hounsfield(size: int = 32) -> np.ndarray:
    """Return stored values of a CT with an intercept of -1024: a gradient with metal in a corner."""
    values = np.linspace(0, 2048, size * size).reshape(size, size).astype(np.int16)
    values[0, 0] = 4095
    return values


CT = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}


@pytest.mark.parametrize("name", ["CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "693_J2KI"])
def test_values_and_windows_are_those_that_pydicom_finds(name):
    path = FILES / f"{name}.dcm"
    header = pydicom.dcmread(path)
    stored = pixel_array(path)
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    values = stored * slope + intercept
    with opened(path) as found:
        picture, presentation = found.picture(0)
    inside = stored != header.get("PixelPaddingValue")
    assert np.array_equal(np.asarray(picture)[inside], values[inside])
    if "WindowWidth" in header:
        windowed = apply_windowing(values, header)
        lowest, highest = windowed.min(), windowed.max()
        whole = -(2**15) if header.PixelRepresentation else 0
        depth = 2 ** int(header.BitsStored)
        low = (whole and -depth / 2) * slope + intercept
        expected = (windowed - low) / ((depth - 1) * slope) * 255
        assert lowest >= low
        assert highest <= low + depth * slope
        np.testing.assert_allclose(presentation.show(values), expected, atol=1e-4)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500), (0.5, 1), (127.5, 256)])
def test_a_window_is_that_of_the_standard(function, centre, width):
    values = np.linspace(-2000, 2000, 4001)
    header = Dataset()
    header.update({"WindowCenter": str(centre), "WindowWidth": str(width), "VOILUTFunction": function})
    header.PhotometricInterpretation, header.PixelRepresentation, header.BitsStored = "MONOCHROME2", 0, 8
    if function == "LINEAR" and width == 1:  # where pydicom divides by zero
        assert Window(centre, width, function)(values).tolist() == [255.0 * (value > centre - 0.5) for value in values]
        return
    np.testing.assert_allclose(Window(centre, width, function)(values), apply_windowing(values, header), atol=1e-9)


def test_a_range_beats_the_files_window_and_monochrome1_is_turned_round(tmp_path):
    windowed = saved(tmp_path / "a.dcm", hounsfield(), **CT, WindowCenter="40", WindowWidth="400")
    units = hounsfield().astype(float) - 1024
    by_window = np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255
    by_range = np.clip((units + 1000) / 1400, 0, 1) * 255
    assert np.array_equal(read_picture(windowed, 32), np.rint(by_window).astype(np.uint8))
    assert np.array_equal(read_picture(windowed, 32, intensity=(-1000, 400)), np.rint(by_range).astype(np.uint8))
    assert np.array_equal(
        read_whole(windowed, None, intensity=(-1000, 400))[0], read_picture(windowed, 32, "pad", (-1000, 400))
    )
    facts = {**CT, "WindowCenter": "40", "WindowWidth": "400", "PhotometricInterpretation": "MONOCHROME1"}
    inverted = saved(tmp_path / "b.dcm", hounsfield(), **facts)
    assert np.abs(read_picture(inverted, 32).astype(int) - (255 - read_picture(windowed, 32).astype(int))).max() <= 1
    assert read_picture(inverted, 32, intensity=(-1000, 400))[0, 0] == 0  # metal is black


@pytest.mark.parametrize(("bits", "largest"), [(12, 3000), (16, 40_000), (10, 1023)])
def test_without_a_window_the_depth_decides_as_of_other_pictures(tmp_path, bits, largest):
    values = np.linspace(0, largest, 256).reshape(16, 16).astype(np.uint16)
    deep = saved(tmp_path / "a.dcm", values, BitsStored=bits, HighBit=bits - 1)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(deep, 16), read_picture(tmp_path / "a.png", 16))
    assert read_picture(deep, 16).max() == round(largest / ((1 << bits) - 1) * 255)


def test_padding_does_not_take_the_contrast(tmp_path):
    values = hounsfield()
    values[:, :4] = -32768
    without = read_picture(saved(tmp_path / "a.dcm", values, **CT), 32)
    said = read_picture(saved(tmp_path / "b.dcm", values, **CT, PixelPaddingValue=-32768), 32)
    assert len(np.unique(said)) > 4 * len(np.unique(without))
    assert said[:, :4].max() == said.min()


def test_tables_of_modality_and_of_presentation(tmp_path):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    modality, shown = Dataset(), Dataset()
    modality.LUTDescriptor, modality.LUTData, modality.ModalityLUTType = (
        [16, 0, 16],
        np.arange(100, 1700, 100, "<u2").tobytes(),
        "US",
    )
    shown.LUTDescriptor, shown.LUTData = (
        [1601, 100, 12],
        np.array([int(4095 * (i / 1600) ** 2) for i in range(1601)], "<u2").tobytes(),
    )
    path = saved(tmp_path / "a.dcm", values, ModalityLUTSequence=[modality], VOILUTSequence=[shown])
    with opened(path) as found:
        picture, presentation = found.picture(0)
    assert np.array_equal(np.asarray(picture), 100 * (values.astype(int) + 1))
    expected = np.floor(4095 * (values / 16) ** 2) / 4095 * 255
    np.testing.assert_allclose(presentation.show(np.asarray(picture)), expected, atol=1e-9)


def test_colours_palettes_and_several_frames(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    assert np.array_equal(read_picture(saved(tmp_path / "a.dcm", colours), 12), colours)
    assert read_picture(FILES / "examples_palette.dcm", 64).shape == (64, 64, 3)
    assert np.array_equal(  # YCbCr of which colours have half the columns
        read_picture(FILES / "SC_ybr_full_422_uncompressed.dcm", 100),
        pixel_array(FILES / "SC_ybr_full_422_uncompressed.dcm"),
    )
    frames = np.stack([np.full((8, 8), 50 * k, np.uint8) for k in range(5)])
    assert read_picture(saved(tmp_path / "b.dcm", frames), 8).max() == 100  # the middle one
    two = FILES / "SC_rgb_rle_2frame.dcm"
    assert np.array_equal(read_picture(two, 100), pixel_array(two, index=1))


def test_facts_of_a_frame_come_before_those_of_all(tmp_path):
    def group(centre: int | None = None, slope: str | None = None) -> Dataset:
        made = Dataset()
        if centre is not None:
            window = Dataset()
            window.WindowCenter, window.WindowWidth, window.VOILUTFunction = str(centre), "100", "LINEAR_EXACT"
            made.FrameVOILUTSequence = [window]
        if slope is not None:
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, "0", "US"
            made.PixelValueTransformationSequence = [values]
        return made

    frames = np.full((3, 8, 8), 100, np.uint16)
    path = saved(
        tmp_path / "a.dcm",
        frames,
        SharedFunctionalGroupsSequence=[group(slope="2")],
        PerFrameFunctionalGroupsSequence=[group(200), group(225), group(250)],
    )
    with opened(path) as found:
        shown = [(picture := found.picture(k))[1].show(np.asarray(picture[0]))[0, 0] for k in range(3)]
    assert shown == [127.5, 63.75, 0.0]


def test_files_without_a_suffix_are_known_by_their_first_bytes(tmp_path):
    named = saved(tmp_path / "IM000001", hounsfield(), **CT)
    numbered = saved(tmp_path / "1.2.840.99", hounsfield(), **CT)
    (tmp_path / "README").write_text("not")
    assert is_dicom(named)
    assert is_dicom(numbered)
    assert not is_dicom(tmp_path / "README")
    assert not is_dicom(tmp_path)
    assert [len(listed) for listed in list_pictures([tmp_path])] == [2]


def test_content_in_memory_is_read_as_its_file(tmp_path):
    path = saved(tmp_path / "a.dcm", hounsfield(), **CT, WindowCenter="40", WindowWidth="400")
    assert np.array_equal(read_picture(io.BytesIO(path.read_bytes()), 32), read_picture(path, 32))
    with pytest.raises(PictureError, match="pixels, more than 1,000"):
        read_picture(io.BytesIO(path.read_bytes()), 32, max_pixels=1000)
    frames = saved(tmp_path / "b.dcm", np.arange(8 * 64, dtype=np.uint16).reshape(8, 8, 8))
    content = io.BytesIO(frames.read_bytes())
    assert np.array_equal(read_volume(Path("b.dcm"), 8, content=content), read_volume(frames, 8))
    content.seek(0)
    with pytest.raises(PictureError, match="voxels, more than 100"):
        read_volume(Path("upload"), 8, content=content, max_voxels=100)


def test_a_size_is_told_without_decoding(monkeypatch):
    monkeypatch.setattr(dicom.DicomFile, "_decoded", None)
    assert picture_size(FILES / "CT_small.dcm") == (128, 128)
    assert decoded_bytes(FILES / "CT_small.dcm") == 65536
    assert decoded_bytes(FILES / "rtplan.dcm") == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("image_dfl.dcm", "compressed as a whole"),
        ("liver_1frame.dcm", "1 bits a value"),
        ("rtplan.dcm", "holds no picture"),
        ("no_meta.dcm", "is no DICOM file"),
        ("MR_truncated.dcm", "cannot be decoded"),
        ("SC_rgb_jpeg_gdcm.dcm", "the package python-gdcm decodes more kinds"),
        ("badVR.dcm", "has no number as NumberOfFrames"),
    ],
)
def test_what_is_not_read_is_told_in_a_line(name, reason, recwarn):
    if name == "SC_rgb_jpeg_gdcm.dcm" and "gdcm" in sys.modules:
        pytest.skip("its decoder is installed")
    with pytest.raises(PictureError, match=reason) as caught:
        read_picture(FILES / name, 32)
    assert "\n" not in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, "pixels, more than"),
        ({"NumberOfFrames": 100_000}, "frames, more than"),
        ({"NumberOfFrames": "0"}, "has 0 as NumberOfFrames"),
        ({"Rows": 0}, "has 0 as Rows"),
        ({"Rows": 4, "Columns": 4000}, "cannot be decoded|longer than"),
        ({"WindowCenter": "1", "WindowWidth": "nan"}, "has nan where a number has to be"),
        ({"RescaleSlope": "1e400"}, "has inf where a number has to be"),
        ({"PhotometricInterpretation": "HSV"}, "of the kind 'HSV' with 1 values, which is not read"),
        ({"BitsAllocated": 64}, "64 bits a value"),
    ],
)
def test_hostile_headers_are_refused_before_pixels_are_read(tmp_path, facts, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(saved(tmp_path / "a.dcm", hounsfield(), **{**CT, "VOILUTFunction": "LINEAR", **facts}), 32)


def test_run_lengths_that_unpack_to_too_much_are_not_unpacked(tmp_path):
    made = pydicom.dcmread(saved(tmp_path / "a.dcm", np.zeros((64, 64), np.uint8)))
    made.compress(RLELossless)
    made.save_as(tmp_path / "good.dcm")
    assert read_picture(tmp_path / "good.dcm", 64).max() == 0
    header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    for number, (runs, line) in enumerate(
        [
            (b"\x81\x00" * 500_000, "has run lengths of more bytes than its pixels"),
            (b"\x81\x00" * 2000, "unpack to more than its pixels"),  # 256,000 of 4,096
            (b"\x80" * 4000, "its run lengths say nothing"),
        ]
    ):
        bomb = copy.deepcopy(made)
        bomb.PixelData = pydicom.encaps.encapsulate([header + runs])
        bomb.save_as(tmp_path / f"{number}.dcm")
        with pytest.raises(PictureError, match=line):
            read_picture(tmp_path / f"{number}.dcm", 64)


def test_a_picture_inside_of_another_size_is_not_decoded(tmp_path, monkeypatch):
    """The header says 8×8, so a JPEG of 3,000×3,000 is not unpacked to be compared."""
    inside = io.BytesIO()
    Image.new("L", (3000, 3000)).save(inside, "JPEG")
    made = pydicom.dcmread(saved(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8)))
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = pydicom.encaps.encapsulate([inside.getvalue()])
    made.save_as(tmp_path / "b.dcm")
    monkeypatch.setattr(dicom.DicomFile, "_decoded", None)
    with pytest.raises(PictureError, match="of another size than its header says"):
        read_picture(tmp_path / "b.dcm", 8)


def test_a_header_of_many_elements_is_not_read_to_its_end(tmp_path):
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    whole = saved(tmp_path / "a.dcm", hounsfield(), **CT).read_bytes()
    at = whole.index(b"\x28\x00\x02\x00US")  # in front of SamplesPerPixel
    sequence = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + item * 200_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    (tmp_path / "b.dcm").write_bytes(whole[:at] + sequence + whole[at:])
    with pytest.raises(PictureError, match="has a header of more than 50,000 elements"):
        read_picture(tmp_path / "b.dcm", 32)


def test_values_that_begin_above_the_lowest_bit_are_refused(tmp_path):
    with pytest.raises(PictureError, match="values of 12 bits that do not begin with the lowest"):
        read_picture(saved(tmp_path / "a.dcm", hounsfield() << 4, BitsStored=12, HighBit=15), 32)


@pytest.mark.parametrize("inverted", [False, True])
def test_padding_is_black_whatever_the_slope(tmp_path, inverted):
    values = hounsfield()
    values[:, :4] = -32768
    values[:, 4:6] = -32000
    facts = {
        "RescaleSlope": "-2",
        "RescaleIntercept": "10",
        "PixelPaddingValue": -32768,
        "PixelPaddingRangeLimit": -32000,
    }
    facts |= {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    said = read_picture(saved(tmp_path / "a.dcm", values, **facts), 32)
    assert said[:, :6].max() == 0
    assert said[:, 6:].min() == 0
    assert said[:, 6:].max() == 255
    alone = np.full((8, 8), -32768, np.int16)
    assert read_picture(saved(tmp_path / "b.dcm", alone, **facts), 8).max() == 0


def test_padding_of_a_volume_is_the_least_of_all_its_slices(tmp_path):
    volume = np.linspace(0, 1000, 16**3).reshape(16, 16, 16).astype(np.int16)
    padded = volume.copy()
    padded[0], padded[-1] = -32768, -32768
    said = read_volume(saved(tmp_path / "a.dcm", padded, **CT, PixelPaddingValue=-32768), 16, (-1024, 0))
    plain = read_volume(saved(tmp_path / "b.dcm", volume, **CT), 16, (-1024, 0))
    assert np.array_equal(said[1:-1], plain[1:-1])
    assert set(np.unique(said[0])) == set(np.unique(said[-1])) == {round((volume[1].min()) / 1024 * 255)}


def test_distances_between_frames_are_those_of_their_positions(tmp_path):
    volume = np.zeros((16, 16, 16), np.int16)
    volume[6:10] = 500
    facts = {**CT, "PixelSpacing": ["1", "1"], "SliceThickness": "5"}
    thick = read_volume(saved(tmp_path / "a.dcm", volume, **facts), 16)
    told = read_volume(
        saved(tmp_path / "b.dcm", volume, **facts, GridFrameOffsetVector=[str(k) for k in range(16)]), 16
    )
    assert (told.max(axis=(1, 2)) > 127).tolist() == [6 <= k < 10 for k in range(16)]
    assert not np.array_equal(thick, told)

    def placed(z: float) -> Dataset:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = ["0", "0", str(z)]
        group.PlanePositionSequence = [place]
        return group

    by_place = saved(
        tmp_path / "c.dcm", volume, **facts, PerFrameFunctionalGroupsSequence=[placed(-k) for k in range(16)]
    )
    assert np.array_equal(read_volume(by_place, 16), told)


def test_eight_bits_without_units_are_as_they_are(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = saved(tmp_path / "a.dcm", values)
    assert np.array_equal(read_picture(plain, 16, intensity=(-1000, 400)), values)
    inverted = saved(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_picture(inverted, 16), 255 - values)
    assert deep_range(plain) is None


def test_large_integers_keep_their_levels(tmp_path):
    values = (2**30 + np.arange(256, dtype=np.uint32)).reshape(16, 16)
    path = saved(tmp_path / "a.dcm", values)
    assert np.array_equal(read_picture(path, 16, intensity=(2**30, 2**30 + 255)).ravel(), np.arange(256))
    small = np.linspace(0, 3000, 256).reshape(16, 16)
    wide, narrow = (saved(tmp_path / f"{kind}.dcm", small.astype(kind)) for kind in ("uint32", "uint16"))
    assert np.array_equal(read_picture(wide, 16), read_picture(narrow, 16))


@pytest.mark.parametrize("order", ["<", ">"])
def test_tables_of_bytes_and_of_words_in_either_order(tmp_path, order):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    for bits, kind in ((8, "u1"), (12, f"{order}u2")):
        shown = Dataset()
        entries = np.linspace(0, (1 << bits) - 1, 16).astype(kind)
        shown.LUTDescriptor, shown.LUTData = [16, 0, bits], entries.tobytes()
        syntax = ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian
        path = saved(tmp_path / "a.dcm", values, syntax, VOILUTSequence=[shown])
        expected = np.rint(entries.astype(float) / ((1 << bits) - 1) * 255)
        assert np.array_equal(read_picture(path, 4).ravel(), expected), bits


def test_a_palette_of_eight_bits_in_words(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    entries = np.arange(256, dtype="<u2").tobytes()
    facts = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        facts |= {
            f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 8],
            f"{colour}PaletteColorLookupTableData": entries,
        }
    said = read_picture(saved(tmp_path / "a.dcm", values, **facts), 16)
    assert np.array_equal(said, np.repeat(values[..., None], 3, axis=2))


def test_an_index_of_a_medium_is_no_picture():
    folder = FILES / "dicomdirtests"
    assert not is_dicom(folder / "DICOMDIR")
    assert is_dicom(next(path for path in (folder / "77654033").rglob("*") if path.is_file()))


# --- importing, and what is said of pictures later


@pytest.fixture
def studies(tmp_path, monkeypatch) -> Path:
    """Return a folder of two classes of CT slices: lungs of one kind are brighter."""
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    folder = tmp_path / "ct"
    rng = np.random.default_rng(0)
    for label, level in (("empty", 200), ("full", 1100)):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            saved(folder / label / f"{number}.dcm", (level + rng.integers(0, 200, (20, 20))).astype(np.int16), **CT)
    return folder


def test_a_range_is_stored_and_used_for_every_later_picture(studies):
    report = import_images(ImportSettings(studies, "ct", resolution=20, intensity=(-1000.0, 400.0)))
    assert report.info.intensity == (-1000, 400)
    spec = TaskSpec.of(report.info, 20, force_rgb=False)
    assert TaskSpec.model_validate_json(spec.model_dump_json()).intensity == (-1000, 400)
    path = studies / "full" / "0.dcm"
    listed = list_pictures([path])
    (batch,) = picture_batches(listed, 20, 1, 4, 1, 2, spec.fit, spec.intensity)
    with np.load(report.archive) as archive:
        stored = np.concatenate([archive[f"{split}_images"] for split in ("train", "val", "test")])
    assert any(np.array_equal(batch.images[0, 0].numpy(), image) for image in stored)
    (other,) = picture_batches(listed, 20, 1, 4, 1)
    assert not np.array_equal(batch.images[0, 0].numpy(), other.images[0, 0].numpy())


def test_without_one_the_range_of_all_is_found_and_told(studies):
    report = import_images(ImportSettings(studies, "ct", resolution=20))
    low, high = report.info.intensity
    assert -824 <= low < -800
    assert 260 < high <= 276
    assert any("24 pictures have more than 8 bits" in note for note in report.notes)


def test_what_cannot_be_read_takes_the_range_from_nobody(studies):
    (studies / "full" / "broken.dcm").write_bytes(b"x" * 300)
    saved(studies / "full" / "colours.dcm", np.zeros((20, 20, 3), np.uint8))
    report = import_images(ImportSettings(studies, "ct", resolution=20))
    assert report.info.intensity is not None
    assert len(report.broken) == 1


def test_windows_of_files_are_kept_and_told(studies):
    saved(studies / "full" / "x.dcm", hounsfield(20), **CT, WindowCenter="0", WindowWidth="100")
    report = import_images(ImportSettings(studies, "ct", resolution=20))
    assert report.info.intensity is None
    assert any("25 DICOM files are shown by their own windows" in note for note in report.notes)


def test_sixteen_bit_pictures_of_a_series_share_their_range(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    for label, level in (("dim", 1000), ("bright", 4500)):  # of 12 bits by itself, and of 14
        (tmp_path / "p" / label).mkdir(parents=True)
        for number in range(12):
            values = np.full((16, 16), level + number, np.uint16)
            Image.fromarray(values).save(tmp_path / "p" / label / f"{number}.{'png' if number % 2 else 'tif'}")
    report = import_images(ImportSettings(tmp_path / "p", "deep", resolution=16))
    assert report.info.intensity == (0, 16383)
    with np.load(report.archive) as archive:
        levels = {int(image.mean()) for image in archive["train_images"]}
    assert levels <= {16, 70}  # one scale: 1,000 of 16,383 and 4,500 of it
    (again,) = picture_batches(list_pictures([tmp_path / "p" / "dim" / "1.png"]), 16, 1, 4, 1, 2, "crop", (0, 16383))
    assert int(again.images.float().mean()) == 16
    chosen = import_images(ImportSettings(tmp_path / "p", "deep", 16, intensity=(1000.0, 4600.0), replace=True))
    with np.load(chosen.archive) as archive:
        assert {int(image.mean()) for image in archive["train_images"]} <= {0, 1, 248, 249}


def test_all_frames_of_a_file_are_a_volume_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    for label, where in (("front", slice(0, 8)), ("back", slice(8, 16))):
        (tmp_path / "v" / label).mkdir(parents=True)
        for number in range(12):
            volume = np.zeros((16, 16, 16), np.int16)
            volume[where] = 500 + number
            saved(tmp_path / "v" / label / f"{number}.dcm", volume, **CT)
    report = import_images(ImportSettings(tmp_path / "v", "cubes", resolution=16, frames="volume"))
    assert report.info.spatial_dims == 3
    path = tmp_path / "v" / "front" / "0.dcm"
    volume = read_volume(path, 16)
    assert volume.shape == (16, 16, 16)
    assert volume[:8].min() == 255
    assert volume[8:].max() == 0
    assert read_volume(path, 16, (-1024, 1024))[0, 0, 0] == round(500 / 2048 * 255)
    assert read_volume(path, 8).shape == (8, 8, 8)
    flat = saved(tmp_path / "flat.dcm", np.arange(16 * 16, dtype=np.uint8).reshape(16, 16))
    with pytest.raises(PictureError, match="has one frame"):
        read_volume(flat, 16)
    wide = saved(
        tmp_path / "wide.dcm", np.zeros((4, 16, 16), np.uint8), PixelSpacing=["1", "1"], SpacingBetweenSlices="1000"
    )
    with pytest.raises(PictureError, match="longer along one axis"):
        read_volume(wide, 16)


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"intensity": (400.0, -1000.0)}, SettingsError, "intensity: 400 -1000 is not allowed"),
        ({"intensity": (0.0, float("nan"))}, SettingsError, "intensity: 0 nan is not allowed"),
        ({"frames": "volume"}, DataError, "none of its 24 pictures can be read"),
    ],
)
def test_mistakes_are_told_in_a_line(studies, changes, error, line):
    with pytest.raises(error, match=line):
        import_images(ImportSettings(studies, "ct", resolution=20, **changes))


def test_frames_are_for_dicom_files(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / label / "1.png")
    with pytest.raises(SettingsError, match="frames: volume is for DICOM files"):
        import_images(ImportSettings(tmp_path, "ct", frames="volume"))


def test_a_missing_package_is_told_before_anything_is_read(studies, monkeypatch):
    monkeypatch.setattr(dicom, "has_pydicom", lambda: False)
    monkeypatch.setattr(pictures, "read_picture", None)
    with pytest.raises(DataError, match=r"needs the package pydicom: pip install .*\[dicom\]"):
        import_images(ImportSettings(studies, "ct"))
    with pytest.raises(DataError, match="needs the package pydicom"):
        list_pictures([studies])


def test_settings_that_would_change_nothing_are_refused_or_told(studies, tmp_path):
    Image.new("L", (20, 20)).save(studies / "full" / "p.png")
    for path in studies.rglob("*.dcm"):
        path.unlink()
    for label in ("empty", "full"):
        for number in range(12):
            Image.new("L", (20, 20), number).save(studies / label / f"{number}.png")
    report = import_images(ImportSettings(studies, "plain", resolution=20, intensity=(0.0, 9.0)))
    assert "`intensity` changes nothing: all pictures have 8 bits" in report.notes
    table = tmp_path / "corrections.csv"
    table.write_text("split,index,corrected\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="intensity: is that of plain, whose labels are corrected"):
        import_images(ImportSettings(Path("plain"), "other", corrections=table, intensity=(0.0, 9.0)))
    (tmp_path / "m" / "images").mkdir(parents=True)
    (tmp_path / "m" / "masks").mkdir()
    for number in range(3):
        saved(tmp_path / "m" / "images" / f"{number}.dcm", hounsfield(), **CT)
        Image.new("L", (32, 32), 1).save(tmp_path / "m" / "masks" / f"{number}.png")
    with pytest.raises(SettingsError, match="frames: volume is for classes and labels"):
        import_images(ImportSettings(tmp_path / "m", "masks", frames="volume"))


# --- patients


def of_patients(folder: Path, each: int, **facts: str) -> Path:
    """Write a folder of two classes, each patient with several files of both."""
    for label, level in (("empty", 200), ("full", 1100)):
        (folder / label).mkdir(parents=True)
        for number in range(30):
            told = {name: value.format(number // each) for name, value in facts.items()}
            values = (level + np.random.default_rng(number).integers(0, 200, (20, 20))).astype(np.int16)
            saved(folder / label / f"{number}.dcm", values, **{**CT, **told})
    return folder


def stored_groups(archive: Path) -> dict[str, set[str]]:
    with np.load(archive) as file:
        return {split: set(file[f"{split}_groups"].tolist()) for split in ("train", "val", "test")}


@pytest.fixture
def catalog(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"PatientID": "secret-{}"}, "patient"),
        ({"PatientID": "ANON", "StudyInstanceUID": "1.2.{}"}, "study"),
        ({"StudyInstanceUID": "1.2.{}"}, "study"),
    ],
)
def test_files_of_a_patient_stay_in_one_split_and_nobody_is_named(tmp_path, facts, kind):
    report = import_images(ImportSettings(of_patients(tmp_path / "ct", 3, **facts), "ct"))
    groups = stored_groups(report.archive)
    everybody = set().union(*groups.values())
    assert everybody == {f"{kind} {number}" for number in range(1, 11)}
    assert sum(map(len, groups.values())) == len(everybody)
    (told,) = [note for note in report.notes if "headers" in note]
    assert told.startswith(f"60 files of 10 {'patients' if kind == 'patient' else 'studies'}, as their headers say")
    assert b"secret" not in report.archive.read_bytes()
    plain = import_images(ImportSettings(tmp_path / "ct", "plain", no_groups=True))
    with np.load(plain.archive) as file:
        assert "train_groups" not in file.files


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize("facts", [{}, {"PatientID": "one"}, {"PatientID": "only", "StudyInstanceUID": "1.2"}])
def test_headers_that_tell_nobody_apart_make_no_groups(tmp_path, facts):
    report = import_images(ImportSettings(of_patients(tmp_path / "ct", 3, **facts), "ct"))
    with np.load(report.archive) as file:
        assert "train_groups" not in file.files
    assert not [note for note in report.notes if "headers" in note]


@pytest.mark.usefixtures("catalog")
def test_files_that_say_nothing_are_by_themselves(tmp_path):
    folder = of_patients(tmp_path / "ct", 3, PatientID="p{}")
    for number in range(3):  # of the first patient, in one class
        saved(folder / "full" / f"{number}.dcm", np.full((20, 20), 900 + number, np.int16), **CT)
    report = import_images(ImportSettings(folder, "ct"))
    assert len(set().union(*stored_groups(report.archive).values())) == 10 + 3


@pytest.mark.usefixtures("catalog")
def test_patients_who_are_too_few_or_in_several_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"60 files are of 2 patients, .* 3 splits; `no_groups` divides"):
        import_images(ImportSettings(of_patients(tmp_path / "few", 15, PatientID="p{}"), "few"))
    for split in ("train", "test"):
        of_patients(tmp_path / "given" / split, 3, PatientID="p{}")
    with pytest.raises(DataError, match=r"10 of 10 patients, .* lie in several splits, .*train/empty/0.dcm and test/"):
        import_images(ImportSettings(tmp_path / "given", "given"))
    assert import_images(ImportSettings(tmp_path / "given", "given", no_groups=True)).info.splits.test == 60


def test_a_table_that_says_whose_a_file_is_comes_first(tmp_path, catalog):
    folder = of_patients(tmp_path / "ct", 3, PatientID="p{}")
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name},ward{int(path.stem) % 5}" for path in folder.rglob("*.dcm")
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,ward", *rows]))
    report = import_images(ImportSettings(tmp_path / "list.csv", "ct", group_column="ward"))
    assert set().union(*stored_groups(report.archive).values()) == {f"ward{number}" for number in range(5)}
