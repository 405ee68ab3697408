"""The rules that span several settings, all in one place; they run before anything is downloaded or built."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from visionforge.config.folds import fold_problems
from visionforge.config.problems import nearest
from visionforge.config.resizing import network_resolution, resize_problems
from visionforge.config.schema import (
    Decoder,
    Detector,
    EvaluationSettings,
    Loss,
    ModelSettings,
    RunSettings,
    Task,
    TaskName,
)
from visionforge.config.schema.data import FOLD_POOLS, unequal_parts
from visionforge.config.schema.metrics import watched_problem
from visionforge.config.schema.tasks import default_task, fits, task_named
from visionforge.config.volumes import dimension_problems, volume_problems


@dataclass(frozen=True)
class DatasetFacts:
    """What the rules need to know of the data set.

    Attributes:
        name: Catalog name.
        channels: 1 or 3.
        train: Number of training images.
        resolutions: Offered resolutions; None means any.
        task: Kind of labels.
        classes: Names of the classes.
        spatial_dims: 2 for images, 3 for volumes.
    """

    name: str
    channels: int
    train: int
    resolutions: tuple[int, ...] | None
    task: TaskName = field(default_factory=default_task)
    classes: tuple[str, ...] = ()
    spatial_dims: int = 2


@dataclass(frozen=True)
class BackboneFacts:
    """What the rules need to know of the backbone.

    Attributes:
        name: Registered name.
        min_resolution: Smallest supported height and width.
        has_published_weights: Whether weights can be had without a local file.
        final_map: Height and width of the last feature map at the size that the network reads.
        multiple_of: What that size must be a multiple of.
        spatial_dims: What it takes, 2 for images and 3 for volumes.
        inflates: Whether its form for volumes is made of the one for images.
        takers: Names of backbones that take the configured data.
    """

    name: str
    min_resolution: int
    has_published_weights: bool
    final_map: int
    multiple_of: int = 1
    spatial_dims: tuple[int, ...] = (2,)
    inflates: bool = False
    takers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceFacts:
    """What the rules need to know of the training device.

    Attributes:
        name: Device as a person knows it, for messages.
        float16: Whether training in float16 works on it.
        bfloat16: Whether training in bfloat16 works on it.
        gpu: Whether it is an NVIDIA or AMD GPU.
        fast_bfloat16: Whether it multiplies in bfloat16, and so is faster in it.
    """

    name: str
    float16: bool
    bfloat16: bool
    gpu: bool = False
    fast_bfloat16: bool = False


@dataclass(frozen=True)
class Facts:
    """Everything outside the settings that a rule may look at; None where it is unknown or not needed."""

    dataset: DatasetFacts | None = None
    backbone: BackboneFacts | None = None
    device: DeviceFacts | None = None


def check_rules(settings: RunSettings, facts: Facts, stage: str = "fit") -> list[str]:
    """Return one line for every broken rule, none if all hold.

    Args:
        settings: Complete settings.
        facts: What the rules need to know beyond them.
        stage: `fit` checks all rules; `validate`, `test`, `predict` and `embed` (a frozen backbone without a run) only
            those that matter without training.
    """
    rules = RULES if stage == "fit" else (*EVALUATION_RULES, *_OF_STAGE.get(stage, ()))
    return [problem for rule in rules for problem in rule(settings, facts)]


def _learning_rates(settings: RunSettings, facts: Facts) -> Iterator[str]:
    low, high = settings.model.schedule.lowest, settings.model.optimizer.learning_rate
    if low >= high:
        yield (
            f"model.schedule.min_lr: {low:g} is not allowed; it must be below model.optimizer.learning_rate ({high:g})"
        )


def cut_short(settings: RunSettings, facts: Facts) -> str | None:
    """Return a line if `max_steps` ends the training before something that begins or ends after some epochs.

    It is no mistake: to try a configuration for a few steps is what the flag is for.
    """
    trainer = settings.trainer
    flags = trainer.model_extra or {}
    most = flags.get("max_steps")
    if facts.dataset is None or not isinstance(most, int) or most < 0:
        return None
    batches = _training_images(settings, facts.dataset) // settings.data.images_of(_ranks(settings))
    limit = flags.get("limit_train_batches")
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif isinstance(limit, int) and not isinstance(limit, bool):
        batches = min(batches, limit)
    epochs = -(-most // max(1, -(-batches // trainer.accumulate_grad_batches)))
    late = [f"{path} ({value})" for path, value, _ in _of_epochs(settings) if value >= epochs]
    if epochs >= trainer.max_epochs or not late:
        return None
    return f"trainer.max_steps: {most} steps end the training in epoch {epochs}, before {', '.join(late)}"


def _of_epochs(settings: RunSettings) -> list[tuple[str, int, int]]:
    """Return (path, value, by how much it must be below the number of epochs) of settings that count epochs."""
    model = settings.model
    return [
        ("model.mixup.mixup_epochs", model.mixup.mixup_epochs or 0, 0),
        ("model.schedule.warmup_epochs", model.schedule.warmup, 1),
        ("model.averaging.start_epoch", int(getattr(model.averaging, "start_epoch", 0)), 1),
        ("model.finetuning.freeze_epochs", model.finetuning.freeze_epochs, 0),
    ]


def _training_images(settings: RunSettings, dataset: DatasetFacts) -> int:
    return min(dataset.train, settings.data.max_samples or dataset.train)


def _ranks(settings: RunSettings) -> int:
    devices = settings.trainer.devices
    return (devices if isinstance(devices, int) and devices > 0 else 1) * settings.trainer.num_nodes


def _pretrained_weights(settings: RunSettings, facts: Facts) -> Iterator[str]:
    backbone = settings.model.backbone
    if backbone.weights is not None and not backbone.pretrained:
        yield (
            "model.backbone.weights: given, but model.backbone.pretrained is false; "
            "set pretrained to true, or leave weights out"
        )
    if not backbone.pretrained:
        return
    if facts.dataset and facts.dataset.channels == 1 and not settings.data.force_rgb:
        yield (
            f"model.backbone.pretrained: pretrained weights need 3 channels, {facts.dataset.name} has 1; "
            "set data.force_rgb to true, or pretrained to false"
        )
    if facts.backbone and not facts.backbone.has_published_weights and backbone.weights is None:
        yield (
            f"model.backbone.pretrained: there are no published weights for {facts.backbone.name}; "
            "name a local file in model.backbone.weights, or set pretrained to false"
        )


def unpublished_constants(backbone: str) -> str:
    """Return the line that refuses the constants of weights that nobody publishes."""
    return (
        f"model.backbone.normalisation: weights is not allowed for {backbone}, for which no weights are published that "
        "say what they expect; allowed: dataset"
    )


def _constants(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if (
        settings.model.backbone.normalisation == "weights"
        and facts.backbone
        and not facts.backbone.has_published_weights
    ):
        yield unpublished_constants(facts.backbone.name)


def _dimensions(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if facts.dataset and facts.backbone:
        dims, backbone = facts.dataset.spatial_dims, facts.backbone
        chosen = settings.model.backbone
        yield from dimension_problems(chosen, dims, backbone.spatial_dims, backbone.inflates, backbone.takers)


def _resolution(settings: RunSettings, facts: Facts) -> Iterator[str]:
    resolution = settings.data.resolution
    if facts.dataset and facts.dataset.resolutions and resolution not in facts.dataset.resolutions:
        offered = ", ".join(str(r) for r in facts.dataset.resolutions)
        yield f"data.resolution: {resolution} is not offered by {facts.dataset.name}; allowed: {offered}"
    name = "data.resolution" if settings.data.resize.size is None else "data.resize.size"
    resolution = network_resolution(settings.data.resize, resolution)
    if facts.backbone and resolution < facts.backbone.min_resolution:
        adapt = "" if settings.model.backbone.adapt_stem else " with model.backbone.adapt_stem false"
        yield (
            f"{name}: {resolution} is too small for {facts.backbone.name}{adapt}; "
            f"at least {facts.backbone.min_resolution}"
        )
    elif facts.backbone and resolution % facts.backbone.multiple_of:
        yield (
            f"{name}: {resolution} is not allowed for {facts.backbone.name}, whose patches have "
            f"{facts.backbone.multiple_of} pixels here; a multiple of {facts.backbone.multiple_of}"
        )


def _resize(settings: RunSettings, facts: Facts) -> Iterator[str]:
    data = settings.data
    if facts.dataset is not None:
        yield from resize_problems(data.resize, data.resolution, facts.dataset.task, facts.dataset.spatial_dims)


def _volumes(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if facts.dataset is not None:
        yield from volume_problems(facts.dataset.name, facts.dataset.spatial_dims, settings.data)


_OTHER_THAN_FLOAT32 = ("bf16-true", "16-true", "64-true", "64")  # also what is read of a batch


def _precision(settings: RunSettings, facts: Facts) -> Iterator[str]:
    precision = str(settings.trainer.precision)
    if facts.dataset is not None and task_named(facts.dataset.task).detects and precision in _OTHER_THAN_FLOAT32:
        yield (
            f"trainer.precision: {precision!r} changes the numbers in which boxes are given, too; for "
            f"{facts.dataset.task} data use 32-true, 16-mixed or bf16-mixed"
        )
    if facts.device is None:
        return
    if precision.startswith("16") and not facts.device.float16:
        yield (
            f"trainer.precision: {precision!r} needs a GPU, the device is {facts.device.name}; "
            "use 32-true" + (" or bf16-mixed" if facts.device.bfloat16 else "")
        )
    if precision.startswith("bf16") and not facts.device.bfloat16:
        yield (
            f"trainer.precision: {precision!r} needs bfloat16, which {facts.device.name} lacks; "
            "use 32-true" + (" or 16-mixed" if facts.device.float16 else "")
        )


def _steps_per_epoch(settings: RunSettings, facts: Facts) -> Iterator[str]:
    data = settings.data
    if facts.dataset is None:
        return
    ranks, images = _ranks(settings), _training_images(settings, facts.dataset)
    size = data.images_of(ranks)
    if size % ranks:
        yield unequal_parts(size, ranks)
        return
    if images < size:
        shared = f" on each of {ranks} devices" if ranks > 1 else ""
        reason = "data.max_samples leaves" if data.max_samples else f"{facts.dataset.name} has"
        given = f"data.batch_size: {data.batch_size}{shared}"
        most = images // ranks
        if data.global_batch_size is not None:
            given, most = f"data.global_batch_size: {size}", images // ranks * ranks
        yield f"{given} leaves no training step, {reason} {images} training images; at most {most}"
    if facts.backbone and facts.backbone.final_map <= 1 and size == ranks:
        name, least = ("batch_size", 2) if data.global_batch_size is None else ("global_batch_size", 2 * ranks)
        yield (
            f"data.{name}: {least // 2} is too small for {facts.backbone.name} at "
            f"{network_resolution(data.resize, data.resolution)} pixels, where batch "
            f"normalisation sees a single value; at least {least}"
        )


FULLY_SHARD = "fully_shard"  # as trainer.strategy
EFFECTIVE = "effective-number"  # of model.loss.class_weights


def _unread(settings: RunSettings, facts: Facts) -> Iterator[str]:
    """A setting that would be ignored is a mistake, unless it has its default or what it refines is off altogether."""
    schedule, finetuning, loss = settings.model.schedule, settings.model.finetuning, settings.model.loss
    data, optimizer = settings.data, settings.model.optimizer
    usual = type(optimizer).model_fields["reference_batch_size"].default
    if optimizer.rate_scaling == "none" and optimizer.reference_batch_size != usual:
        yield (
            f"model.optimizer.reference_batch_size: {optimizer.reference_batch_size} would be ignored, because "
            "model.optimizer.rate_scaling is none; leave it out"
        )
    if not data.balanced_sampling and data.sampler.resolved(True) == data.sampler.resolved(False):
        yield (
            f"data.balanced_sampling: false would be ignored, because data.sampler.name is {data.sampler.name}; "
            "leave it out"
        )
    if loss.effective_beta != type(loss).model_fields["effective_beta"].default and loss.class_weights != EFFECTIVE:
        yield (
            f"model.loss.effective_beta: {loss.effective_beta} would be ignored, because model.loss.class_weights is "
            f"{loss.class_weights}; it is read by {EFFECTIVE}"
        )
    if finetuning.stage_epochs and not finetuning.freeze_epochs:
        yield (
            f"model.finetuning.stage_epochs: {finetuning.stage_epochs} would be ignored, because "
            "model.finetuning.freeze_epochs is 0; at least 1"
        )
    if finetuning.batch_norm == "keep" and not settings.model.backbone.pretrained and settings.ckpt_path is None:
        yield (
            f"model.finetuning.batch_norm: keep of a backbone with random weights{_why(settings)}, whose statistics "
            "are those of no images; set model.backbone.pretrained to true, or batch_norm to auto"
        )
    if getattr(schedule, "cosine_fraction", None) == 1.0:
        for name in ("scheduler_patience", "gamma"):
            if (value := getattr(schedule, name)) != type(schedule).model_fields[name].default:
                yield (
                    f"model.schedule.{name}: {value} would be ignored, because model.schedule.cosine_fraction is 1: "
                    "the cosine takes the whole training; set it below 1"
                )


def _parts(settings: RunSettings, facts: Facts) -> Iterator[str]:
    """Parts of a network that a task has none of."""
    if facts.dataset is None:
        return
    model, name = settings.model, facts.dataset.name
    kind = task_named(facts.dataset.task)
    yield from part_problems(model, kind, name)
    explanations = settings.evaluation.explanations
    if not kind.explains and explanations not in (0, EvaluationSettings.model_fields["explanations"].default):
        yield (
            f"evaluation.explanations: {explanations} would be ignored: there are no maps of where a network for "
            f"{facts.dataset.task} looks; leave it out"
        )
    embedding = settings.evaluation.embedding
    if not kind.calibrates and embedding in ("pca", "umap"):
        yield (
            f"evaluation.embedding: {embedding} would be ignored: networks for {facts.dataset.task} have no features "
            "of whole images; leave it out"
        )
    yield from _abstention(settings, kind)


def _abstention(settings: RunSettings, kind: Task) -> Iterator[str]:
    """Ways to say that a network does not know, which ask for images of one class, and for a validation split."""
    chosen = settings.evaluation
    named = {"conformal": chosen.conformal, "ood": chosen.ood}
    named = {name: value for name, value in named.items() if value not in ("auto", "none")}
    if not kind.abstains:
        below = {} if chosen.abstain_below is None else {"abstain_below": chosen.abstain_below}
        for name, value in (named | below).items():
            yield f"evaluation.{name}: {value} is for images of one class, not for {kind.name}; leave it out"
        return
    if (settings.trainer.model_extra or {}).get("limit_val_batches") in (0, 0.0):
        for name, value in named.items():
            yield (
                f"evaluation.{name}: {value} is fitted on the validation split, of which trainer.limit_val_batches 0 "
                "leaves nothing; raise it, or leave one of them out"
            )
    cumulative = getattr(settings.model.loss.of_task(kind.name), "cumulative", False)
    if chosen.ood in ("energy", "max_logit") and cumulative:
        yield (
            f"evaluation.ood: {chosen.ood} needs a logit for every class, the loss {settings.model.loss.name} has one "
            "for all grades; choose mahalanobis or knn"
        )


def part_problems(model: ModelSettings, kind: Task, name: str) -> Iterator[str]:
    """Yield a line for every part of a network that a task has none of.

    Args:
        model: The network.
        kind: The task.
        name: Name of the data set.
    """
    if not kind.decodes and model.decoder != Decoder.usual():
        yield (
            f"model.decoder: {model.decoder.name} would be ignored, because the labels of {name} are "
            f"{kind.name}; only networks of tasks with masks have a decoder; leave it out"
        )
    if not kind.detects and model.detector != Detector.usual():
        yield (
            f"model.detector: {model.detector.name} would be ignored, because the labels of {name} are "
            f"{kind.name}; only networks of tasks with boxes have a detector; leave it out"
        )
    if (kind.decodes or kind.detects) and model.backbone.dropout > 0:
        remedy = "leave it out" if kind.dropout is None else f"set {kind.dropout}"
        yield (
            f"model.backbone.dropout: {model.backbone.dropout} would be ignored: a network for {kind.name} has no "
            f"classifier; {remedy}"
        )


def _distillation(settings: RunSettings, facts: Facts) -> Iterator[str]:
    distillation = settings.model.distillation
    if distillation.teacher is None:
        for name in ("weight", "temperature"):
            if (value := getattr(distillation, name)) != type(distillation).model_fields[name].default:
                yield (
                    f"model.distillation.{name}: {value:g} would be ignored, because model.distillation.teacher is "
                    "null; name a run or a checkpoint there"
                )
    elif facts.dataset is not None and not task_named(facts.dataset.task).calibrates:
        yield (
            f"model.distillation.teacher: the labels of {facts.dataset.name} are {facts.dataset.task}, of which no "
            "probabilities are learnt; leave it out"
        )


def _epochs(settings: RunSettings, facts: Facts) -> Iterator[str]:
    longest, flags = settings.trainer.max_epochs, settings.trainer.model_extra or {}
    reason = f"trainer.max_epochs is {longest}"
    for path, value, margin in _of_epochs(settings):
        if value > longest - margin:
            yield f"{path}: {value} is not allowed; at most {longest - margin}, {reason}"
    every = flags.get("check_val_every_n_epoch")
    if isinstance(every, int) and every > longest:
        yield f"trainer.check_val_every_n_epoch: {every} leaves no epoch that is validated; at most {longest}, {reason}"
    for low, high in (("min_epochs", longest), ("min_steps", flags.get("max_steps") or -1)):
        least = flags.get(low)
        if isinstance(least, int) and 0 <= high < least:
            yield f"trainer.{low}: {least} is not allowed; at most {high}, {reason}"


def _loss(settings: RunSettings, facts: Facts) -> Iterator[str]:
    loss, dataset = settings.model.loss, facts.dataset
    by_switch = settings.data.sampler.name == settings.data.sampler.family.default
    balancing = "data.balanced_sampling to false" if by_switch else "data.sampler.name to uniform"
    if loss.class_weights in ("balanced", EFFECTIVE) and settings.data.balances:
        yield (
            f"model.loss.class_weights: {loss.class_weights} would balance the classes a second time; "
            f"set {balancing}, or class_weights to none"
        )
    if dataset is None:
        return
    if loss.class_weights == EFFECTIVE and task_named(dataset.task).dense:
        yield (
            f"model.loss.class_weights: {EFFECTIVE} would weigh all classes alike: of {dataset.name} pixels are "
            "counted, and every class has too many; set balanced, or weights by name"
        )
    if not fits(loss.of_task(dataset.task).tasks, dataset.task):
        kinds = Loss.family.kinds.items()
        allowed = [name for name, kind in kinds if issubclass(kind, Loss) and fits(kind.tasks, dataset.task)]
        yield (
            f"model.loss.name: {loss.name} does not fit {dataset.name}, whose labels are {dataset.task}; "
            f"allowed: {', '.join(allowed)}"
        )
    elif not loss.of_task(dataset.task).weighs:
        for field_name in ("label_smoothing", "class_weights"):
            if (value := getattr(loss, field_name)) != type(loss).model_fields[field_name].default:
                yield (
                    f"model.loss.{field_name}: {value} would be ignored: a network for {dataset.task} is trained by "
                    "its detector's own losses; leave it out"
                )
        return
    for name in loss.class_weights if isinstance(loss.class_weights, dict) else ():
        if name not in dataset.classes:
            close = nearest(name, dataset.classes) or list(dataset.classes)
            yield f"model.loss.class_weights: {dataset.name} has no class {name!r}; nearest: {', '.join(close)}"


def _monitor(settings: RunSettings, facts: Facts) -> Iterator[str]:
    monitor, task = settings.model.monitor, None if facts.dataset is None else facts.dataset.task
    if monitor is not None and (problem := watched_problem(monitor, task)):
        yield f"model.monitor: {problem}"


def _trainer_flags(settings: RunSettings, facts: Facts) -> Iterator[str]:
    """What a run is made of cannot be switched off, and what would end in a library's error is told before."""
    flags = settings.trainer.model_extra or {}
    if flags.get("enable_checkpointing") is False:
        yield "trainer.enable_checkpointing: false is not allowed: a run is its checkpoints; leave it out"
    if flags.get("barebones"):
        yield "trainer.barebones: true is not allowed: a run keeps checkpoints and metrics; leave it out"
    if flags.get("logger") is True:
        yield "trainer.logger: true names no logger; name one, such as CSVLogger, or leave it out"
    if flags.get("sync_batchnorm") and facts.device is not None and not facts.device.gpu:
        yield f"trainer.sync_batchnorm: true needs GPUs, the device is {facts.device.name}; set it to false"
    averaging, precision = settings.model.averaging.name, str(settings.trainer.precision)
    if not settings.model.averaging.off and precision in ("bf16-true", "16-true"):
        yield (
            f"model.averaging.name: {averaging} is lost in rounding under trainer.precision {precision}, whose weights "
            "have 8 or 11 bits; use bf16-mixed or 32-true, or set averaging.name to none"
        )


def _sharded(settings: RunSettings, facts: Facts) -> Iterator[str]:
    """What needs a network whole in the middle of a training does not go with one that lies on several devices."""
    if (settings.trainer.model_extra or {}).get("strategy") != FULLY_SHARD:
        return
    model, mend = settings.model, "or trainer.strategy to ddp"
    if not model.averaging.off:
        told = f"{model.averaging.name} keeps a whole second network"
        yield f"model.averaging.name: {told}, which {FULLY_SHARD} divides; set it to none, {mend}"
    if model.finetuning.freeze_epochs > 0:
        yield f"model.finetuning.freeze_epochs: {FULLY_SHARD} shards what is trained at the start; set it to 0, {mend}"
    if model.warm_start != "none":
        told = f"{model.warm_start} exchanges a layer that {FULLY_SHARD} has divided"
        yield f"model.warm_start: {told}; set it to none, {mend}"
    if model.cuda_graphs:
        yield f"model.cuda_graphs: {FULLY_SHARD} gathers parameters in every pass; set it to false, {mend}"
    if model.compile:
        yield f"model.compile: {FULLY_SHARD} trains networks as they are; set it to false, {mend}"
    if str(settings.trainer.precision) in ("16", "16-mixed", "16-true"):
        told = f"{settings.trainer.precision} scales gradients that {FULLY_SHARD} has divided"
        yield f"trainer.precision: {told}; set it to bf16-mixed or 32-true, {mend}"
    if facts.dataset is not None and task_named(facts.dataset.task).detects:
        yield f"trainer.strategy: {FULLY_SHARD} is not for detectors; set it to ddp"


def graph_problems(other_device: str | None, accumulated: int, devices: int, detects: bool) -> Iterator[str]:
    """Yield why a training cannot be replayed as CUDA graphs, a line each.

    Args:
        other_device: The device, if it is no GPU that can.
        accumulated: Batches of a step.
        devices: That are trained on.
        detects: Whether the network is a detector.
    """
    if other_device is not None:
        yield f"model.cuda_graphs: true needs a GPU, the device is {other_device}; set it to false"
    if accumulated > 1:
        yield (
            "model.cuda_graphs: true writes each batch's gradient over the last one's; set it to false, or "
            "trainer.accumulate_grad_batches to 1"
        )
    if devices > 1:
        yield f"model.cuda_graphs: true is for one device, and {devices} are trained on; set it to false"
    if detects:
        yield "model.cuda_graphs: a detector's step differs from image to image and cannot be replayed; set it to false"


def _cuda_graphs(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if settings.model.cuda_graphs:
        device, dataset = facts.device, facts.dataset
        other = device.name if device is not None and not device.gpu else None
        detects = dataset is not None and task_named(dataset.task).detects
        yield from graph_problems(other, settings.trainer.accumulate_grad_batches, _ranks(settings), detects)


def _evaluated_batches(flag: str) -> Callable[[RunSettings, Facts], Iterator[str]]:
    def rule(settings: RunSettings, facts: Facts) -> Iterator[str]:
        if (settings.trainer.model_extra or {}).get(f"limit_{flag}_batches") in (0, 0.0):
            yield f"trainer.limit_{flag}_batches: 0 leaves nothing to evaluate; raise it, or leave it out"

    return rule


def _why(settings: RunSettings) -> str:
    """Return why `pretrained: auto` has become random weights, in brackets."""
    reason = settings.model.backbone._from_scratch
    return "" if reason is None else f" ({reason})"


def _freezing(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if settings.model.finetuning.freeze_epochs == 0:
        return
    if not settings.model.backbone.pretrained:
        yield (
            f"model.finetuning.freeze_epochs: freezes a backbone with random weights{_why(settings)}; "
            "set model.backbone.pretrained to true, or freeze_epochs to 0"
        )
    devices, strategy = settings.trainer.devices, str((settings.trainer.model_extra or {}).get("strategy") or "auto")
    ranks = (devices if isinstance(devices, int) else 1) * settings.trainer.num_nodes
    if ranks > 1 and "find_unused_parameters_true" not in strategy:
        yield (
            f"trainer.strategy: {strategy} waits for gradients that frozen stages do not have; "
            "set it to ddp_find_unused_parameters_true"
        )


def _warm_start(settings: RunSettings, facts: Facts) -> Iterator[str]:
    model = settings.model
    if model.warm_start == "none":
        return
    if not model.backbone.pretrained:
        yield (
            f"model.warm_start: {model.warm_start} of a backbone with random weights{_why(settings)}; set "
            "model.backbone.pretrained to true, or warm_start to none"
        )
    if settings.ckpt_path is not None:
        yield (
            f"model.warm_start: {model.warm_start} would be ignored, because ckpt_path brings a classifier; leave one "
            "of them out"
        )
    if facts.dataset is None:
        return
    if not task_named(facts.dataset.task).calibrates:
        yield (
            f"model.warm_start: {model.warm_start} is for labels of whole images, those of {facts.dataset.name} are "
            f"{facts.dataset.task}; set it to none"
        )
    elif getattr(model.loss.of_task(facts.dataset.task), "cumulative", False):
        yield (
            f"model.warm_start: {model.warm_start} needs a logit for every class, the loss {model.loss.name} has one "
            "for all grades; set model.loss.name to cross_entropy, or warm_start to none"
        )


def _folds(settings: RunSettings, facts: Facts) -> Iterator[str]:
    yield from fold_problems(settings.data, whole=settings.tune.cross_validate)


def _held_out(split: str) -> Callable[[RunSettings, Facts], Iterator[str]]:
    """Return the rule that the networks of all folds together are not asked about images that some have learnt."""

    def rule(settings: RunSettings, facts: Facts) -> Iterator[str]:
        data = settings.data
        yield from fold_problems(data)
        if data.folds is not None and data.fold is None and split in FOLD_POOLS[data.fold_pool]:
            yield (
                f"data.folds: networks of this ensemble have learnt the images of the {split} split; out_of_fold.csv "
                "in its folder has what is said of each image by networks that have not"
            )

    return rule


EVALUATION_RULES: tuple[Callable[[RunSettings, Facts], Iterator[str]], ...] = (
    _dimensions,
    _resolution,
    _resize,
    _volumes,
    _precision,
)


def _frozen(settings: RunSettings, facts: Facts) -> Iterator[str]:
    """What gives features is not trained: its weights have to come from somewhere."""
    if settings.model.backbone.pretrained:
        yield from _pretrained_weights(settings, facts)
    elif (reason := settings.model.backbone._from_scratch) is not None:
        yield (
            f"model.backbone: {reason}, and random ones give no features; choose another backbone, name a file in "
            "model.backbone.weights, or a trained network with --run RUN"
        )
    else:
        yield (
            "model.backbone.pretrained: false leaves random weights, whose features say nothing; set it to true, or "
            "name a trained network with --run RUN"
        )


def _probed(settings: RunSettings, facts: Facts) -> Iterator[str]:
    if settings.probe.network is None:
        yield from _frozen(settings, facts)
    if facts.dataset is not None and not task_named(facts.dataset.task).calibrates:
        yield (
            f"data.dataset: the labels of {facts.dataset.name} are {facts.dataset.task}; a probe takes those of whole "
            "images"
        )
    if str(settings.trainer.precision) not in ("32-true", "32"):
        yield f"trainer.precision: {settings.trainer.precision!r}: a probe computes features in 32-true; leave it out"


_OF_STAGE = {
    "probe": (_folds, _monitor, _probed),
    "embed": (_folds, _frozen),
    "validate": (_held_out("val"), _evaluated_batches("val")),
    "test": (_held_out("test"), _evaluated_batches("test")),
    "predict": (_held_out("test"), _evaluated_batches("predict")),
}
RULES = (
    _folds,
    _learning_rates,
    _epochs,
    _trainer_flags,
    _cuda_graphs,
    _unread,
    _parts,
    _distillation,
    _loss,
    _monitor,
    _pretrained_weights,
    _constants,
    _freezing,
    _sharded,
    _warm_start,
    *EVALUATION_RULES,
    _steps_per_epoch,
)
