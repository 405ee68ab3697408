"""The folder of features gives back what was kept, notices damage, stays within its size, removes nobody's files."""

import os
import zipfile

import numpy as np
import pytest

from visionforge.engine.feature_cache import FeatureCache, key_of

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
KEY = key_of({"network": "a"})


def test_what_is_kept_comes_back_for_its_key_and_shape_alone(tmp_path):
    cache = FeatureCache(tmp_path / "features")
    assert cache.read(KEY, (4, 3)) is None
    cache.write(KEY, VALUES)
    np.testing.assert_array_equal(cache.read(KEY, (4, 3)), VALUES)
    assert cache.read(KEY, (4, 4)) is None
    assert cache.read(key_of({"network": "b"}), (4, 3)) is None
    cache.path(KEY).rename(cache.path(key_of({"network": "b"})))
    assert cache.read(key_of({"network": "b"}), (4, 3)) is None  # it says whose it is
    assert not list(tmp_path.rglob("*.tmp"))


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[data.rindex(VALUES.tobytes()) + 5] ^= 1
    path.write_bytes(bytes(data))


def _enlarged(path):
    """A header that promises more than the file has."""
    text = zipfile.ZipFile(path).read("about.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.json", text)
        with archive.open("features.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)})
            file.write(VALUES.tobytes())


def _of_objects(path):
    text = zipfile.ZipFile(path).read("about.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.json", text)
        with archive.open("features.npy", "w") as file:
            np.lib.format.write_array(file, np.array([{}]), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [_flipped, _enlarged, _of_objects, lambda path: path.write_bytes(b"PK"), lambda path: os.truncate(path, 100)],
)
def test_damage_is_noticed_and_made_good(damage, tmp_path):
    cache = FeatureCache(tmp_path)
    cache.write(KEY, VALUES)
    damage(cache.path(KEY))
    assert cache.read(KEY, (4, 3)) is None
    cache.write(KEY, VALUES)
    np.testing.assert_array_equal(cache.read(KEY, (4, 3)), VALUES)


def test_a_link_is_not_followed(tmp_path):
    cache = FeatureCache(tmp_path / "features")
    cache.write(KEY, VALUES)
    elsewhere = cache.path(KEY).rename(tmp_path / "elsewhere.npz")
    cache.path(KEY).symlink_to(elsewhere)
    assert cache.read(KEY, (4, 3)) is None


def test_the_oldest_own_files_make_room(tmp_path):
    cache = FeatureCache(tmp_path, most=3000)
    keys = [key_of({"network": name}) for name in "abcd"]
    mine = tmp_path / "mine.npz"
    mine.write_bytes(bytes(2000))
    theirs = cache.path(key_of({"network": "theirs"}))
    np.savez(theirs, features=VALUES)
    kept = theirs.read_bytes()
    for age, key in enumerate(keys[:3]):
        cache.write(key, VALUES)
        os.utime(cache.path(key), (1e9 + age, 1e9 + age))
    os.utime(theirs, (1e9 - 1, 1e9 - 1))
    cache.read(keys[0], (4, 3))  # is then the youngest
    size = cache.path(keys[0]).stat().st_size
    FeatureCache(tmp_path, most=len(kept) + 2 * size + 10).write(keys[3], VALUES)
    assert [cache.path(key).exists() for key in keys] == [True, False, False, True]
    assert mine.is_file()
    assert theirs.read_bytes() == kept  # it bears such a name, but does not say that it was written here
    small = FeatureCache(tmp_path, most=VALUES.nbytes - 1)
    small.write(key_of({"network": "e"}), VALUES)
    assert not small.path(key_of({"network": "e"})).exists()


def test_a_folder_that_cannot_be_used_keeps_nothing(tmp_path, caplog):
    (tmp_path / "features").write_text("")
    FeatureCache(tmp_path / "features").write(KEY, VALUES)
    assert "features are not kept" in caplog.text
