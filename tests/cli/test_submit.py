"""Jobs for clusters: what is written, that it runs, and what is refused."""

import json
import os
import shlex
import stat
import subprocess
import sys

import pytest
import yaml

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.engine.submit import Job, Resources, kubernetes_manifest, slurm_script, submit_to_slurm
from visionforge.errors import RunError, SettingsError

FIT = ("fit", "--config", "quickstart")


def script(*command: str, **resources) -> str:
    return slurm_script(Job.of(command, Resources(**resources)))


def options(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --").partition("=") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {key: value for key, _, value in lines}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put programs into the path that do what SLURM's would do here; return the folder of what they were told."""
    told = tmp_path / "told"
    told.mkdir()
    programs = {
        "sbatch": f'cat > {told}/script; echo "$@" > {told}/options; echo "4711;cluster"',
        "srun": 'shift; exec "$@"',
        "scontrol": f'echo "$@" >> {told}/scontrol',
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return told


def begin(told, **variables: object) -> subprocess.CompletedProcess:
    """Run the script that was submitted, as a batch system would."""
    given = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "interactive"}
    environment = {**os.environ, **given, **{name: str(value) for name, value in variables.items()}}
    return subprocess.run(
        ["bash", told / "script"], env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_training_is_told_of_the_end_of_its_time_and_goes_on():
    text = script(
        *FIT, nodes=2, gpus=4, cpus=8, memory="64G", time="1-00:00:00", partition="gpu", account="lab", name="a"
    )
    assert options(text) == {
        "job-name": "a",
        "nodes": "2",
        "ntasks-per-node": "4",
        "cpus-per-task": "8",
        "gpus-per-node": "4",
        "mem": "64G",
        "time": "1-00:00:00",
        "partition": "gpu",
        "account": "lab",
        "signal": "SIGUSR1@90",
        "requeue": "",
        "open-mode": "append",
        "output": "logs/%x-%j.log",
    }
    last = shlex.split(text.splitlines()[-1])
    own = ["exec", "srun", "--kill-on-bad-exit=1", sys.executable, "-m", "visionforge"]
    assert last == [*own, *FIT, "--trainer.num_nodes", "2", "--trainer.devices", "4"]


def test_seeds_are_an_array_and_so_are_copies():
    text = script("fit", "--seeds", "5,7", *FIT[1:], at_once=1)
    assert options(text)["array"] == "0-1%1"
    assert "seeds=(5 7)" in text
    assert "--seeds" not in text
    one = script("fit", "--seeds=1", *FIT[1:], "--seed_everything", "9")
    assert "array" not in options(one)
    assert "seeds=(9)" in one
    assert options(script("tune", *FIT[1:], copies=3))["array"] == "0-2"
    assert options(script(*FIT, "--folds", "5", copies=5))["array"] == "0-4"
    assert "gpus-per-node" not in options(one)


def test_what_is_typed_stays_one_word(cluster, tmp_path, capsys):
    odd = "a $(touch x) `touch y` \"b\" 'c' ; touch z"
    assert main(["submit", "--", "tune", *FIT[1:], "--trainer.default_root_dir", odd]) == 0
    assert capsys.readouterr().out == "submitted job 4711; its output is in logs\n"
    assert (cluster / "options").read_text() == "--parsable\n"
    text = (
        (cluster / "script")
        .read_text()
        .replace(f"srun --kill-on-bad-exit=1 {sys.executable} -m visionforge", "printf '%s|'")
    )
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "|".join(["tune", *FIT[1:], "--trainer.default_root_dir", odd, ""])
    assert not [name for name in "xyz" if (tmp_path / name).exists()]
    assert (tmp_path / "logs").is_dir()


def test_a_search_whose_time_is_over_is_requeued(cluster):
    submit_to_slurm(script("tune", *FIT[1:]), cluster / "logs")
    text = (cluster / "script").read_text()
    for status, requeued in ((0, False), (2, False), (138, True)):
        (cluster / "script").write_text(
            text.replace(f"srun --kill-on-bad-exit=1 {sys.executable} -m visionforge", f"bash -c 'exit {status}'")
        )
        (cluster / "scontrol").unlink(missing_ok=True)
        assert begin(cluster).returncode == status
        assert (cluster / "scontrol").exists() == requeued
    assert (cluster / "scontrol").read_text() == "requeue 4711\n"


@pytest.mark.slow
def test_a_seed_of_an_array_is_trained(cluster, tmp_path):
    settings = flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1)
    assert main(["submit", "--cpus", "1", "--", "fit", *settings, "--seeds", "2"]) == 0
    done = begin(cluster, SLURM_ARRAY_JOB_ID=4711, SLURM_ARRAY_TASK_ID=1)
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = run_folders(tmp_path / "outputs")
    assert json.loads((run / "run.json").read_text())["seeds"]["seed_everything"] == 43


@pytest.mark.parametrize(
    ("command", "resources", "line"),
    [
        ((), {}, "what is to run is missing"),
        (("fits",), {}, "fits is not submitted; nearest: fit; allowed: fit, tune, benchmark"),
        (("runs", "list"), {}, "runs is not submitted"),
        (("fit", "--help"), {}, "only prints something; run visionforge fit itself"),
        (("fit", "--config", "nothing"), {}, "nothing"),
        (("fit", "--seeds", "none"), {}, "--seeds: none is not allowed"),
        (("fit", "--seeds", "2", "--seed_everything", "true"), {}, "seed_everything: True is not allowed"),
        ((*FIT, "--trainer.devices", "2"), {"gpus": 2}, "trainer.devices is what --gpus says"),
        ((*FIT, "--seeds", "2"), {"gpus": 2}, "with --seeds each network is trained on one device"),
        (FIT, {"copies": 2}, "--copies 2 of fit would train the same run"),
        (("tune", *FIT[1:]), {"nodes": 2}, "--nodes 2 is for one training"),
        (FIT, {"nodes": 0}, "nodes: 0 is not allowed"),
        (FIT, {"memory": "16"}, "memory: '16' is not allowed"),
        (
            ("fit", "photos/"),
            {},
            "type: `visionforge init photos/`, then `visionforge submit -- fit --config photos.yaml`",
        ),
        (("fit",), {}, "fit: say what is trained on"),
        (("fit", "--resume", "auto"), {}, "fit: say what is trained on"),
        (("fit", "--minutes", "2"), {}, "--minutes: is for `visionforge fit SOURCE`"),
        ((*FIT, "--trainer.max_epoch", "3"), {}, "trainer.max_epoch: unknown setting (on the command line)"),
        (("fit", "--data.dataset", "nothing"), {}, "data.dataset: 'nothing' is unknown"),
        ((*FIT, "--folds", "1"), {}, "--folds: 1 is not allowed"),
        ((*FIT, "--workers", "2"), {}, "--workers: is for --folds"),
        ((*FIT, "--resume", "nothing"), {}, "--resume: nothing is no folder"),
        (("tune", *FIT[1:], "--tune.n_trial", "3"), {}, "tune.n_trial: unknown setting"),
        (("benchmark", "--suite", "quik"), {}, "benchmark.suite: quik is not allowed"),
        (FIT, {"time": "4 hours"}, "time: '4 hours' is not allowed"),
        (FIT, {"time": "0"}, "time: '0' is not allowed"),
        (FIT, {"name": "a b"}, "name: 'a b' is not allowed"),
        (FIT, {"partition": "a\n#SBATCH --wrap=b"}, "partition: "),
        (FIT, {"image": "$(id)"}, "image: "),
    ],
)
def test_refusals_are_one_line(command, resources, line):
    with pytest.raises((SettingsError, RunError)) as raised:
        script(*command, **resources)
    (told,) = raised.value.problems
    assert line in told


@pytest.mark.parametrize(
    ("time", "clock", "seconds"),
    [
        ("90", "01:30:00", 5_400),
        ("90m", "01:30:00", 5_400),
        ("8h", "08:00:00", 28_800),
        ("1d", "1-00:00:00", 86_400),
        ("36h", "1-12:00:00", 129_600),
        ("00:10:30", "00:10:30", 630),
    ],
)
def test_times_are_minutes_or_have_a_unit(time, clock, seconds):
    assert options(script(*FIT, time=time))["time"] == clock
    (job,) = yaml.safe_load_all(kubernetes_manifest(Job.of(FIT, Resources(time=time))))
    assert job["spec"]["activeDeadlineSeconds"] == seconds


def test_what_only_the_other_machine_has_is_not_asked_for_here(capsys):
    assert (
        main(["submit", "--print", "--", *FIT, "--trainer.precision", "16-mixed", "--trainer.accelerator", "gpu"]) == 0
    )
    theirs = ["submit", "--scheduler", "kubernetes", "--", "fit", "--data.dataset", "theirs"]
    assert main(theirs) == 0
    capsys.readouterr()
    assert main([*theirs, "--trainer.max_epoch", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: trainer.max_epoch: unknown setting")


def test_a_command_without_dashes_before_it_and_other_words_are_answered(capsys):
    assert main(["submit", "--print", *FIT]) == 2
    assert capsys.readouterr().err == "error: submit: put `--` before fit: visionforge submit -- fit …\n"
    assert main(["submit", "--print", "--name", "fit", "--", *FIT, "--epochs", "3"]) == 2
    assert "type: visionforge fit --config quickstart --trainer.max_epochs 3" in capsys.readouterr().err


def test_flags_are_named_as_they_are_typed_and_logs_are_a_plain_folder(capsys):
    assert main(["submit", "--at_once", "0", "--", *FIT]) == 2
    assert capsys.readouterr().err.startswith("error: --at_once: 0 is not allowed")
    assert main(["submit", "--logs", "a b", "--print", "--", *FIT]) == 2
    assert capsys.readouterr().err.startswith("error: --logs: 'a b' is not allowed")


@pytest.mark.parametrize("more", [[], ["--seeds", "2"], ["--folds", "3"]])
def test_images_that_are_not_there_yet_are_told_of(tmp_path, monkeypatch, capsys, more):
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path))
    command = ["submit", "--print", "--", "fit", "--data.dataset", "breastmnist", *more]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "breastmnist.npz: missing; `visionforge datasets download breastmnist` gets it" in told
    assert told.count("hosts that train often reach no network") == 1
    (tmp_path / "breastmnist.npz").touch()
    assert main(command) == 0
    assert "missing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "copies", "told"),
    [
        ([], 3, True),
        (["--tune.storage", "sqlite:///s.db"], 3, True),
        (["--tune.storage", "journal"], 3, False),
        ([], 1, False),
    ],
)
def test_a_search_of_several_hosts_needs_more_than_a_file_of_sqlite(capsys, more, copies, told):
    command = ["submit", "--print", "--copies", str(copies), "--", "tune", "--config", "tune_resnet18_28", *more]
    assert main(command) == 0
    assert ("which is safe on one host only" in capsys.readouterr().err) is told
    assert main(["submit", "--print", "--copies", str(copies), "--", "benchmark", "--suite", "quick"]) == 0
    assert ("--benchmark.storage journal" in capsys.readouterr().err) is (copies > 1)


def test_without_sbatch_and_where_it_refuses_there_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="there is no sbatch here; submit from a login node"):
        submit_to_slurm("", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid\n partition' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(RunError, match=r"sbatch refuses the job \(sbatch: error: invalid partition\)"):
        submit_to_slurm("", tmp_path / "logs")


def test_kubernetes_goes_on_by_itself_and_several_nodes_find_each_other():
    service, job = yaml.safe_load_all(kubernetes_manifest(Job.of(FIT, Resources(nodes=2, gpus=4, time="1-00:00:01"))))
    assert (service["kind"], service["spec"]["clusterIP"], job["kind"]) == ("Service", "None", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == [*FIT, "--trainer.num_nodes", "2", "--trainer.devices", "4", "--resume", "auto"]
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "16Gi", "nvidia.com/gpu": 4}
    assert f"--master-addr={service['metadata']['name']}-0.{pod['subdomain']}" in container["command"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert (spec["completions"], spec["parallelism"], spec["activeDeadlineSeconds"]) == (2, 2, 86401)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_workers_and_seeds(capsys):
    arguments = ["--scheduler", "kubernetes", "--copies", "4", "--at_once", "2", "--", "tune", *FIT[1:]]
    assert main(["submit", *arguments]) == 0
    (job,) = yaml.safe_load_all(capsys.readouterr().out)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 2)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["tune", *FIT[1:]]
    assert "activeDeadlineSeconds" not in job["spec"]
    jobs = list(yaml.safe_load_all(kubernetes_manifest(Job.of((*FIT, "--seeds", "2", "--resume=never"), Resources()))))
    assert [each["metadata"]["name"] for each in jobs] == ["visionforge-seed-42", "visionforge-seed-43"]
    args = jobs[1]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == [*FIT, "--resume=never", "--seed_everything", "43"]
