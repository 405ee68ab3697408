"""Epochs are compared by something that is defined on the validation split; an undefined value is never the best."""

import numpy as np
import pytest
import torch

from visionforge.data.info import TaskSpec
from visionforge.training.checkpoints import BestCheckpoint
from visionforge.training.monitor import AUC, LOSS, Monitor, monitor_for

NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 1, 1], None),
        ([1, 1], "all of its images are of the class b"),
        ([], "it has no images"),
        ([[0, 1], [1, 1]], None),
        ([[0, 1], [0, 1]], "no label is there in some of its images and absent from others"),
    ],
)
def test_the_auc_where_it_is_defined_and_the_loss_elsewhere(labels, reason):
    given = np.array(labels, dtype=np.int64)
    spec = TaskSpec(classes=("a", "b"), task="multi-label" if given.ndim == 2 else "binary")
    assert monitor_for(given, spec) == (AUC if reason is None else LOSS, reason)


def test_undefined_is_worse_than_every_number():
    for monitor in (Monitor("x", True), Monitor("x", False)):
        assert monitor.better(0.1, NAN)
        assert not monitor.better(NAN, 0.1)
        assert not monitor.better(NAN, NAN)
    assert AUC.better(0.2, 0.1)
    assert LOSS.better(0.1, 0.2)


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("max", [NAN, NAN, NAN], 2),  # of undefined ones the latest
        ("max", [NAN, 0.1, NAN, 0.1, NAN], 3),
        ("min", [NAN, 0.3, 0.4, NAN], 1),
        ("min", [0.3, NAN, 0.3], 2),  # of equal ones the later
    ],
)
def test_the_best_checkpoint_is_of_a_defined_value(tmp_path, mode, values, kept):
    class Trainer:
        """As much of one as saving a checkpoint needs."""

        world_size, current_epoch, global_step = 1, 0, 0

        class strategy:  # noqa: N801
            reduce_boolean_decision = staticmethod(lambda decision, all=True: decision)
            broadcast = staticmethod(lambda value: value)

    best = BestCheckpoint(tmp_path, filename="best", monitor="x", mode=mode, enable_version_counter=False)
    saved = []
    for epoch, value in enumerate(values):
        current = torch.tensor(value)
        if best.check_monitor_top_k(Trainer, current):
            saved.append(epoch)
            infinite = torch.tensor(float("inf" if mode == "min" else "-inf"))
            best.best_model_score = infinite if current.isnan() else current  # as Lightning keeps it
            best.best_k_models = {"best": best.best_model_score}
            best.kth_best_model_path = "best"
    assert saved[-1] == kept
