"""Folds: every image is held out once, classes keep their shares, groups stay whole, and bad wishes are one line."""

import numpy as np
import pytest
import torch

from visionforge.config.schema import DataSettings
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.folds import fold_numbers, plan_folds
from visionforge.data.records import JoinedRecords, MappedRecords
from visionforge.data.side_table import SideTable
from visionforge.errors import DataError, SettingsError

SYNTHETIC = {"task": "multi-class", "classes": 3, "train": 60, "val": 21, "test": 30}


def module(**settings):
    return ImageDataModule(dataset="synthetic", synthetic=SYNTHETIC, **settings)


def origin(data, split):
    return [(name, int(k)) for name, chosen in data.source.members(split) for k in chosen]


def test_each_image_of_train_and_val_validates_once_and_the_test_split_stays():
    held = []
    for fold in range(5):
        data = module(folds=5, fold=fold)
        val, train = origin(data, "val"), origin(data, "train")
        assert not set(val) & set(train)
        assert len(val) + len(train) == 81
        assert data.source.members("test") == [("test", None)]
        assert data.source.sizes() == {"train": len(train), "val": len(val), "test": 30}
        held += val
    assert sorted(held) == sorted([("train", k) for k in range(60)] + [("val", k) for k in range(21)])


def test_of_all_images_one_fold_tests_and_the_next_one_validates():
    first, second = module(folds=4, fold=0, fold_pool="all"), module(folds=4, fold=1, fold_pool="all")
    assert origin(first, "val") == origin(second, "test")
    every = origin(first, "train") + origin(first, "val") + origin(first, "test")
    assert len(every) == len(set(every)) == 111
    last = module(folds=4, fold=3, fold_pool="all")
    assert origin(last, "val") == origin(first, "test")


def test_images_and_labels_are_those_of_their_places():
    whole = module()
    folded = module(folds=3, fold=1)
    images = {split: whole.dataset_for(split).images for split in ("train", "val")}
    labels = {split: whole.dataset_for(split).labels for split in ("train", "val")}
    for split in ("train", "val"):
        found = folded.dataset_for(split)
        places = origin(folded, split)
        assert len(found) == len(places)
        for k in (0, len(places) // 2, len(places) - 1):
            name, position = places[k]
            assert torch.equal(found.images[k], images[name][position])
            assert found.labels[k] == labels[name][position]
        assert np.array_equal(folded.source.labels(split), found.labels.numpy())


def test_classes_keep_their_shares_and_repeats_divide_anew():
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    numbers = fold_numbers(labels, None, 5, 1)
    for fold in range(5):
        assert np.bincount(labels[numbers == fold]).tolist() == [10, 6, 2]
    first, again = module(folds=3, fold=0, fold_repeats=2), module(folds=3, fold=3, fold_repeats=2)
    assert origin(first, "val") != origin(again, "val")
    assert origin(first, "val") != origin(module(folds=3, fold=0, fold_seed=7), "val")
    assert origin(first, "val") == origin(module(folds=3, fold=0, seed=9), "val")  # not a matter of the training's seed


def test_rarest_label_of_each_image_is_spread():
    labels = np.zeros((40, 2), np.int64)
    labels[:, 0] = 1
    labels[:8, 1] = 1
    numbers = fold_numbers(labels, None, 4, 0)
    assert [int(labels[numbers == fold, 1].sum()) for fold in range(4)] == [2, 2, 2, 2]


def planned(labels, names, **settings):
    given = DataSettings(**{"folds": 3, "fold": 0, **settings})
    return plan_folds(given, [labels[:20], labels[20:]], [names[:20], names[20:]], ("cat", "dog"), "mine")


LABELS = np.tile([0, 1], 15)
GROUPS = [f"patient {k // 3}" for k in range(30)]


def test_groups_stay_whole_across_the_splits_of_the_archive():
    folds = [planned(LABELS, GROUPS, fold=fold).members("val") for fold in range(3)]
    where = [{GROUPS[k + (20 if name == "val" else 0)] for name, chosen in fold for k in chosen} for fold in folds]
    assert not where[0] & where[1]
    assert where[0] | where[1] | where[2] == set(GROUPS)
    alone = planned(LABELS, GROUPS, groups=False)
    assert len({GROUPS[k] for name, chosen in alone.members("val") for k in chosen if name == "train"}) > 3


@pytest.mark.parametrize(
    ("labels", "groups", "settings", "told"),
    [
        (LABELS, GROUPS, {"folds": 11}, "data.folds: 11 is more than the 10 groups of mine; allowed: 2 to 10"),
        (LABELS, ["a"] * 29 + [" "], {}, "1 of 30 images have no group"),
        (np.array([0] * 28 + [1] * 2), GROUPS, {}, "data.folds: 3 is more than the 2 images of the class dog"),
        (np.array([0] * 27 + [1] * 3), GROUPS, {}, "all images of the class dog are of one group"),
        (LABELS, GROUPS, {"folds": 31, "groups": False}, "data.folds: 31 is more than the 30 images of mine"),
    ],
)
def test_folds_that_cannot_be_made(labels, groups, settings, told):
    with pytest.raises(DataError, match=told):
        planned(labels, groups, **settings)


def test_archive_with_groups_for_one_split_only():
    with pytest.raises(DataError, match="no groups for val"):
        plan_folds(DataSettings(folds=2, fold=0), [LABELS, LABELS], [GROUPS, None], ("cat", "dog"), "mine")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fold": 1}, "data.fold: is given without data.folds"),
        ({"fold_pool": "all"}, "data.fold_pool: is given without data.folds"),
        ({"folds": 1}, "data.folds: 1 is not allowed"),
        ({"folds": 3, "fold": 3}, "data.fold: 3 is not allowed; allowed: 0 to 2"),
        ({"folds": 3, "fold": 6, "fold_repeats": 2}, "allowed: 0 to 5"),
        ({"folds": 2, "fold": 0, "fold_pool": "all"}, "allowed: at least 3"),
    ],
)
def test_settings_of_folds_that_do_not_go_together(settings, told):
    with pytest.raises(SettingsError, match=told):
        module(**settings)


def test_records_of_several_maps_are_read_in_any_order(tmp_path):
    parts, whole = [], []
    for number, count in enumerate((5, 7)):
        values = np.random.default_rng(number).integers(0, 256, (count, 4, 4), dtype=np.uint8)
        np.save(tmp_path / f"{number}.npy", values)
        chosen = np.arange(count)[::2]
        parts.append((MappedRecords(np.load(tmp_path / f"{number}.npy", mmap_mode="r")), chosen))
        whole.append(values[chosen])
    joined, expected = JoinedRecords(parts), np.concatenate(whole)
    assert len(joined) == 7
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 0, 3, 3], [5]):
        assert np.array_equal(joined[np.array(order)], expected[order])


def test_tables_beside_the_images_are_joined():
    one, other = SideTable(("a", "b"), ("x", "y")), SideTable(("c",), None)
    assert SideTable.joined([one, other]) == SideTable(("a", "b", "c"), None)
    assert SideTable.joined([one]) == one


def test_memory_maps_give_the_same_batches_as_memory(archives):
    same = []
    for cache in ("ram", "mmap"):
        data = ImageDataModule(dataset="breastmnist", root=str(archives), download=False, folds=5, fold=2, cache=cache)
        dataset = data.dataset_for("val")
        same.append(dataset.__getitems__([0, len(dataset) - 1, 3]))
    assert torch.equal(same[0][0], same[1][0])
    assert torch.equal(same[0][1], same[1][1])
