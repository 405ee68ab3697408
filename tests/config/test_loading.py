"""Files and flags merge in order; what cannot be read is said in one line."""

import pytest

from visionforge.config.loading import normalise, read_arguments, read_yaml
from visionforge.errors import SettingsError


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {batch_size: 1, root: a}\nmodel: {tta: true}\ntrainer: {callbacks: [x]}\n")
    (tmp_path / "b.yaml").write_text("data: {batch_size: 2}\ntrainer: {callbacks: [y]}\n")


@pytest.mark.usefixtures("files")
def test_later_file_wins_key_by_key_and_lists_are_replaced():
    values = read_arguments(["--config", "a.yaml", "--config=b.yaml"]).values
    assert values == {
        "data": {"batch_size": 2, "root": "a"},
        "model": {"tta": True},
        "trainer": {"callbacks": ["y"]},
    }


@pytest.mark.usefixtures("files")
def test_a_flag_wins_over_a_file_wherever_it_stands():
    assert read_arguments(["--config", "a.yaml", "--data.batch_size", "3"]).values["data"]["batch_size"] == 3
    assert read_arguments(["--data.batch_size=3", "-c", "a.yaml"]).values["data"]["batch_size"] == 3


@pytest.mark.usefixtures("files")
def test_values_remember_where_they_were_written():
    raw = read_arguments(["--config", "a.yaml", "--data.batch_size", "3"])
    assert raw.sources["data.root"] == "in a.yaml"
    assert raw.sources["data.batch_size"] == "on the command line"


def test_values_are_yaml():
    raw = read_arguments(["--a.b", "null", "--a.c", "[1, 2]", "--a.d", "{x: 1}", "--a.e", "-3", "--a.f", "a: b: c"])
    assert raw.values["a"] == {"b": None, "c": [1, 2], "d": {"x": 1}, "e": -3, "f": "a: b: c"}


@pytest.mark.usefixtures("files")
def test_a_section_can_come_from_its_own_file(tmp_path):
    (tmp_path / "augmentation.yaml").write_text("hflip: 0.1\n")
    raw = read_arguments(["--data.augmentation", "augmentation.yaml"])
    assert raw.values == {"data": {"augmentation": {"hflip": 0.1}}}


def test_all_bad_arguments_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        read_arguments(["stray", "--a.b", "--config", "nowhere.yaml", "--c.d"])
    assert [line.split(":")[0] for line in caught.value.problems] == ["stray", "--a.b", "--c.d", "nowhere.yaml"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"data: {a: 1", "not valid YAML at line"),
        (b"- 1\n- 2\n", "mapping of settings"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"data: {a: 1}\nmodel: {}\ndata: {b: 2}\n", "the key data stands twice (lines 1 and 3)"),
        (b"# " + b"x" * 1_000_001, "larger than"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_bad_file_is_one_line(tmp_path, content, complaint):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_yaml(tmp_path / "bad.yaml")
    (line,) = caught.value.problems
    assert complaint in line
    assert "\n" not in line


def test_byte_order_mark_is_no_part_of_a_key(tmp_path):
    (tmp_path / "windows.yaml").write_bytes(b"\xef\xbb\xbfdata:\r\n  batch_size: 3\r\n")
    assert read_yaml(tmp_path / "windows.yaml") == {"data": {"batch_size": 3}}


def test_value_with_a_key_twice_is_refused():
    with pytest.raises(
        SettingsError, match=r"--data\.augmentation: cannot be read as a value: the key hflip stands twice \(line 1\)"
    ):
        read_arguments(["--data.augmentation", "{hflip: 0.1, hflip: 0.2}"])


def test_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_text_stays_text_whatever_it_looks_like():
    for text in ("2024", "no", "2024-01-01", "1e3", "{a}"):
        assert read_arguments(["--data.root", text]).values == {"data": {"root": text}}
    assert read_arguments(["--data.root", "null"]).values == {"data": {"root": None}}
    assert read_arguments(["--data.batch_size", "16"]).values == {"data": {"batch_size": 16}}


@pytest.mark.parametrize("value", ["-1e-3", "-0.5", "-1:0:0:0"])
def test_a_value_that_begins_with_a_dash_belongs_to_its_flag(value):
    joined = normalise(["--trainer.callbacks.min_delta", value, "-c", "x.yaml"])
    assert joined == [f"--trainer.callbacks.min_delta={value}", "-c", "x.yaml"]
    assert normalise(["--a.b=1", value]) == ["--a.b=1", value]


def test_an_empty_file_is_no_configuration(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# nothing\n")
    with pytest.raises(SettingsError, match="is empty, so it is no configuration file"):
        read_arguments(["--config", str(path)])


def test_files_come_before_flags_in_their_own_order(tmp_path):
    for name, size in (("x", 1), ("y", 2), ("z", 3)):
        (tmp_path / f"{name}.yaml").write_text(f"data: {{batch_size: {size}, {name}: 0}}")
    files = ["--config", "x.yaml", "--seed_everything=5", "-c", "y.yaml", "--config=z.yaml"]
    assert read_arguments(files).values["data"] == {"batch_size": 3, "x": 0, "y": 0, "z": 0}
    assert read_arguments(["--data.batch_size", "4", *files, "--data.x=1"]).values == {
        "data": {"batch_size": 4, "x": 1, "y": 0, "z": 0},
        "seed_everything": 5,
    }
