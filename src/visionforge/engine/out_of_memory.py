"""Whether an error says that memory ran out; nothing of it needs torch."""

import sys

from visionforge.errors import TrainingError


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the device or of the machine; also of what it was translated to."""
    if isinstance(error, TrainingError) and error.__cause__ is not None:
        return is_out_of_memory(error.__cause__)
    torch = sys.modules.get("torch")  # nobody else raises its error
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
