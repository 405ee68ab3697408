"""A compiled training: the same numbers, two graphs and no third, and a network that is itself again."""

import lightning.pytorch as pl
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.conftest import flags, run_folders
from visionforge import ImageClassifier, ImageDataModule
from visionforge.cli.main import main
from visionforge.training import compiled

IMAGES = {"train": 64, "val": 32, "test": 32}


def trained(**settings):
    pl.seed_everything(3)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    model = ImageClassifier(backbone="mini_cnn", **settings)
    data = ImageDataModule(dataset="synthetic", synthetic=IMAGES, batch_size=16)
    trainer.fit(model, datamodule=data)
    return trainer, model, data


@pytest.fixture
def counter(monkeypatch):
    """What is compiled is counted, and computed as it stands."""
    torch._dynamo.reset()
    found = CompileCounter()
    monkeypatch.setattr(compiled, "BACKEND", found)
    yield found
    torch._dynamo.reset()


@pytest.mark.slow
def test_numbers_and_names_are_those_of_the_network_itself(counter):
    _, plain, _ = trained()
    assert counter.frame_count == 0
    trainer, model, data = trained(compile=True)
    assert counter.frame_count == 2, "one graph for training, one for validation"
    for (name, value), (same, other) in zip(plain.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(value, other), name
    trainer.test(model, datamodule=data, verbose=False)
    assert counter.frame_count == 2, "tests are not compiled"


@pytest.mark.slow
def test_network_is_itself_after_a_training_that_was_ended(counter):
    class Ending(pl.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("ended")

    model = ImageClassifier(backbone="mini_cnn", compile=True)
    data = ImageDataModule(dataset="synthetic", synthetic=IMAGES, batch_size=16)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[Ending()],
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="ended"):
        trainer.fit(model, datamodule=data)
    assert model.network._compiled_call_impl is None


@pytest.mark.slow
def test_averaged_weights_and_unfreezing_are_compiled_too(counter):
    trained(compile=True, averaging="ema", finetuning={"freeze_epochs": 1})
    assert counter.frame_count >= 2


@pytest.mark.slow
def test_command_compiles_and_says_so(counter, tmp_path, capsys):
    arguments = flags(model__compile="true", trainer__default_root_dir=tmp_path)
    assert main(["fit", *arguments]) == 0
    assert counter.frame_count == 2
    assert "the network is compiled" in capsys.readouterr().err
    (run,) = run_folders(tmp_path)
    assert main(["test", "--run", str(run)]) == 0
    assert counter.frame_count == 2
