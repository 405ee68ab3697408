"""Pictures with masks become a data set: values stay, masks stay on their pictures, what is wrong is told."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import real_data
from visionforge.cli.main import main
from visionforge.data.import_masks import mask_pixels
from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.info import SPLITS
from visionforge.data.mask_files import read_mask
from visionforge.data.pictures import PictureError, pad_square, read_picture, resize_mask, resize_square
from visionforge.data.registry import dataset_info
from visionforge.data.source import load_split
from visionforge.errors import DataError, SettingsError


def disc(size=(32, 24), centre=(12, 10), radius=6, value=1):
    """Return (H, W) uint8 with a disc of a value."""
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    return ((np.hypot(x - centre[0], y - centre[1]) <= radius) * value).astype(np.uint8)


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(path, **options)


@pytest.fixture
def source(tmp_path):
    """Twelve pictures of a bright disc, and their masks with the values 0 and 1."""
    for number in range(12):
        mask = disc(centre=(8 + number, 10))
        save(tmp_path / "cells" / "images" / f"{number}.jpg", mask * 200 + 10 + number, "RGB")
        save(tmp_path / "cells" / "masks" / f"{number}.png", mask)
    return tmp_path / "cells"


def imported(source, **changes):
    return import_images(ImportSettings(**{"source": source, "name": "cells", "resolution": 16, **changes}))


def refused(source, **changes):
    with pytest.raises((DataError, SettingsError)) as caught:
        imported(source, **changes)
    assert all(problem.isprintable() for problem in caught.value.problems)
    return "\n".join(caught.value.problems)


# --- what becomes a data set


def test_images_and_masks_become_a_data_set(source):
    report = imported(source)
    info = dataset_info("cells")
    assert info == report.info
    assert (info.task, info.classes, info.channels) == ("segmentation", ("background", "1"), 3)
    assert info.splits.model_dump() == {"train": 8, "val": 2, "test": 2}
    for split in SPLITS:
        part = load_split(info, 16, None, split)
        assert part.labels.shape == part.images.shape[:3]
        assert part.labels.dtype == np.uint8
        bright = part.images.mean(axis=-1) > 110
        assert (bright == (part.labels == 1)).mean() > 0.93  # each picture keeps its own mask


def test_splits_by_folders_are_kept(tmp_path, source):
    for number in range(12):
        split = ("training", "valid", "test")[number % 3]
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            target = tmp_path / "split" / split / kind / f"{number}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            (source / kind / f"{number}.{suffix}").rename(target)
    info = imported(tmp_path / "split").info
    assert info.splits.model_dump() == {"train": 4, "val": 4, "test": 4}


def test_a_folder_of_masks_elsewhere(tmp_path, source):
    (source / "masks").rename(tmp_path / "truth")
    (source / "images").rename(tmp_path / "photos")
    info = imported(tmp_path / "photos", masks=tmp_path / "truth", classes="ground, cell").info
    assert info.classes == ("ground", "cell")


def test_a_table_divides_pictures_with_masks_by_groups(tmp_path, source):
    rows = "".join(f"images/{number}.jpg,{number // 2}\n" for number in range(12))
    (source / "list.csv").write_text(f"path,patient\n{rows}")
    (source / "masks").rename(source / "truth")
    for number in range(12):
        (source / "truth" / "images").mkdir(exist_ok=True)
        (source / "truth" / f"{number}.png").rename(source / "truth" / "images" / f"{number}.png")
    info = imported(source / "list.csv", masks=source / "truth", group_column="patient").info
    from visionforge.data.side_table import read_side_table
    from visionforge.data.source import local_archive

    path = local_archive(info, 16, None)
    groups = [set(read_side_table(path, split, getattr(info.splits, split)).groups or ()) for split in SPLITS]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups)) == 6


def test_equal_seeds_divide_equally(source):
    first = imported(source).archive.read_bytes()
    assert imported(source, replace=True).archive.read_bytes() == first
    assert imported(source, replace=True, seed=1).archive.read_bytes() != first


def test_foreground_is_everything_above_0(source):
    for number in range(12):
        save(source / "masks" / f"{number}.png", disc(value=40 + number))
    info = imported(source, mask_values="foreground").info
    assert info.classes == ("background", "foreground")
    assert set(np.unique(load_split(info, 16, None, "train").labels)) == {0, 1}


def test_ignored_pixels_are_stored_as_255(source):
    for number in range(12):
        mask = disc()
        mask[:, :9] = 200
        save(source / "masks" / f"{number}.png", mask)
    assert "has the value 200; allowed: 0 to 1 (a, b); add `ignore` 200" in refused(source, classes="a,b")
    info = imported(source, ignore=200).info
    assert info.classes == ("background", "1")
    assert set(np.unique(load_split(info, 16, None, "train").labels)) == {0, 1, 255}


def test_padding_is_background_or_ignored(source):
    labels = load_split(imported(source, fit="pad").info, 16, None, "train").labels
    assert (labels[:, 12:] == 0).all()
    part = load_split(imported(source, fit="pad", ignore=255, replace=True).info, 16, None, "train")
    assert (part.labels[:, 12:] == 255).all()
    assert (part.images[:, 12:] == 0).all()
    assert (part.labels[:, :12] == 1).any()


def test_empty_masks_are_counted(source):
    save(source / "masks" / "3.png", np.zeros((24, 32), np.uint8))
    assert any("1 of 12 masks are empty" in note for note in imported(source).notes)
    for number in range(12):
        save(source / "masks" / f"{number}.png", np.zeros((24, 32), np.uint8))
    assert "all of its 12 masks are empty" in refused(source, replace=True)


def test_classes_that_a_split_lacks_are_told(source):
    mask = disc()
    mask[0:2, 12:14] = 2
    save(source / "masks" / "0.png", mask)
    assert any("has no pictures of 2" in note for note in imported(source).notes)


def test_broken_pictures_are_left_out_with_their_masks(source):
    (source / "images" / "5.jpg").write_bytes(b"no picture")
    report = imported(source)
    assert [path.name for path, _ in report.broken] == ["5.jpg"]
    assert report.info.images == 11


def test_the_real_nuclei():
    nuclei = real_data("nuclei")
    report = imported(nuclei, mask_values="foreground", resolution=64)
    assert report.info.splits.model_dump() == {"train": 120, "val": 30, "test": 40}
    labels = load_split(report.info, 64, None, "train").labels
    assert 0.05 < labels.mean() < 0.5
    assert "look like the numbers of objects; add `mask_values` foreground" in refused(nuclei, replace=True)


def test_the_command_imports_masks(source, capsys):
    flags = ["--name", "cells", "--resolution", "16", "--mask-values", "foreground", "--fit", "pad"]
    assert main(["datasets", "import", str(source), *flags]) == 0
    assert "cells: segmentation, 2 classes" in capsys.readouterr().out
    (source / "masks" / "0.png").unlink()
    assert main(["datasets", "import", str(source), *flags, "--replace"]) == 2
    assert "has no mask" in capsys.readouterr().err


def test_check_statistics_and_sheet_of_masks(source, capsys, tmp_path):
    save(source / "masks" / "0.png", np.zeros((24, 32), np.uint8))
    for number in range(12):
        mask = np.zeros((24, 32), np.uint8)
        mask[:, :16] = 0 if number == 0 else 1
        mask[:, 31] = 9
        save(source / "masks" / f"{number}.png", mask)
    assert main(["datasets", "import", str(source), "--name", "cells", "--ignore", "9", "--fit", "pad", "--json"]) == 0
    capsys.readouterr()
    assert main(["datasets", "check", "cells"]) == 0
    assert "✓ train data: 8 images, values 0 to 255" in capsys.readouterr().out
    assert main(["datasets", "stats", "cells", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ones = sum(found["pixels"][split][1] for split in SPLITS)
    zeros = sum(found["pixels"][split][0] for split in SPLITS)
    assert ones == 11 * 14 * 21  # half of the width of 11 pictures, at 28 pixels
    assert zeros == 11 * 13 * 21 + 27 * 21
    assert sum(found["ignored"].values()) == 12 * (28 * 28 - 27 * 21)
    assert sum(found["empty"].values()) == 1
    assert sum(found["classes"]["1"].values()) == 11
    assert main(["datasets", "stats", "cells"]) == 0
    shown = capsys.readouterr().out
    assert "train pixels" in shown
    assert "empty masks: " in shown
    assert main(["datasets", "info", "cells"]) == 0
    assert "scaled as a whole, filled with black" in capsys.readouterr().out
    assert main(["datasets", "show", "cells", "--output", str(tmp_path / "sheet.png")]) == 0
    colours = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(colours - [86, 180, 233]).max(axis=1) < 25).sum() > 500  # the border of class 1


# --- what is refused


def test_a_mask_of_another_size(source):
    save(source / "masks" / "4.png", disc((24, 32)))
    assert "4.png: has 24×32 pixels, its picture 32×24" in refused(source)


def test_missing_and_spare_masks(source):
    (source / "masks" / "4.png").rename(source / "masks" / "x.png")
    told = refused(source)
    assert "4.jpg: has no mask" in told
    assert "x.png: is a mask without a picture" in told


def test_two_masks_of_one_picture(source):
    save(source / "masks" / "4.bmp", disc())
    assert "is a mask of the same name" in refused(source)


def test_two_pictures_of_one_mask(source):
    save(source / "images" / "4.png", disc())
    assert "is a picture of the same name" in refused(source)


def test_lossy_masks(source):
    save(source / "masks" / "4.jpg", disc())
    (source / "masks" / "4.png").unlink()
    assert "4.jpg: is stored with loss" in refused(source)
    (source / "masks" / "4.jpg").rename(source / "masks" / "4.png")
    assert "4.png: is stored with loss" in refused(source)


def test_a_broken_mask(source):
    (source / "masks" / "4.png").write_bytes(b"no picture")
    assert "4.png: is no picture" in refused(source)


def test_many_problems_are_cut_off(source):
    for number in range(40):
        save(source / "images" / f"{number}.jpg", disc(), "RGB")
        save(source / "masks" / f"{number}.png", disc((24, 32)))
    assert len(refused(source).splitlines()) <= 22


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({0, 255}, "0, 255, but never 1, 2"),
        ({0, 1, 3}, "0, 1, 3, but never 2"),
        ({0, 40}, "look like the numbers of objects"),
    ],
)
def test_values_that_are_no_classes(source, values, told):
    for number in range(12):
        mask = disc()
        for column, value in enumerate(sorted(values)):
            mask[0, column] = value
        mask[mask == 1] = max(values)
        if 1 in values:
            mask[1, 1] = 1
        save(source / "masks" / f"{number}.png", mask)
    if values == {0, 255}:  # the value that often stands for pixels that count for nothing
        assert "has the value 255; allowed: 0 to 254; add `ignore` 255" in refused(source)
        assert "`mask_values` foreground" in refused(source)
    else:
        assert told in refused(source)
        assert "add `mask_values` foreground" in refused(source)


def test_few_numbered_objects_are_recognised(source):
    for number in range(12):
        mask = disc()
        mask[0, : number % 5 + 2] = np.arange(number % 5 + 2)
        save(source / "masks" / f"{number}.png", mask)
    assert "look like the numbers of objects" in refused(source)
    assert imported(source, classes="a,b,c,d,e,f").info.classes == tuple("abcdef")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ignore": 0}, "ignore: 0 is not allowed; allowed: 1 to 255"),
        ({"ignore": 256}, "ignore: 256 is not allowed"),
        ({"classes": "one"}, "classes: 1 names are not allowed"),
        ({"classes": "a,b,c", "mask_values": "foreground"}, "classes: 3 names are not allowed"),
        ({"positive": "1"}, "positive: is for binary"),
    ],
)
def test_settings_out_of_range(source, changes, told):
    assert told in refused(source, **changes)


@pytest.mark.parametrize("name", ["mask_values", "ignore", "classes"])
def test_settings_of_masks_are_for_masks(tmp_path, name):
    for label in ("a", "b"):
        save(tmp_path / "pics" / label / "1.png", disc())
    value = {"mask_values": "foreground", "ignore": 255, "classes": "a,b"}[name]
    assert refused(tmp_path / "pics", **{name: value}).startswith(f"{name}: is for masks")
    assert "segmentation needs `masks`" in refused(tmp_path / "pics", task="segmentation")
    assert "is no folder" in refused(tmp_path / "pics", masks=tmp_path / "none")


def test_splits_of_which_one_has_no_masks(tmp_path, source):
    (tmp_path / "split").mkdir()
    source.rename(tmp_path / "split" / "train")
    save(tmp_path / "split" / "val" / "images" / "1.png", disc())
    assert "val: holds no folders images and masks" in refused(tmp_path / "split")


# --- one mask


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_values_are_not_changed(tmp_path, suffix):
    values = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    save(tmp_path / f"m.{suffix}", values)
    np.testing.assert_array_equal(read_mask(tmp_path / f"m.{suffix}"), values)


def test_palettes_give_the_numbers_of_their_colours(tmp_path):
    values = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20) % 7
    picture = Image.fromarray(values)
    picture.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] * 20)
    for name in ("m.png", "m.tif", "m.bmp"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), values)


def test_bits_and_deep_values(tmp_path):
    mask = disc()
    Image.fromarray(mask * 255).convert("1").save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), mask)
    for name in ("deep.png", "deep.tif"):
        save(tmp_path / name, disc().astype(np.uint16) * 300)
        assert set(np.unique(read_mask(tmp_path / name))) == {0, 300}
    save(tmp_path / "float.tif", disc().astype(np.float32) * 2)
    assert set(np.unique(read_mask(tmp_path / "float.tif"))) == {0, 2}
    save(tmp_path / "grey.png", np.repeat(mask[..., None] * 5, 3, axis=-1))
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), mask * 5)


def png_of_bits(path, values, bits):
    """Write a grey PNG file with 2 or 4 bits a pixel, byte by byte: Pillow writes none."""
    import struct
    import zlib

    height, width = values.shape
    shifts = range(8 - bits, -1, -bits)
    rows = values.reshape(height, -1, 8 // bits)
    packed = sum(rows[..., k].astype(np.uint8) << shift for k, shift in enumerate(shifts)).astype(np.uint8)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_values_are_not_spread(tmp_path, bits):
    values = np.arange(8 * 16).reshape(8, 16) % (1 << bits)
    png_of_bits(tmp_path / "m.png", values, bits)
    assert np.asarray(Image.open(tmp_path / "m.png")).max() == 255  # what is undone
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values)


def test_masks_are_turned_as_their_file_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for dtype in (np.uint8, np.uint16):
        save(tmp_path / "m.png", disc().astype(dtype), exif=exif)
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.rot90(disc(), -1))


@pytest.mark.parametrize(
    ("array", "name", "told"),
    [
        (np.stack([disc(), disc() * 2, disc()], axis=-1), "m.png", "has colours"),
        (np.stack([disc(), disc(), disc(), disc() * 100], axis=-1), "m.png", "is transparent in places"),
        (disc().astype(np.float32) * 0.5, "m.tif", "no whole numbers"),
        (disc().astype(np.int32) * -1, "m.tif", "has values from -1 to 0"),
        (disc().astype(np.int32) * 70_000, "m.tif", "has values from 0 to 70000; allowed: 0 to 65,535"),
    ],
)
def test_pictures_that_are_no_masks(tmp_path, array, name, told):
    save(tmp_path / name, array)
    with pytest.raises(PictureError, match=told):
        read_mask(tmp_path / name)


def test_jpeg_within_tiff_is_lossy(tmp_path):
    save(tmp_path / "m.tif", disc(), compression="jpeg")
    with pytest.raises(PictureError, match="stored with loss"):
        read_mask(tmp_path / "m.tif")


def test_values_beyond_255_are_objects_only(source):
    for number in range(12):
        save(source / "masks" / f"{number}.png", disc().astype(np.uint16) * 300)
    assert "has the value 300; allowed: 0 to 254; add `mask_values` foreground" in refused(source)
    assert imported(source, mask_values="foreground").info.classes == ("background", "foreground")


# --- masks and pictures stay together


def centre_of(values):
    y, x = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
    return np.array([(x * values).sum(), (y * values).sum()]) / values.sum()


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (641, 479), (30, 40), (1000, 101), (1010, 101)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_mask_lies_on_its_picture(size, fit):
    centre = np.array(size) / 2 + np.array([0.07, -0.05]) * min(size)
    mask = disc(size, centre, min(size) / 4)
    resize = resize_square if fit == "crop" else pad_square
    picture = resize(Image.fromarray(mask * 255), 64)
    small = resize_mask(mask, 64, fit)
    assert small.shape == (64, 64)
    assert np.abs(centre_of(picture / 255) - centre_of(small)).max() < 0.5
    assert abs((picture / 255).sum() / small.sum() - 1) < (0.1 if min(size) > 200 or fit == "crop" else 0.2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_mask_lies_on_a_picture_that_is_turned(tmp_path, orientation, fit):
    upright = disc((51, 40), (20, 24), 9)
    picture = Image.fromarray(np.repeat(upright[..., None] * 255, 3, axis=-1))
    back = {6: 90, 8: 270, 3: 180}.get(orientation, 0)
    stored = picture.rotate(back, expand=True)
    if orientation in (2, 4, 5, 7):
        methods = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
        turns = (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)
        stored = picture.transpose({2: methods[0], 4: methods[1], 5: turns[0], 7: turns[1]}[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.png", exif=exif)
    from visionforge.data.pictures import read_annotated

    got, size = read_annotated(tmp_path / "p.png", 32, fit)
    assert size == (51, 40)
    assert np.abs(centre_of(got[..., 0] / 255) - centre_of(resize_mask(upright, 32, fit))).max() < 0.3


def test_padding_scales_both_sides_alike():
    """An independent reference: averages over the exact area of each pixel, of a ramp that both keep."""
    width, height, resolution = 333, 101, 64
    ramp = np.tile(np.linspace(0, 255, width, dtype=np.float32), (height, 1))
    got = pad_square(Image.fromarray(ramp), resolution)
    centres = (np.arange(resolution) + 0.5) * width / resolution - 0.5
    np.testing.assert_allclose(got[5, 3:-3], np.interp(centres, np.arange(width), ramp[0])[3:-3], atol=1.5)
    rows = height * resolution / width  # 19.4 rows of the picture, the last in part
    assert (got[20:] == 0).all()
    assert 0 < got[19, 40] < got[18, 40]
    assert rows == pytest.approx(19.41, abs=0.01)


def test_pictures_of_classes_can_be_padded(tmp_path):
    save(tmp_path / "p.png", np.full((20, 40, 3), 200, np.uint8))
    got = read_picture(tmp_path / "p.png", 16, "pad")
    assert (got[:8] == 200).all()
    assert (got[8:] == 0).all()
    assert (read_picture(tmp_path / "p.png", 16) == 200).all()
    for label in ("a", "b"):
        for number in range(6):
            save(tmp_path / "pics" / label / f"{number}.png", np.full((20, 40), 90 + number, np.uint8))
    images = load_split(imported(tmp_path / "pics", fit="pad").info, 16, None, "train").images
    assert (images[:, 8:] == 0).all()
    assert (images[:, :8] > 0).all()


def test_pixels_are_counted_by_class():
    masks = np.array([[[0, 1], [1, 255]], [[2, 2], [2, 2]]], np.uint8)
    assert mask_pixels(masks, 3).tolist() == [[1, 2, 0], [0, 0, 4]]


def test_new_pictures_are_padded_as_the_imported_ones_were(source):
    from visionforge.data.info import TaskSpec
    from visionforge.data.picture_sources import list_pictures
    from visionforge.data.stream import picture_batches

    assert imported(source).info.fit == "crop"
    info = imported(source, fit="pad", replace=True).info
    spec = TaskSpec.of(info, 16, False)
    assert info.fit == spec.fit == "pad"
    listed = list_pictures([source / "images"])
    (batch,) = picture_batches(listed, 16, 3, 20, 1, 2, spec.fit)
    stored = load_split(info, 16, None, "train").images.transpose(0, 3, 1, 2)
    assert {image.tobytes() for image in stored} <= {image.numpy().tobytes() for image in batch.images}
