"""The losses of masks are those of loops over pixels and of torch; gradients are finite whatever a mask is empty of."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from visionforge import losses

CLASSES = 3
SHAPES = [(2, CLASSES, 5, 4), (2, CLASSES, 3, 4, 2)]
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
RANDOM = torch.Generator().manual_seed(0)
OVERLAPS = (losses.dice_loss, losses.tversky_loss, losses.generalized_dice_loss)
PIXELS = (losses.pixel_cross_entropy, losses.pixel_focal)
ALL = (*OVERLAPS, *PIXELS)


def given(shape, kind="hard"):
    """Return float64 logits and targets: classes, classes some of which are 255, or shares."""
    logits = torch.randn(shape, generator=RANDOM, dtype=torch.float64) * 2
    if kind == "soft":
        return logits, torch.softmax(torch.randn(shape, generator=RANDOM, dtype=torch.float64), dim=1)
    targets = torch.randint(0, CLASSES, (shape[0], *shape[2:]), generator=RANDOM)
    targets[0][targets[0] == 2] = 0  # one class is not in the first image
    if kind == "ignore":
        targets[torch.rand(targets.shape, generator=RANDOM) < 0.3] = 255
    return logits, targets


def pixels_of(logits, targets):
    """Yield image, probabilities and target shares of each pixel that counts, as lists of float64."""
    for place in itertools.product(*(range(size) for size in (len(logits), *logits.shape[2:]))):
        index = (place[0], slice(None), *place[1:])
        above = [math.exp(value) for value in logits[index].tolist()]
        if targets.shape == logits.shape:
            shares = targets[index].tolist()
        elif int(targets[place]) == 255:
            continue
        else:
            shares = [float(k == int(targets[place])) for k in range(CLASSES)]
        yield place[0], [value / sum(above) for value in above], shares


def slow_overlap(name, logits, targets, *, smoothing, per_image, weights=None, squared=False, alpha=0.3, beta=0.7):
    """Compute a loss of overlap from sums that are gathered pixel by pixel."""
    groups = range(len(logits)) if per_image else [None]
    weights = [1.0] * CLASSES if weights is None else weights.tolist()
    total = 0.0
    for group in groups:
        pixels = [(p, g) for image, p, g in pixels_of(logits, targets) if group in (None, image)]
        each, above, below = [], 0.0, 0.0
        volumes = [sum(g[k] for _, g in pixels) for k in range(CLASSES)]
        rarest = min((volume for volume in volumes if volume), default=1)
        for k in range(CLASSES):
            pairs = [(p[k], g[k]) for p, g in pixels]
            hits = sum(p * g for p, g in pairs)
            if name == "dice":
                size = sum(p * p + g * g if squared else p + g for p, g in pairs)
                each.append((2 * hits + smoothing) / (size + smoothing))
            elif name == "tversky":
                wrong, missed = (sum(p * (1 - g) for p, g in pairs), sum((1 - p) * g for p, g in pairs))
                each.append((hits + smoothing) / (hits + alpha * wrong + beta * missed + smoothing))
            else:
                weight = (rarest / volumes[k]) ** 2 if volumes[k] else 1.0
                above, below = above + weight * 2 * hits, below + weight * sum(p + g for p, g in pairs)
        if each:
            total += 1 - sum(w * value for w, value in zip(weights, each, strict=True)) / sum(weights)
        else:
            total += 1 - (above + smoothing) / (below + smoothing)
    return total / len(groups)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("kind", ["hard", "ignore", "soft"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_of_overlap_are_those_of_a_loop(shape, kind, per_image):
    logits, targets = given(shape, kind)
    ignore = 255 if kind == "ignore" else None
    for smoothing in (1e-5, 2.0):
        shared = {"smoothing": smoothing, "per_image": per_image}
        plain = losses.dice_loss(logits, targets, ignore=ignore, **shared)
        assert float(plain) == pytest.approx(slow_overlap("dice", logits, targets, **shared), abs=1e-12)
        own = shared | {"weights": WEIGHTS, "squared": True}
        found = losses.dice_loss(logits, targets, ignore=ignore, **own)
        assert float(found) == pytest.approx(slow_overlap("dice", logits, targets, **own), abs=1e-12)
        own = shared | {"weights": WEIGHTS, "alpha": 0.2, "beta": 1.4}
        found = losses.tversky_loss(logits, targets, ignore=ignore, **own)
        assert float(found) == pytest.approx(slow_overlap("tversky", logits, targets, **own), abs=1e-12)
        found = losses.generalized_dice_loss(logits, targets, ignore=ignore, **shared)
        assert float(found) == pytest.approx(slow_overlap("generalised", logits, targets, **shared), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_of_pixels_is_that_of_torch(shape):
    logits, targets = given(shape, "ignore")
    found = losses.pixel_cross_entropy(logits, targets, ignore=255)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, ignore_index=255))
    found = losses.pixel_cross_entropy(logits, targets, ignore=255, weights=WEIGHTS)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, WEIGHTS.double(), ignore_index=255))
    found = losses.pixel_cross_entropy(logits, targets, ignore=255, label_smoothing=0.2)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, ignore_index=255, label_smoothing=0.2))
    logits, shares = given(shape, "soft")
    torch.testing.assert_close(losses.pixel_cross_entropy(logits, shares), F.cross_entropy(logits, shares))


@pytest.mark.parametrize("kind", ["ignore", "soft"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_of_pixels_are_those_of_images_over_the_pixels_that_count(shape, kind):
    logits, targets = given(shape, kind)
    flat = logits.movedim(1, -1).reshape(-1, CLASSES)
    ignore, kept = None, torch.ones(len(flat), dtype=torch.bool)
    flat_targets = targets.movedim(1, -1).reshape(-1, CLASSES) if kind == "soft" else targets.flatten()
    if kind == "ignore":
        ignore, kept = 255, flat_targets != 255
    shared = {"weights": WEIGHTS, "label_smoothing": 0.1}
    for gamma in (0, 1.5):
        expected = losses.focal(flat[kept], flat_targets[kept], gamma=gamma, **shared)
        torch.testing.assert_close(losses.pixel_focal(logits, targets, gamma=gamma, ignore=ignore, **shared), expected)


@pytest.mark.parametrize("loss", ALL)
def test_ignored_pixels_change_nothing_and_get_no_gradient(loss):
    logits, targets = given(SHAPES[0], "ignore")
    there = (targets == 255)[:, None].expand_as(logits)
    other = torch.where(there, logits * -3, logits).requires_grad_()
    torch.testing.assert_close(loss(logits, targets, ignore=255), loss(other, targets, ignore=255))
    (gradient,) = torch.autograd.grad(loss(other, targets, ignore=255), other)
    assert not gradient[there].any()
    assert gradient[~there].any()
    torch.testing.assert_close(loss(logits, targets.to(torch.uint8), ignore=255), loss(logits, targets, ignore=255))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(
    "kind", ["background only", "one class", "one image empty", "all ignored", "one pixel", "soft"]
)
@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_finite_and_right_whatever_is_missing(loss, kind, per_image):
    logits, targets = given((2, CLASSES, 3, 2), "soft" if kind == "soft" else "hard")
    if kind == "background only":
        targets[:] = 0
    if kind == "one class":
        targets[:] = 2
    if kind == "one image empty":
        targets[0] = 255
    if kind == "all ignored":
        targets[:] = 255
    if kind == "one pixel":
        targets[:] = 0
        targets[0, 0, 0] = 1
    arguments = {"ignore": None if kind == "soft" else 255}
    if loss in OVERLAPS:
        arguments["per_image"] = per_image
    assert torch.autograd.gradcheck(lambda given: loss(given, targets, **arguments), logits.requires_grad_())
    for scale in (0.0, 1e4, -1e4):  # probabilities of exactly 0 and 1, in float32
        extreme = (logits.detach().float() * scale).requires_grad_()
        value = loss(extreme, targets.float() if kind == "soft" else targets, **arguments)
        (gradient,) = torch.autograd.grad(value, extreme)
        assert value.isfinite()
        assert gradient.isfinite().all()
        if kind == "all ignored":
            assert value == 0
            assert not gradient.any()


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_logits_of_16_bits_are_computed_with_in_float32(loss, kind):
    logits, targets = given((1, CLASSES, 200, 200))
    logits = logits.to(kind)
    found = loss(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss(logits.double(), targets), rtol=1e-5, atol=1e-6)


def test_perfect_masks_cost_nothing_and_wrong_ones_all():
    targets = given((2, CLASSES, 20, 20))[1]
    right = 50.0 * F.one_hot(targets, CLASSES).movedim(-1, 1)
    wrong = 50.0 * F.one_hot((targets + 1) % CLASSES, CLASSES).movedim(-1, 1)
    for loss in OVERLAPS:
        assert float(loss(right, targets)) == pytest.approx(0, abs=1e-6)
        assert float(loss(wrong, targets, smoothing=1e-6)) == pytest.approx(1, abs=1e-6)


def test_a_missed_pixel_costs_more_than_a_wrong_one_if_beta_is_above_alpha():
    targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    targets[0, :4] = 1
    more, less = targets.clone(), targets.clone()
    more[0, 4], less[0, 3] = 1, 0
    pair = [50.0 * F.one_hot(mask, 2).movedim(-1, 1) for mask in (more, less)]
    object_only = torch.tensor([0.0, 1.0])
    too_much, too_little = (losses.tversky_loss(each, targets, weights=object_only) for each in pair)
    assert too_little > too_much
    turned = [losses.tversky_loss(each, targets, alpha=0.7, beta=0.3, weights=object_only) for each in pair]
    assert turned[1] < turned[0]


def test_gradient_steps_find_a_small_object():
    """Logits that are trained directly; the object is 9 of 1024 pixels."""
    targets = torch.zeros(2, 32, 32, dtype=torch.int64)
    targets[:, 4:7, 4:7] = 1
    for loss in OVERLAPS:
        logits = torch.zeros(2, 2, 32, 32, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.3)
        for _ in range(60):
            optimizer.zero_grad()
            loss(logits, targets).backward()
            optimizer.step()
        assert torch.equal(logits.argmax(dim=1), targets), loss.__name__


LOGITS, TARGETS = (each.float() if each.is_floating_point() else each for each in given(SHAPES[0]))
NAN = torch.where(torch.rand(LOGITS.shape, generator=RANDOM) < 0.1, torch.nan, LOGITS)
BAD = {
    r"logits: \(2, 3, 5\) of torch.float32; allowed": lambda: losses.dice_loss(LOGITS[..., 0], TARGETS),
    r"logits: .* of torch.int64": lambda: losses.dice_loss(LOGITS.long(), TARGETS),
    r"logits: \(2, 1, 5, 4\) .*at least two classes": lambda: losses.pixel_focal(LOGITS[:, :1], TARGETS),
    r"logits: \(0, 3, 5, 4\)": lambda: losses.tversky_loss(LOGITS[:0], TARGETS[:0]),
    "logits: a value is not a finite number": lambda: losses.pixel_cross_entropy(NAN, TARGETS),
    r"targets: \(2, 5, 3\); allowed: \(2, 5, 4\) or \(2, 3, 5, 4\)": lambda: losses.dice_loss(LOGITS, TARGETS[..., :3]),
    r"targets: \(2, 1, 5, 4\); allowed": lambda: losses.dice_loss(LOGITS, TARGETS[:, None]),
    "targets: torch.float32 of the shape": lambda: losses.dice_loss(LOGITS, TARGETS.float()),
    "targets: 1 to 3; allowed: 0 to 2$": lambda: losses.pixel_cross_entropy(LOGITS, 1 + 2 * EDGE),
    "targets: 0 to 255; allowed: 0 to 2, or 9, which is": lambda: losses.dice_loss(LOGITS, EDGE * 255, ignore=9),
    "targets: -1 to 0": lambda: losses.generalized_dice_loss(LOGITS, -EDGE),
    "targets: a share is not between 0 and 1": lambda: losses.dice_loss(LOGITS, LOGITS),
    "targets: a share": lambda: losses.dice_loss(LOGITS, NAN),
    "ignore: 255 is of classes": lambda: losses.dice_loss(LOGITS, torch.softmax(LOGITS, 1), ignore=255),
    r"weights: \(2,\); allowed: \(3,\)": lambda: losses.pixel_focal(LOGITS, TARGETS, weights=WEIGHTS[:2]),
    r"weights: \[0.0, 0.0, 0.0\]": lambda: losses.dice_loss(LOGITS, TARGETS, weights=WEIGHTS * 0),
    r"weights: \[-0.5": lambda: losses.tversky_loss(LOGITS, TARGETS, weights=-WEIGHTS),
    "smoothing: 0 is not": lambda: losses.dice_loss(LOGITS, TARGETS, smoothing=0),
    "smoothing: nan is not": lambda: losses.generalized_dice_loss(LOGITS, TARGETS, smoothing=math.nan),
    "alpha: -1": lambda: losses.tversky_loss(LOGITS, TARGETS, alpha=-1),
    "beta: nan": lambda: losses.tversky_loss(LOGITS, TARGETS, beta=math.nan),
    "alpha, beta: both are 0": lambda: losses.tversky_loss(LOGITS, TARGETS, alpha=0, beta=0),
    "gamma: -1": lambda: losses.pixel_focal(LOGITS, TARGETS, gamma=-1),
    "label_smoothing: 2": lambda: losses.pixel_cross_entropy(LOGITS, TARGETS, label_smoothing=2),
}
EDGE = torch.zeros_like(TARGETS)
EDGE[0, 0, 0] = 1


@pytest.mark.parametrize("complaint", BAD)
def test_wrong_arguments(complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        BAD[complaint]()
    assert "\n" not in str(raised.value)
