"""Mistakes in loggers, callbacks, profiler, plugins and strategy are told with the key that is wrong, and no more."""

import json
import re

import pytest
import yaml

from tests.conftest import flags, run_folders
from visionforge.cli.main import main

STOPPING = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}


def stopping(**changes: object) -> dict:
    return {**STOPPING, "init_args": {**STOPPING["init_args"], **changes}}


MISTAKES = {
    "missing argument": (
        {"logger": {"class_path": "CSVLogger"}},
        r"logger\.init_args\.save_dir: missing .*CSVLogger needs it",
    ),
    "only a name": ({"logger": "CSVLogger"}, r"logger\.init_args\.save_dir: missing"),
    "one of several": (
        {"logger": [{"class_path": "CSVLogger", "init_args": {"save_dir": "x"}}, {"class_path": "CSVLogger"}]},
        r"logger\.1\.init_args\.save_dir: missing",
    ),
    "unknown argument": (
        {"logger": {"class_path": "CSVLogger", "init_args": {"save_dirr": "x", "save_dir": "x"}}},
        r"logger\.init_args\.save_dirr: unknown argument of CSVLogger .*nearest: save_dir$",
    ),
    "wrong value": (
        {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "x", "flush_logs_every_n_steps": "many"}}},
        r"logger\.init_args\.flush_logs_every_n_steps: 'many' is not allowed .*allowed: int$",
    ),
    "unknown class": (
        {"logger": {"class_path": "CSVLoger"}},
        r"logger: the class CSVLoger does not exist .*nearest: CSVLogger",
    ),
    "class of another kind": ({"logger": STOPPING}, r"logger: the class EarlyStopping is a Callback, no Logger"),
    "number": ({"logger": 3}, r"logger: names no class .*allowed: a Logger"),
    "misspelt key": ({"callbacks": [{"class_paht": "Timer"}]}, r"callbacks\.0: names no class .*class_paht is unknown"),
    "callback without its argument": (
        {"callbacks": {"class_path": "EarlyStopping"}},
        r"callbacks\.init_args\.monitor: missing",
    ),
    "callback with another": (
        {"callbacks": [stopping(patienc=3)]},
        r"callbacks\.0\.init_args\.patienc: unknown .*nearest: patience",
    ),
    "callback with a wrong value": (
        {"callbacks": [stopping(patience="many")]},
        r"callbacks\.0\.init_args\.patience: 'many' is not",
    ),
    "value that the class refuses": (
        {"callbacks": [stopping(mode="up")]},
        r"callbacks: `mode` can be min, max, got up",
    ),
    "function": ({"callbacks": [{"class_path": "os.system"}]}, r"callbacks\.0: os\.system is no Callback"),
    "missing module": (
        {"callbacks": [{"class_path": "none.Such"}]},
        r"callbacks\.0: the class none\.Such does not exist",
    ),
    "duration": (
        {"callbacks": [{"class_path": "Timer", "init_args": {"duration": "abc"}}]},
        r"callbacks: .*not a valid duration",
    ),
    "profiler": (
        {"profiler": {"class_path": "SimpleProfiler", "init_args": {"x": 1}}},
        r"profiler\.init_args\.x: unknown argument",
    ),
    "profiler's name": ({"profiler": "simpel"}, r".*'simple', 'advanced'"),
    "plugin": ({"plugins": "Nothing"}, r"plugins: the class Nothing does not exist"),
    "plugin of another kind": (
        {"plugins": [STOPPING]},
        r"plugins\.0: the class EarlyStopping is a Callback, no Precision or",
    ),
    "strategy": (
        {"strategy": {"class_path": "SingleDeviceStrategy", "init_args": {"devise": "cpu"}}},
        r"strategy\.init_args\.devise: unknown argument of SingleDeviceStrategy .*nearest: device",
    ),
    "strategy's name": ({"strategy": "nothing"}, r".*strategy='nothing'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_a_class_names_its_key(refuse, tmp_path, name):
    trainer, complaint = MISTAKES[name]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    (line,) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "outputs"), "--config", "x.yaml")
    assert re.match(rf"trainer(\.|: ){complaint}", line), line
    assert "Namespace" not in line
    assert len(line) < 400


def test_flag_without_its_argument(refuse, tmp_path):
    (line,) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "outputs"), "--trainer.logger=CSVLogger")
    assert line == "trainer.logger.init_args.save_dir: missing (on the command line); CSVLogger needs it"


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
def test_callback_that_watches_a_metric_of_other_trainings(capsys, tmp_path, callback):
    """With MixUp, the accuracy of the training is that on mixed images; this is known once there are metrics."""
    chosen = {"class_path": callback, "init_args": {"monitor": "train/accuracy"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [chosen]}}))
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1)
    assert main(["fit", *arguments, "--config", "x.yaml"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: trainer.callbacks: monitor: train/accuracy is no metric of this training; nearest:")
    assert "train/accuracy_mixed" in line


def test_timer_can_be_used(tmp_path):
    """Its default is a word of an enumeration, which YAML does not have."""
    timer = {"class_path": "Timer", "init_args": {"duration": "00:01:00:00"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [timer]}}))
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1)
    assert main(["fit", *arguments, "--config", "x.yaml"]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    stored = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert stored[0]["init_args"]["interval"] == "step"
    assert json.loads((run / "run.json").read_text())["state"] == "complete"
