"""What a network says of images: logits, probabilities over its views, and how far out they are."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visionforge.config.schema import ModelSettings
from visionforge.data.augment import normalise
from visionforge.data.info import TaskSpec
from visionforge.data.resizing import Resizing
from visionforge.errors import SettingsError
from visionforge.models.feature_heads import FeatureHead, StoredHead
from visionforge.models.stages import Parts
from visionforge.models.volumes import channels_last
from visionforge.training.calibration import Calibration, scale
from visionforge.training.criterion import AnyCriterion, CumulativeLogits
from visionforge.training.ensemble import Ensemble, MemberInput
from visionforge.training.heads import LastLayer, last_layer_of, place_head
from visionforge.training.kept_features import KeptFeatures
from visionforge.training.outliers import Outliers, watching
from visionforge.training.pixels import as_batch
from visionforge.training.tta import named_views

Pixels = Tensor | npt.NDArray[np.uint8]


class Predicting(nn.Module):
    """A network that can be asked; whoever derives from it builds the network.

    Attributes:
        settings: The settings of the model.
        spec: Classes, channels, task and normalisation; None until they are known.
        network: From normalised images to outputs; None until it is built.
        resizing: What images go through in front of it; None where it reads them as they are.
        cumulative: Makes cumulative logits of the network's score; None where it gives logits.
        criterion: What the network is trained by, and the probabilities that belong to its outputs.
        calibration: What the validation split says about its probabilities.
        outliers: How far out images are.
        members: The settings of the networks of an ensemble; none of a single one.
        inputs: Of each of them, what it reads of the images; none where all read the same.
        heads: Of each network, what takes the place of its last layer; none where that is linear in all of them.
        arithmetic: What layers multiply in where `predict_probabilities` and `evaluated` are asked, as in a Trainer's
            bf16-mixed; None leaves it to the caller.
    """

    settings: ModelSettings
    spec: TaskSpec | None
    network: nn.Module | None
    resizing: Resizing | None
    cumulative: CumulativeLogits | None
    criterion: AnyCriterion | None
    calibration: Calibration | None
    outliers: Outliers | None
    members: tuple[ModelSettings, ...]
    inputs: tuple[MemberInput, ...]
    heads: tuple[StoredHead | None, ...]
    arithmetic: torch.dtype | None = None
    kept_features: KeptFeatures | None = None  # where somebody wants those of the split that is gone through
    _parts: Parts | None

    @property
    def ensemble(self) -> Ensemble | None:
        """The networks, if there are several; None for a single one, or before it is built."""
        return self.network if isinstance(self.network, Ensemble) else None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K); under the ordinal loss (N, K-1) cumulative ones; of masks (N, K, R, R).

        Args:
            images: (N, C, H, W), or volumes (N, C, D, H, W); uint8 images are normalised first, float images are taken
                as normalised. They have the size of the data set's images; the network may read another.

        Raises:
            RuntimeError: If the network is not built yet.
        """
        if self.network is None or self.spec is None:
            raise RuntimeError("the network is not built: load a checkpoint, or call configure_model() with a spec")
        if images.dtype == torch.uint8:
            images = normalise(images, self.spec.mean, self.spec.std)
        if self.resizing is not None:  # nobody else resizes: all that asks the network comes through here
            images = self.resizing(images)
        weights = next(self.network.parameters()).dtype  # of half or double precision where the Trainer says so
        logits: Tensor = self.network(channels_last(images.to(weights)))
        if weights.itemsize < torch.float32.itemsize:  # losses and probabilities are never computed in less
            logits = logits.float()
        return logits if self.cumulative is None else self.cumulative(logits)

    def predict_probabilities(self, images: Pixels, tta: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Return (N, K) probabilities of the images alone, and averaged over the test-time views (or None).

        Those of masks are (N, K, R, R).

        The module predicts in evaluation mode and is then as it was before.

        Args:
            images: uint8 pixels, a tensor (N, C, H, W) or (N, H, W), or a NumPy array (N, H, W) or (N, H, W, C); or
                normalised float (N, C, H, W). Of volumes (N, C, D, H, W), (N, D, H, W) and (N, D, H, W, C). Sides are
                those that the network was trained with; grey images are given the channels of the network.
            tta: Use test-time augmentation; None takes the setting.

        Raises:
            DataError: If the images are not of that form.

        Example:
            >>> import numpy as np
            >>> from visionforge import ImageClassifier
            >>> from visionforge.data.info import DomainFlags, TaskSpec
            >>> flags = DomainFlags(hflip=True, vflip=False, rotation="none", texture_is_label=False,
            ...                     colour_is_label=False)
            >>> spec = TaskSpec(dataset="mine", classes=("no", "yes"), channels=1, resolution=28,
            ...                 mean=(0.5,), std=(0.25,), flags=flags)
            >>> model = ImageClassifier(backbone={"name": "mini_cnn", "pretrained": False}, spec=spec)
            >>> model.configure_model()
            >>> alone, averaged = model.predict_probabilities(np.zeros((5, 28, 28), np.uint8))
            >>> tuple(averaged.shape)
            (5, 2)
        """
        logits, averaged, _ = self.evaluated(images, tta)
        return self._bound_criterion().probabilities(logits), averaged

    def evaluated(self, images: Pixels, tta: bool | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return logits (N, K, …) of the images, mean probabilities over the views, and how far out (N,) they are.

        The last two may be None: without views, and without a score; see `predict_probabilities` for the first.

        Args:
            images: As `predict_probabilities` takes them.
            tta: Use test-time augmentation; None takes the setting.

        Raises:
            DataError: If the images are not of that form.
        """
        batch = as_batch(images, self._bound_spec()).to(self._place())
        modes = {module: module.training for module in self.modules()}
        self.eval()
        decided = torch.autocast(batch.device.type, self.arithmetic) if self.arithmetic is not None else nullcontext()
        try:
            with decided:
                return self._scored_forward(batch, tta is not False)
        finally:
            for module, training in modes.items():
                module.training = training

    def _probabilities(self, images: Tensor, tta: bool | None) -> tuple[Tensor, Tensor | None]:
        logits, averaged = self._views_forward(images, tta is not False)
        return self._bound_criterion().probabilities(logits), averaged

    def _scored_forward(self, images: Tensor, tta: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        outliers = self.outliers
        wanted = self.kept_features is not None or (outliers is not None and outliers.of_features)
        with watching(self.last_layer if wanted else None) as kept:
            logits, averaged = self._views_forward(images, tta)
        if self.kept_features is not None and kept:
            self.kept_features.add(kept[0][: len(images)], self._rank(), self._ranks())
        if outliers is None:
            return logits, averaged, None
        features = kept[0][: len(images)] if kept else None  # of the image itself, which comes first of its views
        return logits, averaged, outliers(logits, features)

    @property
    def last_layer(self) -> LastLayer | None:
        """Return the layer of features in the network that gives the logits; None if there is none."""
        assert self.network is not None
        name = self.last_layer_name
        layer = None if name is None else self.network.get_submodule(name)
        assert layer is None or isinstance(layer, LastLayer)
        return layer

    def take_head(self, head: nn.Module) -> None:
        """Let a classifier of features, a linear layer or a `FeatureHead`, give the logits of the network.

        Raises:
            SettingsError: If the network has no such layer that it could replace.
        """
        name = self.last_layer_name
        assert self.network is not None
        if name is None:
            raise SettingsError(
                f"model.backbone.name: {self.settings.backbone.name} has no linear layer of features in front of its "
                "logits; choose another"
            )
        place_head(self.network, name, head)
        self.heads = (head.stored,) if isinstance(head, FeatureHead) else ()

    @property
    def last_layer_name(self) -> str | None:
        """Return the name of `last_layer` in the network."""
        assert self.network is not None
        if self._parts is None or self.members:  # several networks have features each
            return None
        found = last_layer_of(self.network, self._parts.head)
        return None if found is None else found[0]

    def features(self, images: Pixels) -> Tensor:
        """Return (N, D) float32 features of images: what the layer that gives the logits is given.

        The module looks in evaluation mode, at each image as it is, and is then as it was before.

        Args:
            images: As `predict_probabilities` takes them.

        Raises:
            DataError: If the images are not of that form.
            SettingsError: If there is no such layer; see `last_layer_name`.
        """
        layer = self.last_layer
        if layer is None:
            what = "are several, which have features each" if self.members else "has no linear classifier"
            raise SettingsError(f"features: the network {what}; name another network")
        batch = as_batch(images, self._bound_spec()).to(self._place())
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.no_grad(), watching(layer) as kept:
                self(batch)
        finally:
            for module, training in modes.items():
                module.training = training
        return kept[0].float()

    def calibrated(self, given: Tensor, tta: bool) -> Tensor:
        """Return probabilities (N, K) with the temperature of the validation split; unchanged if it has none.

        Args:
            given: What `predict_probabilities` returns, of the images alone or averaged over the views.
            tta: Whether they are averaged over the views.
        """
        if self.calibration is None:
            return given
        temperature = self.calibration.temperature_tta if tta else self.calibration.temperature
        return scale(given, temperature, self._bound_spec().task)

    def _views_forward(self, images: Tensor, tta: bool) -> tuple[Tensor, Tensor | None]:
        """Return the logits (N, K, …) of the images, and the mean probabilities of their views, in one pass."""
        spec, settings = self._bound_spec(), self.settings
        views = named_views(spec, settings.tta, images.shape[-1]) if tta else {}
        if len(views) < 2:
            return self(images), None
        if images.dtype == torch.uint8:
            images = normalise(images, spec.mean, spec.std)
        logits = self(torch.cat([view(images) for view in views.values()]))
        each = self._bound_criterion().probabilities(logits)
        each = each.view(len(views), -1, *each.shape[1:])
        return logits[: len(images)], spec.kind.merged(tuple(views), each, settings.tta_weight, images.shape[-1])

    def _bound_criterion(self) -> AnyCriterion:
        assert self.criterion is not None, "configure_model() makes the loss with the network"
        return self.criterion

    def _bound_spec(self) -> TaskSpec:
        assert self.spec is not None, "setup() binds the module to its data"
        return self.spec

    @contextmanager
    def members_kept(self) -> Iterator[list[Tensor]]:
        """Give the probabilities of each network of an ensemble within; of a single one, and of pixels, nothing."""
        if self.ensemble is None or not self._bound_spec().kind.calibrates:
            yield []
            return
        with self.ensemble.keeping() as kept:
            yield kept

    def _place(self) -> torch.device:
        """Return where the network is."""
        return next(self.parameters()).device

    def _rank(self) -> int:
        """Return which of the processes this is that go through a split together."""
        return 0

    def _ranks(self) -> int:
        """Return how many there are."""
        return 1
