"""Every backbone at every size, and with both numbers of channels: one step of a real fit, a checkpoint, and back."""

import pytest
import torch

from tests.training.helpers import PLAIN, data, fit, weights
from visionforge.config.schema import Backbone, Optimizer, Synthetic
from visionforge.models import backbone_names
from visionforge.training.classifier import ImageClassifier
from visionforge.training.mixing.mixup import MixUp


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (28, 3), (64, 1), (64, 3), (224, 3)])
@pytest.mark.parametrize("name", backbone_names())
def test_fit_step_checkpoint_reload(name, resolution, channels, tmp_path):
    source = data(
        resolution=resolution,
        batch_size=2,
        augmentation=PLAIN,
        force_rgb=False,
        synthetic=Synthetic(channels=channels, train=4, val=2, test=2),
    )
    module = ImageClassifier(
        Backbone(name=name, pretrained=False), optimizer=Optimizer(learning_rate=0.01), mixup=MixUp(alpha=0), tta=False
    )
    module.bind(source.spec)
    module.configure_model()
    before = {key: value.clone() for key, value in module.named_parameters()}
    missing = []
    module.on_before_optimizer_step = lambda _: missing.extend(  # type: ignore[method-assign]
        key for key, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    )
    one = fit(module, 1, source, max_steps=1)
    assert one.global_step == 1
    assert missing == [], "every parameter has a finite gradient"
    assert weights(module).isfinite().all()
    moved = sum(not torch.equal(before[key], value) for key, value in module.named_parameters())
    assert moved > 0.9 * len(before), "a bias in front of a normalisation may stay"
    one.save_checkpoint(tmp_path / "x.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    images = source.dataset_for("test").images
    with torch.no_grad():
        logits = module.eval()(images)
        assert logits.shape == (2, 4)
        assert torch.equal(again(images), logits)
