"""The fused augmentation of volumes does what exact references say, whole and in chunks."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import affine_transform

from tests.draws import draws
from visionforge import augmentations
from visionforge.config.schema import Augmentation
from visionforge.data import resample_volumes
from visionforge.data.augment import AugmentationDraw, augment
from visionforge.data.augment_volumes import (
    OPERATIONS,
    VolumeDraw,
    augment_volumes,
    draw_volume_augmentation,
    rotations,
    volume_matrix,
)
from visionforge.data.resample_volumes import resample, sampling_grid

NONE = Augmentation(hflip=0.0, rotation_angle=0, jitter_val=0.0, min_scale=1.0)
IDENTITY = {"mean": (0.0,), "std": (1.0,)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def volumes() -> torch.Tensor:
    """White noise: the hardest to interpolate right."""
    return torch.randint(0, 256, (5, 1, 20, 20, 20), generator=generator(1), dtype=torch.uint8)


def draw_of(count: int, flips=(False,) * 3, degrees=(0.0,) * 3, side=1.0, centre=(0.0,) * 3) -> VolumeDraw:
    flip = torch.tensor(flips).expand(count, 3)
    angles = torch.deg2rad(torch.tensor(degrees)).expand(count, 3)
    theta = volume_matrix(flip, angles, torch.full((count,), side), torch.tensor(centre).expand(count, 3))
    return VolumeDraw(flip, theta, None)


def drawn(volumes: torch.Tensor, settings: Augmentation, seed: int = 0) -> torch.Tensor:
    return augment_volumes(volumes, draw_volume_augmentation(draws(len(volumes), seed), settings), **IDENTITY)


@pytest.mark.parametrize(("axis", "planes"), [(0, (-3, -2)), (1, (-1, -3)), (2, (-2, -1))])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact(volumes, axis, planes, turns):
    """About x, a turn from y to z is one from -2 to -3, and so on; the matrix maps output to input."""
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = 90.0 * turns
    out = augment_volumes(volumes, draw_of(5, degrees=degrees), **IDENTITY)
    torch.testing.assert_close(out, torch.rot90(volumes, turns, planes) / 255, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("position", "name", "axis"), [(0, "hflip", -1), (1, "vflip", -2), (2, "dflip", -3)])
def test_flips_are_exact_with_and_without_resampling(volumes, position, name, axis):
    reference = volumes.flip(axis) / 255
    out = drawn(volumes, NONE.model_copy(update={name: 1.0}))
    torch.testing.assert_close(out, reference)
    flips = [k == position for k in range(3)]
    torch.testing.assert_close(
        augment_volumes(volumes, draw_of(5, flips=flips), **IDENTITY), reference, atol=2e-4, rtol=0
    )


def test_flips_alone_do_not_interpolate(volumes):
    settings = NONE.model_copy(update={"hflip": 0.5, "vflip": 0.5, "dflip": 0.5})
    draw = draw_volume_augmentation(draws(5), settings)
    assert draw.theta is None
    assert draw.colour is None


def test_sampling_grid_is_that_of_torch():
    theta = torch.randn((6, 3, 4), generator=generator())
    reference = F.affine_grid(theta, [6, 1, 7, 9, 11], align_corners=False)
    torch.testing.assert_close(sampling_grid(theta, 7, 9, 11), reference, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 20, 20), (8, 13, 10), (65, 9, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resampling_is_that_of_torch(shape, channels):
    """Any matrix, also one that looks far beyond the volume."""
    volumes = torch.randint(0, 256, (4, channels, *shape), generator=generator(), dtype=torch.uint8)
    theta = torch.eye(3, 4) + torch.tensor([0.0, 0.1, 0.5, 2.0])[:, None, None] * torch.randn(
        (4, 3, 4), generator=generator(3)
    )
    out = torch.empty(volumes.shape)
    resample(volumes, theta, out)
    grid = F.affine_grid(theta.double(), [4, channels, *shape], align_corners=False)
    reference = F.grid_sample(volumes.double(), grid, align_corners=False)
    torch.testing.assert_close(out / 255, reference.float() / 255, atol=5e-4, rtol=0)


def test_resampling_of_the_largest_slices_is_right():
    side = resample_volumes.MAX_SIDE
    volumes = torch.randint(0, 256, (1, 1, side, side, side), generator=generator(), dtype=torch.uint8)
    theta = torch.eye(3, 4)[None] + 0.1 * torch.randn((1, 3, 4), generator=generator(3))
    out = torch.empty(volumes.shape)
    resample(volumes, theta, out)
    reference = F.grid_sample(volumes.double(), sampling_grid(theta.double(), side, side, side), align_corners=False)
    torch.testing.assert_close(out.double() / 255, reference / 255, atol=1e-3, rtol=0)


def test_resampling_is_that_of_scipy(volumes):
    """An independent implementation, whose coordinates are voxels and whose axes are z, y, x."""
    draw = draw_of(5, (True, False, True), (20.0, -35.0, 50.0), 0.8, (0.1, -0.15, 0.05))
    out = augment_volumes(volumes, draw, **IDENTITY)
    assert draw.theta is not None
    theta = draw.theta[0].double().numpy()
    matrix, offset = theta[::-1, 2::-1], theta[::-1, 3]
    centre = np.full(3, 9.5)
    for volume, found in zip(volumes[:, 0].double().numpy(), out[:, 0].numpy(), strict=True):
        reference = affine_transform(
            volume, matrix, centre - matrix @ centre + 10 * offset, order=1, mode="grid-constant", cval=0.0
        )
        np.testing.assert_allclose(found, reference / 255, atol=3e-4)


def test_flips_then_rotation_then_crop():
    """The matrix of all is the product of each one's."""
    flips, degrees, side, centre = (True, False, True), (10.0, 20.0, 30.0), 0.7, (0.1, 0.2, -0.3)

    def square(draw: VolumeDraw) -> torch.Tensor:
        assert draw.theta is not None
        return torch.cat([draw.theta[0], torch.tensor([[0.0, 0.0, 0.0, 1.0]])])

    steps = [draw_of(1, flips), draw_of(1, degrees=degrees), draw_of(1, side=side, centre=centre)]
    one, two, three = map(square, steps)
    torch.testing.assert_close(square(draw_of(1, flips, degrees, side, centre)), one @ two @ three)


def test_rotations_keep_lengths_and_handedness():
    matrices = rotations(torch.randn((50, 3), generator=generator())).double()
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).double().expand(50, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_chunks_and_threads_change_nothing(monkeypatch, channels):
    volumes = torch.randint(0, 256, (7, channels, 12, 12, 12), generator=generator(), dtype=torch.uint8)
    draw = draw_volume_augmentation(draws(7), Augmentation(preset="strong", operations=()))
    constants = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
    whole = augment_volumes(volumes, draw, **constants)
    single = torch.cat([augment_volumes(volumes[k : k + 1], draw[k : k + 1], **constants) for k in range(7)])
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(resample_volumes, "CHUNK_VOXELS", 2 * 5 * 144)
    torch.testing.assert_close(augment_volumes(volumes, draw, **constants), whole, atol=1e-5, rtol=0)


def test_draws_are_in_range_and_independent():
    settings = Augmentation(hflip=0.3, vflip=0.4, dflip=0.6, rotation_angle=20, jitter_val=0.4, min_scale=0.5)
    draw = draw_volume_augmentation(draws(20_000), settings)
    assert draw.theta is not None
    assert draw.colour is not None
    np.testing.assert_allclose(draw.flips.float().mean(dim=0), [0.3, 0.4, 0.6], atol=0.015)
    share = torch.linalg.det(draw.theta[:, :, :3].double()).abs()
    np.testing.assert_allclose(np.quantile(share, [0, 0.25, 0.5, 0.75, 1]), [0.5, 0.625, 0.75, 0.875, 1], atol=0.01)
    turn = draw.theta[:, :, :3] / share.float()[:, None, None] ** (1 / 3)
    turn = turn * (1 - 2 * draw.flips.float())[:, :, None]
    angles = torch.stack(
        [
            torch.atan2(turn[:, 2, 1], turn[:, 2, 2]),
            -torch.asin(turn[:, 2, 0]),
            torch.atan2(turn[:, 1, 0], turn[:, 0, 0]),
        ]
    )
    assert angles.abs().max() <= math.radians(20) + 1e-5
    np.testing.assert_allclose(angles.std(dim=1), math.radians(40) / math.sqrt(12), rtol=0.03)
    corner = (turn.mT @ (draw.theta[:, :, 3:] * (1 - 2 * draw.flips.float())[:, :, None]))[..., 0]
    assert (corner.abs() <= 1 - share.float()[:, None] ** (1 / 3) + 1e-5).all()  # the cube lies in the volume
    numbers = torch.cat([draw.flips.T.float(), angles, draw.colour.T, share[None].float()])
    assert np.abs(np.corrcoef(numbers) - np.eye(10)).max() < 0.03
    assert draw.colour.min() >= 0.6 - 1e-6
    assert draw.colour.max() <= 1.4 + 1e-6


def test_draw_is_a_function_of_the_generator_alone():
    one, two, other = (draw_volume_augmentation(draws(4, seed), Augmentation()) for seed in (1, 1, 2))
    assert one.theta is not None
    assert two.theta is not None
    assert torch.equal(one.theta, two.theta)
    assert other.theta is not None
    assert not torch.equal(one.theta, other.theta)


@pytest.mark.parametrize(
    "change",
    [{"hflip": 0.9}, {"vflip": 0.9}, {"dflip": 0.9}, {"rotation_angle": 25}, {"jitter_val": 0.5}, {"min_scale": 0.4}],
    ids=str,
)
def test_each_setting_changes_the_batch(volumes, change):
    assert not torch.equal(drawn(volumes, NONE.model_copy(update=change)), drawn(volumes, NONE))


@pytest.mark.parametrize("name", ["num_ops", "magnitude"])
def test_random_operations_change_the_batch(volumes, name):
    base = NONE.model_copy(update={"num_ops": 2, "magnitude": 9})
    assert not torch.equal(drawn(volumes, base), drawn(volumes, base.model_copy(update={name: 5})))


def test_random_operations_are_one_each_and_as_strong_as_those_of_images():
    settings = NONE.model_copy(update={"num_ops": 1, "magnitude": 30})
    draw = draw_volume_augmentation(draws(9000), settings)
    assert draw.theta is not None
    assert draw.colour is not None
    moved, coloured = (draw.theta - torch.eye(3, 4)).abs() > 1e-6, (draw.colour - 1).abs() > 1e-6
    assert bool((moved.any(dim=(1, 2)) ^ coloured.any(dim=1)).all())
    assert abs(float(coloured.any(dim=1).float().mean()) - 2 / len(OPERATIONS)) < 0.02
    assert float(draw.theta[:, :, 3].abs().max()) == pytest.approx(2 * 150 / 331)
    assert float((draw.colour - 1).abs().max()) == pytest.approx(0.9)
    entries = moved[:, :, :3].sum(dim=(1, 2))
    sheared, turned = entries == 1, entries == 4
    assert abs(float(sheared.float().mean()) - 6 / len(OPERATIONS)) < 0.02
    assert abs(float(turned.float().mean()) - 3 / len(OPERATIONS)) < 0.02
    assert float((draw.theta[sheared][:, :, :3] - torch.eye(3)).abs().amax()) == pytest.approx(0.3)
    cosine = (draw.theta[turned][:, :, :3].diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
    np.testing.assert_allclose(cosine, math.cos(math.radians(30)), atol=1e-5)


def test_brightness_and_contrast_are_clipped_and_normalised(volumes):
    colour = torch.tensor([[1.6, 0.7, 1.0]]).expand(5, 3)
    draw = VolumeDraw(torch.zeros((5, 3), dtype=torch.bool), None, colour)
    values = volumes.double() / 255 * 1.6
    values = (0.7 * values + 0.3 * values.mean(dim=(2, 3, 4), keepdim=True)).clamp(0, 1)
    out = augment_volumes(volumes, draw, (0.4,) * 3, (0.2,) * 3)
    assert out.shape == (5, 3, 20, 20, 20)
    torch.testing.assert_close(out, ((values - 0.4) / 0.2).float().expand(-1, 3, -1, -1, -1), atol=1e-5, rtol=0)


def test_public_function_takes_volumes(volumes):
    settings = {"mean": (0.5,), "std": (0.5,), "seed": 3}
    found = augmentations.random_augment(volumes, {"dflip": 1.0, "rotation_angle": 20}, **settings)
    assert found.shape == volumes.shape
    further = augmentations.random_augment(volumes, {"operations": ["gaussian_noise"]}, **settings)
    assert not torch.equal(further, augmentations.random_augment(volumes, {}, **settings))
    with pytest.raises(ValueError, match=r"dflip: 0\.5 is not allowed with images"):
        augmentations.random_augment(volumes[:, :, 0], {"dflip": 0.5}, **settings)
    with pytest.raises(ValueError, match="or volumes"):
        augmentations.random_augment(volumes[..., :9], {}, **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same(volumes):
    draw = draw_volume_augmentation(draws(5), Augmentation(preset="strong"))
    there = augment_volumes(volumes.cuda(), draw.to(torch.device("cuda")), **IDENTITY).cpu()
    torch.testing.assert_close(there, augment_volumes(volumes, draw, **IDENTITY), atol=5e-4, rtol=0)


def test_colours_of_volumes_are_changed_as_those_of_images_are():
    """The product of matrices that changes them must not be written over the voxels that it reads."""
    colours = torch.randint(0, 256, (2, 3, 6, 6, 6), dtype=torch.uint8, generator=generator(3))
    factors = torch.tensor([[1.1, 0.9, 1.2], [0.8, 1.1, 0.7]])
    still = VolumeDraw(torch.zeros(2, 3, dtype=torch.bool), torch.eye(3, 4).expand(2, 3, 4).clone(), factors)
    constants = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    flat = colours.reshape(2, 3, 6, 36)  # what is done to values asks not where they are
    wanted = augment(flat, AugmentationDraw(torch.zeros(2, dtype=torch.bool), None, factors), **constants)
    found = augment_volumes(colours, still, **constants)
    torch.testing.assert_close(found, wanted.view(2, 3, 6, 6, 6), atol=2e-3, rtol=0)
