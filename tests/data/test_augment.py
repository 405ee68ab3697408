"""The fused augmentation does what torchvision's separate transforms do."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF  # noqa: N812
from torchvision.transforms import v2

from tests.draws import draws
from visionforge.config.schema import Augmentation
from visionforge.data.augment import (
    AugmentationDraw,
    augment,
    draw_augmentation,
    normalise,
    respect_flags,
    sampling_matrix,
)
from visionforge.data.registry import dataset_info

NONE = Augmentation(hflip=0.0, rotation_angle=0, jitter_val=0.0, min_scale=1.0)
IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth random images: interpolation errors stay small."""
    coarse = torch.rand((8, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def draw_of(count: int, flip=False, angle=0.0, box=None, colour=None) -> AugmentationDraw:
    flips = torch.full((count,), flip)
    angles = torch.full((count,), math.radians(angle))
    boxes = None if box is None else torch.tensor([box]).expand(count, -1)
    theta = sampling_matrix(flips, angles, boxes)
    return AugmentationDraw(flips, theta, None if colour is None else torch.tensor([colour]).expand(count, -1))


def test_without_augmentation_only_normalises(images):
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    out = augment(images, draw_augmentation(draws(8), NONE), mean, std)
    reference = TF.normalize(images.float() / 255, list(mean), list(std))
    torch.testing.assert_close(out, reference, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalise(images, mean, std), reference, atol=1e-5, rtol=1e-5)


def test_flip_is_exact(images):
    settings = NONE.model_copy(update={"hflip": 1.0})
    out = augment(images, draw_augmentation(draws(8), settings), **IDENTITY)
    torch.testing.assert_close(out, TF.horizontal_flip(images).float() / 255)
    resampled = augment(images, draw_of(8, flip=True), **IDENTITY)
    torch.testing.assert_close(resampled, out, atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [-30.0, -7.0, 10.0, 90.0])
def test_rotation_is_that_of_torchvision(images, angle):
    out = augment(images, draw_of(8, angle=angle), **IDENTITY)
    reference = TF.rotate(images.float() / 255, angle, interpolation=v2.InterpolationMode.BILINEAR)
    inside = slice(6, 26)  # the border is blended with black a little differently
    torch.testing.assert_close(out[..., inside, inside], reference[..., inside, inside], atol=2e-3, rtol=0)


def test_crop_is_that_of_torchvision(images):
    top, left, height, width = 4, 2, 24, 28
    out = augment(images, draw_of(8, box=(left / 32, top / 32, width / 32, height / 32)), **IDENTITY)
    reference = TF.resized_crop(images.float() / 255, top, left, height, width, [32, 32], antialias=False)
    inside = slice(1, 31)  # at the border torchvision repeats pixels of the crop, we see the image beyond it
    torch.testing.assert_close(out[..., inside, inside], reference[..., inside, inside], atol=2e-3, rtol=0)


def test_flip_then_rotation_then_crop(images):
    """The composed matrix is the composition of the steps, in torchvision's order."""
    box = (0.1, 0.15, 0.8, 0.75)
    out = augment(images, draw_of(8, flip=True, angle=20.0, box=box), **IDENTITY)
    steps = TF.horizontal_flip(images)
    steps = augment(steps, draw_of(8, angle=20.0), **IDENTITY)
    steps = augment((steps * 255).round().to(torch.uint8), draw_of(8, box=box), **IDENTITY)
    inside = slice(8, 24)
    assert (out - steps)[..., inside, inside].abs().max() < 0.06  # interpolated once instead of twice
    assert (out - steps)[..., inside, inside].abs().mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factors", [(1.2, 1.0, 1.0), (1.0, 0.8, 1.0), (1.0, 1.0, 0.7), (0.9, 1.1, 1.2)])
def test_colour_is_that_of_torchvision(images, factors, channels):
    pixels = images[:, :channels] // 2 + 50  # stays clear of the clipping between torchvision's steps
    out = augment(
        pixels, AugmentationDraw(torch.zeros(8, dtype=torch.bool), None, torch.tensor([factors] * 8)), **IDENTITY
    )
    brightness, contrast, saturation = factors
    reference = TF.adjust_brightness(pixels.float() / 255, brightness)
    reference = TF.adjust_contrast(reference, contrast)
    reference = TF.adjust_saturation(reference, saturation)
    torch.testing.assert_close(out[:, :channels], reference, atol=1e-3, rtol=0)


def test_colour_is_clipped_before_normalising(images):
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    draw = AugmentationDraw(torch.zeros(8, dtype=torch.bool), None, torch.tensor([[3.0, 1.0, 1.0]] * 8))
    out = augment(images, draw, mean, std)
    reference = TF.normalize((images.float() / 255 * 3).clamp(0, 1), list(mean), list(std))
    torch.testing.assert_close(out, reference, atol=1e-4, rtol=1e-4)


def test_grey_fills_all_channels(images):
    grey = images[:, :1]
    settings = Augmentation()
    out = augment(grey, draw_augmentation(draws(8), settings), (0.5,) * 3, (0.2,) * 3)
    assert out.shape == (8, 3, 32, 32)
    assert torch.equal(out[:, 0], out[:, 2])
    single = augment(grey, draw_augmentation(draws(8), settings), (0.5,), (0.2,))
    assert torch.equal(single[:, 0], out[:, 1])


def test_draws_are_independent_and_in_range():
    settings = Augmentation(hflip=0.3, rotation_angle=20, jitter_val=0.4, min_scale=0.5)
    draw = draw_augmentation(draws(20_000), settings)
    assert draw.theta is not None
    assert draw.colour is not None
    assert abs(draw.flip.float().mean() - 0.3) < 0.015
    theta, sign = draw.theta, 1 - 2 * draw.flip.float()
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0] / theta[:, 0, 0].abs().clamp(min=1e-9), torch.ones(())))
    assert angle.abs().max() < 20 * 1.4  # a crop's aspect ratio shears the apparent angle
    assert draw.colour.min() >= 0.6 - 1e-6
    assert draw.colour.max() <= 1.4 + 1e-6
    np.testing.assert_allclose(draw.colour.mean(dim=0), 1.0, atol=0.01)
    correlation = np.corrcoef(draw.colour.T.numpy())
    assert np.abs(correlation - np.eye(3)).max() < 0.03
    area = (theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]) * sign
    assert area.min() >= 0.5 - 1e-4
    assert area.max() <= 1 + 1e-4


def test_crop_boxes_are_distributed_as_torchvisions():
    settings = Augmentation(hflip=0, rotation_angle=0, jitter_val=0, min_scale=0.5)
    theta = draw_augmentation(draws(8000), settings).theta
    assert theta is not None
    width, height = theta[:, 0, 0].numpy(), theta[:, 1, 1].numpy()
    left = (theta[:, 0, 2].numpy() + 1 - width) / 2
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(1000, scale=(0.5, 1.0), antialias=False)
    sample = torch.empty((3, 1000, 1000))
    boxes = [transform.make_params([sample]) for _ in range(8000)]
    theirs = np.array([[b["width"], b["height"], b["left"]] for b in boxes]) / 1000
    for ours, reference in zip((width, height, left), theirs.T, strict=True):
        np.testing.assert_allclose(
            np.quantile(ours, [0.05, 0.25, 0.5, 0.75, 0.95]),
            np.quantile(reference, [0.05, 0.25, 0.5, 0.75, 0.95]),
            atol=0.02,
        )


@pytest.mark.parametrize("name", ["hflip", "rotation_angle", "jitter_val", "min_scale"])
def test_each_setting_changes_the_batch(images, name):
    value = {"hflip": 0.9, "rotation_angle": 25, "jitter_val": 0.5, "min_scale": 0.4}[name]
    changed = NONE.model_copy(update={name: value})
    plain = augment(images, draw_augmentation(draws(8), NONE), **IDENTITY)
    assert not torch.equal(augment(images, draw_augmentation(draws(8), changed), **IDENTITY), plain)


def test_flags_of_the_data_set_win():
    settings = Augmentation()
    assert respect_flags(settings, dataset_info("organamnist").flags).hflip == 0
    assert respect_flags(settings, dataset_info("bloodmnist").flags) == settings
    fixed = dataset_info("bloodmnist").flags.model_copy(update={"rotation": "none"})
    assert respect_flags(settings, fixed).rotation_angle == 0


def test_sampling_grid_is_that_of_torch():
    from visionforge.data.augment import _sampling_grid

    theta = torch.randn(5, 2, 3)
    reference = torch.nn.functional.affine_grid(theta, [5, 1, 9, 13], align_corners=False)
    torch.testing.assert_close(_sampling_grid(theta, 9, 13), reference, atol=1e-5, rtol=1e-5)


def test_chunks_change_nothing(images, monkeypatch):
    import visionforge.data.augment as module

    draw = draw_augmentation(draws(8), Augmentation())
    whole = augment(images, draw, (0.5,) * 3, (0.2,) * 3)
    monkeypatch.setattr(module, "CHUNK_PIXELS", 3 * 32 * 32)
    torch.testing.assert_close(augment(images, draw, (0.5,) * 3, (0.2,) * 3), whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("preset", ["none", "light", "standard", "strong"])
def test_presets_differ_and_stand_for_their_values(images, preset):
    from visionforge.config.schema import PRESETS

    named = augment(images, draw_augmentation(draws(8), Augmentation(preset=preset)), **IDENTITY)
    spelled = augment(images, draw_augmentation(draws(8), Augmentation(**PRESETS[preset])), **IDENTITY)
    assert torch.equal(named, spelled)
    for other in {"none", "light", "standard", "strong"} - {preset}:
        assert not torch.equal(
            augment(images, draw_augmentation(draws(8), Augmentation(preset=other)), **IDENTITY), named
        )


def test_preset_none_only_normalises(images):
    out = augment(images, draw_augmentation(draws(8), Augmentation(preset="none")), **IDENTITY)
    torch.testing.assert_close(out, images.float() / 255)


def test_random_operations_stay_in_torchvisions_ranges():
    settings = NONE.model_copy(update={"num_ops": 1, "magnitude": 30})
    draw = draw_augmentation(draws(8000), settings)
    assert draw.theta is not None
    assert draw.colour is not None
    assert float(draw.theta[:, :, 2].abs().max()) == pytest.approx(2 * 150 / 331)
    assert float((draw.colour - 1).abs().max()) == pytest.approx(0.9)
    rotated = draw.theta[:, 0, 0] < 1 - 1e-6
    assert torch.rad2deg(torch.acos(draw.theta[rotated, 0, 0])).max() == pytest.approx(30, abs=1e-2)
    changed = (draw.theta - torch.eye(2, 3)).abs().amax(dim=(1, 2)) > 0
    coloured = (draw.colour - 1).abs().amax(dim=1) > 0
    assert bool((changed ^ coloured).all())  # exactly one operation
    assert abs(float(coloured.float().mean()) - 3 / 8) < 0.02


def test_two_random_operations_are_drawn_independently():
    settings = NONE.model_copy(update={"num_ops": 2, "magnitude": 30})
    draw = draw_augmentation(draws(8000), settings)
    assert draw.theta is not None
    assert draw.colour is not None
    moved = (draw.theta - torch.eye(2, 3)).abs().amax(dim=(1, 2)) > 0
    coloured = (draw.colour - 1).abs().amax(dim=1) > 0
    assert abs(float((moved & coloured).float().mean()) - 2 * 5 / 8 * 3 / 8) < 0.02


@pytest.mark.parametrize("name", ["num_ops", "magnitude"])
def test_random_operations_change_the_batch(images, name):
    base = NONE.model_copy(update={"num_ops": 2, "magnitude": 9})
    changed = base.model_copy(update={name: 5})
    one, two = (augment(images, draw_augmentation(draws(8), s), **IDENTITY) for s in (base, changed))
    assert not torch.equal(one, two)


def test_parity_decides_the_flip(images):
    settings = NONE.model_copy(update={"hflip": 0.5})
    parity = torch.tensor([True, False] * 4)
    out = augment(images, draw_augmentation(draws(8), settings, parity), **IDENTITY)
    torch.testing.assert_close(out[::2], images[::2].flip(-1).float() / 255)
    torch.testing.assert_close(out[1::2], images[1::2].float() / 255)
    off = draw_augmentation(draws(8), NONE, parity)
    assert not off.flip.any()


def test_top_bottom_flip_is_exact(images):
    settings = NONE.model_copy(update={"vflip": 1.0})
    out = augment(images, draw_augmentation(draws(8), settings), **IDENTITY)
    torch.testing.assert_close(out, TF.vertical_flip(images).float() / 255)
    mixed = draw_augmentation(draws(4000), settings.model_copy(update={"vflip": 0.3, "hflip": 0.5}))
    assert mixed.vflip is not None
    assert abs(float(mixed.vflip.float().mean()) - 0.3) < 0.03
    assert abs(np.corrcoef(mixed.vflip, mixed.flip)[0, 1]) < 0.05


def test_top_bottom_flip_comes_before_the_rest_and_leaves_its_draws(images):
    settings = Augmentation(preset="strong").resolved()
    plain = draw_augmentation(draws(8), settings)
    flipped = draw_augmentation(draws(8), settings.model_copy(update={"vflip": 1.0}))
    assert plain.vflip is None
    one = augment(TF.vertical_flip(images), plain, **IDENTITY)
    torch.testing.assert_close(augment(images, flipped, **IDENTITY), one, atol=1e-4, rtol=0)


def test_draws_of_the_usual_settings_stay_from_version_to_version():
    draw = draw_augmentation(draws(3), Augmentation(preset="strong"))
    assert draw.theta is not None
    assert draw.colour is not None
    assert draw.flip.tolist() == [False, True, False]
    np.testing.assert_allclose(
        draw.theta.flatten()[:6], [0.9143167, -0.0929394, 0.201421, 0.0966853, 0.8788925, 0.2995009], rtol=1e-5
    )
    np.testing.assert_allclose(draw.colour[0], [1.1727571, 0.7877408, 1.1671911], rtol=1e-5)


def test_flags_decide_on_each_flip():
    wanted = Augmentation(hflip=0.5, vflip=0.5, dflip=0.5)
    flags = dataset_info("adrenalmnist3d").flags
    allowed = respect_flags(wanted, flags)
    assert (allowed.hflip, allowed.vflip, allowed.dflip) == (0.0, 0.0, 0.5)
    assert respect_flags(wanted, dataset_info("bloodmnist").flags).dflip == 0.0
