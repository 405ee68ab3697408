"""Memory and speed of a training whose processes share a network, beside one in which each has its own.

    python -m benchmarks.fully_shard [--backbone torchvision/wide_resnet101_2] [--processes 2] [--rounds 3]

A few steps of AdamW on random images, in processes that the command starts, in turn with `ddp` and with `fully_shard`.
Memory is the most that the first process has in the later steps, above what it had before its network was built: on a
GPU that of the device, on a CPU that of the process, whose allocator returns what is freed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS, UNTIMED = 6, 2  # of which the first are not timed
MIB = 2**20
CHILD = """
import json, sys, time
import lightning.pytorch as pl
import psutil
import torch
from torch.utils.data import DataLoader, TensorDataset
from visionforge import ImageClassifier, TaskSpec
from visionforge.training import fully_shard

def memory(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss

class Steps(pl.Callback):
    ends, most = [], 0
    def look(self, trainer):
        self.most = max(self.most, memory(trainer.strategy.root_device))
    def on_before_backward(self, trainer, module, loss):
        self.look(trainer)
    def on_after_backward(self, trainer, module):
        self.look(trainer)
    def on_train_batch_end(self, trainer, module, *rest):
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
            if not self.ends:
                torch.cuda.reset_peak_memory_stats()
        self.look(trainer)
        self.ends.append(time.perf_counter())

if __name__ == "__main__":
    strategy, processes, backbone, steps, untimed, out = sys.argv[1:]
    torch.set_num_threads(1)
    processes, steps, untimed = int(processes), int(steps), int(untimed)
    images = torch.randn(8 * processes * steps, 3, 32, 32)
    data = DataLoader(TensorDataset(images, torch.arange(len(images)) % 4), batch_size=8)
    looks = Steps()
    trainer = pl.Trainer(devices=processes, strategy=strategy, max_epochs=1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, callbacks=[looks])
    before = memory(trainer.strategy.root_device)
    model = ImageClassifier(backbone={"name": backbone, "pretrained": False},
                            optimizer="adamw", spec=TaskSpec(classes=4, resolution=32))
    trainer.fit(model, data)
    if trainer.is_global_zero:
        ends = looks.ends[untimed - 1:]
        found = {"bytes": looks.most - before, "s": (ends[-1] - ends[0]) / (len(ends) - 1),
                 "parameters": sum(p.numel() for p in model.parameters())}
        with open(out, "w") as file:
            json.dump(found, file)
"""


def measure(folder: Path, strategy: str, processes: int, backbone: str) -> dict[str, float]:
    """Return bytes, seconds a step, and the parameters of one training."""
    script, out = folder / "child.py", folder / "out.json"
    script.write_text(CHILD)
    arguments = [strategy, str(processes), backbone, str(STEPS), str(UNTIMED), str(out)]
    returning = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True, env=returning)
    return dict(json.loads(out.read_text()))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="torchvision/wide_resnet101_2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"ddp": [], "fully_shard": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for strategy, rows in found.items():
                rows.append(measure(Path(folder), strategy, given.processes, given.backbone))
    print(f"{given.backbone}, {found['ddp'][0]['parameters'] / 1e6:.0f} million parameters, AdamW\n")
    print("| strategy | MiB of a process: median (range) | s a step: median (range) |\n|---|---|---|")
    for strategy, rows in found.items():
        memory, seconds = sorted(row["bytes"] / MIB for row in rows), sorted(row["s"] for row in rows)
        print(
            f"| `{strategy}` | {statistics.median(memory):,.0f} ({memory[0]:,.0f} to {memory[-1]:,.0f}) "
            f"| {statistics.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) |"
        )


if __name__ == "__main__":
    main()
