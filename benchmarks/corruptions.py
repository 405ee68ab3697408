"""Images per second of every corruption of `visionforge robustness`, at severity 3, in batches of 128 rendered images.

OMP_NUM_THREADS=1 python benchmarks/corruptions.py [--rounds 5] [--device cuda]
"""

import argparse
from collections.abc import Callable

import torch
from timing import rates, summary

from visionforge.data.corrupting import corrupted
from visionforge.data.corruption import Corruption, corruption_names
from visionforge.data.datamodule import ImageDataModule

BATCH, SEVERITY, SIZES = 128, 3, (28, 64)


def work_of(name: str, images: torch.Tensor) -> Callable[[], int]:
    """Return what is timed: one batch through a corruption."""
    corruption = Corruption(name=name)
    severity = min(SEVERITY, len(corruption.severities))

    def work() -> int:
        corrupted(images, corruption, severity, range(len(images)))
        if images.is_cuda:
            torch.cuda.synchronize()
        return len(images)

    return work


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    found: dict[int, dict[str, list[float]]] = {}
    for size in SIZES:
        module = ImageDataModule("synthetic", resolution=size, synthetic={"test": BATCH})
        images = module.dataset_for("test").images.to(options.device)
        found[size] = rates({name: work_of(name, images) for name in corruption_names()}, options.rounds)
    lines = [f"| corruption | {' | '.join(f'{size} pixels, images/s' for size in SIZES)} |", "|---|---|---|"]
    lines += [f"| `{n}` | {' | '.join(summary(found[size][n]) for size in SIZES)} |" for n in corruption_names()]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
