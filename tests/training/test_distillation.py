"""Distillation: what is learnt from a teacher, that it is only asked, and what it has to be."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.training.helpers import MINI, data, fit, trainer, weights
from visionforge.config.schema import Augmentation, Averaging, Distillation, Loss, Optimizer, Synthetic
from visionforge.data.augment import normalise
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError, SettingsError
from visionforge.training.classifier import ImageClassifier
from visionforge.training.distillation import Distilling, Teacher, blended
from visionforge.training.loading import load_classifier
from visionforge.training.mixing.mixup import MixUp

LARGE = Synthetic(train=320, val=96, test=32)
FAST = Optimizer(learning_rate=0.1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A checkpoint of a network that has learnt its task well."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    module = ImageClassifier(MINI, optimizer=FAST, mixup=MixUp(alpha=0.0))
    one = fit(module, 8, data(synthetic=LARGE))
    one.save_checkpoint(path, weights_only=True)
    (found,) = one.validate(module, datamodule=data(synthetic=LARGE), verbose=False)
    assert found["val/accuracy"] > 0.9
    return path


def of(task: str, classes: int = 3) -> TaskSpec:
    return TaskSpec(classes=classes, task=task, resolution=16)


def untrained(spec: TaskSpec, **changes) -> ImageClassifier:
    torch.manual_seed(3)
    model = ImageClassifier(MINI, spec=spec, **changes)
    model.configure_model()
    return model


# --- arithmetic


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_targets_are_shares_of_labels_and_teacher(weight):
    rng = np.random.default_rng(0)
    said = rng.dirichlet([1, 1, 1], size=4)
    labels = [2, 0, 1, 1]
    expected = [
        [(1 - weight) * float(k == label) + weight * said[n, k] for k in range(3)] for n, label in enumerate(labels)
    ]
    found = blended(torch.tensor(labels), torch.from_numpy(said), weight, of("multi-class"))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    several = (rng.random((4, 3)) < 0.5).astype(np.uint8)
    found = blended(torch.from_numpy(several), torch.from_numpy(said), weight, of("multi-label"))
    np.testing.assert_allclose(found.numpy(), (1 - weight) * several + weight * said, atol=1e-12)


@pytest.mark.parametrize("task", ["multi-class", "ordinal", "multi-label"])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.5])
def test_temperature_divides_the_logits_of_the_teacher(task, temperature):
    spec = of(task)
    loss = {"loss": "ordinal"} if task == "ordinal" else {}
    model = untrained(spec, **loss).eval()
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    teacher = Teacher(model, Distillation(teacher="x", temperature=temperature), spec)
    with torch.no_grad():
        p = model.criterion.probabilities(model(images)).double()
    if task == "multi-label":
        expected = torch.sigmoid(torch.logit(p) / temperature)
    else:
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum(dim=1, keepdim=True)
    found = teacher.probabilities(images)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_teacher_sees_images_normalised_as_it_has_learnt_them():
    mine = of("multi-class").model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    theirs = of("multi-class")
    model = untrained(theirs).eval()
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    found = Teacher(model, Distillation(teacher="x"), mine).probabilities(normalise(pixels, mine.mean, mine.std))
    torch.testing.assert_close(found, model.predict_probabilities(pixels, tta=False)[0], atol=1e-5, rtol=1e-5)


def test_steps_are_those_of_a_loop_made_by_hand(taught, monkeypatch):
    """Batches as the module gets them, the teacher asked about the mixed images, cross-entropy to the blend."""
    settings = Distillation(teacher=str(taught), weight=0.7, temperature=2.0)
    module = ImageClassifier(MINI, mixup=MixUp(alpha=0.4), distillation=settings)
    teacher = load_classifier(taught).network
    seen = []
    learn = type(data().spec.kind).learn

    def watched(self, model, criterion, images, targets):
        loss, hits = learn(self, criterion=criterion, model=model, images=images, targets=targets)
        seen.append((images, targets, model(images).detach(), float(loss.detach())))
        return loss, hits

    monkeypatch.setattr(type(data().spec.kind), "learn", watched)
    fit(module, 1)
    assert len(seen) == 5
    for images, targets, logits, loss in seen:
        with torch.no_grad():
            said = torch.softmax(teacher.eval()(images) / 2.0, dim=1)
        target = 0.3 * targets + 0.7 * said
        expected = -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
        assert loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ("multi-class", Loss(label_smoothing=0.1)),
        ("multi-class", Loss(name="focal", class_weights={"0": 3.0})),
        ("binary", Loss()),
        ("ordinal", Loss(name="ordinal")),
        ("multi-label", Loss(name="bce")),
        ("multi-label", Loss(name="focal")),
    ],
)
def test_every_loss_takes_what_a_teacher_says(task, loss):
    spec = of(task, 2 if task == "binary" else 3)
    student = untrained(spec, loss=loss)
    images = torch.rand(6, 3, 16, 16)
    count = len(spec.classes)
    labels = torch.randint(0, 2, (6, count), dtype=torch.uint8) if spec.kind.several else torch.arange(6) % count
    said = torch.rand(6, count)
    said = said if spec.kind.several else said / said.sum(dim=1, keepdim=True)
    criterion = Distilling(student.criterion, said, 0.5, spec)
    value, hits = spec.kind.learn(student, criterion, images, labels)
    value.backward()
    assert torch.isfinite(value)
    assert 0 <= hits <= 1
    target = (spec.kind.targets(labels, count) + said) / 2
    torch.testing.assert_close(value, spec.kind.learn(student, student.criterion, images, target)[0])
    _, of_labels = spec.kind.learn(student, student.criterion, images, labels)
    torch.testing.assert_close(hits, of_labels)  # accuracy goes by the labels


# --- trainings


class Shuffled(pl.Callback):
    """Labels say nothing of the images."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        order = torch.Generator().manual_seed(trainer.global_step)
        batch[1].copy_(batch[1][torch.randperm(len(batch[1]), generator=order)])


@pytest.mark.slow
def test_student_learns_from_the_teacher_what_its_labels_do_not_say(taught):
    source = data(synthetic=LARGE)
    found = {}
    for name, given in (("alone", Distillation()), ("taught", Distillation(teacher=str(taught)))):
        module = ImageClassifier(MINI, optimizer=FAST, mixup=MixUp(alpha=0.0), distillation=given)
        one = fit(module, 8, source, callbacks=[Shuffled()])
        (values,) = one.validate(module, datamodule=source, verbose=False)
        found[name] = values["val/accuracy"]
    assert found["taught"] > 0.85
    assert found["alone"] < found["taught"] - 0.3


BASE = {"backbone": MINI, "optimizer": Optimizer(learning_rate=0.05), "mixup": MixUp(alpha=0.0)}


def test_every_setting_changes_the_outcome(taught):
    given = [
        {},
        {"teacher": str(taught)},
        {"teacher": str(taught), "weight": 0.5},
        {"teacher": str(taught), "temperature": 2.0},
    ]
    found = []
    for settings in given:
        module = ImageClassifier(**BASE, distillation=settings)
        fit(module, 1)
        found.append(weights(module))
    for k in range(len(found)):
        assert not any(torch.equal(found[k], other) for other in found[:k]), given[k]
    none = ImageClassifier(**BASE, distillation={"teacher": str(taught), "weight": 0.0})
    fit(none, 1)
    assert torch.equal(weights(none), found[0])


def test_teacher_is_in_no_checkpoint_and_no_optimiser(taught, tmp_path):
    plain, module = (
        ImageClassifier(**BASE, averaging=Averaging(name="ema"), distillation=given)
        for given in (Distillation(), Distillation(teacher=str(taught)))
    )
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
            teacher = module._teacher._model
            seen.append(teacher.training or any(p.requires_grad or id(p) in held for p in teacher.parameters()))
            seen.append(any(each is teacher for each in module.modules()))

    fit(plain, 1)
    before = torch.load(taught, weights_only=True)["state_dict"]
    one = fit(module, 1, callbacks=[Look()])
    assert seen
    assert not any(seen)
    one.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["state_dict"].keys() == plain.state_dict().keys()
    assert module._teacher is None
    after = torch.load(taught, weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    taught_away = load_classifier(tmp_path / "a.ckpt")  # which reads no teacher
    assert taught_away.settings.distillation.teacher == str(taught)


@pytest.mark.parametrize("step", [2, 5, 7])
@pytest.mark.parametrize("flags", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_resumed_run_is_bit_identical(taught, tmp_path, step, flags):
    def make():
        settings = Distillation(teacher=str(taught), weight=0.8, temperature=1.5)
        return ImageClassifier(MINI, mixup=MixUp(alpha=0.4), distillation=settings), data(augmentation=Augmentation())

    whole, source = make()
    step = max(1, step // flags.get("accumulate_grad_batches", 1))
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1, save_on_train_epoch_end=False
    )
    fit(whole, 2, source, callbacks=[keep], enable_checkpointing=True, **flags)
    resumed, source = make()
    pl.seed_everything(42, verbose=False)
    trainer(2, **flags).fit(
        resumed, datamodule=source, ckpt_path=str(tmp_path / f"step={step}.ckpt"), weights_only=True
    )
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_other_precisions(taught, precision):
    module = ImageClassifier(**BASE, distillation={"teacher": str(taught)})
    fit(module, 1, precision=precision)
    assert torch.isfinite(weights(module)).all()


# --- what is no teacher


def message(error: type[Exception], given: object, **changes: object) -> str:
    module = ImageClassifier(MINI, distillation=Distillation(teacher=str(given)))
    with pytest.raises(error) as caught:
        fit(module, 1, data(**changes))
    (line,) = caught.value.problems
    return line


def test_what_is_no_teacher_is_told_in_a_line(taught, tmp_path):
    assert "does not exist; name a run folder" in message(RunError, tmp_path / "none.ckpt")
    assert "no checkpoints/best.ckpt" in message(RunError, tmp_path)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert "cannot be read as a checkpoint" in message(RunError, tmp_path / "text.ckpt")
    torch.save({"state_dict": {"a": Tensor([1.0])}}, tmp_path / "other.ckpt")
    assert "not written by visionforge" in message(RunError, tmp_path / "other.ckpt")
    assert "no such anchor" in message(RunError, "https://host/a.ckpt")
    for change, told in (
        ({"resolution": 28}, "has learnt resolution 16, synthetic has resolution 28 here"),
        ({"synthetic": Synthetic(train=80, val=32, test=32, classes=7)}, "has learnt classes class 0"),
        ({"synthetic": Synthetic(train=80, val=32, test=32, channels=1), "force_rgb": False}, "has learnt channels 3"),
    ):
        assert told in message(SettingsError, taught, **change)
    masks = Synthetic(train=80, val=32, test=32, task="segmentation")
    assert "of which no probabilities are learnt" in message(SettingsError, taught, synthetic=masks, resolution=32)
