"""Every backbone sees and costs what the tables say, and is torchvision's network where it is not adapted."""

import pytest
import torch
import torchvision
from torch import nn

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError
from visionforge.models import backbone_entry, backbone_names
from visionforge.models.build import build_network
from visionforge.models.inspect import map_sizes, profile
from visionforge.models.swin import stage_window

BUILTIN = backbone_names()
PUBLISHED = [name for name in BUILTIN if backbone_entry(name).weights]
PUBLISHED_SIZE = {"efficientnet_v2_s": 384, "swin_v2_t": 256}  # at which torchvision counted the operations


def build(name: str, channels: int = 3, resolution: int = 28, **settings) -> nn.Module:
    return build_network(Backbone(name=name, pretrained=False, **settings), channels, 5, resolution)[0]


@pytest.mark.parametrize(("resolution", "adapt"), [(112, True), (64, False)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_unmodified_network_gives_torchvisions_logits(name, resolution, adapt, tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    settings = Backbone(name=name, pretrained=True, weights=str(tmp_path / "weights.pth"), adapt_stem=adapt)
    ours, report = build_network(settings, 3, 1000, resolution)
    head = backbone_entry(name).head
    assert report.resampled == []
    source = theirs.state_dict()
    for part in ("weight", "bias"):
        old = next(key for key in source if key.startswith(head) and key.endswith(part))
        new = next(key for key in ours.state_dict() if key.startswith(head) and key.endswith(part))
        ours.state_dict()[new].copy_(source[old])
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs(images))


def test_at_224_the_standard_resnet_gives_torchvisions_logits(tmp_path):
    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    settings = Backbone(name="resnet18", pretrained=True, weights=str(tmp_path / "weights.pth"))
    ours = build_network(settings, 3, 1000, 224)[0].eval()
    ours.fc[1].load_state_dict(theirs.fc.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_those_that_torchvision_publishes(name):
    entry = backbone_entry(name)
    meta = getattr(torchvision.models, entry.weights).DEFAULT.meta
    found = profile(entry, PUBLISHED_SIZE.get(name, 224))
    assert found.parameters == meta["num_params"]
    assert found.multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)


@pytest.mark.parametrize("resolution", [28, 64, 224])
@pytest.mark.parametrize("name", BUILTIN)
def test_first_stage_sees_a_useful_map_and_the_last_what_the_entry_says(name, resolution):
    entry = backbone_entry(name)
    found = profile(entry, resolution, classes=5)
    first, last = found.maps[0][1], found.maps[-1][1]
    assert first >= (7 if name == "vit_tiny" else 28)
    expected = entry.final_map(resolution, adapt_stem=True)
    assert last in (expected, expected - 1), "two round down where the others round up"
    assert last == expected or name in ("convnext_tiny", "fastnet")
    assert last >= 3


@pytest.mark.slow
def test_adapting_the_stem_divides_the_downsampling():
    entry = backbone_entry("resnet18")
    assert [entry.scale(r, True) for r in (8, 28, 55, 56, 64, 111, 112, 224)] == [4, 4, 4, 2, 2, 2, 1, 1]
    assert entry.scale(28, False) == 1
    assert backbone_entry("mini_cnn").scale(28, True) == 1
    for name in (
        "efficientnet_b0",
        "efficientnet_lite0",
        "mobilenet_v3_small",
        "convnext_tiny",
        "swin_v2_t",
        "vit_tiny",
    ):
        small = profile(backbone_entry(name), 32, classes=5)
        standard = profile(backbone_entry(name), 128, classes=5)
        skip = 1 if name.startswith("efficientnet") else 0  # its first stage lies before the second halving
        assert [side for _, side in small.maps][skip:] == [side for _, side in standard.maps][skip:]


def test_running_statistics_follow_the_images_in_a_short_training():
    """torchvision's momentum of MobileNetV3, 0.01, would leave a third of the first values after a hundred steps."""
    norms = [m for m in build("mobilenet_v3_small").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.1, 1e-3)}


@pytest.mark.parametrize("name", BUILTIN)
def test_dropout_is_in_front_of_the_classifier(name):
    network = build(name, dropout=0.9)
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout) and m.p == 0.9]
    assert len(dropouts) == 1
    network.eval()
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        still = network(images)
        assert torch.equal(still, network(images))
        dropouts[0].train()
        torch.manual_seed(0)
        assert not torch.equal(still, network(images))


def test_windows_divide_the_maps():
    assert [stage_window(side) for side in (28, 14, 7, 4, 32, 11, 13, 10, 1)] == [7, 7, 7, 4, 8, 8, 8, 5, 2]
    network = build("swin_v2_t", resolution=28)
    windows = [m.window_size[0] for m in network.modules() if hasattr(m, "relative_coords_table")]
    assert windows == [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 4, 4]


@pytest.mark.parametrize(("name", "resolution"), [("vit_tiny", 30), ("vit_tiny", 4), ("convnext_tiny", 7)])
def test_sizes_that_do_not_go_are_refused(name, resolution):
    with pytest.raises(SettingsError, match=f"resolution: {resolution} is not allowed for {name}"):
        profile(backbone_entry(name), resolution)


def test_map_sizes_in_words():
    found = profile(backbone_entry("efficientnet_b0"), 28, classes=5)
    assert map_sizes(found) == "28 (×2) → 14 → 7 (×2) → 4 (×3)"
