"""What a GPU is asked to do in a step, as far as a machine without one can tell, and graphs by a stand-in."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import flags
from visionforge import ImageClassifier, ImageDataModule
from visionforge.cli.main import main
from visionforge.errors import SettingsError
from visionforge.training import classifier
from visionforge.training.cuda_graphs import MOST_FORMS, GraphedNetwork, ReplayedForward

IMAGES = {"train": 64, "val": 32, "test": 32}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Transfers(TorchDispatchMode):
    """Notes what is sent from the processor to tensors without memory, which stand for those of a GPU.

    Whatever has to look at a value, which would wait for the GPU, fails with them.
    """

    def __init__(self):
        super().__init__()
        self.waited, self.sent = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        copied = func.overloadpacket._qualified_op_name == "aten::_to_copy"
        if copied and found.device.type == "meta" and args[0].device.type == "cpu":
            self.sent += 1
            self.waited += not kwargs.get("non_blocking", False)
        return found


@pytest.mark.parametrize(
    ("augmentation", "settings", "sent"),
    [
        ("strong", {"mixup": {"alpha": 0}}, 0),
        ({"flip_mode": "alternating"}, {"mixup": {"alpha": 0}}, 0),
        ("none", {"loss": "focal", "mixup": {"alpha": 0}}, 0),
        ("standard", {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}}, 2),
        ("standard", {"mixup": {"alpha": 0.4, "cutmix_alpha": 1.0, "per_image": True}}, 3),
    ],
)
def test_a_step_waits_for_nothing(augmentation, settings, sent):
    """Images and labels lie on the device; what a batch is mixed by is sent there, and not waited for."""
    data = ImageDataModule("synthetic", synthetic=IMAGES, batch_size=16, augmentation=augmentation)
    data.setup("fit")
    data.train_dataloader()  # weighs the images while their labels are at hand
    data.dataset_for("train").to(torch.device("meta"))
    model = ImageClassifier(backbone="mini_cnn", spec=data.spec, **settings)
    model.configure_model()
    model.to("meta").train()
    model._trainer = SimpleNamespace(
        accumulate_grad_batches=1, num_training_batches=4, current_epoch=0, global_rank=0, world_size=1
    )
    batches = iter(data.train_dataloader())
    with Transfers() as found:
        for step, batch in zip(range(3), batches, strict=False):
            assert batch[0].device.type == "meta"
            if step == 1:  # the first one sends what stays there
                found.sent = found.waited = 0
            model.training_step(data.augment_pairs(*batch, 0, step), step).backward()
    assert found.waited == 0
    assert found.sent == 2 * sent


def test_batches_of_a_device_are_those_of_the_loader():
    """Whole, and from the middle of an epoch on; tensors without memory are compared by what was asked for."""
    data = ImageDataModule("synthetic", synthetic=IMAGES, batch_size=12)
    data.setup("fit")
    dataset, asked = data.dataset_for("train"), []
    on_cpu = [labels for _, labels in data.train_dataloader()]

    class OnDevice(type(dataset)):
        device = torch.device("meta")

        def at(self, positions):
            asked.append(positions)
            return super().at(torch.zeros(len(positions), dtype=torch.int64))

    loader = data.train_dataloader()
    dataset.__class__ = OnDevice
    assert len(list(loader)) == len(on_cpu) == 5
    assert [len(positions) for positions in asked] == [12] * 5
    loader.load_state_dict({"batches": 3})
    assert len(list(loader)) == 2


class StandIn:
    """Captures nothing, but does to the network what a capture does to it."""

    def __init__(self):
        self.captures, self.replays = 0, 0

    def __call__(self, network: nn.Module, sample: Tensor):
        self.captures += 1
        for _ in range(3):
            network(sample).sum().backward(inputs=[p for p in network.parameters() if p.requires_grad])
        for p in network.parameters():
            p.grad = None

        def replayed(images):
            self.replays += 1
            return network(images)

        return replayed


@pytest.fixture
def stand_in(monkeypatch):
    found = StandIn()
    monkeypatch.setattr(classifier, "GraphedNetwork", lambda: GraphedNetwork(found))
    monkeypatch.setattr(classifier, "require_graphs", lambda trainer, detects: None)
    return found


def trained(callbacks=(), dropout=0.0, **settings):
    pl.seed_everything(3)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=list(callbacks),
    )  # fmt: skip
    small = {"name": "mini_cnn", "pretrained": False, "dropout": dropout}
    model = ImageClassifier(backbone=small, mixup={"alpha": 0.2}, **settings)
    data = ImageDataModule(dataset="synthetic", synthetic=IMAGES, batch_size=16, resolution=8)
    trainer.fit(model, datamodule=data)
    return trainer, model, data


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_numbers_and_names_are_those_of_the_network_itself(stand_in):
    _, plain, _ = trained(dropout=0.3)
    trainer, model, data = trained(dropout=0.3, cuda_graphs=True)
    assert (stand_in.captures, stand_in.replays) == (1, 12), "training passes alone"
    assert same(plain, model)
    assert "forward" not in vars(model.network)
    trainer.test(model, datamodule=data, verbose=False)
    assert stand_in.replays == 12


def test_what_is_trained_later_is_captured_anew_and_averages_are_taken(stand_in):
    settings = {"finetuning": {"freeze_epochs": 1}, "averaging": "ema"}
    plain, graphed = (trained(cuda_graphs=on, **settings)[1] for on in (False, True))
    assert 2 <= stand_in.captures <= MOST_FORMS
    assert same(plain, graphed)


def test_network_is_itself_after_a_training_that_was_ended(stand_in):
    class Ending(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            self.module = module
            raise RuntimeError("ended")

    ending = Ending()
    with pytest.raises(RuntimeError, match="ended"):
        trained([ending], cuda_graphs=True)
    assert "forward" not in vars(ending.module.network)


def test_batches_of_many_forms_are_not_all_captured():
    found, network = StandIn(), nn.Linear(3, 2)
    forward = ReplayedForward(network, found)
    for size in (4, 5, 6, 7, 8, 9, 4):
        forward(torch.randn(size, 3))
    assert (found.captures, found.replays) == (MOST_FORMS, MOST_FORMS + 1)
    network.eval()
    forward(torch.randn(4, 3))
    network.train()
    with torch.no_grad():
        forward(torch.randn(4, 3))
    assert found.replays == MOST_FORMS + 1


def test_compiled_networks_leave_the_graphs_to_the_compiler(monkeypatch):
    asked = {}
    monkeypatch.setattr(nn.Module, "compile", lambda self, **given: asked.update(given))
    monkeypatch.setattr(classifier, "require_graphs", lambda trainer, detects: None)
    trained(cuda_graphs=True, compile=True)
    assert asked == {"backend": "inductor", "mode": "reduce-overhead"}
    trained(compile=True)
    assert asked["mode"] is None


def test_a_trainer_on_the_processor_is_told(capsys, tmp_path):
    with pytest.raises(SettingsError, match="needs a GPU, the device is the CPU"):
        trained(cuda_graphs=True)
    more = ["--trainer.accumulate_grad_batches", "2", "--trainer.devices", "2"]
    arguments = flags(model__cuda_graphs="true", trainer__default_root_dir=tmp_path)
    assert main(["fit", *arguments, *more]) == 2
    told = capsys.readouterr().err
    for reason in ("needs a GPU, the device is the CPU", "accumulate_grad_batches to 1", "2 are trained on"):
        assert reason in told
    assert not list(tmp_path.iterdir())


@GPU
def test_a_gpu_gives_the_numbers_of_its_kernels():
    small = {"name": "resnet18", "pretrained": False}
    networks = []
    for graphs in (False, True):
        pl.seed_everything(3)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="gpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False,
        )  # fmt: skip
        data = ImageDataModule(dataset="synthetic", synthetic=IMAGES, batch_size=16, cache="device")
        model = ImageClassifier(backbone=small, cuda_graphs=graphs)
        trainer.fit(model, datamodule=data)
        networks.append(model.cpu().state_dict())
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


@GPU
def test_a_gpu_is_not_waited_for():
    class Watching(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            torch.cuda.set_sync_debug_mode("error" if index == 2 else "default")

        def on_train_batch_end(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    trainer = pl.Trainer(
        max_epochs=1, accelerator="gpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[Watching()],
    )  # fmt: skip
    data = ImageDataModule(dataset="synthetic", synthetic=IMAGES, batch_size=8, cache="device")
    trainer.fit(ImageClassifier(backbone={"name": "resnet18", "pretrained": False}), datamodule=data)


@GPU
def test_a_gpu_draws_what_the_processor_draws():
    data = ImageDataModule("synthetic", synthetic=IMAGES, augmentation="strong")
    images = torch.randint(0, 256, (8, 3, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(data.augment(images.cuda(), 1, 2).cpu(), data.augment(images, 1, 2), rtol=0, atol=2e-3)
