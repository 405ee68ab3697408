"""The page of all runs shows what `runs list` lists, what was varied, and curves, and takes no run for markup."""

import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
import yaml

import visionforge as vf
from tests.runs.helpers import CONFIG, create
from tests.security.harness import touched
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation import run_summaries
from visionforge.evaluation.run_summaries import main_metric
from visionforge.reporting.runs_page import GENERATOR, MOST_DIFFERENT, NAME
from visionforge.runs.query import run_rows

EVIL = "</script><script>alert('x')</script>\"'&\x1b[31m\u202e"
TABLE = "epoch,train/loss,val/loss,val/auc,lr,seconds\n0,2,1.5,0.5,0.1,60\n1,1,0.5,0.75,0.01,60\n"


class Page(HTMLParser):
    """The parts of a page: tags with their attributes, rows of its tables as texts, and the JSON of its curves."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str | None, list[list[str]]] = {}
        self.data = ""
        self._rows: list[list[str]] = []
        self._cell, self._json = False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self._rows = self.tables[found.get("id")] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._cell = True
        elif tag == "small" and self._cell:
            self._rows[-1][-1] += "|"
        self._json = tag == "script" and found.get("type") == "application/json"

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("th", "td")
        self._json = False

    def handle_data(self, data):
        if self._cell:
            self._rows[-1][-1] += data
        if self._json:
            self.data += data

    def column(self, key, table="runs"):
        """Return the cells below a heading."""
        keys = [found["data-key"] for tag, found in self.tags if "data-key" in found]
        heading, *rows = self.tables[table]
        place = (keys[: len(heading)] if table == "runs" else keys[-len(heading) :]).index(key)
        return [row[place] for row in rows]


def page_of(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def made(tmp_path):
    """Make runs in `outputs`."""

    def make(name="run", seed=42, auc=None, table=TABLE, config=None, manifest=None, metrics=None):
        folder = tmp_path / "outputs"
        run = create(folder)
        run.finish("complete")
        path = folder / name
        run.workspace.path.rename(path)
        settings = {**CONFIG, **(config or {}), "seed_everything": seed}
        (path / "config.yaml").write_text(yaml.safe_dump(settings))
        content = json.loads((path / "run.json").read_text()) | {"run": name, "seeds": {"seed_everything": seed}}
        (path / "run.json").write_text(json.dumps(content | (manifest or {})))
        if auc is not None or metrics is not None:
            known = {"task": "multi-class", "without_tta": {"auc": auc, "accuracy": 0.5}}
            known["intervals"] = {"without_tta": {"auc": [0.25, 0.875]}}
            (path / "metrics.json").write_text(json.dumps(known if metrics is None else metrics))
        if table is not None:
            (path / "metrics.csv").write_text(table)
        return path

    return make


def test_its_rows_are_those_of_runs_list(made, tmp_path):
    made("b", manifest={"started": "2020-01-01T00:00:00+00:00"}, auc=0.75)
    made("a", manifest={"state": "failed", "error": "no memory"}, table=None)
    made("c", manifest={"state": "running"})  # which nobody holds
    (tmp_path / "outputs" / "broken").mkdir()
    (tmp_path / "outputs" / "broken" / "run.json").write_text("{")
    path = vf.runs_page("outputs")
    assert path == tmp_path / "outputs" / NAME
    rows, problems = run_rows(tmp_path / "outputs")
    page = page_of(path)
    assert page.column("run") == [row["run"] for row in rows]
    assert page.column("run")[0] == "b"
    assert [cell.partition("|")[0] for cell in page.column("state")] == [row["state"] for row in rows]
    assert "failed|no memory" in page.column("state")
    assert page.column("metric")[0] == "0.7500|0.250 – 0.875"
    assert page.column("accuracy")[0] == "0.5000"
    assert len(problems) == 1
    assert problems[0].split(":")[0] in path.read_text()


def test_only_settings_that_differ_are_columns(made):
    for place, rate in enumerate((0.5, 0.125, None)):
        model = {"backbone": {"name": "m"}, "optimizer": {"learning_rate": rate}, "tta": "full"}
        made(f"r{place}", seed=place, config={"model": model, "data": {"dataset": "d", "num_workers": place}})
    page = page_of(vf.runs_page("outputs"))
    assert page.column("model.optimizer.learning_rate") == ["0.5", "0.125", "–"]
    keys = [found["data-key"] for _, found in page.tags if "setting" in str(found.get("class")) and "data-key" in found]
    assert keys == ["model.optimizer.learning_rate"]  # what changes no result, such as data.num_workers, is no news


def test_no_more_settings_are_columns_than_a_reader_can_follow(made):
    for place in range(2):
        made(f"r{place}", config={"model": {f"s{n}": place for n in range(MOST_DIFFERENT + 3)}})
    page = vf.runs_page("outputs").read_text()
    assert len(re.findall(r'data-key="model\.s\d+"', page)) == MOST_DIFFERENT
    assert "3 more settings that differ" in page


def test_configurations_have_mean_and_spread_over_seeds(made):
    for seed, auc in enumerate((0.5, 0.75, 1.0)):
        made(f"r{seed}", seed=seed, auc=auc)
    made("r3", seed=3)
    made("s", auc=0.25, config={"model": {"backbone": {"name": "m"}, "tta": "none"}})
    page = page_of(vf.runs_page("outputs"))
    assert page.column("metric", "groups") == ["0.750 ± 0.250", "0.250"]
    assert page.column("runs", "groups") == ["3 of 4", "1"]
    assert page.column("seeds", "groups") == ["0, 1, 2, 3", "42"]
    assert page.column("settings", "groups") == ["model.tta –", "model.tta none"]
    assert [found["data-runs"] for _, found in page.tags if "data-runs" in found] == ["0 1 2 3", "4"]


def test_there_are_no_configurations_where_each_has_one_run(made):
    made("one")
    made("two", config={"trainer": {"max_epochs": 3}})
    assert list(page_of(vf.runs_page("outputs")).tables) == ["runs"]


def test_runs_without_settings_are_not_taken_for_the_same(made):
    for place in range(2):
        (made(f"r{place}") / "config.yaml").write_text("[")
    page = vf.runs_page("outputs")
    assert list(page_of(page).tables) == ["runs"]
    assert page.read_text().count("config.yaml: cannot be read") == 2


def test_curves_are_embedded_once(made):
    made("with", auc=0.5)
    made("without", table=None)
    data = json.loads(page_of(vf.runs_page("outputs")).data)
    assert data["series"] == ["val/auc", "train/loss", "val/loss", "lr"]
    assert data["runs"] == [
        {"name": "with", "epochs": [1, 2], "minutes": [1, 2], "values": {**dict.fromkeys("0123"), **values}}
        if (values := {"0": [0.5, 0.75], "1": [2, 1], "2": [1.5, 0.5], "3": [0.1, 0.01]}) and name == "with"
        else {"name": "without"}
        for name in ("with", "without")
    ]


def test_many_runs_have_fewer_points_each(made, monkeypatch):
    monkeypatch.setattr(run_summaries, "MOST_VALUES", 2 * 8 * 30)
    table = "epoch,val/loss\n" + "".join(f"{epoch},1\n" for epoch in range(100))
    for place in range(2):
        made(f"r{place}", table=table)
    data = json.loads(page_of(vf.runs_page("outputs")).data)
    assert [len(run["epochs"]) for run in data["runs"]] == [30, 30]


def test_reports_are_linked_where_they_are(made, tmp_path):
    (made("a #1?%") / "report.html").write_text("")
    (made("javascript:alert(1)") / "report.html").write_text("")
    (tmp_path / "elsewhere.html").write_text("")
    (made("out") / "report.html").symlink_to(tmp_path / "elsewhere.html")
    made("none")

    def links(path):
        return sorted(str(found["href"]) for tag, found in page_of(path).tags if tag == "a")

    inside = vf.runs_page("outputs")
    assert links(inside) == ["a%20%231%3F%25/report.html", "javascript%3Aalert%281%29/report.html"]
    beside = vf.runs_page("outputs", tmp_path / "pages" / "all.html")
    assert links(beside) == [f"../outputs/{link}" for link in links(inside)]
    assert "a link that leads out of" in inside.read_text()


def test_an_earlier_page_is_replaced_and_nothing_else(made, tmp_path):
    made()
    path = vf.runs_page("outputs")
    first = path.read_text()
    assert f'content="{GENERATOR}"' in first[:2000]
    made("another")
    assert vf.runs_page("outputs").read_text() != first
    path.write_text("mine")
    with pytest.raises(SettingsError, match=r"out: outputs/runs.html exists already"):
        vf.runs_page("outputs")
    assert path.read_text() == "mine"
    path.unlink()
    (tmp_path / "target.html").write_text(first)
    path.symlink_to(tmp_path / "target.html")
    with pytest.raises(SettingsError, match="exists already"):
        vf.runs_page("outputs")
    with pytest.raises(SettingsError, match="is a folder"):
        vf.runs_page("outputs", "outputs")
    with pytest.raises(SettingsError, match="no such anchor"):
        vf.runs_page("outputs", "nowhere://x.html")


def test_a_folder_without_runs_is_refused_and_nothing_is_made(tmp_path):
    for given, text in ((None, "no runs in outputs"), ("missing", "is no folder")):
        with pytest.raises(RunError, match=text):
            vf.runs_page(given)
    assert list(tmp_path.iterdir()) == []


def test_names_and_texts_are_text(made):
    name = EVIL.replace("/", "⁄")
    config = {"model": {"backbone": {"name": EVIL}, EVIL: 1, "list": [EVIL]}, "data": {"dataset": EVIL}}
    manifest = {"dataset": EVIL, "model": EVIL, "stage": EVIL, "error": EVIL, "parent": {"study": EVIL}}
    table = f"epoch,val/loss,{json.dumps(EVIL)}\n0,1,1\n"
    made(name, config=config, manifest={**manifest, "state": "failed"}, table=table)
    made(os.fsdecode(b"\xff\xfe"), metrics={"task": EVIL, "without_tta": {"auc": 1}})
    path = vf.runs_page("outputs")
    text = path.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "alert('x')" not in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    page = page_of(path)
    assert not [found for _, found in page.tags if any(name.startswith("on") for name in found)]
    assert json.loads(page.data)["runs"][1]["name"].startswith("\\udcff")


NUMBERS = ("1e400", "1e308", "NaN", "-Infinity", "1" + "0" * 99, "1" + "0" * 101, "true", '"0.5"', "[1]", "{}", "null")


@pytest.mark.parametrize("number", NUMBERS)
def test_odd_numbers_break_nothing(made, number):
    path = made("odd", metrics={})
    text = f'{{"auc": {number}, "accuracy": {number}}}'
    odd = f'"intervals": {{"without_tta": {{"auc": [{number}, {number}], "accuracy": {number}}}}}, "partial": {number}'
    (path / "metrics.json").write_text(f'{{"task": {number}, "without_tta": {text}, {odd}}}')
    manifest = json.loads((path / "run.json").read_text()) | {"progress": {"epochs": 10**99, "max_epochs": 0}}
    (path / "run.json").write_text(json.dumps(manifest | {"seeds": {"seed_everything": 10**99}}))
    (path / "config.yaml").write_text(f"model: {number}\ntrainer: {{devices: '{'9' * 5000}', max_epochs: {number}}}\n")
    (path / "metrics.csv").write_text(f"epoch,val/loss,lr\n0,{number if number[0] in '1N-' else 1},1e-320\n")
    shutil.copytree(path, path.with_name("odd-2"))  # whose mean is taken with it
    made("whole")
    found = page_of(vf.runs_page("outputs"))
    json.loads(found.data)
    assert max(len(cell) for row in found.tables["runs"] for cell in row) < 130


def test_huge_and_deep_files_are_told_and_left_out(made, monkeypatch):
    monkeypatch.setattr("visionforge.runs.curves.MAX_EPOCHS_BYTES", 1_000)
    path = made("huge", auc=0.5)
    (path / "metrics.csv").write_text("epoch\n" + "1\n" * 1_000)
    (path / "metrics.json").write_text("[" * 100_000)
    (path / "config.yaml").write_text("a: " + "[" * 1_000)
    text = vf.runs_page("outputs").read_text()
    for name in ("metrics.csv", "metrics.json", "config.yaml"):
        assert f"huge/{name}: cannot be read" in text
    assert len(text) < 60_000


LINKS = ("config.yaml", "metrics.csv", "metrics.json", "report.html", "run.json")


def test_no_link_is_followed_out_of_a_run(made, tmp_path):
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    outside.mkdir()
    for name in LINKS:
        path = made(f"of {name}", auc=0.5) / name
        path.unlink(missing_ok=True)
        (outside / name).write_text("{}")
        path.symlink_to(outside / name)
    with touched(outside) as found:
        text = vf.runs_page("outputs").read_text()
    assert found == []
    for name in LINKS:
        assert f"of {name}/{name}: " in text


def test_settings_below_the_home_of_nobody_are_settings(made):
    for place in range(2):
        weights = {"backbone": {"name": "m", "weights": f"~nobody{place}/w.pth"}}
        made(f"r{place}", config={"model": weights})
    assert page_of(vf.runs_page("outputs")).column("model.backbone.weights") == ["~nobody0/w.pth", "~nobody1/w.pth"]


@pytest.mark.parametrize(
    ("task", "values", "name"),
    [
        ("segmentation", {"mean_dice": 0.5, "auc": 1}, "mean_dice"),
        ("detection", {"map": 0.5}, "map"),
        ("multi-class", {"auc": None, "accuracy": 0.5}, "accuracy"),
        ("of another package", {"accuracy": 0.5}, "accuracy"),
    ],
)
def test_the_main_metric_is_the_first_of_the_task(task, values, name):
    assert main_metric({"task": task, "without_tta": values}).name == name


def test_test_time_views_come_first(made):
    content = {"task": "multi-class", "without_tta": {"auc": 0.25}, "with_tta": {"auc": 0.75}}
    assert main_metric(content | {"intervals": {"with_tta": {"auc": [0.5, 1]}}}).ends == (0.5, 1)


def test_several_main_metrics_are_named(made):
    made("one", auc=0.5)
    made("two", metrics={"task": "segmentation", "without_tta": {"mean_dice": 0.25}})
    assert page_of(vf.runs_page("outputs")).column("metric") == [
        "0.5000|AUC, 0.250 – 0.875",
        "0.2500|Dice",
    ]


def test_without_javascript_the_tables_are_whole(made):
    for seed in range(2):
        made(f"r{seed}", seed=seed, auc=0.5)
    page = page_of(vf.runs_page("outputs"))
    hidden = [found["id"] for _, found in page.tags if "hidden" in found]
    assert hidden == ["overlay", "filters"]  # which the script shows
    assert not [tag for tag, found in page.tags if tag == "tr" and found.get("class")]
