"""A network out of a checkpoint or an exported file, to be asked: without Lightning, whose import takes seconds."""

from collections.abc import Mapping
from typing import Any

from visionforge.config.schema import ModelSettings
from visionforge.config.schema.base import fields_of
from visionforge.data.info import TaskSpec
from visionforge.training.shorthand import read_settings, read_spec
from visionforge.training.task_network import TaskNetwork

_DEFAULT = ModelSettings()


class TrainedNetwork(TaskNetwork):
    """What an `ImageClassifier` has learnt, which predicts as that does and cannot be trained.

    Args:
        spec: Classes, channels, task and normalisation.
        sections: The settings of the model, as an `ImageClassifier` takes them.

    Raises:
        SettingsError: If a value is out of its bounds.
        TypeError: If there is no such setting.
    """

    def __init__(self, spec: TaskSpec | Mapping[str, Any], sections: Mapping[str, Any]) -> None:
        super().__init__()
        if unknown := sections.keys() - ModelSettings.model_fields:
            raise TypeError(f"unexpected settings: {', '.join(sorted(unknown))}")
        settings = read_settings({**fields_of(_DEFAULT), **sections}, restoring=True)
        self._begin(settings, read_spec(spec), restoring=True)

    def _like(self, settings: ModelSettings, spec: TaskSpec) -> "TrainedNetwork":
        return TrainedNetwork(spec, fields_of(settings))

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the weights of a checkpoint that has been read already; see `ImageClassifier.restore`."""
        self._read(checkpoint)
        self.load_state_dict(checkpoint["state_dict"])
