"""`visionforge embed`: the same features in every format, with what is known of their images; nothing is lost by it."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visionforge as vf
from tests.conftest import flags
from visionforge.cli.main import main
from visionforge.data.datamodule import ImageDataModule

CPU = ("--trainer.accelerator", "cpu")


def arrays(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive}


def test_every_format_has_the_same_features(quick_run, tmp_path, capsys):
    for suffix in ("npz", "parquet", "csv", "jsonl"):
        assert main(["embed", "--run", str(quick_run), *CPU, "--output", f"x.{suffix}", "--split", "val"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"32 images, 128 features each, of {quick_run.name}: x.npz"
    made = arrays("x.npz")
    assert {name: each.shape for name, each in made.items()} == {
        "features": (32, 128),
        "labels": (32,),
        "splits": (32,),
        "metadata": (),
    }
    assert set(made["splits"]) == {"val"}
    table = pd.read_parquet("x.parquet")
    assert list(table)[:3] == ["split", "label", "feature_0"]
    np.testing.assert_array_equal(table.filter(like="feature_").to_numpy(), made["features"])
    np.testing.assert_array_equal(table.label, made["labels"])
    for other in (pd.read_csv("x.csv"), pd.read_json("x.jsonl", lines=True)):
        np.testing.assert_allclose(other.filter(like="feature_"), made["features"], rtol=1e-6)
        assert other.split.tolist() == made["splits"].tolist()
    metadata = json.loads(str(made["metadata"]))
    import pyarrow.parquet

    assert json.loads(pyarrow.parquet.read_schema("x.parquet").metadata[b"metadata"]) == metadata
    assert metadata["network"]["name"] == quick_run.name
    assert metadata["weights"].keys() == {"fingerprint", "checkpoint", "run", "config_hash"}
    assert metadata["data"]["splits"] == ["val"]
    assert metadata["preprocessing"]["resolution"] == 28


def test_features_of_python_are_those_of_the_command(quick_run, tmp_path):
    assert main(["embed", "--run", str(quick_run), *CPU, "--output", "x.npz"]) == 0
    found = vf.embed(quick_run, trainer={"accelerator": "cpu"})
    made = arrays("x.npz")
    np.testing.assert_array_equal(found.features, made["features"])
    assert found.splits.tolist() == ["train"] * 64 + ["val"] * 32 + ["test"] * 32
    assert found.path is None
    assert found.table.shape == (128, 130)
    model = vf.open_run(quick_run).model
    test = found.features[found.splits == "test"]
    data = {"dataset": "synthetic", "resolution": 28, "synthetic": vf.open_run(quick_run).settings.data.synthetic}
    images = ImageDataModule(**data).dataset_for("test").images
    np.testing.assert_allclose(model.features(images).numpy(), test, atol=1e-6)


def test_the_cache_is_used_and_can_be_left_out(quick_run, tmp_path):
    kept = tmp_path / "cache" / "visionforge" / "features"
    assert main(["embed", "--run", str(quick_run), *CPU, "--output", "a.npz", "--split", "test", "--no-cache"]) == 0
    assert not kept.exists()
    assert main(["embed", "--run", str(quick_run), *CPU, "--output", "b.npz", "--split", "test"]) == 0
    assert len(list(kept.glob("*.npz"))) == 1
    np.testing.assert_array_equal(arrays("a.npz")["features"], arrays("b.npz")["features"])


def test_pictures_have_the_features_of_the_images_that_they_are(quick_run, tmp_path):
    data = {"dataset": "synthetic", "resolution": 28, "synthetic": vf.open_run(quick_run).settings.data.synthetic}
    images = ImageDataModule(**data).dataset_for("test").images
    (tmp_path / "photos").mkdir()
    for place in range(3):
        Image.fromarray(images[place].permute(1, 2, 0).numpy()).save(tmp_path / "photos" / f"{place}.png")
    (tmp_path / "photos" / "bad.png").write_text("no picture")
    assert main(["embed", "--run", str(quick_run), *CPU, "--images", "photos", "--output", "p.npz"]) == 0
    made = arrays("p.npz")
    assert [name.rpartition("/")[2] for name in made["names"].tolist()] == ["0.png", "1.png", "2.png"]
    assert made.keys() == {"features", "names", "metadata"}
    expected = vf.embed(quick_run, split="test", trainer={"accelerator": "cpu"}).features[:3]
    np.testing.assert_allclose(made["features"], expected, atol=1e-6)
    assert "bad.png" in (tmp_path / "p.errors.csv").read_text()
    found = vf.embed(quick_run, "photos", trainer={"accelerator": "cpu"})
    assert (found.failed, found.errors, len(found.features)) == (1, None, 3)
    (tmp_path / "photos" / "bad.png").unlink()
    assert main(["embed", "--run", str(quick_run), *CPU, "--images", "photos", "--output", "p.npz", "--overwrite"]) == 0
    assert not (tmp_path / "p.errors.csv").exists()


def test_nothing_is_replaced_unasked(quick_run, tmp_path, refuse):
    (tmp_path / "x.npz").write_text("mine")
    command = ["embed", "--run", str(quick_run), *CPU, "--output", "x.npz", "--split", "val"]
    (line,) = refuse(*command)
    assert line == "--output: x.npz exists already; name another file, or add --overwrite"
    assert main([*command, "--overwrite"]) == 0
    assert arrays("x.npz")["features"].shape == (32, 128)
    (tmp_path / "y.errors.csv").write_text("mine")
    command = ["embed", "--run", str(quick_run), "--images", ".", "--output", "y.npz", "--overwrite"]
    (line,) = refuse(*command)
    assert line.startswith("--output: y.errors.csv would be replaced, and was not written by embed")


def test_mistakes_are_told_in_a_line(quick_run, tmp_path, refuse, monkeypatch):
    run = ["embed", "--run", str(quick_run), *CPU]
    synthetic = [*flags(model__backbone__pretrained="true"), "--output", "x.npz"]
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    mistakes = {
        "--output: x.txt has the suffix '.txt', which means no file of features; allowed: .npz, .csv, .parquet": (
            *run, "--output", "x.txt"),
        "--output: gone does not exist": (*run, "--output", "gone/x.npz"),
        "--split: all is of a data set": (*run, "--output", "x.npz", "--images", ".", "--split", "all"),
        "embed: argument --split: invalid choice": (*run, "--split", "every"),
        "model.backbone.pretrained: false leaves random weights": ("embed", *flags(), "--output", "x.npz"),
        "model.backbone.pretrained: there are no published weights for mini_cnn": ("embed", *synthetic),
        "--images: a pretrained backbone does not say how pictures are scaled": (
            "embed", "--images", ".", "--model.backbone.weights", str(quick_run)),
        "data.datset: unknown setting": (*run, "--data.datset", "x", "--output", "x.npz"),
        "model.backbone.name: resnet18 asked for": (*run, "--model.backbone.name", "resnet18", "--output", "x.npz"),
        "data.resolution: is not used for pictures": (
            *run, "--images", ".", "--data.resolution", "32", "--output", "x.npz"),
        "nothing: unexpected argument": (*run, "--output", "x.npz", "nothing"),
    }  # fmt: skip
    for told, command in mistakes.items():
        lines = refuse(*command, keeps=("cache", "visionforge", "store", "features", "torch"))
        assert any(line.startswith(told) for line in lines), (told, lines)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else found(name))
    (line,) = refuse(*run, "--output", "x.parquet")
    assert line == '--output: x.parquet needs the package pyarrow: pip install "visionforge-lightning[parquet]"'


def test_configuration_can_be_printed(quick_run, capsys):
    assert main(["embed", "--run", str(quick_run), "--print_config"]) == 0
    assert "dataset: synthetic" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["labels", "names"])
def test_labels_and_names_of_an_archive(what, archives, quick_run, tmp_path):
    settings = {"data": {"dataset": "breastmnist", "root": str(archives), "max_samples": 20}}
    settings |= {"model": {"backbone": {"name": "mini_cnn", "weights": str(quick_run)}}}
    found = vf.embed(split="train", **settings, trainer={"accelerator": "cpu"}, output="x.npz")
    assert found.features.shape == (20, 128)
    assert (found.labels if what == "labels" else found.names) is (None if what == "names" else found.labels)
    assert found.metadata["weights"]["sha256"]
    assert found.metadata["data"]["archive_md5"] == "750601b1f35ba3300ea97c75c52ff8f6"
