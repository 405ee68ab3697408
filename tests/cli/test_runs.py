"""What the outputs folder holds can be listed, shown, compared, cleaned, examined and reproduced."""

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import REPOSITORY, flags, run_folders
from tests.runs.helpers import HOLD_RUN, create, python
from visionforge.cli.main import main
from visionforge.cli.run_tables import print_rows
from visionforge.evaluation.run_facts import size_text
from visionforge.runs.processes import RECORD, this_process
from visionforge.runs.signature import PROCESSES, canonical_content, sign


@pytest.fixture
def outputs(quick_run, tmp_path) -> Path:
    """A complete run, a copy of it with another seed and worse results, and an interrupted one."""
    folder = tmp_path / "outputs"
    shutil.copytree(quick_run, folder / quick_run.name)
    other = folder / "20200101_synthetic_mini_cnn_000000"
    shutil.copytree(quick_run, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 7}))
    manifest = json.loads((other / "run.json").read_text())
    manifest |= {"run": other.name, "seeds": {"seed_everything": 7}, "started": "2020-01-01T00:00:00+00:00"}
    (other / "run.json").write_text(json.dumps(manifest))
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["with_tta"]["auc"] = 0.125
    (other / "metrics.json").write_text(json.dumps(metrics))
    run = create(folder)
    run.update(progress={"epochs": 3, "max_epochs": 8})
    run.finish("interrupted", "interrupted by SIGTERM")
    return folder


def said(capsys, *arguments):
    capsys.readouterr()
    status = main(list(map(str, arguments)))
    return status, capsys.readouterr().out


def listed(capsys, *arguments):
    return [row["run"] for row in json.loads(said(capsys, "runs", "list", "--json", *arguments)[1])]


def test_list_shows_every_run_in_a_line(outputs, capsys, quick_run):
    status, text = said(capsys, "runs", "list")
    assert status == 0
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[0] == "20200101_synthetic_mini_cnn_000000"
    assert lines[1].split()[-3] == "0.1250"
    (interrupted,) = [line for line in lines if "interrupted" in line]
    assert "3/8" in interrupted
    assert "–" in interrupted
    assert quick_run.name in text, "names are never cut"


def test_list_is_sorted_by_any_column(outputs, capsys, quick_run):
    old, new = "20200101_synthetic_mini_cnn_000000", quick_run.name
    cut = next(path.name for path in run_folders(outputs) if "_d_m_" in path.name)
    assert listed(capsys) == [old, new, cut]
    assert listed(capsys, "--sort", "auc") == [old, new, cut]
    assert listed(capsys, "--sort", "auc", "--reverse") == [new, old, cut], "what has no value comes last"
    assert listed(capsys, "--sort", "seed", "--reverse")[-1] == old
    assert listed(capsys, "--state", "interrupted") == [cut]
    assert said(capsys, "runs", "list", "--state", "failed") == (0, "no failed runs in outputs\n")


def test_page_is_written_beside_the_runs_or_where_it_is_wanted(outputs, capsys, tmp_path, refuse):
    assert said(capsys, "runs", "page") == (0, "✓ outputs/runs.html\n")
    assert all(name in (outputs / "runs.html").read_text() for name in listed(capsys))
    status, text = said(capsys, "runs", "page", "--outputs", "outputs", "--out", "all.html", "--json")
    assert (status, json.loads(text)) == (0, {"page": str(tmp_path / "all.html")})
    assert said(capsys, "runs", "page", "--out", "all.html")[0] == 0  # an earlier page
    (tmp_path / "mine.html").write_text("mine")
    assert refuse("runs", "page", "--out", "mine.html") == [
        "--out: mine.html exists already, and this command has not written it; name another file"
    ]
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_list_of_another_folder_and_of_none(outputs, capsys, tmp_path):
    outputs.rename(tmp_path / "elsewhere")
    assert said(capsys, "runs", "list") == (0, "no runs in outputs\n")
    assert len(listed(capsys, "--outputs", "elsewhere")) == 3


def test_unreadable_manifest_does_not_hide_the_others(outputs, capsys):
    (outputs / "20200101_synthetic_mini_cnn_000000" / "run.json").write_text("{")
    capsys.readouterr()
    assert main(["runs", "list", "--json"]) == 0
    output = capsys.readouterr()
    assert len(json.loads(output.out)) == 2
    assert "run.json: cannot be read as the manifest" in output.err


def test_killed_run_counts_as_interrupted_and_a_living_one_as_running(tmp_path, capsys):
    with python(HOLD_RUN, tmp_path / "outputs", cwd=REPOSITORY) as owner:
        assert json.loads(said(capsys, "runs", "list", "--json")[1])[0]["state"] == "running"
        owner.kill()
        owner.wait()
        assert json.loads(said(capsys, "runs", "list", "--json")[1])[0]["state"] == "interrupted"


def test_show(outputs, capsys, quick_run):
    status, text = said(capsys, "runs", "show", quick_run.name)
    assert status == 0
    for fact in ("state  complete", "epochs  2/2", "seed  42", "strict  True", "without TTA  accuracy "):
        assert fact in text
    content = json.loads(said(capsys, "runs", "show", outputs / quick_run.name, "--json")[1])
    assert content["state"] == "complete"
    assert content["config"]["data"]["dataset"] == "synthetic"
    assert content["metrics"]["images"] == 32
    assert "interrupted by SIGTERM" in said(capsys, "runs", "show", "latest")[1]


def test_diff_names_what_differs_and_nothing_else(outputs, capsys, quick_run):
    old = "20200101_synthetic_mini_cnn_000000"
    content = json.loads(said(capsys, "runs", "diff", old, quick_run.name, "--json")[1])
    assert content["settings"] == {"seed_everything": [7, 42]}
    assert content["provenance"] == {}
    assert list(content["metrics"]) == ["with_tta.auc"]
    text = said(capsys, "runs", "diff", old, quick_run.name)[1]
    assert "provenance: the same" in text
    assert "seed_everything" in text


def test_compare_puts_metrics_beside_each_other(outputs, capsys, quick_run):
    old = "20200101_synthetic_mini_cnn_000000"
    content = json.loads(said(capsys, "runs", "compare", old, quick_run.name, quick_run.name, "--json")[1])
    assert content["settings"] == {"seed_everything": [7, 42, 42]}
    assert content["metrics"]["with_tta.auc"][0] == 0.125
    assert "without_tta.accuracy" in said(capsys, "runs", "compare", old, quick_run.name)[1]


def test_clean_lists_first_and_removes_only_what_is_incomplete_and_free(outputs, capsys, quick_run):
    cut = next(path.name for path in run_folders(outputs) if "_d_m_" in path.name)
    (outputs / ".20200101_d_m_00000a.new-abc").mkdir()
    size = size_text(sum(path.stat().st_size for path in (outputs / cut).rglob("*") if path.is_file()))
    status, text = said(capsys, "runs", "clean", "--incomplete")
    assert (status, text.splitlines()[0]) == (0, f"would be removed: {cut} (interrupted, 3/8 epochs, {size})")
    assert (outputs / cut).is_dir()
    told = f"removed: {cut} (interrupted, 3/8 epochs, {size})\n"
    assert said(capsys, "runs", "clean", "--incomplete", "--yes")[1] == told
    assert {path.name for path in outputs.iterdir()} == {quick_run.name, "20200101_synthetic_mini_cnn_000000", "latest"}
    assert (outputs / "latest").exists()


def test_clean_keeps_the_best_of_each_data_set_and_what_is_new(outputs, capsys, quick_run):
    worse = "20200101_synthetic_mini_cnn_000000"
    for metric, name in ((None, worse), ("loss", quick_run.name)):  # of a loss the lowest is best
        if metric:
            stored = json.loads((outputs / worse / "metrics.json").read_text())
            stored["with_tta"] = {**stored["with_tta"], "loss": 0.0}
            (outputs / worse / "metrics.json").write_text(json.dumps(stored))
        chosen = ["--by", metric] if metric else []
        text = said(capsys, "runs", "clean", "--keep-best", "1", *chosen)[1]
        assert text.startswith(f"would be removed: {name} (complete, ")
        assert text.splitlines()[-1].startswith("nothing was removed; `--yes` removes them, ")
    assert "would be removed" not in said(capsys, "runs", "clean", "--keep-best", "2", "--dry-run")[1]
    assert main(["runs", "clean", "--keep-best", "0", "--by", "map"]) == 0
    assert f"{worse}: has no map, so it is kept" in capsys.readouterr().err
    manifest = json.loads((outputs / worse / "run.json").read_text())
    manifest |= {"ended": "2020-01-02T00:00:00+00:00"}
    (outputs / worse / "run.json").write_text(json.dumps(manifest))
    old = json.loads(said(capsys, "runs", "clean", "--older-than", "30d", "--json")[1])
    assert [row["run"] for row in old["found"]] == [worse]
    assert old["bytes"] == [sum(path.stat().st_size for path in (outputs / worse).rglob("*") if path.is_file())]
    assert json.loads(said(capsys, "runs", "clean", "--older-than", "30d", "--incomplete", "--json")[1])["found"] == []
    manifest |= {"parent": {"study": "a study"}}
    (outputs / worse / "run.json").write_text(json.dumps(manifest))
    assert worse not in said(capsys, "runs", "clean", "--keep-best", "0")[1]
    assert said(capsys, "runs", "clean", "--keep-best", "0", "--yes")[1].startswith(f"removed: {quick_run.name} (")
    assert not (outputs / quick_run.name).exists()
    assert (outputs / worse).is_dir()


def test_lists_tell_of_sizes(outputs, capsys, quick_run):
    rows = json.loads(said(capsys, "runs", "list", "--json", "--sort", "bytes", "--reverse")[1])
    expected = {
        path.name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for path in run_folders(outputs)
    }
    assert {row["run"]: row["bytes"] for row in rows} == expected
    assert [row["bytes"] for row in rows] == sorted(expected.values(), reverse=True)
    assert size_text(expected[quick_run.name]) in said(capsys, "runs", "list")[1]
    assert size_text(expected[quick_run.name]) in said(capsys, "runs", "show", quick_run.name)[1]


def test_clean_keeps_a_run_in_use(tmp_path, capsys):
    with python(HOLD_RUN, tmp_path / "outputs", cwd=REPOSITORY):
        assert said(capsys, "runs", "clean", "--incomplete", "--yes") == (0, "no such runs in outputs\n")
        assert len(run_folders(tmp_path / "outputs")) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["show", "nothing"], "runs show: nothing is no folder; name a run folder such as"),
        (["show", "."], "holds no run.json, so it is no run"),
        (["diff", "latest"], "runs diff: the following arguments are required: RUN"),
        (["list", "--sort", "beauty"], "invalid choice: 'beauty'"),
        (["list", "--outputs", "none"], "none is no folder"),
        (["list", "--outputs", "s3://x"], "--outputs: s3://x: no such anchor"),
        (["clean"], "runs clean: give --incomplete, --keep-best or --older-than: which runs are to go"),
        (["clean", "--older-than", "3"], "--older-than: 3 is not allowed; allowed: hours, days or weeks such as 12h"),
        (["clean", "--keep-best", "-1"], "--keep-best: -1 is not allowed; allowed: an integer, at least 0"),
        (["clean", "--keep-best", "1", "--by", "beauty"], "--by: beauty is no metric; nearest: "),
        (["clean", "--incomplete", "--by", "auc"], "--by: is for --keep-best; leave it out"),
        (["clean", "--incomplete", "--yes", "--dry-run"], "not allowed with argument --yes"),
    ],
)
def test_mistakes_are_one_line(refuse, arguments, line):
    (found,) = refuse("runs", *arguments)
    assert line in found


def test_light_commands_stay_light(outputs):
    code = (
        "import sys; from visionforge.cli.main import main; status = main(sys.argv[1:]); "
        "heavy = [n for n in ('torch', 'lightning', 'matplotlib') if n in sys.modules]; assert not heavy, heavy"
    )
    for command in ("list", "show latest", "clean --incomplete"):
        done = subprocess.run([sys.executable, "-c", code, "runs", *command.split()], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


# --- doctor


@pytest.fixture
def ghost(tmp_path):
    """A process that a dead run has left behind."""
    run = create(tmp_path / "outputs")
    folder = run.workspace.path
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    run._record.write()
    content = json.loads((folder / RECORD).read_text())
    content["processes"][0]["pid"] = 4194303  # the main process is dead
    del content["signature"]
    run.finish("interrupted", "killed")
    (folder / RECORD).write_text(json.dumps({**content, "signature": sign(canonical_content(content), PROCESSES)}))
    yield process
    process.kill()
    process.wait()


def test_doctor_lists_what_is_left_and_ends_it_when_asked(ghost, capsys):
    status, text = said(capsys, "doctor")
    assert status == 1
    assert f"✗ process {ghost.pid} of " in text
    assert "`visionforge doctor --kill` ends them" in text
    assert ghost.poll() is None
    status, text = said(capsys, "doctor", "--kill")
    assert status == 0
    assert f"✓ process {ghost.pid} of " in text
    assert not psutil.pid_exists(ghost.pid)
    assert said(capsys, "doctor")[0] == 0


def test_doctor_ends_nothing_that_a_strangers_record_names(ghost, tmp_path, capsys):
    record = tmp_path / "outputs" / "latest" / RECORD
    record.write_text(record.read_text().replace('"signature": "', '"signature": "0'))
    status, text = said(capsys, "doctor", "--kill")
    assert (status, ghost.poll()) == (0, None)
    assert str(ghost.pid) not in text


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "KUBERNETES_SERVICE_HOST"])
def test_doctor_only_reports_under_a_scheduler(ghost, capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, "7")
    status, text = said(capsys, "doctor", "--kill")
    assert status == 1
    assert "processes are not ended; let the scheduler do it" in text
    assert ghost.poll() is None


def test_doctor_tells_of_machine_and_folders(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISIONFORGE_CACHE", str(tmp_path / "file" / "cache"))
    status, text = said(capsys, "doctor", "--json")
    report = json.loads(text)
    assert status == 1
    assert report["folders"]["outputs"]["ok"]
    assert not report["folders"]["cache"]["ok"]
    assert report["packages"]["torch"]
    assert report["machine"]["memory_gb"] > 0
    assert "✗ cache: file/cache (cannot be written" in said(capsys, "doctor")[1]


# --- reproduce


@pytest.fixture
def stored(plain_run, tmp_path) -> Path:
    return shutil.copytree(plain_run, tmp_path / "outputs" / plain_run.name)


def test_strict_run_is_reproduced(stored, capsys):
    before = this_process()
    status, text = said(capsys, "reproduce", stored)
    assert status == 0, text
    assert "✓ no difference: 2 epochs, the tensors of both checkpoints and 32 predictions are equal" in text
    first, second = run_folders(stored.parent)
    assert second.name == f"{first.name}-2"
    assert json.loads((second / "run.json").read_text())["parent"]["run"] == first.name
    assert before.find() is not None


def test_a_run_whose_logger_had_a_secret_is_reproduced_without_it(stored, capsys, tmp_path):
    config = yaml.safe_load((stored / "config.yaml").read_text())
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs", "prefix": "…"}}
    (stored / "config.yaml").write_text(yaml.safe_dump(config | {"trainer": config["trainer"] | {"logger": [logger]}}))
    status, text = said(capsys, "reproduce", stored, "--trust", stored)
    assert status == 0, text
    assert "✓ no difference" in text
    assert not (tmp_path / "logs").exists()


def earlier_table(path: Path, change: str = "") -> None:
    """Write a table of predictions as the first versions did: numbers for classes, raw probabilities under other names.

    Args:
        path: The table.
        change: Appended to the last probability of the last row.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {"probability": "raw_probability_", "tta_probability": "raw_tta_probability_"}
    columns = {kind: [name for name in rows[0] if name.startswith(prefix)] for kind, prefix in kinds.items()}
    names = [name.removeprefix("raw_probability_") for name in columns["probability"]]
    header = [f"{kind}_{k}" for kind, found in columns.items() for k in range(len(found))]
    lines = [",".join(["index", "label", "prediction", *header])]
    for row in rows:
        values = [row[name] for found in columns.values() for name in found]
        lines.append(",".join([row["index"], *(str(names.index(row[c])) for c in ("truth", "prediction")), *values]))
    path.write_text("\n".join(lines) + change + "\n")


@pytest.mark.parametrize(("change", "status"), [("", 0), ("9", 1)])
def test_a_run_of_an_earlier_version_is_compared_by_its_numbers(stored, capsys, change, status):
    earlier_table(stored / "predictions.csv", change)
    found, text = said(capsys, "reproduce", stored)
    assert found == status, text
    assert ("first difference: predictions.csv, image 31, raw probability of class 3" in text) == bool(status)


@pytest.mark.parametrize("what", ["epoch", "tensor", "prediction"])
def test_first_difference_is_named(stored, capsys, what):
    import torch

    if what == "epoch":
        lines = (stored / "metrics.csv").read_text().splitlines()
        values = lines[2].split(",")
        lines[2] = ",".join([values[0], "9.5", *values[2:]])
        (stored / "metrics.csv").write_text("\n".join(lines) + "\n")
        expected = "epoch 2, train/loss: 9.5 before, "
    elif what == "tensor":
        content = torch.load(stored / "checkpoints" / "last.ckpt", weights_only=True)
        name = list(content["state_dict"])[2]
        content["state_dict"][name].view(-1)[0] += 1.0
        torch.save(content, stored / "checkpoints" / "last.ckpt")
        expected = f"last.ckpt, {name}: largest deviation 1"
    else:
        lines = (stored / "predictions.csv").read_text().splitlines()
        lines[5] = lines[5].rpartition(",")[0] + ",0.999"
        (stored / "predictions.csv").write_text("\n".join(lines) + "\n")
        expected = "predictions.csv, image 4, "
    status, text = said(capsys, "reproduce", stored)
    assert status == 1
    assert f"✗ first difference: {expected}" in text


def test_changes_since_the_run_are_told_before(stored, capsys, monkeypatch):
    config = (stored / "config.yaml").read_text()
    (stored / "config.yaml").write_text(config.replace("learning_rate: 0.008", "learning_rate: 0.009"))
    manifest = json.loads((stored / "run.json").read_text())
    manifest["sessions"][-1]["packages"]["torch"] = "1.0"
    manifest["sessions"][-1]["switches"]["deterministic_algorithms"] = False
    (stored / "run.json").write_text(json.dumps(manifest))
    before = os.environ.get("OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    status, text = said(capsys, "reproduce", stored, "--check")
    assert status == 0
    assert "! settings: config.yaml was changed after the run" in text
    assert "! torch: 1.0 in the run, " in text
    assert f"! $OMP_NUM_THREADS: {before} in the run, 7 here" in text
    assert "! trainer.deterministic: false in the run" in text
    assert len(run_folders(stored.parent)) == 1


def test_incomplete_run_is_not_reproduced(refuse, tmp_path):
    create(tmp_path / "outputs").finish("failed", "x")
    (line,) = refuse("reproduce", "latest")
    assert "is failed; only a complete fit can be compared" in line


# --- many at once


@pytest.mark.slow
def test_six_fits_at_once_each_in_its_own_folder_or_refused(tmp_path):
    """Four with the same settings, two with others; real processes, as from six terminals."""
    outputs = tmp_path / "outputs"
    seeds = [42] * 4 + [1, 2]
    command = [sys.executable, "-m", "visionforge", "fit"]
    started = [
        subprocess.Popen(
            [*command, *flags(seed_everything=seed, trainer__default_root_dir=outputs)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    said = [process.communicate(timeout=500)[1] for process in started]
    runs = run_folders(outputs)
    ended = [process.returncode for process in started]
    assert ended[4:] == [0] * 2, said[4:]
    assert len(runs) == ended.count(0)
    for status, text in zip(ended[:4], said[:4], strict=True):
        assert status in (0, 2)
        if status == 2:
            (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
            owner = next(each for each in started if f"in use by process {each.pid} on " in line)
            assert owner.returncode == 0
    for run in runs:
        stored = json.loads((run / "run.json").read_text())
        assert stored["state"] == "complete"
        assert stored["run"] == run.name
        assert (run / "metrics.json").is_file()
        assert (run / "run.log").read_text().count("run folder") == 1
    assert sorted(json.loads((run / "run.json").read_text())["seeds"]["seed_everything"] for run in runs)[:2] == [1, 2]
    assert not [path for path in outputs.rglob(".*")], "no lock and no temporary file is left"
    assert not [process for process in psutil.process_iter() if str(outputs) in command_of(process)]


def command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
        return " ".join(process.cmdline())
    return ""


def test_clean_removes_what_a_run_consists_of_and_nothing_else(tmp_path, capsys):
    outputs = tmp_path / "outputs"
    run = create(outputs)
    folder = run.workspace.path
    run.finish("failed", "x")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("")
    for name in ("predictions.csv", "predictions.json", "truth.json"):
        (folder / name).write_text("")
    (folder / "figures").mkdir()
    (folder / "figures" / "thesis.tex").write_text("three years")
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.csv").write_text("mine")
    (folder / "evaluations").symlink_to(tmp_path / "elsewhere")
    (outputs / ".mine.new-1").mkdir()
    (outputs / ".mine.new-1" / "x").write_text("mine")
    (outputs / ".mine.lock").write_text("mine")
    assert main(["runs", "clean", "--incomplete", "--yes"]) == 0
    assert "files that no run consists of were left" in capsys.readouterr().err
    left = {path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file()}
    name = folder.name
    assert left == {f"{name}/figures/thesis.tex", f"{name}/notes.txt", ".mine.new-1/x", ".mine.lock"}
    assert (tmp_path / "elsewhere" / "a.csv").read_text() == "mine"


@pytest.mark.parametrize("named", [["--run", "RUN"], ["--run=RUN"], ["RUN"]])
def test_a_run_may_stand_behind_the_flag_that_other_commands_have(quick_run, capsys, named):
    words = [word.replace("RUN", str(quick_run)) for word in named]
    assert main(["runs", "show", *words]) == 0
    assert quick_run.name in capsys.readouterr().out


def test_the_seed_is_shown_where_it_differs_and_ensembles_are_told(capsys):
    row = {"run": "r", "state": "complete", "stage": "fit", "started": None, "seconds": 1, "epochs": 2, "max_epochs": 2}
    row |= {"seed": 1, "accuracy": None, "auc": None, "bytes": 0}
    print_rows([row, {**row, "stage": "ensemble"}])
    told = capsys.readouterr().out
    assert "seed" not in told
    assert "2/2" in told
    assert "ensemble" in told
    print_rows([row, {**row, "seed": 27}])
    told = capsys.readouterr().out
    assert "seed" in told
    assert " 27 " in told
