"""Curves are read from any table of epochs: thinned, with gaps where a number is none, or refused in a line."""

import pytest

from visionforge.errors import RunError
from visionforge.runs.curves import MOST_SERIES, Curves, read_curves

HEAD = "epoch,train/loss,train/accuracy,val/loss,lr,seconds\n"


@pytest.fixture
def read(tmp_path):
    def of(text: str, most_points: int = 200) -> Curves:
        (tmp_path / "metrics.csv").write_text(text)
        return read_curves(tmp_path / "metrics.csv", most_points)

    return of


def test_columns_of_a_training_are_curves_over_epochs_and_minutes(read):
    found = read(f"{HEAD}0,1.5,,0.25,0.1,30\n1,0.5,,0.125,0.01,90\n")
    assert found.epochs == [1, 2]
    assert found.minutes == [0.5, 2]
    assert found.values == {"train/loss": [1.5, 0.5], "val/loss": [0.25, 0.125], "lr": [0.1, 0.01]}


def test_no_table_is_no_curve(tmp_path):
    assert read_curves(tmp_path / "metrics.csv", 200) == Curves()


def test_a_long_table_keeps_its_ends_and_is_even_between_them(read):
    found = read("epoch,val/loss\n" + "".join(f"{epoch},{epoch / 4}\n" for epoch in range(1001)), 5)
    assert found.epochs == [1, 251, 501, 751, 1001]
    assert found.values["val/loss"] == [0, 62.5, 125, 187.5, 250]


def test_numbers_have_as_many_digits_as_are_seen(read):
    assert read("epoch,val/loss\n0,0.123456789\n1,1.23456789e-9\n").values["val/loss"] == [0.12346, 1.2346e-9]


def test_what_is_no_number_is_a_gap(read):
    found = read("epoch,val/loss,val/auc\n0,nan,\n1,1e400,\n2,-inf,\n3,0.5,\n")
    assert found.values == {"val/loss": [None, None, None, 0.5]}


def test_minutes_that_are_not_all_known_are_left_out(read):
    assert read("epoch,val/loss,seconds\n0,1,\n1,1,5\n").minutes == []
    assert read("epoch,val/loss,seconds\n0,1,1e308\n1,1,1e308\n").minutes == []


def test_columns_of_strangers_are_left_out(read):
    evil = ["</script>", "val/<b>", "val/", "seconds", f"val/{'x' * 61}", *(f"val/{place}" for place in range(50))]
    found = read(f"epoch,{','.join(evil)}\n0{',1' * len(evil)}\n")
    assert list(found.values) == [f"val/{place}" for place in range(MOST_SERIES)]


@pytest.mark.parametrize(
    "text",
    ["a\n1\n", "epoch\nx\n", "epoch\n0.5\n", "epoch\nnan\n", "epoch\ninf\n", "epoch,val/loss\n1,2,3\n", "\0", "\n"],
)
def test_what_is_no_table_of_epochs_is_refused(read, text):
    with pytest.raises(RunError, match=r"metrics\.csv: cannot be read as the table of epochs"):
        read(text)


def test_a_huge_table_is_refused(read, monkeypatch):
    monkeypatch.setattr("visionforge.runs.curves.MAX_EPOCHS_BYTES", 100)
    with pytest.raises(RunError, match="larger than 100 bytes"):
        read("epoch\n" + "1\n" * 60)
