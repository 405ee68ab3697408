"""A trained network on one split: its results, or only its predictions."""

import logging
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from visionforge.engine.construction import Construction
from visionforge.engine.distributed import current_rank
from visionforge.engine.evaluate import STAGES
from visionforge.engine.other_data import other_data
from visionforge.engine.resume import outputs_of, parent_of
from visionforge.engine.stage import Stage
from visionforge.errors import RunError
from visionforge.inference.loading import Target
from visionforge.runs.config_hash import digest
from visionforge.runs.logfile import RunLog
from visionforge.runs.query import load_run
from visionforge.runs.session import ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace
from visionforge.training.classifier import ImageClassifier

log = logging.getLogger(__name__)


class Evaluating(Stage):
    """A test, a validation, or the predictions of the test split.

    Args:
        construction: The resolved configuration.
        run_log: Takes the log lines.
        interruption: Handles the signals.
        stage: `test`, `validate` or `predict`.
        target: The trained network.

    Attributes:
        images: How many images were looked at.
    """

    def __init__(
        self, construction: Construction, run_log: RunLog, interruption: Interruption, stage: str, target: Target
    ) -> None:
        super().__init__(construction, run_log, interruption)
        self.name = stage
        self._target = target
        self.images = 0

    def take_workspace(self) -> Workspace:
        """Return a folder of this evaluation in the run, or a new one for a checkpoint that lies in none."""
        config, run = self.construction.resolved, self._target.run
        if run is not None:
            current = digest(config, training=False)
            changed = "" if current == digest(self._target.config, training=False) else f"_{current}"
            return Workspace(run.within("evaluations", f"{self.name}_{self._target.checkpoint.stem}{changed}"))
        if current_rank() != 0:
            return self.workspace_of_another()
        self.active = ActiveRun.create(
            outputs_of(self.settings),
            config,
            self.construction.hash,
            stage=self.name,
            parent=parent_of(self.settings),
        )
        return self.active.workspace

    def work(self) -> None:
        """Evaluate, or predict."""
        checkpoint, run = self._target.checkpoint, self._target.run
        if self.name == "predict":
            self._predict()
            return
        epoch = self.restore(checkpoint)
        self.introduce((run.path if run is not None else checkpoint).name)
        if run is not None and current_rank() == 0 and (changed := other_data(load_run(run))) is not None:
            log.warning("%s", changed)
        if self.evaluate(STAGES[self.name], checkpoint, epoch, run):
            self.images = len(self.model.predictions.labels)

    def _predict(self) -> None:
        """Write what the network says of the test split, as `test` does, but no results."""
        if self.trainer.world_size > 1:
            raise RunError("predict: runs on one device; set trainer.devices to 1")
        self.restore(self._target.checkpoint)
        predicting = _Predicting(self.model)
        batches: Any = self.trainer.predict(predicting, datamodule=self.datamodule)
        if not batches:
            raise RunError("trainer.limit_predict_batches: leaves no image to predict; raise it")
        said = predicting.joined(batches)
        self.images = len(said.labels)
        truth = self.datamodule.dataset_for("test").labels[: self.images].cpu().numpy()
        side = self.datamodule.side_table("test")
        task = self.model.spec.kind
        task.write_predictions(self.workspace, self.model.spec, said, truth, side, files=True)


class _Predicting(pl.LightningModule):
    """A network of which a Trainer gets all that is said of a batch, not its probabilities alone.

    Args:
        model: The network.
    """

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model
        assert model.spec is not None
        self._predictor = model.spec.kind.predictor(model)
        self._answer: Any = None  # what the predictor's answers are

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Return what is said of the images of a batch, as a mapping: Lightning takes no frozen dataclass."""
        said = self._predictor(batch[0])
        self._answer = type(said)
        return dict(vars(said))

    def joined(self, batches: list[dict[str, Any]]) -> Any:
        """Return what was said of all batches, as if they were one."""
        return self._answer.joined([self._answer(**batch) for batch in batches])
