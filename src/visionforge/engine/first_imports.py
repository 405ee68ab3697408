"""The imports of a training, which take seconds: made where they are needed, and as fast as they can be."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROCESSES = ("torch.distributed.distributed_c10d", "torch.nn.parallel.distributed")


def import_lightning() -> None:
    """Import torch and Lightning without the garbage collector.

    It would look at some hundred thousand new objects again and again, none of which can be freed, for a fifth of the
    time. To be called by functions that import them for the first time in most processes.
    """
    if "lightning.pytorch" in sys.modules:
        _quiet_processes()
        return
    with _uncollected():
        import lightning.pytorch  # noqa: F401

        import visionforge.engine.stage  # noqa: F401

        _quiet_processes()


def import_torch() -> None:
    """Import torch, and what asks a network, without the garbage collector; see `import_lightning`."""
    with _uncollected():
        import visionforge.inference.predictor
        import visionforge.training.trained_network  # noqa: F401


@contextmanager
def _uncollected() -> Iterator[None]:
    fresh, enabled = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if fresh:  # nobody has tensors yet, of which one could hang on a cycle that is garbage
            gc.freeze()  # else the next collection looks at all of them, for half a second
        if enabled:
            gc.enable()


def _quiet_processes() -> None:
    """Leave out which backend every process group has, unless $TORCH_LOGS or a level of the caller asks for it."""
    if "TORCH_LOGS" not in os.environ:
        for logger in map(logging.getLogger, _PROCESSES):
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.WARNING)
