"""MixUp is the published convex combination, drawn from the published distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from visionforge.training.mixup import MixUpDraw, draw_mixup, mix


def test_mix_is_the_convex_combination():
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    draw = MixUpDraw(0.3, torch.tensor([2, 3, 0, 0]))
    out = mix(images, draw)
    for index, partner in enumerate([2, 3, 0, 0]):
        torch.testing.assert_close(out[index], 0.3 * images[index] + 0.7 * images[partner])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_lambda_is_beta_distributed(alpha):
    lams = [draw_mixup(2, alpha, seed).lam for seed in range(4000)]
    assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 0.001


@pytest.mark.parametrize("alpha", [1e-6, 0.002, 1.0])
def test_lambda_is_always_a_share(alpha):
    lams = np.array([draw_mixup(2, alpha, seed).lam for seed in range(500)])
    assert np.isfinite(lams).all()
    assert ((lams >= 0) & (lams <= 1)).all()


def test_draw_is_a_function_of_the_seed():
    one, two = draw_mixup(50, 0.4, 3), draw_mixup(50, 0.4, 3)
    assert one.lam == two.lam
    assert torch.equal(one.partner, two.partner)
    assert sorted(one.partner.tolist()) == list(range(50))
    assert draw_mixup(50, 0.4, 4).lam != one.lam
