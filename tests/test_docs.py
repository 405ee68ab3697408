"""Every command, configuration and Python block of the documentation is valid; the generated pages are up to date."""

import contextlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.cli.fleet import Fleet
from tests.conftest import REPOSITORY
from visionforge.cli.arguments import CommandParser
from visionforge.cli.commands import embed
from visionforge.cli.main import COMMANDS, main
from visionforge.config.loading import OF_EVERY_COMMAND, normalise, read_arguments
from visionforge.config.schema import RunSettings
from visionforge.config.suites import take_benchmark_flags, with_suite
from visionforge.data.info import DatasetInfo
from visionforge.data.registry import dataset_info
from visionforge.engine.validation import check_settings
from visionforge.errors import SettingsError
from visionforge.models import registry

DOCS = REPOSITORY / "docs"
ELSEWHERE = ("README.md", "CONTRIBUTING.md", "docker/README.md")
PAGES = [*(REPOSITORY / name for name in ELSEWHERE), *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+) -->\n)?^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```",
    re.M | re.S,
)
LIGHTNING = ("fit", "probe", "validate", "test", "predict", "embed", "tune", "benchmark")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, title, text, and the comment right above it."""

    page: Path
    line: int
    kind: str
    title: str | None
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: m.start("text")].count("\n"), m["kind"], m["title"], m["text"], m["mark"])
        for m in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_kind(kind: str) -> list[Block]:
    found = [block for block in BLOCKS if block.kind == kind]
    assert found
    return found


def commands_of(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of every `visionforge` command of a shell block; comments are left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            command = list(takewhile(lambda word: word not in ("&&", "|", ";"), words))
            words = words[len(command) + 1 :]
            if command[:1] == ["srun"]:
                command = command[1:]
            if command[:2] == ["docker", "run"]:
                image = next(i for i, word in enumerate(command) if word.startswith("visionforge:"))
                command = ["visionforge", *command[image + 1 :]]
            if command[:1] == ["visionforge"]:
                yield command[1:]


@pytest.fixture
def reader_folder(tmp_path, monkeypatch, own_parts_forgotten) -> Iterator[Path]:
    """A reader's folder: configurations, the files that pages show or name, and data sets `mine`, `nuclei`, …"""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    (tmp_path / "mine.yaml").write_text("trainer: {max_epochs: 5}\n", encoding="utf-8")
    for block in BLOCKS:
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    mine = dataset_info("breastmnist").model_dump(mode="json") | {"name": "mine"}
    (catalog / "mine.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    shards = dataset_info("pathmnist").model_dump(mode="json") | {"name": "path_shards"}
    (catalog / "path_shards.yaml").write_text(yaml.safe_dump(shards), encoding="utf-8")
    masks = mine | {"name": "nuclei", "task": "segmentation", "classes": ["background", "foreground"], "positive": None}
    masks |= {"archives": {side: {"url": None} for side in (64, 128, 256)}, "resolutions": [64, 128, 256]}
    (catalog / "nuclei.yaml").write_text(yaml.safe_dump(masks), encoding="utf-8")
    boxes = masks | {"name": "voc", "task": "detection", "classes": ["cat", "dog"]}
    for name in ("voc", "bccd"):
        (catalog / f"{name}.yaml").write_text(yaml.safe_dump(boxes | {"name": name}), encoding="utf-8")
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(catalog))
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # of backbones, which a page may register
    yield tmp_path
    for block in BLOCKS:  # what a command of a page has imported
        sys.modules.pop(Path(block.title or "").stem, None)


# --- configurations


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_yaml_is_a_valid_configuration_or_catalog_entry(block, reader_folder):
    values = yaml.safe_load(block.text)
    if "splits" in values:
        assert DatasetInfo.model_validate(values).name == Path(block.title).stem
    else:
        check_settings(values, values.pop("stage", "fit"))  # recipes of benchmarks may say that they are probes


# --- commands


class Parsed(BaseException):
    """Raised where a light command has its options and would begin to work."""


def check_command(arguments: list[str], monkeypatch) -> None:
    name = arguments[0]
    if name not in COMMANDS and name not in ("--help", "--version"):
        raise AssertionError(f"no such command: {name}")
    light = name not in LIGHTNING or (name == "predict" and {"--images", "--model"} & {*arguments})
    if light:
        parse = CommandParser.parse_args

        def parse_and_stop(self, *given, **named):
            parse(self, *given, **named)
            raise Parsed

        monkeypatch.setattr(CommandParser, "parse_args", parse_and_stop)
        with contextlib.suppress(Parsed):
            assert name in ("--help", "--version") or main(arguments) == 0
        return
    rest = normalise([argument for argument in arguments[1:] if argument not in OF_EVERY_COMMAND])
    if name == "embed":
        own, rest = embed.parser().parse_known_args(rest)
        values = read_arguments(rest).values
        if "run" in values or own.pictures:
            assert not {*values} - {"run", "ckpt_path", "trainer"}
            return
    if name == "tune" and rest[:1] == ["--report"]:
        assert len(rest) == 2
        return
    for position, argument in enumerate(rest):  # what a study has written is not there
        if argument == "--config" and rest[position + 1].startswith("outputs/"):
            del rest[position : position + 2]
            break
    if name == "fit" and rest[:1] and not rest[0].startswith("-"):  # a source, which is not there
        del rest[0]
    raw = read_arguments(rest)
    raw.values.pop("minutes", None)
    if name == "benchmark":
        take_benchmark_flags(raw)
        check_settings(with_suite(raw).values, "fit", rules=False)
        return
    values = raw.values
    values = {
        name: value for name, value in values.items() if name not in ("seeds", "folds", "distill", "profile", "run")
    }
    check_settings(values, "fit" if name == "tune" else name, here=False)  # the device is the reader's


COMMAND_LINES = [(block, arguments) for block in of_kind("bash") for arguments in commands_of(block)]


@pytest.mark.parametrize(
    ("block", "arguments"), COMMAND_LINES, ids=[f"{block}-{' '.join(words[:2])}" for block, words in COMMAND_LINES]
)
def test_commands_are_valid(block, arguments, reader_folder, monkeypatch, capsys):
    if block.mark != "fails":
        check_command(arguments, monkeypatch)


def test_a_misspelt_flag_of_a_page_is_found(reader_folder, monkeypatch, capsys):
    for wrong in (["runs", "list", "--srot", "auc"], ["datasets", "stat", "mine"], ["explain", "--picture", "x"]):
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            check_command(wrong, patch)
    with pytest.raises(SettingsError):
        check_command(["fit", "--data.datset", "mine"], monkeypatch)


def test_refused_command_of_the_tutorial_says_what_the_tutorial_says(reader_folder, capsys):
    (fails,) = [block for block in BLOCKS if block.mark == "fails"]
    blocks = blocks_of(fails.page)
    told = blocks[blocks.index(fails) + 1]
    (arguments,) = commands_of(fails)
    assert main(arguments) == 2
    assert capsys.readouterr().err == told.text


# --- Python


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_python_compiles(block):
    compile(block.text, str(block), "exec")


EXECUTED = [page for page in PAGES if page.parent.name in ("howto", "explanation")]


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page, monkeypatch, own_parts_forgotten):
    """The blocks of a page run one after the other; what a page registers is forgotten afterwards."""
    from visionforge.data import registry as datasets
    from visionforge.models import registry as backbones

    monkeypatch.setattr(datasets, "_registered", dict(datasets._registered))
    monkeypatch.setattr(backbones, "_ENTRIES", dict(backbones._ENTRIES))
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks_of(page):
        if block.kind == "python" and block.mark != "not run":
            exec(compile(block.text, str(block), "exec"), module.__dict__)


# --- pages


def test_parameters_of_the_earlier_program_have_an_heir():
    """Each name of the settings' table of changed names is a setting, and the migration page leads there."""
    from visionforge.config.problems import flatten

    page = (DOCS / "settings.md").read_text(encoding="utf-8").split("## Names that changed")[1].split("\n## ")[0]
    heirs = re.findall(r"^\| `[^|]+` \| `([a-z_.]+)`", page, re.M)
    assert len(heirs) > 25
    assert {name for name in heirs if not name.startswith("trainer.")} <= {*flatten(RunSettings)}
    assert "settings.md#names-that-changed" in (DOCS / "howto" / "migration.md").read_text(encoding="utf-8")


def test_relative_links_lead_to_files():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(REPOSITORY)}: {target}"


def test_every_page_has_a_place_in_the_navigation():
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    listed = {*re.findall(r": ([\w/-]+\.md)$", text.split("\nnav:\n")[1], re.M)}
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages <= listed


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays out help differently in other versions")
def test_generated_pages_are_up_to_date(generate):
    assert generate.outdated() == [], "run: python docs/generate.py"


def test_an_import_against_the_arrows_cannot_be_drawn(generate):
    with pytest.raises(ValueError, match="not below"):
        generate.figures.architecture({"data": {"training": 1}})
    with pytest.raises(ValueError, match="no place"):
        generate.figures.architecture({"gadgets": {}})


def test_citation_has_the_version_of_the_package():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


# --- the tutorial


def expanded(word: str, folder: Path) -> list[str]:
    """Return the paths below a folder that a shell would put in the place of a word with a star, or the word."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else [word]


@pytest.mark.slow
def test_tutorial_runs_as_it_is_written(tmp_path):
    """All commands of the tutorial, in its order, each a process in a folder with the files that it shows."""
    page = DOCS / "tutorial.md"
    has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    (tmp_path / "README.md").write_text("a project\n", encoding="utf-8")
    with contextlib.closing(Fleet(tmp_path)) as fleet:
        for block in blocks_of(page):
            if block.kind == "yaml":
                (tmp_path / block.title).write_text(block.text, encoding="utf-8")
            if block.kind != "bash" or block.mark == "not run" or (block.mark == "needs onnx" and not has_onnx):
                continue
            commands = list(commands_of(block))
            assert len(commands) == len(block.text.splitlines()), f"{block}: a line that is no command of ours"
            for arguments in commands:
                done = fleet.run(*(word for given in arguments for word in expanded(given, tmp_path)))
                assert done.status == (2 if block.mark == "fails" else 0), f"{block}\n{done.out}\n{done.err}"
    assert (tmp_path / "predictions.csv").is_file()
    assert (tmp_path / "digits.png").is_file()
    assert (tmp_path / "outputs" / "studies" / "digits_tutorial" / "index.html").is_file()


def test_the_site_loads_nothing_from_elsewhere():
    """What the theme would take from another host is a file of ours: the search works from the file system."""
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    polyfills = re.search(r"polyfills: \[(.*)\]", text)[1].split(", ")
    assert [name for name in polyfills if "iframe-worker" in name]
    assert all((DOCS / name).is_file() for name in polyfills)
    assert "font: false" in text
