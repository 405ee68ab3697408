"""Memory and speed of a training whose processes share a network, beside one in which each has its own.

    python -m benchmarks.fully_shard [--backbone torchvision/wide_resnet101_2] [--processes 2] [--rounds 3]
    python -m benchmarks.fully_shard --checkpoints

A few steps of AdamW on random images, in processes that the command starts, in turn with `ddp` and with `fully_shard`.
Memory is the most that the first process has in the later steps, above what it had before its network was built: on a
GPU that of the device, on a CPU that of the process, whose allocator returns what is freed.

With ``--checkpoints``: what the sharded training writes, as the whole file that it does write, and as torch's
distributed checkpoint, to which each process writes its part, with and without making one file of it afterwards.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS, UNTIMED = 6, 2  # of which the first are not timed
MIB = 2**20
CHILD = """
import json, pathlib, sys, threading, time
import lightning.pytorch as pl
import psutil
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.utils.data import DataLoader, TensorDataset
from visionforge import ImageClassifier, TaskSpec
from visionforge.training import fully_shard
from visionforge.training.checkpoints import WholeFiles

CPU = torch.device("cpu")

def memory(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss

class Writes(pl.Callback):  # what there is after the last step, in turn
    def __init__(self, folder, steps, rounds):
        self.folder, self.steps, self.rounds, self.found = folder, steps, rounds, []

    def measured(self, name, work):
        ended, least, most = threading.Event(), memory(CPU), [0]
        def look():
            while not ended.wait(0.005):
                most[0] = max(most[0], memory(CPU))
        watch = threading.Thread(target=look)
        torch.distributed.barrier()
        watch.start()
        started = time.perf_counter()
        work()
        torch.distributed.barrier()
        self.found.append({"name": name, "s": time.perf_counter() - started, "bytes": max(most[0] - least, 0)})
        ended.set()
        watch.join()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 < self.steps:
            return
        for turn in range(self.rounds):
            whole, parts = self.folder / f"{turn}.ckpt", self.folder / f"{turn}.parts"
            state = {"model": module.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}
            self.measured("gathered, not written", lambda: trainer._checkpoint_connector.dump_checkpoint(False))
            self.measured("a whole file", lambda: trainer.save_checkpoint(whole))
            self.measured("a part of each process", lambda: dcp.save(state, checkpoint_id=parts))
            if trainer.is_global_zero:
                began = time.perf_counter()
                dcp_to_torch_save(parts, self.folder / "made.pt")
                self.found.append({"name": "the parts made one file", "s": time.perf_counter() - began, "bytes": 0})
            torch.distributed.barrier()

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
    strategy, processes, backbone, steps, untimed, out, writes = sys.argv[1:]
    writes = int(writes)
    torch.set_num_threads(1)
    processes, steps, untimed = int(processes), int(steps), int(untimed)
    images = torch.randn(8 * processes * steps, 3, 32, 32)
    data = DataLoader(TensorDataset(images, torch.arange(len(images)) % 4), batch_size=8)
    looks = Writes(pathlib.Path(out).parent, steps, writes) if writes else Steps()
    trainer = pl.Trainer(devices=processes, strategy=strategy, max_epochs=1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, callbacks=[looks],
                         plugins=[WholeFiles()])
    before = memory(trainer.strategy.root_device)
    model = ImageClassifier(backbone={"name": backbone, "pretrained": False},
                            optimizer="adamw", spec=TaskSpec(classes=4, resolution=32))
    trainer.fit(model, data)
    if writes:
        if trainer.is_global_zero:
            with open(out, "w") as file:
                json.dump(looks.found, file)
    elif trainer.is_global_zero:
        ends = looks.ends[untimed - 1:]
        found = {"bytes": looks.most - before, "s": (ends[-1] - ends[0]) / (len(ends) - 1),
                 "parameters": sum(p.numel() for p in model.parameters())}
        with open(out, "w") as file:
            json.dump(found, file)
"""


def measure(folder: Path, strategy: str, processes: int, backbone: str, *, writes: int = 0) -> Any:
    """Return bytes, seconds a step, and the parameters of one training; or what so many of its checkpoints cost."""
    script, out = folder / "child.py", folder / "out.json"
    script.write_text(CHILD)
    arguments = [strategy, str(processes), backbone, str(STEPS), str(UNTIMED), str(out), str(writes)]
    returning = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True, env=returning)
    return json.loads(out.read_text())


def write_checkpoints(folder: Path, processes: int, backbone: str, rounds: int) -> None:
    """Measure what checkpoints cost, and print the table."""
    rows = measure(folder, "fully_shard", processes, backbone, writes=rounds)
    print("| checkpoint | s: median (range) | MiB more in the first process: median |\n|---|---|---|")
    for name in dict.fromkeys(row["name"] for row in rows):
        seconds = sorted(row["s"] for row in rows if row["name"] == name)
        more = statistics.median(row["bytes"] / MIB for row in rows if row["name"] == name)
        shown = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"
        print(f"| {name} | {shown} | {f'{more:,.0f}' if more else ''} |")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="torchvision/wide_resnet101_2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", action="store_true", help="measure what is written instead")
    given = parser.parse_args()
    if given.checkpoints:
        with tempfile.TemporaryDirectory() as temporary:
            return write_checkpoints(Path(temporary), given.processes, given.backbone, given.rounds)
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
