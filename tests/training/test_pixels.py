"""Images are taken as people have them, and what the network cannot take is refused in one line."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from tests.training.helpers import MINI, data, fit, trainer
from visionforge.data.info import DomainFlags, TaskSpec
from visionforge.errors import DataError
from visionforge.training.classifier import ImageClassifier

FLAGS = DomainFlags(hflip=True, vflip=False, rotation="none", texture_is_label=False, colour_is_label=False)


def model(channels=3):
    spec = TaskSpec(
        dataset="x", task="binary", classes=("a", "b"), channels=channels, resolution=28, mean=(0.5,) * channels,
        std=(0.25,) * channels, flags=FLAGS,
    )  # fmt: skip
    torch.manual_seed(0)
    module = ImageClassifier(MINI, spec=spec)
    module.configure_model()
    return module


@pytest.mark.parametrize("channels", [1, 3])
def test_every_form_of_the_same_pixels_gives_the_same(channels):
    module = model(channels)
    grey = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    tensor = torch.from_numpy(grey)[:, None]
    wanted = module.predict_probabilities(tensor.expand(-1, channels, -1, -1))
    forms = [grey, grey[..., None], tensor, tensor[:, 0], np.repeat(grey[..., None], channels, axis=3)]
    for form in (*forms, (tensor.expand(-1, channels, -1, -1) / 255 - 0.5) / 0.25):
        for one, two in zip(module.predict_probabilities(form), wanted, strict=True):
            torch.testing.assert_close(one, two)


def test_the_modes_of_the_modules_do_not_matter_and_stay():
    module = model()
    images = np.zeros((4, 28, 28, 3), np.uint8)
    module.eval()
    wanted = module.predict_probabilities(images)[0]
    module.train()
    part = module.network.get_submodule("head").eval()
    assert torch.equal(module.predict_probabilities(images)[0], wanted)
    assert module.training
    assert not part.training


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(4, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(4, 28, 28),
        torch.zeros(4, 3, 28, 28, dtype=torch.int64),
        np.zeros((4, 28, 28), np.float32),
        np.zeros((28, 28), np.uint8),
        np.zeros((4, 28, 28, 4), np.uint8),
    ],
)
def test_everything_else_is_refused(images):
    with pytest.raises(DataError, match=r"^images: "):
        model().predict_probabilities(images)


def test_raw_pixels_of_another_projects_loader_are_trained_with_mixup():
    loader = torch.utils.data.DataLoader(
        list(zip(torch.zeros(32, 3, 16, 16, dtype=torch.uint8), torch.arange(32) % 4, strict=True)), batch_size=8
    )
    module = ImageClassifier(MINI, mixup={"alpha": 0.4, "cutmix_alpha": 0.5}, spec=data().spec)
    trainer(1).fit(module, loader)
    assert torch.isfinite(next(module.parameters())).all()


def test_a_last_smaller_group_of_batches_has_its_mean_gradient():
    """5 batches in groups of 3: the second step is the mean over 2; against plain SGD on the mean loss."""
    module = ImageClassifier(
        MINI, optimizer={"learning_rate": 0.1, "momentum": 0, "weight_decay": 0}, schedule={"name": "constant"},
        mixup={"alpha": 0},
    )  # fmt: skip
    batches = []

    before: list[dict[str, torch.Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:  # the first of the last group
                before.append({k: v.clone() for k, v in pl_module.state_dict().items()})
            batches.append(batch)

    fit(module, 1, accumulate_grad_batches=3, callbacks=[Watch()])
    after = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.load_state_dict(before[0])
    module.train()
    module.zero_grad()
    for images, labels in batches[3:5]:
        (torch.nn.functional.cross_entropy(module(images), labels) / 2).backward()
    for name, p in module.named_parameters():
        torch.testing.assert_close(p - 0.1 * p.grad, after[name], rtol=1e-4, atol=1e-6)
