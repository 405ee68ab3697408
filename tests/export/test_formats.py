"""Every format gives the probabilities of the network, for every kind of task; tampered files are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import EXHAUSTIVE, REPOSITORY
from tests.evaluation.test_explain import model_of, pictures
from visionforge.data.info import DomainFlags
from visionforge.errors import RunError
from visionforge.exporting.formats import FILES, load_program, quantise, write_onnx, write_program, write_weights
from visionforge.inference.artifacts import ArtifactPredictor, load_artifact, load_onnx, load_weights
from visionforge.inference.contract import KEY, contract_of, read_contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.predictor import NetworkPredictor
from visionforge.models.registry import backbone_names
from visionforge.training.calibration import Calibration
from visionforge.training.conformal import ConformalSets
from visionforge.training.outliers import fit_outliers, watching

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TASKS = {
    "binary": {"classes": 2, "task": "binary"},
    "multi-label": {"classes": 4, "task": "multi-label"},
    "ordinal": {"classes": 4, "task": "ordinal", "loss": {"name": "ordinal"}},
    "grades as classes": {"classes": 4, "task": "ordinal"},
}


def export(model, folder, kind="uint8", formats=("onnx", "torch", "safetensors"), opset=18):
    """Write a model in several formats; return the loaded artifacts by format."""
    contract = contract_of(model, kind, "a run", "abc123", "best.ckpt")
    module = ExportedClassifier(model, contract)
    found = {}
    for name in formats:
        path = folder / FILES[name]
        if name == "onnx":
            write_onnx(module, contract, path, opset)
            found[name] = load_onnx(path)
        elif name == "torch":
            write_program(module, contract, path)
            found[name] = load_program(path)
        else:
            write_weights(module, contract, path)
            found[name] = load_weights(path)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a model of whole bytes in two formats; do not change it."""
    folder = tmp_path_factory.mktemp("exported")
    export(model_of("mini_cnn"), folder, formats=("onnx", "safetensors"))
    return folder


def wanted_of(model, images):
    return NetworkPredictor(model)(images).calibrated


def assert_same(model, runtime, resolution=28, channels=3):
    for count in (1, 3, 7):
        images = pictures(count, resolution)[:, :channels]
        np.testing.assert_allclose(runtime.run(images.numpy()), wanted_of(model, images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "temperature"), [*((task, 1.7) for task in TASKS), ("binary", None)])
def test_every_task_in_every_format(tmp_path, task, temperature):
    model = model_of("mini_cnn", **TASKS[task])
    model.calibration = Calibration(10, temperature, temperature)
    for runtime in export(model, tmp_path).values():
        assert_same(model, runtime)
        assert runtime.contract.temperature == temperature
        assert runtime.contract.spec == model.spec
    if temperature:
        model.calibration = None
        images = pictures(3)
        assert np.abs(runtime.run(images.numpy()) - wanted_of(model, images)).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_views_are_inside_with_the_temperature_and_thresholds_that_belong_to_them(tmp_path, task):
    """What `predict` gives, also where the probabilities of labels are as near to 0 and 1 as float32 goes."""
    flags = {"hflip": True, "vflip": True, "rotation": "any", "texture_is_label": False, "colour_is_label": False}
    model = model_of("mini_cnn", tta="full", tta_weight=0.3, **TASKS[task])
    model.spec = model.spec.model_copy(update={"flags": DomainFlags(**flags)})
    if task == "multi-label":
        layer = [each for each in model.modules() if isinstance(each, torch.nn.Linear)][-1]
        layer.bias.data = torch.tensor([-30.0, 30.0, 0.1, -0.1])
        model.thresholds = torch.full((4,), 0.5)
    model.calibration = Calibration(10, 1.7, 0.6, (0.2, 0.3, 0.52, 0.48) if task == "multi-label" else None)
    images = pictures(7)
    said = NetworkPredictor(model)(images)
    assert np.abs(said.calibrated - NetworkPredictor(model, False)(images).calibrated).max() > 1e-4
    formats = ("onnx", "torch", "safetensors") if task == "multi-label" else ("onnx", "safetensors")
    for runtime in export(model, tmp_path, formats=formats).values():
        assert_same(model, runtime)
        assert len(runtime.contract.views) == 10
        assert runtime.contract.temperature == 0.6
        theirs = ArtifactPredictor(runtime)(images)
        assert (theirs.labels == said.labels).all()


def knowing(model, method, sets=("aps", (0.6,)), count=60):
    """Give a model sets of classes and a score of images that are far out, fitted on made-up images."""
    images = pictures(count, model.spec.resolution)[:, : model.spec.channels]
    model.calibration = Calibration(10, 1.3, 0.8, None, *(ConformalSets(sets[0], 0.9, 50, sets[1]),) * 2, "any", None)
    labels = torch.arange(count) % len(model.spec.classes)
    with torch.no_grad(), watching(model.network.get_submodule(model.last_layer_name)) as features:
        model(images)
    model.outliers = fit_outliers(method, torch.cat(features), labels).fitted(torch.arange(20.0))
    return model


@pytest.mark.parametrize(
    ("sets", "tta", "method"),  # each kind of sets and of views with a score of logits and with one of features
    [
        (("raps", (0.6,)), "full", "energy"),
        (("raps", (0.6,)), "full", "knn"),
        (("class", (0.7, 0.8, None, 0.72)), "off", "max_logit"),
        (("class", (0.7, 0.8, None, 0.72)), "off", "mahalanobis"),
    ],
)
def test_sets_and_distance_are_inside(tmp_path, method, sets, tta):
    model = knowing(model_of("mini_cnn", classes=4, tta=tta), method, sets)
    images = pictures(9)
    said = NetworkPredictor(model)(images)
    assert set(said.columns) == {"set", "abstain", "ood_score", "unlike_training"}
    np.testing.assert_array_equal(said.columns["unlike_training"], said.columns["ood_score"] > 18)
    assert 0 < said.columns["set"].mean() < 1
    for runtime in export(model, tmp_path).values():
        theirs = ArtifactPredictor(runtime)(images)
        for name in ("set", "abstain", "unlike_training"):
            np.testing.assert_array_equal(theirs.columns[name], said.columns[name])
        np.testing.assert_allclose(theirs.columns["ood_score"], said.columns["ood_score"], rtol=1e-4, atol=1e-4)
        assert_same(model, runtime)
        assert runtime.contract.output_names == ("probabilities", "set", "ood_score")
        assert runtime.contract.as_text()["further_outputs"][1]["threshold"] == 18


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
def test_features_of_common_backbones_are_inside(tmp_path, backbone):
    resolution = 32 if backbone == "vit_tiny" else 28
    model = knowing(model_of(backbone, classes=3, resolution=resolution), "knn", count=12)
    images = pictures(3, resolution)
    (runtime,) = export(model, tmp_path, formats=("safetensors",)).values()
    theirs, said = ArtifactPredictor(runtime)(images), NetworkPredictor(model)(images)
    np.testing.assert_allclose(theirs.columns["ood_score"], said.columns["ood_score"], atol=1e-3)
    np.testing.assert_allclose(theirs.calibrated, said.calibrated, atol=1e-5)


def test_contracts_of_earlier_versions_have_no_views(tmp_path):
    contract = json.loads(contract_of(model_of("mini_cnn"), "uint8", None, None, None).model_dump_json())
    del contract["views"]
    assert read_contract(json.dumps(contract), "x").views == ("identity",)


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"temperature": -1}, {"thresholds": [0.5]}, {"thresholds": [0.5, 2, 0.5]}]
)
def test_contracts_of_strangers_are_consistent(change):
    contract = json.loads(contract_of(model_of("mini_cnn"), "uint8", None, None, None).model_dump_json())
    with pytest.raises(RunError, match="its metadata cannot be read"):
        read_contract(json.dumps({**contract, **change}), "x")


@pytest.mark.parametrize("views", [[], ["hflip"], ["identity", "identity"], ["identity", "__import__"]])
def test_views_of_strangers_are_known_ones(tmp_path, views):
    contract = contract_of(model_of("mini_cnn"), "uint8", None, None, None).model_copy(update={"views": tuple(views)})
    with pytest.raises(RunError, match="the artifact's views are"):
        ExportedClassifier(model_of("mini_cnn"), contract)


@pytest.mark.slow
def test_weights_of_a_training_in_bf16_are_float32_in_the_artifact(tmp_path):
    model = model_of("mini_cnn").to(torch.bfloat16)
    whole = model_of("mini_cnn")
    whole.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    for runtime in export(model, tmp_path).values():
        assert_same(whole, runtime)


def test_an_onnx_model_does_not_say_where_it_was_made(exported):
    content = (exported / "model.onnx").read_bytes()
    assert b".py" not in content
    for folder in (REPOSITORY, Path(torch.__file__).parent):
        assert str(folder).encode() not in content


def test_input_kinds(exported, tmp_path):
    model = model_of("mini_cnn")
    for name, runtime in export(model, tmp_path, "float32").items():
        assert_same(model, runtime)
        assert runtime.contract.input == "float32", name
    assert load_onnx(exported / "model.onnx").contract.input == "uint8"
    for folder, kind in ((exported, onnx.TensorProto.UINT8), (tmp_path, onnx.TensorProto.FLOAT)):
        assert onnx.load(folder / "model.onnx").graph.input[0].type.tensor_type.elem_type == kind


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("vit_tiny", marks=EXHAUSTIVE)])
def test_common_backbones(tmp_path, backbone):
    model = model_of(backbone, tta="light")
    for runtime in export(model, tmp_path).values():
        assert_same(model, runtime)


@pytest.mark.parametrize(
    ("size", "mode"),
    [(48, "bicubic"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((16, "bilinear"), (40, "pad")))],
)
def test_images_are_resized_inside(tmp_path, size, mode):
    model = model_of("mini_cnn", tta="light", resize={"size": size, "mode": mode})
    for name, runtime in export(model, tmp_path).items():
        assert_same(model, runtime)
        assert runtime.contract.shape == ("batch", 3, 28, 28), name


@pytest.mark.slow
@EXHAUSTIVE
@pytest.mark.parametrize("resolution", [28, 224])
@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone(tmp_path, backbone, resolution):
    model = model_of(backbone, resolution=resolution)
    images = pictures(3, resolution)
    wanted = wanted_of(model, images)
    for name, runtime in export(model, tmp_path, formats=("onnx", "torch")).items():
        assert np.abs(runtime.run(images.numpy()) - wanted).max() < 1e-4, name
        assert runtime.run(images[:1].numpy()).shape == (1, 3)


@pytest.mark.parametrize("opset", [18, 20])
def test_opset_is_the_one_that_was_asked_for(tmp_path, opset):
    export(model_of("mini_cnn"), tmp_path, formats=("onnx",), opset=opset)
    versions = {item.domain: item.version for item in onnx.load(tmp_path / "model.onnx").opset_import}
    assert versions[""] == opset


def test_metadata_says_what_is_inside(exported):
    model = model_of("mini_cnn")
    written = onnx.load(exported / "model.onnx")
    properties = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(properties["classes"]) == list(model.spec.classes)
    contract = json.loads(properties[KEY])
    assert contract["spec"]["mean"] == list(model.spec.mean)
    assert contract["run"] == "a run"
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.slow
def test_the_model_itself_is_not_changed(tmp_path):
    model = model_of("mini_cnn").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, tmp_path)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_int8_is_smaller_and_close(tmp_path):
    model = model_of("resnet18", tta="light")
    export(model, tmp_path, formats=("onnx",))
    contract = contract_of(model, "uint8", None, None, None)
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    quantise(source, target, contract, [pictures(32).numpy()])
    assert target.stat().st_size < source.stat().st_size / 3
    runtime = load_onnx(target)
    assert runtime.contract == contract
    images = pictures(16)
    assert np.abs(runtime.run(images.numpy()) - wanted_of(model, images)).mean() < 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "int8.onnx"}


# --- files of strangers


@pytest.fixture
def artifact(exported, tmp_path):
    """A folder of a test's own with the exported model, which it may damage."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    return tmp_path


def changed_onnx(folder, change):
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_onnx_without_metadata(artifact):
    path = changed_onnx(artifact, lambda model: model.ClearField("metadata_props"))
    with pytest.raises(RunError, match="was not exported by visionforge"):
        load_artifact(path)


def test_onnx_whose_metadata_lies(artifact):
    def change(model):
        (entry,) = [entry for entry in model.metadata_props if entry.key == KEY]
        contract = json.loads(entry.value)
        contract["spec"]["resolution"] = 64
        entry.value = json.dumps(contract)

    with pytest.raises(RunError, match="was changed after the export"):
        load_artifact(changed_onnx(artifact, change))


def test_onnx_with_another_number_of_classes(artifact):
    def change(model):
        (entry,) = [entry for entry in model.metadata_props if entry.key == KEY]
        contract = json.loads(entry.value)
        contract["spec"]["classes"] = ["a", "b"]
        entry.value = json.dumps(contract)

    runtime = load_artifact(changed_onnx(artifact, change))
    with pytest.raises(RunError, match="calibrated probability of each class"):
        runtime.run(pictures(2).numpy())


def test_onnx_with_an_unknown_operator(artifact):
    def change(model):
        model.graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(RunError, match="cannot be loaded by ONNX Runtime"):
        load_artifact(changed_onnx(artifact, change))


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_truncated_and_foreign_files(artifact, name):
    whole = (artifact / name).read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        (artifact / name).write_bytes(data)
        with pytest.raises(RunError, match=name):
            load_artifact(artifact / name)


def test_weights_of_another_network(artifact):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(artifact / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file({"x": torch.zeros(3)}, artifact / "other.safetensors", metadata=metadata)
    with pytest.raises(RunError, match="not those of mini_cnn"):
        load_artifact(artifact / "other.safetensors")


def test_formats_that_may_carry_code_are_not_loaded(artifact):
    shutil.copy(artifact / "model.onnx", artifact / "model.pt2")
    with pytest.raises(RunError, match="can run code"):
        load_artifact(artifact / "model.pt2")
    with pytest.raises(RunError, match="does not exist"):
        load_artifact(artifact / "none.onnx")
