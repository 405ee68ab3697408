"""Names and groups of pictures are read where an archive has them, and nothing that only looks like them."""

import numpy as np
import pytest
import yaml

from visionforge.data.archive import structure_problems
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.data.registry import catalog_folder, dataset_info
from visionforge.data.side_table import SideTable, read_side_table
from visionforge.errors import DataError

SIZES = {"train": 12, "val": 4, "test": 4}


def arrays(**extra) -> dict[str, np.ndarray]:
    out = {}
    for split, count in SIZES.items():
        out[f"{split}_images"] = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        out[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return {**out, **extra}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_names_and_groups_are_read(tmp_path, save):
    names = np.array(["a/1.png", "ü/猫.png", "c.png", "d " + "x" * 300])
    save(tmp_path / "x.npz", **arrays(val_names=names, val_groups=np.array(["p1", "p1", "p2", "p3"])))
    assert read_side_table(tmp_path / "x.npz", "val", 4) == SideTable(tuple(names), ("p1", "p1", "p2", "p3"))
    assert read_side_table(tmp_path / "x.npz", "train", 12) == SideTable(None, None)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.array(["a", "b", "c", None]), "Python objects (pickle), which are never loaded"),
        (np.arange(4), "has the type int64, expected text"),
        (np.array([b"a"] * 4), "expected text"),
        (np.array(["a"] * 3), "has the shape (3,), expected (4,)"),
        (np.array([["a"]] * 4), "has the shape (4, 1), expected (4,)"),
        (np.array("a"), "has the shape (), expected (4,)"),
        (np.array(["a" * 5000] * 4), "texts of 5,000 characters"),
        (np.full(4, 0x7FFFFFFF, np.uint32).view("<U1"), "cannot be unpacked"),  # beyond Unicode
    ],
)
def test_what_is_no_table_of_texts_is_refused(tmp_path, value, complaint):
    np.savez(tmp_path / "x.npz", **arrays(val_names=value))
    with pytest.raises(DataError) as caught:
        read_side_table(tmp_path / "x.npz", "val", 4)
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path / 'x.npz'}: val_names")
    assert complaint in line
    info = dataset_info("breastmnist").model_copy(
        update={"splits": dataset_info("digits").splits.model_copy(update=SIZES)}
    )
    assert complaint in structure_problems(tmp_path / "x.npz", info, 28)[0]


def test_rows_follow_the_images_of_a_subset(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path))
    names = {f"{split}_names": np.array([f"{split}/{k}.png" for k in range(n)]) for split, n in SIZES.items()}
    np.savez(tmp_path / "own.npz", **arrays(**names))
    entry = {**dataset_info("breastmnist").model_dump(mode="json"), "name": "own", "splits": SIZES}
    entry.update(archives={28: {"url": None}}, resolutions=[28])
    catalog_folder().mkdir(parents=True)
    (catalog_folder() / "own.yaml").write_text(yaml.safe_dump(entry))
    module = MedMNISTDataModule("own", max_samples=5)
    kept = module.dataset_for("train").images[:, 0, 0, 0].tolist()
    assert len(kept) == 5
    assert module.side_table("train").names == tuple(f"train/{k}.png" for k in kept)
    assert module.side_table("test").names == tuple(names["test_names"])
    assert MedMNISTDataModule("digits", resolution=8).side_table("train") == SideTable(None, None)
