"""Corruptions: functions of seed, name, severity and position alone, worse with the severity, right by references."""

import io
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage, stats
from torchvision.io import decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as v2

import visionforge as vf
from visionforge.data.augment import GREY_WEIGHTS
from visionforge.data.corrupting import corrupted
from visionforge.data.corruption import Corruption, chosen_corruptions, corruption_names
from visionforge.data.corruptions.colour import STAINS
from visionforge.data.draws import Draws, splitmix64
from visionforge.data.filters import area_weights, disc, filtered, segments
from visionforge.data.info import NO_CHANGES, DomainFlags
from visionforge.errors import DataError, SettingsError

NAMES = corruption_names()
ORIENTATION = ("horizontal_flip", "vertical_flip", "rotation")
FIXED = (  # they draw nothing
    *("gaussian_blur", "defocus_blur", "jpeg_compression", "pixelation", "brightness_up", "brightness_down"),
    *("contrast_up", "contrast_down", "gamma_up", "gamma_down", "saturation_up", "saturation_down"),
    *("horizontal_flip", "vertical_flip"),
)
FREE = DomainFlags(hflip=True, vflip=True, rotation="any", texture_is_label=False, colour_is_label=False)


def pictures(count: int = 24, channels: int = 3, size: int = 28) -> torch.Tensor:
    """Return images with smooth areas, edges and some texture, as real ones have."""
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, channels, size, size)), (0, 0, size / 8, size / 8))
    smooth = smooth / np.abs(smooth).max(axis=(2, 3), keepdims=True)
    scene = 0.5 + 0.3 * smooth + 0.15 * (smooth > 0) + rng.normal(0, 0.02, smooth.shape)
    return torch.from_numpy((scene.clip(0, 1) * 255).astype(np.uint8))


def severities(name: str) -> range:
    return range(1, len(Corruption(name=name).severities) + 1)


def changed(name: str, images: torch.Tensor, severity: int = 3, seed: int = 0, first: int = 0) -> torch.Tensor:
    """Return corrupted images; what has one severity is run at that."""
    corruption = Corruption(name=name)
    severity = min(severity, len(corruption.severities))
    return corrupted(images, corruption, severity, range(first, first + len(images)), seed)


# --- what all have in common


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(3, 28), (1, 28), (3, 8), (1, 61)])
def test_shape_and_kind_stay_and_the_images_themselves_too(name, channels, size):
    corruption = Corruption(name=name)
    if corruption.colour and channels == 1:
        return
    images = pictures(5, channels, size)
    before = images.clone()
    for severity in severities(name):
        found = corrupted(images, corruption, severity, range(5))
        assert found.shape == images.shape
        assert found.dtype == torch.uint8
        assert torch.equal(images, before)
        assert not torch.equal(found, images) or size == 8  # where the mildest blur rounds to nothing


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_changed_by_its_position_and_not_by_its_batch(name):
    images = pictures(12)
    torch.manual_seed(1)
    whole = changed(name, images)
    torch.manual_seed(2)
    assert torch.equal(changed(name, images), whole)
    parts = torch.cat([changed(name, images[start:end], first=start) for start, end in ((0, 1), (1, 5), (5, 12))])
    # sums of a convolution may be taken in another order, and then be rounded the other way
    allowed = 1 if "blur" in name or name == "pixelation" else 0
    assert int((parts.int() - whole.int()).abs().max()) <= allowed


@pytest.mark.parametrize("name", NAMES)
def test_seed_and_position_change_what_is_drawn(name):
    images = pictures(1).repeat(16, 1, 1, 1)
    one, other = (changed(name, images, seed=seed) for seed in (0, 1))
    assert torch.equal(one, other) == (name in FIXED)
    assert bool((one == one[:1]).all()) == (name in FIXED)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ORIENTATION])
@pytest.mark.parametrize("size", [28, 64, pytest.param(224, marks=pytest.mark.slow)])
def test_every_severity_changes_more_than_the_one_before(name, size):
    images = pictures(16, size=size)
    distances = [
        float((changed(name, images, severity).float() - images.float()).square().mean())
        for severity in severities(name)
    ]
    assert len(distances) == 5
    assert distances[0] > 0
    assert all(later > 1.02 * earlier for earlier, later in pairwise(distances)), distances


def test_no_images_stay_none():
    none = torch.zeros(0, 3, 28, 28, dtype=torch.uint8)
    assert changed("shot_noise", none).shape == none.shape


def test_names_of_the_built_in_ones_are_all_listed():
    assert len(NAMES) == 21
    assert [Corruption(name=name).position for name in NAMES] == sorted(
        Corruption(name=name).position for name in NAMES
    )


# --- random numbers


def test_splitmix_gives_the_published_numbers():
    found = [int(value) % (1 << 64) for value in splitmix64(torch.tensor([1234567]), torch.arange(5))[0]]
    assert found == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert torch.equal(
        splitmix64(torch.tensor([7]), torch.arange(3, 7)), splitmix64(torch.tensor([7]), torch.arange(7))[:, 3:]
    )


def test_draws_have_their_distributions_and_are_independent():
    draws = Draws([1, 2, 1], torch.device("cpu"))
    uniform, normal, signs = draws.uniform(200, 100), draws.normal(200, 100), draws.signs(20_000)
    assert torch.equal(uniform[0], uniform[2])
    assert 0 < float(uniform.min()) < float(uniform.max()) < 1
    for row in (0, 1):
        assert stats.kstest(uniform[row].flatten().numpy(), "uniform").pvalue > 1e-3
        assert stats.kstest(normal[row].flatten().numpy(), "norm").pvalue > 1e-3
        assert abs(float(signs[row].mean())) < 0.03
        flat = normal[row].flatten()
        assert abs(float(torch.corrcoef(torch.stack([flat[1:], flat[:-1]]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(normal.flatten(1)[:2])[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([uniform[0].flatten(), normal[0].flatten()]))[0, 1])) < 0.03


# --- references


def flat(value: int, count: int = 20, size: int = 32) -> torch.Tensor:
    return torch.full((count, 1, size, size), value, dtype=torch.uint8)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_has_the_deviation_that_its_table_says(severity):
    grey = flat(128)
    for name, wanted in (
        ("gaussian_noise", lambda s: 255 * s),
        ("speckle_noise", lambda s: 128 * s),
        ("shot_noise", lambda s: 255 * np.sqrt(128 / 255 / s)),
    ):
        strength = Corruption(name=name).strength(severity, 32)
        values = changed(name, grey, severity).double()
        assert float(values.std()) == pytest.approx(wanted(strength), rel=0.03), name
        assert float(values.mean()) == pytest.approx(128, abs=1), name


@pytest.mark.parametrize("severity", [1, 5])
def test_shot_noise_counts_photons(severity):
    from scipy.stats import poisson

    strength = Corruption(name="shot_noise").strength(severity, 32)
    for level in (0, 10, 100):
        images = flat(level, count=40).float() / 255
        noisy = Corruption(name="shot_noise").apply(images, strength, Draws(range(40), torch.device("cpu")))
        counts = (noisy * strength).round().long().flatten().numpy()
        rate = level * strength / 255
        seen = np.bincount(counts, minlength=int(rate + 8 * rate**0.5) + 2) / counts.size
        assert np.abs(seen - poisson.pmf(np.arange(len(seen)), rate)).max() < 0.01, level
    assert not changed("shot_noise", flat(0)).any()


def test_impulse_noise_loses_its_share_of_the_values():
    values = changed("impulse_noise", flat(128), 5)
    share = Corruption(name="impulse_noise").strength(5, 32)
    for lost in (0, 255):
        assert float((values == lost).float().mean()) == pytest.approx(share / 2, rel=0.1)
    assert {*values.unique().tolist()} == {0, 128, 255}


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", [28, 64])
def test_gaussian_blur_is_that_of_scipy_and_of_torchvision(severity, size):
    images = pictures(3, size=size)
    sigma = Corruption(name="gaussian_blur").strength(severity, size)
    found = changed("gaussian_blur", images, severity).float()
    theirs = ndimage.gaussian_filter(images.numpy().astype(np.float64), (0, 0, sigma, sigma), mode="mirror", truncate=4)
    assert np.abs(found.numpy() - theirs).max() <= 0.51
    side = 2 * max(1, int(4 * sigma + 0.5)) + 1
    others = v2.gaussian_blur(images.float(), [side, side], [sigma, sigma])
    assert float((found - others).abs().max()) <= 0.51


def test_a_disc_has_the_area_of_a_circle_and_blurs_as_scipy_convolves():
    kernel = disc(6.3, 99, torch.device("cpu"))
    assert kernel.shape == (13, 13)
    assert float(1 / kernel.max()) == pytest.approx(np.pi * 6.3**2, rel=0.01)
    assert torch.allclose(kernel, kernel.T)
    assert torch.allclose(kernel, kernel.flip(0))
    images = pictures(2).double() / 255
    theirs = ndimage.convolve(images.numpy(), kernel.numpy()[None, None].astype(np.float64), mode="mirror")
    np.testing.assert_allclose(filtered(images.float(), kernel).numpy(), theirs, atol=1e-5)


def test_motion_goes_along_a_line():
    angles = torch.tensor([0.0, np.pi / 2, np.pi / 4])
    kernels = segments(5.0, angles, 99)
    assert kernels.sum(dim=(1, 2)).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    middle = kernels.shape[-1] // 2
    assert float(kernels[0, middle].sum()) == pytest.approx(1, abs=1e-4)
    assert float(kernels[1, :, middle].sum()) == pytest.approx(1, abs=1e-4)
    assert float(kernels[2].diagonal().sum()) > 0.5
    images = torch.from_numpy(np.random.default_rng(0).random((3, 2, 20, 20), dtype=np.float32))
    found = filtered(images, kernels)
    for place in range(3):
        weights = kernels[place].numpy()[::-1, ::-1]  # SciPy's convolution turns the kernel, which is point-symmetric
        theirs = ndimage.convolve(images[place].numpy(), weights[None], mode="mirror")
        np.testing.assert_allclose(found[place].numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near_that_of_torchvision(channels):
    images = pictures(4, channels, 64)
    found = changed("jpeg_compression", images, 3)
    quality = round(Corruption(name="jpeg_compression").strength(3, 64))
    theirs = torch.stack([decode_jpeg(encode_jpeg(image, quality)) for image in images])
    assert float((found.float() - theirs.float()).abs().mean()) < 1
    buffer = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy().squeeze()).save(buffer, "JPEG", quality=quality)
    again = np.asarray(Image.open(buffer)).reshape(64, 64, channels)
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), again)


def test_pixelation_keeps_means_of_areas():
    halves = area_weights(14, 28, torch.device("cpu"))
    values = torch.arange(28.0)
    assert torch.allclose(halves @ values, values.view(14, 2).mean(dim=1))
    fine = torch.arange(20.0).repeat_interleave(7)  # 140 parts, of which 20 pixels have 7 each and 14 pixels 10 each
    wanted = fine.view(14, 10).mean(dim=1)
    assert torch.allclose(area_weights(14, 20, torch.device("cpu")) @ torch.arange(20.0), wanted, atol=1e-5)
    found = changed("pixelation", pictures(size=32), 3)
    strength = Corruption(name="pixelation").strength(3, 32)
    assert round(32 * strength) == 14
    assert abs(float(found.float().mean() - pictures(size=32).float().mean())) < 0.2


def test_tone_is_what_its_formulas_say():
    images = pictures(4)
    x = images.double().numpy() / 255
    mean = x.mean(axis=(2, 3), keepdims=True)
    grey = (x * np.array(GREY_WEIGHTS)[:, None, None]).sum(axis=1, keepdims=True)
    for name, wanted in {
        "brightness_up": lambda s: x + s,
        "brightness_down": lambda s: x - s,
        "contrast_up": lambda s: mean + (x - mean) * s,
        "contrast_down": lambda s: mean + (x - mean) * s,
        "gamma_up": lambda s: x**s,
        "gamma_down": lambda s: x**s,
        "saturation_up": lambda s: grey + (x - grey) * s,
        "saturation_down": lambda s: grey + (x - grey) * s,
    }.items():
        for severity in severities(name):
            strength = Corruption(name=name).severities[severity - 1]
            theirs = wanted(strength).clip(0, 1) * 255
            assert np.abs(changed(name, images, severity).numpy() - theirs).max() <= 0.51, (name, severity)


def test_stains_are_those_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    matrix = np.asarray(color.rgb_from_hed)
    np.testing.assert_allclose(np.asarray(STAINS), matrix, atol=1e-6)
    images = pictures(6)
    found = changed("stain_shift", images, 4).permute(0, 2, 3, 1).double().numpy()
    before, after = (
        -np.log((each + 1) / 256) for each in (images.permute(0, 2, 3, 1).numpy().astype(np.float64), found)
    )
    strength = Corruption(name="stain_shift").severities[3]
    inverse = np.linalg.inv(matrix)
    for image in range(6):
        clear = (found[image] > 20).all(axis=-1) & (found[image] < 254).all(axis=-1)  # neither clipped nor coarse
        amounts = [(each[image][clear] @ inverse) for each in (before, after)]
        for stain in range(3):
            slope, offset = np.polyfit(amounts[0][:, stain], amounts[1][:, stain], 1)
            assert abs(slope - 1) == pytest.approx(strength, abs=0.04)
            assert abs(offset) == pytest.approx(strength, abs=0.04)


def test_orientation_turns_and_mirrors():
    images = pictures(10)
    assert torch.equal(changed("horizontal_flip", images, 1), images.flip(-1))
    assert torch.equal(changed("vertical_flip", images, 1), images.flip(-2))
    assert torch.equal(changed("rotation", images, 5), images.flip(-1, -2))
    quarter = changed("rotation", images, 4)
    turns = [
        [torch.equal(one, torch.rot90(image, k, (-2, -1))) for k in (1, 3)]
        for one, image in zip(quarter, images, strict=True)
    ]
    assert all(sum(each) == 1 for each in turns)
    assert {each.index(True) for each in turns} == {0, 1}, "to either side"


# --- which are run, and somebody's own


def test_the_domain_decides_what_is_run():
    every = {corruption.name for corruption in chosen_corruptions(None, 3, NO_CHANGES)}
    assert every == {*NAMES}
    assert {*ORIENTATION}.isdisjoint(c.name for c in chosen_corruptions(None, 3, FREE))
    small = FREE.model_copy(update={"rotation": "small"})
    assert "rotation" in {c.name for c in chosen_corruptions(None, 3, small)}
    grey = [c for c in chosen_corruptions(None, 1, NO_CHANGES) if c.colour]
    assert grey == []
    assert [c.name for c in chosen_corruptions(["rotation", "rotation"], 3, FREE)] == ["rotation"], "what is asked for"


@pytest.mark.parametrize(
    ("given", "channels", "said"),
    [
        (["gaussian_nois"], 3, "corruptions: 'gaussian_nois' is unknown; nearest: gaussian_noise"),
        ([], 3, "corruptions: there is none; allowed: gaussian_noise, shot_noise"),
        (["stain_shift"], 1, "corruptions: stain_shift changes colours, and the images are grey"),
    ],
)
def test_mistakes_of_a_choice(given, channels, said):
    with pytest.raises(SettingsError, match="corruptions: ") as caught:
        chosen_corruptions(given, channels, NO_CHANGES)
    assert caught.value.problems[0].startswith(said)


@pytest.mark.parametrize("strengths", [(), (1.0,) * 6, (-0.1,), (float("nan"),), (float("inf"),)])
def test_strengths_are_a_few_numbers(strengths):
    with pytest.raises(ValidationError, match="severities"):
        Corruption(name="gaussian_noise", severities=strengths)


def test_strengths_of_ones_own_change_the_outcome():
    images = pictures()
    mild = corrupted(images, Corruption(name="gaussian_noise", severities=(0.001,)), 1, range(len(images)))
    assert (mild.int() - images.int()).abs().max() <= 2


def test_strengths_grow_with_the_resolution():
    blur, jpeg = Corruption(name="gaussian_blur"), Corruption(name="jpeg_compression")
    assert blur.strength(2, 28) == blur.severities[1]
    assert blur.strength(1, 224) == pytest.approx(0.4 * 8**0.75)
    assert jpeg.strength(1, 224) == pytest.approx(25, abs=1)
    assert Corruption(name="gamma_up").strength(5, 224) == Corruption(name="gamma_up").strength(5, 28)


def test_a_corruption_of_ones_own(own_parts_forgotten):
    @vf.register_corruption
    class Invert(vf.Corruption):
        name: Literal["invert"] = "invert"
        severities: tuple[float, ...] = (1.0,)

        def apply(self, images, strength, draws):
            return 1 - images

    images = pictures()
    assert "invert" in corruption_names()
    assert torch.equal(changed("invert", images, 1), 255 - images)
    with pytest.raises(ValueError, match="built in"):

        @vf.register_corruption
        class Taken(vf.Corruption):
            name: Literal["gaussian_noise"] = "gaussian_noise"

    class Wrong(vf.Corruption):
        name: Literal["wrong"] = "wrong"

        def apply(self, images, strength, draws):
            return images[:, :1]

    with pytest.raises(DataError, match=r"wrong: gives \(24, 1, 28, 28\)"):
        corrupted(images, Wrong(), 1, range(24))


@pytest.mark.parametrize(
    ("images", "positions", "severity"),
    [
        (torch.zeros(2, 3, 8, 8), range(2), 1),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), range(2), 1),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), range(3), 1),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), range(2), 6),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), range(2), 0),
    ],
)
def test_what_is_no_batch_is_refused(images, positions, severity):
    with pytest.raises(DataError, match="allowed"):
        corrupted(images, Corruption(name="gaussian_noise"), severity, positions)
