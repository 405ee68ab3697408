"""Volumes from the archive to augmented batches, and what the commands make of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_datamodule import train
from visionforge.cli.main import main
from visionforge.data import ImageDataModule
from visionforge.data.importing import channel_statistics
from visionforge.data.inspect import difference_hashes, find_leaks
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import read_side_table
from visionforge.data.source import load_split, local_archive
from visionforge.errors import SettingsError
from visionforge.evaluation.slices import middle_slices


def module(archives, **settings) -> ImageDataModule:
    data = ImageDataModule(dataset="adrenalmnist3d", root=str(archives), **{"batch_size": 32, **settings})
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize(("force_rgb", "channels"), [(True, 3), (False, 1)])
def test_batches_of_volumes(archives, force_rgb, channels):
    data = module(archives, force_rgb=force_rgb)
    assert (data.spec.spatial_dims, data.spec.channels) == (3, channels)
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (32, 1, 28, 28, 28)
    plain, same = data.on_after_batch_transfer((images, labels), 0)
    assert plain.shape == (32, channels, 28, 28, 28)
    assert same is labels
    mean, std = (torch.tensor(v[0]).double() for v in (data.spec.mean, data.spec.std))
    torch.testing.assert_close(plain[:, -1:].double(), (images.double() / 255 - mean) / std, atol=2e-5, rtol=0)
    augmented = data.augment(images, 0, 0)
    assert augmented.shape == plain.shape
    assert torch.equal(augmented, data.augment(images, 0, 0))
    assert not torch.equal(augmented, data.augment(images, 0, 1))
    assert not torch.equal(augmented, plain)


def test_training_batches_are_augmented_normalised_volumes(archives):
    """A foreign LightningModule over the whole path; balanced sampling, a subset, an operation on top."""
    augmentation = {"dflip": 0.5, "operations": ["gaussian_noise", "random_erasing"]}
    seen = []
    for cache in ("ram", "mmap"):
        data = module(archives, force_rgb=False, max_samples=200, cache=cache, augmentation=augmentation)
        foreign = train(data, epochs=1)
        assert len(foreign.seen) == 200 // 32
        seen.append(torch.cat(foreign.seen))
    assert seen[0].shape[1:] == (1, 28, 28, 28)
    assert torch.equal(*seen)
    assert abs(float(seen[0].mean())) < 1
    assert 0.5 < float(seen[0].std()) < 2


def test_a_batch_of_images_of_another_loader_is_left_alone(archives):
    data = module(archives)
    batch = (torch.zeros((2, 1, 28, 28), dtype=torch.uint8), torch.zeros(2))
    assert data.on_after_batch_transfer(batch, 0) is batch


def test_alternating_flips_show_both_orientations(archives, monkeypatch):
    from visionforge.data.registry import dataset_info

    info = dataset_info("adrenalmnist3d")
    free = info.model_copy(update={"flags": info.flags.model_copy(update={"hflip": True})})
    monkeypatch.setattr("visionforge.data.datamodule.dataset_info", lambda *_: free)
    settings = {"hflip": 0.5, "rotation_angle": 0, "jitter_val": 0.0, "min_scale": 1.0, "flip_mode": "alternating"}
    data = module(archives, augmentation=settings, balanced_sampling=False, force_rgb=False)
    shown: list[dict[bytes, int]] = []
    for epoch in (0, 1):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        batches = [(b[0], data.augment(b[0], epoch, step)) for step, b in enumerate(loader)]
        pairs = [(a, b) for raw, done in batches for a, b in zip(raw, done, strict=True)]
        shown.append({a.numpy().tobytes(): bool(torch.equal(b, data.normalise(a[None])[0])) for a, b in pairs})
    both = shown[0].keys() & shown[1].keys()
    assert len(both) > 1000
    assert sum(shown[0][key] != shown[1][key] for key in both) > 0.99 * len(both)  # some shapes are symmetric


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"dataset": "bloodmnist", "augmentation": {"dflip": 0.5}},
            "data.augmentation.dflip: 0.5 is not allowed, because bloodmnist has images",
        ),
        ({"dataset": "adrenalmnist3d", "resolution": 128}, "128 is not offered by adrenalmnist3d; allowed: 28, 64"),
    ],
)
def test_settings_without_meaning_are_refused(settings, problem):
    with pytest.raises(SettingsError) as caught:
        ImageDataModule(**settings)
    (line,) = caught.value.problems
    assert problem in line


def test_command_line_refuses_them_too(refuse):
    (line,) = refuse("fit", "--data.dataset", "breastmnist", "--data.augmentation.dflip", "0.5")
    assert "data.augmentation.dflip: 0.5 is not allowed, because breastmnist has images" in line


def test_missing_archive_names_its_file_and_its_largest_size(archives, refuse, tmp_path):
    (line,) = refuse("datasets", "check", "adrenalmnist3d", "--resolution", "64", "--root", str(tmp_path))
    assert "adrenalmnist3d_64.npz: missing; `visionforge datasets download adrenalmnist3d --resolution 64`" in line
    data = ImageDataModule(dataset="adrenalmnist3d", resolution=64, root=str(tmp_path), download=False)
    with pytest.raises(Exception, match=r"adrenalmnist3d_64\.npz\?download=1 \(at most 41[0-9.]+ MB, MD5 17721accfe9f"):
        data.prepare_data()


def test_commands_know_volumes(archives, capsys, tmp_path):
    root = ("--root", str(archives))
    assert main(["datasets", "list"]) == 0
    assert "grey 3D" in capsys.readouterr().out
    assert main(["datasets", "info", "adrenalmnist3d"]) == 0
    shown = capsys.readouterr().out
    assert "3 (volumes, cubes)" in shown
    assert "front-back flip, small rotation" in shown
    assert main(["datasets", "stats", "adrenalmnist3d", *root]) == 0
    assert "mean 0.0158, std 0.1247" in capsys.readouterr().out
    assert main(["datasets", "check", "adrenalmnist3d", *root]) == 0
    assert "✗" not in capsys.readouterr().out
    picture = tmp_path / "sheet.png"
    assert main(["datasets", "show", "adrenalmnist3d", "--output", str(picture), *root]) == 0
    assert picture.stat().st_size > 10_000


def test_middle_slices_are_those_of_each_axis():
    volume = torch.arange(4**3).view(1, 4, 4, 4) / 100
    found = torch.from_numpy(middle_slices(volume.numpy(), 1))
    assert found.shape == (1, 4, 14)
    for start, wanted in ((0, volume[:, 2]), (5, volume[:, :, 2]), (10, volume[..., 2])):
        assert torch.equal(found[..., start : start + 4], wanted)


def test_statistics_of_volumes():
    for shape in ((9, 10, 10, 10), (9, 10, 10, 10, 3)):
        volumes = np.random.default_rng(0).integers(0, 200, shape, dtype=np.uint8)
        mean, std = channel_statistics(volumes)
        flat = volumes.reshape(-1, 3 if len(shape) == 5 else 1) / 255
        np.testing.assert_allclose(mean, flat.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(std, flat.std(axis=0), atol=1e-6)


def test_shared_volumes_are_found():
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 230, (60, 7, 7, 7))
    pool = coarse.repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3).astype(np.uint8)
    train_part, val, test = pool[:30], pool[30:40].copy(), pool[40:].copy()
    test[3], val[5] = train_part[7], train_part[11] + 2
    leaks = {(leak.first, leak.second): leak for leak in find_leaks({"train": train_part, "val": val, "test": test})}
    assert leaks["train", "test"].exact == [(7, 3)]
    assert leaks["train", "val"].near == [(11, 5)]
    assert leaks["val", "test"].exact == leaks["val", "test"].near == []
    for axis in (1, 2, 3):  # the hash sees every axis
        assert not (difference_hashes(np.flip(pool, axis)) == difference_hashes(pool)).any()


def folders_of_volumes(tmp_path, count=6, colour=False):
    """Class folders of .npy volumes of 12 voxels; return them by name."""
    made = {}
    for label, name in enumerate(("a", "b")):
        folder = tmp_path / "source" / name
        folder.mkdir(parents=True)
        for index in range(count):
            shape = (12, 12, 12, *((3,) if colour and index == 0 else ()))
            made[f"{name}/{index}.npy"] = np.random.default_rng([label, index]).integers(0, 256, shape, dtype=np.uint8)
            np.save(folder / f"{index}.npy", made[f"{name}/{index}.npy"])
    return made


def imported(tmp_path, *more):
    source = ["import", str(tmp_path / "source"), "--name", "mine", "--resolution", "12", "--root", str(tmp_path / "d")]
    return ["datasets", *source, *more]


@pytest.mark.parametrize("colour", [False, True])
def test_volumes_of_ones_own_are_imported(tmp_path, monkeypatch, capsys, colour):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    made = folders_of_volumes(tmp_path, colour=colour)
    assert main(imported(tmp_path, "--vflip", "--dflip", "--fractions", "0.5", "0.25", "0.25")) == 0
    info = dataset_info("mine")
    assert (info.spatial_dims, info.channels, info.flags.vflip, info.flags.dflip) == (3, 3 if colour else 1, True, True)
    assert info.image_shape(12) == (12, 12, 12, *((3,) if colour else ()))
    found = {}
    for split in ("train", "val", "test"):
        part = load_split(info, 12, str(tmp_path / "d"), split)
        side = read_side_table(local_archive(info, 12, str(tmp_path / "d")), split, len(part.labels))
        found |= dict(zip(side.names, part.images, strict=True))
    assert found.keys() == made.keys()
    for name, volume in made.items():
        grey = volume if volume.ndim == 4 or not colour else np.repeat(volume[..., None], 3, axis=3)
        np.testing.assert_array_equal(found[name], grey)
    for command in ("check", "stats"):
        assert main(["datasets", command, "mine", "--root", str(tmp_path / "d")]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_csv_may_name_volumes(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    made = folders_of_volumes(tmp_path)
    lines = [f"source/{name},{'x' if name < 'b' else 'y'}" for name in made]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    arguments = ["import", str(tmp_path / "list.csv"), "--name", "mine", "--resolution", "12", "--root", str(tmp_path)]
    assert main(["datasets", *arguments, "--fractions", "0.5", "0.25", "0.25"]) == 0
    assert (dataset_info("mine").classes, dataset_info("mine").spatial_dims) == (("x", "y"), 3)


def test_nifti_files_are_imported(tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    for name, volume in folders_of_volumes(tmp_path).items():
        file = tmp_path / "source" / name
        file.unlink()
        nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1])), f"{file}.nii.gz")
    assert main(imported(tmp_path, "--fractions", "0.5", "0.25", "0.25")) == 0
    assert dataset_info("mine").spatial_dims == 3


def test_volumes_that_cannot_be_imported_are_one_line(tmp_path, refuse, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    folders_of_volumes(tmp_path)
    keeps = ("catalog", "d")
    (line,) = refuse(*imported(tmp_path), "--resolution", "300", keeps=keeps)
    assert line == "--resolution: 300 is not allowed for volumes; allowed: 8 to 256"
    (line,) = refuse(*imported(tmp_path), "--resolution", "28", keeps=keeps)
    assert line.endswith("a/0.npy has the shape (12, 12, 12); volumes have to be of 28×28×28 voxels)")
    for path in sorted((tmp_path / "source").rglob("*.npy")):
        path.rename(path.with_suffix(".nrrd"))
    (line,) = refuse(*imported(tmp_path), keeps=keeps)
    assert "holds no pictures but volumes of a kind that is not read (.nrrd); convert them to NIfTI" in line
    for path in sorted((tmp_path / "source").rglob("*.nrrd")):
        path.unlink()
        Image.new("L", (12, 12)).save(path.with_suffix(".png"))
    (line,) = refuse(*imported(tmp_path, "--dflip"), keeps=keeps)
    assert line == f"--dflip: is for volumes, {tmp_path / 'source'} holds pictures; leave it out"
