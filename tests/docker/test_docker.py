"""The images' description keeps its promises: small, not root, any user, nothing secret; the package works there."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import EXHAUSTIVE, REPOSITORY, run_folders
from tests.docker.compose import COMPOSE, interpolated
from tests.docker.dockerfile import Stage, left_out, pairs, parse, patterns_of
from tests.runs.helpers import readable_folder
from visionforge.config.loading import read_arguments
from visionforge.config.schema import RunSettings
from visionforge.distribution import DISTRIBUTION
from visionforge.engine.validation import check_settings

FOLDER = REPOSITORY / "docker"
BEFORE, STAGES = parse((FOLDER / "Dockerfile").read_text(encoding="utf-8"))
RUNTIME = list(STAGES.values())[-1]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
IGNORED = patterns_of(REPOSITORY / ".dockerignore")
OPEN = ("/tmp", "/cache", "/data", "/outputs", "/workspace")  # folders that every user may write
STRANGER = 12345  # a user that no list of users has


# --- the Dockerfile


def test_several_stages_on_one_pinned_base():
    defaults = dict(pair for each in BEFORE if each.name == "ARG" for pair in pairs(each.text))
    assert len(STAGES) > 1
    assert {stage.base for stage in STAGES.values()} == {"${BASE}"}
    assert re.fullmatch(r"python:3\.11-slim-[a-z]+", defaults["BASE"])
    assert RUNTIME.name == "runtime", "the last stage is what is built if none is named"


def test_only_results_come_over_from_the_build():
    assert [(each.flags, each.words) for each in RUNTIME.all("COPY")] == [
        ({"from": "build"}, ["/opt/visionforge", "/opt/visionforge"])
    ]
    assert not [each for each in RUNTIME.all("RUN") if "pip" in each.text]


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_nothing_is_left_over_in_a_layer(stage: Stage):
    for each in stage.all("RUN"):
        if "apt-get" in each.text:
            assert "--no-install-recommends" in each.text
            assert each.text.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in each.text:
            assert stage.variables()["PIP_NO_CACHE_DIR"] == "1"
            assert "--constraint" in each.text, "what is installed is pinned"
    assert not stage.all("ADD"), "COPY does not fetch or unpack"


@pytest.mark.parametrize("stage", ["dashboard", "serve", "runtime"])
def test_what_runs_is_not_root_and_has_a_health_check(stage: str):
    stage = STAGES[stage]
    user, _, group = stage.last("USER").text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "CMD" in stage.last("HEALTHCHECK").text
    assert stage.last("ENTRYPOINT").text.startswith("["), "a shell would keep signals to itself"


def test_entry_point_is_the_command():
    assert RUNTIME.last("ENTRYPOINT").words == ["tini", "--", "visionforge"]
    assert RUNTIME.last("CMD").words == ["--help"]


def test_labels_say_what_it_is():
    labels = {key for each in RUNTIME.all("LABEL") for key, _ in pairs(each.text)}
    names = ("title", "description", "version", "revision", "licenses", "base.name")
    assert {f"org.opencontainers.image.{name}" for name in names} <= labels
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"VERSION={project['version']}" in [each.text for each in RUNTIME.all("ARG")]


def test_every_folder_that_is_written_is_open_to_all():
    variables = RUNTIME.variables()
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TORCH_HOME", "MPLCONFIGDIR", "HF_HOME")
    own = ("VISIONFORGE_CACHE", "VISIONFORGE_DATA", "VISIONFORGE_OUTPUTS")
    for name in (*names, *own, "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert variables[name].startswith(OPEN), name
    assert RUNTIME.last("WORKDIR").text in OPEN
    assert RUNTIME.last("VOLUME").words == [variables["VISIONFORGE_DATA"], variables["VISIONFORGE_OUTPUTS"]]
    (made,) = [each.text for each in RUNTIME.all("RUN") if "chmod" in each.text]
    assert {"/data", "/outputs", "/workspace", "/cache"} <= set(made.partition("chmod 1777")[2].split())
    order = [each.name for each in RUNTIME.instructions]
    assert order.index("VOLUME") > RUNTIME.instructions.index(RUNTIME.all("COPY")[-1]), "later changes would be lost"
    assert variables["IN_DOCKER"] == "TRUE"


# --- what goes in


def test_direct_dependencies_are_pinned_within_their_bounds():
    lines = (FOLDER / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower()] = Version(version)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = [each.text.partition("=")[2].split(",") for each in STAGES["build"].all("ARG") if "EXTRAS" in each.text]
    extras += ["serve", "nifti"]  # of the stage that serves
    wanted = [*project["dependencies"], *(text for name in extras for text in project["optional-dependencies"][name])]
    for requirement in map(Requirement, wanted):
        assert pinned[requirement.name.lower()] in requirement.specifier, requirement
    assert {"optuna-dashboard"} <= pinned.keys()


def test_context_holds_what_is_copied_and_nothing_else():
    copied = [each.words[:-1] for stage in STAGES.values() for each in stage.all("COPY") if "from" not in each.flags]
    sources = {source for words in copied for source in words}
    for source in sources:
        path = REPOSITORY / source
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in (".py", ".yaml")]
        assert files, source
        for file in files:
            assert not left_out(file.relative_to(REPOSITORY).as_posix(), IGNORED), file
    secret = ["docker/.env", ".env", "src/.env", ".git/config", "outputs/r/run.json", "dataset/x.npz", "tests/a.py"]
    made = ["src/visionforge/__pycache__/a.pyc", "src/visionforge.egg-info/PKG-INFO", "docker/compose.yaml"]
    assert [path for path in (*secret, *made) if not left_out(path, IGNORED)] == []


@pytest.mark.parametrize("path", sorted(path for path in FOLDER.iterdir() if path.name != ".env"), ids=lambda p: p.name)
def test_no_secret_is_written_down(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.search(r"(?:password|secret|token)\w*\s*[:=]\s*(\S.*)", line, re.IGNORECASE)
        if found:
            # a variable that has no default, a random number, or the name of a YAML anchor
            assert found[1].startswith(("${POSTGRES_PASSWORD:?", "$(openssl rand", "&password", "*password", "…")), line
        assert not re.search(r"://[^/\s@]+:[^/\s@]+@", line), line
    assert not RUNTIME.variables().keys() & {"PGPASSWORD", "POSTGRES_PASSWORD", "WANDB_API_KEY"}


def test_file_of_passwords_stays_out_of_git():
    assert ".env" in (FOLDER / ".gitignore").read_text(encoding="utf-8").split()


# --- the compose files


def services(path: Path) -> dict:
    """Return the services of a compose file."""
    return interpolated(path, POSTGRES_PASSWORD="x")["services"]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_follows_the_specification(path, tmp_path):
    filled = tmp_path / path.name
    filled.write_text(yaml.safe_dump(interpolated(path, POSTGRES_PASSWORD="x")))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, path, filled], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    filled.write_text(filled.read_text().replace("deploy:", "deplox:"))
    assert subprocess.run([*check, filled], capture_output=True, check=False).returncode == 1, "it would not see a typo"


def test_password_is_required_and_in_no_command():
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        interpolated(COMPOSE[0])
    for service in interpolated(COMPOSE[0], POSTGRES_PASSWORD="sesame")["services"].values():
        assert "sesame" not in str(service.get("command", ""))
        assert "sesame" in str(service["environment"])


def test_database_is_healthy_before_anything_uses_it():
    found = services(COMPOSE[0])
    assert found["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    for name in ("tune", "dashboard"):
        assert found[name]["depends_on"] == {"database": {"condition": "service_healthy"}}
    volumes = interpolated(COMPOSE[0], POSTGRES_PASSWORD="x")["volumes"]
    used = {volume.split(":")[0] for service in found.values() for volume in service.get("volumes", ())}
    assert used == set(volumes)


def test_number_of_workers_can_be_set_and_scaled():
    filled = interpolated(COMPOSE[0], POSTGRES_PASSWORD="x", WORKERS="7")["services"]["tune"]
    assert filled["deploy"]["replicas"] == "7"
    assert not filled.keys() & {"container_name", "hostname", "ports", "network_mode"}, (
        "only one container could have it"
    )


def test_all_use_the_same_database():
    found = services(COMPOSE[0])
    given, shown = found["database"]["environment"], found["dashboard"]["command"][0]
    address = f"postgresql+psycopg2://{given['POSTGRES_USER']}@database/{given['POSTGRES_DB']}"
    assert shown == address
    for path in COMPOSE:
        assert settings_of(services(path)["tune"]["command"]).tune.storage == address


def test_builds_name_what_exists():
    for service in services(COMPOSE[0]).values():
        if "build" in service:
            assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(
                FOLDER / "Dockerfile"
            )
            assert service["build"]["target"] in STAGES
            known = {pair[0] for each in STAGES["build"].all("ARG") for pair in pairs(each.text)}
            assert service["build"].get("args", {}).keys() <= known


def settings_of(command: list[str]) -> RunSettings:
    """Return the checked settings of a command line after `visionforge`."""
    assert command[0] in ("fit", "tune"), command
    return check_settings(read_arguments(command[1:]).values, "fit", here=False)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_command_of_the_workers_is_valid(path):
    settings_of(services(path)["tune"]["command"])


# --- the page


COMMANDS = re.findall(
    r"visionforge:(?:cpu|cuda) ((?:fit|tune) [^\n]*)", "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
)


def test_page_has_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page_is_valid(command, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed_everything: 42\n")
    settings_of(shlex.split(command))


def test_page_has_the_arguments_and_variables():
    arguments = {pair[0] for stage in STAGES.values() for each in stage.all("ARG") for pair in pairs(each.text)}
    for name in (*arguments, "BASE"):
        assert f"`{name}`" in README
    for path in COMPOSE:
        for name in re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8")):
            assert re.search(rf"`{name}`|{name}=", README), name
    variables = RUNTIME.variables()
    for name in ("IN_DOCKER", "VISIONFORGE_DATA", "VISIONFORGE_OUTPUTS", "TORCH_HOME", "MPLCONFIGDIR"):
        assert f"`{name}` | `{variables[name]}`" in README.replace(f"`{name}`, `XDG_CACHE_HOME`", f"`{name}`")


# --- the steps, played without a container engine


STUB = """#!/bin/sh
echo "{name} $*" >> "{log}"
"""
PYTHON = """#!/bin/sh
# the environment is made without pip, and with the packages that are here
if [ "$1 $2" = "-m venv" ]; then
  "{python}" -m venv --without-pip "$3" && echo "{packages}" > "$(echo "$3"/lib/python*/site-packages)/here.pth"
else exec "{python}" "$@"; fi
"""
PIP = """#!/bin/sh
# what would come from the network is only written down
echo "pip $*" >> "{log}"
for last; do :; done
case "$last" in .*) exec "{python}" -m pip --python "{root}/opt/visionforge/bin/python" install --quiet --no-deps \\
  --no-index --no-build-isolation . ;; esac
"""


class Replay:
    """Plays the steps of stages below a folder that takes the place of the root.

    Args:
        root: An empty folder that all users may enter.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.variables: dict[str, str] = {}
        self.folder = root
        stubs = root / "stubs"
        stubs.mkdir()
        for folder in ("tmp", "opt"):
            (root / folder).mkdir()
        (root / "tmp").chmod(0o1777)
        values = {
            "log": self.log,
            "root": root,
            "python": sys.executable,
            "packages": "\\n".join(sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})),
        }
        programs = {"python": PYTHON, "pip": PIP, **dict.fromkeys(("apt-get", "groupadd", "useradd"), STUB)}
        for name, text in programs.items():
            (stubs / name).write_text(text.format(name=name, **values))
            (stubs / name).chmod(0o755)
        self.base = f"{stubs}:/usr/bin:/bin"

    def placed(self, text: str) -> str:
        """Return a text with the folders of the image below the root of the replay; never those of this machine."""
        names = "tmp|opt|data|outputs|workspace|cache|build|var"
        return re.sub(rf"(?<![\w./])/({names})\b", lambda found: f"{self.root}/{found[1]}", text)

    def play(self, stage: Stage) -> None:
        """Play one stage."""
        self.variables = {}
        arguments: dict[str, str] = {}
        for each in stage.instructions:
            match each.name:
                case "ARG":
                    arguments |= dict(pairs(each.text))
                case "ENV":
                    for name, value in pairs(each.text):
                        self.variables[name] = self.placed(value).replace("${PATH}", self._path())
                case "WORKDIR":
                    self.folder = Path(self.placed(each.text))
                    self.folder.mkdir(exist_ok=True)
                case "COPY":
                    self._copy(each.words, each.flags)
                case "RUN":
                    environment = {"PATH": self._path(), **arguments, **self.variables}
                    environment["PATH"] = f"{self.base}:{environment['PATH']}"  # the stand-ins first
                    command = ["sh", "-c", self.placed(each.text)]
                    done = subprocess.run(
                        command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
                    )
                    assert done.returncode == 0, (each.text, done.stderr)

    def _path(self) -> str:
        return self.variables.get("PATH", self.base)

    def _copy(self, words: list[str], flags: dict[str, str]) -> None:
        *sources, place = words
        if "from" in flags:
            assert Path(self.placed(sources[0])).is_dir()
            return
        target = Path(os.path.normpath(self.folder / self.placed(place)))
        for source in sources:
            files = subprocess.run(
                ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", source],
                cwd=REPOSITORY,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split("\0")
            whole = (REPOSITORY / source).is_dir()
            for name in filter(None, files):
                if left_out(name, IGNORED):
                    continue
                into = target / Path(name).relative_to(source) if whole else target
                if not whole and place.endswith("/"):
                    into = target / Path(name).name
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, into)

    def run(self, *arguments: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
        """Run what the entry point runs, as a user whom nobody knows, with nothing but the image's variables."""
        given = {**self.variables, "PYTHONPATH": "", **changes}
        environment = {name: value for name, value in given.items() if value is not None}
        become = (
            ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"] if os.geteuid() == 0 else []
        )
        program = RUNTIME.last("ENTRYPOINT").words[2]
        return subprocess.run(
            [*become, shutil.which(program, path=environment["PATH"]) or program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def outputs(self) -> list[Path]:
        """Return the run folders."""
        return run_folders(self.root / "outputs")


@pytest.fixture(scope="module")
def image():
    """The runtime stage, played."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(readable_folder())
        replay = Replay(root)
        replay.play(STAGES["build"])
        replay.play(RUNTIME)
        if replay.run("--version").returncode and os.geteuid() == 0:
            code = f"import os; os.listdir({sysconfig.get_path('purelib')!r})"
            reachable = subprocess.run(
                ["setpriv", f"--reuid={STRANGER}", "--clear-groups", sys.executable, "-c", code],
                check=False,
                capture_output=True,
            )
            if reachable.returncode:
                pytest.skip("Python or its packages lie where other users may not look")
        yield replay


@pytest.mark.slow
def test_steps_do_what_they_say(image):
    said = image.log.read_text().splitlines()
    assert "apt-get install --yes --no-install-recommends tini" in said
    torch = next(line for line in said if line.endswith(" torch torchvision"))
    assert "--index-url https://download.pytorch.org/whl/cpu " in torch
    assert any(line.endswith(".[onnx,parquet,postgresql,timm]") for line in said)
    for name in ("data", "outputs", "workspace", "cache", "cache/torch", "cache/matplotlib"):
        assert (image.root / name).stat().st_mode & 0o7777 == 0o1777


@pytest.mark.slow
def test_other_variant_has_the_other_index_and_a_wrong_one_fails(image):
    (step,) = [each.text for each in STAGES["build"].all("RUN") if "VARIANT" in each.text]
    for variant, status in {"cuda": 0, "rocm": 2}.items():
        done = subprocess.run(
            ["sh", "-c", step],
            cwd=image.root,
            env={"PATH": image.base, "VARIANT": variant},
            capture_output=True,
            check=False,
        )
        assert done.returncode == status
        assert (b"allowed: cpu, cuda" in done.stderr) is bool(status)
    assert re.search(r"--index-url https://download\.pytorch\.org/whl/cu\d+ ", image.log.read_text().splitlines()[-1])


@pytest.mark.slow
def test_health_check_passes(image):
    words = json.loads(RUNTIME.last("HEALTHCHECK").text.partition("CMD ")[2])
    assert words[0] == "visionforge"
    done = image.run(*words[1:])
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"visionforge \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.slow
def test_package_is_that_of_the_image(image):
    (package,) = (image.root / "opt" / "visionforge").glob("lib/python*/site-packages/visionforge")
    assert (package / "configs" / "quickstart.yaml").is_file()
    assert list((package / "__pycache__").glob("*.pyc")), "compiled, because nobody may write there later"


NO_CACHE = {"XDG_CACHE_HOME": None, "MPLCONFIGDIR": None, "TORCH_HOME": None, "VISIONFORGE_CACHE": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as it is"),
        pytest.param({"HOME": None}, id="no home", marks=EXHAUSTIVE),
        pytest.param({"HOME": "/nowhere/home"}, id="home that cannot be made", marks=EXHAUSTIVE),
        pytest.param({"HOME": "/root", **NO_CACHE}, id="no cache folder is named", marks=EXHAUSTIVE),
    ],
)
def test_stranger_trains_whatever_the_home_folder_is(image, changes):
    before = set(image.outputs())
    little = ("--data.max_samples", "128", "--evaluation.resamples", "0")
    done = image.run("fit", "--config", "quickstart", "--trainer.max_epochs", "1", *little, **changes)
    assert done.returncode == 0, done.stderr
    assert "ermission" not in done.stderr
    assert "not a writable" not in done.stderr  # matplotlib, of its folder
    (made,) = set(image.outputs()) - before
    assert json.loads((made / "run.json").read_text())["state"] == "complete"
    if os.geteuid() == 0:
        assert made.stat().st_uid == STRANGER
    assert list(image.root.joinpath("workspace").iterdir()) == [], "a folder named ~, for instance"


@pytest.mark.slow
@EXHAUSTIVE
def test_strict_mode_in_the_image(image):
    before = set(image.outputs())
    arguments = ("fit", "--config", "quickstart", "--trainer.max_epochs", "1")
    done = image.run(*arguments, DOCKER_REPRODUCIBILITY_MODE="TRUE", PYTHONHASHSEED="42")
    assert done.returncode == 0, done.stderr
    assert "PYTHONHASHSEED" not in done.stderr
    (made,) = set(image.outputs()) - before
    assert yaml.safe_load((made / "config.yaml").read_text())["trainer"]["deterministic"] is True
    (session,) = json.loads((made / "run.json").read_text())["sessions"]
    assert session["environment"]["PYTHONHASHSEED"] == "42"
    assert session["environment"]["IN_DOCKER"] == "TRUE"


@pytest.mark.slow
@EXHAUSTIVE
def test_doctor_and_smoke_pass_in_the_image(image):
    done = image.run("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    folders = json.loads(done.stdout)["folders"]
    assert folders["data"]["path"] == str(image.root / "data")
    assert folders["cache"]["path"] == str(image.root / "cache")
    done = image.run("smoke")
    assert done.returncode == 0, done.stdout


def test_packages_of_the_dashboard_are_those_it_needs():
    (step,) = [each.text for each in STAGES["dashboard"].all("RUN")]
    assert {"optuna", "optuna-dashboard", "psycopg2-binary"} <= set(step.split())
    assert "psycopg2-binary" in {Requirement(text).name for text in requires(DISTRIBUTION) or ()}
