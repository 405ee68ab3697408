"""The LightningModule: a backbone that learns a task, and whose checkpoint holds all that predicting needs."""

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from visionforge.config.schema import EvaluationSettings, ModelSettings, Optimizer, TtaMode, WarmStart
from visionforge.config.schema.base import fields_of
from visionforge.config.schema.metrics import watched_problem
from visionforge.config.seeding import Seeded, derive_seed
from visionforge.data.augment import normalise
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import TaskSpec
from visionforge.distribution import written_by
from visionforge.errors import SettingsError
from visionforge.redaction import redact_settings
from visionforge.training.averaged_weights import state_of_average
from visionforge.training.compatibility import differences, resize_differences
from visionforge.training.compiled import CompiledNetwork
from visionforge.training.criterion import class_weights
from visionforge.training.cuda_graphs import GraphedNetwork, require_graphs
from visionforge.training.determinism import seed_generators
from visionforge.training.distillation import Distilling, Teacher
from visionforge.training.drawn_dropout import DrawnDropout
from visionforge.training.epoch_sums import EpochSums
from visionforge.training.evaluating_module import EvaluatingModule
from visionforge.training.finetuning import KeptStatistics, StagedUnfreezing
from visionforge.training.gather import place_in_group, sum_over_group
from visionforge.training.labelled import label_problem
from visionforge.training.monitor import AUC, monitor_named, stored_monitor
from visionforge.training.normalisation import with_constants
from visionforge.training.parameter_groups import parameter_groups
from visionforge.training.rate_curve import RateCurve, steps_per_epoch
from visionforge.training.shorthand import (
    AveragingLike,
    BackboneLike,
    DecoderLike,
    DetectorLike,
    DistillationLike,
    FinetuningLike,
    LossLike,
    MixUpLike,
    OptimizerLike,
    ScheduleLike,
    read_settings,
    read_spec,
)
from visionforge.training.split_outputs import SplitOutputs
from visionforge.training.warm_start import SETTING as WARM_START
from visionforge.training.warm_start import fit_last_layer

log = logging.getLogger(__name__)

SCALING = "model.optimizer.rate_scaling"
# Lightning's warning that the module has this hook and the data module has not: with ours, that is meant
_OVERRIDDEN = "You have overridden `on_before_batch_transfer` in `LightningModule` but have passed in"

_DEFAULT = ModelSettings()


Pixels = Tensor | npt.NDArray[np.uint8]


class ImageClassifier(Seeded, EvaluatingModule):
    """Trains a backbone on small images; classes, channels and task come from the data.

    Without `spec` the network is built when a Trainer has bound the module to an `ImageDataModule`. A checkpoint
    holds the spec and all settings, so ``ImageClassifier.load_from_checkpoint(file)`` gives a module that predicts.

    With a spec it trains on any loader or data module of batches (images, labels): images (N, C, R, R), or volumes
    (N, C, R, R, R), uint8 or normalised float; labels integers (N,) or (N, 1), or (N, L) zeros and ones where an
    image may have several.

    A settings object can be given as a mapping, and what has a name as that name: ``optimizer="adamw"`` is
    ``Optimizer(name="adamw")``. A backbone that is only named starts from pretrained weights where there are published
    ones.

    A subclass may define a `training_step` of its own, with or without calling this one's; the epoch's mean loss and
    the learning rate are logged either way, the accuracy if this one's was called.

    Args:
        backbone: The network and its first weights.
        finetuning: Freezing and staged unfreezing of the backbone.
        optimizer: The optimiser.
        schedule: The learning-rate schedule.
        loss: The loss.
        mixup: Mixing of training pairs.
        averaging: Averaging of the weights.
        tta: `full`, `light` or `off`: average the probabilities of several views in tests and predictions. True is
            `full`, False is `off`.
        tta_weight: Weight of the image itself among its views; None gives every view the same.
        monitor: What epochs are compared by, such as ``val/mcc``; None is what the task goes by,
            of classes the AUC.
        spec: Classes, channels, task and normalisation; None takes them from the Trainer's data module.
        restoring: The weights are about to come from a checkpoint, so pretrained ones are not read; checkpoints say so
            of themselves.
        seed: Seed of MixUp, CutMix and dropout; None is the one of `lightning.seed_everything`, or 42. First weights
            are drawn from torch's own generator.
        decoder: What turns feature maps into logits of pixels, where the task asks for these.
        detector: What finds boxes in feature maps, where the task asks for these.
        distillation: The trained network whose probabilities are learnt; it is read when a training begins.
        compile: Compile the network while it is trained, for what it computes in training and in validation once each.
        cuda_graphs: Replay its training passes as CUDA graphs, on one GPU.
        warm_start: `linear_probe` begins a training with a logistic regression of the network's features in the place
            of a random classifier; `none` does not.

    Raises:
        SettingsError: If a value is out of its bounds, or a name is unknown.

    >>> from visionforge import ImageClassifier, TaskSpec
    >>> model = ImageClassifier(backbone="mini_cnn", loss="focal", spec=TaskSpec(classes=3, resolution=28))
    >>> model.settings.backbone.pretrained  # nobody publishes weights of this one
    False
    """

    def __init__(
        self,
        backbone: BackboneLike = _DEFAULT.backbone,
        finetuning: FinetuningLike = _DEFAULT.finetuning,
        optimizer: OptimizerLike = _DEFAULT.optimizer.name,
        schedule: ScheduleLike = _DEFAULT.schedule.name,
        loss: LossLike = _DEFAULT.loss.name,
        mixup: MixUpLike = _DEFAULT.mixup.name,
        averaging: AveragingLike = _DEFAULT.averaging.name,
        tta: bool | TtaMode = _DEFAULT.tta,
        tta_weight: float | None = _DEFAULT.tta_weight,
        monitor: str | None = _DEFAULT.monitor,
        spec: TaskSpec | Mapping[str, Any] | None = None,
        restoring: bool = False,
        seed: int | None = None,
        decoder: DecoderLike = _DEFAULT.decoder.name,
        detector: DetectorLike = _DEFAULT.detector.name,
        distillation: DistillationLike = _DEFAULT.distillation,
        warm_start: WarmStart = _DEFAULT.warm_start,
        compile: bool = _DEFAULT.compile,  # its name as a setting
        cuda_graphs: bool = _DEFAULT.cuda_graphs,
    ) -> None:
        super().__init__()
        self.seed = seed
        sections = {
            "backbone": backbone,
            "decoder": decoder,
            "detector": detector,
            "finetuning": finetuning,
            "optimizer": optimizer,
            "schedule": schedule,
            "loss": loss,
            "mixup": mixup,
            "averaging": averaging,
            "distillation": distillation,
            "tta": tta,
            "tta_weight": tta_weight,
            "monitor": monitor,
            "warm_start": warm_start,
            "compile": compile,
            "cuda_graphs": cuda_graphs,
        }
        self._begin(read_settings(sections, restoring), read_spec(spec), restoring)
        if self.spec is not None and not restoring:  # a checkpoint brings the constants that it was trained with
            self.spec = with_constants(self.spec, self.settings.backbone)
        self.predictions: Any = None  # of the last split that was gone through, as the task has them
        self.evaluation = EvaluationSettings()  # what is fitted on the validation split beside the temperature
        self.keeps_temperature = False  # where sets of classes are fitted once more
        self._scores: list[Tensor] = []  # of the images of a split so far, how far out they are
        usual = AUC.name if self.spec is None else self.spec.kind.monitor
        self.monitor = monitor_named(self.settings.monitor or usual)  # whoever knows the labels may choose another
        self.watched: tuple[str, ...] = ()  # further metrics that somebody goes by
        self._teacher: Teacher | None = None  # while it is trained
        self._dropout: DrawnDropout | None = None  # likewise
        self._outputs: SplitOutputs | None = None
        self._rate: float | None = None  # of the last optimiser step
        self._configured: list[dict[str, Any]] = []  # the optimiser's groups, without their parameters
        self._apart: list[Tensor] = []  # how far an ensemble's networks disagree, by batch
        self._sums = EpochSums()
        self._label_problem: str | None = None  # of the batch that comes next
        self._curve: RateCurve | None = None
        self.logged_names: tuple[str, ...] = ()  # of the last finished training epoch
        self._remember()

    def _remember(self) -> None:
        """Store plain values only: a checkpoint is then readable with ``weights_only=True``."""
        spec = None if self.spec is None else self.spec.model_dump(mode="json")
        stored = redact_settings(self.settings.model_dump(mode="json"))  # the address of weights may hold a token
        self.save_hyperparameters({**stored, "spec": spec}, logger=False)

    def _like(self, settings: ModelSettings, spec: TaskSpec) -> "ImageClassifier":
        return ImageClassifier(**fields_of(settings), spec=spec, restoring=True, seed=self.seed)

    # --- late binding

    def setup(self, stage: str) -> None:
        """Take classes, channels and task from the data module, if they were not given.

        Raises:
            SettingsError: If there is neither a spec nor a data module that has one, or the two differ.
        """
        self._bind_to_data()
        if isinstance(getattr(self.trainer, "datamodule", None), ImageDataModule):
            warnings.filterwarnings("ignore", message=_OVERRIDDEN)
        if self.spec is None:
            raise SettingsError("model.spec: give the module a TaskSpec, or train it with an ImageDataModule")
        if stage == "fit" and (problem := watched_problem(self.monitor.name, self.spec.task)):
            raise SettingsError(f"model.monitor: {problem}")

    def _bind_to_data(self) -> None:
        offered = getattr(getattr(self.trainer, "datamodule", None), "spec", None)
        if isinstance(offered, TaskSpec):
            self.bind(offered)

    def configure_callbacks(self) -> list[Callback]:
        """Return what averages the weights and what unfreezes the backbone, if the settings ask for it."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return []
        self._bind_to_data()  # AveragedWeights copies the network before `setup` is called
        callbacks: list[Callback] = []
        finetuning = self.settings.finetuning
        if finetuning.freeze_epochs > 0:
            self.configure_model()
            assert self._parts is not None
            callbacks.append(StagedUnfreezing(finetuning, self._parts.head, self._parts.stages))
        if self.keeps_statistics:
            callbacks.append(KeptStatistics())
        graphs = self.settings.cuda_graphs
        if graphs:
            require_graphs(self.trainer, self._bound_spec().kind.detects)
        if self.settings.compile:
            callbacks.append(CompiledNetwork(graphs))
        elif graphs:
            callbacks.append(GraphedNetwork())
        averaging = self.settings.averaging.build()
        if averaging is not None:
            callbacks.append(averaging)
        return callbacks

    @property
    def keeps_statistics(self) -> bool:
        """Return whether a training leaves the statistics of batch normalisation as they are."""
        chosen = self.settings.finetuning.batch_norm
        return chosen == "keep" or (chosen == "auto" and self.settings.warm_start == "linear_probe")

    def bind(self, spec: TaskSpec) -> None:
        """Take classes, channels and task from a data set, if they are not known yet.

        Raises:
            SettingsError: If they are known and differ.
        """
        if self.spec is None:
            self.spec = with_constants(spec, self.settings.backbone)
            if self.settings.monitor is None and self.monitor == AUC:  # nobody has chosen another
                self.monitor = monitor_named(spec.kind.monitor)
            self._remember()
            return
        if problems := [*differences(self.spec, spec), *resize_differences(self.spec, spec)]:
            raise SettingsError(problems)

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the weights of a checkpoint that has been read already.

        Raises:
            SettingsError: If the settings ask for another network than the checkpoint holds.
        """
        self.on_load_checkpoint(dict(checkpoint))
        self.load_state_dict(checkpoint["state_dict"])
        self.monitor = stored_monitor(checkpoint.get("monitor"))

    def configure_model(self) -> None:
        """Build the network, once; pretrained weights are left out if a checkpoint is about to be loaded."""
        resuming = self._trainer is not None and bool(self.trainer.ckpt_path)
        self._build(pretrained=False if resuming or self.restoring else None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint say that it brings the weights itself; keep thresholds and an unfinished epoch's sums."""
        stored: dict[str, Any] = {}
        if self.members:
            stored["members"] = [each.model_dump(mode="json") for each in self.members]
            stored["inputs"] = [each.model_dump(mode="json") for each in self.inputs]
        if any(self.heads):
            stored["heads"] = [None if each is None else each.model_dump() for each in self.heads]
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {**self.hparams, "restoring": True, **stored}
        checkpoint["visionforge"] = written_by()
        checkpoint["thresholds"] = None if self.thresholds is None else self.thresholds.tolist()
        checkpoint["calibration"] = None if self.calibration is None else asdict(self.calibration)
        checkpoint["outliers"] = None if self.outliers is None else self.outliers.stored()
        checkpoint["monitor"] = self.monitor.name
        checkpoint["epoch_sums"] = self._sums.stored(sum_over_group)
        checkpoint["weight_transfer"] = None if self.transfer is None else self.transfer.as_dict()
        if "averaging_state" not in checkpoint:  # a checkpoint of weights only, which callbacks do not see
            checkpoint["state_dict"] = state_of_average(self.trainer) or checkpoint["state_dict"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network that the checkpoint's weights belong to.

        Raises:
            SettingsError: If the settings ask for another network than the checkpoint holds.
        """
        self._read(checkpoint)
        self._sums.restore(checkpoint.get("epoch_sums"), place_in_group()[1])

    # --- training

    def on_fit_start(self) -> None:
        """Read the teacher, weigh the classes by what the training split holds, and fit the classifier to features.

        Raises:
            SettingsError: If weights are asked for, and the data module does not tell; or the teacher has learnt
                something else.
            RunError: If the teacher cannot be read.
        """
        self.calibration = self.outliers = None  # of the weights that the training begins with
        spec = self._bound_spec()
        assert self.network is not None
        self._dropout = DrawnDropout(self.network)
        if self.settings.distillation.teacher is not None:
            self._teacher = Teacher.of(self.settings.distillation, spec).to(self.device)
        self._weigh_classes()
        begun = bool(self.trainer.ckpt_path) or self.restoring  # the classifier has its weights already
        if self.settings.warm_start == "linear_probe" and not begun:
            self._fit_last_layer()

    def _fit_last_layer(self) -> None:
        data, trainer = getattr(self.trainer, "datamodule", None), self.trainer
        if not isinstance(data, ImageDataModule):
            raise SettingsError(f"{WARM_START}: linear_probe needs an ImageDataModule; set it to none")
        fit_last_layer(self, data)
        if trainer.world_size > 1:  # sums on several devices differ in their last digits
            layer = self.last_layer
            assert layer is not None
            layer.load_state_dict(trainer.strategy.broadcast({k: v.cpu() for k, v in layer.state_dict().items()}))

    def _weigh_classes(self) -> None:
        """Weigh the classes by what the training split holds."""
        spec, settings = self._bound_spec(), self.settings.loss
        if settings.class_weights == "none":
            return
        counts, images = torch.zeros(len(spec.classes)), 0
        if not isinstance(settings.class_weights, dict):
            count = getattr(self.trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
            if count is None:
                raise SettingsError(
                    f"model.loss.class_weights: {settings.class_weights} needs an ImageDataModule; "
                    "give a mapping of class names to weights"
                )
            counts, images = count()
        weights = class_weights(settings, counts, spec.classes, spec.task, images)
        self.criterion = spec.kind.criterion(settings, len(spec.classes), weights)

    def on_fit_end(self) -> None:
        """Let go of the teacher, and of the numbers that dropout draws from."""
        self._teacher = None
        if self._dropout is not None:
            self._dropout.end()
            self._dropout = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, which is mixed where the settings say so.

        The epoch's sums stay on the device: a logged value per step would cost more than a small network's step.
        """
        images, labels = self._labelled(batch)
        spec, settings, criterion = self._bound_spec(), self.settings, self._bound_criterion()
        if images.dtype == torch.uint8:  # of a loader whose data module does not normalise
            images = normalise(images, spec.mean, spec.std)
        self._begin_draws(len(images), batch_idx)
        targets = labels
        if self._mixes():
            rank = 0 if settings.mixup.shares_draws else self.global_rank
            rng = np.random.default_rng(derive_seed(self.seed, "mixup", self.current_epoch, batch_idx, rank))
            images, targets = spec.kind.mixed(settings.mixup, images, labels, len(spec.classes), rng)
        if self._teacher is not None:  # it sees the images as they are learnt, augmented and mixed
            criterion = Distilling(criterion, self._teacher.probabilities(images), self._teacher.weight, spec)
        loss, hits = spec.kind.learn(self, criterion, images, targets)
        if self.trainer.world_size > 1 and (divisor := criterion.divisor(targets)) is not None:
            share = divisor / sum_over_group(divisor)
            loss = loss * share * self.trainer.world_size  # whose mean over the processes is that over all their images
        self._sums.add(loss.detach(), hits, len(images), batch_idx)
        return loss * self._share_of_group(batch_idx)

    def _begin_draws(self, count: int, batch_idx: int) -> None:
        """Let what is dropped be a function of the step, so that a resumed run drops the same units and branches."""
        epoch, rank = self.current_epoch, self.global_rank
        seed_generators(derive_seed(self.seed, "dropout", epoch, batch_idx, rank), self.device)
        if self._dropout is not None:
            here = torch.arange(batch_idx * count, (batch_idx + 1) * count, device=self.device)
            places = here * self.trainer.world_size + rank
            self._dropout.begin_step(derive_seed(self.seed, "dropout", epoch), places)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the loss of a subclass's own `training_step`, whose accuracy nobody knows."""
        self._sums.end_step(outputs, batch, batch_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Look at the labels while no GPU has to be waited for; a step that uses them complains."""
        pair = isinstance(batch, list | tuple) and len(batch) == 2
        waits = pair and self.spec is not None and self.device.type != "cpu"
        self._label_problem = label_problem(batch[1], self._bound_spec()) if waits else None
        return batch

    def _share_of_group(self, batch_idx: int) -> float:
        """Return what makes the gradient of a step the mean over its batches.

        The Trainer divides every loss by `accumulate_grad_batches`, also those of the last group of an epoch, which may
        have fewer batches.
        """
        size, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if size == 1 or batches == float("inf"):
            return 1.0
        return size / min(size, int(batches) - batch_idx // size * size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the learning rate of the step, which the schedule then changes."""
        self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_start(self) -> None:
        """Let the settings hold where the training begins from a checkpoint, whose optimiser state brings its own."""
        if not self._configured or self._curve is None:
            return
        optimizer, (scheduler,) = self.trainer.optimizers[0], (c.scheduler for c in self.trainer.lr_scheduler_configs)
        for group, configured in zip(optimizer.param_groups, self._configured, strict=True):
            group.update(configured)
            group["lr"] = group["initial_lr"] * self._curve(scheduler.last_epoch)
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]

    def _mixes(self) -> bool:
        return self.settings.mixup.mixes(self.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and accuracy, and the learning rate of its last step.

        In an epoch with MixUp or CutMix both belong to the mixed images, so they do not compare with the validation
        values: the loss is that to the mixed targets, and `train/accuracy_mixed`, which then stands in for
        `train/accuracy`, is the mean target share of the predicted class.
        """
        rate = self.trainer.optimizers[0].param_groups[0]["lr"] if self._rate is None else self._rate
        values: dict[str, Any] = {"lr": rate}
        if (means := self._sums.means()) is not None:
            loss, hits = means
            name = "train/accuracy_mixed" if self._mixes() else "train/accuracy"
            values = {"train/loss": loss, **({} if hits is None else {name: hits}), "lr": rate}
        self.logged_names = tuple(values)
        self.log_dict(values, sync_dist=True)

    def _scaled(self, settings: Optimizer) -> Optimizer:
        """Return the optimiser with the learning rate that the settings mean for the images of a step.

        Raises:
            SettingsError: If nobody knows how many these are, or the rate is out of its bounds.
        """
        if settings.rate_scaling == "none":
            return settings
        data, trainer = getattr(self.trainer, "datamodule", None), self.trainer
        if not isinstance(data, ImageDataModule):
            raise SettingsError(f"{SCALING}: {settings.rate_scaling} needs an ImageDataModule; set it to none")
        images = data.settings.images_of(trainer.world_size) * trainer.accumulate_grad_batches
        rate, told = settings.rate_for(images), f"{SCALING}: {settings.rate_scaling}"
        if not self.settings.schedule.lowest < rate < 1:
            raise SettingsError(
                f"{told} makes a learning rate of {rate:g} for {images} images a step; it must be above "
                f"model.schedule.min_lr ({self.settings.schedule.lowest:g}) and below 1"
            )
        log.info(
            "%s: learning rate %g for %d images a step, %g for %d",
            told,
            rate,
            images,
            settings.learning_rate,
            settings.reference_batch_size,
        )
        return settings.model_copy(update={"learning_rate": rate})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser and the curve of its learning rate, which moves with every step."""
        settings, parts = self.settings, self._parts
        assert parts is not None
        chosen = self._scaled(settings.optimizer)
        head = (*(f"network.{prefix}" for prefix in parts.head), "cumulative.")
        stem = f"network.{parts.stem}"
        groups = parameter_groups(self.named_parameters(), head, stem, chosen, settings.finetuning.backbone_rate)
        optimizer = chosen.build(groups)
        if hasattr(optimizer, "_step_supports_amp_scaling"):  # of fused ones, whose gradients could then not be clipped
            optimizer._step_supports_amp_scaling = False
        expected = self.trainer.estimated_stepping_batches
        if not math.isfinite(expected):
            raise SettingsError(
                "trainer: the learning rate is planned to the end of a training; set max_epochs or max_steps"
            )
        steps = max(1, int(expected))
        per_epoch = steps_per_epoch(self.trainer)
        rate, higher = chosen.learning_rate, self.monitor.higher
        self._curve = RateCurve(settings.schedule, rate, steps, per_epoch, higher)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._curve)
        self._configured = [
            {key: value for key, value in group.items() if key not in ("params", "fused")}
            for group in optimizer.param_groups
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
