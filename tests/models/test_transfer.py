"""Weight transfer keeps what a pretrained network does."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torchvision.models import resnet18

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.build import build_network, read_weight_file
from visionforge.models.transfer import match_channels, resample_kernel, transfer_weights


@pytest.fixture(scope="module")
def pretrained():
    """A standard ResNet-18 whose batch statistics are not trivial, as after a training."""
    torch.manual_seed(0)
    network = resnet18(weights=None)
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))
    return network.eval()


@pytest.fixture
def weight_file(pretrained, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(pretrained.state_dict(), path)
    return path


def settings(weight_file, **changes) -> Backbone:
    return Backbone(name="resnet18", pretrained=True, weights=str(weight_file), **changes)


def test_kernels_are_resampled_bicubically():
    weight = torch.randn(64, 3, 7, 7)
    reference = F.interpolate(weight, size=(3, 3), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resample_kernel(weight, (3, 3)), reference, atol=1e-6, rtol=0)
    assert resample_kernel(weight, (7, 7)) is weight


def test_grey_kernel_is_the_sum_over_the_colours():
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(match_channels(weight, 1), weight.sum(dim=1, keepdim=True))
    grey = torch.rand(2, 1, 8, 8)
    copy = grey.expand(-1, 5, -1, -1)
    torch.testing.assert_close(F.conv2d(copy, match_channels(weight, 5)), F.conv2d(grey, match_channels(weight, 1)))


@pytest.mark.parametrize("resolution", [28, 64])
def test_grey_image_gives_what_its_rgb_copy_gives(pretrained, resolution):
    """In float64, so that nothing but the order of the additions differs."""
    source = {name: t.double() if t.is_floating_point() else t for name, t in pretrained.state_dict().items()}
    colour, grey = (build_network(Backbone(pretrained=False), c, 10, resolution).double().eval() for c in (3, 1))
    for network in (colour, grey):
        state, _ = transfer_weights(source, network.state_dict(), "conv1.weight", "fc.")
        network.load_state_dict(state)
    grey.fc.load_state_dict(colour.fc.state_dict())
    images = torch.randn(4, 1, resolution, resolution, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), atol=1e-12, rtol=1e-12)


def test_grey_standard_network_gives_what_the_original_gives(pretrained):
    original = resnet18(weights=None).double().eval()
    original.load_state_dict(pretrained.state_dict())
    grey = build_network(Backbone(pretrained=False), 1, 10, 224).double().eval()
    state, _ = transfer_weights(original.state_dict(), grey.state_dict(), "conv1.weight", "fc.")
    grey.load_state_dict(state)
    grey.fc = original.fc
    images = torch.randn(2, 1, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), original(images.expand(-1, 3, -1, -1)), atol=1e-12, rtol=1e-12)


def test_small_stem_keeps_the_resolution(weight_file):
    network = build_network(settings(weight_file), 3, 10, 28)
    assert network.conv1.kernel_size == (3, 3)
    assert network.conv1.stride == (1, 1)
    assert network.conv1.padding == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    assert stem(torch.zeros(1, 3, 28, 28)).shape[-2:] == (28, 28)


@pytest.mark.parametrize(("resolution", "adapt"), [(64, True), (224, True), (32, False)])
def test_standard_network_gives_torchvisions_features(pretrained, weight_file, resolution, adapt):
    network = build_network(settings(weight_file, adapt_stem=adapt), 3, 10, resolution).eval()
    head = nn.Linear(512, 1000)
    head.load_state_dict(pretrained.fc.state_dict())
    network.fc = head
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        assert torch.equal(network(images), pretrained(images))


def test_report_says_what_became_of_each_tensor(pretrained):
    target = build_network(Backbone(pretrained=False), 1, 5, 28).state_dict()
    source = {**pretrained.state_dict(), "extra.weight": torch.zeros(1)}
    state, report = transfer_weights(source, target, "conv1.weight", "fc.")
    assert report.resampled == ["conv1.weight"]
    assert report.new == ["fc.1.weight", "fc.1.bias"]
    assert set(report.unused) == {"fc.weight", "fc.bias", "extra.weight"}
    assert len(report.loaded) == len(target) - 3
    assert torch.equal(state["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"])
    assert "1 resampled (conv1.weight)" in str(report)


def test_weights_of_another_network_are_refused(pretrained, tmp_path):
    wrong = {name: tensor[..., :1] for name, tensor in pretrained.state_dict().items() if tensor.ndim == 4}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"wrong\.pth.*has shape"):
        build_network(settings(tmp_path / "wrong.pth"), 3, 10, 28)
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no tensor has a name"):
        build_network(settings(tmp_path / "other.pth"), 3, 10, 28)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_weight_files_of_strangers_run_no_code(tmp_path, capsys):
    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="is no weight file"):
        read_weight_file(tmp_path / "trap.pth")
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a weight file", b"PK\x03\x04" + b"\0" * 64])
def test_damaged_weight_file_is_one_line(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weight_file(tmp_path / "bad.pth")
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_file_that_holds_no_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weight_file(tmp_path / "list.pth")


def test_unknown_weights_name_the_known_ones():
    with pytest.raises(WeightsError, match="IMAGENET1K_V1"):
        build_network(Backbone(weights="IMAGENET9"), 3, 10, 28)


def test_published_weights_are_found_where_they_were_placed(pretrained, tmp_path, monkeypatch):
    """The file that torchvision would download, put by hand where the message says, is taken."""
    from torchvision.models import ResNet18_Weights

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    torch.save(pretrained.state_dict(), folder / ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[1])
    network = build_network(Backbone(), 3, 10, 224)
    assert torch.equal(network.state_dict()["layer4.1.conv2.weight"], pretrained.state_dict()["layer4.1.conv2.weight"])


def test_unknown_backbone_suggests_the_nearest():
    with pytest.raises(SettingsError, match="nearest: resnet18"):
        build_network(Backbone(name="resnet81", pretrained=False), 3, 10, 28)
