"""The losses of masks as settings: each field changes what is minimised, by as much as a loop over pixels says."""

import math

import numpy as np
import pytest
import torch

import visionforge as vf
from tests.tasks.helpers import mask_model, noise
from visionforge.config.schema import Loss
from visionforge.config.schema.components import Component
from visionforge.training.losses.combined import Combined
from visionforge.training.losses.dice import Dice
from visionforge.training.losses.tversky import Tversky
from visionforge.training.mask_criterion import MaskCriterion

CLASSES = 3
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, CLASSES, 6, 5, generator=RANDOM) * 2
MASKS = torch.randint(0, CLASSES, (2, 6, 5), generator=RANDOM)
MASKS[torch.rand(MASKS.shape, generator=RANDOM) < 0.2] = 255
MIXED = torch.softmax(torch.randn(2, CLASSES, 6, 5, generator=RANDOM), dim=1)
MIXED[:, :, 0] = 0  # does not count


def pixels_of(targets, smoothing):
    """Yield probabilities, smoothed and given shares of each pixel that counts, in float64."""
    logits = LOGITS.double().permute(0, 2, 3, 1).reshape(-1, CLASSES).tolist()
    if targets.ndim == 3:
        shares = [[float(k == value) for k in range(CLASSES)] for value in targets.flatten().tolist()]
    else:
        shares = targets.double().permute(0, 2, 3, 1).reshape(-1, CLASSES).tolist()
    for given, share in zip(logits, shares, strict=True):
        if sum(share) > 0:
            above = [math.exp(value) for value in given]
            smoothed = [value * (1 - smoothing) + smoothing / CLASSES * sum(share) for value in share]
            yield [value / sum(above) for value in above], smoothed, share


def slow(settings, targets, weights):
    """Compute the loss of settings, pixel by pixel."""
    given = [1.0] * CLASSES if weights is None else weights.tolist()
    pixels = list(pixels_of(targets, settings.label_smoothing))

    def of_pixels(gamma):
        above = below = 0.0
        for p, g, unsmoothed in pixels:
            for k in range(CLASSES):
                above -= given[k] * g[k] * (1 - p[k]) ** gamma * math.log(p[k])
                below += given[k] * unsmoothed[k]
        return above / below

    def of_overlap(alpha, beta, smoothing):
        values = []
        for k in range(CLASSES):
            hits = sum(p[k] * g[k] for p, g, _ in pixels)
            wrong = sum(p[k] * (1 - g[k]) for p, g, _ in pixels)
            missed = sum((1 - p[k]) * g[k] for p, g, _ in pixels)
            values.append((hits + smoothing) / (hits + alpha * wrong + beta * missed + smoothing))
        return 1 - sum(w * value for w, value in zip(given, values, strict=True)) / sum(given)

    def dice():
        return of_overlap(0.5, 0.5, settings.overlap_smoothing / 2)  # (2h + s) / (2h + w + m + s)

    def tversky():
        return of_overlap(settings.tversky_alpha, settings.tversky_beta, settings.overlap_smoothing)

    match settings.name:
        case "dice":
            return dice()
        case "tversky":
            return tversky()
        case "combined":
            shares = ((settings.cross_entropy, of_pixels(0)), (settings.dice, dice()), (settings.tversky, tversky()))
            return sum(a * b for a, b in shares) + settings.focal * of_pixels(settings.focal_gamma)
    return of_pixels(getattr(settings, "focal_gamma", 0.0))


SETTINGS = [
    Combined(),
    Combined(cross_entropy=0.2),
    Combined(dice=0.5),
    Combined(focal=2.0),
    Combined(focal=2.0, focal_gamma=1.0),
    Combined(tversky=1.5),
    Combined(tversky=1.5, tversky_alpha=0.9),
    Combined(tversky=1.5, tversky_beta=1.9),
    Combined(overlap_smoothing=20),
    Combined(label_smoothing=0.2),
    Dice(),
    Dice(overlap_smoothing=20),
    Dice(label_smoothing=0.2),
    Tversky(),
    Tversky(tversky_alpha=0.9),
    Tversky(tversky_beta=1.9),
    Tversky(overlap_smoothing=20),
    Loss(name="cross_entropy"),
    Loss(name="cross_entropy", label_smoothing=0.2),
    Loss(name="focal", focal_gamma=1.0),
    Loss(name="focal", focal_gamma=3.0),
]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighed"])
@pytest.mark.parametrize("targets", [MASKS, MIXED], ids=["masks", "mixed"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings_mean_the_loss_of_a_float64_loop(settings, targets, weights):
    criterion = MaskCriterion.of(settings, "segmentation", CLASSES, weights)
    assert float(criterion(LOGITS, targets)) == pytest.approx(slow(settings, targets, weights), rel=2e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["combined", "cross_entropy"])
def test_the_cross_entropy_is_the_weighted_mean_of_torch(name, smoothing, weights):
    alone = {"dice": 0} if name == "combined" else {}
    criterion = MaskCriterion.of(Loss(name=name, label_smoothing=smoothing, **alone), "segmentation", CLASSES, weights)
    expected = torch.nn.functional.cross_entropy(
        LOGITS.double(),
        MASKS,
        None if weights is None else weights.double(),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    assert float(criterion(LOGITS, MASKS)) == pytest.approx(float(expected), rel=1e-6)


def test_every_setting_changes_the_loss():
    values = [round(float(MaskCriterion.of(each, "segmentation", CLASSES)(LOGITS, MASKS)), 6) for each in SETTINGS]
    assert len(set(values)) == len(SETTINGS)


def test_the_usual_loss_is_the_sum_of_cross_entropy_and_dice():
    criterion = MaskCriterion.of(Loss(), "segmentation", CLASSES)
    assert criterion.loss.name == "combined"
    parts = vf.losses.pixel_cross_entropy(LOGITS, MASKS, ignore=255) + vf.losses.dice_loss(LOGITS, MASKS, ignore=255)
    torch.testing.assert_close(criterion(LOGITS, MASKS), parts)
    plain = criterion.plain()
    torch.testing.assert_close(plain(LOGITS, MASKS), torch.nn.functional.cross_entropy(LOGITS, MASKS, ignore_index=255))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_pixels_that_do_not_count_change_no_loss_and_get_no_gradient(settings):
    criterion = MaskCriterion.of(settings, "segmentation", CLASSES)
    there = (MASKS == 255)[:, None].expand_as(LOGITS)
    other = torch.where(there, LOGITS * -5, LOGITS).requires_grad_()
    loss = criterion(other, MASKS)
    torch.testing.assert_close(loss, criterion(LOGITS, MASKS))
    (gradient,) = torch.autograd.grad(loss, other)
    assert not gradient[there].any()
    assert gradient[~there].any()
    nothing = criterion(other, torch.full_like(MASKS, 255))
    assert float(nothing) == 0
    assert torch.autograd.grad(nothing, other, allow_unused=True)[0] is None or not gradient[there].any()


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Combined, {"cross_entropy": 0, "dice": 0}, "cross_entropy, dice, focal and tversky are all 0"),
        (Combined, {"dice": -1}, "greater than or equal to 0"),
        (Combined, {"focal": 101}, "less than or equal to 100"),
        (Combined, {"overlap_smoothing": 0}, "greater than 0"),
        (Dice, {"overlap_smoothing": math.inf}, "finite|less than or equal"),
        (Tversky, {"tversky_beta": 0}, "greater than 0"),
        (Tversky, {"tversky_alpha": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_out_of_their_bounds_are_refused(kind, fields, message):
    assert issubclass(kind, Component)
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize(
    "decoder",
    [{"name": "unet"}, {"name": "unet", "width": 8}, {"name": "fpn"}, {"name": "fpn", "width": 16}],
    ids=str,
)
def test_name_and_width_of_the_decoder_make_another_network(decoder):
    usual, other = mask_model(), mask_model(decoder=decoder)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (usual, other)]
    assert (sizes[0] == sizes[1]) == (decoder == {"name": "unet"})
    assert other(noise(2)).shape == (2, 3, 16, 16)


def test_dropout_of_the_decoder_drops_channels_in_training_only():
    plain, dropping = mask_model(), mask_model(decoder={"name": "unet", "dropout": 0.5})
    dropping.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(noise(2)), dropping(noise(2)))
        dropping.train()
        first, second = dropping(noise(8)), dropping(noise(8))
    assert not torch.allclose(first, second)
    assert np.isfinite(first.numpy()).all()
