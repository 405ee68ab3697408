"""Seeds are a fixed function of their parts."""

from visionforge.config.seeding import derive_seed, global_seed


def test_stable_across_machines():
    assert derive_seed(42, "augment", 0, 0) == 7634712109663635386


def test_parts_are_independent():
    seeds = {derive_seed(seed, "x", epoch, step) for seed in range(5) for epoch in range(20) for step in range(20)}
    assert len(seeds) == 2000
    assert derive_seed(1, "a", 11, 1) != derive_seed(1, "a", 1, 11)


def test_global_seed_follows_lightning(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert global_seed() == 7
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert global_seed() == 42
