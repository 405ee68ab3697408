"""What of `ImageClassifier` predicts in a Trainer, one of whose processes it may be in."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from visionforge.errors import DataError
from visionforge.training.labelled import labelled_batch
from visionforge.training.task_network import TaskNetwork


class PredictingModule(TaskNetwork, pl.LightningModule):
    """A network that a Trainer can ask."""

    _label_problem: str | None

    def _labelled(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return images and labels of a batch.

        Raises:
            DataError: If they are not those of the task.
        """
        images, labels = labelled_batch(batch, self._bound_spec())
        if self._label_problem is not None:
            raise DataError(self._label_problem)
        return images, labels

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return (N, K) probabilities, averaged over the test-time views if they are on."""
        images = batch[0] if isinstance(batch, (list, tuple)) else batch
        plain, averaged = self._probabilities(images, None)
        return plain if averaged is None else averaged

    def _rank(self) -> int:
        return 0 if self._trainer is None else self.trainer.global_rank

    def _ranks(self) -> int:
        return 1 if self._trainer is None else self.trainer.world_size
