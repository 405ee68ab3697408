"""What a fit gets around its training."""

import pytest
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from visionforge.engine.callbacks import checkpoint_plugins
from visionforge.engine.construction import as_list
from visionforge.training.checkpoints import WholeFiles


@pytest.mark.parametrize(
    ("strategy", "ours"),
    [
        ("auto", True),
        ("ddp", True),
        (DDPStrategy(), True),
        ("fsdp", False),
        (FSDPStrategy(), False),
        ("deepspeed", False),
    ],
)
def test_strategies_that_shard_write_their_own_checkpoints(strategy, ours):
    assert [type(plugin) for plugin in checkpoint_plugins(strategy)] == ([WholeFiles] if ours else [])


@pytest.mark.parametrize(("value", "found"), [(None, []), (True, []), ("a", ["a"]), (["a", "b"], ["a", "b"])])
def test_flags_that_take_one_or_several(value, found):
    assert as_list(value) == found
