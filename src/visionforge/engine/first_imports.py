"""The imports of a training, which take seconds: made where they are needed, and as fast as they can be."""

import gc
import sys


def import_lightning() -> None:
    """Import torch and Lightning without the garbage collector.

    It would look at some hundred thousand new objects again and again, none of which can be freed, for a fifth of the
    time. To be called by functions that import them for the first time in most processes; in others it does nothing.
    """
    if "lightning.pytorch" in sys.modules:
        return
    fresh, enabled = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        import lightning.pytorch  # noqa: F401

        import visionforge.engine.stage  # noqa: F401
    finally:
        if fresh:  # nobody has tensors yet, of which one could hang on a cycle that is garbage
            gc.freeze()  # else the next collection looks at all of them, for half a second
        if enabled:
            gc.enable()
