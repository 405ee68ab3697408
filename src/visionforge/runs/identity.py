"""The identity of a run: a digest of everything in its configuration that changes the result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Where a run happens, what it prints and how fast it loads; none of these changes a weight or a metric.
VOLATILE = frozenset(
    {
        "ckpt_path",
        "data.cache",
        "data.download",
        "data.num_workers",
        "data.root",
        "trainer.accelerator",
        "trainer.default_root_dir",
        "trainer.devices",
        "trainer.enable_autolog_hparams",
        "trainer.enable_checkpointing",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
        "trainer.log_every_n_steps",
        "trainer.logger",
        "trainer.num_nodes",
        "trainer.num_sanity_val_steps",
        "trainer.profiler",
        "trainer.strategy",
    }
)


def canonical(config: Mapping[str, Any]) -> str:
    """Return the configuration without its volatile settings as sorted JSON with floats in their shortest form."""
    return json.dumps(_without_volatile(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _without_volatile(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path not in VOLATILE:
            kept[key] = _without_volatile(value, f"{path}.") if isinstance(value, Mapping) else value
    return kept


def digest(config: Mapping[str, Any]) -> str:
    """Return six hexadecimal digits that identify a configuration: its 3-byte BLAKE2b digest."""
    return hashlib.blake2b(canonical(config).encode(), digest_size=3).hexdigest()
