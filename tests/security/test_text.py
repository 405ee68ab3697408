"""Names from strangers reach the terminal as text: no control characters, no markup, no lines of their own."""

import ast
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openpyxl
import optuna
import pytest
import yaml
from PIL import Image
from rich.console import Console

from tests.conftest import REPOSITORY, flags, run_folders
from tests.security.harness import attack
from visionforge.cli.main import main
from visionforge.runs.logfile import RunLog
from visionforge.tuning.figures import write_figures
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.live import Progress, print_summary
from visionforge.tuning.report import write_tables
from visionforge.tuning.trials import REASON, RUN

EVIL = "a\x1b[31m\x9b2J\u202e[red]:cat:\r\nerror: b"
SHOWN = r"a\x1b[31m\x9b2J\u202e[red]:cat:\r\nerror: b"
COMMANDS = REPOSITORY / "src" / "visionforge" / "cli"
WRITERS = ("streams.py", "arguments.py")  # by which all others write


def plain(output: str) -> None:
    """Check that nothing steers a terminal, and that no line was made up."""
    strange = {c for c in output if not c.isprintable() and c != "\n"}
    assert not strange, (strange, output)
    assert not [line for line in output.splitlines() if line.startswith("error: b")], output


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.stem)
def test_commands_write_by_say_and_warn_alone(path):
    if path.name in WRITERS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in ("print", "Console", "Table", "traceback.print_exc", "rich.print"), (call, node.lineno)
            assert not re.fullmatch(r"sys\.(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?", call), (call, node.lineno)


def entry(folder: Path, name: str) -> None:
    """Write an entry of the catalog whose texts are hostile."""
    content = {
        "name": name,
        "title": EVIL,
        "description": EVIL,
        "task": "multi-class",
        "classes": [EVIL, "[link=https://evil.example]b[/link]", "c"],
        "channels": 1,
        "splits": {"train": 3, "val": 3, "test": 3},
        "source": "archive",
        "archives": {28: {"url": None, "md5": None}},
        "normalisation": {"mean": [0.5], "std": [0.5], "source": "computed"},
        "flags": {
            "hflip": True,
            "vflip": False,
            "rotation": "small",
            "texture_is_label": True,
            "colour_is_label": False,
        },
        "licence": EVIL,
        "citation": EVIL,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    parts = {f"{split}_images": np.zeros((3, 28, 28), np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": np.arange(3, dtype=np.uint8)[:, None] for split in ("train", "val", "test")}
    np.savez(folder / f"{name}.npz", **parts, **labels)


@pytest.mark.parametrize("command", ["info", "stats", "check", "list"])
def test_texts_of_a_catalog_entry(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    entry(tmp_path / "catalog", "strange")
    arguments = {"info": ["strange"], "list": []}.get(command, ["strange", "--root", str(tmp_path / "catalog")])
    told = main(["datasets", command, *arguments])
    output = capsys.readouterr()
    plain(output.out + output.err)
    assert told in (0, 2)  # shown, or refused
    if told == 0 and command in ("info", "stats"):
        assert r"a\x1b[31m\x9b2J\u202e[red]:cat:" in output.out
        assert "[link=https://evil.example]b[/link]" in output.out
    assert main(["datasets", command, *arguments, "--json"]) == told
    output = capsys.readouterr()
    plain(output.out + output.err)
    if told == 0 and command == "info":
        assert json.loads(output.out)["title"] == EVIL  # escaped, but the same text


def test_names_of_pictures_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    for name in ("one", "two"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (28, 28), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    for name in (EVIL, os.fsdecode(b"\xff\xfe")):
        (tmp_path / "pictures" / "one" / f"{name}.png").write_bytes(b"no picture")
    main(["datasets", "import", str(tmp_path / "pictures"), "--name", "mine", "--root", str(tmp_path / "root")])
    output = capsys.readouterr()
    plain(output.out + output.err)
    assert SHOWN in output.out + output.err
    main(["datasets", "import", str(tmp_path / EVIL), "--name", "mine"])
    output = capsys.readouterr()
    plain(output.out + output.err)


@pytest.fixture
def outputs(quick_run, tmp_path) -> Path:
    """A folder with two runs whose names and facts are hostile."""
    folder = tmp_path / "strange"
    for name, state in ((f"1{EVIL}", "complete"), (f"2{EVIL}", "failed")):
        run = folder / name
        shutil.copytree(quick_run, run)
        manifest = json.loads((run / "run.json").read_text())
        manifest |= {"state": state, "error": EVIL, "dataset": EVIL, "model": EVIL, "data": {"archive": EVIL}}
        manifest["weights"] = {"source": EVIL}
        session = manifest["sessions"][-1]
        session |= {"command": ["visionforge", EVIL], "packages": {**session["packages"], "torch": EVIL}}
        session["hardware"] = {**session["hardware"], "device_name": EVIL}
        session["environment"] = {f"X{EVIL}": name}
        (run / "run.json").write_text(json.dumps(manifest))
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["without_tta"][EVIL] = 0.5
        (run / "metrics.json").write_text(json.dumps(metrics))
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["model"]["loss"]["class_weights" if name[0] == "1" else "name"] = EVIL
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_names_and_facts_of_runs(outputs, capsys):
    one, two = map(str, run_folders(outputs))
    for arguments in (
        ["list", "--outputs", str(outputs)],
        ["list", "--outputs", str(outputs), "--json"],
        ["show", one],
        ["show", one, "--json"],
        ["diff", one, two],
        ["diff", one, two, "--json"],
        ["compare", one, two, "--resamples", "0"],
        ["compare", one, two, "--json", "--resamples", "0"],
        ["clean", "--incomplete", "--outputs", str(outputs)],
    ):
        assert main(["runs", *arguments]) == 0, arguments
        output = capsys.readouterr()
        plain(output.out + output.err)
        assert SHOWN.rpartition(r"\r")[0] in output.out or "--json" in arguments, arguments
        if "--json" in arguments:
            json.loads(output.out)
    main(["reproduce", one, "--check"])
    main(["doctor", "--outputs", str(outputs)])
    main(["runs", "show", EVIL])
    main([EVIL])
    main(["datasets", "download", EVIL])
    main(["datasets", EVIL])
    main(["models", "info", EVIL])
    main(["fit", "--config", EVIL])
    main(["fit", f"--data.{EVIL}", "1"])
    output = capsys.readouterr()
    plain(output.out + output.err)


def test_log_lines_and_tracebacks(tmp_path, capsys):
    log = RunLog()
    log.start()
    log.attach(tmp_path / "run.log")
    logger = logging.getLogger("visionforge.somewhere")
    try:
        logger.warning("read %s", EVIL)
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("failed on %s", EVIL)
    finally:
        log.stop()
    for text in ((tmp_path / "run.log").read_text(), capsys.readouterr().err):
        plain(text)
        lines = text.splitlines()
        assert r"read a\x1b[31m\x9b2J\u202e[red]:cat: error: b" in lines[0]
        assert lines[2].startswith("Traceback")
        assert r"ValueError: a\x1b[31m" in text


def test_traceback_of_a_fault_of_our_own(tmp_path):
    """An exception that nobody expects ends in a traceback, in which names are printable, too."""
    (tmp_path / "evil_package.py").write_text(f"raise RuntimeError({EVIL!r})\n")
    (tmp_path / "run.py").write_text(
        "import sys\nfrom visionforge.cli import main as front\n"
        "def fails(arguments): import evil_package\n"
        "from visionforge.cli.command import Command\n"
        "front.COMMANDS['models'] = Command('models', '', fails, 0)\n"
        "sys.argv[1:] = ['models']\nsys.exit(front.main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}
    done = subprocess.run([sys.executable, "run.py"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    plain(done.stderr)


def test_texts_of_a_study(tmp_path, capsys):
    """A database of trials may come from anybody: no formulas in the spreadsheet, no markup on the page or terminal."""
    study = optuna.create_study(direction="maximize", study_name=EVIL)
    values = ("=1+1", EVIL, "<script>x</script>")
    for value in values:
        study.enqueue_trial({EVIL: value})
        trial = study.ask()
        trial.suggest_categorical(EVIL, values)
        trial.set_user_attr(REASON, EVIL)
        trial.set_user_attr(RUN, "=2+2")
        study.tell(trial, 0.5)
    folder = StudyFolder(tmp_path / "study")
    content = write_tables(study, folder, ["val/auc"], {})
    cells = [c for row in openpyxl.load_workbook(folder.reports / "top_10_trials.xlsx").active for c in row]
    assert {"=1+1", "=2+2", SHOWN, "<script>x</script>"} <= {cell.value for cell in cells}
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    write_figures(study, folder, content)
    assert "<script>x" not in (folder.path / "index.html").read_text()
    print_summary(study, folder, ["val/auc"])
    Console().print(Progress(study, 3, ["val/auc"], quiet=True)._render())
    told = capsys.readouterr().out
    plain(told)
    assert SHOWN in told


@pytest.mark.parametrize("name", ["{task.nothing}", "[/red]", EVIL])
def test_name_of_a_file_that_is_transferred(tmp_path, name):
    """The bar of a transfer shows the name, whatever it is; a terminal is needed to see it."""
    code = (
        "import sys; from visionforge.fetch import transfer_bar\n"
        f"with transfer_bar({name!r}, 10) as advance: advance(10)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb", "COLUMNS": "200"}
    with open(os.open(tmp_path / "told", os.O_CREAT | os.O_WRONLY), "wb") as file:  # noqa: PTH123
        done = subprocess.run(
            ["script", "-qec", f"{sys.executable} -c {shlex.quote(code)}", "/dev/null"],
            stdout=file,
            env=environment,
            check=False,
        )
    told = (tmp_path / "told").read_bytes().decode()
    assert done.returncode == 0, told
    assert name.partition("\r")[0] in told or r"a\x1b[31m\x9b2J\u202e[red]:cat:" in told
    assert "\x1b[31m" not in told


@pytest.mark.slow
def test_fit_in_a_strange_folder(tmp_path):
    folder = tmp_path / "x\x1b[31m\u202e"
    folder.mkdir()
    outcome = attack("fit", *flags(trainer__max_epochs=1, trainer__default_root_dir="outputs"), folder=folder)
    assert outcome.status == 0, outcome.err
    plain(outcome.out + outcome.err)
    (run,) = run_folders(folder / "outputs")
    plain((run / "run.log").read_text())
