"""Images that splits share are found, exact and near, and nothing else is."""

import numpy as np

from visionforge.data.inspect import difference_hashes, find_leaks


def smooth(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 230, (count, 7, 7, 3))
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2).astype(np.uint8)


def test_leaks_are_found():
    pool = smooth(60)
    train, val, test = pool[:30].copy(), pool[30:40].copy(), pool[40:].copy()
    test[3] = train[7]
    near = train[11].astype(np.int16) + 2
    val[5] = near.clip(0, 255).astype(np.uint8)
    leaks = {(leak.first, leak.second): leak for leak in find_leaks({"train": train, "val": val, "test": test})}
    assert leaks["train", "test"].exact == [(7, 3)]
    assert leaks["train", "val"].near == [(11, 5)]
    assert leaks["train", "val"].exact == leaks["train", "test"].near == []
    assert leaks["val", "test"].exact == leaks["val", "test"].near == []


def test_hash_survives_brightness_and_contrast_but_not_content():
    images = smooth(50)
    hashes = difference_hashes(images)
    changed = (images.astype(np.float64) * 0.9 + 10).round().astype(np.uint8)
    assert (difference_hashes(changed) == hashes).mean() > 0.9
    assert len(set(hashes.tolist())) == 50
    assert (difference_hashes(images[:, :, ::-1]) == hashes).sum() == 0


def test_hash_takes_any_size():
    for size in (8, 9, 28, 31):
        grey = np.random.default_rng(0).integers(0, 256, (5, size, size), dtype=np.uint8)
        assert len(set(difference_hashes(grey).tolist())) == 5
