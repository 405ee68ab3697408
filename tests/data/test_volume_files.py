"""Volumes from files and archives: whole, of the network's size, or a line that says what is wrong."""

import numpy as np
import pytest

from visionforge.data.picture_sources import list_pictures
from visionforge.data.pictures import PictureError
from visionforge.data.stream import picture_batches
from visionforge.data.volume_files import read_volume, volume_with_channels
from visionforge.errors import DataError

SIDE = 8
VOLUMES = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, SIDE), dtype=np.uint8)


def batches(folder, channels=1, spatial_dims=3):
    return list(picture_batches(list_pictures([folder]), SIDE, channels, 2, 1, spatial_dims))


def test_a_folder_of_arrays_gives_volumes_in_order(tmp_path):
    for index, volume in enumerate(VOLUMES):
        np.save(tmp_path / f"{index}.npy", volume)
    found = batches(tmp_path)
    assert [len(batch.names) for batch in found] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([batch.images.numpy() for batch in found])[:, 0], VOLUMES)
    assert batches(tmp_path, channels=3)[0].images.shape == (2, 3, SIDE, SIDE, SIDE)


def test_an_archive_gives_its_volumes(tmp_path):
    np.savez(tmp_path / "mine.npz", test_images=VOLUMES)
    found = batches(tmp_path / "mine.npz")
    np.testing.assert_array_equal(np.concatenate([batch.images.numpy() for batch in found])[:, 0], VOLUMES)


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        (VOLUMES, 2, "holds volumes (5, 8, 8, 8); the network takes images"),
        (VOLUMES[:, 0], 3, "holds images (5, 8, 8); the network takes volumes"),
    ],
)
def test_an_archive_of_the_other_kind_is_refused(tmp_path, held, asked, words):
    np.savez(tmp_path / "mine.npz", test_images=held)
    with pytest.raises(DataError) as refused:
        batches(tmp_path / "mine.npz", spatial_dims=asked)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (VOLUMES[0].astype(np.float32), "holds float32; voxels are uint8"),
        (VOLUMES[0, 0], "has the shape (8, 8); volumes have to be of 8×8×8 voxels"),
        (np.zeros((9, 9, 9), np.uint8), "has the shape (9, 9, 9)"),
        (np.array([{}], dtype=object), "holds Python objects, which are never loaded"),
    ],
)
def test_what_is_no_volume_of_the_size_is_said(tmp_path, array, words):
    np.save(tmp_path / "bad.npy", array)
    (batch,) = batches(tmp_path)
    ((name, reason),) = batch.failures
    assert name.endswith("bad.npy")
    assert words in reason


def test_damage_and_pictures_are_said(tmp_path):
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(PictureError, match="cannot be read as an array"):
        read_volume(tmp_path / "short.npy", SIDE)
    np.save(tmp_path / "cut.npy", VOLUMES[0])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    with pytest.raises(PictureError, match="unpacks to"):
        read_volume(tmp_path / "cut.npy", SIDE)
    with pytest.raises(PictureError, match=r"is no volume; .*\.npy files of uint8"):
        read_volume(tmp_path / "scan.png", SIDE)


def test_colours_are_refused_by_a_grey_network():
    coloured = np.zeros((SIDE, SIDE, SIDE, 3), np.uint8)
    assert volume_with_channels(coloured, 3).shape == (3, SIDE, SIDE, SIDE)
    with pytest.raises(PictureError, match="has colours"):
        volume_with_channels(coloured, 1)


def test_an_archive_with_oblong_volumes_is_refused(tmp_path):
    np.savez(tmp_path / "mine.npz", test_images=np.zeros((2, 8, 9, 10), np.uint8))
    with pytest.raises(DataError, match=r"has the shape \(2, 8, 9, 10\); images are .* volumes \(N, R, R, R\)"):
        list_pictures([tmp_path / "mine.npz"])
