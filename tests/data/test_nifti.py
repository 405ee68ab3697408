"""NIfTI files from scanners and from strangers: the cube that a network takes, or a line that says what is wrong."""

import gzip
import importlib.util
import io
import struct
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from scipy import ndimage

from tests.security.damage import damaged
from visionforge.data import nifti_header
from visionforge.data.nifti import read_nifti, triangle_weights
from visionforge.data.picture_sources import list_pictures
from visionforge.data.pictures import PictureError
from visionforge.data.stream import picture_batches
from visionforge.errors import DataError

nibabel = pytest.importorskip("nibabel")

SIDE = 12
RNG = np.random.default_rng(0)
LPS = np.diag([-1.0, -1, 1, 1])  # the first axis leads to the left, the second to the back
VOLUME = RNG.integers(0, 256, (SIDE,) * 3, dtype=np.uint8)  # (D, H, W)
# Bytes in a header of NIfTI-1
DIM, DATATYPE, OFFSET, SLOPE, CODES, QUATERNION, SFORM, MAGIC = (
    40,
    70,
    108,
    112,
    252,
    256,
    280,
    344,
)


def saved(path, array, affine=LPS, made=nibabel.Nifti1Image, slope=None):
    image = made(array, affine)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def bytes_of(array, affine=LPS):
    return nibabel.Nifti1Image(array, affine).to_bytes()


def patched(data, at, pattern, *values):
    return data[:at] + struct.pack(pattern, *values) + data[at + struct.calcsize(pattern) :]


def smooth(shape, seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) * 1000


# --- values and axes


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII.GZ"])
@pytest.mark.parametrize("made", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_bytes_of_the_networks_size_stay_as_they_are(tmp_path, name, made):
    path = tmp_path / name
    data = made(VOLUME.transpose(2, 1, 0), LPS).to_bytes()
    path.write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    np.testing.assert_array_equal(read_nifti(path, SIDE), VOLUME)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL", "IRP"])
def test_axes_are_those_of_the_patient(tmp_path, codes):
    """The same body, whatever axes its file has; nibabel turns a whole image, as the reference."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(codes)
    )
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), LPS).as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes
    nibabel.save(image, tmp_path / "x.nii")
    got = read_nifti(tmp_path / "x.nii", SIDE)
    np.testing.assert_array_equal(got, VOLUME)
    canonical = np.asarray(nibabel.as_closest_canonical(image).dataobj)  # to the right, to the front, up
    np.testing.assert_array_equal(got, canonical[::-1, ::-1].transpose(2, 1, 0))


def test_an_oblique_scan_takes_the_closest_axes(tmp_path):
    turned = np.eye(4)
    cos, sin = np.cos(0.4), np.sin(0.4)
    turned[:2, :2] = [[cos, -sin], [sin, cos]]
    saved(tmp_path / "x.nii", VOLUME.transpose(2, 1, 0), turned @ LPS)
    np.testing.assert_array_equal(read_nifti(tmp_path / "x.nii", SIDE), VOLUME)


def test_without_an_orientation_the_axes_stay(tmp_path):
    saved(tmp_path / "x.nii", VOLUME.transpose(2, 1, 0), None)
    np.testing.assert_array_equal(read_nifti(tmp_path / "x.nii", SIDE), VOLUME)


def test_a_markers_corner_is_where_the_patient_has_it(tmp_path):
    """A bright corner at the right, in front, at the feet; the axes of the file lead right, to the front, and up."""
    body = np.zeros((SIDE,) * 3, np.uint8)
    body[-1, -1, 0] = 200
    saved(tmp_path / "x.nii", body, np.eye(4))
    assert np.argwhere(read_nifti(tmp_path / "x.nii", SIDE) == 200).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", "<f4", ">f8", "<i8", "<u4", "<i1", "<u8"])
def test_other_values_are_stretched_between_percentiles(tmp_path, dtype):
    values = np.clip(smooth((SIDE,) * 3), -120, 120) + (121 if "u" in dtype else 0)
    stored = values.astype(dtype)
    image = nibabel.Nifti1Image(
        stored.transpose(2, 1, 0), LPS, nibabel.Nifti1Header(endianness=dtype[0]), dtype=np.dtype(dtype)
    )
    nibabel.save(image, tmp_path / "x.nii")
    low, high = np.percentile(stored.astype(float), [0.5, 99.5])
    wanted = np.clip((stored.astype(float) - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(read_nifti(tmp_path / "x.nii", SIDE), wanted, atol=0.5001)


def test_one_voxel_of_metal_leaves_the_contrast(tmp_path):
    values = smooth((SIDE,) * 3).astype(np.float32)
    saved(tmp_path / "plain.nii", values)
    values[3, 3, 3] = 1e6
    saved(tmp_path / "metal.nii", values)
    plain, metal = (read_nifti(tmp_path / f"{name}.nii", SIDE).astype(int) for name in ("plain", "metal"))
    assert np.abs(plain - metal).mean() < 3


def test_slope_and_intercept_are_applied(tmp_path):
    """A negative slope turns light and dark round, which no stretching would undo; of bytes, too."""
    values = np.arange(SIDE**3).reshape((SIDE,) * 3) % 251
    data = patched(bytes_of(values.astype(np.uint8).transpose(2, 1, 0)), SLOPE, "<ff", -2.0, 7.0)
    (tmp_path / "x.nii").write_bytes(data)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "x.nii").dataobj)[1, 0, 0], 5.0)
    turned = 7.0 - 2.0 * values
    low, high = np.percentile(turned, [0.5, 99.5])
    wanted = np.clip((turned - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(read_nifti(tmp_path / "x.nii", SIDE), wanted, atol=0.5001)


def test_a_mask_of_something_small_is_seen_and_a_constant_is_black(tmp_path):
    mask = np.zeros((SIDE,) * 3, np.int16)
    saved(tmp_path / "constant.nii", mask + 7)
    assert not read_nifti(tmp_path / "constant.nii", SIDE).any()
    mask[5, 5, 5] = 1
    saved(tmp_path / "mask.nii", mask)
    assert np.unique(read_nifti(tmp_path / "mask.nii", SIDE)).tolist() == [0, 255]


def test_colours_and_places_of_one_are_read(tmp_path):
    colours = RNG.integers(0, 256, (*(SIDE,) * 3, 3), dtype=np.uint8)
    rgb = np.ascontiguousarray(colours.transpose(2, 1, 0, 3)).view([(c, "u1") for c in "RGB"])[..., 0]
    saved(tmp_path / "x.nii", rgb)
    np.testing.assert_array_equal(read_nifti(tmp_path / "x.nii", SIDE), colours)
    saved(tmp_path / "y.nii", VOLUME.transpose(2, 1, 0)[..., None, None])
    np.testing.assert_array_equal(read_nifti(tmp_path / "y.nii", SIDE), VOLUME)


# --- size


def test_a_coarser_cube_is_interpolated_as_torch_does(tmp_path):
    small = RNG.integers(0, 256, (7, 7, 7), dtype=np.uint8)
    saved(tmp_path / "x.nii", small.transpose(2, 1, 0))
    wanted = F.interpolate(torch.from_numpy(small)[None, None].double(), size=SIDE, mode="trilinear")[0, 0]
    np.testing.assert_allclose(read_nifti(tmp_path / "x.nii", SIDE), wanted, atol=0.5001)


def test_oblong_voxels_keep_their_proportions(tmp_path):
    """The middle cube in millimetres: 8 of 20 slices 4 mm apart, 32 of 48 mm in front, all 32 of 32 mm across."""
    shape, sizes = (16, 12, 20), (2.0, 4.0, 4.0)  # 32, 48 and 80 mm
    values = smooth(shape)
    values = np.uint8(255 * (values - values.min()) / np.ptp(values))
    saved(tmp_path / "x.nii", values, LPS @ np.diag([*sizes, 1]))
    resolution = 32  # 1 mm
    millimetres = np.arange(resolution) + 0.5 - 16
    places = [
        np.clip(millimetres / size + (side - 1) / 2, 0, side - 1) for size, side in zip(sizes, shape, strict=True)
    ]
    reference = ndimage.map_coordinates(values.astype(float), np.meshgrid(*places, indexing="ij"), order=1)
    got = read_nifti(tmp_path / "x.nii", resolution)
    np.testing.assert_allclose(got, reference.transpose(2, 1, 0), atol=0.5001)


@pytest.mark.parametrize(("side", "kept", "resolution"), [(50, 50.0, 12), (61, 37.3, 12), (9, 9.0, 28), (40, 13.7, 28)])
def test_weights_are_those_of_pillows_antialiased_filter(side, kept, resolution):
    row = RNG.normal(size=side)
    box = ((side - kept) / 2, 0, (side + kept) / 2, 1)
    picture = Image.fromarray(row[None].astype(np.float32)).resize((resolution, 1), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_allclose(triangle_weights(side, kept, resolution) @ row, np.asarray(picture)[0], atol=1e-5)


def test_a_finer_volume_is_averaged(tmp_path):
    fine = np.zeros((60, 60, 60), np.uint8)
    fine[::2] = 200  # a voxel in two: what takes single voxels would find stripes
    saved(tmp_path / "x.nii", fine)
    inner = read_nifti(tmp_path / "x.nii", SIDE)[1:-1, 1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 100).max() <= 8


# --- what is refused


HUGE = patched(bytes_of(np.zeros((2, 2, 2), np.uint8)), DIM, "<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)
PLAIN = bytes_of(VOLUME)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin as a NIfTI file does"),
        (b"no scan" * 100, "does not begin as a NIfTI file does"),
        (PLAIN[:200], "ends within its header"),
        (PLAIN[:351], "ends before its voxels"),
        (PLAIN[:-1], f"ends within slice {SIDE} of {SIDE}"),
        (patched(PLAIN, MAGIC, "4s", b"ni1\0"), "is no NIfTI file that holds its voxels"),
        (patched(PLAIN, MAGIC, "4s", b"n+9\0"), "is no NIfTI file that holds its voxels"),
        (HUGE, "has 30000×30000×30000 voxels; allowed: 4,096 along an axis"),
        (patched(PLAIN, DIM, "<8h", 3, 2, 2, 4097, 1, 1, 1, 1), "has 2×2×4097 voxels; allowed: 4,096 along an axis"),
        (patched(PLAIN, DIM, "<8h", 3, 4096, 4096, 2, 1, 1, 1, 1), "4,194,304 in a slice"),
        (patched(PLAIN, DIM, "<8h", 3, 1024, 1024, 1024, 1, 1, 1, 1), "268,435,456 in all"),
        (patched(PLAIN, DIM, "<8h", 3, -5, 12, 12, 1, 1, 1, 1), "has the shape (-5, 12, 12)"),
        (patched(PLAIN, DIM, "<8h", 3, 0, 12, 12, 1, 1, 1, 1), "has the shape (0, 12, 12)"),
        (bytes_of(np.zeros((4, 4, 4, 2), np.uint8)), "has the shape (4, 4, 4, 2); one volume has three sides"),
        (bytes_of(np.zeros((4, 4), np.uint8)), "has the shape (4, 4); one volume has three sides"),
        (bytes_of(np.zeros((4, 4, 1), np.uint8)), "has the shape (4, 4, 1); one volume has three sides"),
        (bytes_of(np.zeros((4, 4, 4), np.complex64)), "holds complex64; voxels are uint8, int16"),
        (patched(PLAIN, DATATYPE, "<h", 2304), "holds RGBA"),
        (patched(PLAIN, DATATYPE, "<h", 77), "holds the unknown type 77"),
        (bytes_of(np.full((4, 4, 4), np.nan, np.float32)), "holds NaN or infinity"),
        (bytes_of(np.full((4, 4, 4), np.inf)), "holds NaN or infinity"),
        (bytes_of(np.repeat([-1.7e308, 1.7e308], 32).reshape(4, 4, 4)), "holds values that are too large"),
        (patched(PLAIN, SLOPE, "<ff", 1.0, np.nan), "has nan as intercept"),
        (patched(PLAIN, OFFSET, "<f", np.nan), "says that its voxels begin at byte nan"),
        (patched(PLAIN, OFFSET, "<f", 1e12), "says that its voxels begin at byte 1e+12; allowed: 352 to 16,777,216"),
        (patched(PLAIN, OFFSET, "<f", 8.0), "says that its voxels begin at byte 8"),
        (bytes_of(VOLUME, np.diag([1.0, 1, 200, 1])), "is longer along one axis than 100 times along another"),
        (patched(PLAIN, SFORM + 40, "<f", np.nan), "has voxels without a size"),
        (patched(PLAIN, SFORM, "<12f", *[0.0] * 12), "has voxels without a size"),
        (patched(PLAIN, SFORM, "<12f", *[1.0] * 12), "axes of one direction"),
        (
            patched(patched(PLAIN, CODES, "<hh", 1, 0), QUATERNION, "<fff", 9, 9, 9),
            "orientation that cannot be read",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_volume_is_said(tmp_path, data, words, packed):
    path = tmp_path / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(PictureError) as refused:
        read_nifti(path, SIDE)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damage_of_the_packing_is_said(tmp_path):
    whole = gzip.compress(PLAIN)
    cases = {
        "plain.nii.gz": PLAIN,
        "cut.nii.gz": whole[:-20],
        "sum.nii.gz": whole[:-8] + b"\0" * 8,
        "bits.nii.gz": whole[:60] + b"\xff" * 30 + whole[90:],
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PictureError, match="cannot be read as NIfTI"):
            read_nifti(tmp_path / name, SIDE)


def test_a_bomb_is_not_unpacked(tmp_path):
    """256 MiB of zeros behind the voxels, and the same between header and voxels."""
    behind = io.BytesIO()
    with gzip.GzipFile(fileobj=behind, mode="wb") as file:
        file.write(PLAIN)
        for _ in range(256):
            file.write(bytes(1 << 20))
    (tmp_path / "behind.nii.gz").write_bytes(behind.getvalue())
    between = PLAIN[:348] + b"\1\0\0\0" + struct.pack("<ii", 0x7FFFFFF0, 6)  # an extension of two gigabytes
    between = patched(between, OFFSET, "<f", float(1 << 24))
    (tmp_path / "between.nii.gz").write_bytes(gzip.compress(between + bytes(1 << 28)))
    tracemalloc.start()
    try:
        assert read_nifti(tmp_path / "behind.nii.gz", SIDE).shape == VOLUME.shape
        assert not read_nifti(tmp_path / "between.nii.gz", SIDE).any()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_slice(tmp_path):
    saved(tmp_path / "x.nii.gz", np.zeros((128, 128, 400), np.int16))  # 13 MiB, as doubles 52
    tracemalloc.start()
    try:
        read_nifti(tmp_path / "x.nii.gz", SIDE)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_links_lead_to_files_only(tmp_path):
    saved(tmp_path / "real.nii", VOLUME.transpose(2, 1, 0))
    (tmp_path / "good.nii").symlink_to("real.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "good.nii", SIDE), VOLUME)
    for name, target in {"device": "/dev/zero", "folder": tmp_path, "lost": "nowhere", "circle": "circle.nii"}.items():
        (tmp_path / f"{name}.nii").symlink_to(target)
        with pytest.raises(PictureError, match=r"is no file|cannot be read as NIfTI"):
            read_nifti(tmp_path / f"{name}.nii", SIDE)


@pytest.mark.parametrize("made", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.filterwarnings("error")
def test_damaged_files_are_read_or_refused(tmp_path, made):
    whole = made(smooth((6, 7, 8)).astype(np.float32), LPS @ np.diag([1.5, 1, 2, 1])).to_bytes()
    refused = 0
    for data in damaged(whole, 400, seed=3):
        (tmp_path / "x.nii").write_bytes(data)
        try:
            assert read_nifti(tmp_path / "x.nii", SIDE).shape == (SIDE,) * 3
        except PictureError:
            refused += 1
    assert 40 < refused < 400


# --- among other files


def test_a_folder_gives_nifti_beside_arrays(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME)
    saved(tmp_path / "b.nii.gz", VOLUME.transpose(2, 1, 0))
    saved(tmp_path / "c.nii", VOLUME.transpose(2, 1, 0))
    (tmp_path / "notes.gz").write_bytes(b"no volume")
    (tmp_path / "b.nii.gz").rename(tmp_path / "b.NII.GZ")
    (batch,) = picture_batches(list_pictures([tmp_path]), SIDE, 1, 8, 1, 3)
    assert [name.rpartition("/")[2] for name in batch.names] == ["a.npy", "b.NII.GZ", "c.nii"]
    np.testing.assert_array_equal(batch.images[:, 0].numpy(), np.stack([VOLUME] * 3))


def test_without_the_package_one_line_names_it(tmp_path, monkeypatch):
    saved(tmp_path / "a.nii.gz", VOLUME)
    real = importlib.util.find_spec
    monkeypatch.setattr("visionforge.data.nifti.find_spec", lambda name: None if name == "nibabel" else real(name))
    with pytest.raises(DataError) as refused:
        list_pictures([tmp_path])
    (line,) = refused.value.problems
    assert line.endswith('a.nii.gz needs the package nibabel: pip install "visionforge-lightning[nifti]"')
    with pytest.raises(PictureError, match="needs the package nibabel"):
        read_nifti(tmp_path / "a.nii.gz", SIDE)


def test_bounds_are_as_the_page_says():
    assert (nifti_header.MAX_SIDE, nifti_header.MAX_SLICE, nifti_header.MAX_VOXELS) == (4096, 4_194_304, 268_435_456)
