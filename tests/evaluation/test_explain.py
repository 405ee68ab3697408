"""Maps are those of the papers, depend on what the network has learned, and leave the network as it was."""

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import spearmanr
from torch import nn

from tests.evaluation.helpers import evaluation_of
from visionforge.config.schema import Backbone
from visionforge.data.augment import normalise
from visionforge.data.info import DomainFlags, TaskSpec
from visionforge.errors import RunError
from visionforge.evaluation.explain import explain, explanation_method, feature_layer, overlay
from visionforge.models.registry import backbone_names
from visionforge.training.classifier import ImageClassifier

FLAGS = DomainFlags(hflip=True, vflip=False, rotation="none", texture_is_label=False, colour_is_label=False)


def model_of(
    backbone: str, classes: int = 3, resolution: int = 28, task: str = "multi-class", seed: int = 0, resize=None, **more
):
    torch.manual_seed(seed)
    spec = TaskSpec(
        dataset="any",
        task=task,
        classes=tuple(f"class {k}" for k in range(classes)),
        channels=3,
        resolution=resolution,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        flags=FLAGS,
        resize=resize or {},
    )
    model = ImageClassifier(backbone=Backbone(name=backbone, pretrained=False), spec=spec, **more)
    model.configure_model()
    return model.eval()


def pictures(count: int = 2, resolution: int = 28) -> torch.Tensor:
    """Smooth random images, which a network sees more in than in noise."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(coarse, resolution, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def scaled(maps: torch.Tensor, size: int = 28) -> torch.Tensor:
    large = F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    return large / large.flatten(1).amax(1).clamp(min=1e-30)[:, None, None]


def test_grad_cam_of_pooled_features_is_the_class_activation_map():
    model, images = model_of("resnet18"), pictures()
    network = model.network
    kept = {}
    handle = network.layer4.register_forward_hook(lambda m, i, o: kept.update(features=o.detach()))
    with torch.no_grad():
        network(normalise(images, model.spec.mean, model.spec.std))
    handle.remove()
    head = network.fc if isinstance(network.fc, nn.Linear) else network.fc[-1]
    for target in range(3):
        weighted = torch.einsum("c,nchw->nhw", head.weight[target].detach(), kept["features"])
        found = explain(model, images, torch.full((2,), target))
        torch.testing.assert_close(found, scaled(weighted.clamp(min=0)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "swin_v2_t", "mini_cnn"])
def test_grad_cam_is_captums(backbone):
    model, images = model_of(backbone), pictures()
    inputs = normalise(images, model.spec.mean, model.spec.std)
    layer = feature_layer(model.network, inputs[:1])
    reference = captum.attr.LayerGradCam(model.network, layer)
    found = [explain(model, images, torch.full((2,), target)) for target in range(3)]
    for target in range(3):
        theirs = reference.attribute(inputs, target=target, relu_attributions=True)
        torch.testing.assert_close(found[target], scaled(theirs[:, 0].detach()), atol=1e-4, rtol=1e-4)
    assert torch.stack(found).max() == 1  # some class has a map that is not empty


@pytest.mark.parametrize(
    ("backbone", "more"),
    [("mini_cnn", {}), ("vit_tiny", {}), ("mini_cnn", {"task": "ordinal", "loss": {"name": "ordinal"}})],
)
def test_a_training_in_bf16_is_explained_by_its_weights_in_float32(backbone, more):
    model, whole, images = model_of(backbone, **more).to(torch.bfloat16), model_of(backbone, **more), pictures()
    whole.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    torch.testing.assert_close(explain(model, images), explain(whole, images))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_predictions_in_bf16_can_be_evaluated():
    evaluation = evaluation_of(precision=torch.bfloat16)
    for reading in evaluation.readings.values():
        assert reading.probabilities.dtype == reading.shown.dtype == np.float32


def test_rollout_is_that_of_attention_computed_by_hand():
    model, images = model_of("vit_tiny"), pictures()
    network = model.network
    x = network._process_input(normalise(images, model.spec.mean, model.spec.std).float())
    x = torch.cat([network.class_token.expand(len(x), -1, -1), x], dim=1) + network.encoder.pos_embedding
    joint = torch.eye(x.shape[1]).expand(len(x), -1, -1)
    with torch.no_grad():
        for block in network.encoder.layers:
            attention = block.self_attention
            heads, width = attention.num_heads, attention.embed_dim // attention.num_heads
            q, k, _ = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
            q, k = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in (q, k))
            weights = torch.softmax(q @ k.mT / width**0.5, dim=-1).mean(dim=1)
            joint = (weights / 2 + torch.eye(x.shape[1]) / 2) @ joint
            x = block(x)
    side = round((x.shape[1] - 1) ** 0.5)
    patches = joint[:, 0, 1:] - joint[:, 0, 1:].amin(dim=1, keepdim=True)
    expected = scaled(patches.reshape(-1, side, side))
    torch.testing.assert_close(explain(model, images), expected, atol=1e-4, rtol=1e-4)


def test_timms_transformers_attend_as_torchvisions():
    pytest.importorskip("timm")
    model = model_of("timm/vit_tiny_patch16_224", resolution=32)
    assert explanation_method(model) == "attention-rollout"
    fused = [block.attn.fused_attn for block in model.network.blocks]
    maps = explain(model, pictures(resolution=32))
    assert maps.shape == (2, 32, 32)
    assert [block.attn.fused_attn for block in model.network.blocks] == fused


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
def test_randomised_weights_change_the_map(backbone):
    """The sanity check of Adebayo et al. (2018): a map that survives this would show the image alone."""
    images = pictures(4)
    model, other = model_of(backbone, seed=0), model_of(backbone, seed=1)
    for each in (model, other):  # all features speak for class 0, so that there is a map
        *_, weight, _ = each.network.parameters()
        weight.data[0].abs_()
    targets = torch.zeros(4, dtype=torch.int64)
    again = explain(model, images, targets)
    first, second = (explain(each, images, targets) for each in (model, other))
    torch.testing.assert_close(first, again)
    agreement = [spearmanr(one.flatten(), two.flatten()).statistic for one, two in zip(first, second, strict=True)]
    assert np.mean(np.abs(agreement)) < 0.7


@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone_has_a_map(backbone):
    model, images = model_of(backbone), pictures()
    maps = explain(model, images)
    assert maps.shape == (2, 28, 28)
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1
    if explanation_method(model) == "grad-cam":
        each = [explain(model, images, torch.full((2,), target)) for target in range(3)]
        assert len({tuple(maps.flatten().tolist()) for maps in each}) >= 2  # two may be empty: nothing speaks for them


def test_grades_are_explained_by_their_probability():
    model = model_of("resnet18", classes=4, task="ordinal", loss={"name": "ordinal"})
    images = pictures()
    low, high = (explain(model, images, torch.full((2,), grade)) for grade in (0, 3))
    assert not torch.equal(low, high)
    torch.testing.assert_close(
        explain(model, images), explain(model, images, model.predict_probabilities(images)[0].argmax(1))
    )


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
def test_the_model_stays_as_it_was(backbone):
    model = model_of(backbone).train()
    model.network.eval()  # modes that differ
    model.network.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():  # as in a Trainer's evaluation
        explain(model, pictures())
    assert model.training
    assert not any(module.training for module in model.network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sum(hooks) == 0


@pytest.mark.slow
def test_the_map_shows_what_decides():
    """A network that has learned to find a bright square looks at the square."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = torch.randint(0, 60, (count, 3, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.arange(count) % 2
        corners = torch.randint(0, 21, (count, 2), generator=generator)
        for image, label, (top, left) in zip(images, labels, corners.tolist(), strict=True):
            if label:
                image[:, top : top + 7, left : left + 7] = 255
        return images, labels, corners

    model = model_of("mini_cnn", classes=2, task="binary").train()
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(60):
        images, labels, _ = draw(64)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    images, labels, corners = draw(64)
    assert (model(images).argmax(1) == labels).float().mean() > 0.95
    found = labels == 1
    maps = explain(model, images[found], labels[found])
    places = torch.stack([torch.tensor(divmod(int(m.argmax()), 28)) for m in maps])
    distance = (places - (corners[found] + 3)).abs().amax(dim=1)
    assert (distance <= 7).float().mean() > 0.8


def test_a_network_without_a_map_says_so():
    model = model_of("mini_cnn")
    model.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    with pytest.raises(RunError, match="no feature map"):
        explain(model, pictures())


@pytest.mark.parametrize("name", ["mixer_s32_224", "cait_xxs24_224"])
def test_networks_of_other_tokens_are_not_explained(name):
    pytest.importorskip("timm")
    with pytest.raises(RunError, match="no feature map"):
        explain(model_of(f"timm/{name}", resolution=224), pictures(1, 224))


def test_a_class_that_is_none_is_refused():
    with pytest.raises(RunError, match="0 to 2"):
        explain(model_of("mini_cnn"), pictures(), torch.tensor([0, 3]))


@pytest.mark.parametrize("channels", [1, 3])
def test_overlay_leaves_cold_parts_alone(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 28, 28), dtype=np.uint8)
    heat = np.zeros((28, 28), np.float32)
    cold = overlay(image, heat, 56)
    assert cold.shape == (56, 56, 3)
    assert cold.dtype == np.uint8
    enlarged = np.broadcast_to(image.repeat(2, axis=1).repeat(2, axis=2), (3, 56, 56))
    np.testing.assert_array_equal(cold.transpose(2, 0, 1), enlarged)
    heat[10:20, 10:20] = 1
    warm = overlay(image, heat, 56)
    assert (warm[24:36, 24:36] != cold[24:36, 24:36]).any(axis=-1).all()
    np.testing.assert_array_equal(warm[:16], cold[:16])
