"""Training with parameters, gradients and optimiser state divided among processes, by torch's `fully_shard`.

A parameter's rows lie on as many devices as train together; a part of the network has its whole parameters only while
it computes (Zhao et al., 2023, arXiv:2304.11277; Rajbhandari et al., 2020, arXiv:1910.02054, stage 3). What is computed
is what data-parallel training computes, and so is what is written: checkpoints hold whole tensors, of weights and of
the optimiser, and go on with any other number of processes, sharded or not.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor, nn

from visionforge.config.rules import FULLY_SHARD as NAME
from visionforge.errors import SettingsError
from visionforge.training.shards import is_shard, shard_like, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LEAST = 1_000_000  # parameters of a part that is gathered by itself; smaller ones are not worth a message


class FullyShardStrategy(DDPStrategy):
    """Data-parallel training whose processes share the memory of a network.

    While it trains, every direct child of the LightningModule that has parameters is sharded, its larger parts by
    themselves: members of `nn.Sequential` and `nn.ModuleList`, which are called one after the other. Before it, and
    after it, the module is whole, so that a test and predictions are those of `ddp`. A validation within it gathers the
    whole network once, because processes may have different numbers of batches.

    ``Trainer(strategy="fully_shard")`` takes it by its name once `visionforge.training.fully_shard` is imported.

    Args:
        least_parameters: Of a part that is gathered by itself.
        arguments: Those of Lightning's `DDPStrategy`.

    Raises:
        SettingsError: When a training begins, if the module has parameters of its own, beside those of its children, or
            children that are lists; if a parameter is a single number; if weights are averaged; before torch 2.8.
    """

    strategy_name = NAME

    def __init__(self, *, least_parameters: int = LEAST, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._least = least_parameters
        self._whole: dict[str, nn.Module] = {}  # children of the module as they were, without memory
        self._mesh: DeviceMesh | None = None

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Leave Lightning's names as they are."""

    def configure_ddp(self) -> None:
        """Shard instead of wrapping; the optimiser is made afterwards."""
        module = self.lightning_module
        assert module is not None
        _check(module)
        _sync_module_states(module)  # every process keeps a part of its own weights
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if self._mesh is None:
            self._mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for name, child in module.named_children():
            if next(child.parameters(), None) is None:
                continue
            self._whole[name] = _without_memory(child)
            for parameter in child.parameters():
                parameter.data = parameter.data.contiguous()  # a shard is some of its first dimension
            for part in (*_parts(child, self._least), child):
                fully_shard(part, mesh=self._mesh)
        if self.root_device.type == "cpu":  # gloo has no mean
            for part in self._sharded():
                part.set_force_sum_reduction_for_comms(True)

    def _sharded(self) -> Iterator[Any]:
        from torch.distributed.fsdp import FSDPModule

        assert self.lightning_module is not None
        return (part for part in self.lightning_module.modules() if isinstance(part, FSDPModule))

    # --- validation

    def on_validation_start(self) -> None:
        """Gather the whole network; its buffers become those of the first process, which are what is saved."""
        if self._whole and self.world_size > 1:
            assert self.lightning_module is not None
            _sync_buffers(self.lightning_module)
        with _outside_inference():
            for part in self._sharded():
                part.unshard()
                part.set_reshard_after_forward(False, recurse=False)

    def on_validation_end(self) -> None:
        """Let every process have its part again."""
        with _outside_inference():
            for part in self._sharded():
                part.set_reshard_after_forward(True, recurse=False)
                part.reshard()

    # --- whole tensors for checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights, on the CPU; of other processes than the first nothing, as they do not write."""
        assert self.lightning_module is not None
        state: dict[str, Any] = self.lightning_module.state_dict()
        return self._gathered(state) if self._whole else state

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimiser, as the first process alone would have it."""
        content: dict[str, Any] = super().optimizer_state(optimizer)
        return {**content, "state": {k: self._gathered(v) for k, v in content["state"].items()}}

    def _gathered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values with whole tensors on the CPU, one after the other; only the first process keeps them."""
        found = {}
        for name, value in values.items():
            gathered = whole(value).cpu() if is_shard(value) else value
            if self.is_global_zero:
                found[name] = gathered
        return found

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up whole state: each process its part."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
            groups = [{**theirs, "fused": own["fused"]} if "fused" in own else theirs for theirs, own in pairs]
            states.append({"state": self._distributed(optimizer, state["state"]), "param_groups": groups})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def _distributed(self, optimizer: torch.optim.Optimizer, state: Mapping[int, Any]) -> dict[int, Any]:
        parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
        found: dict[int, Any] = {}
        for place, values in state.items():
            parameter = parameters[place]
            found[place] = {
                name: shard_like(value.to(self.root_device), parameter)
                if is_shard(parameter) and isinstance(value, Tensor) and value.shape == parameter.shape
                else value
                for name, value in values.items()
            }
        return found

    # --- the end

    def on_train_end(self) -> None:
        """Make the module whole on every process."""
        self._make_whole()

    def teardown(self) -> None:
        """Make the module whole, unless somebody has failed, for whom the others would wait."""
        module = self.lightning_module
        if module is not None and module.trainer.state.status != TrainerStatus.INTERRUPTED:
            self._make_whole()
        self._whole = {}
        super().teardown()

    def _make_whole(self) -> None:
        module, children, self._whole = self.lightning_module, self._whole, {}
        if module is None:
            return
        for name, own in children.items():
            sharded: nn.Module = getattr(module, name)
            own.to_empty(device=self.root_device)
            places = own.state_dict(keep_vars=True)
            buffers = dict(own.named_buffers())
            with torch.no_grad():
                for key, value in sharded.state_dict().items():
                    places[key].copy_(whole(value))
                for key, value in sharded.named_buffers():  # also of those that no state has
                    buffers[key].copy_(value)
            setattr(module, name, own.train(sharded.training))


@contextmanager
def _outside_inference() -> Iterator[None]:
    """Let what is gathered be plain tensors, which a training step may change, also where a GPU validates."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _check(module: pl.LightningModule) -> None:
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise SettingsError(
            f"trainer.strategy: {NAME} needs torch 2.8 or later, this is {torch.__version__}; set it to ddp"
        )
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if own:
        raise SettingsError(
            f"trainer.strategy: {NAME} shards the children of a module, and {type(module).__name__} has parameters of "
            f"its own ({', '.join(own[:3])}); put them into a child, or set the strategy to ddp"
        )
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) and next(child.parameters(), None) is not None:
            raise SettingsError(
                f"trainer.strategy: {NAME} shards modules that are called, and {name} is a {type(child).__name__}; put "
                "it into a module of its own, or set the strategy to ddp"
            )
    if scalars := [name for name, parameter in module.named_parameters() if parameter.ndim == 0]:
        raise SettingsError(
            f"trainer.strategy: {NAME} cannot divide a single number ({', '.join(scalars[:3])}); give it one "
            "dimension, or set the strategy to ddp"
        )
    callbacks: list[object] = module.trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise SettingsError(f"trainer.strategy: {NAME} has no averaged weights; leave them out, or set it to ddp")


def _without_memory(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose tensors have their shapes, and no content."""
    tensors = (*module.parameters(), *module.buffers())
    empty: dict[int, Any] = {}
    for tensor in tensors:
        bare = torch.empty_like(tensor, device="meta")
        empty[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare
    return copy.deepcopy(module, empty)


def _parts(module: nn.Module, least: int) -> list[nn.Module]:
    """Return what is gathered by itself, inner parts first: members of sequences with so many parameters."""
    found: list[nn.Module] = []
    taken: set[nn.Parameter] = set()

    def look(parent: nn.Module) -> None:
        for child in parent.children():
            look(child)
            free = [p for p in child.parameters() if p not in taken]
            in_turn = isinstance(parent, nn.Sequential | nn.ModuleList)
            is_called = not isinstance(child, nn.ModuleList | nn.ModuleDict)
            if in_turn and is_called and sum(p.numel() for p in free) >= least:
                found.append(child)
                taken.update(free)

    look(module)
    return found


def _sync_buffers(module: nn.Module) -> None:
    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, src=0)


if NAME not in StrategyRegistry:
    StrategyRegistry.register(
        NAME,
        FullyShardStrategy,
        description="Parameters, gradients and optimiser state divided among processes, by torch's fully_shard",
    )
