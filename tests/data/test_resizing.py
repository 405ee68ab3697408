"""Resizing is what torch, torchvision and Pillow do, and black stays black."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from tests.draws import draws
from visionforge.config.schema import Augmentation, Resize
from visionforge.data.augment import augment, draw_augmentation, normalise
from visionforge.data.augment_volumes import augment_volumes, draw_volume_augmentation
from visionforge.data.info import TaskSpec
from visionforge.data.resizing import Resizing, resize, resize_matrix
from visionforge.errors import SettingsError
from visionforge.training.shorthand import read_spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def images(count: int = 2, channels: int = 3, sides: tuple[int, ...] = (28, 28)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, *sides), dtype=torch.uint8, generator=generator)


def resizing(size: int, mode: str = "bilinear", resolution: int = 28, dims: int = 2) -> Resizing:
    return Resizing(Resize(size=size, mode=mode), resolution, MEAN, STD, dims)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 27, 29, 64, 224])
def test_interpolation_is_that_of_torch_and_torchvision(size, mode):
    pixels = images().double()
    found = resize(pixels, resize_matrix(28, size, mode))
    wanted = F.interpolate(pixels, (size, size), mode=mode, antialias=True, align_corners=False)
    torch.testing.assert_close(found, wanted, atol=1e-11, rtol=0)
    whole = resizing(size, mode)(pixels.float())
    way = InterpolationMode(mode)
    torch.testing.assert_close(whole, transforms.resize(pixels.float(), [size, size], way), atol=2e-3, rtol=0)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [12, 64])
def test_interpolation_is_that_of_pillow_within_its_two_roundings(size, mode):
    coarse = np.random.default_rng(0).integers(60, 190, (7, 7), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((28, 28), Image.Resampling.BICUBIC)  # smooth: Pillow clips in between
    pixels = torch.from_numpy(np.array(picture)).double()[None, None]
    found = resize(pixels, resize_matrix(28, size, mode))[0, 0].numpy()
    assert np.abs(found - np.asarray(picture.resize((size, size), PILLOW[mode]))).max() < 1.2


def test_volumes_are_interpolated_along_each_axis():
    voxels = images(1, 1, (6, 6, 6)).double()
    found = resize(voxels, resize_matrix(6, 11, "bilinear"))
    wanted = F.interpolate(voxels, (11,) * 3, mode="trilinear", align_corners=False)
    torch.testing.assert_close(found, wanted)
    padded = Resizing(Resize(size=9, mode="pad"), 6, (0.5,), (0.5,), 3)(normalise(voxels.byte(), (0.5,), (0.5,)))
    assert padded.shape == (1, 1, 9, 9, 9)
    torch.testing.assert_close(padded, normalise(F.pad(voxels.byte(), (1, 2) * 3), (0.5,), (0.5,)))


@pytest.mark.parametrize("size", [29, 40])
def test_a_padded_image_is_unchanged_in_the_middle_of_black(size):
    given = images()
    before, after = (size - 28) // 2, size - 28 - (size - 28) // 2
    wanted = normalise(F.pad(given, (before, after, before, after)), MEAN, STD)
    found = resizing(size, "pad")(normalise(given, MEAN, STD))
    torch.testing.assert_close(found, wanted)
    inside = found[:, :, before : before + 28, before : before + 28]
    assert torch.equal(inside, normalise(given, MEAN, STD)), "no pixel is interpolated"


@pytest.mark.parametrize(("size", "mode"), [(40, "pad"), (40, "bicubic"), (20, "bilinear")])
def test_a_grey_image_in_three_channels_is_resized_once_and_the_same(size, mode):
    grey = normalise(images(channels=1), (0.4,) * 3, (0.2,) * 3)
    assert grey.stride(1) == 0
    torch.testing.assert_close(resizing(size, mode)(grey), resizing(size, mode)(grey.contiguous()))


def test_half_precision_moves_no_pixels():
    module, given = resizing(64), normalise(images(), MEAN, STD)
    wanted = module(given)
    module.to(torch.bfloat16)
    assert module.constant.dtype == torch.float32
    assert torch.equal(module(given), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(given), wanted)
    assert module(given.half()).dtype == torch.float32
    assert module.state_dict() == {}


def test_maps_are_laid_over_the_image_itself():
    seen = torch.zeros(1, 1, 8, 8)
    seen[..., 2:6, 2:6] = 1
    padded = Resizing(Resize(size=16, mode="pad"), 8, MEAN, STD, 2)
    assert torch.equal(padded.undone(seen, "bilinear")[0, 0, 1:7, 1:7], torch.ones(6, 6)), "the frame is cut off"
    assert padded.undone(seen, "bilinear").shape == (1, 1, 8, 8)
    assert resizing(64).undone(seen, "bilinear").shape == (1, 1, 28, 28)


def test_there_is_none_where_the_size_is_that_of_the_images():
    assert Resizing.of(TaskSpec(classes=2)) is None
    assert Resizing.of(TaskSpec(classes=2, resize={"size": 28, "mode": "pad"})) is None
    assert Resizing.of(TaskSpec(classes=2, resize={"size": 29})) is not None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"resize": {"size": 20, "mode": "pad"}}, "pad has no room for images of 28 pixels"),
        ({"resize": {"size": 2000}}, "1024"),
        ({"resize": {"size": 64}, "task": "segmentation"}, "labels lie at places of the image"),
        ({"resize": {"size": 64}, "task": "detection"}, "labels lie at places of the image"),
        ({"resize": {"size": 300}, "spatial_dims": 3}, "at most 256"),
    ],
)
def test_what_does_not_fit_the_images_is_one_line(changes, complaint):
    with pytest.raises(SettingsError, match=complaint) as raised:
        read_spec({"classes": 3, **changes})
    assert len(raised.value.problems) == 1


# --- grey images that are normalised as colours


def test_grey_images_are_normalised_by_the_constants_of_each_channel():
    grey, draw = images(channels=1), Augmentation(preset="strong")
    three = grey.expand(-1, 3, -1, -1)
    torch.testing.assert_close(normalise(grey, MEAN, STD), normalise(three, MEAN, STD))
    drawn = draw_augmentation(draws(2, 1), draw)
    found, wanted = augment(grey, drawn, MEAN, STD), augment(three, drawn, MEAN, STD)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)  # the weights of grey add up to 0.9999
    volumes = images(2, 1, (8, 8, 8))
    changes = draw_volume_augmentation(draws(2, 1), Augmentation())
    found = augment_volumes(volumes, changes, MEAN, STD)
    wanted = augment_volumes(volumes.expand(-1, 3, -1, -1, -1), changes, MEAN, STD)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)
