"""The identity of a run: a digest of everything in its configuration that changes the result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from visionforge.redaction import redact_settings
from visionforge.runs.paths import is_anchored, portable

# Where a run happens, what it prints and how fast it loads; none of these changes a weight or a metric.
VOLATILE: dict[str, str] = {
    "benchmark": "what else is trained",
    "checkpoint_minutes": "how often it is saved",
    "data.cache": "how fast it loads",
    "data.download": "how the data got here",
    "data.num_workers": "how fast it loads; order and augmentation do not depend on it",
    "data.root": "where the data lies; the manifest has its MD5",
    "device_wait": "when it starts",
    "evaluation": "what is reported of the same network",
    "exclusive_device": "when it starts",
    "log_level": "what it prints",
    "resume": "whether it was interrupted",
    "trainer.accelerator": "where it runs",
    "trainer.default_root_dir": "where the run folder lies",
    "trainer.devices": "where it runs; their number, if above 1, goes in, because it multiplies the batch, unless "
    "`data.global_batch_size` says what it is",
    "trainer.enable_autolog_hparams": "what it logs",
    "trainer.enable_checkpointing": "what it saves",
    "trainer.enable_model_summary": "what it prints",
    "trainer.enable_progress_bar": "what it prints",
    "trainer.log_every_n_steps": "what it logs",
    "trainer.logger": "what it logs",
    "trainer.num_nodes": "where it runs; goes into the number of processes, like the devices",
    "trainer.num_sanity_val_steps": "what it prints",
    "trainer.profiler": "what it logs",
    "trainer.strategy": "where it runs",
    "tune": "what else is tried",
}
# What Lightning takes where nothing is said; written out here, so that the digest does not depend on its version.
NEUTRAL: dict[str, Any] = {
    "trainer.barebones": False,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.detect_anomaly": False,
    "trainer.fast_dev_run": False,
    "trainer.inference_mode": True,
    "trainer.max_steps": -1,
    "trainer.overfit_batches": 0.0,
    "trainer.reload_dataloaders_every_n_epochs": 0,
    "trainer.sync_batchnorm": False,
    "trainer.accumulate_grad_batches": 1,
    "trainer.use_distributed_sampler": True,
}
# What came later, with the value under which all is as before: runs of before keep their digest.
ADDED: dict[str, Any] = {
    "imports": [],
    "data.augmentation.dflip": 0.0,
    "data.augmentation.operations": [],
    "data.augmentation.vflip": 0.0,
    "data.fold": None,
    "data.fold_pool": "train+val",
    "data.fold_repeats": 1,
    "data.fold_seed": 42,
    "data.global_batch_size": None,
    "data.folds": None,
    "data.groups": True,
    "data.resize": {"size": None, "mode": "bilinear"},
    "data.sampler": {"name": "auto"},
    "model.backbone.normalisation": "dataset",
    "model.backbone.volume_convolution": "3d",
    "model.decoder": {"name": "unet", "dropout": 0.0, "width": 32},
    "model.detector": {
        "name": "fcos",
        "width": 64,
        "finest_stride": 4,
        "score_threshold": 0.05,
        "nms_iou": 0.6,
        "max_detections": 100,
        "depth": 2,
    },
    "model.compile": False,
    "model.cuda_graphs": False,
    "model.distillation": {"teacher": None, "weight": 1.0, "temperature": 1.0},
    "model.finetuning.batch_norm": "auto",
    "model.mixup.name": "mixup",
    "model.optimizer.rate_scaling": "none",
    "model.optimizer.reference_batch_size": 128,
    "model.monitor": None,
    "model.warm_start": "none",
}
# 1 is one batch, 1.0 is all of them: of these flags the type counts
LIMITS = (
    "trainer.limit_predict_batches",
    "trainer.limit_test_batches",
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.overfit_batches",
    "trainer.val_check_interval",
)
# What every kind of a component has once had, whether it read it or not: a digest covers it still
ONCE_COMMON: dict[str, dict[str, Any]] = {
    "model.optimizer": {"momentum": 0.9, "nesterov": False, "beta2": 0.999},
    "model.schedule": {
        "min_lr": 1e-6,
        "warmup_epochs": 0,
        "cosine_fraction": 1.0,
        "scheduler_patience": 5,
        "gamma": 0.1,
        "step_epochs": 30,
        "rise_fraction": 0.3,
    },
    "model.loss": {"focal_gamma": 2.0},
    "model.averaging": {"decay": 0.999, "start_epoch": 0},
}
# What a flag is called for short
ALIASES: dict[str, dict[Any, str]] = {
    "trainer.precision": {
        **dict.fromkeys((16, "16"), "16-mixed"),
        **dict.fromkeys((32, "32"), "32-true"),
        **dict.fromkeys((64, "64"), "64-true"),
        "bf16": "bf16-mixed",
    },
}
NAMED = ("model.backbone.weights", "model.distillation.teacher", "probe.network")  # paths or names, of a tag or a run
PATHS = ("ckpt_path", "data.root", *NAMED, "trainer.default_root_dir")  # settings that can be paths


def canonical(config: Mapping[str, Any], training: bool = True) -> str:
    """Return what identifies a configuration, as sorted JSON.

    Left out are the settings in `VOLATILE`, and Trainer flags that are null or have the value in `NEUTRAL`: a new flag
    of a later Lightning must not change the digest. Numbers have their shortest form, so that 1 and 1.0 are the same;
    paths are relative to their anchors. Secrets do not count, since no stored configuration has them.

    Args:
        config: Nested settings.
        training: The number of processes counts, unless `data.global_batch_size` says how many images they have
            together; the results of an evaluation do not depend on it.
    """
    config = redact_settings(config)
    kept = _kept(config)
    trainer, data = config.get("trainer"), config.get("data")
    processes = processes_of(trainer if isinstance(trainer, Mapping) else {})
    whole = isinstance(data, Mapping) and data.get("global_batch_size") is not None  # whoever shares its images
    if training and processes is not None and not whole:
        kept["processes"] = processes
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _kept(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if (
            path in VOLATILE
            or (path in ADDED and (list(value) if isinstance(value, tuple) else value) == ADDED[path])
            or (value is None and prefix in ("", "trainer.") and NEUTRAL.get(path) is None)
        ):
            continue
        if path in NEUTRAL and value == NEUTRAL[path]:
            continue
        if path in LIMITS and isinstance(value, int | float) and not isinstance(value, bool):
            if not (isinstance(value, float) and value == 1.0):  # as where nothing is said
                kept[key] = value
            continue
        if isinstance(value, Mapping):
            kept[key] = _kept({**ONCE_COMMON.get(path, {}), **value}, f"{path}.")
        elif path in PATHS and isinstance(value, str):
            kept[key] = anchored(value)
        else:
            aliases = ALIASES.get(path, {})
            kept[key] = aliases.get(value, value) if aliases and isinstance(value, int | str) else _shortest(value)
    return kept


def _shortest(value: Any) -> Any:
    """Return a value in which whole floats are integers, at any depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_shortest(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _shortest(item) for key, item in value.items()}
    return value


def anchored(text: str) -> str:
    """Return a path relative to its anchor; text that is no path, such as a tag or an address, stays as it is."""
    if text.startswith(("hf-hub:", "package:")):
        return text
    is_path = "/" in text or "\\" in text or text.startswith("~") or text.endswith((".pth", ".safetensors", ".ckpt"))
    is_address = "://" in text and not is_anchored(text)
    if not is_path or is_address:
        return text
    try:
        return portable(text)
    except RuntimeError:  # below the home folder of somebody whom this machine does not know
        return text


def with_images_of_step(config: Mapping[str, Any], processes: int | None = None) -> dict[str, Any]:
    """Return a configuration that says how many images all processes have together, and not how many each has.

    Args:
        config: Nested settings.
        processes: How many there are; None takes what the settings fix, or else one.
    """
    given, trainer = config.get("data"), config.get("trainer")
    if not isinstance(given, Mapping):  # of a run folder that says anything
        return dict(config)
    data = {key: value for key, value in given.items() if key != "batch_size"}
    size = given.get("batch_size")
    if data.get("global_batch_size") is None and isinstance(size, int):
        count = processes or processes_of(trainer if isinstance(trainer, Mapping) else {}) or 1
        data["global_batch_size"] = size * count
    return {**config, "data": data}


def processes_of(trainer: Mapping[str, Any]) -> int | None:
    """Return the number of training processes if the settings fix one above 1; otherwise it is up to the machine."""
    devices = trainer.get("devices", "auto")
    if isinstance(devices, str):
        names = [name for name in devices.split(",") if name.strip()]
        number = devices.strip().lstrip("-")
        devices = names if "," in devices else int(devices) if number.isdecimal() and len(number) < 10 else "auto"
    count = len(devices) if isinstance(devices, list | tuple) else devices if isinstance(devices, int) else 1
    nodes = trainer.get("num_nodes")
    total = max(1, count) * (nodes if isinstance(nodes, int) else 1)
    return total if total > 1 else None


def with_portable_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose paths are relative to their anchors, as it is saved."""

    def walk(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in tree.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping):
                result[key] = walk(value, f"{path}.")
            elif path in PATHS and isinstance(value, str):
                # a folder setting is a path whatever it looks like
                result[key] = anchored(value) if path in NAMED else portable(value)
            else:
                result[key] = value
        return result

    return walk(config, "")


def digest(config: Mapping[str, Any], training: bool = True) -> str:
    """Return six hexadecimal digits that identify a configuration: its 3-byte BLAKE2b digest; see `canonical`."""
    return six_digits(canonical(config, training))


def six_digits(text: str) -> str:
    """Return the 3-byte BLAKE2b digest of a text as hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
