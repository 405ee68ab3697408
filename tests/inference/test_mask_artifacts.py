"""Exported networks of masks say what their network says; a changed artifact is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

import visionforge as vf
from tests.tasks.helpers import mask_model, mask_spec, noise
from visionforge.errors import RunError, SettingsError
from visionforge.inference.artifacts import ArtifactPredictor, load_predictor, prepared, torch_runtime
from visionforge.inference.contract import KEY, contract_of, read_contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.mask_predictor import MaskPredictor


def exported(model, kind="uint8"):
    contract = contract_of(model, kind, None, None, None)
    return ExportedClassifier(model, contract), contract


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize(("tta", "weight"), [("off", None), ("full", None), ("full", 0.7)])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_an_artifact_says_what_its_network_says(kind, tta, weight, decoder):
    model = mask_model(tta=tta, tta_weight=weight, decoder=decoder)
    module, contract = exported(model, kind)
    said = MaskPredictor(model, keep=True)(noise(5))
    artifact = ArtifactPredictor(torch_runtime(module, contract, Path("model")))
    found = artifact(noise(5))
    np.testing.assert_allclose(found.calibrated, said.calibrated, atol=2e-5)
    assert (found.labels == said.labels).mean() > 0.999
    np.testing.assert_allclose(found.sure, said.sure, atol=2e-5)
    assert found.averaged == said.averaged == artifact.averages == (tta == "full")
    assert contract.as_text()["output"]["shape"] == ["batch", 3, 16, 16]


def test_an_onnx_model_says_what_its_network_says(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = mask_model(tta="light")
    module, contract = exported(model)
    path = tmp_path / "model.onnx"
    given = torch.from_numpy(prepared(noise(2).numpy(), contract))
    batch = {0: torch.export.Dim("batch", min=1)}
    torch.onnx.export(module, (given,), path, dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False)

    def labelled(contract, where):
        changed = onnx.load(path)
        onnx.helper.set_model_props(changed, {KEY: contract.model_dump_json()})
        onnx.save(changed, where)
        return where

    said, found = MaskPredictor(model)(noise(5)), load_predictor(labelled(contract, tmp_path / "right.onnx"))(noise(5))
    assert (found.labels == said.labels).mean() > 0.999
    more = contract.model_copy(update={"spec": mask_spec(classes=("background", "a", "b", "c"))})
    forged = load_predictor(labelled(more, tmp_path / "forged.onnx"))
    with pytest.raises(
        RunError, match=r"gives the shape \(5, 3, 16, 16\), not \(5, 4, 16, 16\) \(probability .* it was changed"
    ):
        forged(noise(5))


@pytest.mark.parametrize(
    "shape",
    [(5, 3), (5, 2, 16, 16), (5, 3, 8, 8), (5, 3, 16), (5, 3, 16, 16, 1), (4, 3, 16, 16), (0, 3, 16, 16)],
    ids=str,
)
def test_an_artifact_of_another_output_is_refused_in_one_line(shape):
    _, contract = exported(mask_model())
    forged = torch_runtime(lambda images: torch.full(shape, 0.3), contract, Path("forged.onnx"))
    with pytest.raises(RunError, match=r"forged\.onnx: gives the shape") as raised:
        ArtifactPredictor(forged)(noise(5))
    (problem,) = raised.value.problems
    assert "\n" not in problem


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_artifact_whose_outputs_are_not_finite_is_refused(value):
    _, contract = exported(mask_model())
    forged = torch_runtime(lambda images: torch.full((5, 3, 16, 16), value), contract, Path("forged.onnx"))
    with pytest.raises(RunError, match=r"forged\.onnx: .*not finite"):
        ArtifactPredictor(forged)(noise(5))


def test_a_network_whose_outputs_are_not_finite_is_refused():
    model = mask_model()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(RunError, match="the network's outputs are not finite"):
        MaskPredictor(model)(noise(2))


def test_a_contract_of_masks_has_no_temperature():
    contract = contract_of(mask_model(), "uint8", None, None, None)
    for forged in ({"temperature": 2.0}, {"thresholds": (0.5, 0.5, 0.5)}):
        text = contract.model_copy(update=forged).model_dump_json()
        with pytest.raises(RunError, match="a temperature or thresholds, which segmentation has not"):
            read_contract(text, "model.onnx")


def test_a_report_of_anybodys_module_is_of_whole_images():
    with pytest.raises(SettingsError, match="SplitReport is for classes or labels of images; segmentation has none"):
        vf.SplitReport(mask_spec())
