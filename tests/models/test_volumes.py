"""Networks for volumes: inflated ones give what their slices gave, ACS ones what their three directions give."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.models.helpers import build, saved
from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, WeightsError
from visionforge.models import BackboneEntry, backbone_entry, backbone_names, register_backbone
from visionforge.models.build import build_network, require_brought
from visionforge.models.inspect import map_sizes, profile
from visionforge.models.registry import backbones_taking
from visionforge.models.stages import stage_names
from visionforge.models.volume_layers import ACSConv3d, MaxPool3d, SliceRepeatingConv3d
from visionforge.models.volumes import channels_last, inflate, to_channels_last, to_volumes

SIZE = 16
VOLUMETRIC = [
    "efficientnet_b0",
    "efficientnet_v2_s",
    "fastnet",
    "mini_cnn",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
]


def volumes(name: str = "mini_cnn", channels: int = 1, resolution: int = SIZE, **changes: object) -> nn.Module:
    settings = Backbone.model_validate({"name": name, "pretrained": "weights" in changes, **changes})
    return build_network(settings, channels, 4, resolution, spatial_dims=3)[0]


def shaken(network: nn.Module) -> nn.Module:
    """Give norms and biases values that are not trivial, as after a training; returns it in eval mode."""
    torch.manual_seed(3)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor += 0.2 * torch.rand_like(tensor)
    return network.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# --- inflation


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("name", ["fastnet", "resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small"])
def test_equal_slices_give_the_logits_of_their_slice(name, adapt):
    flat = shaken(build(name, channels=3, classes=4, resolution=SIZE, adapt_stem=adapt))
    inflated = copy.deepcopy(flat)
    to_volumes(inflated, "3d", inflated=True)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = flat(images)
        found = inflated(images[:, :, None].expand(-1, -1, SIZE, -1, -1))
        other = inflated(images[:, :, None].expand(-1, -1, 9, -1, -1))  # however many there are
    assert relative(found, expected) < 1e-5
    assert relative(other, expected) < 1e-5


@pytest.mark.parametrize("name", ["mini_cnn", "resnet18", "resnet50"])
def test_pretrained_weights_of_images_are_inflated_behind_the_transfer(name, tmp_path):
    file = saved(shaken(build(name, channels=3, classes=9, resolution=224)), tmp_path / "flat.pth")
    flat = build_network(Backbone(name=name, weights=file), 1, 4, SIZE)[0].eval()
    network, report = build_network(Backbone(name=name, weights=file), 1, 4, SIZE, spatial_dims=3)
    head = backbone_entry(name).head_of(network)
    network.load_state_dict({key: value for key, value in flat.state_dict().items() if key.startswith(head)}, False)
    images = torch.randn(2, 1, SIZE, SIZE)
    scales = [backbone_entry(name).scale(SIZE, True, dims) for dims in (2, 3)]
    assert scales[0] == scales[1]
    with torch.no_grad():
        assert relative(network.eval()(images[:, :, None].expand(-1, -1, SIZE, -1, -1)), flat(images)) < 1e-5
    convolutions = [f"{key}.weight" for key, module in network.named_modules() if isinstance(module, nn.Conv3d)]
    assert report is not None
    assert report.inflated == convolutions
    assert f"{len(convolutions)} inflated" in str(report)


def test_inflated_kernels_are_repeated_and_divided():
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    found = inflate(weight, 3)
    assert found.shape == (5, 3, 3, 3, 3)
    for depth in range(3):
        assert torch.equal(found[:, :, depth], weight / 3)


def test_zeros_in_depth_would_not_do():
    flat = shaken(build("mini_cnn", channels=1, classes=4, resolution=SIZE))
    inflated = copy.deepcopy(flat)
    to_volumes(inflated, "3d", inflated=True)
    for module in inflated.modules():
        if isinstance(module, nn.Conv3d):
            module.forward = nn.Conv3d.forward.__get__(module)
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        assert relative(inflated(images[:, :, None].expand(-1, -1, SIZE, -1, -1)), flat(images)) > 1e-3


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (7, 2, 3), (1, 2, 0), (3, 2, 1)])
def test_depth_is_padded_with_the_outermost_slices(kernel, stride, padding):
    layer = SliceRepeatingConv3d(2, 3, kernel, stride, padding).double()
    given = torch.randn(2, 2, 9, 8, 7, dtype=torch.float64, requires_grad=True)
    padded = F.pad(F.pad(given, (0, 0, 0, 0, padding, padding), mode="replicate"), (padding,) * 4)
    expected = F.conv3d(padded, layer.weight, layer.bias, stride)
    torch.testing.assert_close(layer(given), expected)
    signal = torch.randn_like(expected)
    gradients = [torch.autograd.grad((out * signal).sum(), given)[0] for out in (layer(given), expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("ordered", [lambda x: x, channels_last])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_pooling_is_that_of_torch(kernel, stride, padding, ordered):
    given = ordered(torch.randn(2, 3, 9, 8, 7, dtype=torch.float64)).requires_grad_()
    found = MaxPool3d(kernel, stride, padding, 1, False)(given)
    expected = F.max_pool3d(given, kernel, stride, padding)
    assert torch.equal(found, expected)
    signal = torch.randn_like(expected)
    gradients = [torch.autograd.grad((out * signal).sum(), given)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_random_kernels_are_drawn_for_the_inputs_of_a_volume():
    torch.manual_seed(0)
    weight = volumes("resnet18").layer3[0].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (256 * 27)) ** 0.5, rel=0.01)
    assert float((weight[:, :, 0] - weight[:, :, 1]).abs().mean()) > 0.01, "no repetition"


# --- ACS


def by_loop(layer: ACSConv3d, given: torch.Tensor) -> torch.Tensor:
    """Return the output of a layer voxel by voxel."""
    weight, (kernel, _), (stride, _) = layer.weight, layer.kernel_size, layer.stride
    outputs, reach = weight.shape[0], int(layer.padding[0])
    sizes = [outputs // 3 + (part < outputs % 3) for part in range(3)]
    blind = [axis for axis, size in enumerate(sizes) for _ in range(size)]  # the axis that a channel does not see
    sides = [(side + 2 * reach - kernel) // stride + 1 for side in given.shape[2:]]
    out = given.new_zeros(len(given), outputs, *sides)
    for channel, axis in enumerate(blind):
        seen = [other for other in range(3) if other != axis]
        for place in torch.cartesian_prod(*(torch.arange(side) for side in sides)).tolist():
            total = given.new_zeros(len(given)) if layer.bias is None else layer.bias[channel].expand(len(given))
            for i in range(kernel):
                for j in range(kernel):
                    at = [p * stride for p in place]
                    at[seen[0]] += i - reach
                    at[seen[1]] += j - reach
                    if all(0 <= a < side for a, side in zip(at, given.shape[2:], strict=True)):
                        inputs = given[:, :, *at]
                        if layer.groups > 1:
                            inputs = inputs[:, channel : channel + 1]
                        total = total + inputs @ weight[channel, :, i, j]
            out[:, channel, *place] = total
    return out


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "groups", "bias"),
    [
        (2, 7, 3, 1, 1, True),
        (3, 2, 3, 2, 1, False),
        (2, 3, 1, 2, 1, True),
        (5, 5, 3, 1, 5, True),
        (1, 4, 5, 2, 1, False),
    ],
)
def test_acs_is_the_convolution_in_three_directions(channels, outputs, kernel, stride, groups, bias):
    layer = ACSConv3d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias).double()
    given = torch.randn(2, channels, 5, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(given), by_loop(layer, given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["mini_cnn", "resnet18", "efficientnet_b0"])
def test_acs_takes_weights_of_images_as_they_are(name, tmp_path):
    flat = shaken(build(name, channels=3, classes=9, resolution=SIZE))
    file = saved(flat, tmp_path / "flat.pth")
    settings = Backbone(name=name, weights=file, volume_convolution="acs")
    network, report = build_network(settings, 3, 9, SIZE, spatial_dims=3)
    assert report is not None
    assert report.inflated == report.resampled == []
    source, head = flat.state_dict(), backbone_entry(name).head_of(network)
    assert list(network.state_dict()) == list(source)
    for key, value in network.state_dict().items():
        assert key.startswith(head) or torch.equal(value, source[key])


# --- both


@pytest.mark.parametrize("convolution", ["3d", "acs"])
@pytest.mark.parametrize("name", ["mini_cnn", "resnet18", "resnet34", "resnet50", "efficientnet_b0"])
def test_networks_learn_from_volumes(name, convolution):
    network = to_channels_last(volumes(name, volume_convolution=convolution)).train()
    flat = build(name, channels=1, classes=4, resolution=SIZE)
    assert [key for key, _ in network.named_parameters()] == [key for key, _ in flat.named_parameters()]
    logits = network(channels_last(torch.randn(2, 1, SIZE, SIZE, SIZE)))
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    entry = backbone_entry(name)
    stem = network.get_parameter(entry.stem_of(network))
    assert stem.ndim == (5 if convolution == "3d" else 4)
    assert stem.shape[1] == 1
    for stage in stage_names(entry, network):
        network.get_submodule(stage)


def test_every_layer_is_of_volumes():
    for name in VOLUMETRIC:
        layers = [type(module).__name__ for module in volumes(name).modules()]
        assert not [layer for layer in layers if layer.endswith("2d")]


def test_weights_of_volumes_are_taken_as_they_are(tmp_path):
    source = shaken(volumes("resnet18", channels=3))
    file = saved(source, tmp_path / "volumes.pth")
    network, report = build_network(Backbone(weights=file), 1, 7, SIZE, spatial_dims=3)
    assert report is not None
    assert report.inflated == []
    assert report.resampled == ["conv1.weight"], "of grey volumes now"
    torch.testing.assert_close(network.conv1.weight, source.conv1.weight.sum(dim=1, keepdim=True))
    assert torch.equal(network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    with pytest.raises(WeightsError, match="has shape"):
        build_network(Backbone(weights=file, volume_convolution="acs"), 1, 7, SIZE, spatial_dims=3)
    with pytest.raises(WeightsError, match="3×3×3 voxels cannot become one of 7×7×7"):
        build_network(Backbone(weights=file), 1, 7, 64, spatial_dims=3)


def test_stem_of_volumes_counts_them_as_half_as_large():
    entry = backbone_entry("resnet18")
    assert [entry.scale(r, True, 3) for r in (8, 27, 28, 55, 56, 64)] == [4, 4, 2, 2, 1, 1]
    assert entry.scale(28, False, 3) == 1
    assert entry.final_map(28, True, 3) == 2
    found = profile(entry, 28, channels=1, classes=2, spatial_dims=3)
    assert map_sizes(found) == "14 → 7 → 4 → 2"
    planar = profile(entry, 28, channels=1, classes=2, spatial_dims=3, volume_convolution="acs")
    assert planar.parameters < found.parameters / 2.8
    assert planar.multiply_adds < found.multiply_adds / 2.8
    standard = profile(entry, 28, channels=1, classes=2, adapt_stem=False, spatial_dims=3)
    assert map_sizes(standard) == "7 → 4 → 2 → 1"


def test_a_network_for_volumes_needs_the_weights_of_one():
    flat = build("resnet18", channels=1, classes=4, resolution=SIZE).state_dict()
    settings = Backbone(name="resnet50", pretrained=False)
    few = {"x": torch.zeros(1000)}
    with pytest.raises(WeightsError, match="184,"):
        require_brought(settings, 1, 4, SIZE, few, spatial_dims=3)
    require_brought(Backbone(pretrained=False), 1, 4, SIZE, flat, spatial_dims=3)


# --- what does not go


def test_backbones_of_images_are_refused_with_those_that_take_volumes():
    assert backbones_taking(3) == VOLUMETRIC
    for name in set(backbone_names()) - set(VOLUMETRIC) | {"torchvision/resnet18", "timm/resnet18"}:
        with pytest.raises(SettingsError) as error:
            volumes(name)
        (line,) = error.value.problems
        assert line == f"model.backbone.name: {name} does not take volumes; allowed: {', '.join(VOLUMETRIC)}"


def test_the_convolution_of_volumes_is_refused_for_images():
    with pytest.raises(SettingsError) as error:
        build("resnet18", volume_convolution="acs")
    (line,) = error.value.problems
    assert line == "model.backbone.volume_convolution: acs is for volumes, the data are images; leave it out"


@pytest.mark.parametrize(
    ("layer", "convolution", "complaint"),
    [
        (nn.Conv2d(1, 3, (1, 3)), "3d", "kernel_size is (1, 3)"),
        (nn.Conv2d(1, 3, 3, padding="same"), "3d", "padding is same"),
        (nn.Conv2d(1, 3, 3, padding=1, padding_mode="reflect"), "3d", "'reflect'"),
        (nn.Conv2d(1, 3, 4), "acs", "padding is not half its kernel"),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), "acs", "2 groups"),
        (nn.InstanceNorm2d(3), "3d", "InstanceNorm2d"),
        (nn.AvgPool2d(3, padding=1), "3d", "AvgPool2d"),
        (nn.AdaptiveAvgPool2d(2), "3d", "AdaptiveAvgPool2d"),
    ],
)
def test_layers_without_a_form_for_volumes_are_told(layer, convolution, complaint):
    with pytest.raises(ValueError, match="0 has no") as error:
        to_volumes(nn.Sequential(layer), convolution, inflated=True)
    assert complaint in str(error.value)


def test_other_layers_find_their_form():
    network = nn.Sequential(nn.Dropout2d(0.3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d((1, 1)))
    to_volumes(network, "3d", inflated=False)
    assert [type(module) for module in network] == [nn.Dropout3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d]
    assert network(torch.rand(1, 2, 8, 8, 8)).shape == (1, 2, 1, 1, 1)


# --- other packages' backbones


@pytest.fixture
def registry():
    from visionforge.models import registry

    before = dict(registry._ENTRIES)
    yield registry
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)


def their_net(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int, spatial_dims: int
) -> nn.Module:
    convolution = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
    pool = nn.AdaptiveAvgPool3d(1) if spatial_dims == 3 else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(convolution(in_channels, 6, 3), pool, nn.Flatten(), nn.Linear(6, num_classes))


def flat_net(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes))


@pytest.mark.parametrize("dims", [(3,), (2, 3)])
def test_builders_of_volumes_are_told_the_dimensions(registry, dims):
    register_backbone(BackboneEntry("theirs", their_net, "theirs", spatial_dims=dims))
    assert isinstance(volumes("theirs")[0], nn.Conv3d)
    if 2 in dims:
        assert isinstance(build("theirs", classes=4)[0], nn.Conv2d)
    else:
        with pytest.raises(SettingsError, match="theirs does not take images; allowed: convnext_tiny"):
            build("theirs")
    with pytest.raises(SettingsError, match="acs would be ignored, because theirs is built for volumes as it is"):
        volumes("theirs", volume_convolution="acs")


def test_builders_of_images_know_nothing_of_volumes_and_can_be_inflated(registry):
    register_backbone(BackboneEntry("flat", flat_net, "flat"))
    with pytest.raises(SettingsError, match="flat does not take volumes"):
        volumes("flat")
    register_backbone(BackboneEntry("flat", flat_net, "flat", inflates=True), replace=True)
    assert isinstance(volumes("flat")[0], SliceRepeatingConv3d)
    assert "flat" in backbones_taking(3)
    with pytest.raises(SettingsError, match="flat cannot be built for 1×16×16×16 volumes: 0 has no acs form"):
        volumes("flat", volume_convolution="acs")


def test_entries_name_dimensions_that_there_are():
    with pytest.raises(ValueError, match="spatial_dims"):
        BackboneEntry("one", flat_net, "one", spatial_dims=(1,))
