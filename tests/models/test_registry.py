"""Backbones are added by registering them, and each does what its entry says."""

import pytest
import torch
from torch import nn

from visionforge.config.schema import Backbone
from visionforge.models import BackboneEntry, backbone_entry, backbone_names, register_backbone
from visionforge.models.build import build_network
from visionforge.models.registry import _ENTRIES


def last_map(network: nn.Module, images: torch.Tensor) -> tuple[int, ...]:
    """Return the size of the last convolution's output."""
    sizes = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-2:]))
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return tuple(sizes[-1])


def test_globbing():
    assert backbone_names("*") == ["mini_cnn", "resnet18"]
    assert backbone_names("res*") == ["resnet18"]


@pytest.mark.parametrize("name", backbone_names())
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("adapt", [True, False])
def test_entry_tells_the_truth(name, channels, adapt):
    entry = backbone_entry(name)
    smallest = entry.min_resolution if adapt else entry.min_resolution_standard
    for resolution in (smallest, 28, 64):
        if resolution < smallest:
            continue
        network = build_network(Backbone(name=name, pretrained=False, adapt_stem=adapt), channels, 5, resolution)
        images = torch.randn(2, channels, resolution, resolution)
        assert network(images).shape == (2, 5)
        stride = entry.stride if entry.is_small(resolution, adapt) else entry.stride_standard
        assert last_map(network.eval(), images) == (-(-resolution // stride),) * 2
        names = network.state_dict().keys()
        assert entry.stem in names
        assert any(key.startswith(entry.head) for key in names)


def test_parameter_count_of_the_description():
    network = build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 28)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(94_000, rel=0.02)


@pytest.mark.parametrize("name", backbone_names())
def test_dropout_is_in_the_network(name):
    network = build_network(Backbone(name=name, pretrained=False, dropout=0.9), 3, 4, 28)
    network.train()
    for module in network.modules():  # batch statistics aside, only dropout is random
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images = torch.randn(2, 3, 28, 28)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_a_function_can_be_registered():
    def build(*, in_channels: int, num_classes: int, dropout: float, small: bool) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    entry = BackboneEntry("mine", build, "mine", 8, 8, 1, 1)
    register_backbone(entry)
    try:
        assert build_network(Backbone(name="mine", pretrained=False), 3, 7, 28)(torch.zeros(1, 3, 28, 28)).shape == (
            1,
            7,
        )
        with pytest.raises(ValueError, match="registered already"):
            register_backbone(entry)
    finally:
        del _ENTRIES["mine"]
