"""Backbones are added by registering them, by installing a package, or come from a library; unknown ones are told."""

import pytest
import torch
import torchvision
from torch import nn

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError
from visionforge.models import BackboneEntry, backbone_entry, backbone_names, register_backbone
from visionforge.models.build import build_network
from visionforge.models.registry import _ENTRIES, _entry_points
from visionforge.models.stages import stage_names


def build(name: str, channels: int = 3, classes: int = 5, resolution: int = 32, **settings) -> nn.Module:
    return build_network(Backbone(name=name, pretrained=False, **settings), channels, classes, resolution)[0]


def test_globbing():
    assert backbone_names("res*") == ["resnet18", "resnet34", "resnet50"]
    assert set(backbone_names()) >= {"convnext_tiny", "efficientnet_b0", "efficientnet_v2_s", "mini_cnn", "swin_v2_t"}
    assert "torchvision/resnet18" in backbone_names("torchvision/*")
    assert "timm/resnet10t" in backbone_names("timm/resnet*")
    assert not any("/" in name for name in backbone_names("*"))


def test_models_of_torchvision_are_taken_as_they_are():
    torch.manual_seed(0)
    ours = build("torchvision/resnet18", classes=7, resolution=64).eval()
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "squeezenet1_1", "regnet_y_400mf", "densenet121", "googlenet"])
def test_other_models_of_torchvision_take_grey_images_and_dropout(model):
    network = build(f"torchvision/{model}", channels=1, classes=3, resolution=64, dropout=0.5).train()
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 3)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in network.modules())


def test_vision_transformers_of_torchvision_know_their_size():
    entry = backbone_entry("torchvision/vit_b_16")
    assert entry.fixed_size
    assert entry.multiple_of(64, adapt_stem=True) == 16


@pytest.mark.parametrize("model", ["resnet10t", "vit_tiny_patch16_224"])
def test_models_of_timm(model):
    network = build(f"timm/{model}", channels=1, classes=3, resolution=32)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    entry = backbone_entry(f"timm/{model}")
    assert entry.head_of(network) in {("fc.",), ("head.",)}
    assert entry.stem_of(network) in dict(network.named_parameters())
    assert len(stage_names(entry, network)) > 3


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        ("deit_tiny_distilled_patch16_224", {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}),
        ("crossvit_tiny_240", {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}),
        ("volo_d1_224", {"head.weight", "head.bias", "aux_head.weight", "aux_head.bias"}),
    ],
)
def test_both_classifiers_of_a_two_headed_model_are_new(model, heads, tmp_path):
    resolution = int(model.rpartition("_")[2])
    torch.save(build(f"timm/{model}", classes=9, resolution=resolution).state_dict(), tmp_path / "nine.pth")
    settings = Backbone(name=f"timm/{model}", pretrained=True, weights=str(tmp_path / "nine.pth"))
    network, report = build_network(settings, 3, 4, resolution)
    entry = backbone_entry(settings.name)
    head, stages = entry.head_of(network), stage_names(entry, network)
    assert set(report.new) == set(report.unused) == heads
    assert {name for name in network.state_dict() if name.startswith(head)} == heads
    assert not any(f"{stage}.".startswith(head) for stage in stages)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("resnet81", "'resnet81' is unknown; nearest: resnet18"),
        ("torchvision/resnet19", "torchvision has no classification model 'resnet19'; nearest: torchvision/resnet1"),
        ("torchvision/fcn_resnet50", "torchvision has no classification model"),
        ("timm/resnet10x", "timm has no classification model 'resnet10x'; nearest: timm/resnet10t"),
        ("timm/resnet10t.nothing", "timm/resnet10t has no weights tagged 'nothing'; allowed: c3_in1k"),
    ],
)
def test_unknown_names(name, complaint):
    with pytest.raises(SettingsError, match=complaint) as caught:
        backbone_entry(name)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("name", "resolution"), [("torchvision/alexnet", 32), ("timm/inception_v3", 28)])
def test_library_models_say_when_an_image_is_too_small(name, resolution):
    with pytest.raises(SettingsError, match=f"cannot be built for 3×{resolution}×{resolution} images"):
        build(name, resolution=resolution)


def tiny(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
    """Two layers."""
    layers = nn.AdaptiveAvgPool2d(scale), nn.Flatten(), nn.Linear(in_channels * scale**2, num_classes)
    return nn.Sequential(nn.Conv2d(in_channels, in_channels, 1), *layers)


@pytest.fixture
def registry():
    before = dict(_ENTRIES)
    yield
    _ENTRIES.clear()
    _ENTRIES.update(before)


def test_a_function_can_be_registered(registry):
    entry = BackboneEntry("mine", tiny, "mine", adaptable=True)
    register_backbone(entry)
    assert build("mine", classes=7)(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert build("mine").get_submodule("3").in_features == 3 * 16, "the scale of a small image is 4"
    register_backbone(entry)  # again, as by a notebook cell
    changed = BackboneEntry("mine", lambda **_: None, "another")
    with pytest.raises(ValueError, match=r"registered already, with another builder \(.*test_registry.tiny\)"):
        register_backbone(changed)
    register_backbone(changed, replace=True)
    assert backbone_entry("mine").description == "another"
    with pytest.raises(ValueError, match="built in"):
        register_backbone(BackboneEntry("resnet18", tiny, "mine"), replace=True)
    with pytest.raises(ValueError, match="no slash"):
        register_backbone(BackboneEntry("my/net", tiny, "mine"))


def test_a_builder_that_fails_is_one_line(registry):
    def broken(*, in_channels, num_classes, dropout, resolution, scale):
        raise ValueError("too small\nby far")

    def crooked(*, in_channels, num_classes, dropout, resolution, scale):
        return nn.Identity()

    register_backbone(BackboneEntry("crooked", crooked, "crooked", head="x."))
    with pytest.raises(SettingsError, match=r"crooked cannot be built .* gives \(1, 3, 32, 32\) for one image"):
        build("crooked")
    register_backbone(BackboneEntry("broken", broken, "broken"))
    with pytest.raises(SettingsError, match="broken cannot be built for 3×32×32 images: too small") as caught:
        build("broken")
    assert "\n" not in caught.value.problems[0]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with entry points, as pip would have left it."""
    folder = tmp_path / "site"
    info = folder / "other_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[visionforge.backbones]\n"
        "their_net = other_package:their_net\n"
        "their_entry = other_package:ENTRY\n"
        "their_number = other_package:NUMBER\n"
        "their_nothing = nothing_here:x\n"
    )
    (folder / "other_package.py").write_text(
        "from torch import nn\n"
        "from visionforge.models import BackboneEntry\n"
        "def their_net(*, in_channels, num_classes, dropout, resolution, scale):\n"
        "    '''A network of another package.'''\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * resolution**2, num_classes))\n"
        "ENTRY = BackboneEntry('another name', their_net, 'with facts', min_resolution=16)\n"
        "NUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    _entry_points.cache_clear()
    yield
    _entry_points.cache_clear()


def test_installed_packages_bring_backbones(installed):
    assert {"their_net", "their_entry"} <= set(backbone_names("their*"))
    entry = backbone_entry("their_net")
    assert entry.description == "A network of another package."
    assert build("their_net")(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert backbone_entry("their_entry").min_resolution == 16
    assert backbone_entry("their_entry").name == "their_entry"


def test_broken_packages_are_told(installed):
    with pytest.raises(SettingsError, match=r"their_nothing .* cannot be loaded"):
        backbone_entry("their_nothing")
    with pytest.raises(SettingsError, match="neither a function nor a BackboneEntry"):
        backbone_entry("their_number")


def test_networks_that_can_exchange_weights():
    resnet, vit = backbone_entry("resnet18"), backbone_entry("vit_tiny")
    assert resnet.same_shape((28, True), (32, True))
    assert not resnet.same_shape((28, True), (64, True))
    assert resnet.same_shape((64, False), (224, True))
    assert vit.same_shape((28, True), (28, True))
    assert not vit.same_shape((28, True), (32, True))
