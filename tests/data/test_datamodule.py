"""The DataModule works alone, in a foreign project, and the same with any number of workers."""

import inspect

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from visionforge.config.schema import Augmentation
from visionforge.data import ImageDataModule, MedMNISTDataModule
from visionforge.errors import DataError, SettingsError


class Foreign(pl.LightningModule):
    """Somebody's own ten lines."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen.append(images.detach().clone())
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(data: MedMNISTDataModule, epochs: int = 2) -> Foreign:
    pl.seed_everything(42, verbose=False)
    module = Foreign()
    module.net(torch.zeros(1, data.spec.channels, *[28] * data.spec.spatial_dims))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert "val_loss" in trainer.callback_metrics
    return module


def test_trains_a_foreign_module(archives):
    data = MedMNISTDataModule(dataset="breastmnist", root=archives, batch_size=64)
    module = train(data)
    assert len(module.seen) == 2 * (546 // 64)
    batch = torch.cat(module.seen)
    assert batch.dtype == torch.float32
    assert batch.shape[1:] == (3, 28, 28)
    assert abs(float(batch.mean())) < 0.2
    assert 0.7 < float(batch.std()) < 1.3


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(archives, workers):
    settings = {"dataset": "breastmnist", "root": str(archives), "batch_size": 128}
    alone = train(MedMNISTDataModule(**settings))
    helped = train(MedMNISTDataModule(**settings, num_workers=workers))
    assert len(alone.seen) == len(helped.seen) == 8
    for ours, theirs in zip(alone.seen, helped.seen, strict=True):
        assert torch.equal(ours, theirs)


def test_epochs_differ_and_evaluation_is_not_augmented(archives):
    data = MedMNISTDataModule(dataset="breastmnist", root=str(archives), batch_size=256)
    module = train(data)
    assert not torch.equal(module.seen[0], module.seen[2])
    data.setup("validate")
    images, labels = next(iter(data.val_dataloader()))
    assert torch.equal(data.on_after_batch_transfer((images, labels), 0)[0], data.normalise(images))


def test_evaluation_is_in_order_and_complete(archives):
    data = MedMNISTDataModule(dataset="breastmnist", root=str(archives), batch_size=50)
    data.prepare_data()
    data.setup("test")
    labels = torch.cat([batch[1] for batch in data.test_dataloader()])
    assert torch.equal(labels, data.dataset_for("test").labels)
    assert len(labels) == 156


def test_every_setting_changes_something(archives):
    def loaded(**changes):
        data = MedMNISTDataModule(**{"dataset": "breastmnist", "root": str(archives), **changes})
        data.prepare_data()
        data.setup("fit")
        return data

    base = loaded()
    first = next(iter(base.train_dataloader()))
    assert first[0].shape == (128, 1, 28, 28)
    assert next(iter(loaded(batch_size=32).train_dataloader()))[0].shape[0] == 32
    assert next(iter(loaded(resolution=64).train_dataloader()))[0].shape[-1] == 64
    assert len(loaded(max_samples=200).dataset_for("train")) == 200
    assert len(loaded(max_samples=200).dataset_for("val")) == 78
    assert loaded(num_workers=2).train_dataloader().num_workers == 2
    assert base.normalise(first[0]).shape[1] == 3
    assert loaded(force_rgb=False).normalise(first[0]).shape[1] == 1
    balanced = torch.cat([labels for _, labels in base.train_dataloader()]).float().mean()
    natural = torch.cat([labels for _, labels in loaded(balanced_sampling=False).train_dataloader()]).float().mean()
    assert abs(balanced - 0.5) < 0.08
    assert abs(natural - 0.73) < 0.05
    changed = loaded(augmentation=Augmentation(hflip=0, rotation_angle=0, jitter_val=0, min_scale=1))
    assert not torch.equal(base.augment(first[0], 0, 0), changed.augment(first[0], 0, 0))


def test_max_samples_is_stratified_and_seeded(archives, monkeypatch):
    def subset():
        data = MedMNISTDataModule(dataset="retinamnist", root=str(archives), max_samples=108)
        data.prepare_data()
        data.setup("fit")
        return data.dataset_for("train")

    whole = MedMNISTDataModule(dataset="retinamnist", root=str(archives)).dataset_for("train")
    part = subset()
    expected = torch.bincount(whole.labels) / 10
    assert (torch.bincount(part.labels) - expected).abs().max() <= 1
    assert torch.equal(part.images, subset().images)
    monkeypatch.setenv("PL_GLOBAL_SEED", "43")
    assert not torch.equal(part.images, subset().images)


def test_augmentation_depends_on_seed_epoch_and_step_alone(monkeypatch):
    data = MedMNISTDataModule("synthetic")
    images = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8)
    one = data.augment(images, 3, 5)
    torch.rand(7)
    assert torch.equal(one, data.augment(images, 3, 5))
    assert not torch.equal(one, data.augment(images, 3, 6))
    assert not torch.equal(one, data.augment(images, 4, 5))
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert not torch.equal(one, data.augment(images, 3, 5))


def test_defaults_are_those_of_the_settings():
    import inspect

    from visionforge.config.schema import DataSettings

    parameters = inspect.signature(MedMNISTDataModule.__init__).parameters
    assert set(parameters) - {"self", "seed"} == set(DataSettings.model_fields)
    for name, field in DataSettings.model_fields.items():
        assert parameters[name].default == field.get_default(call_default_factory=True), name


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_size": 0}, "data.batch_size: 0 is not allowed"),
        ({"dataset": "brestmnist"}, "nearest: breastmnist"),
        ({"resolution": 32}, "data.resolution: 32 is not offered"),
        ({"augmentation": {"hflip": 2}}, "data.augmentation.hflip: 2 is not allowed"),
    ],
)
def test_bad_arguments_are_one_line(changes, complaint):
    with pytest.raises(SettingsError, match=complaint):
        MedMNISTDataModule(**{"dataset": "breastmnist", **changes})


def test_missing_archive_says_how_to_place_it(tmp_path):
    data = MedMNISTDataModule("breastmnist", root=str(tmp_path / "nowhere"), download=False)
    with pytest.raises(DataError) as caught:
        data.prepare_data()
    (line,) = caught.value.problems
    for part in ("breastmnist.npz: missing", "zenodo.org", "750601b1f35ba3300ea97c75c52ff8f6", "data.root"):
        assert part in line
    assert not (tmp_path / "nowhere").exists()


def test_alternating_flips_show_both_orientations_in_two_epochs():
    data = MedMNISTDataModule(
        "synthetic",
        resolution=8,
        batch_size=64,
        balanced_sampling=False,
        augmentation=Augmentation(rotation_angle=0, jitter_val=0, min_scale=1, flip_mode="alternating"),
    )
    data.augmentation = data.settings.augmentation  # rendered gratings may not be flipped; here they are
    data.setup("fit")
    train = data.dataset_for("train")
    seen = []
    for epoch in (4, 5):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        flipped = torch.zeros(len(train), dtype=torch.bool)
        for step, (images, _) in enumerate(loader):
            positions = loader.sampler.positions()[step * 64 : (step + 1) * 64]
            out, plain = data.augment(images, epoch, step), data.normalise(images)
            mirrored = (out - plain.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-5
            straight = (out - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
            assert bool((mirrored ^ straight).all())
            flipped[positions] = mirrored
        seen.append(flipped)
    assert torch.equal(seen[0], ~seen[1])
    assert 0.35 < float(seen[0].float().mean()) < 0.65


def test_preset_and_values_exclude_each_other():
    with pytest.raises(SettingsError, match="preset 'strong' sets every value, so leave out hflip"):
        MedMNISTDataModule("synthetic", augmentation={"preset": "strong", "hflip": 0.1})


def test_a_name_that_it_does_not_have_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match=r"data.batchsize: unknown setting; nearest: data.batch_size"):
        ImageDataModule("synthetic", batchsize=3)
    assert "batch_size" in inspect.signature(ImageDataModule).parameters


def test_plain_images_are_no_more_than_an_epoch_trains_on():
    data = MedMNISTDataModule("synthetic", synthetic={"train": 300}, batch_size=16)

    def seen(limit_train_batches):
        data.trainer = (
            None
            if limit_train_batches is None
            else pl.Trainer(
                accelerator="cpu", logger=False, enable_checkpointing=False, limit_train_batches=limit_train_batches
            )
        )
        return sum(len(images) for images, _ in data.plain_batches(200, torch.device("cpu")))

    assert [seen(limit) for limit in (None, 1.0, 0.5, 6, 2)] == [200, 200, 150, 96, 64]
