"""Ensembles of networks that do not read the same pixels: another size, or normalised by other constants."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

import visionforge as vf
from tests.conftest import QUICK
from visionforge.errors import VisionForgeError
from visionforge.evaluation.explain import explain
from visionforge.inference.loading import load_classifier, load_network


def read(given):
    return {name: json.loads(text) if text in ("true", "false") else text for name, text in given.items()}


def fitted(outputs, **changes):
    given = {**QUICK, "trainer.max_epochs": 1, "trainer.default_root_dir": str(outputs), **changes}
    return vf.fit(**read(given))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Networks that read 28 pixels, 40 pixels, and 28 of another normalisation; and all of them as one."""
    outputs = tmp_path_factory.mktemp("inputs")
    larger = {"data.resize.size": 40, "data.resize.mode": "bicubic"}
    runs = [fitted(outputs, **larger), fitted(outputs), fitted(outputs, seed_everything=7)]
    checkpoint = runs[2].path / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["spec"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    torch.save(content, checkpoint)  # as if it had begun with weights that bring their own
    return runs, vf.ensemble(runs)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_network_reads_what_it_has_learnt(made, images):
    runs, joined = made
    each = [load_classifier(run.path / "checkpoints" / "best.ckpt") for run in runs]
    assert [one.spec.network_resolution for one in each] == [40, 28, 28]
    assert each[2].spec.mean != each[1].spec.mean
    alone = [one.predict_probabilities(images, tta=False)[0] for one in each]
    views = [one.predict_probabilities(images)[1] for one in each]
    model = joined.model
    said, averaged = model.predict_probabilities(images)
    torch.testing.assert_close(said, torch.stack(alone).mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(averaged, torch.stack(views).mean(dim=0), atol=1e-5, rtol=0)
    network = load_network(joined.path / "checkpoints" / "best.ckpt")
    for one, other in zip(network.predict_probabilities(images), (said, averaged), strict=True):
        assert torch.equal(one, other)
    for place, expected in enumerate(alone):
        found, _ = model.alone(place).predict_probabilities(images, tta=False)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_it_is_used_like_any_run(made, images, tmp_path):
    runs, joined = made
    assert joined.config["data"]["resize"]["size"] is None  # each network resizes by itself
    again = vf.evaluate(joined, **{"evaluation.resamples": 0})
    assert again.metrics["accuracy"] == joined.metrics["accuracy"]
    shutil.copy(joined.path / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    data = {name: value for name, value in QUICK.items() if name.startswith("data.s") or name == "evaluation.figures"}
    lone = vf.evaluate(tmp_path / "alone.ckpt", **read({**data, "trainer.default_root_dir": str(tmp_path)}))
    assert lone.metrics["accuracy"] == joined.metrics["accuracy"]
    pixels = torch.from_numpy(images).movedim(-1, 1)
    targets = torch.tensor([0, 1, 0, 1])
    each = [load_classifier(run.path / "checkpoints" / "best.ckpt") for run in runs]
    mean = torch.stack([explain(one, pixels, targets) for one in each]).mean(dim=0)
    expected = mean / mean.flatten(1).amax(dim=1)[:, None, None].clamp(min=1e-30)
    torch.testing.assert_close(explain(joined.model, pixels, targets), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_exports_say_the_same(made, images, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    _, joined = made
    exported = vf.export(joined, kind, out=tmp_path / "export")
    networks = exported.content["inside"]["networks"]
    assert [each["resize"]["size"] for each in networks] == [40, None, None]
    assert "Its networks read 40, 28, 28 pixels" in (tmp_path / "export" / "model_card.md").read_text()
    np.savez(tmp_path / "some.npz", test_images=images)
    said, same = (
        rows(vf.predict(who, tmp_path / "some.npz", out=tmp_path / f"{name}.csv").path)
        for name, who in (("run", joined), ("file", exported.artifacts[0]))
    )
    for row, other in zip(said, same, strict=True):
        assert float(row["probability_class 0"]) == pytest.approx(float(other["probability_class 0"]), abs=1e-5)
        assert float(row["disagreement"]) == pytest.approx(float(other["disagreement"]), abs=1e-5)


def test_networks_of_one_size_and_other_constants(made, images, tmp_path):
    larger = made[0][0]  # its like, which is brought to the same size and normalised by other constants
    other = fitted(tmp_path, seed_everything=7, **{"data.resize.size": 40, "data.resize.mode": "bicubic"})
    checkpoint = other.path / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["spec"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    torch.save(content, checkpoint)
    joined = vf.ensemble([larger, other], outputs=tmp_path)
    each = [load_classifier(run.path / "checkpoints" / "best.ckpt") for run in (larger, other)]
    alone = torch.stack([one.predict_probabilities(images, tta=False)[0] for one in each])
    said, _ = joined.model.predict_probabilities(images, tta=False)
    torch.testing.assert_close(said, alone.mean(dim=0), atol=1e-5, rtol=0)
    exported = vf.export(joined, "safetensors", out=tmp_path / "export")
    assert exported.artifacts[0].is_file()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda inputs: "x", "no list"),
        (lambda inputs: inputs * 40, "at most 100"),
        (lambda inputs: [3, 3, 3], "cannot be used"),
        (lambda inputs: inputs[:2], "what 2 of 3 networks read"),
        (lambda inputs: [{**inputs[0], "mean": [0.5, 0.5]}, *inputs[1:]], "cannot be used"),
        (lambda inputs: [{**inputs[0], "resize": {"size": 100_000}}, *inputs[1:]], "cannot be used"),
        (lambda inputs: [{**inputs[0], "resize": {"size": 16, "mode": "pad"}}, *inputs[1:]], "has no room"),
    ],
)
def test_what_a_stranger_says_of_inputs_is_checked(made, tmp_path, change, told):
    _, joined = made
    content = torch.load(joined.path / "checkpoints" / "best.ckpt", weights_only=True)
    stored = content["hyper_parameters"]
    stored["inputs"] = change(stored["inputs"])
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(VisionForgeError, match=told):
        load_classifier(tmp_path / "bad.ckpt")
