"""Random numbers of a place in an epoch: those of the published generator, whatever was drawn before or beside them."""

import numpy as np
import pytest
import torch

from tests.draws import draws
from visionforge import ImageDataModule
from visionforge.config.schema import Augmentation
from visionforge.data import datamodule
from visionforge.data.augment import draw_augmentation
from visionforge.data.augment_volumes import draw_volume_augmentation
from visionforge.data.draws import Draws

MASK = (1 << 64) - 1


def mixed(state: int) -> int:
    """The output function of SplitMix64, in Python's own integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def reference(seed: int, position: int, count: int) -> list[float]:
    """Numbers of one position: a stream that begins where the stream of the seed has come to."""
    step = 0x9E3779B97F4A7C15
    key = mixed((seed + (position + 1) * step) & MASK)
    return [((mixed((key + (n + 1) * step) & MASK) >> 40) + 0.5) / (1 << 24) for n in range(count)]


@pytest.mark.parametrize("seed", [0, 7, (1 << 63) - 1])
def test_numbers_are_those_of_the_generator(seed):
    places = [0, 1, 1000, 1 << 40]
    found = Draws.at(seed, torch.tensor(places)).uniform(6).double()
    np.testing.assert_allclose(found, [reference(seed, place, 6) for place in places], rtol=0, atol=2**-24)


def test_integers_below_a_limit_come_equally_often():
    counts = torch.bincount(draws(60_000).below(6, 1)[:, 0], minlength=6)
    assert len(counts) == 6
    assert ((counts - 10_000).abs() < 5 * np.sqrt(60_000 / 6 * 5 / 6)).all()


def test_what_is_left_out_is_what_would_have_been_drawn():
    one, two = draws(3), draws(3)
    one.uniform(4)
    two.skip(4)
    assert torch.equal(one.uniform(2), two.uniform(2))


def test_rows_do_not_know_each_other():
    found = draws(20_000).uniform(3)
    correlation = np.corrcoef(np.concatenate([found[:-1].T, found[1:].T]))
    assert np.abs(correlation - np.eye(6)).max() < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("draw", [draw_augmentation, draw_volume_augmentation])
@pytest.mark.parametrize("preset", ["light", "standard", "strong"])
def test_a_batch_is_cut_anywhere(draw, preset):
    settings = Augmentation(preset=preset)
    whole, places = draw(draws(40), settings), torch.arange(13, 29)
    part = draw(Draws.at(0, places), settings)
    for name in ("flip", "flips", "theta", "colour", "vflip"):
        one = getattr(whole, name, None)
        if one is not None:
            torch.testing.assert_close(one[13:29], getattr(part, name), rtol=0, atol=1e-6)


def test_a_flip_from_top_to_bottom_and_operations_leave_all_other_draws_alone():
    plain = draw_augmentation(draws(50), Augmentation())
    flipped = draw_augmentation(draws(50), Augmentation(vflip=0.4))
    turned = draw_augmentation(draws(50), Augmentation(num_ops=2, magnitude=10, vflip=0.4))
    assert torch.equal(plain.flip, flipped.flip)
    assert torch.equal(plain.colour, flipped.colour)
    assert torch.equal(flipped.vflip, turned.vflip)
    uncropped = draw_augmentation(draws(50), Augmentation(min_scale=1, num_ops=2, magnitude=10))
    both = draw_augmentation(draws(50), Augmentation(min_scale=0.5, num_ops=2, magnitude=10))
    assert torch.equal(uncropped.colour, both.colour), "the operations are the same with crops and without"


def module(**settings) -> ImageDataModule:
    given = {"train": 100, "val": 8, "test": 8}
    data = ImageDataModule("synthetic", resolution=8, synthetic=given, balanced_sampling=False, **settings)
    data.augmentation = data.settings.augmentation.resolved()  # also what gratings would not allow
    data.setup("fit")
    return data


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", ["random", "alternating"])
def test_draws_of_many_steps_are_those_of_each_step(monkeypatch, mode):
    """However many are drawn together, and whichever step a training goes on with."""
    augmentation = {"flip_mode": mode}
    whole = module(batch_size=10, augmentation=augmentation)
    expected = [whole.augment(images(10), 3, step) for step in range(10)]
    monkeypatch.setattr(datamodule, "DRAWN_AT_ONCE", 30)
    few = module(batch_size=10, augmentation=augmentation)
    for step in (7, 2, 3, 9, 0):
        torch.testing.assert_close(few.augment(images(10), 3, step), expected[step], rtol=0, atol=1e-5)
    assert not torch.allclose(whole.augment(images(10), 4, 0), expected[0])


@pytest.mark.parametrize("mode", ["random", "alternating"])
@pytest.mark.parametrize("replicas", [2, 4])
def test_several_processes_draw_what_one_would(monkeypatch, mode, replicas):
    """Each image of the global batch is changed as in one process, whoever has it."""
    one = module(batch_size=20, augmentation={"flip_mode": mode})
    batch = images(20)
    for step in (0, 1, 4):
        expected = one.augment(batch, 2, step)
        for rank in range(replicas):
            part = module(batch_size=20 // replicas, augmentation={"flip_mode": mode})
            monkeypatch.setattr(part, "_rank", lambda rank=rank: (rank, replicas))
            found = part.augment(batch[rank::replicas], 2, step)
            torch.testing.assert_close(found, expected[rank::replicas], rtol=0, atol=1e-5)


def test_larger_batches_than_the_setting_says_have_draws_of_their_own():
    data = module(batch_size=2)
    grey = torch.full((6, 3, 8, 8), 90, dtype=torch.uint8)
    first, second = data.augment(grey, 0, 0), data.augment(grey, 0, 1)
    every = torch.cat([first, second]).flatten(1)
    assert len(every.unique(dim=0)) == 12
