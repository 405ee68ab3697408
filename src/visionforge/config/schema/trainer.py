"""The Trainer's flags that are bounded or have a default of their own."""

from typing import Literal

from pydantic import ConfigDict, Field

from visionforge.config.schema.base import Exact


class TrainerSettings(Exact):
    """The Trainer flags that visionforge bounds or gives a default; all other Trainer flags pass through."""

    model_config = ConfigDict(frozen=True, extra="allow")

    max_epochs: int = Field(
        default=60, ge=1, le=1000, description="Training epochs.", json_schema_extra={"unit": "epochs"}
    )
    accelerator: str = Field(default="auto", description="cpu, gpu, mps, …; auto takes the best one present.")
    devices: int | str | list[int] = Field(default="auto", description="Number or list of devices.")
    num_nodes: int = Field(default=1, ge=1, description="Machines.")
    precision: int | str | None = Field(
        default="32-true",
        description="Numeric precision; 16-mixed needs a GPU; auto is bf16-mixed where the device is faster in it, "
        "else 32-true.",
    )
    deterministic: bool | Literal["warn"] | None = Field(
        default=False, description="Bit-identical repeats, at the price of slower kernels."
    )
    accumulate_grad_batches: int = Field(
        default=1,
        ge=1,
        description="Batches whose mean gradient is one optimiser step; the last group of an epoch has fewer.",
    )
    gradient_clip_val: float | None = Field(
        default=None, ge=0.0, description="Largest gradient; null and 0 clip nothing."
    )
