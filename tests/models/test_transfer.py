"""Weight transfer keeps what a pretrained network does."""

import hashlib

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torchvision.models import resnet18

from tests.models.helpers import build, copy_classifier, last_linear, published, saved, trained
from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.build import build_network
from visionforge.models.transfer import (
    fit_convolution,
    fit_patches,
    match_channels,
    resample_kernel,
    resample_patches,
    transfer_weights,
)
from visionforge.models.vit import fit_positions, rename_timm

RESNET_FITS = {"conv1.weight": fit_convolution}


@pytest.fixture(scope="module")
def pretrained():
    """A standard ResNet-18 whose batch statistics are not trivial, as after a training."""
    torch.manual_seed(0)
    return trained(resnet18(weights=None))


@pytest.fixture
def weight_file(pretrained, tmp_path):
    return saved(pretrained, tmp_path / "resnet18.pth")


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 9), (1, 1)])
def test_kernels_are_resampled_bicubically(size):
    weight = torch.randn(64, 3, 7, 7)
    reference = F.interpolate(weight, size=size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(resample_kernel(weight, size), reference, atol=1e-6, rtol=0)


def test_kernel_of_the_right_size_stays_as_it_is():
    weight = torch.randn(64, 3, 7, 7)
    assert resample_kernel(weight, (7, 7)) is weight
    assert match_channels(weight, 3) is weight


def test_grey_kernel_is_the_sum_over_the_colours():
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(match_channels(weight, 1), weight.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_equal_channels_give_what_they_gave_before(channels):
    weight, grey = torch.randn(4, 3, 3, 3), torch.rand(2, 1, 8, 8)
    fitted = match_channels(weight, channels)
    assert fitted.shape == (4, channels, 3, 3)
    torch.testing.assert_close(
        F.conv2d(grey.expand(-1, channels, -1, -1), fitted), F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    )


@pytest.mark.parametrize("patch", [4, 8, 16, 32])
def test_uniform_patch_gives_what_it_gave_before(patch):
    """A constant kernel makes the sum exact whatever the interpolation does between its pixels."""
    weight = torch.randn(6, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 16, 16).contiguous()
    colours = torch.rand(3, dtype=torch.float64)
    before = torch.einsum("oihw,i->o", weight, colours)
    after = torch.einsum("oihw,i->o", resample_patches(weight, (patch, patch)), colours)
    torch.testing.assert_close(after, before)
    grey = fit_patches(weight, torch.empty(6, 1, patch, patch))
    assert grey.shape == (6, 1, patch, patch)
    torch.testing.assert_close(grey.sum((1, 2, 3)), weight.sum((1, 2, 3)))


def test_smooth_patches_keep_their_mean_response():
    """A kernel that is linear across the patch keeps its mean, which a copy of its corner would not."""
    slope = torch.linspace(-1, 1, 16, dtype=torch.float64).expand(1, 1, 16, 16) + 0.5
    torch.testing.assert_close(resample_patches(slope, (8, 8)).sum(), slope.sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("grid", [4, 7, 8, 20])
def test_positions_are_resampled_and_the_class_token_stays(grid):
    positions = torch.randn(1, 1 + 14 * 14, 6)
    fitted = fit_positions(positions, torch.empty(1, 1 + grid * grid, 6))
    assert torch.equal(fitted[:, 0], positions[:, 0])
    map_of = positions[0, 1:].T.reshape(1, 6, 14, 14)
    expected = F.interpolate(map_of, size=(grid, grid), mode="bicubic", align_corners=False)
    torch.testing.assert_close(fitted[0, 1:].T.reshape(1, 6, grid, grid), expected, atol=1e-6, rtol=0)


def test_positions_of_the_right_size_stay_as_they_are():
    positions = torch.randn(1, 1 + 7 * 7, 6)
    assert torch.equal(fit_positions(positions, torch.empty(1, 1 + 7 * 7, 6)), positions)


@pytest.mark.parametrize(("tokens", "own"), [(1 + 48, 1 + 49), (1 + 49, 1 + 50), (49, 1 + 49)])
def test_positions_without_a_square_grid_are_refused(tokens, own):
    with pytest.raises(ValueError, match="square of patches"):
        fit_positions(torch.zeros(1, tokens, 6), torch.zeros(1, own, 6))


@pytest.mark.parametrize("resolution", [28, 64, 128])
def test_grey_image_gives_what_its_rgb_copy_gives(pretrained, resolution):
    """In float64, so that nothing but the order of the additions differs."""
    source = {name: t.double() if t.is_floating_point() else t for name, t in pretrained.state_dict().items()}
    colour, grey = (build(channels=c, resolution=resolution).double().eval() for c in (3, 1))
    for network in (colour, grey):
        network.load_state_dict(transfer_weights(source, network.state_dict(), "fc.", RESNET_FITS)[0])
    copy_classifier(colour, grey)
    images = torch.randn(4, 1, resolution, resolution, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), atol=1e-12, rtol=1e-12)


def test_grey_standard_network_gives_what_the_original_gives(pretrained):
    original = resnet18(weights=None).double().eval()
    original.load_state_dict(pretrained.state_dict())
    grey = build(channels=1, classes=1000, resolution=224).double().eval()
    grey.load_state_dict(transfer_weights(original.state_dict(), grey.state_dict(), "fc.", RESNET_FITS)[0])
    copy_classifier(original, grey)
    images = torch.randn(2, 1, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), original(images.expand(-1, 3, -1, -1)), atol=1e-12, rtol=1e-12)


def test_small_stem_keeps_the_resolution(weight_file):
    network = build(weights=weight_file)
    assert network.conv1.kernel_size == (3, 3)
    assert network.conv1.stride == (1, 1)
    assert network.conv1.padding == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    assert stem(torch.zeros(1, 3, 28, 28)).shape[-2:] == (28, 28)


def test_middle_stem_only_leaves_out_the_pooling(pretrained, weight_file):
    network = build(weights=weight_file, resolution=64)
    assert torch.equal(network.conv1.weight, pretrained.conv1.weight)
    assert network.conv1.stride == (2, 2)
    assert isinstance(network.maxpool, nn.Identity)


@pytest.mark.parametrize(("resolution", "adapt"), [(112, True), (224, True), (64, False), (32, False)])
def test_standard_network_gives_torchvisions_features(pretrained, weight_file, resolution, adapt):
    network = build(weights=weight_file, adapt_stem=adapt, classes=1000, resolution=resolution).eval()
    copy_classifier(pretrained, network)
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        assert torch.equal(network(images), pretrained(images))


@pytest.mark.parametrize("resolution", [224, 64])
def test_timms_vision_transformer_becomes_ours(tmp_path, resolution):
    """timm computes the same function; at 64 pixels its standard patches are compared with the unadapted stem."""
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=resolution).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            tensor += 0.05 * torch.randn_like(tensor)
    settings = Backbone(name="vit_tiny", weights=saved(theirs, tmp_path / "timm.pth"), adapt_stem=False)
    ours, report = build_network(settings, 3, 1000, resolution)
    last_linear(ours).load_state_dict(theirs.head.state_dict())
    assert report is not None
    assert (report.resampled, report.unused) == ([], ["heads.head.weight", "heads.head.bias"])
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images), atol=1e-5, rtol=0)


def test_timms_vision_transformer_is_fitted_to_small_images(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    weights = saved(theirs, tmp_path / "timm.pth")
    ours, report = build_network(Backbone(name="vit_tiny", weights=weights), 1, 5, 28)
    assert report is not None
    assert set(report.resampled) == {"conv_proj.weight", "encoder.pos_embedding"}
    assert report.new == ["heads.head.1.weight", "heads.head.1.bias"]
    assert torch.equal(ours.encoder.pos_embedding[:, 0], theirs.pos_embed[:, 0])
    torch.testing.assert_close(
        ours.conv_proj.weight, fit_patches(theirs.patch_embed.proj.weight, ours.conv_proj.weight)
    )


def test_names_that_are_right_already_are_not_changed():
    names = build("vit_tiny").state_dict()
    assert list(rename_timm(names)) == list(names)


def test_report_says_what_became_of_each_tensor(pretrained):
    target = build(channels=1, classes=5).state_dict()
    source = {**pretrained.state_dict(), "extra.weight": torch.zeros(1)}
    del source["layer1.0.bn1.weight"]
    state, report = transfer_weights(source, target, "fc.", RESNET_FITS)
    assert report.resampled == ["conv1.weight"]
    assert report.new == ["layer1.0.bn1.weight", "fc.1.weight", "fc.1.bias"]
    assert set(report.unused) == {"fc.weight", "fc.bias", "extra.weight"}
    assert sorted(report.loaded) == sorted(target.keys() - {*report.new, "conv1.weight"})
    assert list(state) == list(target)
    assert torch.equal(state["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"])
    assert torch.equal(state["layer1.0.bn1.weight"], target["layer1.0.bn1.weight"])
    assert "1 resampled (conv1.weight)" in str(report)
    assert report.as_dict()["new"] == report.new


def test_report_says_where_the_weights_came_from(weight_file):
    with open(weight_file, "rb") as file:  # noqa: PTH123
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    report = build_network(Backbone(weights=weight_file), 3, 10, 28)[1]
    assert report is not None
    assert (report.source, report.sha256) == (weight_file, digest)


def test_random_weights_have_no_report(weight_file):
    assert build_network(Backbone(pretrained=False), 3, 10, 28)[1] is None
    assert build_network(Backbone(weights=weight_file), 3, 10, 28, pretrained=False)[1] is None


def test_swin_keeps_its_own_windows(tmp_path):
    weights = saved(published("swin_v2_t"), tmp_path / "swin.pth")
    own = build("swin_v2_t").state_dict()
    network, report = build_network(Backbone(name="swin_v2_t", weights=weights), 3, 10, 28)
    assert report is not None
    assert report.resampled == ["features.0.0.weight"]
    assert report.new == ["head.1.weight", "head.1.bias"]
    assert report.unused == ["head.weight", "head.bias"]
    windows = [name for name in own if name.rpartition(".")[2].startswith("relative_")]
    assert len(windows) == 24
    for name in windows:
        assert torch.equal(network.state_dict()[name], own[name])


def test_weights_of_another_network_are_refused(pretrained, tmp_path):
    wrong = {name: tensor[..., :1] for name, tensor in pretrained.state_dict().items() if tensor.ndim == 4}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"^model\.backbone\.weights: .*wrong\.pth.*has shape"):
        build(weights=str(tmp_path / "wrong.pth"))
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no tensor has a name"):
        build(weights=str(tmp_path / "other.pth"))


def test_positions_that_do_not_fit_are_refused_in_one_line(tmp_path):
    state = build("vit_tiny").state_dict()
    state["encoder.pos_embedding"] = state["encoder.pos_embedding"][:, :-1]
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"encoder\.pos_embedding: .*square of patches") as caught:
        build("vit_tiny", weights=str(tmp_path / "vit.pth"))
    assert len(caught.value.problems) == 1


def test_unknown_backbone_suggests_the_nearest():
    with pytest.raises(SettingsError, match="nearest: resnet18"):
        build("resnet81")
