"""How others train: a bare loop, plain Lightning, and a script of one image at a time.

Run as a script it is a whole training with plain Lightning, from the imports to the test's AUC and accuracy:

    python -m benchmarks.peers --epochs 5 --archive FILE.npz
"""

import argparse
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
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
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
