"""A network that lies on several processes is trained as one that lies on each, and written whole."""

import os
import signal
import subprocess
import sys
from itertools import pairwise

import lightning.pytorch as pl
import psutil
import pytest
import torch
from torch import nn

from tests.cli.test_elastic import PROGRAM, goes_on, interrupted, progress, trained
from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import wait_for
from visionforge import ImageClassifier, SettingsError, TaskSpec
from visionforge.cli.main import main
from visionforge.config.rules import FULLY_SHARD
from visionforge.training.fully_shard import FullyShardStrategy, _outside_inference, _parts, _without_memory

SHARDED = ["--trainer.devices", "2", "--trainer.strategy", FULLY_SHARD]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
SETTINGS = {
    "data__synthetic__train": 160,
    "data__synthetic__val": 33,  # processes have different numbers of them, and of batches
    "data__synthetic__test": 35,
    "data__batch_size": 16,
    "trainer__max_epochs": 6,
    "trainer__deterministic": "true",
}

needs_processes = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no distributed package"
)
SCRIPT = """
import sys
import lightning.pytorch as pl
import torch
from visionforge import ImageClassifier, ImageDataModule
from visionforge.training.fully_shard import FullyShardStrategy

if __name__ == "__main__":
    sharded, out = sys.argv[1] == "fully_shard", sys.argv[2]
    states = {}
    for name in sys.argv[3:]:
        pl.seed_everything(7)
        data = ImageDataModule("synthetic", synthetic={"train": 192, "val": 17, "test": 16}, batch_size=32,
                               augmentation={"preset": "strong"})
        model = ImageClassifier(backbone={"name": "mini_cnn", "pretrained": False, "dropout": 0.2},
                                optimizer={"name": name, "learning_rate": 0.002}, mixup={"alpha": 0.4})
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", devices=2, logger=False, gradient_clip_val=0.5,
                             strategy=FullyShardStrategy(least_parameters=2000) if sharded else "ddp",
                             accumulate_grad_batches=2, deterministic=True, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(model, datamodule=data)
        if trainer.is_global_zero:
            states |= {f"{name} {key}": value for key, value in model.state_dict().items()}
            stem = next(model.network.parameters())
            assert stem.is_contiguous(memory_format=torch.channels_last), "as it was before"
            loss = trainer.callback_metrics["val/loss"]
            states[f"{name} val/loss"] = loss
    if trainer.is_global_zero:
        torch.save(states, out)
"""


@pytest.mark.slow
@needs_processes
@pytest.mark.parametrize("optimisers", [("muon",), pytest.param(("sgd", "adamw"), marks=EXHAUSTIVE)])
def test_two_processes_learn_what_two_whole_networks_learn(tmp_path, optimisers):
    (tmp_path / "train.py").write_text(SCRIPT)
    states = {}
    for strategy in ("ddp", FULLY_SHARD):
        out = tmp_path / f"{strategy}.pt"
        command = [sys.executable, "train.py", strategy, str(out), *optimisers]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        states[strategy] = torch.load(out, weights_only=True)
    ours, theirs = states[FULLY_SHARD], states["ddp"]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():  # sums of gradients are made in another order, of which a norm makes more
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5 if name.startswith("sgd") else 1e-3)


@pytest.mark.slow
@needs_processes
@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"data__synthetic__task": "ordinal", "model__loss__name": "ordinal"}, marks=EXHAUSTIVE),
        pytest.param({"data__synthetic__task": "segmentation"}, marks=EXHAUSTIVE),
        pytest.param({"trainer__precision": "bf16-mixed"}, marks=EXHAUSTIVE),
    ],
)
def test_a_run_is_tested_predicts_and_is_exported_as_any_other(tmp_path, more):
    settings = flags(**{**SETTINGS, "trainer__max_epochs": 2, **more})
    command = [*PROGRAM, "fit", *settings, *SHARDED, "--trainer.default_root_dir", str(tmp_path / "outputs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = run_folders(tmp_path / "outputs")
    content = trained(run)
    assert all(type(value) is torch.Tensor for value in content["state_dict"].values())
    assert main(["test", "--run", str(run), *ONE]) == 0
    assert main(["predict", "--run", str(run), *ONE]) == 0
    if not more:
        assert main(["export", "--run", str(run), "--format", "safetensors"]) == 0
        model = ImageClassifier.load_from_checkpoint(run / "checkpoints" / "best.ckpt", map_location="cpu")
        assert model(torch.zeros(1, 3, 28, 28)).shape == (1, len(model.spec.classes))


@pytest.mark.slow
@needs_processes
@EXHAUSTIVE
@pytest.mark.parametrize(("batch", "first", "then"), [(16, SHARDED, ONE), (32, ONE, SHARDED)])
def test_a_run_goes_on_sharded_or_not(tmp_path, batch, first, then):
    settings = flags(**{**SETTINGS, "data__batch_size": batch, "trainer__max_epochs": 25})
    run = interrupted(tmp_path, settings, first)
    before = trained(run)
    code, said = goes_on("--resume", run, *then)
    assert code == 0, said[-3000:]
    after = trained(run)
    assert (before["epoch"] < 24, after["epoch"], after["global_step"]) == (True, 24, 25 * 5)
    for content in (before, after):
        (optimiser,) = content["optimizer_states"]
        names = [name for name in content["state_dict"] if name in dict(before["state_dict"])]
        assert names == list(before["state_dict"])
        assert all(type(value) is torch.Tensor for value in content["state_dict"].values())
        assert {type(value) for entry in optimiser["state"].values() for value in entry.values()} == {torch.Tensor}


def trained_epochs(outputs):
    """Return how many epochs the only run has finished, by the checkpoint that lies there."""
    return sum(progress(run) for run in run_folders(outputs))


@pytest.mark.slow
@needs_processes
@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=EXHAUSTIVE)])
def test_killed_again_and_again_it_ends_with_the_same_weights(tmp_path, kills):
    outputs = tmp_path / "outputs"
    settings = flags(**{**SETTINGS, "trainer__max_epochs": kills + 4})
    plain = ["--trainer.default_root_dir", str(tmp_path / "whole")]
    done = subprocess.run([*PROGRAM, "fit", *settings, *SHARDED, *plain], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    begin = [*PROGRAM, "fit", *settings, *SHARDED, "--trainer.default_root_dir", str(outputs), "--resume", "auto"]
    for number in range(kills):
        process = subprocess.Popen(begin, stderr=subprocess.PIPE, text=True, start_new_session=True)
        before = trained_epochs(outputs)
        wait_for(lambda before=before: trained_epochs(outputs) > before, 120)
        children = psutil.Process(process.pid).children()
        os.kill(children[0].pid if number % 2 == 0 else process.pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "Traceback" not in said
        assert said.count("error: process ") == 1
        wait_for(lambda children=children: not any(child.is_running() for child in children), 30)
    done = subprocess.run(begin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,), (whole,) = run_folders(outputs), run_folders(tmp_path / "whole")
    theirs, ours = trained(whole), trained(run)
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("model__averaging__name", "ema", "model.averaging.name: ema keeps a whole second network"),
        ("model__cuda_graphs", "true", "model.cuda_graphs: fully_shard gathers parameters in every pass"),
        ("model__compile", "true", "model.compile: fully_shard trains networks as they are"),
        ("data__synthetic__task", "detection", "trainer.strategy: fully_shard is not for detectors"),
        ("trainer__precision", "16-mixed", "trainer.precision: 16-mixed scales gradients"),
        ("model__finetuning__freeze_epochs", "2", "model.finetuning.freeze_epochs: fully_shard shards what is trained"),
        ("model__warm_start", "linear_probe", "model.warm_start: linear_probe exchanges a layer"),
    ],
)
def test_what_needs_the_network_whole_is_one_line(tmp_path, capsys, setting, value, line):
    settings = flags(**{setting: value}, trainer__default_root_dir=tmp_path)
    assert main(["fit", *settings, *SHARDED]) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parts_are_members_of_sequences_and_inner_ones_come_first():
    inner = nn.Sequential(nn.Linear(100, 100), nn.Linear(2, 2))
    network = nn.ModuleDict({"a": nn.Sequential(inner, nn.ReLU(), nn.Linear(3, 3)), "b": nn.Linear(200, 200)})
    assert _parts(network, 5000) == [inner[0]]  # `b` is called by its network, or not at all
    parts = _parts(network, 6)
    assert parts == [inner[0], inner[1], network["a"][2]]
    assert all(not set(a.parameters()) & set(b.parameters()) for a, b in pairwise(parts))


def test_a_copy_without_memory_has_shapes_ties_and_layout():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    network[3].weight = network[2].weight
    network[0].weight.data = network[0].weight.data.to(memory_format=torch.channels_last)
    network[1].weight.requires_grad_(False)
    copy = _without_memory(network)
    assert {value.device.type for value in copy.state_dict().values()} == {"meta"}
    assert copy[3].weight is copy[2].weight
    assert copy[0].weight.stride() == network[0].weight.stride()
    assert not copy[1].weight.requires_grad
    assert network[0].weight.device.type == "cpu"


class Buffers(pl.LightningModule):
    """A network with a buffer that no checkpoint has, and as many validations as somebody wants."""

    def __init__(self, inner=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) if inner is None else inner
        self.network.register_buffer("table", torch.arange(4), persistent=False)

    def training_step(self, batch, batch_idx):
        return self.network(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.network(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def fit_alone(tmp_path, module, **flags):
    """Train in this process, which is all of the group."""
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=4)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, strategy=FullyShardStrategy(least_parameters=5),
                         default_root_dir=tmp_path, **quiet, **flags)  # fmt: skip
    try:
        trainer.fit(module, batches, batches)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return trainer


@needs_processes
def test_what_no_checkpoint_has_is_there_afterwards(tmp_path):
    module = Buffers()
    fit_alone(tmp_path, module)
    assert module.network.table.tolist() == [0, 1, 2, 3]
    assert all(type(parameter.data) is torch.Tensor for parameter in module.parameters())


def test_what_is_gathered_in_inference_mode_can_be_trained():
    """A GPU validates in inference mode, whose tensors a training step may not change."""
    with torch.inference_mode():
        with _outside_inference():
            gathered = torch.empty(2)
        assert torch.empty(2).is_inference()
    assert not gathered.is_inference()
    assert not gathered.requires_grad


@needs_processes
@pytest.mark.parametrize(
    ("module", "line"),
    [
        (lambda: Buffers(nn.ModuleList([nn.Linear(4, 2)])), "network is a ModuleList"),
        (lambda: Buffers(Scaled()), "cannot divide a single number"),
    ],
)
def test_what_torch_cannot_shard_is_one_line(tmp_path, module, line):
    with pytest.raises(SettingsError, match=line):
        fit_alone(tmp_path, module())


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def test_parameters_of_the_module_itself_are_one_line(tmp_path):
    class Own(ImageClassifier):
        def __init__(self):
            super().__init__(backbone="mini_cnn", spec=TaskSpec(classes=2, resolution=28))
            self.scale = nn.Parameter(torch.ones(()))

    batches = torch.utils.data.DataLoader([(torch.zeros(3, 28, 28), torch.tensor(0))], batch_size=1)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, strategy=FullyShardStrategy(), default_root_dir=tmp_path
    )
    with pytest.raises(SettingsError, match="shards the children of a module, and Own has parameters of its own"):
        trainer.fit(Own(), batches)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
