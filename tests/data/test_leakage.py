"""Groups and pictures that splits share: counted in a check, kept for fits, and told in lines."""

import json

import numpy as np
import pytest
import yaml

import visionforge as vf
from tests.data.test_duplicates import scenes
from visionforge.cli.main import main
from visionforge.config.schema import DataSettings
from visionforge.data import leakage
from visionforge.data.registry import catalog_folder, dataset_info
from visionforge.data.shared_groups import shared_groups
from visionforge.data.side_table import SideTable
from visionforge.engine.provenance import describe_data, warn_of_leaks
from visionforge.runs.manifest import Manifest, utc_now
from visionforge.runs.paths import cache_folder

SIZES = {"train": 24, "val": 8, "test": 8}


def archive(folder, name="own", sizes=None, **extra) -> None:
    """Write an archive and its catalog entry; `extra` are further or other arrays."""
    sizes = sizes or SIZES
    pool = scenes(sum(sizes.values()))
    content, start = {}, 0
    for split, count in sizes.items():
        content[f"{split}_images"] = pool[start : start + count]
        content[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
        start += count
    np.savez(folder / f"{name}.npz", **{**content, **extra})
    entry = {**dataset_info("breastmnist").model_dump(mode="json"), "name": name, "splits": sizes}
    entry.update(archives={28: {"url": None}}, resolutions=[28])
    catalog_folder().mkdir(parents=True, exist_ok=True)
    (catalog_folder() / f"{name}.yaml").write_text(yaml.safe_dump(entry))


def groups(**shared: str) -> dict[str, np.ndarray]:
    """Return groups of which none is shared, but what is given: the first image of a split has that one."""
    found = {f"{split}_groups": np.array([f"{split}{k // 2}" for k in range(n)], "U40") for split, n in SIZES.items()}
    for split, name in shared.items():
        found[f"{split}_groups"][0] = name
    return found


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path))
    return tmp_path


def test_shared_groups_are_counted():
    tables = {
        "train": SideTable(groups=("a", "a", "b", "", "c")),
        "val": SideTable(),
        "test": SideTable(groups=("c", "a", "", "a", "d")),
    }
    (shared,) = shared_groups(tables)
    assert (shared.first, shared.second) == ("train", "test")
    assert shared.groups == {"a": (2, 2), "c": (1, 1)}
    assert str(shared) == "2 groups in both, 3 images of train and 3 of test (a: 2 + 2; c: 1 + 1)"


def test_a_shared_group_fails_the_check(data, capsys):
    archive(data, **groups(train="p7", test="p7"))
    assert main(["datasets", "check", "own"]) == 1
    shown = capsys.readouterr().out
    assert "✗ groups of train and test: 1 group in both, 1 images of train and 1 of test (p7: 1 + 1)" in shown
    assert "✓ groups of train and val: no group in both" in shown
    assert main(["datasets", "check", "own", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert {"first": "train", "second": "test", "groups": {"p7": [1, 1]}} in content["groups"]
    archive(data, **groups())
    assert main(["datasets", "check", "own"]) == 0


def test_names_of_groups_are_made_printable(data, capsys):
    archive(data, **groups(train="\x1b[31mred\n", val="\x1b[31mred\n"))
    assert main(["datasets", "check", "own"]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"(\x1b[31mred\n: 1 + 1)" in shown


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.array(["a"] * 7 + [None]), "holds Python objects (pickle), which are never loaded"),
        (np.array(["a"] * 5), "has the shape (5,), expected (8,)"),
        (np.arange(8), "has the type int64, expected text"),
    ],
)
def test_groups_of_strangers_that_are_none_are_told_in_a_line(data, capsys, value, complaint):
    archive(data, **{**groups(), "test_groups": value})
    assert main(["datasets", "check", "own"]) == 1
    output = capsys.readouterr()
    (line,) = (line for line in output.out.splitlines() if "✗" in line)
    assert complaint in line
    assert not output.err


def test_copies_and_their_labels_are_told(data, capsys):
    pool = scenes(40)
    test = pool[32:].copy()
    test[1], test[2], test[5] = pool[4], pool[6, :, ::-1], np.clip(pool[9].astype(int) + 3, 0, 255).astype(np.uint8)
    names = {f"{split}_names": np.array([f"{split}/{k}.png" for k in range(n)]) for split, n in SIZES.items()}
    archive(data, test_images=test, **names)
    assert main(["datasets", "check", "own"]) == 0
    shown = capsys.readouterr().out
    assert "✗ train and test: 1 image in both (train train/4.png = test test/1.png); 1 nearly equal (train" in shown
    assert "1 changed copies (train train/6.png ≈ test test/2.png mirrored left to right)" in shown
    assert "✗ labels of duplicates: 1 pair with different labels" in shown
    assert main(["datasets", "check", "own", "--strict"]) == 1
    capsys.readouterr()
    assert main(["datasets", "check", "own", "--exactly", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [pair["kind"] for pair in content["pairs"]] == ["equal"]
    report = vf.check_dataset("own")
    assert [pair.kind for pair in report.duplicates.between("train", "test")] == ["equal", "near", "changed"]
    assert len(report.duplicates.conflicts) == 1


def test_masks_are_no_labels_of_duplicates(data):
    pool = scenes(40)
    masks = {f"{split}_labels": np.zeros((n, 28, 28), np.uint8) for split, n in SIZES.items()}
    masks["test_labels"][:] = 1
    archive(data, test_images=pool[:8], **masks)
    path = catalog_folder() / "own.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "task": "segmentation", "positive": None}))
    report = vf.check_dataset("own")
    assert [pair.kind for pair in report.duplicates.between("train", "test")] == ["equal"] * 8
    assert not report.duplicates.conflicts


# --- what a fit is told


def leaks(data) -> list[str]:
    return [str(leak) for leak in leakage.training_leaks(dataset_info("own"), 28, None, data / "own.npz")]


def test_a_fit_is_told_of_equal_images_and_groups(data, monkeypatch):
    pool = scenes(40)
    archive(data, val_images=pool[[0, *range(25, 32)]], test_images=pool[:8], **groups(train="p", test="p"))
    expected = [
        "1 image of val is in train, too",
        "8 images of test are in train, too and test shares 1 group with train",
    ]
    assert leaks(data) == expected
    monkeypatch.setattr(leakage, "equal_images", None)  # it is not done again
    assert leaks(data) == expected
    (kept,) = (cache_folder() / "leaks").iterdir()
    kept.write_text("[1]")
    with pytest.raises(TypeError):
        leaks(data)


def test_a_fit_knows_what_a_check_has_found(data):
    pool = scenes(40)
    test = pool[32:].copy()
    test[:2], test[2] = pool[3:5, ::-1], pool[7]
    archive(data, test_images=test)
    assert leaks(data) == ["1 image of test is in train, too"]
    vf.check_dataset("own", exactly=True)
    assert leaks(data) == ["1 image of test is in train, too"]
    vf.check_dataset("own")
    assert leaks(data) == ["3 images of test are in train, too (2 changed)"]


def test_large_data_is_not_compared_by_a_fit(data, monkeypatch):
    archive(data, test_images=scenes(40)[:8], **groups(train="p", test="p"))
    monkeypatch.setattr(leakage, "MOST_BYTES", 100)
    assert leaks(data) == ["test shares 1 group with train"]


def test_a_cache_that_cannot_be_written_costs_time_only(data, monkeypatch):
    archive(data, test_images=scenes(40)[:8])
    (cache_folder()).mkdir(parents=True, exist_ok=True)
    (cache_folder() / "leaks").write_text("in the way")
    assert leaks(data) == leaks(data) == ["8 images of test are in train, too"]


class Active:
    """As much of a run as says what its data is."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def update(self, **changes) -> None:
        self.manifest = self.manifest.model_copy(update=changes)


def test_what_is_shared_is_none_of_the_facts_by_which_data_is_known_again(data, caplog):
    archive(data, val_images=scenes(40)[:8], test_images=scenes(40)[8:16])
    active = Active(
        Manifest(run="r", mark="m", state="running", started=utc_now(), hash="h", dataset="own", model="mini_cnn")
    )
    settings = DataSettings(dataset="own", resolution=28)
    for notes in ((), ("two classes are alike",)):  # the second is a run that goes on
        describe_data(active, dataset_info("own").model_copy(update={"notes": notes}), settings)
        warn_of_leaks(active, dataset_info("own"), settings)
        both = "8 images of val are in train, too; 8 images of test are in train, too"
        assert active.manifest.data["shared with train"] == both
    assert active.manifest.data["noticed by its import"] == "two classes are alike"
    assert caplog.text.count(f"own: {both}; see `visionforge datasets check own`") == 2
    active.update(data={})
    warn_of_leaks(active, dataset_info("own"), settings.model_copy(update={"folds": 5}))
    assert active.manifest.data["shared with train"] == "8 images of test are in train, too"
