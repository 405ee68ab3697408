"""Evaluations of made-up predictions, and what a report needs beside them."""

import numpy as np
import torch

from visionforge.config.schema import EvaluationSettings, RunSettings
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.info import DomainFlags, TaskSpec
from visionforge.evaluation.evaluation import Evaluation, Partial, evaluate
from visionforge.reporting.context import ReportContext
from visionforge.training.calibration import Calibration
from visionforge.training.predictions import Predictions

FLAGS = DomainFlags(hflip=True, vflip=False, rotation="none", texture_is_label=False, colour_is_label=False)
CLASSES = ("healthy", "mild & <b>odd</b>", "severe", "=1+1")


def evaluation_of(
    task: str = "multi-class",
    count: int = 60,
    tta: bool = True,
    temperature: float | None = 1.4,
    absent: bool = False,
    perfect: bool = False,
    settings: EvaluationSettings | None = None,
    positive: int | None = None,
    partial: Partial | None = None,
    precision: torch.dtype = torch.float32,
) -> Evaluation:
    rng = np.random.default_rng(0)
    classes = CLASSES[:2] if task == "binary" else CLASSES
    if task == "multi-label":
        labels = (rng.random((count, len(classes))) < 0.4).astype(np.int64)
        logits = rng.normal(size=labels.shape) + (40 if perfect else 2) * (labels - 0.5)
        shown = [1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-0.8 * logits))]
    else:
        labels = rng.integers(0, len(classes) - absent, count)
        logits = rng.normal(size=(count, len(classes)))
        logits[np.arange(count), labels] += 40 if perfect else 1.5
        shown = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, 0.8 * logits)]
    plain, averaged = (torch.tensor(x, dtype=torch.float32).to(precision) for x in shown)
    thresholds = torch.full((len(classes),), 0.3) if task == "multi-label" else None
    predictions = Predictions(
        "test",
        plain,
        averaged if tta else None,
        torch.tensor(labels),
        0.7,
        thresholds,
        Calibration(50, temperature, temperature if tta else None, None),
    )
    spec = TaskSpec(
        dataset="any",
        task=task,
        classes=classes,
        channels=3,
        resolution=12,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        flags=FLAGS,
        positive=positive,
    )
    return evaluate(predictions, spec, "test", settings or EvaluationSettings(resamples=60), partial)


def images_of(evaluation: Evaluation) -> ArrayDataset:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (len(evaluation.labels), 12, 12, 3), dtype=np.uint8)
    return ArrayDataset(SplitArrays(pixels, evaluation.labels), None, in_memory=True)


def background_of(**more) -> ReportContext:
    defaults = RunSettings().model_dump(mode="json", exclude={"tune"})
    config = {**defaults, "seed_everything": 7, "data": {**defaults["data"], "dataset": "retinamnist"}}
    epochs = [
        {"epoch": float(k), "train/loss": 2.0 - k / 10, "val/loss": 2.1 - k / 12, "val/auc": 0.5 + k / 20}
        for k in range(4)
    ]
    facts = {"": "Any", "backbone": "mini_cnn"}
    return ReportContext(title="a <run>", facts=facts, config=config, defaults=defaults, epochs=epochs, **more)
