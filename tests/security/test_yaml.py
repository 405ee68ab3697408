"""YAML and JSON from strangers: what is no plain, finite, small tree is refused in a line, in a moment."""

import json
import math
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, flags
from tests.security.harness import attack, refused
from visionforge.cli.main import main
from visionforge.reading import MAX_DEPTH, MAX_NODES, UnreadableError, read_json, read_text, read_yaml_text

LEVELS = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
LAUGHS = "\n".join(["a0: &a0 [x]", *LEVELS])  # a hundred thousand million values
MERGES = "\n".join(
    ["a0: &a0 {x0: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12))]
)
HOSTILE = {
    "laughs": (LAUGHS, "more than 100,000 values"),
    "merges": (MERGES, "more than 100,000 values"),
    "itself": ("a: &a [*a]", "holds itself by its alias"),
    "itself, mapped": ("&a {x: *a}", "holds itself by its alias"),
    "deep sequence": ("[" * 500 + "]" * 500, "nested deeper than 64"),
    "deep mapping": ("{a: " * 500 + "1" + "}" * 500, "nested deeper than 64"),
    "deep blocks": ("- " * 100_000 + "1", "nested deeper than 64"),
    "very deep": ("[" * 900_000, "nest"),
    "deep by aliases": ("- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 90)), "deeper than 64"),
    "many": (f"[{'1, ' * MAX_NODES}]", "more than 100,000 values"),
    "key twice": ("data: {a: 1}\nb: 1\ndata: {c: 1}\n", "the key data stands twice (lines 1 and 3)"),
    "key twice inside": ("data:\n  a: 1\n  b: 2\n  a: 3\n", "the key a stands twice (lines 2 and 4)"),
    "long integer": (f"a: {'9' * 5000}", "a number of 5,000 digits"),
    "long hexadecimal": (f"a: 0x{'f' * 300_000}", "digits"),
    "endless": ("a: 1.0e+999", "no finite number"),
    "infinite": ("a: -.inf", "no finite number"),
    "no number": ("a: .nan", "no finite number"),
    "date": ("a: !!timestamp 2026-01-01", "tag:yaml.org,2002:timestamp"),
    "set": ("a: !!set {b, c}", "tag:yaml.org,2002:set"),
    "bytes": ("a: !!binary aGk=", "tag:yaml.org,2002:binary"),
    "ordered": ("a: !!omap [b: 1]", "tag:yaml.org,2002:omap"),
    "object": ("a: !!python/object/apply:os.system ['touch was_here']", "tag:yaml.org,2002:python"),
    "name": ("a: !!python/name:os.system", "tag:yaml.org,2002:python"),
    "own tag": ("a: !evil b", "!evil"),
    "wrong tag": ("a: !!int b", "does not fit its tag"),
    "wrong boolean": ("a: !!bool b", "does not fit its tag"),
    "NUL": ("a: b\0c", "characters are not allowed"),
    "NUL by escape": ('data: {root: "a\\0b"}', "NUL character"),
    "escape": ("a: b\x1b[31m", "characters are not allowed"),
    "key that is a list": ("? [a]\n: b", "unhashable"),
    "two documents": ("--- {a: 1}\n--- {a: 2}\n", "another document"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_line(refuse, tmp_path, monkeypatch, name):
    text, complaint = HOSTILE[name]
    (tmp_path / "x.yaml").write_text(text)
    started = time.monotonic()
    (line,) = refuse("fit", "--config", "x.yaml")
    assert time.monotonic() - started < 10
    assert line.startswith("x.yaml: cannot be read as a configuration file: ")
    assert complaint in line
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "strange.yaml").write_text(text)
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(catalog))
    (line,) = refuse("datasets", "info", "strange")
    assert complaint in line


def test_plain_yaml_is_what_the_library_reads():
    """An independent reference: PyYAML's own safe loader."""
    files = [*(REPOSITORY / "configs").glob("*.yaml"), *(REPOSITORY / "src").rglob("catalog/*.yaml")]
    texts = [path.read_text() for path in files]
    texts += [
        "1e-3",
        "1.5e-3",
        "yes",
        "off",
        "~",
        "",
        "# x",
        "0x1f",
        "1_000",
        "a: &b {x: 1}\nc: {<<: *b, y: 2}",
        "12:30",
    ]
    texts += ["- &a [1, 2]\n- *a\n- *a", "a: {<<: {x: 1}, x: 2}", "'2026-01-01'", "a: 'b: c'", "{a: null, ? b}"]
    assert len(files) > 10
    for text in texts:
        assert read_yaml_text(text) == yaml.safe_load(text), text
    assert read_yaml_text("2026-01-01") == "2026-01-01"  # no setting is a date
    assert read_yaml_text("=") == "="


def test_limits_are_what_they_say():
    assert read_yaml_text("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is not None
    assert len(read_yaml_text(f"[{'1, ' * (MAX_NODES - 1)}]")) == MAX_NODES - 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ('{"a": ' * 100 + "1" + "}" * 100, "nested deeper"),
        (f'{{"a": {"9" * 5000}}}', "5,000 digits"),
        ('{"a": 1', "not valid JSON"),
        ('"' + "x" * 2000, "larger than"),
        ('"\udcff"', "UTF-8"),
    ],
)
def test_hostile_json_is_refused(tmp_path, text, complaint):
    (tmp_path / "x.json").write_bytes(os.fsencode(text))
    with pytest.raises(UnreadableError, match=complaint):
        read_json(tmp_path / "x.json", 1000 if "larger" in complaint else 1_000_000)


def test_numbers_that_json_does_not_have(tmp_path):
    (tmp_path / "x.json").write_text('{"a": NaN, "b": [Infinity, -Infinity, 1e999, 1e-3, 12]}')
    content = read_json(tmp_path / "x.json")
    assert content == {"a": None, "b": [None, None, None, 1e-3, 12]}
    assert all(math.isfinite(value) for value in content["b"] if value is not None)


def special_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "null").symlink_to("/dev/zero")
    return {name: folder / name for name in ("pipe", "folder", "null")}


@pytest.mark.slow
def test_what_is_no_file_is_not_waited_for(tmp_path):
    paths = special_files(tmp_path)
    for path in paths.values():
        with pytest.raises(UnreadableError, match="no file"):
            read_text(path)
    outcome = attack("fit", "--config", str(paths["pipe"]), folder=tmp_path, timeout_s=30)
    (line,) = refused(outcome)
    assert "no file" in line


def hostile_runs(outputs: Path, quick_run: Path, count: int) -> None:
    """Fill an outputs folder with runs of which each has something else wrong with it."""
    good = json.loads((quick_run / "run.json").read_text())
    metrics = json.loads((quick_run / "metrics.json").read_text())
    manifests = [
        good,
        {**good, "started": "yesterday"},
        {**good, "started": "0001-01-01T00:00:00+23:59"},
        {**good, "started": "2026-01-01T00:00:00"},
        {**good, "state": "running"},
        {
            **good,
            "sessions": [{**good["sessions"][-1], "code": {"package": "x"}, "packages": {}, "scheduler": {"a": 1}}],
        },
        {**good, "seeds": {"seed_everything": 10**90}, "progress": {"epochs": 10**90}},
        {**good, "weights": {"source": [1]}, "data": {"a": {"b": [1]}}, "parent": {"run": {"x": 1}}, "state": "failed"},
        {"run": 1},
        [],
        None,
        7,
    ]
    contents = [
        metrics,
        {**metrics, "without_tta": {"accuracy": "x", "auc": [1], "loss": {"a": 1}, "f1_macro": True, "mae": None}},
        {**metrics, "without_tta": "x", "with_tta": [1]},
        {**metrics, "without_tta": {"accuracy": float("nan"), "auc": float("inf")}},
        {**metrics, "without_tta": {"accuracy": 10**90}, "task": ["x"], "dataset": {}, "split": 3},
        {"without_tta": {"accuracy": 1}},
        [1],
        "x",
    ]
    configs = [
        (quick_run / "config.yaml").read_text(),
        LAUGHS,
        "[1]",
        "x",
        "1: a\nb: {null: 1, c: 2}",
        "model: 3\ndata: [1]\n",
    ]
    special = [lambda path: os.mkfifo(path), lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")]
    raw = [b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b"", b"\0"]
    for number in range(count):
        run = outputs / f"run{number:04d}"
        run.mkdir(parents=True)
        if number % 5 == 3:
            special[number // 5 % 3](run / ("run.json", "metrics.json", "config.yaml")[number % 3])
        for name, text in (
            ("run.json", json.dumps(manifests[number % len(manifests)])),
            ("metrics.json", json.dumps(contents[number % len(contents)])),
            ("config.yaml", configs[number % len(configs)]),
        ):
            if not os.path.lexists(run / name):
                (run / name).write_bytes(raw[number // 7 % 5] if number % 7 == 6 else text.encode())
        if number % 4 == 0:
            shutil.copyfile(quick_run / "predictions.csv", run / "predictions.csv")
    (outputs / "elsewhere").symlink_to(quick_run)
    (outputs / "nowhere").symlink_to(outputs / "none")


@pytest.mark.slow
def test_a_folder_of_a_thousand_hostile_runs(tmp_path, quick_run):
    hostile_runs(tmp_path / "outputs", quick_run, 1000)
    for command in (["list"], ["list", "--json", "--sort", "accuracy"], ["clean", "--incomplete"]):
        outcome = attack("runs", *command, "--outputs", "outputs", folder=tmp_path, timeout_s=60)
        assert outcome.status == 0, outcome.err[-2000:]
        assert "Traceback" not in outcome.err
        assert outcome.err.startswith("warning: ")
        assert outcome.seconds < 30
        assert not outcome.programs
        assert not outcome.changed_outside(tmp_path)


def test_every_hostile_run_can_be_looked_at(tmp_path, quick_run, capsys):
    hostile_runs(tmp_path / "outputs", quick_run, 60)
    statuses = set()
    for run in sorted((tmp_path / "outputs").glob("run*")):
        for command in (["show", run], ["show", run, "--json"], ["diff", run, quick_run], ["compare", run, quick_run]):
            more = ["--resamples", "10"] if command[0] == "compare" else []
            statuses.add(main(["runs", *map(str, command), *more]))
            output = capsys.readouterr()
            assert "Traceback" not in output.out + output.err
    assert statuses == {0, 2}


def test_infinite_values_on_the_command_line(refuse):
    for value in (".inf", "1.0e+999", ".nan", "9" * 5000):
        (line,) = refuse("fit", *flags(), "--model.optimizer.learning_rate", value)
        assert line.startswith("--model.optimizer.learning_rate: cannot be read as a value: ")
