"""Operations after the fused pass: what was published, for values from 0 to 1, by the numbers of each image alone."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from tests.draws import draws
from tests.training.helpers import PLAIN, data
from visionforge import augmentations
from visionforge.config.schema import Augmentation, AugmentationOperation
from visionforge.data.augment import apply_operations, augment, draw_augmentation, numbers_for
from visionforge.data.operations.random_erasing import RandomErasing
from visionforge.errors import DataError, SettingsError

NAMES = list(AugmentationOperation.family.kinds)
FIXED = ("threshold",)  # they draw nothing
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int, channels: int = 3, size: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=generator(9), dtype=torch.uint8)


def further(images: torch.Tensor, *operations, seed: int = 0, mean=MEAN, std=STD) -> torch.Tensor:
    draw = draw_augmentation(draws(len(images)), PLAIN)
    numbers = [generator(seed)] * len(operations)
    return apply_operations(augment(images, draw, *plain(images)), operations, numbers, mean, std)


def plain(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the constants that leave values from 0 to 1."""
    return (0.0,) * images.shape[1], (1.0,) * images.shape[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_built_in_operations_draw_from_the_numbers_of_an_image_alone(name, channels):
    operation = AugmentationOperation(name=name).build()
    images = pixels(64, channels).float() / 255
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = (operation(images.clone(), draws(64, seed)) for seed in (1, 1, 2))
    part = operation(images[10:20].clone(), draws(64, 1)[10:20])
    assert torch.equal(part, one[10:20])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, two)
    assert torch.equal(one, other) == (name in FIXED)
    assert one.shape == images.shape
    assert one.dtype == torch.float32


def test_without_an_operation_it_is_the_fused_pass():
    images = pixels(8)
    draw = draw_augmentation(draws(8), Augmentation(preset="strong"))
    fused = augment(images, draw, MEAN, STD)
    values = augment(images, draw, *plain(images))
    torch.testing.assert_close(apply_operations(values, (), (), MEAN, STD), fused, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_built_in_operations_take_volumes(name):
    operation = AugmentationOperation(name=name).build()
    volumes = torch.full((32, 1, 12, 12, 12), 0.6)
    one, other = (operation(volumes.clone(), draws(32, seed)) for seed in (1, 2))
    assert one.shape == volumes.shape
    assert torch.equal(one, other) == (name in FIXED)
    assert not torch.equal(one, volumes)


def test_erased_boxes_of_volumes_are_in_their_ranges():
    boxes = RandomErasing(probability=0.7, scale=0.2).draw_boxes((64, 64, 64), draws(20_000))
    sides = (boxes[:, 1] - boxes[:, 0]).double()
    erased = sides.prod(dim=1) > 0
    assert abs(float(erased.double().mean()) - 0.7) < 0.01
    share = sides[erased].prod(dim=1) / 64**3
    assert 0.017 < share.min() < 0.022  # sides are rounded to whole voxels
    assert 0.18 < share.max() < 0.215
    ratio = sides[erased].amax(dim=1) / sides[erased].amin(dim=1)
    assert ratio.max() < 1 / 0.3 * 1.15
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert boxes[erased][:, 0].amin(dim=0).tolist() == [0, 0, 0]
    assert boxes[erased][:, 1].amax(dim=0).tolist() == [64, 64, 64]
    volumes = torch.full((50, 2, 9, 10, 11), -1.0)
    small = RandomErasing(probability=1.0, scale=0.5)
    changed = small.build()(volumes.clone(), draws(50, 3)) != -1
    for found, (first, last) in zip(changed, small.draw_boxes((9, 10, 11), draws(50, 3)).tolist(), strict=True):
        wanted = torch.zeros(9, 10, 11, dtype=torch.bool)
        wanted[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
        assert torch.equal(found, wanted.expand_as(found))


def test_operations_see_zero_to_one_in_their_order_and_are_clipped_at_the_end():
    images, seen = pixels(16), []

    def look(values, _):
        seen.append((float(values.min()), float(values.max())))
        return values * 4 - 1

    out = further(images, look, look)
    assert seen == [(0.0, 1.0), (-1.0, 3.0)]
    raw = ((images.float() / 255 * 4 - 1) * 4 - 1).clamp(0, 1)
    torch.testing.assert_close(out, v2.functional.normalize(raw, MEAN, STD), atol=1e-5, rtol=0)


def test_a_grey_image_has_one_channel_and_fills_all():
    shapes = []

    def look(values, _):
        shapes.append(tuple(values.shape))
        return values.mul_(0.5)

    out = further(pixels(4, channels=1), look, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert shapes == [(4, 1, 28, 28)]
    assert out.shape == (4, 3, 28, 28)
    assert torch.equal(out[:, 0], out[:, 2])


@pytest.mark.parametrize("wrong", [lambda v, _: v[:1], lambda v, _: v.half(), lambda v, _: v.mean(dim=1)])
def test_what_returns_something_else_is_one_line(wrong):
    with pytest.raises(DataError, match=r"data\.augmentation\.operations: .* returned .*; allowed: \(4, 3, 28, 28\)"):
        further(pixels(4), wrong)


@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_noise_is_that_of_torchvision(sigma):
    grey = torch.full((200, 3, 28, 28), 0.5)
    ours = AugmentationOperation(name="gaussian_noise", sigma=sigma).build()(grey.clone(), draws(200)) - 0.5
    theirs = v2.GaussianNoise(sigma=sigma, clip=False)(grey) - 0.5
    assert stats.kstest(ours.flatten()[:20000].numpy() / sigma, "norm").pvalue > 0.001
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.01)
    assert np.corrcoef(ours[:, 0].flatten(), ours[:, 1].flatten())[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("height", "width", "scale"), [(28, 28, 0.33), (64, 40, 0.1)])
def test_rectangles_have_the_sizes_and_places_of_torchvision(height, width, scale):
    ours = RandomErasing(probability=1.0, scale=scale).draw(height, width, draws(3000)).double()
    top, left, bottom, right = ours.unbind(1)
    transform = v2.RandomErasing(p=1.0, scale=(0.02, scale))
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = [transform.make_params([image]) for _ in range(3000)]
    pairs = {
        "height": (bottom - top, [p["h"] for p in theirs]),
        "width": (right - left, [p["w"] for p in theirs]),
        "top": (top, [p["i"] for p in theirs]),
        "left": (left, [p["j"] for p in theirs]),
    }
    for name, (mine, reference) in pairs.items():
        assert stats.ks_2samp(mine.numpy(), np.array(reference)).pvalue > 0.001, name
    assert int((top < 0).sum() + (left < 0).sum() + (bottom > height).sum() + (right > width).sum()) == 0


def test_rectangles_are_erased_in_a_share_of_the_images_and_filled_with_noise():
    images = torch.full((2000, 3, 28, 28), 2.0)
    operation = RandomErasing(probability=0.3)
    out, boxes = operation.build()(images, draws(2000, 3)), operation.draw(28, 28, draws(2000, 3))
    changed = out != 2.0
    assert float(changed.flatten(1).any(dim=1).float().mean()) == pytest.approx(0.3, abs=0.04)
    for index in range(100):
        inside = torch.zeros(28, 28, dtype=torch.bool)
        top, left, bottom, right = boxes[index].tolist()
        inside[top:bottom, left:right] = True
        assert torch.equal(changed[index], inside.expand(3, -1, -1))
    assert stats.kstest(out[changed][:5000].numpy(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_a_threshold_leaves_black_and_white(level):
    grey = torch.rand((8, 1, 6, 6, 6), generator=generator())
    out = AugmentationOperation(name="threshold", level=level).build()(grey.clone(), draws(8))
    np.testing.assert_array_equal(out.numpy(), np.where(grey.numpy() < level, 0, 1).astype(np.float32))


def test_turned_masks_stay_masks_under_a_threshold():
    masks = (pixels(4, channels=1) > 127).to(torch.uint8) * 255
    turned = {"rotation_angle": 20, "jitter_val": 0.0}
    look = {"mean": (0.0,), "std": (1.0,), "seed": 1}
    grey = augmentations.random_augment(masks, turned, **look)
    sharp = augmentations.random_augment(masks, {**turned, "operations": ["threshold"]}, **look)
    assert len(grey.unique()) > 100
    assert sharp.unique().tolist() == [0.0, 1.0]
    assert torch.equal(sharp, (grey >= 0.5).float())


def test_batches_of_the_data_module_have_them_in_training_only():
    plain, more = data(), data(augmentation={"preset": "none", "operations": [{"name": "gaussian_noise"}]})
    images = pixels(16, size=16)
    one, two, other = more.augment(images, 0, 1), more.augment(images, 0, 1), more.augment(images, 0, 2)
    assert torch.equal(one, two)
    noise = (one - other)[one.abs() < 1]
    assert float(noise.std()) > 0.1
    assert torch.equal(more.normalise(images), plain.normalise(images))
    assert not torch.equal(one, plain.augment(images, 0, 1))


def test_many_images_are_changed_in_parts_like_one(monkeypatch):
    images, settings = pixels(50).float() / 255, [AugmentationOperation(name=name) for name in NAMES]
    operations, places = [each.build() for each in settings], torch.arange(100, 150)
    whole = apply_operations(images.clone(), operations, numbers_for(settings, 3, places, 4), MEAN, STD)
    monkeypatch.setattr("visionforge.data.augment.CHANGED_AT_ONCE", 7 * images[0].numel())
    parts = apply_operations(images.clone(), operations, numbers_for(settings, 3, places, 4), MEAN, STD)
    assert torch.equal(whole, parts)
    later = apply_operations(images[20:].clone(), operations, numbers_for(settings, 3, places[20:], 9), MEAN, STD)
    assert torch.equal(later, whole[20:])


def test_a_preset_leaves_them_where_they_are():
    chosen = Augmentation(preset="light", operations=["random_erasing"])
    assert chosen.resolved().operations == (RandomErasing(),)
    assert chosen.resolved().rotation_angle == 0
    with pytest.raises(SettingsError, match="preset 'light' sets every value, so leave out hflip"):
        data(augmentation={"preset": "light", "operations": ["random_erasing"], "hflip": 0.1})


def test_the_function_for_other_loops_applies_them():
    settings = {"preset": "none", "operations": [{"name": "gaussian_noise", "sigma": 0.2}]}
    images = pixels(8)
    one, two, other = (augmentations.random_augment(images, settings, mean=MEAN, std=STD, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one, augmentations.random_augment(images, "none", mean=MEAN, std=STD, seed=1))
