"""Pictures of every depth, kind and shape become what a person would see, or are refused in a line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from visionforge.data.pictures import PictureError, read_picture, resize_square

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def saved(path, array):
    Image.fromarray(array).save(path)
    return read_picture(path, 64)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_unsigned_values_are_scaled_by_their_depth(tmp_path, bits, suffix):
    most = (1 << bits) - 1
    got = saved(tmp_path / f"x.{suffix}", np.rint(RAMP * most).astype(np.uint16))
    np.testing.assert_array_equal(got, np.rint(np.rint(RAMP * most) * (255 / most)))
    assert len(np.unique(got)) == 256
    darker = saved(tmp_path / f"y.{suffix}", np.rint(RAMP * most * 0.6).astype(np.uint16))
    assert abs(int(darker.max()) - 153) <= 1  # the series keeps one scale: the darker picture stays darker


@pytest.mark.parametrize("values", [RAMP * 4000 - 1000, RAMP * 10**6, RAMP * 1000 + 10**9])
def test_other_integers_are_scaled_from_their_range(tmp_path, values):
    got = saved(tmp_path / "x.tif", values.astype(np.int32))
    np.testing.assert_allclose(got, RAMP * 255, atol=1.2)
    assert len(np.unique(got)) == 256


def test_small_values_in_wide_integers_are_taken_as_they_are(tmp_path):
    values = np.rint(RAMP * 200).astype(np.int32)
    np.testing.assert_array_equal(saved(tmp_path / "x.tif", values), values)


def test_values_that_are_no_numbers_do_not_spoil_the_others(tmp_path):
    values = (RAMP * 3 - 1).astype(np.float32)
    whole = saved(tmp_path / "x.tif", values)
    values[0, :3] = np.nan, np.inf, -np.inf
    got = saved(tmp_path / "y.tif", values)
    assert got[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(got[1:], whole[1:], atol=1)
    assert saved(tmp_path / "z.tif", np.full((64, 64), 7, np.float32)).max() == 0  # nothing to be seen
    with pytest.raises(PictureError, match="no finite value"):
        saved(tmp_path / "n.tif", np.full((64, 64), np.nan, np.float32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_of_cameras_stand_upright(tmp_path, suffix, orientation):
    """Pillow's own `exif_transpose` is the reference."""
    array = np.zeros((48, 64, 3), np.uint8)
    array[:16, :16] = 250, 0, 0
    array[-16:, :16] = 0, 250, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(array).save(path, exif=exif, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    with Image.open(path) as picture:
        wanted = resize_square(ImageOps.exif_transpose(picture).convert("RGB"), 24)
    assert np.abs(read_picture(path, 24).astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "CMYK"])
def test_large_pictures_are_flattened_in_strips(tmp_path, mode):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (40, 40, 4)).astype(np.uint8), "RGBA").resize((1500, 1500))
    picture = small.convert("RGB").convert(mode) if mode in ("P", "CMYK") else small.convert(mode)
    picture.save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as read:
        layers = read.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
    wanted = resize_square(flat.convert("L" if mode == "LA" else "RGB"), 32)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.tif", 32), wanted)


def test_transparency_and_ink(tmp_path):
    for mode in ("LA", "RGBA", "PA"):
        Image.new("RGBA", (20, 20), (200, 200, 200, 0)).convert(mode).save(
            tmp_path / "x.png" if mode != "PA" else tmp_path / "x.tif"
        )
        assert read_picture(tmp_path / ("x.png" if mode != "PA" else "x.tif"), 20).max() == 0
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "ink.tif")
    assert read_picture(tmp_path / "ink.tif", 20)[0, 0].tolist() == [255, 0, 0]
    frames = [Image.new("I;16", (20, 20), value) for value in (0, 65535)]
    frames[1].save(tmp_path / "stack.tif", save_all=True, append_images=frames[:1])
    assert read_picture(tmp_path / "stack.tif", 20).min() == 255  # the first frame


@pytest.mark.parametrize("size", [(30, 900), (900, 30), (64, 520), (9, 900)])
def test_strips_are_scaled_as_if_the_rest_of_them_were_made(size):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 200, (size[1] // 4 + 1, size[0] // 4 + 1, 3)).astype(np.uint8))
    picture = coarse.resize(size, Image.Resampling.BILINEAR)
    got = resize_square(picture, 24)
    scale = 24 / min(size)
    whole = tuple(max(24, round(side * scale)) for side in size)
    left, top = ((side - 24) // 2 for side in whole)
    wanted = np.asarray(picture.resize(whole, Image.Resampling.BICUBIC).crop((left, top, left + 24, top + 24)))
    assert np.abs(got.astype(int) - wanted).max() <= 2


def test_of_deep_colour_the_upper_bits_are_read(tmp_path):
    """Pillow has no such mode and writes none, so the file is made by hand."""
    values = np.arange(20 * 20 * 3, dtype=np.uint16).reshape(20, 20, 3) * 50
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = [(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in data]
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 20), values >> 8)


def test_pictures_of_two_lenses_give_the_first(tmp_path):
    one, two = (Image.new("RGB", (20, 20), (level, 0, 0)) for level in (250, 10))
    one.save(tmp_path / "x.mpo", "MPO", save_all=True, append_images=[two])
    (tmp_path / "x.mpo").rename(tmp_path / "x.jpg")  # as phones name them
    assert read_picture(tmp_path / "x.jpg", 20)[0, 0, 0] > 240


def test_what_is_no_picture_for_us(tmp_path):
    (tmp_path / "folder.png").mkdir()
    Image.new("L", (1, 20_000)).save(tmp_path / "line.png")
    (tmp_path / "program.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n"
    )
    for name, complaint in (
        ("folder.png", "is no file"),
        ("line.png", "has 1×20000 pixels, longer than 100 times its width"),
        ("program.png", "is no picture"),  # Pillow would give it to Ghostscript
        ("nowhere.png", "cannot be read"),
    ):
        with pytest.raises(PictureError, match=complaint):
            read_picture(tmp_path / name, 28)


def tiff_directory(order: str, entries: list[tuple[int, int, int, int]]) -> bytes:
    body = b"".join(struct.pack(f"{order}HHLL", *entry) for entry in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}LH", 8, len(entries)) + body + struct.pack(f"{order}L", 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_that_all_point_to_the_same_bytes_are_refused(tmp_path, order):
    data = tiff_directory(order, [(1000 + k, 1, 50_000, 8) for k in range(3000)])
    (tmp_path / "x.tif").write_bytes(data + bytes(60_000))
    Image.new("L", (20, 20)).save(tmp_path / "x.jpg")
    plain = (tmp_path / "x.jpg").read_bytes()
    exif = b"Exif\0\0" + data
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "x.jpg").write_bytes(plain[:2] + segment + plain[2:])
    for name in ("x.tif", "x.jpg"):
        with pytest.raises(PictureError, match=r"its tags have 150,\d+,\d+ bytes"):
            read_picture(tmp_path / name, 16)
