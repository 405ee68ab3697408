"""Every fact of the catalog agrees with medmnist's own, and with the archives."""

import numpy as np
import pytest
import yaml
from medmnist import INFO

from visionforge.config.schema import Synthetic
from visionforge.data.archive import read_split
from visionforge.data.info import TaskSpec
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.errors import DataError, SettingsError

FLAT = sorted(name for name in INFO if "3d" not in name)
VOLUMES = sorted(name for name in INFO if "3d" in name)
TASKS = {
    "multi-class": "multi-class",
    "binary-class": "binary",
    "multi-label, binary-class": "multi-label",
    "ordinal-regression": "ordinal",
}


def test_all_of_medmnist_the_embedded_ones_and_the_benchmarks():
    benchmarks = {"fashionmnist", "cifar10", "cifar100", "galaxy10_decals"}
    assert set(dataset_names()) == {*FLAT, *VOLUMES, "digits", "synthetic", *benchmarks}
    assert (len(FLAT), len(VOLUMES)) == (12, 6)


@pytest.mark.parametrize("name", [*FLAT, *VOLUMES])
def test_facts_are_those_of_medmnist(name):
    theirs, ours = INFO[name], dataset_info(name)
    assert ours.title == theirs["python_class"]
    assert ours.task == TASKS[theirs["task"]]
    assert ours.classes == tuple(theirs["label"][str(index)] for index in range(len(theirs["label"])))
    assert ours.channels == theirs["n_channels"]
    assert ours.splits.model_dump() == theirs["n_samples"]
    assert ours.licence == theirs["license"]
    assert ours.spatial_dims == (3 if name in VOLUMES else 2)
    assert ours.resolutions == ((28, 64) if name in VOLUMES else (28, 64, 128, 224))
    for resolution in ours.resolutions:
        suffix = "" if resolution == 28 else f"_{resolution}"
        assert ours.archives[resolution].url == theirs[f"url{suffix}"]
        assert ours.archives[resolution].md5 == theirs[f"MD5{suffix}"]
        assert ours.archive_name(resolution) == f"{name}{suffix}.npz"


@pytest.mark.parametrize("name", ["breastmnist", "retinamnist", "adrenalmnist3d"])
def test_computed_constants_are_those_of_the_training_pixels(archives, name):
    info = dataset_info(name)
    assert info.normalisation.source == "computed"
    pixels = read_split(archives / f"{name}.npz", info, "train").images.reshape(-1, info.channels) / 255.0
    np.testing.assert_allclose(pixels.mean(axis=0), info.normalisation.mean, atol=6e-5)
    np.testing.assert_allclose(pixels.std(axis=0), info.normalisation.std, atol=6e-5)


@pytest.mark.parametrize("name", VOLUMES)
def test_constants_that_nobody_computed_are_called_assumed(name):
    normalisation = dataset_info(name).normalisation
    assert (normalisation.source == "assumed") == (normalisation.mean == normalisation.std == (0.5,))


@pytest.mark.parametrize("name", ["organamnist", "organcmnist", "organsmnist", "organmnist3d"])
def test_left_and_right_organs_are_never_swapped(name):
    flags = dataset_info(name).flags
    assert not flags.hflip
    assert name != "organmnist3d" or not (flags.vflip or flags.dflip)  # a mirror is one, whichever its axis


def test_left_and_right_adrenal_glands_mirror_each_other_along_the_first_axis_alone(archives):
    info = dataset_info("adrenalmnist3d")
    shape = read_split(archives / "adrenalmnist3d.npz", info, "train").images.mean(axis=0)
    alike = [np.corrcoef(shape.ravel(), np.flip(shape, axis).ravel())[0, 1] > 0.9 for axis in range(3)]
    assert alike == [info.flags.dflip, info.flags.vflip, info.flags.hflip] == [True, False, False]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(SettingsError, match="nearest: breastmnist"):
        dataset_info("brestmnist")


def test_grey_data_becomes_three_channels_on_request():
    info = dataset_info("breastmnist")
    assert TaskSpec.of(info, 28, force_rgb=True).mean == info.normalisation.mean * 3
    assert TaskSpec.of(info, 28, force_rgb=False).channels == 1
    assert TaskSpec.of(dataset_info("bloodmnist"), 28, force_rgb=False).channels == 3
    assert TaskSpec.of(dataset_info("adrenalmnist3d"), 28, force_rgb=True).spatial_dims == 3


def test_volumes_are_bounded():
    entry = dataset_info("adrenalmnist3d").model_dump()
    with pytest.raises(ValueError, match="512 is not allowed for volumes; allowed: 8 to 256"):
        type(dataset_info("adrenalmnist3d")).model_validate({**entry, "resolutions": [28, 512]})
    with pytest.raises(ValueError, match="allowed: 8 to 256"):
        TaskSpec(classes=2, resolution=257, spatial_dims=3)
    assert TaskSpec(classes=2, resolution=257).resolution == 257


def test_arrays_of_volumes_say_so():
    volumes = np.zeros((4, 12, 12, 12), np.uint8)
    volumes[:2] = 255
    labels = np.array([0, 1, 1, 0])
    spec = TaskSpec.of_arrays(volumes, labels, spatial_dims=3)
    assert (spec.spatial_dims, spec.channels, spec.resolution) == (3, 1, 12)
    assert (spec.mean, spec.std) == ((0.5,), (0.5,))
    colour = np.repeat(volumes[..., None], 3, axis=-1)
    for arrays in (colour, np.moveaxis(colour, -1, 1)):
        assert TaskSpec.of_arrays(arrays, labels, spatial_dims=3).channels == 3
    with pytest.raises(DataError, match="spatial_dims=3 takes volumes"):
        TaskSpec.of_arrays(volumes, labels)
    with pytest.raises(DataError, match=r"allowed: \(N, R, R, R\), \(N, R, R, R, C\)"):
        TaskSpec.of_arrays(volumes[:, 1:], labels, spatial_dims=3)
    with pytest.raises(DataError, match="spatial_dims: 4 is not allowed"):
        TaskSpec.of_arrays(volumes, labels, spatial_dims=4)


def test_synthetic_entry_follows_its_settings():
    info = dataset_info("synthetic", Synthetic(task="ordinal", classes=7, channels=1, train=9, val=8, test=7))
    assert (info.task, len(info.classes), info.channels) == ("ordinal", 7, 1)
    assert info.splits.model_dump() == {"train": 9, "val": 8, "test": 7}
    assert len(dataset_info("synthetic", Synthetic(task="binary")).classes) == 2


def test_a_python_object_registers_a_data_set():
    from visionforge.data import register_dataset
    from visionforge.data.registry import _registered

    info = dataset_info("breastmnist").model_copy(update={"name": "mine"})
    register_dataset(info)
    try:
        assert dataset_info("mine") == info
        assert "mine" in dataset_names()
        register_dataset(info)  # again, as by a notebook cell
        with pytest.raises(ValueError, match="in the catalog already"):
            register_dataset(info.model_copy(update={"title": "another"}))
        register_dataset(info.model_copy(update={"title": "another"}), replace=True)
        assert dataset_info("mine").title == "another"
        with pytest.raises(ValueError, match="in the catalog already"):
            register_dataset(dataset_info("breastmnist"))
    finally:
        _registered.clear()


def test_another_package_registers_a_data_set(tmp_path, monkeypatch):
    """A real distribution on the path, with a real entry point."""
    import subprocess
    import sys

    (tmp_path / "theirs.py").write_text(
        "from visionforge.data import dataset_info\n"
        "def entry():\n    return dataset_info('breastmnist').model_copy(update={'name': 'theirs'})\n"
    )
    meta = tmp_path / "theirs-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[visionforge.datasets]\ntheirs = theirs:entry\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, "-m", "visionforge", "datasets", "info", "theirs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "theirs" in done.stdout


def test_entry_of_the_user_is_found(tmp_path, monkeypatch):
    text = yaml.safe_dump({**dataset_info("breastmnist").model_dump(mode="json"), "name": "own"})
    (tmp_path / "own.yaml").write_text(text)
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path))
    assert dataset_info("own").task == "binary"
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(DataError, match=r"named own\.yaml"):
        dataset_info("other")
