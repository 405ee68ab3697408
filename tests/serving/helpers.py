"""Pictures as they come in requests, and a network that needs no torch."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from visionforge.config.schema import ModelSettings
from visionforge.data.info import TaskSpec
from visionforge.inference.artifacts import ArtifactPredictor, Runtime
from visionforge.inference.contract import Contract
from visionforge.serving.network import ServedNetwork
from visionforge.serving.reading import ClassReader

CLASSES = ("ant", "<b>bee</b>", "cat")


class Stub:
    """Says of an image how bright it is, as the probability of its class; keeps the sizes of the batches.

    Args:
        wait: Called at the beginning of every pass.
    """

    def __init__(self, wait: Any = None) -> None:
        self.batches: list[int] = []
        self._wait = wait

    def answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(len(images))
        if self._wait is not None:
            self._wait()
        bright = images.reshape(len(images), -1).mean(axis=1).astype(np.float32) / 255
        rest = (1 - bright) / 2
        return {"probabilities": np.stack([bright, rest, rest], axis=1)}

    def network(self) -> ServedNetwork:
        """Return it as what is served."""
        contract = Contract(spec=TaskSpec(classes=CLASSES, channels=3, resolution=8), settings=ModelSettings())
        reader = ClassReader(ArtifactPredictor(Runtime(contract, self.answers)))
        return ServedNetwork("a <i>run</i>", contract.spec, {"name": "a <i>run</i>", **contract.as_text()}, reader)


def png(value: int = 200, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a grey picture."""
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


def files(*contents: bytes, names: Any = None) -> list[tuple[str, tuple[str, bytes]]]:
    """Return contents as the files of a request."""
    named = names or [f"{number}.png" for number in range(len(contents))]
    return [("files", (name, content)) for name, content in zip(named, contents, strict=True)]


def encoded(content: bytes) -> str:
    """Return base64."""
    return base64.b64encode(content).decode("ascii")
