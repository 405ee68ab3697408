"""`predict --images`: anybody's pictures get the probabilities that the same images have in a test, in any format."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import visionforge as vf
from tests.data.test_stream import BROKEN, GOOD, odd_folder  # noqa: F401  # a fixture
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.config.rules import DeviceFacts
from visionforge.config.schema import Backbone, Loss, Synthetic
from visionforge.data.augment import normalise
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.data.info import DomainFlags, TaskSpec
from visionforge.errors import DataError, SettingsError
from visionforge.evaluation.predictions import read_predictions
from visionforge.training.classifier import ImageClassifier

MORE_IMAGES = 8_000
GROWTH_MB = 250  # two peaks of the same work differ by the largest blocks, some 80; what networks read would take 390


def checkpoint(
    path, task="multi-class", classes=("ant", "bee", "cat"), tta="off", channels=3, loss="auto", size=28, **more
):
    """Write the checkpoint of an untrained network; `more` goes into the file."""
    spec = TaskSpec(
        dataset="made", task=task, classes=classes, channels=channels, resolution=size, mean=(0.5,) * channels,
        std=(0.3,) * channels, flags=DomainFlags(
            hflip=True, vflip=False, rotation="small", texture_is_label=True, colour_is_label=True
        ),
    )  # fmt: skip
    torch.manual_seed(1)
    model = ImageClassifier(Backbone(name="mini_cnn", pretrained=False), loss=Loss(name=loss), tta=tta, spec=spec)
    model.configure_model()
    model.eval()
    with torch.no_grad():  # an untrained network says the same of every image
        head = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        head.weight.mul_(30)
        head.bias.sub_(
            model.network(normalise(as_input(noise(12))[:, :channels], (0.5,) * channels, (0.3,) * channels)).mean(
                dim=0
            )
        )
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}, **more}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return model


def noise(count):
    """Return images (N, 28, 28, 3) of noise, each with a colour of its own."""
    rng = np.random.default_rng(7)
    tops = rng.integers(1, 256, (count, 1, 1, 3))
    return rng.integers(0, tops, (count, 28, 28, 3), dtype=np.uint8, endpoint=True)


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures of noise, of the size that the network takes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(noise(12)):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


def predict(*arguments):
    assert main(["predict", *map(str, arguments), "--accelerator", "cpu"]) == 0


def table(path="predictions.csv"):
    return pd.read_csv(path, dtype={"prediction": str}, keep_default_na=False)


def probabilities(content):
    return content[[name for name in content if name.startswith("probability_")]].to_numpy(np.float64)


def as_input(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# --- the numbers


@pytest.fixture
def without_calibration(quick_run, tmp_path):
    """A copy of the quick run whose checkpoint says nothing of temperatures."""
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**content, "calibration": None}, run / "checkpoints" / "best.ckpt")
    return run


@pytest.fixture
def test_split(tmp_path):
    """The images of the quick run's test split, as an archive and as pictures."""
    settings = Synthetic(train=64, val=32, test=32)
    data = MedMNISTDataModule("synthetic", resolution=28, batch_size=16, synthetic=settings)
    data.setup("test")
    images = data.dataset_for("test").images.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(tmp_path / "split.npz", test_images=images)
    (tmp_path / "split").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "split" / f"{number:03d}.png")
    return tmp_path


@pytest.mark.parametrize("tta", [True, False])
@pytest.mark.parametrize("source", ["split.npz", "split"])
def test_numbers_are_those_of_the_test(without_calibration, test_split, tta, source, capsys):
    predict("--run", without_calibration, "--images", source, *([] if tta else ["--no-tta"]))
    out = without_calibration / "evaluations" / "predict_best_images" / "predictions.csv"
    assert capsys.readouterr().out.startswith(f"32 predictions: {out.relative_to(test_split)}")
    ours, tested = table(out), read_predictions(without_calibration / "predictions.csv", tta)[0]
    np.testing.assert_allclose(probabilities(ours), tested, atol=1e-6)
    assert ours["prediction"].tolist() == [f"class {k}" for k in tested.argmax(axis=1)]
    names = [f"split.npz:test/{k:06d}" if source.endswith("npz") else f"split/{k:03d}.png" for k in range(32)]
    assert ours["path"].tolist() == names
    assert not np.allclose(tested, read_predictions(without_calibration / "predictions.csv", not tta)[0], atol=1e-4)


def test_table_of_a_run_is_reproduced_and_leaves_the_run_alone(quick_run, tmp_path, photos):
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    predict("--run", run, "--ckpt_path", "last", "--images", photos)
    out = run / "evaluations" / "predict_last_images" / "predictions.csv"
    first = out.read_bytes()
    predict("--ckpt_path", run / "checkpoints" / "last.ckpt", "--images", photos, "--overwrite")
    assert out.read_bytes() == first
    changed = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    assert changed - {path.relative_to(quick_run) for path in quick_run.rglob("*")} == {out.relative_to(run)}


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_calibrated_and_labels_are_not_moved(tmp_path, photos, tta):
    calibration = {"images": 9, "temperature": 3.0, "temperature_tta": 0.5, "thresholds_tta": None}
    model = checkpoint("x.ckpt", tta="light" if tta else "off", calibration=calibration)
    predict("--ckpt_path", "x.ckpt", "--images", photos)
    with torch.inference_mode():
        alone, averaged = model.predict_probabilities(as_input(noise(12)))
    raw = (averaged if tta else alone).double().numpy()
    wanted = raw ** (1 / (0.5 if tta else 3.0))
    wanted /= wanted.sum(axis=1, keepdims=True)
    ours = table()
    np.testing.assert_allclose(probabilities(ours), wanted, atol=1e-6)
    entropy = -(wanted * np.log(wanted)).sum(axis=1) / math.log(3)
    np.testing.assert_allclose(ours["uncertainty"], entropy, atol=1e-5)
    assert ours["prediction"].tolist() == [("ant", "bee", "cat")[k] for k in raw.argmax(axis=1)]
    assert len(set(ours["prediction"])) > 1


def test_views_are_chosen_on_the_command_line(photos):
    model = checkpoint("off.ckpt", tta="off")
    full, light = checkpoint("full.ckpt", tta="full"), checkpoint("light.ckpt", tta="light")
    for name, flag, wanted in (
        ("off", [], model), ("off", ["--tta"], full), ("off", ["--no-tta"], model),
        ("light", [], light), ("light", ["--tta"], light), ("full", ["--no_tta"], model),
    ):  # fmt: skip
        predict("--ckpt_path", f"{name}.ckpt", "--images", photos, "--overwrite", *flag)
        with torch.inference_mode():
            alone, averaged = wanted.predict_probabilities(as_input(noise(12)))
        given = (alone if averaged is None else averaged).numpy()
        np.testing.assert_allclose(probabilities(table()), given, atol=1e-6, err_msg=f"{name} {flag}")


def test_batch_size_and_threads_do_not_change_the_numbers(photos):
    checkpoint("x.ckpt")
    found = []
    threads = torch.get_num_threads()
    try:
        for batch, count in ((1, 1), (5, 2), (128, 3)):
            predict(
                "--ckpt_path",
                "x.ckpt",
                "--images",
                photos,
                "--overwrite",
                "--batch-size",
                batch,
                "--num_threads",
                count,
            )
            found.append(table())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        np.testing.assert_allclose(probabilities(other), probabilities(found[0]), atol=1e-6)
        assert other["path"].tolist() == found[0]["path"].tolist()


@pytest.mark.parametrize("tta", ["off", "full"])
def test_layers_multiply_in_what_was_chosen(photos, tta, monkeypatch):
    model = checkpoint("x.ckpt", tta=tta)

    def said(*precision: str):
        predict("--ckpt_path", "x.ckpt", "--images", photos, "--overwrite", *precision)
        return probabilities(table())

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        alone, averaged = model.predict_probabilities(as_input(noise(12)))
    full, less = said(), said("--precision", "bf16-mixed")
    np.testing.assert_array_equal(said("--precision", "32-true"), full)
    np.testing.assert_allclose(less, (alone if averaged is None else averaged).float().numpy(), atol=1e-6)
    assert 1e-5 < np.abs(less - full).max() < 0.1
    for fast, expected in ((True, less), (False, full)):
        facts = DeviceFacts("this", float16=False, bfloat16=True, fast_bfloat16=fast)
        monkeypatch.setattr("visionforge.engine.picture_network.device_facts", lambda _, facts=facts: facts)
        np.testing.assert_array_equal(said("--precision", "auto"), expected)


@pytest.mark.parametrize(
    ("run", "more", "complaint"),
    [
        ("x.ckpt", {"precision": "16-mixed"}, "precision: 16-mixed is not allowed; allowed: 32-true, bf16-mixed, auto"),
        ("x.onnx", {"precision": "bf16-mixed"}, "precision: artifacts multiply in 32 bits; bf16-mixed was given"),
        ("x.ckpt", {"precision": "bf16-mixed"}, "precision: bf16-mixed needs bfloat16, which this lacks"),
    ],
)
def test_a_precision_that_is_not_there_is_refused(photos, run, more, complaint, monkeypatch):
    checkpoint("x.ckpt")
    facts = DeviceFacts("this", float16=False, bfloat16=False)
    monkeypatch.setattr("visionforge.engine.picture_network.device_facts", lambda _: facts)
    with pytest.raises(SettingsError, match=complaint):
        vf.predict(run, photos, **more)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("tta", [False, True])
def test_multi_label(photos, tuned, tta):
    thresholds, thresholds_tta = [0.45, 0.55, 0.5], (0.52, 0.48, 0.4)
    calibration = {"images": 9, "temperature": 2.0, "temperature_tta": 2.0, "thresholds_tta": thresholds_tta}
    more = {"thresholds": thresholds, "calibration": calibration} if tuned else {}
    model = checkpoint("x.ckpt", task="multi-label", tta="light" if tta else "off", **more)
    predict("--ckpt_path", "x.ckpt", "--images", photos)
    with torch.inference_mode():
        alone, averaged = model.predict_probabilities(as_input(noise(12)))
    raw = (averaged if tta else alone).double()
    digits = (raw > torch.tensor((thresholds_tta if tta else thresholds) if tuned else [0.5] * 3)).int().tolist()
    ours = table()
    assert ours["prediction"].tolist() == [
        "|".join(name for name, digit in zip(("ant", "bee", "cat"), row, strict=True) if digit) for row in digits
    ]
    assert len(set(ours["prediction"])) > 1
    wanted = torch.sigmoid(torch.logit(raw) / (2.0 if tuned else 1.0)).numpy()
    np.testing.assert_allclose(probabilities(ours), wanted, atol=1e-6)
    entropy = -(wanted * np.log2(wanted) + (1 - wanted) * np.log2(1 - wanted)).mean(axis=1)
    np.testing.assert_allclose(ours["uncertainty"], entropy, atol=1e-5)


def test_ordinal(photos):
    model = checkpoint("x.ckpt", task="ordinal", loss="ordinal", classes=("0", "1", "2", "3"))
    predict("--ckpt_path", "x.ckpt", "--images", photos)
    with torch.inference_mode():
        given = model.predict_probabilities(as_input(noise(12)))[0].numpy()
    ours = table()
    np.testing.assert_allclose(probabilities(ours), given, atol=1e-6)
    np.testing.assert_allclose(probabilities(ours).sum(axis=1), 1, atol=1e-6)
    assert ours["uncertainty"].between(0, 1).all()


def test_grey_network_takes_colours_as_luma(photos):
    model = checkpoint("x.ckpt", channels=1)
    predict("--ckpt_path", "x.ckpt", "--images", photos)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in noise(12)])[:, None]
    with torch.inference_mode():
        given = model.predict_probabilities(torch.from_numpy(grey))[0].numpy()
    np.testing.assert_allclose(probabilities(table()), given, atol=1e-6)


@pytest.mark.parametrize("tta", [True, False])
def test_a_split_and_its_pictures_have_one_table(plain_run, test_split, tta):
    """Of `predict` and of `test`; the truth of pictures is not known."""
    run = test_split / "run"
    shutil.copytree(plain_run, run)
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    calibration = {"images": 32, "temperature": 0.3, "temperature_tta": 0.5, "thresholds_tta": None}
    torch.save({**content, "calibration": calibration, "outliers": None}, run / "checkpoints" / "best.ckpt")
    own = ["--model.tta", "full" if tta else "off", "--trainer.accelerator", "cpu"]
    own += ["--evaluation.conformal", "none", "--evaluation.ood", "none"]
    assert main(["predict", "--run", str(run), *own]) == main(["test", "--run", str(run), *own]) == 0
    predict("--run", run, "--images", "split", "--tta" if tta else "--no-tta", "--out", "pictures.csv")
    (predicted,) = run.glob("evaluations/predict_*/predictions.csv")
    (tested,) = run.glob("evaluations/test_*/predictions.csv")
    names = [f"class {k}" for k in range(4)]
    kinds = ["raw_probability", "raw_tta_probability"] if tta else ["raw_probability"]
    columns = ["prediction", *(f"probability_{name}" for name in names), "uncertainty"]
    columns += [f"{kind}_{name}" for kind in kinds for name in names]
    pictures = pd.read_csv("pictures.csv")
    assert list(pictures) == ["path", *columns]
    for path in (predicted, tested):
        split = pd.read_csv(path)
        assert list(split) == ["index", "truth", *columns], path
        pd.testing.assert_frame_equal(split[columns], pictures[columns], rtol=0, atol=1e-6)
    pd.testing.assert_series_equal(pd.read_csv(predicted)["truth"], pd.read_csv(tested)["truth"])


# --- the table


def test_formats_agree(photos):
    checkpoint("x.ckpt", classes=("a b", 'q"u,o', "猫"))
    for suffix in ("csv", "parquet", "jsonl"):
        predict("--ckpt_path", "x.ckpt", "--images", photos, "--out", f"x.{suffix}")
    one = pd.read_csv("x.csv")
    columns = ["probability_a b", 'probability_q"u,o', "probability_猫"]
    numbers = [*columns, "uncertainty", *(f"raw_{name}" for name in columns)]
    assert list(one) == ["path", "prediction", *numbers]
    for other in (pd.read_parquet("x.parquet"), pd.read_json("x.jsonl", lines=True)):
        pd.testing.assert_frame_equal(other.drop(columns=numbers), one.drop(columns=numbers), check_dtype=False)
        np.testing.assert_array_equal(other[numbers].astype(np.float32), one[numbers].astype(np.float32))
    assert json.loads(next(iter(open("x.jsonl", encoding="utf-8"))))["prediction"] == one["prediction"][0]  # noqa: PTH123, SIM115


def test_equal_class_names_have_columns_of_their_own(photos):
    checkpoint("x.ckpt", classes=("other", "cat", "other"))
    predict("--ckpt_path", "x.ckpt", "--images", photos)
    assert list(table())[2:5] == ["probability_0_other", "probability_1_cat", "probability_2_other"]


def test_what_cannot_be_read_is_listed(odd_folder, capsys):  # noqa: F811
    checkpoint("x.ckpt")
    predict("--ckpt_path", "x.ckpt", "--images", "odd", "--out", "mine.jsonl")
    output = capsys.readouterr()
    assert output.out == "7 predictions: mine.jsonl; 4 of 11 files could not be read: mine.errors.csv\n"
    assert pd.read_json("mine.jsonl", lines=True)["path"].tolist() == [f"odd/{name}" for name in GOOD]
    errors = pd.read_csv("mine.errors.csv")
    assert errors["path"].tolist() == [f"odd/{name}" for name in BROKEN]
    warned = [line for line in output.err.splitlines() if line.startswith("warning: ")]
    assert warned == [f"warning: {path}: {reason}" for path, reason in errors.to_numpy()]
    for name in BROKEN:
        (odd_folder / name).unlink()
    predict("--ckpt_path", "x.ckpt", "--images", "odd", "--out", "mine.jsonl", "--overwrite")
    assert not os.path.exists("mine.errors.csv"), "it told of the table that was replaced"  # noqa: PTH110


def test_ten_warnings_are_enough(photos, capsys):
    checkpoint("x.ckpt")
    for number in range(25):
        (photos / f"broken\n{number:02d}.png").touch()
    predict("--ckpt_path", "x.ckpt", "--images", photos, "--batch_size", 4)
    output = capsys.readouterr()
    assert output.err.count("warning: ") == len(output.err.splitlines()) == 10
    assert "12 predictions: predictions.csv; 25 of 37 files could not be read" in output.out
    assert len(pd.read_csv("predictions.errors.csv")) == 25


def test_only_tables_that_were_named_or_written_by_predict_are_replaced(photos, refuse, tmp_path):
    checkpoint("x.ckpt")
    (tmp_path / "x.csv").write_text("named")
    (tmp_path / "x.errors.csv").write_text("path,reasoning\nmine,1\n")
    (line,) = refuse("predict", "--ckpt_path", "x.ckpt", "--images", "photos", "--out", "x.csv", "--overwrite")
    assert line.startswith("--out: x.errors.csv would be replaced, and was not written by predict")
    assert (tmp_path / "x.csv").read_text() == "named"
    (tmp_path / "x.errors.csv").write_text("path,reason\na.png,it is broken\n")
    predict("--ckpt_path", "x.ckpt", "--images", "photos", "--out", "x.csv", "--overwrite")
    assert not (tmp_path / "x.errors.csv").exists()


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--images", "nowhere"], "--images: nowhere does not exist"),
        (["--images", "empty"], "--images: empty holds no pictures (.bmp, .dcm, .dicom, .gif, .jfif"),
        (["--images", "bad.npz"], "--images: bad.npz: images holds float64; images are uint8"),
        (["--images", "split.npz"], "--images: split.npz has no array test_images (it has: train_images); choose with"),
        (["--images", "photos", "--split", "val"], "--split: chooses a part of .npz archives"),
        (["--images", "photos", "--out", "x.ods"], "--out: x.ods has the suffix '.ods', which means no table"),
        (["--images", "photos", "--out", "no/x.csv"], "--out: no does not exist; make the folder"),
        (["--images", "photos", "--out", "there.csv"], "--out: there.csv exists already; name another file, or add"),
        (["--images", "photos", "--out", "folder.csv"], "--out: folder.csv is a folder"),
        (["--images", "photos", "--out", f"{'x' * 300}.csv"], "--out: xxx"),
        (["--images", "text.png", "text.png"], "--images: none of the 2 files could be read"),
        (["--images", "photos", "--batch_size", "0"], "predict: argument --batch_size: '0' is not allowed"),
        (["--images", "photos", "--data.root", "x"], "predict: unrecognized arguments: --data.root x"),
        (["--images", "photos", "--run", "nowhere"], "--run: nowhere is no folder"),
        (["--images", "photos", "--ckpt_path", "no.ckpt"], "--ckpt_path: no.ckpt does not exist"),
        (["--images", "photos", "--ckpt_path", "text.png"], "text.png: cannot be read as a checkpoint"),
        (["--images", "photos", "--ckpt_path", "other.ckpt"], "--ckpt_path: other.ckpt was not written by visionforge"),
        (["--images", "photos", "--ckpt_path", "nan.ckpt"], "the network's outputs are not finite"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(photos, refuse, arguments, complaint, tmp_path):
    content = {"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.0"}
    torch.save(content, "other.ckpt")
    model = checkpoint("x.ckpt")
    weights = {name: value * torch.nan for name, value in model.state_dict().items()}
    checkpoint("nan.ckpt", state_dict=weights)
    for name in ("empty", "folder.csv"):
        (tmp_path / name).mkdir()
    for name in ("there.csv", "text.png"):
        (tmp_path / name).write_text("text")
    np.savez("bad.npz", images=np.zeros((2, 4, 4)))
    np.savez("split.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    chosen = [] if {"--run", "--ckpt_path"} & set(arguments) else ["--ckpt_path", "x.ckpt"]
    (line,) = refuse("predict", *arguments, *chosen)
    assert line.startswith(complaint)


@pytest.mark.parametrize(
    ("pictures", "named", "complaint"),
    [
        ("photos", {"batch_size": "8"}, "batch_size: '8' is not allowed; allowed: whole numbers from 1"),
        ("photos", {"batch_size": 2.5}, "batch_size: 2.5 is not allowed"),
        ("photos", {"num_threads": True}, "num_threads: True is not allowed"),
        ("", {}, "pictures: name a folder, a picture file"),
        (["photos", ""], {}, "pictures: name a folder, a picture file"),
    ],
)
def test_mistakes_in_python_are_one_line(photos, tmp_path, pictures, named, complaint):
    checkpoint("x.ckpt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(vf.SettingsError, match=re.escape(complaint)):
        vf.predict("x.ckpt", pictures, **named)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_archive_is_told_before_anything_is_predicted(photos, tmp_path, monkeypatch):
    checkpoint("x.ckpt")
    np.savez_compressed("x.npz", images=noise(300))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[-200] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    monkeypatch.setattr("visionforge.data.stream.read_picture", lambda *given: pytest.fail("a picture was read"))
    with pytest.raises(DataError, match=r"x\.npz: images cannot be unpacked"):
        vf.predict("x.ckpt", ["photos", "x.npz"])


def test_untrained_networks_are_not_asked(refuse, photos):
    (line,) = refuse("predict", "--images", "photos")
    assert line.startswith("predict: give a trained network with --run FOLDER")


def test_default_folder_of_a_failed_prediction_is_removed(quick_run, tmp_path, capsys):
    shutil.copytree(quick_run, tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "x.png").touch()
    assert main(["predict", "--run", "run", "--images", "x.png"]) == 2
    (tmp_path / "x.png").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_archive_leaves_what_was_there(tmp_path, capsys):
    checkpoint("x.ckpt")
    np.savez("x.npz", images=noise(300))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[-2000] ^= 0xFF  # of the last image
    (tmp_path / "x.npz").write_bytes(content)
    (tmp_path / "predictions.csv").write_text("earlier")
    assert main(["predict", "--ckpt_path", "x.ckpt", "--images", "x.npz", "--overwrite"]) == 2
    assert "error: x.npz: images cannot be unpacked (Bad CRC-32" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "x.ckpt", "x.npz"]


def test_predict_without_images_is_what_it_was(quick_run, tmp_path):
    shutil.copytree(quick_run, tmp_path / "run")
    assert main(["predict", "--run", "run"]) == 0
    assert (tmp_path / "run" / "evaluations" / "predict_best" / "predictions.csv").is_file()


# --- processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_leaves_no_half_file(fleet, tmp_path, name):
    checkpoint(tmp_path / "x.ckpt")
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((1_000_000, 28, 28), np.uint8))
    (tmp_path / "out").mkdir()
    arguments = (
        "--ckpt_path",
        tmp_path / "x.ckpt",
        "--images",
        tmp_path / "x.npz",
        "--out",
        tmp_path / "out" / "x.csv",
    )
    pid = fleet.start("predict", *arguments, "--accelerator", "cpu")
    wait_for(lambda: any(path.stat().st_size > 10_000 for path in (tmp_path / "out").iterdir()))
    os.kill(pid, getattr(signal, name))
    ended = fleet.wait()
    assert ended.status == 128 + getattr(signal, name), ended.err
    assert ended.err == f"interrupted by {name}\n"
    assert not list((tmp_path / "out").iterdir())


CHILD = """
import re, sys
from pathlib import Path
from visionforge.cli.main import main
main()
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak_megabytes(tmp_path, count):
    """Return the peak of the resident memory; ru_maxrss would begin with that of the process which starts it."""
    folder = tmp_path / str(count)
    folder.mkdir()
    image = Image.fromarray(noise(1)[0])
    for number in range(count):
        image.save(folder / f"{number}.png")
    given = ["--ckpt_path", "x.ckpt", "--images", folder, "--overwrite", "--accelerator", "cpu"]
    command = [sys.executable, "-c", CHILD, "predict", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"{count:,} predictions" in done.stdout
    return int(re.findall(r"\d+", done.stdout)[-1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    checkpoint("x.ckpt", size=64)
    few, many = peak_megabytes(tmp_path, 300), peak_megabytes(tmp_path, MORE_IMAGES)
    assert many - few < GROWTH_MB, f"{few:.0f} MB for 300, {many:.0f} MB for {MORE_IMAGES:,}"


@pytest.mark.slow
def test_decoded_pictures_are_not_kept(tmp_path):
    checkpoint("x.ckpt", size=64)
    image, peaks = Image.fromarray(noise(1)[0]), []
    for count in (300, 2_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            image.save(folder / f"{number}.png")
        tracemalloc.start()
        try:
            predict("--ckpt_path", "x.ckpt", "--images", folder, "--overwrite")
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 7, "MB; 1,700 pictures of 64×64 pixels would take 21"


@pytest.mark.parametrize(
    "given", [["--tta"], ["--no-tta"], ["--out=x.csv"], ["--split", "val"], ["--model", "x.onnx"], ["--model=x.onnx"]]
)
def test_flags_of_pictures_without_pictures_are_named(refuse, given):
    flag = given[0].partition("=")[0].replace("no-tta", "no_tta")
    assert refuse("predict", "--run", "x", *given) == [f"{flag}: is for pictures; add --images PATH"]


def test_precision_without_pictures_is_that_of_the_trainer(refuse):
    (line,) = refuse("predict", "--run", "x", "--precision", "bf16-mixed")
    assert "type: visionforge predict --run x --trainer.precision bf16-mixed" in line


def test_settings_are_no_flags_of_pictures(refuse, tmp_path):
    (tmp_path / "model.yaml").write_text("tta: full\n")
    for given in (["--model.tta", "full"], ["--model", "model.yaml"]):
        assert refuse("predict", "--run", "nowhere", *given)[0].startswith("--run: nowhere is no folder")


def test_pictures_of_another_kind_are_told(quick_run, photos, tmp_path, capsys):
    """One in twenty of the usual pictures is as far out; where many are, the last line says so."""
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    assert main(["predict", "--run", str(run), "--images", str(photos), "--accelerator", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = table(found["path"])["ood_score"].to_numpy(np.float64)
    model = vf.open_run(run).model
    told = table(found["path"])["unlike_training"]
    assert told.tolist() == (scores > model.outliers.threshold).tolist()
    assert found["unlike_training"] == int((scores > model.outliers.threshold).sum()) > 2
    predict("--run", run, "--images", photos)
    told = capsys.readouterr().out
    assert f"{found['unlike_training']} of 12 are unlike the training images" in told
    assert "predict_best_images_2" in told  # the first table stays
    assert len(list((run / "evaluations").glob("predict_best_images*"))) == 2
