"""Settings are read once: whoever asks gets the same run, and finds it again."""

import json
import os
import subprocess
import sys
import threading

import pytest
import yaml

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from visionforge.cli.main import main
from visionforge.config.loading import read_arguments, read_values
from visionforge.engine.construction import Construction
from visionforge.engine.fit import request_of

ODD = {  # numbers as texts, short names of classes, one thing where several may stand
    "trainer": {
        "gradient_clip_val": "1e-3",
        "callbacks": {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": "30"}},
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "csv"}},
        "limit_train_batches": "2",
    },
    "model": {"optimizer": {"learning_rate": "2e-2"}},
}


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(yaml.safe_dump(ODD))
    return str(path)


def nested() -> dict:
    tree: dict = {}
    for path, value in QUICK.items():
        *sections, name = path.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = {"true": True, "false": False}.get(value, value)
    return tree


@pytest.mark.slow
def test_seeds_with_callbacks_loggers_and_odd_numbers(odd, tmp_path, capsys):
    command = ["fit", *flags(trainer__default_root_dir=tmp_path / "o"), "--config", odd, "--seeds", "2"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "mean ± standard deviation over seeds" in output
    assert output.count("test split, 32 images") == 2
    runs = run_folders(tmp_path / "o")
    assert len(runs) == 2
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    assert config["trainer"]["gradient_clip_val"] == 1e-3
    assert config["trainer"]["limit_train_batches"] == 2
    assert type(config["trainer"]["limit_train_batches"]) is int
    assert main(command) == 0  # both are found again
    assert capsys.readouterr().out.count("complete already") == 2
    assert run_folders(tmp_path / "o") == runs


@pytest.mark.parametrize("way", ["auto", "requeue"])
def test_an_interrupted_run_with_classes_is_found(odd, tmp_path, monkeypatch, capsys, way):
    command = ["fit", *flags(trainer__default_root_dir=tmp_path / "o"), "--config", odd]
    if way == "requeue":
        for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "interactive"}.items():
            monkeypatch.setenv(name, value)
    assert main(command) == 0
    (run,) = run_folders(tmp_path / "o")
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    if way == "requeue":
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main([*command, *(["--resume", "auto"] if way == "auto" else [])]) == 0
    assert "continues from" in capsys.readouterr().err
    assert run_folders(tmp_path / "o") == [run]
    assert len(json.loads((run / "run.json").read_text())["sessions"]) == 2


@pytest.mark.slow
def test_python_and_command_line_make_the_same_bytes(tmp_path):
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "cli", trainer__deterministic="true")]) == 0
    (one,) = run_folders(tmp_path / "cli")
    trainer = {"default_root_dir": tmp_path / "python", "deterministic": True}
    two = vf.fit(nested(), trainer=trainer)
    assert two.hash == json.loads((one / "run.json").read_text())["hash"]
    for name in ("metrics.json", "predictions.csv"):
        assert (one / name).read_bytes() == (two.path / name).read_bytes(), name
    left, right = ((each / "config.yaml").read_text() for each in (one, two.path))
    assert left.replace(f"{tmp_path}/cli", f"{tmp_path}/python") == right


def test_every_way_of_writing_settings_gives_the_same(tmp_path, odd):
    tree = nested()
    settings = request_of(read_values(tree, {})).settings
    ways = [
        read_arguments(flags()),
        read_values([tree, odd], {"trainer": {key: None for key in ("gradient_clip_val", "callbacks", "logger")}}),
        read_values(settings, {}),
        read_values(None, {**tree}),
        read_values(None, dict(QUICK)),
    ]
    found = [Construction(request_of(raw).settings).resolved for raw in ways]
    for key in ("limit_train_batches",):
        found[1]["trainer"][key] = None
    found[1]["model"]["optimizer"]["learning_rate"] = found[0]["model"]["optimizer"]["learning_rate"]
    assert all(each == found[0] for each in found[1:])


def test_a_configuration_may_come_through_a_pipe(tmp_path, odd):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text((tmp_path / "odd.yaml").read_text()))
    writer.start()
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "o"), "--config", str(pipe)]) == 0
    writer.join()
    (run,) = run_folders(tmp_path / "o")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["gradient_clip_val"] == 1e-3


@pytest.mark.slow
def test_a_shell_may_substitute_a_process(tmp_path, odd):
    given = " ".join(flags(trainer__default_root_dir=tmp_path / "o"))
    command = f"{sys.executable} -m visionforge fit {given} --config <(cat {odd}) --print_config"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["trainer"]["limit_train_batches"] == 2


def test_print_config_leaves_out_what_is_asked(capsys):
    assert main(["fit", *flags(), "--print_config=skip_default,skip_null"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data"]["dataset"] == "synthetic"
    assert "force_rgb" not in shown["data"]
    assert "ckpt_path" not in shown
    assert main(["fit", *flags(), "--print_config=comments"]) == 2
    assert "allowed: skip_default, skip_null" in capsys.readouterr().err


def test_added_classes_and_arguments_of_the_last():
    raw = read_arguments(
        [
            "--trainer.callbacks+=EarlyStopping",
            "--trainer.callbacks.monitor=val/loss",
            "--trainer.callbacks+=ModelSummary",
            "--trainer.callbacks.max_depth=3",
        ]
    )
    assert raw.values["trainer"]["callbacks"] == [
        {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}},
        {"class_path": "ModelSummary", "init_args": {"max_depth": 3}},
    ]
