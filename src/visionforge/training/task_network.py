"""The network that settings and a task ask for, or that weights from a file belong to."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visionforge.config.rules import part_problems
from visionforge.config.schema import Loss, ModelSettings
from visionforge.config.schema.model import AUTO
from visionforge.data.info import TaskSpec
from visionforge.data.resizing import Resizing
from visionforge.errors import SettingsError
from visionforge.models.first_weights import expected_pretrained, is_pretrained
from visionforge.models.transfer import TransferReport
from visionforge.models.volumes import to_channels_last
from visionforge.training.calibration import Calibration
from visionforge.training.compatibility import check_compatible
from visionforge.training.criterion import CumulativeLogits
from visionforge.training.ensemble import Ensemble, Front, MemberInput, read_each
from visionforge.training.heads import read_heads, restored_head
from visionforge.training.normalisation import with_constants_of
from visionforge.training.outliers import Outliers
from visionforge.training.predicting import Predicting
from visionforge.training.shorthand import read_members

log = logging.getLogger(__name__)
SETTINGS = "hyper_parameters"  # Lightning's name of a module's settings in its checkpoints


class TaskNetwork(Predicting):
    """A network that is built once its task is known.

    Attributes:
        restoring: The weights come from a file, so pretrained ones are not read.
        transfer: What became of pretrained weights; None until it is built.
        thresholds: (K,) of labels, that a validation has left.
    """

    restoring: bool
    transfer: TransferReport | None
    thresholds: Tensor | None

    def _begin(self, settings: ModelSettings, spec: TaskSpec | None, restoring: bool) -> None:
        """Take settings, and a task if it is known; nothing is built."""
        self.settings, self.spec, self.restoring = settings, spec, restoring
        self.network: nn.Module | None = None
        self.resizing: Resizing | None = None
        self.cumulative: CumulativeLogits | None = None
        self.criterion = None
        self.transfer = self.thresholds = self.calibration = self.outliers = self._parts = None
        self.members: tuple[ModelSettings, ...] = ()  # of an ensemble, which comes from a checkpoint
        self.inputs: tuple[MemberInput, ...] = ()  # of its networks, where they do not read the same
        self.heads = ()  # of networks whose classifiers were fitted to features

    def _like(self, settings: ModelSettings, spec: TaskSpec) -> "TaskNetwork":
        """Return what builds another network."""
        raise NotImplementedError

    def alone(self, member: int) -> "TaskNetwork":
        """Return one of the networks of an ensemble by itself, which shares the weights.

        Raises:
            IndexError: If there is no such network.
        """
        assert self.ensemble is not None, "there are no members"
        model = self._like(self.members[member], self._spec_of_member(member))
        model._build(pretrained=False)
        model.network = self.ensemble.members[member]
        if str(member) in self.ensemble.cumulatives:
            model.cumulative = self.ensemble.cumulatives[str(member)]  # type: ignore[assignment]
        return model.to(self._place()).train(self.training)

    def _remember(self) -> None:
        """Note settings and task where a file will have them."""

    def _read(self, checkpoint: Mapping[str, Any]) -> None:
        """Build the network that a checkpoint's weights belong to, and take what it says of its probabilities.

        Raises:
            SettingsError: If the settings ask for another network than the checkpoint holds.
        """
        stored = checkpoint.get(SETTINGS, {})
        if stored.get("spec") and self.spec is not None:
            check_compatible(stored, self.spec, self.settings)
        self.members, self.heads = read_members(stored.get("members")), read_heads(stored.get("heads"))
        self.inputs = tuple(filter(None, read_each(stored.get("inputs"), MemberInput, "inputs")))
        self.build_for(checkpoint["state_dict"])
        thresholds = checkpoint.get("thresholds") if self.spec is None or self.spec.kind.several else None
        self.thresholds = None if thresholds is None else torch.tensor(thresholds)
        calibration = checkpoint.get("calibration")
        calibrates = self.spec is None or self.spec.kind.calibrates
        self.calibration = None if calibration is None or not calibrates else Calibration.from_dict(calibration)
        outliers = checkpoint.get("outliers") if self.spec is not None and self.spec.kind.abstains else None
        self.outliers = None if outliers is None else self.read_outliers(outliers)
        transfer = checkpoint.get("weight_transfer")
        self.transfer = None if transfer is None else TransferReport(**transfer)

    def read_outliers(self, stored: Mapping[str, Any]) -> Outliers:
        """Return what a file says of images that are far out.

        Raises:
            ValueError: If it is of another network.
        """
        layer = self.last_layer
        features = None if layer is None else layer.in_features
        return Outliers.from_stored(stored, len(self._bound_spec().classes), features)

    def build_for(self, state: Mapping[str, Tensor]) -> None:
        """Build the network that weights from a file belong to, which may say of themselves whose they are.

        Raises:
            WeightsError: If they are too few to be that network's.
        """
        self._build(pretrained=False, brought=state)

    def _build(self, pretrained: bool | None, brought: Mapping[str, Tensor] | None = None) -> None:
        if self.network is not None or self.spec is None:
            return
        if self.members:
            self.resizing = None if self.inputs else Resizing.of(self.spec)  # or each network by itself
            self._build_members(brought)
            return
        if pretrained is None:
            self._settle_weights(self.spec.channels)
        spec, settings, classes = self.spec, self.settings, len(self.spec.classes)
        if problems := list(part_problems(settings, spec.kind, spec.dataset)):
            raise SettingsError(problems)
        self.criterion = spec.kind.criterion(settings.loss, classes)
        cumulative = self.criterion.cumulative
        built = spec.kind.network(settings, spec, 1 if cumulative else classes, pretrained, brought)
        self._parts, self.transfer = built.parts, built.transfer
        if brought is not None and self.heads and self.heads[0] is not None:
            restored_head(built.network, built.parts.head, self.heads[0], brought, classes)
        self.spec = with_constants_of(spec, settings.backbone, built.transfer)
        if self.spec != spec:
            self._remember()
        self.resizing = Resizing.of(self.spec)
        self.network = to_channels_last(built.network)
        if cumulative:
            self.cumulative = CumulativeLogits(classes)
        if not self.restoring:
            log.info("%s: %s parameters", settings.backbone.name, f"{sum(p.numel() for p in self.parameters()):,}")

    def _settle_weights(self, channels: int) -> None:
        """Let the settings say whether the network begins with pretrained weights, where that was left open."""
        backbone = self.settings.backbone
        if backbone.pretrained != AUTO:
            return
        brings, reason = is_pretrained(backbone, channels)
        if reason is not None:  # those that are published, but not at hand, were expected
            missed = expected_pretrained(backbone, channels)[0]
            log.log(logging.WARNING if missed else logging.INFO, "random first weights: %s", reason)
        settled = backbone.model_copy(update={"pretrained": brings})
        self.settings = self.settings.model_copy(update={"backbone": settled})
        self._remember()

    def _build_members(self, brought: Mapping[str, Tensor] | None) -> None:
        """Build an ensemble, whose networks may differ; its own outputs are logits of the task."""
        spec = self._bound_spec()
        if spec.kind.detects:
            raise SettingsError(f"networks of {spec.task} are not averaged: their boxes are not the same")
        if len(self.inputs) not in (0, len(self.members)):
            raise SettingsError(f"the checkpoint says what {len(self.inputs)} of {len(self.members)} networks read")
        built: list[tuple[nn.Module, CumulativeLogits | None]] = []
        for place, settings in enumerate(self.members):
            own = self._spec_of_member(place)
            model = self._like(settings, own)
            prefix = f"members.{place}."
            model.heads = self.heads[place : place + 1]
            part = brought and {name: value for name, value in brought.items() if prefix in name}
            model._build(pretrained=False, brought=part)
            assert model.network is not None
            built.append((model.network, model.cumulative))
        loss = self.settings.loss if built[0][1] is None else Loss(name="cross_entropy")
        self.criterion = spec.kind.criterion(loss, len(spec.classes))
        fronts = [Front(spec, each.applied(spec)) for each in self.inputs]
        self.network = Ensemble(built, spec.kind, fronts)

    def _spec_of_member(self, place: int) -> TaskSpec:
        """Return the task as one of the networks has it, which may read other pixels than the first.

        Raises:
            SettingsError: If these do not fit the images.
        """
        spec = self._bound_spec()
        return self.inputs[place].applied(spec) if self.inputs else spec
