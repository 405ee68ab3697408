"""The module trains as a plain loop would, and its checkpoint is self-describing."""

import inspect
import math
import warnings

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from lightning.pytorch.trainer.connectors.data_connector import warning_cache

from tests.training.helpers import MINI, data, fit, trainer, weights
from visionforge.config.schema import (
    Augmentation,
    Averaging,
    Backbone,
    Finetuning,
    Loss,
    ModelSettings,
    Optimizer,
    Schedule,
    Synthetic,
)
from visionforge.config.seeding import derive_seed
from visionforge.data import TaskSpec, dataset_info
from visionforge.errors import SettingsError, TrainingError
from visionforge.models.build import build_network
from visionforge.training.classifier import ImageClassifier
from visionforge.training.epoch_log import EpochLog
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.mixup import draw_mix


def test_equals_a_plain_loop():
    """Ten steps with momentum, decay, smoothing, MixUp and cosine give the weights of a loop written here."""
    lr, low, momentum, decay, smoothing, alpha = 0.05, 1e-4, 0.8, 1e-3, 0.1, 0.5
    module = ImageClassifier(
        MINI,
        optimizer=Optimizer(learning_rate=lr, momentum=momentum, weight_decay=decay),
        schedule=Schedule(min_lr=low),
        loss=Loss(label_smoothing=smoothing),
        mixup=MixUp(alpha=alpha),
    )
    fit(module)

    source = data()
    source.setup("fit")
    pl.seed_everything(42, verbose=False)
    network = build_network(MINI, 3, 4, 16)[0].to(memory_format=torch.channels_last).train()
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    loader, step, steps = source.train_dataloader(), 0, 10
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for index, (images, labels) in enumerate(loader):
            pixels = source.normalise(images)
            draw = draw_mix(16, MixUp(alpha=alpha), 16, derive_seed(42, "mixup", epoch, index, 0))
            lam = float(draw.lam[0])
            mixed = torch.lerp(pixels[draw.partner], pixels, lam)  # a kink makes more of another rounding
            target = F.one_hot(labels, 4).float()
            target = lam * target + (1 - lam) * target[draw.partner]
            target = target * (1 - smoothing) + smoothing / 4
            logits = network(mixed.contiguous(memory_format=torch.channels_last))
            loss = -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
            network.zero_grad()
            loss.backward()
            rate = low + (lr - low) * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                for p, v in zip(network.parameters(), velocity, strict=True):
                    v.mul_(momentum).add_(p.grad + decay * p)
                    p.sub_(rate * v)
            step += 1
    assert step == steps
    reference = torch.cat([p.detach().flatten() for p in network.parameters()])
    torch.testing.assert_close(weights(module), reference, atol=2e-6, rtol=0)  # sums are grouped by the processor


BASE = {
    "backbone": MINI,
    "optimizer": Optimizer(learning_rate=0.05),
    "schedule": Schedule(),
    "loss": Loss(),
    "mixup": MixUp(alpha=0.0),
}
CHANGES = {
    "backbone.name": {"backbone": Backbone(name="resnet18", pretrained=False)},
    "backbone.dropout": {"backbone": Backbone(name="mini_cnn", pretrained=False, dropout=0.5)},
    "optimizer.name": {"optimizer": Optimizer(name="adamw", learning_rate=0.05)},
    "optimizer.learning_rate": {"optimizer": Optimizer(learning_rate=0.04)},
    "optimizer.momentum": {"optimizer": Optimizer(learning_rate=0.05, momentum=0.5)},
    "optimizer.nesterov": {"optimizer": Optimizer(learning_rate=0.05, nesterov=True)},
    "optimizer.weight_decay": {"optimizer": Optimizer(learning_rate=0.05, weight_decay=0.1)},
    "optimizer.decay_norm_bias": {"optimizer": Optimizer(learning_rate=0.05, decay_norm_bias=False)},
    "schedule.name": {"schedule": Schedule(name="constant")},
    "schedule.min_lr": {"schedule": Schedule(min_lr=0.04)},
    "schedule.warmup_epochs": {"schedule": Schedule(warmup_epochs=1)},
    "loss.name": {"loss": Loss(name="focal")},
    "loss.label_smoothing": {"loss": Loss(label_smoothing=0.2)},
    "loss.class_weights": {"loss": Loss(class_weights={"class 1": 3.0, "class 2": 0.5})},
    "mixup.alpha": {"mixup": MixUp(alpha=0.4)},
    "mixup.cutmix_alpha": {"mixup": MixUp(alpha=0.0, cutmix_alpha=1.0)},
    "averaging.name": {"averaging": Averaging(name="ema")},
    "finetuning.backbone_rate": {"finetuning": Finetuning(backbone_rate=0.5)},
}
PAIRS = {  # settings that only others bring to bear: both sides differ from the base in the same way
    "optimizer.beta2": [{"optimizer": Optimizer(name="adamw", learning_rate=0.01, beta2=b)} for b in (0.999, 0.9)],
    "optimizer.momentum of adamw": [
        {"optimizer": Optimizer(name="adamw", learning_rate=0.01, momentum=m)} for m in (0.9, 0.8)
    ],
    "optimizer.name": [{"optimizer": Optimizer(name=n, learning_rate=0.01)} for n in ("adamw", "muon")],
    "optimizer.nesterov of muon": [
        {"optimizer": Optimizer(name="muon", learning_rate=0.01, nesterov=n)} for n in (False, True)
    ],
    "schedule.gamma": [{"schedule": Schedule(name="step", step_epochs=1, gamma=g)} for g in (0.1, 0.5)],
    "schedule.step_epochs": [{"schedule": Schedule(name="step", step_epochs=e)} for e in (1, 2)],
    "schedule.rise_fraction": [{"schedule": Schedule(name="one_cycle", rise_fraction=f)} for f in (0.3, 0.6)],
    "schedule.cosine_fraction": [{"schedule": Schedule(cosine_fraction=f)} for f in (1.0, 0.4)],
    "loss.focal_gamma": [{"loss": Loss(name="focal", focal_gamma=g)} for g in (2.0, 1.0)],
    "loss.class_weights": [{"loss": Loss(class_weights=w)} for w in ("balanced", "effective-number")],
    "loss.effective_beta": [{"loss": Loss(class_weights="effective-number", effective_beta=b)} for b in (0.999, 0.5)],
    "mixup.per_image": [{"mixup": MixUp(alpha=0.4, per_image=p)} for p in (False, True)],
    "mixup.cutmix_prob": [{"mixup": MixUp(alpha=0.4, cutmix_alpha=1.0, cutmix_prob=p)} for p in (0.0, 1.0)],
    "averaging.decay": [{"averaging": Averaging(name="ema", decay=d)} for d in (0.9, 0.5)],
    "averaging.start_epoch": [{"averaging": Averaging(name="swa", start_epoch=e)} for e in (0, 1)],
}


@pytest.fixture(scope="module")
def base_weights():
    module = ImageClassifier(**BASE)
    fit(module, 1)
    return weights(module)


def test_same_settings_give_the_same_weights(base_weights):
    module = ImageClassifier(**BASE)
    fit(module, 1, data(num_workers=2))
    assert torch.equal(weights(module), base_weights)


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_weights(base_weights, name):
    module = ImageClassifier(**{**BASE, **CHANGES[name]})
    fit(module, 1)
    changed = weights(module)
    assert changed.shape != base_weights.shape or not torch.equal(changed, base_weights)


@pytest.mark.parametrize("name", PAIRS)
def test_each_dependent_setting_changes_the_weights(name):
    one, other = (ImageClassifier(**{**BASE, **changes}) for changes in PAIRS[name])
    source = {"synthetic": Synthetic(train=80, val=32, test=32), "balanced_sampling": False, "max_samples": 70}
    fit(one, 2, data(**source))
    fit(other, 2, data(**source))
    assert not torch.equal(weights(one), weights(other))


def test_adapt_stem_changes_the_network():
    spec = TaskSpec.of(dataset_info("bloodmnist"), 32, True)
    shapes = []
    for adapt in (True, False):
        module = ImageClassifier(Backbone(pretrained=False, adapt_stem=adapt), spec=spec.model_copy())
        module.configure_model()
        shapes.append(module.network.conv1.weight.shape[-1])
    assert shapes == [3, 7]


def test_mixup_stops_after_its_epochs():
    runs = {}
    for epochs in (0, 1, 2, None):
        module = ImageClassifier(**{**BASE, "mixup": MixUp(alpha=0.4, mixup_epochs=epochs)})
        fit(module, 2)
        runs[epochs] = weights(module)
    plain = ImageClassifier(**BASE)
    fit(plain, 2)
    assert torch.equal(runs[0], weights(plain))
    assert torch.equal(runs[2], runs[None])
    assert not torch.equal(runs[1], runs[0])
    assert not torch.equal(runs[1], runs[2])


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "ordinal"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_task_trains_and_predicts(task, channels, tmp_path):
    source = data(
        resolution=28, synthetic=Synthetic(task=task, channels=channels, train=48, val=20, test=20), force_rgb=False
    )
    module = ImageClassifier(MINI, mixup=MixUp(alpha=0.4))
    one = fit(module, 1, source)
    one.test(module, datamodule=source, verbose=False)
    assert module.predictions.probabilities.shape == (20, len(source.spec.classes))
    assert module.predictions.probabilities_tta.shape == (20, len(source.spec.classes))
    sums = module.predictions.probabilities.sum(dim=1)
    assert task == "multi-label" or torch.allclose(sums, torch.ones(20), atol=1e-5)
    one.save_checkpoint(tmp_path / "x.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert again.spec == source.spec


def test_predictions_cover_the_split_in_order():
    source = data(batch_size=7, resolution=28)
    module = ImageClassifier(MINI)
    one = fit(module, 1, source)
    one.test(module, datamodule=source, verbose=False)
    test = source.dataset_for("test")
    assert torch.equal(module.predictions.labels, test.labels)
    module.eval()
    with torch.no_grad():
        plain, averaged = module.predict_probabilities(test.images)
        assert module.predict_probabilities(test.images, tta=False)[1] is None
    torch.testing.assert_close(module.predictions.probabilities, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.predictions.probabilities_tta, averaged, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, averaged)


def test_tta_can_be_turned_off():
    source = data(resolution=28)
    module = ImageClassifier(MINI, tta=False)
    one = fit(module, 1, source)
    one.test(module, datamodule=source, verbose=False)
    assert module.predictions.probabilities_tta is None
    assert "test/accuracy_tta" not in one.callback_metrics


def test_tta_modes_and_weight_change_the_predictions():
    source = data(resolution=28)
    shown = {}
    for tta, weight in (("full", None), (True, None), ("light", None), ("full", 0.9), (False, None)):
        module = ImageClassifier(MINI, tta=tta, tta_weight=weight, spec=source.spec)
        pl.seed_everything(42, verbose=False)
        trainer().test(module, datamodule=source, verbose=False)
        shown[tta, weight] = module.predictions.probabilities_tta
    assert shown[False, None] is None
    assert torch.equal(shown["full", None], shown[True, None])
    assert not torch.equal(shown["full", None], shown["light", None])
    assert not torch.equal(shown["full", None], shown["full", 0.9])


def test_the_ordinal_loss_trains_one_score_with_ordered_thresholds():
    source = data(synthetic=Synthetic(task="ordinal", classes=5, train=80, val=32, test=32))
    module = ImageClassifier(MINI, loss=Loss(name="ordinal"), optimizer=Optimizer(learning_rate=0.05))
    before = fit(module, 1, source) and module.cumulative.first.item()
    assert module.network.head[1].out_features == 1
    assert module(source.dataset_for("test").images).shape == (32, 4)
    fit(module, 1, source)
    assert module.cumulative.first.item() != before, "the thresholds are trained"


def test_class_weights_come_from_the_training_split(monkeypatch):
    source = data(balanced_sampling=False)
    module = ImageClassifier(**{**BASE, "loss": Loss(class_weights="balanced")})
    fit(module, 1, source)
    counts, images = source.class_counts()
    torch.testing.assert_close(module.criterion.weights, images / (4 * counts.double()))
    assert int(counts.sum()) == images == 80


def test_training_accuracy_is_named_by_what_it_is(tmp_path):
    log = EpochLog(tmp_path / "metrics.csv")
    module = ImageClassifier(**{**BASE, "mixup": MixUp(alpha=0.4, mixup_epochs=1)})
    fit(module, 2, logger=log)
    first, second = log.rows
    assert "train/accuracy_mixed" in first
    assert "train/accuracy" not in first
    assert "train/accuracy" in second
    assert "train/accuracy_mixed" not in second


def test_checkpoint_predicts_alone(tmp_path):
    source = data()
    module = ImageClassifier(Backbone(name="mini_cnn", pretrained=False, dropout=0.2))
    one = fit(module, 1, source)
    one.save_checkpoint(tmp_path / "x.ckpt")
    alone = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    images = source.dataset_for("val").images
    with torch.no_grad():
        assert torch.equal(alone(images), module.eval()(images))
        torch.testing.assert_close(alone(source.normalise(images)), alone(images))
    assert alone.spec.classes == source.spec.classes
    assert alone.settings == module.settings


def test_checkpoint_of_a_pretrained_network_needs_no_weight_file(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(build_network(MINI, 3, 4, 16)[0].state_dict(), file)
    module = ImageClassifier(Backbone(name="mini_cnn", pretrained=True, weights=str(file)))
    one = fit(module, 1)
    one.save_checkpoint(tmp_path / "x.ckpt")
    file.unlink()
    ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)


def test_pretrained_weights_are_where_training_starts(tmp_path):
    source = build_network(MINI, 3, 4, 16)[0]
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    module = ImageClassifier(
        Backbone(name="mini_cnn", pretrained=True, weights=str(tmp_path / "weights.pth")),
        spec=data().spec,
    )
    module.configure_model()
    assert torch.equal(module.network.features[0].weight, source.features[0].weight)
    assert not torch.equal(module.network.head[1].weight, source.head[1].weight)


def test_training_log_is_the_mean_over_the_epoch(tmp_path):
    log = EpochLog(tmp_path / "metrics.csv")
    fit(ImageClassifier(**BASE), 2, logger=log)
    rows = log.rows
    assert [row["epoch"] for row in rows] == [0, 1]
    for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auc", "lr", "seconds"):
        assert all(key in row for row in rows), key
    again = EpochLog(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in again.rows] == [0, 1]


def test_divergence_is_one_line():
    source = data()
    module = ImageClassifier(MINI)
    one = fit(module, 1, source)
    with torch.no_grad():
        module.network.head[1].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the training has diverged"):
        one.validate(module, datamodule=source, verbose=False)


def test_defaults_are_those_of_the_settings():
    parameters = inspect.signature(ImageClassifier.__init__).parameters
    assert set(parameters) - {"self", "spec", "restoring", "seed"} == set(ModelSettings.model_fields)
    for name, field in ModelSettings.model_fields.items():
        usual = field.get_default(call_default_factory=True)
        assert parameters[name].default in (usual, getattr(usual, "name", usual)), name


def test_module_without_data_says_what_it_needs():
    module = ImageClassifier(MINI)
    with pytest.raises(RuntimeError, match="not built"):
        module(torch.zeros(1, 3, 16, 16))
    loader = torch.utils.data.DataLoader([(torch.zeros(3, 16, 16), 0)] * 4, batch_size=2)
    with pytest.raises(SettingsError, match=r"model\.spec"):
        trainer().fit(module, loader)


def test_another_task_is_refused():
    module = ImageClassifier(MINI, spec=data(synthetic=Synthetic(classes=7)).spec)
    with pytest.raises(SettingsError, match="the network was made for"):
        fit(module, 1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"optimizer": {"learning_rate": 2}}, r"model\.optimizer\.learning_rate: 2 is not allowed"),
        ({"backbone": {"nam": "x"}}, r"model\.backbone\.nam: unknown setting; nearest: model\.backbone\.name"),
    ],
)
def test_bad_arguments_are_one_line(changes, complaint):
    with pytest.raises(SettingsError, match=complaint):
        ImageClassifier(**changes)


@pytest.mark.slow
def test_stochastic_depth_and_cutmix_resume_bit_identically(tmp_path):
    """Branches that a network drops by itself, without any dropout in the settings."""

    def make():
        backbone = Backbone(name="efficientnet_b0", pretrained=False)
        mixup = MixUp(alpha=0.4, cutmix_alpha=1.0, per_image=True)
        return ImageClassifier(backbone, mixup=mixup), data(resolution=8, augmentation=Augmentation())

    keep = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole, source = make()
    fit(whole, 1, source, callbacks=[keep], enable_checkpointing=True)
    resumed, source = make()
    pl.seed_everything(7, verbose=False)
    torch.rand(5)  # the global stream is somewhere else
    pl.seed_everything(42, verbose=False)
    trainer(1).fit(resumed, datamodule=source, ckpt_path=str(tmp_path / "step=3.ckpt"), weights_only=True)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("step", "limit"), [(2, None), (5, None), (7, None), (14, None), (3, 3), (4, 3)])
def test_resumed_run_is_bit_identical(tmp_path, dropout, step, limit):
    """Five steps per epoch, or three: interrupted in the middle and at the end of an epoch."""

    def make():
        backbone = Backbone(name="mini_cnn", pretrained=False, dropout=dropout)
        return ImageClassifier(backbone, mixup=MixUp(alpha=0.4)), data(augmentation=Augmentation())

    whole, source = make()
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1, save_on_train_epoch_end=False
    )
    log = EpochLog(tmp_path / "whole.csv")
    fit(
        whole,
        3,
        source,
        callbacks=[keep],
        enable_checkpointing=True,
        logger=log,
        log_every_n_steps=1,
        limit_train_batches=limit,
    )
    resumed, source = make()
    log_again = EpochLog(tmp_path / "resumed.csv")
    pl.seed_everything(42, verbose=False)
    one = trainer(3, logger=log_again, log_every_n_steps=1, limit_train_batches=limit)
    one.fit(resumed, datamodule=source, ckpt_path=str(tmp_path / f"{step=}.ckpt"), weights_only=True)
    assert torch.equal(weights(whole), weights(resumed))
    for row, again in zip(log.rows[-len(log_again.rows) :], log_again.rows, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in again.items() if k != "seconds"}


class Others(pl.LightningDataModule):
    """Somebody's own batches."""

    def train_dataloader(self):
        images, labels = torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4)
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)


@pytest.mark.parametrize("ours", [True, False])
def test_a_trainer_warns_of_who_looks_at_batches_only_where_others_bring_them(ours):
    spec = data().spec
    warning_cache.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(ImageClassifier(MINI, spec=spec), 1, data() if ours else Others())
    assert any("on_before_batch_transfer" in str(each.message) for each in told) != ours
