"""A task is known by its name alone: nobody outside its file compares it, and another package's takes its place."""

import ast
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from scipy.special import softmax
from scipy.stats import entropy

import visionforge as vf
from tests.conftest import REPOSITORY
from visionforge.config.schema import TaskName
from visionforge.config.schema import tasks as registry
from visionforge.config.schema.metrics import metrics_of
from visionforge.config.schema.tasks import fits, fitting, register_task, task_named, task_names, tasks, usual_task
from visionforge.data.info import TaskSpec
from visionforge.errors import DataError, SettingsError
from visionforge.evaluation.comparison import positive_of
from visionforge.evaluation.explain import explain
from visionforge.evaluation.metrics import medmnist_metrics
from visionforge.inference.artifacts import ArtifactPredictor, torch_runtime
from visionforge.inference.contract import contract_of
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.predictor import NetworkPredictor
from visionforge.tasks.binary import Binary
from visionforge.tasks.multi_class import MultiClass
from visionforge.tasks.multi_label import MultiLabel
from visionforge.training.calibration import Calibration

SOURCE = REPOSITORY / "src" / "visionforge"
LOSSES = {  # where "ordinal" is the name of a loss, as it is in configurations
    "losses.py",
    "training/losses/ordinal.py",
}
TASKS = ("binary", "multi-class", "multi-label", "ordinal")  # of whole images
ALL = (*TASKS, "segmentation", "detection")


class Holder(BaseModel):
    task: TaskName


def texts(path):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)]


def test_nobody_else_compares_the_name_of_a_task():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith("tasks/"):
            continue
        for node in texts(path):
            value = node.value
            named = value in ALL or (isinstance(value, str) and ("multi-label" in value or "multi-class" in value))
            if named and not (place in LOSSES and value == "ordinal"):
                found.append(f"{place}:{node.lineno}: {value!r}"[:120])
    assert not found


def test_they_are_listed_in_their_order():
    assert tuple(tasks()) == task_names() == ALL


@pytest.mark.parametrize(
    ("several", "classes", "name"),
    [(False, 2, "binary"), (False, 3, "multi-class"), (True, 2, "multi-label"), (True, 9, "multi-label")],
)
def test_what_labels_are_follows_from_their_form(several, classes, name):
    assert usual_task(several, classes) == name


def test_an_unknown_name_is_told_with_what_is_allowed():
    allowed = ", ".join(ALL)
    with pytest.raises(ValueError, match=f"task: 'ordnial' is not allowed; allowed: {allowed}"):
        task_named("ordnial")
    with pytest.raises(ValidationError, match="Input should be 'binary' or"):
        Holder(task="ordnial")
    with pytest.raises(ValidationError, match="Input should be"):
        TaskSpec(classes=3, task="ordnial")


def test_metrics_and_losses_fit_by_form_and_by_name():
    assert fitting(None) == fitting(("classes", "labels")) == TASKS
    assert fitting(("grades",)) == fitting(("ordinal",)) == ("ordinal",)
    assert fits(("multi-label",), "multi-label")
    assert not fits(("labels",), "ordinal")
    with pytest.raises(ValueError, match=r"metric m: tasks: \('dots',\) is not allowed; allowed: some of binary, "):
        vf.Metric(name="m", label="m", compute=max, tasks=("dots",))


# --- registration


class Screening(Binary):
    name = "screening"

    def decide(self, probabilities, thresholds=None):
        return (probabilities[:, 1] >= 0.2) * 1


def test_a_registered_task_gets_what_fits_its_form():
    register_task(Screening)
    register_task(Screening)  # the same again, as when a notebook cell is run twice
    assert Holder(task="screening").task == "screening"
    assert [metric.name for metric in metrics_of("screening")] == [metric.name for metric in metrics_of("binary")]
    spec = TaskSpec(classes=("no", "yes"), task="screening")
    assert type(spec.kind) is Screening
    found = vf.metrics.classification_metrics([[0.7, 0.3], [0.9, 0.1]], [1, 0], "screening")
    assert found["accuracy"] == found["sensitivity"] == 1.0
    assert vf.metrics.classification_metrics([[0.7, 0.3], [0.9, 0.1]], [1, 0], "binary")["sensitivity"] == 0.0


def test_a_name_is_not_taken_twice():
    class Again(MultiClass):
        name = "screening"

    register_task(Screening)
    with pytest.raises(ValueError, match="a task named 'screening' is registered already, by tests"):
        register_task(Again)
    register_task(Again, replace=True)
    assert type(task_named("screening")) is Again


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "ordinal"}, "'ordinal' is registered already: it is built in"),
        ({"name": "Mine"}, "its name is not allowed; allowed: small letters, digits and -"),
        ({"name": ""}, "its name is not allowed"),
        ({"name": 5}, "its name is not allowed"),
        ({"name": "labels"}, "its name is not allowed"),
        ({"name": "mine", "forms": ()}, "Mine: give it forms, a tuple with one of classes, labels, masks, boxes"),
        ({"name": "mine", "forms": "classes"}, "Mine: give it forms, a tuple"),
        ({"name": "mine", "forms": ("labels",)}, "Mine: several is False; it is true of labels"),
        ({"name": "mine", "default_loss": "auto"}, "Mine: give it a default_loss"),
        ({"name": "mine", "class_count": 1}, "Mine: class_count: 1 is not allowed"),
        ({"name": "mine", "has_positive": True}, "Mine: has_positive needs a class_count of 2"),
        ({"name": "mine", "thresholds": print}, "Mine: thresholds are of labels"),
    ],
)
def test_what_cannot_be_registered(fields, message):
    with pytest.raises(ValueError, match=message):
        register_task(type("Mine", (MultiClass,), fields))


def test_a_task_that_does_not_do_what_is_asked_is_refused_with_what_is_missing():
    fields = {"name": "mine", "forms": ("classes",), "default_loss": "cross_entropy", "decide": print}
    with pytest.raises(
        ValueError, match=r"Mine: a task has to define agreement, answer, batch_labels, .*; ClassTask, MultiLabel and"
    ):
        register_task(type("Mine", (vf.Task,), fields))


def test_a_usual_loss_that_there_is_not_is_one_line():
    register_task(type("Mine", (MultiClass,), {"name": "mine", "default_loss": "nope", "is_usual": lambda *a: False}))
    with pytest.raises(SettingsError, match=r"the task mine asks for the loss nope, which is not registered"):
        vf.ImageClassifier("mini_cnn", spec=TaskSpec(classes=3, task="mine")).configure_model()


def test_a_task_of_ones_own_does_not_change_the_functions():
    given = ([[0.7, 0.3], [0.4, 0.6]], [0, 1])
    before = vf.metrics.classification_metrics(*given), vf.losses.cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    register_task(type("First", (Screening,), {"name": "first", "position": 0, "is_usual": lambda *a: True}))
    assert usual_task(False, 2) == "first"
    after = vf.metrics.classification_metrics(*given), vf.losses.cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    assert after == before


def test_accuracy_as_medmnist_has_it_does_not_follow_a_decision_of_ones_own():
    class Early(MultiLabel):
        name = "early"

        def is_usual(self, several, classes):
            return False

        def decide(self, probabilities, thresholds=None):
            return probabilities > 0.3

    register_task(Early)
    given, labels = np.array([[0.4, 0.6], [0.2, 0.9]]), np.array([[0, 1], [0, 1]])
    assert medmnist_metrics(given, labels, "early")["accuracy"] == 1.0
    assert vf.metrics.classification_metrics(given, labels, "early")["accuracy"] == 0.75


def test_only_tasks_are_registered():
    with pytest.raises(TypeError, match=r"int: a task is a subclass of visionforge\.Task"):
        register_task(int)
    with pytest.raises(TypeError, match="a task is a subclass"):
        register_task(vf.Task)


def test_a_package_offers_one_by_an_entry_point(monkeypatch):
    point = EntryPoint("screening", "tests.tasks.test_tasks:Screening", registry.ENTRY_POINTS)
    broken = EntryPoint("odd", "tests.tasks.test_tasks:SOURCE", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_points", lambda: {"screening": point, "odd": broken})
    assert task_names() == (*ALL, "screening", "odd")
    assert type(task_named("screening")) is Screening
    message = r"task: odd: .* cannot be loaded \(TypeError: it is no subclass"
    with pytest.raises(SettingsError, match=message):
        task_named("odd")
    with pytest.raises(ValidationError, match=message):
        Holder(task="odd")
    assert positive_of({"task": "odd"}) is None


def test_the_group_of_entry_points_is_documented():
    assert registry.ENTRY_POINTS in (REPOSITORY / "docs" / "howto" / "own-parts.md").read_text(encoding="utf-8")


# --- every task, against references


def drawn(name, images=40, classes=4, seed=0):
    """Labels and probabilities of a task."""
    task, generator = task_named(name), np.random.default_rng(seed)
    classes = task.class_count or classes
    labels = task.rendered(generator, images, classes)
    logits = torch.from_numpy(generator.normal(size=(images, classes)))
    return task, labels, task.probabilities(logits).numpy()


@pytest.mark.parametrize("name", TASKS)
def test_labels_have_the_form_that_archives_and_batches_have(name):
    task, labels, _ = drawn(name)
    classes = tuple(f"c{k}" for k in range(task.class_count or 4))
    assert labels.shape in task.label_shapes(len(labels), len(classes))
    assert 0 <= labels.min() <= labels.max() <= task.highest_label(len(classes))
    np.testing.assert_array_equal(task.stored(labels, len(labels)), labels)
    given = torch.from_numpy(labels)
    assert task.value_problem(given, classes) is None
    np.testing.assert_array_equal(task.batch_labels(given, len(labels), classes).numpy(), labels)
    np.testing.assert_array_equal(task.targets(given, len(classes)).numpy(), task.indicators(labels, len(classes)))


@pytest.mark.parametrize("name", TASKS)
def test_names_of_labels_are_read_back(name):
    task, labels, _ = drawn(name)
    names = [task.cell_name(f"a|{k}") for k in range(task.class_count or 4)]
    texts = [task.label_text(label, names) for label in labels]
    np.testing.assert_array_equal(task.labels_of(texts, names), labels)
    rows = task.indicators(labels, len(names))
    every = [[name for name, there in zip(names, row, strict=True) if there] for row in rows]
    np.testing.assert_array_equal(task.encoded(every, names), labels)
    with pytest.raises(KeyError):
        task.labels_of(["neither"], names)


WRONG = {  # what is given to a batch of two images and three classes → a part of the line
    "float": (torch.tensor([0.5, 1.0]), "of torch.float32; allowed for {name} data: integers (N,) or (N, 1)"),
    "shape": (torch.tensor([[0, 1], [1, 0]]), "(2, 2)"),
    "outside": (torch.tensor([0, 3]), "3 is no class; allowed: 0 to 2"),
    "negative": (torch.tensor([-1, 0]), "-1 is no class; allowed: 0 to 2"),
}


@pytest.mark.parametrize("name", [name for name in TASKS if name != "multi-label"])
@pytest.mark.parametrize("kind", WRONG)
def test_bad_labels_of_classes_are_one_line(name, kind):
    labels, message = WRONG[kind]
    task, classes = task_named(name), ("a", "b", "c")
    try:
        found = task.value_problem(task.batch_labels(labels, 2, classes), classes)
    except DataError as error:
        (found,) = error.problems
    assert message.format(name=name) in found


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1]), "(2,); allowed for multi-label data: (2, 3), a column for each of a, b, c"),
        (torch.tensor([[0, 1, 2], [0, 0, 0]]), "2 is not allowed; allowed for multi-label data: 0 or 1"),
        (torch.tensor([[0.0, 1.0, float("nan")]] * 2), "nan is not allowed"),
    ],
)
def test_bad_labels_that_do_not_exclude_each_other_are_one_line(labels, message):
    task, classes = task_named("multi-label"), ("a", "b", "c")
    try:
        task.batch_labels(labels, 2, classes)
        found = task.value_problem(labels, classes)
    except DataError as error:
        (found,) = error.problems
    assert message in found


@pytest.mark.parametrize("name", TASKS)
def test_logits_and_probabilities_are_inverse(name):
    task, _, given = drawn(name)
    again = task.probabilities(task.logits(torch.from_numpy(given))).numpy()
    np.testing.assert_allclose(again, given, rtol=1e-12)
    ends = task.logits(torch.tensor([[0.0, 1.0]]))
    assert bool(torch.isfinite(ends).all())


@pytest.mark.parametrize("name", TASKS)
def test_a_decision_is_the_same_of_arrays_and_tensors_and_a_hit_is_an_equal_one(name):
    task, labels, given = drawn(name)
    said = np.asarray(task.decide(given), dtype=np.int64)
    np.testing.assert_array_equal(task.decide(torch.from_numpy(given)).numpy().astype(np.int64), said)
    share = float(task.hits(torch.from_numpy(given), torch.from_numpy(labels)))
    assert share == pytest.approx((said == labels).mean(), abs=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_entropy_is_that_of_scipy(name):
    task, _, given = drawn(name)
    if task.several:
        expected = np.stack([entropy(np.stack([given, 1 - given]), base=2, axis=0)]).mean(axis=(0, 2))
    else:
        expected = entropy(given, axis=1) / np.log(given.shape[1])
    np.testing.assert_allclose(task.entropy(given), expected, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "multi-label"])
def test_probabilities_of_classes_are_a_softmax(name):
    logits = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(task_named(name).probabilities(torch.from_numpy(logits)), softmax(logits, axis=1))


# --- a decision of one's own, where the most probable class is not what is said


IMAGES = torch.arange(64).mul(4).view(64, 1, 1, 1).expand(64, 1, 28, 28).to(torch.uint8)


@pytest.fixture(scope="module")
def surer():
    """A network of the screening task whose probabilities a calibration draws to one half."""
    torch.manual_seed(0)
    saved = registry._TASKS
    registry._TASKS = dict(registry.tasks())
    register_task(Screening)
    spec = TaskSpec(classes=("no", "yes"), task="screening", channels=1)
    model = vf.ImageClassifier({"name": "mini_cnn", "pretrained": False}, spec=spec, tta=False)
    model.configure_model()
    last = model.eval().network.get_submodule("head")[-1]
    with torch.no_grad():
        last.weight *= 20
        logits = model(IMAGES)
        last.bias[0] += (logits[:, 1] - logits[:, 0]).median() + np.log(4)  # half of them are above 0.2
    model.calibration = Calibration(10, 4.0)
    yield model.eval()
    registry._TASKS = saved


def test_an_artifact_decides_as_its_network_whatever_the_temperature(surer):
    register_task(Screening)
    contract = contract_of(surer, "uint8", None, None, None)
    runtime = torch_runtime(ExportedClassifier(surer, contract), contract, Path("model"))
    ours, theirs = NetworkPredictor(surer)(IMAGES), ArtifactPredictor(runtime)(IMAGES)
    assert 0 < ours.labels.mean() < 1
    assert (ours.labels != (ours.calibrated[:, 1] >= 0.2)).any(), "the temperature would change the decision"
    np.testing.assert_array_equal(theirs.labels, ours.labels)


def test_what_is_predicted_is_what_is_explained(surer):
    register_task(Screening)
    said = NetworkPredictor(surer)(IMAGES)
    assert (said.labels != said.raw.argmax(axis=1)).any()
    torch.testing.assert_close(explain(surer, IMAGES), explain(surer, IMAGES, torch.from_numpy(said.labels)))
