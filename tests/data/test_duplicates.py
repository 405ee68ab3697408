"""Copies of every kind are found across and within splits, and nothing is found among what shares nothing."""

import io

import numpy as np
import pytest
from PIL import Image

from visionforge.data.duplicates import DuplicateSearch, find_duplicates
from visionforge.data.pixel_features import pixel_features
from visionforge.data.thumbnails import VIEWS, area_weights, thumbnails, view


def scenes(count: int, size: int = 28, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth pictures that share nothing: coarse noise, enlarged, with finer noise on it."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    out = []
    for _ in range(count):
        layers = [
            np.asarray(Image.fromarray(rng.uniform(-1, 1, (n, n)).astype(np.float32)).resize(shape, 3)) * weight
            for n, weight in ((5, 60), (9, 40), (size // 2, 15))
        ]
        out.append(np.rint((128 + sum(layers)).clip(0, 255)))
    grey = np.array(out, np.uint8)
    return grey if channels == 1 else np.stack([grey, np.roll(grey, 3, axis=2) // 2 + 60, 255 - grey // 3], axis=-1)


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def crop(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    side = len(image)
    return np.asarray(Image.fromarray(image).resize((side, side), 2, box=tuple(side * part for part in box)))


CHANGES = {
    "near": lambda image: (image.astype(np.int16) + 2).clip(0, 255).astype(np.uint8),
    "jpeg": jpeg,
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 180°": lambda image: image[::-1, ::-1],
    "turned by 90°": lambda image: np.rot90(image, 3),
    "turned by 270°": lambda image: np.rot90(image),
    "mirrored at the diagonal": lambda image: image.swapaxes(0, 1),
    "mirrored at the other diagonal": lambda image: image[::-1, ::-1].swapaxes(0, 1),
    "other brightness or contrast": lambda image: np.rint(image * 0.7 + 60).clip(0, 255).astype(np.uint8),
    "scaled by 1.11": lambda image: crop(image, (0.05, 0.05, 0.95, 0.95)),
    "moved by 7% of the side": lambda image: np.pad(image, ((2, 0), (0, 2), *((0, 0),) * (image.ndim - 2)), "edge")[
        : len(image), -len(image) :
    ],
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_told(change, channels):
    train = scenes(60, channels=channels)
    test = scenes(20, channels=channels, seed=1)
    test[7] = CHANGES[change](train[33])
    (pair,) = find_duplicates({"train": train, "test": test}).pairs
    assert (str(pair.first), str(pair.second)) == ("train 33", "test 7")
    assert pair.kind == ("near" if change in ("near", "jpeg") else "changed")
    assert pair.similarity > 0.85
    assert change in ("near", "jpeg") or change in pair.change


def test_large_images_are_compared_by_small_copies():
    train, test = scenes(30, size=96), scenes(10, size=96, seed=1)
    test[2] = CHANGES["turned by 90°"](CHANGES["scaled by 1.11"](train[4]))
    (pair,) = find_duplicates({"train": train, "test": test}).pairs
    assert (pair.first.position, pair.second.position) == (4, 2)
    assert pair.change.startswith("turned by 90°, scaled by 1.")


def test_equal_images_are_counted_once_for_each_split():
    images = scenes(10)
    images[[3, 5]] = images[1]
    found = find_duplicates({"train": images, "val": images[1:2], "test": images[[1, 9, 1]]})
    told = {(str(pair.first), str(pair.second)) for pair in found.pairs if pair.kind == "equal"}
    assert told == {
        *(("train 1", "train 3"), ("train 1", "train 5"), ("train 1", "val 0"), ("train 1", "test 0")),
        *(("val 0", "test 0"), ("train 1", "test 2"), ("val 0", "test 2"), ("test 0", "test 2"), ("train 9", "test 1")),
    }
    assert [pair.across for pair in found.pairs].index(False) == sum(pair.across for pair in found.pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_found_in_noise_blank_and_faint_images(seed):
    rng = np.random.default_rng(seed)
    levels = np.arange(120)[:, None, None] + np.zeros((28, 28))
    kinds = {
        "noise": rng.integers(0, 256, levels.shape),
        "blank": levels,
        "nearly blank": levels + rng.normal(0, 0.6, levels.shape),
        "faint": 100 + rng.normal(0, 3, levels.shape),
        "one gradient": np.linspace(20, 220, 28) + rng.normal(0, 4, levels.shape),
        "scenes": scenes(120, seed=seed),
    }
    for name, pixels in kinds.items():
        images = np.rint(pixels).clip(0, 255).astype(np.uint8)
        images, _ = np.unique(images, axis=0, return_index=True)  # nearly blank ones may be equal
        found = find_duplicates({"train": images[::2], "test": images[1::2]})
        assert not found.pairs, name


def test_what_all_images_share_makes_no_copies():
    """Like retinas: a bright disc on a black ground, which is most of every picture, and details inside it."""
    rows, columns = np.indices((28, 28)) - 13.5
    disc = np.hypot(rows, columns) < 12
    inside = 150 + (scenes(150).astype(np.float64) - 128) / 6
    images = np.rint(np.where(disc, inside, 4)).astype(np.uint8)
    assert np.corrcoef(images.reshape(150, -1)).min() > 0.9
    assert not find_duplicates({"train": images[:100], "test": images[100:]}).pairs
    images[120] = images[7, ::-1]
    (pair,) = find_duplicates({"train": images[:100], "test": images[100:]}).pairs
    assert (pair.first.position, pair.second.position, pair.change) == (7, 20, "mirrored top to bottom")


def test_copies_with_other_labels_are_conflicts():
    images = scenes(12)
    images[5], images[9] = images[2], images[3, :, ::-1]
    labels = {"train": ["cat"] * 8, "test": ["cat", "dog", "cat", "cat"]}
    found = find_duplicates({"train": images[:8], "test": images[8:]}, labels)
    assert [(str(p.first), str(p.second)) for p in found.conflicts] == [("train 3", "test 1")]
    labels["train"][5] = "dog"
    found = find_duplicates({"train": images[:8], "test": images[8:]}, labels)
    assert {(str(p.first), str(p.second)) for p in found.conflicts} == {("train 3", "test 1"), ("train 2", "train 5")}


def test_exactly_finds_equal_images_only():
    images = scenes(9)
    images[7], images[8] = images[1], images[2, ::-1]
    found = find_duplicates({"train": images[:6], "test": images[6:]}, exactly=True)
    assert [(str(p.first), str(p.second)) for p in found.pairs] == [("train 1", "test 1")]
    assert found.notes == ["compared by equal pixels only"]


def test_volumes_and_small_images_are_compared_mirrored():
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 256, (6, 12, 12, 12), dtype=np.uint8)
    volumes[4], volumes[5] = volumes[0, ::-1, :, ::-1], volumes[1]
    found = find_duplicates({"train": volumes[:4], "test": volumes[4:]})
    told = [(str(pair.first), str(pair.second), pair.kind) for pair in found.pairs]
    assert told == [("train 1", "test 1", "equal"), ("train 0", "test 0", "changed")]
    small = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    small[5] = np.rot90(small[2])
    found = find_duplicates({"train": small[:4], "test": small[4:]})
    assert [(p.first.position, p.second.position, p.change) for p in found.pairs] == [(2, 1, "turned or mirrored")]
    assert "under 20 pixels" in found.notes[0]


def test_an_embedding_finds_what_pixels_do_not_confirm():
    images = scenes(40)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 16)).astype(np.float32)
    features[35] = features[3] * 2
    search = {"train": images[:30], "test": images[30:]}
    (pair,) = find_duplicates(search, features=features).pairs
    assert (pair.kind, pair.first.position, pair.second.position) == ("alike", 3, 5)
    assert pair.similarity > 0.98
    assert not pair.conflict
    images[31] = images[4]
    kinds = [pair.kind for pair in find_duplicates(search, features=pixel_features(images)).pairs]
    assert kinds == ["equal"]  # and is not told of twice


def test_many_equal_neighbours_are_said_to_be_cut():
    base = scenes(1)[0].astype(np.int16)
    rng = np.random.default_rng(0)
    images = np.concatenate([scenes(90, seed=2), (base + rng.integers(-1, 2, (40, 28, 28))).clip(0, 255)]).astype(
        np.uint8
    )
    found = find_duplicates({"train": images[:100], "test": images[100:]})
    assert len(found.pairs) > 300
    assert any("more than 16 others" in note for note in found.notes)


def test_blocks_do_not_change_the_result(monkeypatch):
    from visionforge.data import alike, registration

    images = scenes(50)
    images[40:] = images[:10, ::-1]
    whole = find_duplicates({"train": images[:30], "test": images[30:]})
    for module, name, size in ((alike, "_ROWS", 7), (alike, "_COLUMNS", 11), (registration, "_PART", 3)):
        monkeypatch.setattr(module, name, size)
    parts = find_duplicates({"train": images[:30], "test": images[30:]})
    assert [(str(p.first), str(p.second), p.change) for p in parts.pairs] == [
        (str(p.first), str(p.second), p.change) for p in whole.pairs
    ]
    assert len(whole.pairs) == 10


def test_candidates_are_those_of_a_plain_comparison():
    from visionforge.data.alike import HIGHEST, LEAST_COSINE, MOST_NEIGHBOURS, descriptors, find_candidates

    copies = thumbnails(scenes(40))
    found, _ = descriptors(copies)
    turned = [descriptors(np.ascontiguousarray(view(copies, which)))[0] for which in range(len(VIEWS))]
    cosines = np.max([np.einsum("nuv,muv->nm", each, found) for each in turned], axis=0)
    pairs = {(a, b) for a, b in zip(*np.nonzero(np.triu(cosines >= LEAST_COSINE + 1e-4, 1)), strict=True)}
    assert max(sum(a == k for a, _ in pairs) for k in range(40)) <= MOST_NEIGHBOURS
    candidates = find_candidates(copies)
    assert pairs <= set(zip(candidates.first.tolist(), candidates.second.tolist(), strict=True))
    assert HIGHEST < 14


def test_small_copies_are_means_of_areas():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 96, 96), dtype=np.uint8)
    expected = images.reshape(3, 32, 3, 32, 3).mean(axis=(2, 4))
    assert np.abs(thumbnails(images) - expected).max() <= 0.5 + 1e-3
    assert np.allclose(area_weights(50, 32).sum(axis=1), 1)
    assert np.allclose(area_weights(50, 32).sum(axis=0), 32 / 50)
    assert np.array_equal(thumbnails(images[:, :28, :28]), images[:, :28, :28])


def test_splits_are_given_one_after_another():
    images = scenes(6)
    search = DuplicateSearch(28)
    search.add("train", images[:4], names=["a", "b", "c", "d"])
    search.add("test", images[[0, 5]], names=["e", "f"])
    assert [(str(p.first), str(p.second)) for p in search.found().pairs] == [("train a", "test e")]


def test_what_is_alike_anyway_is_no_copy():
    """Like trousers: many pictures of one shape, whose small differences are not those of a copy."""
    from visionforge.data.same_picture import _stands_out

    first, second = np.array([0, 0, 0, *range(3, 11)]), np.array([1, 2, 3, *range(4, 12)])
    alone = _stands_out(first, second, np.full(11, 0.9, np.float32), 12)
    assert alone.all()
    hub = np.array([(0, k) for k in range(1, 10)])
    correlation = np.array([0.97, *[0.9] * 8], np.float32)
    assert _stands_out(hub[:, 0], hub[:, 1], correlation, 10).tolist() == [True, *[False] * 8]
    correlation[0] = 0.95
    assert not _stands_out(hub[:, 0], hub[:, 1], correlation, 10).any()
    correlation[:] = 0.99
    assert _stands_out(hub[:, 0], hub[:, 1], correlation, 10).all()
