"""Run folders from strangers: evaluated as data, continued and repeated only as far as nothing of theirs is built."""

import json
import os
import shutil
import subprocess

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry

from tests.conftest import flags
from tests.security.harness import attack, refused, touched
from visionforge.cli.main import main
from visionforge.runs.signature import CONFIGURATION, canonical_content, sign

pytestmark = pytest.mark.slow

STARTED = "STARTED"
SHELL = {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {STARTED}", "shell": True}}
NESTED = {"class_path": "lightning.pytorch.callbacks.RichProgressBar", "init_args": {"console_kwargs": {"x": SHELL}}}
HOSTILE = {
    "callbacks": [NESTED, SHELL, "os.abort"],
    "logger": [SHELL, {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "/tmp/theirs"}}],
    "plugins": [SHELL],
    "profiler": "evil.Profiler",
    "strategy": SHELL,
    "default_root_dir": "/tmp/theirs",
    "limit_test_batches": 1,
}
COMMANDS = {
    "test": ["test", "--run", "theirs"],
    "validate": ["validate", "--run", "theirs"],
    "predict": ["predict", "--run", "theirs"],
    "test of a file": ["test", "--ckpt_path", "theirs/checkpoints/best.ckpt"],
    "pictures": ["predict", "--run", "theirs", "--images", "pictures.npz", "--accelerator", "cpu"],
    "explain": ["explain", "--run", "theirs", "--images", "pictures.npz", "--limit", "2", "--accelerator", "cpu"],
    "robustness": ["robustness", "--run", "theirs", "--severities", "1", "--limit", "4", "--accelerator", "cpu"],
    "export": ["export", "--run", "theirs", "--format", "safetensors"],
    "show": ["runs", "show", "theirs"],
    "compare": ["runs", "compare", "theirs", "theirs"],
}


@pytest.fixture
def theirs(quick_run, tmp_path):
    """A copy of a run whose configuration a stranger has changed, beside a module that tells when it is imported."""
    folder = tmp_path / "theirs"
    shutil.copytree(quick_run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"] |= HOSTILE
    config["data"]["root"] = str(tmp_path / "elsewhere")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / STARTED)!r}, 'w')\n")
    import numpy as np

    np.savez(tmp_path / "pictures.npz", images=np.zeros((3, 28, 28, 3), np.uint8))
    return folder


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_an_evaluation_builds_nothing_of_it(theirs, tmp_path, arguments):
    outcome = attack(*arguments, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / STARTED).exists()
    assert (outcome.programs, outcome.connections, outcome.killed) == ([], [], [])
    assert outcome.changed_outside(tmp_path) == []
    if arguments[0] == "test" and "--run" in arguments:  # complete, whatever limit their training had
        assert json.loads((theirs / "evaluations" / "test_best" / "metrics.json").read_text())["images"] == 32


@pytest.mark.parametrize("arguments", [["reproduce", "theirs"], ["fit", "--resume", "theirs"]])
def test_a_training_refuses_every_class_by_name(theirs, tmp_path, arguments):
    manifest = json.loads((theirs / "run.json").read_text())
    if arguments[0] == "fit":
        (theirs / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    lines = refused(attack(*arguments, folder=tmp_path))
    assert not (tmp_path / STARTED).exists()
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before
    wanted = ("console_kwargs: subprocess.Popen", "callbacks.1: subprocess.Popen", "callbacks.2: os.abort")
    wanted += ("plugins: subprocess.Popen", "profiler: evil.Profiler", "strategy: subprocess.Popen")
    assert len(lines) == len(wanted)
    assert all(any(want in line and "--trust theirs" in line for line in lines) for want in wanted)


def test_trust_names_what_it_builds_and_only_for_that_run(theirs, quick_run, tmp_path):
    shutil.copytree(quick_run, tmp_path / "other")
    config = yaml.safe_load((theirs / "config.yaml").read_text())
    plain = {key: value for key, value in config["trainer"].items() if key not in HOSTILE}
    summary = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {}}
    config["trainer"] = {**plain, "callbacks": [summary]}
    config["data"]["root"] = None
    (theirs / "config.yaml").write_text(yaml.safe_dump(config))
    assert "LambdaCallback" in refused(attack("reproduce", "theirs", folder=tmp_path))[0]
    assert "another run" in refused(attack("reproduce", "theirs", "--trust", "other", folder=tmp_path))[0]
    outcome = attack("reproduce", "theirs", "--trust", "theirs", "--outputs", "again", folder=tmp_path)
    assert "trusted, and built: trainer.callbacks.0: lightning.pytorch.callbacks.LambdaCallback" in outcome.err
    assert "no difference" in outcome.out, outcome.err


def test_ones_own_run_is_continued_with_all_that_it_names(tmp_path):
    """The same key that signed the run is in the user's folder; a class of a module of one's own is built."""
    (tmp_path / "mine.py").write_text(
        "from lightning.pytorch.callbacks import Callback\n"
        "class Told(Callback):\n"
        "    def setup(self, trainer, module, stage): open('TOLD', 'a').write('x' if stage == 'fit' else '')\n"
    )
    (tmp_path / "c.yaml").write_text("trainer: {callbacks: [{class_path: mine.Told}]}\n")
    assert attack("fit", *flags(), "--config", "c.yaml", folder=tmp_path).status == 0
    (run,) = (path.parent for path in (tmp_path / "outputs").glob("2*/run.json"))
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    outcome = attack("fit", "--resume", str(run), folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "TOLD").read_text() == "xx"


@pytest.mark.parametrize("name", ["auto", "cpu", "simple"])
def test_a_file_that_is_called_like_a_value_is_not_opened(tmp_path, name):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / STARTED)!r}, 'w')\n")
    (tmp_path / name).write_text("class_path: evil.Strategy\n")
    outcome = attack("fit", *flags(trainer__profiler="simple"), folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / STARTED).exists()


def words_of(tree):
    if isinstance(tree, dict):
        return {word for key, value in tree.items() for word in (str(key), *words_of(value))}
    if isinstance(tree, list):
        return {word for value in tree for word in words_of(value)}
    return {tree} if isinstance(tree, str) and "/" not in tree else set()


@pytest.mark.parametrize("arguments", [["test", "--run", "own"], ["reproduce", "own"], ["fit", "--resume", "own"]])
@pytest.mark.parametrize("signed", [True, False], ids=["own", "theirs"])
def test_no_word_of_a_configuration_is_a_file_of_the_working_folder(plain_run, tmp_path, arguments, signed):
    """Files that are called like every key and every word of the configuration are there, and none is read."""
    shutil.copytree(plain_run, tmp_path / "own")
    config = yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = str(tmp_path / "outputs")
    config["trainer"] |= {"strategy": "auto", "profiler": "simple", "callbacks": ["LearningRateMonitor"]}
    (tmp_path / "own" / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = json.loads((tmp_path / "own" / "run.json").read_text())
    manifest["signature"] = sign(canonical_content(config), CONFIGURATION) if signed else None
    manifest["state"] = "interrupted" if arguments[0] == "fit" else "complete"
    (tmp_path / "own" / "run.json").write_text(json.dumps(manifest))
    words = words_of({key: config[key] for key in ("model", "data", "trainer", "evaluation")})
    baits = tmp_path / "baits"
    baits.mkdir()
    for word in words:
        (baits / word).write_text("class_path: evil.Strategy\n")
        (tmp_path / word).symlink_to(baits / word)
    with touched(baits) as found:
        status = main(arguments)
    assert found == []
    assert status == 0
    assert {"auto", "backbone", "cosine", "mini_cnn", "simple", "synthetic"} <= words


SECTIONS = ("model", "model.backbone", "model.optimizer", "data", "data.synthetic", "trainer", "evaluation")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_no_file(plain_run, tmp_path, section):
    """On the command line a section can be a file; in a configuration that somebody else wrote it cannot."""
    shutil.copytree(plain_run, tmp_path / "theirs")
    config = yaml.safe_load((tmp_path / "theirs" / "config.yaml").read_text())
    (tmp_path / "bait.yaml").write_text("name: mini_cnn\n")
    *above, last = section.split(".")
    place = config[above[0]] if above else config
    place[last] = "bait.yaml"
    (tmp_path / "theirs" / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = json.loads((tmp_path / "theirs" / "run.json").read_text())
    (tmp_path / "theirs" / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    with touched(tmp_path / "bait.yaml") as found:
        # an evaluation needs no Trainer's flags and no optimiser, of which a text is the name
        assert main(["test", "--run", "theirs"]) == (0 if section in ("trainer", "model.optimizer") else 2)
        assert main(["fit", "--resume", "theirs"]) == 2
    assert found == []


@pytest.mark.parametrize("change", [{"ckpt_path": "bait"}, {"model": {"backbone": {"weights": "bait"}}}])
@pytest.mark.parametrize("arguments", [["reproduce", "theirs"], ["fit", "--resume", "theirs"]])
def test_a_training_reads_no_file_that_a_word_names(quick_run, tmp_path, capsys, change, arguments):
    shutil.copytree(quick_run, tmp_path / "theirs")
    config = yaml.safe_load((tmp_path / "theirs" / "config.yaml").read_text())
    config["model"]["backbone"] |= {**change.get("model", {}).get("backbone", {}), "pretrained": "model" in change}
    config["ckpt_path"] = change.get("ckpt_path")
    (tmp_path / "theirs" / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "bait").write_text("mine")
    with touched(tmp_path / "bait") as found:
        assert main(arguments) == 2
    assert found == []
    assert f"{'model.backbone.weights' if 'model' in change else 'ckpt_path'}: bait" in capsys.readouterr().err


def test_a_checkpoint_that_is_none_is_told_in_a_line(refuse, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (line,) = refuse("fit", *flags(), "--ckpt_path", "notes.txt", keeps=("matplotlib",))
    assert "notes.txt: cannot be read as a checkpoint" in line


@pytest.mark.parametrize("flag", ["strategy", "accelerator"])
def test_a_word_that_somebody_has_registered_is_not_built(plain_run, tmp_path, monkeypatch, capsys, flag):
    """Packages register names with Lightning; what a stranger means by one is not known."""
    built = []

    class Theirs(SingleDeviceStrategy if flag == "strategy" else CPUAccelerator):
        def __init__(self, *arguments, **more):
            built.append(arguments)
            super().__init__(*arguments, **more)

    registry = StrategyRegistry if flag == "strategy" else AcceleratorRegistry
    entry = {flag: Theirs, f"{flag}_name": "theirs", "init_params": {}, "description": ""}
    monkeypatch.setitem(registry, "theirs", entry)
    shutil.copytree(plain_run, tmp_path / "theirs")
    config = yaml.safe_load((tmp_path / "theirs" / "config.yaml").read_text())
    config["trainer"][flag] = "theirs"
    (tmp_path / "theirs" / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["test", "--run", "theirs"]) == 0
    assert main(["reproduce", "theirs"]) == 2
    assert f"trainer.{flag}: theirs (in " in capsys.readouterr().err
    assert built == []


@pytest.mark.parametrize("link", ["evaluations", "evaluations/test_best", "evaluations/test_best/figures", "export"])
def test_links_that_lead_out_are_not_followed(theirs, tmp_path, link):
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    outside.mkdir()
    (outside / "metrics.json").write_text("mine")
    shutil.rmtree(theirs / "evaluations", ignore_errors=True)
    (theirs / link).parent.mkdir(parents=True, exist_ok=True)
    (theirs / link).symlink_to(outside)
    (line,) = refused(attack("test", "--run", "theirs", folder=tmp_path))
    assert "is a link that leads out of" in line
    assert (outside / "metrics.json").read_text() == "mine"
    assert len(list(outside.iterdir())) == 1


def _checkpoint(theirs, change):
    path = theirs / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def _huge(content):
    content["hyper_parameters"]["spec"]["resolution"] = 3_000_000


def _stretched(content):
    content["state_dict"]["network.features.0.weight"] = torch.zeros(1).expand(32, 3, 10_000, 10_000)


def _wrong_kinds(content):
    content["thresholds"], content["calibration"] = ["a"], 7


def _nested(content):
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    content["extra"] = deep


@pytest.mark.parametrize("change", [_huge, _stretched, _wrong_kinds, _nested])
@pytest.mark.parametrize("arguments", [["test", "--run", "theirs"], COMMANDS["pictures"]], ids=["test", "pictures"])
def test_checkpoints_are_bounded_before_anything_is_made(theirs, tmp_path, change, arguments):
    _checkpoint(theirs, change)
    outcome = attack(*arguments, folder=tmp_path, memory_mb=6_000)
    (line,) = refused(outcome)
    assert "ckpt" in line
    assert outcome.peak_mb < 2_500
    assert outcome.seconds < 60


def test_a_pickle_in_a_checkpoint_is_not_run(theirs, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / STARTED),)

    torch.save({"state_dict": {}, "x": Trap()}, theirs / "checkpoints" / "best.ckpt")
    (line,) = refused(attack("test", "--run", "theirs", folder=tmp_path))
    assert "cannot be read as a checkpoint" in line
    assert not (tmp_path / STARTED).exists()


def test_a_packed_bomb_is_no_checkpoint(theirs, tmp_path):
    import zipfile

    path = theirs / "checkpoints" / "best.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(2_000):
                member.write(bytes(1 << 20))
    assert path.stat().st_size < 3_000_000
    outcome = attack("test", "--run", "theirs", folder=tmp_path, memory_mb=5_000)
    (line,) = refused(outcome)
    assert "is compressed, which torch does not write" in line
    assert outcome.peak_mb < 1_500


def test_a_report_connects_to_nothing_that_its_folder_names(tmp_path):
    study = tmp_path / "study"
    (study / "reports").mkdir(parents=True)
    for storage in ("postgresql://user@10.255.255.1/x", f"sqlite:///{tmp_path}/made.db"):
        (study / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}, "tune": {"storage": storage}}))
        (line,) = refused(attack("tune", "--report", "study", folder=tmp_path))
        assert "name it with --tune.storage" in line
    assert not (tmp_path / "made.db").exists()


def test_doctor_kills_nobody_that_a_folder_names(theirs, tmp_path):
    from tests.runs.test_processes import dead
    from visionforge.runs.processes import RECORD, ProcessId, this_process

    with subprocess.Popen(["sleep", "60"]) as innocent:
        import psutil

        created = psutil.Process(innocent.pid).create_time()
        entry = ProcessId(innocent.pid, created, this_process().host, this_process().machine).as_dict()
        (tmp_path / "outputs").mkdir()
        shutil.move(theirs, tmp_path / "outputs" / "theirs")
        record = {"mark": "x", "processes": [dead(), entry], "signature": "0" * 32}
        (tmp_path / "outputs" / "theirs" / RECORD).write_text(json.dumps(record))
        outcome = attack("doctor", "--kill", folder=tmp_path)
        alive = innocent.poll() is None
        innocent.kill()
    assert alive
    assert outcome.killed == []
    assert "no processes of dead runs" in outcome.out


def test_a_fit_inside_a_hostile_repository_starts_no_program_of_it(tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    hook = tmp_path / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / STARTED}\ncat\n")
    hook.chmod(0o755)
    (tmp_path / "file").write_text("x\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    for key in ("filter.x.clean", "filter.x.process", "core.fsmonitor", "core.pager", "core.sshCommand"):
        subprocess.run([*git, "config", key, hook], check=True)
    (tmp_path / ".gitattributes").write_text("* filter=x\n")
    (tmp_path / "file").write_text("y\n")
    outcome = attack("fit", *flags(), folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / STARTED).exists()
    (run,) = (tmp_path / "outputs").glob("2*/run.json")
    assert json.loads(run.read_text())["sessions"][0]["code"]["project"]["changed_files"] == 1
