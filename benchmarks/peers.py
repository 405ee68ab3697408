"""How others train: a bare loop, plain Lightning, and a script of one image at a time.

Run as a script it is a whole training with plain Lightning, from the imports to the test's AUC and accuracy:

    python -m benchmarks.peers --epochs 5 --archive FILE.npz
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

BATCH = 128


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images (N, C, H, W) as floats around zero."""
    return images.float().div(255).sub(0.5).div(0.5)


def quiet_trainer(device: str, epochs: int, **flags: Any) -> pl.Trainer:
    """Return a Trainer for one device that writes and says nothing."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # of devices and tips, each round
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )


def bare_epoch(network: nn.Module, images: Tensor, labels: Tensor, device: str) -> Callable[[], int]:
    """Return an epoch of a loop with nothing in it: one tensor on the device, channels last, SGD."""
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    pixels = normalised(images).to(device, memory_format=torch.channels_last)
    truth = labels.to(device)

    def epoch() -> int:
        order = torch.randperm(len(pixels), device=device)
        for start in range(0, len(pixels) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            optimizer.zero_grad()
            F.cross_entropy(network(pixels[chosen]), truth[chosen]).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return len(pixels) // BATCH * BATCH

    return epoch


def graphed_epochs(
    network: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], epochs: int, device: str
) -> Callable[[], int]:
    """Return epochs of a loop by hand, each with a validation, whose whole step is one CUDA graph; none on a CPU.

    Images lie on the device as bytes; a step gathers, mirrors and normalises them, in bfloat16, by SGD.
    """
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    pixels, truth, val_pixels, val_truth = (each.to(device) for each in (*train, *val))
    chosen = torch.zeros(BATCH, dtype=torch.int64, device=device)
    total = torch.zeros((), device=device)

    def step() -> None:
        images = normalised(pixels[chosen])
        mirrored = torch.rand(BATCH, 1, 1, 1, device=device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images).to(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(network(images), truth[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        total.add_(loss.detach())

    run = _captured(step) if device == "cuda" else step

    def all_epochs() -> int:
        for _ in range(epochs):
            order = torch.randperm(len(pixels), device=device)
            for start in range(0, len(pixels) - BATCH + 1, BATCH):
                chosen.copy_(order[start : start + BATCH])
                run()
            network.eval()
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                parts = zip(val_pixels.split(BATCH), val_truth.split(BATCH), strict=True)
                outputs = [(network(normalised(images)), labels) for images, labels in parts]
                float(sum((logits.argmax(1) == labels).sum() for logits, labels in outputs))
            network.train()
        float(total)  # waits for the device
        return epochs * (len(pixels) // BATCH * BATCH)

    return all_epochs


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step as one CUDA graph, after three by which libraries choose their kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Plain(pl.LightningModule):
    """A module as tutorials write it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.outputs: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("loss", loss, prog_bar=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self.network(images), labels))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the probabilities."""
        self.outputs.append(self.network(batch[0]).softmax(dim=1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def lightning_epoch(network: nn.Module, images: Tensor, labels: Tensor, device: str) -> Callable[[], int]:
    """Return an epoch of a Trainer over a `TensorDataset`, without augmentation."""
    module = Plain(network)
    loader = DataLoader(TensorDataset(normalised(images), labels), BATCH, shuffle=True, drop_last=True)

    def epoch() -> int:
        quiet_trainer(device, 1).fit(module, loader)
        return len(images) // BATCH * BATCH

    return epoch


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """Images as arrays, each made a picture, a tensor and normalised when it is asked for; and labels (1,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), torch.tensor([self.labels[index]])


def script_epoch(network: nn.Module, images: Tensor, labels: Tensor, device: str) -> Callable[[], int]:
    """Return an epoch as MedMNIST's authors describe theirs: one image at a time, Adam, channels first."""
    network = network.to(device).train()
    dataset = OneByOne(images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy())
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)

    def epoch() -> int:
        losses = []
        for pixels, truth in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(pixels.to(device)), truth.squeeze(1).long().to(device))
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
        return len(losses) * BATCH

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc

    from benchmarks.suite import network_of

    arrays = np.load(options.archive)
    sets = {}
    for split in ("train", "val", "test"):
        images = torch.from_numpy(arrays[f"{split}_images"])
        images = images.permute(0, 3, 1, 2) if images.ndim == 4 else images[:, None].expand(-1, 3, -1, -1)
        sets[split] = TensorDataset(normalised(images), torch.from_numpy(arrays[f"{split}_labels"]).long().squeeze(1))
    classes = int(sets["train"].tensors[1].max()) + 1
    pl.seed_everything(42)
    module = Plain(network_of("mini_cnn", classes))
    root = Path(options.archive).parent  # of its checkpoint
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        logger=False,
        default_root_dir=root,
    )
    train, val = DataLoader(sets["train"], BATCH, shuffle=True), DataLoader(sets["val"], BATCH)
    trainer.fit(module, train, val)
    trainer.test(module, DataLoader(sets["test"], BATCH), verbose=False)
    said, truth = torch.cat(module.outputs), sets["test"].tensors[1]
    auc, accuracy = multiclass_auroc(said, truth, classes), multiclass_accuracy(said, truth, classes, average="micro")
    print(f"AUC {auc:.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
