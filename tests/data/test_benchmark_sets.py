"""Fashion-MNIST, CIFAR-10, CIFAR-100 and Galaxy10 DECaLS: what the catalog says, and the real files where they are."""

import os
from pathlib import Path

import numpy as np
import pytest
import torchvision

from visionforge.data.download import ensure_archive
from visionforge.data.registry import dataset_info
from visionforge.data.store import open_archive

DEBIAN = "/usr/share/datasets/fashion-mnist"
SETS = ("fashionmnist", "cifar10", "cifar100", "galaxy10_decals")


@pytest.fixture(scope="module")
def fashion() -> Path:
    """The folder of the published files, or of Debian's copy."""
    folder = Path(os.environ.get("VISIONFORGE_TEST_FASHION", DEBIAN))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"no Fashion-MNIST in {folder}; set VISIONFORGE_TEST_FASHION to a folder that has its four files")
    return folder


def test_checksums_of_fashionmnist_are_those_of_torchvision():
    theirs = dict(torchvision.datasets.FashionMNIST.resources)
    assert {file.file: file.md5 for file in dataset_info("fashionmnist").original.published} == theirs
    assert dataset_info("fashionmnist").classes == tuple(torchvision.datasets.FashionMNIST.classes)


@pytest.mark.parametrize(("name", "count"), [("fashionmnist", 70_000), ("cifar10", 60_000), ("cifar100", 60_000)])
def test_published_test_images_stay_the_test_split(name, count):
    info = dataset_info(name)
    assert info.images == count
    assert info.splits.test == 10_000
    assert info.original.has_test


def test_galaxies_are_divided_as_imported_pictures_are():
    info = dataset_info("galaxy10_decals")
    assert info.images == 17_736
    np.testing.assert_allclose(
        [getattr(info.splits, s) / info.images for s in ("train", "val", "test")], [0.7, 0.1, 0.2], atol=1e-4
    )
    assert info.resolutions == (64, 128, 224, 256)


def test_classes_of_cifar100_are_in_the_order_of_its_labels():
    classes = dataset_info("cifar100").classes
    assert len(classes) == 100
    assert list(classes) == sorted(classes)  # as its list of names is


@pytest.mark.parametrize("name", SETS)
def test_originals_are_checked_and_bounded(name):
    info = dataset_info(name)
    for file in info.original.published:
        assert file.url.startswith("https://")
        assert len(file.checksum.value) in (32, 64)
    assert all(archive.url is None for archive in info.archives.values())


@pytest.mark.slow
def test_real_fashionmnist(fashion, tmp_path, monkeypatch):
    """The archive is the one that the catalog knows, test images and constants are the published ones."""
    monkeypatch.setenv("VISIONFORGE_ORIGINALS", str(fashion))
    info = dataset_info("fashionmnist")
    path = ensure_archive(info, 28, str(tmp_path / "data"), download=False)
    open_archive(path, info, 28)  # which compares its MD5
    with np.load(path) as archive:
        parts = dict(archive)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in info.original.published:
        (raw / file.file).symlink_to(fashion / file.file)
        torchvision.datasets.utils.extract_archive(str(raw / file.file), str(raw))
    train, test = (torchvision.datasets.FashionMNIST(tmp_path, train=part) for part in (True, False))
    np.testing.assert_array_equal(parts["test_images"], test.data)
    np.testing.assert_array_equal(parts["test_labels"], test.targets)
    ours = [
        (x.tobytes(), int(y))
        for s in ("train", "val")
        for x, y in zip(parts[f"{s}_images"], parts[f"{s}_labels"], strict=True)
    ]
    assert sorted(ours) == sorted((x.tobytes(), int(y)) for x, y in zip(train.data.numpy(), train.targets, strict=True))
    assert np.bincount(parts["val_labels"]).tolist() == [500] * 10
    whole = train.data.numpy() / 255.0
    np.testing.assert_allclose(
        [whole.mean(), whole.std()], [*info.normalisation.mean, *info.normalisation.std], atol=6e-5
    )
