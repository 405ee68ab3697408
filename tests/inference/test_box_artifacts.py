"""Exported networks of boxes say what their network says; what they cannot be is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import EXHAUSTIVE
from tests.tasks.helpers import box_data, box_spec, noise
from tests.training.helpers import fit
from tests.training.test_box_outputs import box_model
from visionforge.errors import RunError, SettingsError
from visionforge.exporting.export import export_network
from visionforge.exporting.formats import write_onnx
from visionforge.exporting.parity import BOUND, Images, compare
from visionforge.inference.agreement import of_boxes
from visionforge.inference.artifacts import ArtifactPredictor, load_predictor, torch_runtime
from visionforge.inference.box_predictor import BoxPredictor
from visionforge.inference.contract import contract_of
from visionforge.inference.exported import ExportedClassifier

SIDE = 32


def exported(model, kind="uint8"):
    contract = contract_of(model, kind, None, None, None)
    return ExportedClassifier(model, contract), contract


def same(one, other):
    found = of_boxes(one.labels, other.labels, SIDE)
    assert found.same.min() > 0.97
    assert found.largest < 1e-4
    assert (one.labels[..., 0] >= 0).sum() > 10


def told(detector, tta="off", **settings):
    """Return a network that says something: an untrained one is sure of nothing."""
    model = box_model(detector, tta=tta, **settings)
    model.network.detector.model.score_thresh = 0.0
    if detector == "faster_rcnn":
        model.network.detector.model.roi_heads.score_thresh = 0.0
    return model


@pytest.mark.parametrize("detector", ["fcos", "retinanet", "faster_rcnn"])
@pytest.mark.parametrize(("tta", "weight"), [("off", None), ("full", None), ("full", 0.7)])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_an_artifact_says_what_its_network_says(kind, tta, weight, detector):
    model = told(detector, tta, tta_weight=weight)
    module, contract = exported(model, kind)
    said = BoxPredictor(model)(noise(5, SIDE, SIDE))
    artifact = ArtifactPredictor(torch_runtime(module, contract, Path("model")))
    found = artifact(noise(5, SIDE, SIDE))
    same(said, found)
    assert found.averaged == said.averaged == artifact.averages == (tta == "full")
    output = contract.as_text()["output"]
    assert (output["name"], output["shape"]) == ("boxes", ["batch", 100, 6])


@pytest.mark.parametrize(
    ("detector", "tta"),
    [
        ("fcos", "off"),
        pytest.param("fcos", "full", marks=pytest.mark.slow),
        pytest.param("retinanet", "off", marks=[pytest.mark.slow, EXHAUSTIVE]),
        pytest.param("retinanet", "full", marks=pytest.mark.slow),
        pytest.param("faster_rcnn", "off", marks=[pytest.mark.slow, EXHAUSTIVE]),
        pytest.param("faster_rcnn", "full", marks=pytest.mark.slow),
    ],
)
def test_an_onnx_model_says_what_its_network_says(tmp_path, detector, tta):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = told(detector, tta)
    module, contract = exported(model)
    write_onnx(module, contract, tmp_path / "model.onnx", 18)
    artifact = load_predictor(tmp_path / "model.onnx")
    for count in (1, 5):
        same(BoxPredictor(model)(noise(count, SIDE, SIDE)), artifact(noise(count, SIDE, SIDE)))


def test_an_artifact_that_says_something_else_is_not_kept():
    model = told("fcos")
    module, contract = exported(model)
    images = Images(noise(6, SIDE, SIDE).numpy(), None, "noise")
    said = BoxPredictor(model)(torch.from_numpy(images.pixels))
    assert compare(contract.spec, said, torch_runtime(module, contract, Path("m")), images, BOUND).agreement == 1
    moved = torch_runtime(
        lambda given: (module(given) - torch.tensor([0, 0, 0.5, 0, 0, 0])).clamp(min=-1), contract, Path("m")
    )
    with pytest.raises(RunError, match="the artifact"):
        compare(contract.spec, said, moved, images, BOUND)


@pytest.mark.parametrize(
    ("row", "is_box"),
    [
        ([0, 0.5, 1, 1, 4, 4], True),
        ([-1, 0, 0, 0, 0, 0], True),
        ([2, 0.5, 1, 1, 4, 4], False),
        ([0.5, 0.5, 1, 1, 4, 4], False),
        ([0, 1.5, 1, 1, 4, 4], False),
        ([0, 0.5, 4, 1, 1, 4], False),
        ([0, 0.5, 1, 1, 4, 40], False),
        ([0, 0.5, -1, 1, 4, 4], False),
    ],
)
def test_rows_of_a_forged_artifact_are_looked_at(row, is_box):
    _, contract = exported(told("fcos"))
    rows = torch.tensor(row, dtype=torch.float32).expand(2, 100, 6)
    artifact = ArtifactPredictor(torch_runtime(lambda images: rows, contract, Path("forged.onnx")))
    if is_box:
        np.testing.assert_array_equal(artifact(noise(2, SIDE, SIDE)).labels, rows)
    else:
        with pytest.raises(RunError, match="gives rows that are no boxes"):
            artifact(noise(2, SIDE, SIDE))


def test_more_rows_than_the_settings_say_are_refused():
    _, contract = exported(told("fcos"))
    forged = torch_runtime(lambda images: torch.zeros(2, 101, 6), contract, Path("forged.onnx"))
    with pytest.raises(RunError, match=r"forged\.onnx: gives the shape \(2, 101, 6\), not \(2, 100, 6\) \(boxes"):
        ArtifactPredictor(forged)(noise(2, SIDE, SIDE))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"format": "torch"}, "format: torch is not allowed for detection, .*; allowed: onnx, safetensors"),
        ({"int8": True}, "int8: is not for detection"),
    ],
)
def test_what_networks_of_boxes_cannot_be(tmp_path, asked, message):
    model = box_model()
    fit(model, 1, box_data(), limit_train_batches=1, limit_val_batches=0).save_checkpoint(tmp_path / "boxes.ckpt")
    with pytest.raises(SettingsError, match=message):
        export_network(checkpoint=str(tmp_path / "boxes.ckpt"), out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_agreement_of_boxes_is_by_class_and_place():
    assert box_spec().resolution == SIDE
    one = np.array([[[0, 0.9, 2, 2, 8, 8], [1, 0.5, 1, 1, 4, 4], [-1, 0, 0, 0, 0, 0]]], np.float32)
    assert of_boxes(one, one[:, [1, 0, 2]], SIDE).same.tolist() == [1.0]
    other = one.copy()
    other[0, 1, 0] = 0
    assert of_boxes(one, other, SIDE).same.tolist() == [0.5]
    other = one[:, [0, 2, 2]]
    assert of_boxes(one, other, SIDE).same.tolist() == [pytest.approx(2 / 3)]
    moved = one.copy()
    moved[0, 0, 5] += 0.032
    assert of_boxes(one, moved, SIDE).largest == pytest.approx(0.001, rel=1e-3)
    assert of_boxes(one[:, 2:], one[:, 2:], SIDE).same.tolist() == [1.0]
