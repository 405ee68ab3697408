"""Feature maps of backbones, the decoders over them, and networks with logits of every pixel."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import visionforge as vf
from tests.models.helpers import build, published, saved
from visionforge.config.schema import Backbone, Decoder, Optimizer, RunSettings
from visionforge.errors import SettingsError, WeightsError
from visionforge.models import registry
from visionforge.models.decoder_layers import resize
from visionforge.models.dense import build_dense_network, require_brought_dense
from visionforge.models.features import FeatureExtractor
from visionforge.models.fpn import FpnDecoder
from visionforge.models.parts import decoding_network
from visionforge.models.registry import BackboneEntry, backbone_entry, register_backbone
from visionforge.models.stages import parts_of, stage_names
from visionforge.models.unet import UNetDecoder
from visionforge.models.volumes import channels_last, to_channels_last
from visionforge.runs.config_hash import digest
from visionforge.training.finetuning import stage_of_parameters
from visionforge.training.parameter_groups import parameter_groups

DECODERS = ("unet", "fpn")


def dense(name="mini_cnn", decoder="unet", channels=3, outputs=4, resolution=28, spatial_dims=2, **changes):
    settings = Backbone.model_validate({"name": name, "pretrained": "weights" in changes, **changes})
    given = decoder if isinstance(decoder, Decoder) else Decoder(name=decoder)
    return build_dense_network(settings, given, channels, outputs, resolution, spatial_dims=spatial_dims)[0]


# --- feature maps

MAPS = [  # backbone, pixels, adapted stem, channels, strides
    ("fastnet", 28, True, (64, 128, 256, 256), (1, 2, 4, 8)),
    ("mini_cnn", 28, True, (32, 64, 128), (1, 2, 4)),
    ("mini_cnn", 50, True, (32, 64, 128), (1, 2, 4)),
    ("resnet18", 28, True, (64, 128, 256, 512), (1, 2, 4, 8)),
    ("resnet18", 28, False, (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    ("resnet18", 50, True, (64, 128, 256, 512), (1, 2, 4, 8)),
    ("resnet18", 64, True, (64, 128, 256, 512), (2, 4, 8, 16)),
    ("resnet18", 256, True, (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    ("resnet50", 64, True, (256, 512, 1024, 2048), (2, 4, 8, 16)),
    ("efficientnet_b0", 28, True, (24, 40, 112, 1280), (1, 2, 4, 8)),
    ("efficientnet_b0", 64, True, (16, 24, 40, 112, 1280), (1, 2, 4, 8, 16)),
    ("efficientnet_b0", 256, True, (16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
    ("efficientnet_lite0", 28, True, (24, 40, 112, 1280), (1, 2, 4, 8)),
    ("efficientnet_lite0", 256, True, (16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
    ("mobilenet_v3_small", 28, True, (16, 24, 48, 576), (1, 2, 4, 8)),
    ("mobilenet_v3_small", 256, True, (16, 16, 24, 48, 576), (2, 4, 8, 16, 32)),
    ("convnext_tiny", 28, True, (96, 192, 384, 768), (1, 2, 4, 8)),
    ("convnext_tiny", 64, True, (96, 192, 384, 768), (2, 4, 8, 16)),
    ("convnext_tiny", 256, True, (96, 192, 384, 768), (4, 8, 16, 32)),
    ("swin_v2_t", 28, True, (96, 192, 384, 768), (1, 2, 4, 8)),
    ("torchvision/squeezenet1_1", 64, True, (64, 128, 256, 512), (2, 4, 8, 16)),
    ("torchvision/densenet121", 64, True, (64, 128, 256, 512, 1024), (2, 4, 8, 16, 32)),
]


@pytest.mark.parametrize(("name", "resolution", "adapt", "channels", "strides"), MAPS)
def test_maps_are_found_one_a_stride(name, resolution, adapt, channels, strides):
    network = build(name, resolution=resolution, adapt_stem=adapt)
    encoder = FeatureExtractor(network, backbone_entry(name).head_of(network), 3, resolution).eval()
    assert (encoder.channels, encoder.strides) == (channels, strides)
    with torch.no_grad():
        maps = encoder(torch.randn(2, 3, resolution, resolution))
    assert [found.shape[:2] for found in maps] == [(2, count) for count in channels]
    for found, stride in zip(maps, strides, strict=True):
        assert found.shape[2] == found.shape[3]
        assert abs(found.shape[2] - resolution / stride) <= 1, "rounded by at most a pixel"


def test_maps_are_those_of_the_stages():
    network = build("resnet18", resolution=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = network.relu(network.bn1(network.conv1(images)))
        expected = []
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            found = stage(found)
            expected.append(found)
        maps = FeatureExtractor(copy.deepcopy(network), ("fc.",), 3, 64).eval()(images)
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


def test_maps_of_swin_have_their_channels_in_front():
    network = build("swin_v2_t", resolution=28).eval()
    images = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        first = network.features[1](network.features[0](images))
        maps = FeatureExtractor(copy.deepcopy(network), ("head.",), 3, 28).eval()(images)
    assert torch.equal(maps[0], first.permute(0, 3, 1, 2))


def test_looking_leaves_modes_statistics_and_generator_alone():
    network = build("resnet18")
    network.layer2.eval()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    encoder = FeatureExtractor(network, ("fc.",), 3, 28)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert not network.layer2.training
    assert not any(module._forward_hooks for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


class Theirs(nn.Module):
    """Somebody's network: functions between the layers, one layer called twice, an order of its own."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.head = nn.Linear(24, num_classes)
        self.halve = nn.MaxPool2d(2)
        self.second = nn.Conv2d(12, 24, 3, padding=1)
        self.first = nn.Conv2d(in_channels, 12, 3, padding=1)
        self.never = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, images):
        found = self.halve(F.relu(self.first(images)))
        found = self.halve(F.relu(self.second(found)))
        return self.head(found.mean(dim=(2, 3))) if self.scale is None else self.head(found.mean((2, 3))) * self.scale


class Body(nn.Module):
    """A network whose layers lie in a module that is no sequence, and gives the last map."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.body = Theirs(in_channels, num_classes)
        self.body.forward = self._last_map
        self.head = nn.Linear(24, num_classes)

    def _last_map(self, images):
        found = self.body.halve(F.relu(self.body.first(images)))
        return self.body.halve(F.relu(self.body.second(found)))

    def forward(self, images):
        return self.head(self.body(images).mean(dim=(2, 3)))


class Flat(nn.Module):
    """A network that gives one map only."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 3, padding=1)

    def forward(self, images):
        return self.conv(images).mean(dim=(2, 3))


@pytest.fixture
def theirs(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    for name, kind in (("theirs", Theirs), ("body", Body), ("flat", Flat)):

        def make(*, in_channels, num_classes, dropout, resolution, scale, kind=kind):
            return kind(in_channels, num_classes)

        register_backbone(BackboneEntry(name, make, "theirs", head="" if kind is Flat else "head."))


def test_a_module_that_is_no_sequence_is_looked_into(theirs):
    network = dense("body", resolution=30)
    assert (network.encoder.channels, network.encoder.strides) == ((12, 24, 24), (1, 2, 4))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_network_of_somebody_gives_maps_too(theirs, decoder):
    network = dense("theirs", decoder, resolution=30)
    assert (network.encoder.channels, network.encoder.strides) == ((12, 24, 24), (1, 2, 4))
    assert {name.split(".")[2] for name, _ in network.encoder.named_parameters(prefix="x")} == {"first", "second"}
    assert network(torch.randn(2, 3, 30, 30)).shape == (2, 4, 30, 30)


# --- networks


def shapes(decoder, names, sizes):
    return [(name, decoder, size) for name in names for size in sizes]


@pytest.mark.parametrize(
    ("name", "decoder", "resolution"),
    [
        *shapes("unet", ("resnet18", "mini_cnn", "efficientnet_b0"), (28, 50, 64)),
        *shapes("fpn", ("resnet18", "mini_cnn"), (28, 50, 64)),
        *shapes("unet", ("convnext_tiny",), (50,)),
        *shapes("fpn", ("efficientnet_b0", "swin_v2_t"), (50,)),
        *shapes("unet", ("resnet18", "efficientnet_b0"), (256,)),
        *shapes("fpn", ("convnext_tiny", "mini_cnn"), (256,)),
    ],
)
def test_logits_have_the_sides_of_the_images_and_every_parameter_gets_a_gradient(name, decoder, resolution):
    network = dense(name, decoder, channels=1, outputs=3, resolution=resolution)
    count = 1 if resolution == 256 else 2
    logits = network(torch.randn(count, 1, resolution, resolution))
    assert logits.shape == (count, 3, resolution, resolution)
    (logits * torch.randn_like(logits)).sum().backward()
    assert [n for n, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("name", "convolution"), [("mini_cnn", "3d"), ("resnet18", "3d"), ("mini_cnn", "acs")])
def test_volumes_are_decoded_too(name, convolution, decoder):
    side = 18  # not divided by the strides
    network = dense(name, decoder, 1, 2, side, spatial_dims=3, volume_convolution=convolution)
    volumes = torch.randn(2, 1, side, side, side)
    logits = network(volumes)
    assert logits.shape == (2, 2, side, side, side)
    torch.testing.assert_close(to_channels_last(network)(channels_last(volumes)), logits, rtol=1e-4, atol=1e-4)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "name", ["resnet18", "mini_cnn", "efficientnet_b0", "convnext_tiny", "swin_v2_t", "torchvision/vgg11"]
)
def test_nothing_of_the_classifier_is_left_and_the_encoder_keeps_its_names(name):
    side = 32
    classifier, network = build(name, resolution=side), dense(name, resolution=side)
    head = backbone_entry(name).head_of(classifier)
    encoder = network.encoder.network.state_dict()
    assert set(encoder) < set(classifier.state_dict())
    assert not [key for key in encoder if key.startswith(head)]
    assert {key.split(".")[0] for key in network.state_dict()} == {"encoder", "decoder"}
    if name == "convnext_tiny":  # whose last normalisation belongs to the classifier as well
        assert set(classifier.state_dict()) - set(encoder) == {
            *(f"classifier.0.{leaf}" for leaf in ("weight", "bias")),
            *(f"classifier.2.1.{leaf}" for leaf in ("weight", "bias")),
        }


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_same_seed_gives_the_same_network(decoder):
    built = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        built.append(torch.cat([p.detach().flatten() for p in dense(decoder=decoder).parameters()]))
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


def test_width_changes_the_network():
    for name, kind in Decoder.family.kinds.items():
        counts = [sum(p.numel() for p in dense(decoder=kind(width=width)).decoder.parameters()) for width in (8, 12)]
        assert counts[0] < counts[1], name
    widths = [level[0].out_channels for level in dense("resnet18", "unet", resolution=64).decoder.levels]
    assert widths == [256, 128, 64, 32]
    assert [level[0].out_channels for level in dense(decoder=Decoder(name="unet", width=200)).decoder.levels] == [
        256,
        200,
    ]
    assert dense(decoder="fpn").decoder.lateral[0].out_channels == 64


@pytest.mark.parametrize("decoder", DECODERS)
def test_dropout_drops_in_training_only(decoder):
    torch.manual_seed(0)
    network = dense(decoder=Decoder(name=decoder, dropout=0.5))
    plain = dense(decoder=Decoder(name=decoder, dropout=0.0))
    plain.load_state_dict(network.state_dict())
    images = torch.randn(4, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), plain.eval()(images))
        assert not torch.equal(network.train()(images), plain.train()(images))
        assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize("field", ["dropout", "width"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_settings_are_bounded(decoder, field):
    values = {"dropout": (-0.1, 0.95), "width": (7, 257)}[field]
    for value in values:
        with pytest.raises(ValueError, match=field):
            Decoder(name=decoder, **{field: value})


def test_a_copy_of_the_network_looks_at_its_own_modules():
    network = dense().eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(network(torch.ones(1, 3, 28, 28)), twin(torch.ones(1, 3, 28, 28)))
        assert not twin(torch.ones(1, 3, 28, 28)).any()


# --- references


def test_unet_is_a_reference_written_by_hand():
    """Two levels in double precision, in training mode, by sums over pixels and matrix products only."""
    torch.manual_seed(3)
    fine, coarse = torch.randn(3, 4, 7, 7, dtype=torch.float64), torch.randn(3, 5, 4, 4, dtype=torch.float64)
    decoder = UNetDecoder((4, 5), (1, 2), outputs=2, width=6, dropout=0.0).double()
    state = {name: value.numpy().copy() for name, value in decoder.state_dict().items()}
    found = decoder([fine, coarse], (7, 7)).detach().numpy()

    expected = np.concatenate([fine.numpy(), enlarged(coarse.numpy(), 7)], axis=1)
    for position in (0, 3):
        expected = correlated(expected, state[f"levels.0.{position}.weight"])
        mean = expected.mean((0, 2, 3), keepdims=True)
        expected = (expected - mean) / np.sqrt(((expected - mean) ** 2).mean((0, 2, 3), keepdims=True) + 1e-5)
        expected = np.maximum(expected, 0)  # the affine part is one and zero at first
    expected = correlated(expected, state["classifier.1.weight"]) + state["classifier.1.bias"][:, None, None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_fpn_is_a_reference_written_by_hand():
    torch.manual_seed(4)
    fine, coarse = torch.randn(2, 3, 7, 7, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    decoder = FpnDecoder((3, 5), (2, 4), outputs=2, width=16, dropout=0.0).double()
    state = {name: value.numpy().copy() for name, value in decoder.state_dict().items()}
    found = decoder([fine, coarse], (13, 13)).detach().numpy()

    def layer(name, maps):
        return correlated(maps, state[f"{name}.weight"]) + state.get(f"{name}.bias", np.zeros(1))[:, None, None]

    below = layer("lateral.1", coarse.numpy())
    above = layer("lateral.0", fine.numpy()) + enlarged(below, 7)
    total = 0
    for level, maps in enumerate((above, below)):
        step = layer(f"branches.{level}.0.0", layer(f"smooth.{level}", maps))
        groups = step.reshape(2, 2, -1)  # of eight channels
        groups = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
        total = total + enlarged(np.maximum(groups.reshape(step.shape), 0), 7)
    np.testing.assert_allclose(found, enlarged(layer("classifier.1", total), 13), rtol=0, atol=1e-12)


def correlated(maps, kernel):
    """A convolution as in networks, padded with zeros, as a sum over the kernel's positions."""
    side, reach = kernel.shape[-1], kernel.shape[-1] // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    height, width = maps.shape[2:]
    return sum(
        np.einsum("nihw,oi->nohw", padded[:, :, y : y + height, x : x + width], kernel[:, :, y, x])
        for y in range(side)
        for x in range(side)
    )


def enlarged(maps, side):
    """Bilinear interpolation between pixel centres, as a matrix for every axis."""
    old = maps.shape[-1]
    matrix = np.zeros((side, old))
    for row in range(side):
        place = min(max((row + 0.5) * old / side - 0.5, 0), old - 1)
        low = int(place)
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, old - 1)] += place - low
    return np.einsum("nchw,yh,xw->ncyx", maps, matrix, matrix)


@pytest.mark.parametrize(("old", "new"), [((3, 4, 5), (6, 8, 10)), ((4, 4, 4), (7, 7, 7)), ((5, 3, 4), (3, 3, 9))])
def test_volumes_are_resized_as_torch_does_it(old, new):
    maps = torch.randn(2, 3, *old, dtype=torch.float64, requires_grad=True)
    own, expected = resize(maps, new), F.interpolate(maps, size=new, mode="trilinear", align_corners=False)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-12)
    assert resize(maps, old) is maps


@pytest.mark.parametrize("decoder", DECODERS)
def test_convolutions_in_front_of_a_relu_are_drawn_as_he_et_al_do(decoder):
    layers = [layer for layer in dense(decoder=decoder).decoder.modules() if isinstance(layer, nn.Conv2d)]
    found = [layer for layer in layers if layer.bias is None]
    assert found
    for layer in found:
        assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.1)


# --- first weights


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny"])
def test_pretrained_weights_are_those_of_the_classifier(name, tmp_path):
    file = saved(published(name), tmp_path / "weights.pth")
    classifier = build(name, weights=file)
    settings = Backbone(name=name, weights=file)
    network, report = build_dense_network(settings, Decoder(), 3, 4, 28)
    expected = classifier.state_dict()
    encoder = network.encoder.network.state_dict()
    assert encoder
    assert all(torch.equal(value, expected[key]) for key, value in encoder.items())
    assert report.sha256
    assert set(encoder) == {*report.loaded, *report.resampled, *report.new}
    assert not report.new
    assert any(key.startswith(backbone_entry(name).head_of(classifier)[0]) for key in report.unused)


def test_a_training_of_masks_gives_a_classifier_its_first_weights(tmp_path):
    """The checkpoint's module holds the network, and perhaps more."""
    network = dense("resnet18")
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    classifier = build("resnet18", weights=str(tmp_path / "best.ckpt"))
    encoder = network.encoder.network.state_dict()
    assert all(torch.equal(classifier.state_dict()[key], value) for key, value in encoder.items())


# --- refusals

ALLOWED = (
    "convnext_tiny, efficientnet_b0, efficientnet_lite0, efficientnet_v2_s, fastnet, mini_cnn, mobilenet_v3_small, "
    "resnet18, resnet34, resnet50, swin_v2_t"
)


def refused(*asked, **changes):
    with pytest.raises(SettingsError) as caught:
        dense(*asked, **changes)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", ["vit_tiny", "torchvision/vit_b_16"])
def test_transformers_of_one_size_are_refused(name):
    line = refused(name, resolution=32)
    start = f"model.backbone.name: {name} gives no feature maps of falling size, which a decoder needs; allowed: "
    assert line == start + ALLOWED


def test_a_network_with_a_single_map_is_refused(theirs):
    assert refused("flat").startswith("model.backbone.name: flat gives no feature maps of falling size")


def test_a_backbone_of_images_is_refused_for_volumes():
    line = refused("convnext_tiny", resolution=16, spatial_dims=3)
    assert line.startswith("model.backbone.name: convnext_tiny does not take volumes; allowed: ")


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match="unet"):
        Decoder(name="unett")


def test_a_decoder_of_somebody_is_chosen_and_its_outputs_are_looked_at(monkeypatch):
    monkeypatch.setattr(Decoder.family, "_kinds", dict(Decoder.family.kinds))

    class Finest(nn.Module):
        def __init__(self, channels, outputs, whole):
            super().__init__()
            self.classify, self.whole = nn.Conv2d(channels, outputs, 1), whole

        def forward(self, maps, sides):
            logits = self.classify(maps[0])
            return resize(logits, sides) if self.whole else logits

    @vf.register_decoder
    class Own(vf.Decoder):
        """The finest map alone."""

        name: Literal["own_finest"] = "own_finest"
        whole: bool = True

        def build(self, channels, strides, outputs, spatial_dims=2):
            return Finest(channels[0], outputs, self.whole)

    settings = RunSettings.model_validate({"model": {"decoder": "own_finest"}})
    network = dense("resnet18", settings.model.decoder, resolution=64)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    line = refused("resnet18", Own(whole=False), resolution=64)
    assert line == "model.decoder.name: own_finest gives (1, 4, 32, 32) for one image, expected (1, 4, 64, 64)"


# --- what others need of it


def test_parts_are_told_apart():
    """The decoder is the head; the stages are the backbone's, those without the maps left out."""
    network = dense("resnet18")
    parts = parts_of(backbone_entry("resnet18"), network)
    assert parts.head == ("decoder.",)
    assert parts.stem == "encoder.network.conv1.weight"
    assert network.get_parameter(parts.stem) is network.encoder.network.conv1.weight
    assert parts.stages == tuple(f"encoder.network.layer{i}" for i in (1, 2, 3, 4))
    stages = stage_of_parameters(network, parts.head, parts.stages)
    assert stages["encoder.network.conv1.weight"] == 0
    assert stages["encoder.network.layer4.1.bn2.bias"] == 3
    assert stages["decoder.classifier.1.weight"] is None
    groups = parameter_groups(network.named_parameters(), parts.head, parts.stem, Optimizer(), backbone_rate=0.1)
    sizes = {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert len(sizes) == 2
    assert sizes[max(sizes)] == sum(p.numel() for p in network.decoder.parameters())
    plain = parts_of(backbone_entry("resnet18"), build("resnet18"))
    assert (plain.head, plain.stem, plain.stages) == (
        ("fc.",),
        "conv1.weight",
        ("layer1", "layer2", "layer3", "layer4"),
    )


def test_parts_of_a_library_s_network_are_found_before_its_classifier_goes():
    network = dense("torchvision/resnet18", resolution=32)
    assert all(network.get_submodule(stage) for stage in network.parts.stages)
    assert "encoder.network.layer4.1" in network.parts.stages
    assert network.parts.stem == "encoder.network.conv1.weight"
    small = dense("torchvision/mobilenet_v3_small", resolution=64)
    entry = backbone_entry("torchvision/mobilenet_v3_small")
    assert "classifier.0" in stage_names(entry, build(entry.name, resolution=64))
    assert {stage.split(".")[2] for stage in small.parts.stages} == {"features"}


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("mini_cnn", "unet"),
        ("resnet18", "unet"),
        ("resnet18", "fpn"),
        ("convnext_tiny", "fpn"),
        ("torchvision/vgg11", "unet"),
    ],
)
def test_a_network_is_measured_before_it_is_built(name, decoder):
    settings, kind = Backbone(name=name, pretrained=False), Decoder(name=decoder)
    network = dense(name, decoder, resolution=32)
    require_brought_dense(settings, kind, 3, 4, 32, network.state_dict())
    size = sum(value.nbytes for value in network.state_dict().values())
    with pytest.raises(WeightsError, match=f"that network {size:,}"):
        require_brought_dense(settings, kind, 3, 4, 32, {"x": torch.zeros(10)})


def test_what_is_trained_of_volumes_says_something_of_each_voxel():
    found = decoding_network(Backbone(name="mini_cnn", pretrained=False), Decoder(), 1, 4, 16, spatial_dims=3)
    assert found.network(torch.zeros(2, 1, 16, 16, 16)).shape == (2, 4, 16, 16, 16)
    assert found.parts.head == ("decoder.",)
    state = found.network.state_dict()
    again = decoding_network(
        Backbone(name="mini_cnn", pretrained=False), Decoder(), 1, 4, 16, spatial_dims=3, brought=state
    )
    again.network.load_state_dict(state)


def test_a_decoder_that_is_not_asked_for_changes_no_digest():
    before = RunSettings().model_dump(mode="json")
    without = {**before, "model": {key: value for key, value in before["model"].items() if key != "decoder"}}
    assert digest(before) == digest(without)
    found = {digest(before)}
    for decoder in ("fpn", {"width": 16}, {"dropout": 0.1}):
        found.add(digest(RunSettings.model_validate({"model": {"decoder": decoder}}).model_dump(mode="json")))
    assert len(found) == 4


# --- export


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "decoder", "resolution"), [("resnet18", "unet", 28), ("mini_cnn", "unet", 50), ("mini_cnn", "fpn", 50)]
)
def test_onnx_gives_the_same_for_any_number_of_images(name, decoder, resolution, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from visionforge.exporting.formats import OPSET, _quiet

    torch.manual_seed(5)
    network = dense(name, decoder, 3, 4, resolution).train()
    with torch.no_grad():
        network(torch.randn(8, 3, resolution, resolution))  # statistics that are not trivial
    network.eval()
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, resolution, resolution),),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    path = tmp_path / "model.onnx"
    path.write_bytes(program.model_proto.SerializeToString())
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = torch.randn(count, 3, resolution, resolution)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = network(images).numpy()
        assert np.abs(found - expected).max() <= 1e-5
