"""Images per second brought from 28 to 224 pixels as whole batches, against torchvision on the same batch.

Both are given normalised float32 images in memory and interpolate with the same kernel; the results are compared first.
"grey" are grey images that fill three channels without being copied, as most small data sets are read: ours resizes one
channel and lets it fill all, torchvision does not know. One thread on a CPU.

    python benchmarks/resize.py [--rounds 11] [--device cpu] [--size 224]
"""

import argparse
from collections.abc import Callable

import torch
from timing import rates, ratio, summary
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from visionforge.config.schema import Resize
from visionforge.data.resizing import Resizing

BATCH, RESOLUTION = 128, 28
CONSTANTS = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def timed(function: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Callable[[], int]:
    def work() -> int:
        function(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        return len(images)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {options.device}, {RESOLUTION} to {options.size} pixels, batches of {BATCH}")
    print("| kernel | images | visionforge, images/s: median (range) | torchvision v2 | ours is faster by |")
    print("|---|---|---|---|---|")
    for mode in ("bilinear", "bicubic"):
        module = Resizing(Resize(size=options.size, mode=mode), RESOLUTION, *CONSTANTS, 2).to(options.device)
        way = InterpolationMode(mode)

        def theirs(images: torch.Tensor, way: InterpolationMode = way) -> torch.Tensor:
            return transforms.resize(images, [options.size, options.size], way)

        colour = torch.randn(BATCH, 3, RESOLUTION, RESOLUTION, device=options.device)
        for name, images in (("colour", colour), ("grey", colour[:, :1].expand(-1, 3, -1, -1))):
            torch.testing.assert_close(module(images), theirs(images), atol=1e-4, rtol=0)
            found = rates({"ours": timed(module, images), "theirs": timed(theirs, images)}, options.rounds)
            ours, others = found["ours"], found["theirs"]
            print(f"| {mode} | {name} | {summary(ours)} | {summary(others)} | {ratio(ours, others)} |", flush=True)


if __name__ == "__main__":
    main()
