"""MixUp and CutMix are what was published, and mix targets by the share of the pixels."""

import numpy as np
import pytest
import torch
from scipy import stats

from visionforge.training.mixing.mixup import MixUp
from visionforge.training.mixup import (
    MixDraw,
    draw_mix,
    lanes_of,
    mix_images,
    mix_masks,
    mix_soft_masks,
    mix_targets,
)


def shares(count: int, **settings) -> np.ndarray:
    return np.concatenate([draw_mix(2, MixUp(**settings), 28, seed).lam[:1].numpy() for seed in range(count)])


def test_mixup_is_the_convex_combination():
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    lam = torch.tensor([0.3, 0.3, 0.9, 0.0])
    draw = MixDraw(lam, torch.tensor([2, 3, 0, 0]))
    out, targets = mix_images(images, draw), mix_targets(torch.eye(4, dtype=torch.float64), draw)
    for index, partner in enumerate([2, 3, 0, 0]):
        share = float(lam[index])
        torch.testing.assert_close(out[index], share * images[index] + (1 - share) * images[partner])
        reference = share * torch.eye(4)[index] + (1 - share) * torch.eye(4)[partner]
        torch.testing.assert_close(targets[index].float(), reference)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("per_image", [False, True])
def test_lambda_is_beta_distributed(alpha, per_image):
    lams = shares(4000, alpha=alpha, per_image=per_image)
    assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 0.001


@pytest.mark.parametrize("alpha", [1e-6, 0.002, 1.0])
@pytest.mark.parametrize("cutmix", [0.0, 1e-6, 1.0])
def test_lambda_is_always_a_share(alpha, cutmix):
    lams = shares(500, alpha=alpha, cutmix_alpha=cutmix)
    assert np.isfinite(lams).all()
    assert ((lams >= 0) & (lams <= 1)).all()


def test_nothing_is_drawn_when_both_are_off():
    assert draw_mix(8, MixUp(alpha=0.0), 28, 0) is None


@pytest.mark.parametrize("settings", [{"alpha": 0.4}, {"alpha": 0.4, "cutmix_alpha": 1.0, "per_image": True}])
def test_draw_is_a_function_of_the_seed(settings):
    one, two, other = (draw_mix(50, MixUp(**settings), 28, seed) for seed in (3, 3, 4))
    assert torch.equal(one.lam, two.lam)
    assert torch.equal(one.partner, two.partner)
    assert (one.boxes is None and two.boxes is None) or torch.equal(one.boxes, two.boxes)
    assert sorted(one.partner.tolist()) == list(range(50))
    assert not torch.equal(other.lam, one.lam)


def test_one_draw_per_batch_or_per_image():
    for settings in ({"alpha": 0.4}, {"alpha": 0.0, "cutmix_alpha": 1.0}):
        assert len(draw_mix(50, MixUp(**settings), 28, 1).lam.unique()) == 1
        assert len(draw_mix(50, MixUp(**settings, per_image=True), 28, 1).lam.unique()) > 25


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("resolution", [8, 28])
def test_cutmix_pastes_a_rectangle_and_counts_its_pixels(per_image, resolution):
    values = torch.arange(16.0)[:, None, None, None].expand(-1, 3, resolution, resolution)
    settings = MixUp(alpha=0.0, cutmix_alpha=1.0, per_image=per_image)
    for seed in range(30):
        draw = draw_mix(16, settings, resolution, seed)
        out = mix_images(values, draw)
        for index, (top, left, bottom, right) in enumerate(draw.boxes.tolist()):
            reference = values[index].clone()
            reference[:, top:bottom, left:right] = float(draw.partner[index])
            assert torch.equal(out[index], reference)
            kept = 1 - (bottom - top) * (right - left) / resolution**2
            assert float(draw.lam[index]) == pytest.approx(kept, abs=1e-6)


def test_cutmix_keeps_beta_shares_away_from_the_border():
    """Of patches that were not clipped, the kept share is the one that was drawn."""
    lams = []
    for seed in range(6000):
        draw = draw_mix(1, MixUp(alpha=0.0, cutmix_alpha=1.0), 1000, seed)
        top, left, bottom, right = draw.boxes[0].tolist()
        if top > 0 and left > 0 and bottom < 1000 and right < 1000:
            side = bottom - top
            lams.append((1 - float(draw.lam[0]), ((1000 - side) / 1000) ** 2))
    areas, chance = np.array(lams).T  # a large patch is seldom unclipped, so each counts by the inverse of its chance
    weighted = [np.average(areas < edge, weights=1 / chance) for edge in (0.1, 0.25, 0.5)]
    assert weighted == pytest.approx([0.1, 0.25, 0.5], abs=0.05)


def test_cutmix_probability_chooses_between_the_two():
    for prob, expected in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)):
        settings = MixUp(alpha=1.0, cutmix_alpha=1.0, cutmix_prob=prob)
        cut = [bool(draw_mix(1, settings, 64, seed).boxes.any()) for seed in range(1500)]
        assert np.mean(cut) == pytest.approx(expected, abs=0.05)


def test_batch_that_mixes_both_treats_each_image_by_its_own_draw():
    images = torch.rand(64, 1, 28, 28)
    draw = draw_mix(64, MixUp(alpha=1.0, cutmix_alpha=1.0, per_image=True), 28, 5)
    out = mix_images(images, draw)
    kinds = set()
    for index, (top, left, bottom, right) in enumerate(draw.boxes.tolist()):
        partner = images[draw.partner[index]]
        if bottom > top:
            reference = images[index].clone()
            reference[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
        else:
            reference = draw.lam[index] * images[index] + (1 - draw.lam[index]) * partner
        torch.testing.assert_close(out[index], reference)
        kinds.add(bottom > top)
    assert kinds == {True, False}


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_mask_has_the_patch_that_its_image_has(dims, per_image, dtype):
    shape = (16, *(12,) * dims)
    masks = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for seed in range(10):
        draw = draw_mix(16, MixUp(alpha=0.0, cutmix_alpha=1.0, per_image=per_image), 12, seed, dims)
        found = mix_masks(masks, draw)
        assert found.dtype == dtype
        assert torch.equal(found, mix_images(masks[:, None].double(), draw)[:, 0].to(dtype))
        for index, box in enumerate(draw.boxes.tolist()):
            reference = masks[index].clone()
            patch = tuple(slice(low, high) for low, high in zip(box[:dims], box[dims:], strict=True))
            reference[patch] = masks[draw.partner[index]][patch]
            assert torch.equal(found[index], reference)


def test_masks_as_shares_are_the_convex_combination():
    masks = torch.randint(0, 3, (4, 5, 6), generator=torch.Generator().manual_seed(0))
    masks[1, 2, 3] = 255  # of no class
    lam, partners = torch.tensor([0.3, 0.6, 0.9, 0.0]), [2, 3, 0, 1]
    shares = mix_soft_masks(masks.to(torch.uint8), MixDraw(lam, torch.tensor(partners)), 3)
    assert shares.dtype == torch.float32
    for index, partner in enumerate(partners):
        for row in range(5):
            for column in range(6):
                expected = np.zeros(3)
                for image, share in ((index, float(lam[index])), (partner, 1 - float(lam[index]))):
                    if masks[image, row, column] < 3:
                        expected[masks[image, row, column]] += share
                np.testing.assert_allclose(shares[index, :, row, column], expected, atol=1e-6)


def test_masks_as_shares_hold_the_patch_of_cutmix():
    masks = torch.randint(0, 4, (16, 12, 12), generator=torch.Generator().manual_seed(0))
    draw = draw_mix(16, MixUp(alpha=0.0, cutmix_alpha=1.0, per_image=True), 12, 3)
    assert torch.equal(mix_soft_masks(masks, draw, 4).argmax(dim=1), mix_masks(masks, draw))


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_masks_cannot_hold_what_mixup_blends(cutmix):
    draw = draw_mix(32, MixUp(alpha=1.0, cutmix_alpha=cutmix, per_image=True), 12, 0)
    with pytest.raises(ValueError, match=r"masks: MixUp blends classes.*use mix_soft_masks"):
        mix_masks(torch.zeros(32, 12, 12, dtype=torch.uint8), draw)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize(("replicas", "count"), [(2, 32), (4, 16), (8, 8), (2, 12), (3, 24)])
def test_several_processes_mix_what_one_would(replicas, count, cutmix, per_image):
    """Each has every R-th image of the batch of all, and the partners of its images among them."""
    settings = MixUp(alpha=0.7, cutmix_alpha=cutmix, per_image=per_image)
    total = replicas * count
    images, targets = torch.rand(total, 1, 12, 12), torch.eye(total)
    whole = draw_mix(total, settings, 12, 5)
    expected = mix_images(images, whole), mix_targets(targets, whole)
    together = lanes_of(total) % replicas == 0
    assert together == (replicas != 3)
    for rank in range(replicas):
        part = draw_mix(count, settings, 12, 5, 2, rank, replicas)
        found = mix_images(images[rank::replicas], part), mix_targets(targets[rank::replicas], part)
        assert (found[1].sum(dim=1) - 1).abs().max() < 1e-6
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other[rank::replicas]) == together


@pytest.mark.parametrize(
    ("total", "lanes"), [(1, 1), (8, 1), (15, 1), (16, 2), (24, 2), (100, 4), (128, 16), (1024, 64), (4096, 64)]
)
def test_partners_are_others_of_the_same_lane(total, lanes):
    assert lanes_of(total) == lanes
    for seed in range(3):
        partner = draw_mix(total, MixUp(alpha=1.0), 28, seed).partner
        assert sorted(partner.tolist()) == list(range(total))
        assert total == 1 or (partner != torch.arange(total)).all()
        assert (partner % lanes_of(total) == torch.arange(total) % lanes_of(total)).all()


def test_every_partner_of_a_lane_is_as_likely():
    counts = torch.zeros(16, 16)
    for seed in range(3000):
        partner = draw_mix(16, MixUp(alpha=1.0), 28, seed).partner
        counts[torch.arange(16), partner] += 1
    for image in range(16):
        others = [other for other in range(16) if other % 2 == image % 2 and other != image]
        assert counts[image].sum() == counts[image, others].sum()
        assert (counts[image, others] - 3000 / 7).abs().max() < 5 * (3000 / 7 * 6 / 7) ** 0.5
