"""Staged unfreezing: what is frozen does not move, thaws when it should, and resumes where it was."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from tests.training.helpers import data, fit, trainer, weights
from visionforge.config.schema import Augmentation, Backbone, Finetuning, Optimizer
from visionforge.models.build import build_network
from visionforge.models.registry import backbone_entry
from visionforge.models.stages import stage_names
from visionforge.training.classifier import ImageClassifier
from visionforge.training.finetuning import StagedUnfreezing, frozen_stages, stage_of_parameters
from visionforge.training.mixing.mixup import MixUp

STAGES = ("features.0", "features.4", "features.8")


@pytest.fixture
def weight_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0].state_dict(), path)
    return path


def make(weight_file, **finetuning) -> ImageClassifier:
    return ImageClassifier(
        Backbone(name="mini_cnn", pretrained=True, weights=str(weight_file)),
        Finetuning(**finetuning),
        Optimizer(learning_rate=0.02, weight_decay=0.1),
        mixup=MixUp(alpha=0.0),
    )


class Trace(pl.Callback):
    """Keeps all tensors of the network at the end of every epoch, and its layers' modes."""

    def __init__(self):
        self.epochs, self.training = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({k: v.clone() for k, v in pl_module.network.state_dict().items()})
        self.training.append({k: m.training for k, m in pl_module.network.named_modules()})


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_number_of_frozen_stages_per_epoch():
    staged = Finetuning(freeze_epochs=2, stage_epochs=3)
    assert [frozen_stages(staged, epoch, 4) for epoch in range(13)] == [4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0]
    assert [frozen_stages(Finetuning(freeze_epochs=2), epoch, 4) for epoch in range(4)] == [4, 4, 0, 0]
    assert frozen_stages(Finetuning(), 0, 4) == 0


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny", "vit_tiny", "torchvision/vgg11"])
def test_every_parameter_belongs_to_a_stage_in_order(name):
    network, _ = build_network(Backbone(name=name, pretrained=False), 3, 4, 32)
    entry = backbone_entry(name)
    head, stages = entry.head_of(network), stage_names(entry, network)
    found = stage_of_parameters(network, head, stages)
    assert {stage for stage in found.values() if stage is not None} == set(range(len(stages)))
    assert {n for n, stage in found.items() if stage is None} == {n for n in found if n.startswith(head)}
    order = [stage for stage in found.values() if stage is not None]
    assert order == sorted(order)


def test_classifier_first_then_stage_by_stage(weight_file):
    module, trace = make(weight_file, freeze_epochs=1, stage_epochs=1), Trace()
    fit(module, 4, callbacks=[trace])
    moved = [changed(a, b) for a, b in zip(trace.epochs[:-1], trace.epochs[1:], strict=True)]
    first = changed(torch.load(weight_file, weights_only=True), trace.epochs[0])
    assert first == {"head.1.weight", "head.1.bias"}
    for epoch, thawed in enumerate((("features.8", "features.9"), ("features.4", "features.5"), ("features.0",))):
        for stage in ("features.0", "features.4", "features.8"):
            expected = stage in thawed or (epoch > 0 and stage == "features.8") or (epoch > 1 and stage == "features.4")
            assert any(name.startswith(f"{stage}.") for name in moved[epoch]) == expected, (epoch, stage)
    assert {"features.1.running_mean", "features.1.running_var"} & moved[1] == set()
    assert "features.1.running_mean" in moved[2]


def test_frozen_layers_run_in_evaluation_mode_and_thawed_ones_do_not(weight_file):
    module, trace = make(weight_file, freeze_epochs=1), Trace()
    fit(module, 2, callbacks=[trace])
    assert not any(trace.training[0][f"features.{i}"] for i in (0, 1, 4, 5, 8, 9))
    assert all(trace.training[1][f"features.{i}"] for i in (0, 1, 4, 5, 8, 9))


class Dropping(pl.LightningModule):
    """Two stages, each with a layer that drops, and a classifier."""

    def __init__(self):
        super().__init__()
        stage = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5))
        self.network = nn.ModuleDict({"first": stage, "second": copy.deepcopy(stage), "head": nn.Linear(4, 2)})


def test_thawed_stages_drop_and_measure_again():
    module = Dropping()
    callback = StagedUnfreezing(Finetuning(freeze_epochs=1, stage_epochs=1), "head.", ("first", "second"))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    modes = []
    for epoch in range(3):
        callback.finetune_function(module, epoch, optimizer)
        modes.append({name: m.training for name, m in module.network.named_modules() if name.count(".") == 1})
    for layer in range(3):
        assert [mode[f"second.{layer}"] for mode in modes] == [False, True, True]
        assert [mode[f"first.{layer}"] for mode in modes] == [False, False, True]


def test_backbone_rate_slows_the_backbone(weight_file):
    rates = {}
    for share in (1.0, 0.01):
        module = make(weight_file, backbone_rate=share)
        fit(module, 1)
        start = torch.load(weight_file, weights_only=True)["features.4.weight"]
        rates[share] = float((module.network.features[4].weight.detach() - start).norm())
    assert rates[0.01] < 0.05 * rates[1.0]


@pytest.mark.parametrize("step", [3, 5, 7, 13])
def test_resumed_finetuning_is_bit_identical(weight_file, tmp_path, step):
    settings = {"freeze_epochs": 1, "stage_epochs": 1}
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1, save_on_train_epoch_end=False
    )
    whole = make(weight_file, **settings)
    fit(whole, 3, data(augmentation=Augmentation()), callbacks=[keep], enable_checkpointing=True)
    resumed = make(weight_file, **settings)
    pl.seed_everything(42, verbose=False)
    trainer(3).fit(
        resumed,
        datamodule=data(augmentation=Augmentation()),
        ckpt_path=str(tmp_path / f"{step=}.ckpt"),
        weights_only=True,
    )
    assert torch.equal(weights(whole), weights(resumed))
    for one, two in zip(whole.buffers(), resumed.buffers(), strict=True):
        assert torch.equal(one, two)
