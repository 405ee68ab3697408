"""The table of epochs merges, rewrites whole, and continues."""

import csv

from visionforge.training.epoch_log import EpochLog, describe


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_and_validation_share_a_row(tmp_path, caplog):
    log = EpochLog(tmp_path / "metrics.csv")
    with caplog.at_level("INFO"):
        for epoch in range(2):
            log.log_metrics({"val/loss": 0.5, "epoch": epoch}, step=3)
            log.log_metrics({"train/loss": 0.4, "lr": 0.1, "mine": 7.0, "epoch": epoch}, step=3)
    table = rows(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in table] == ["0", "1"]
    assert table[1]["val/loss"] == "0.5"
    assert table[1]["train/loss"] == "0.4"
    assert table[1]["mine"] == "7"
    assert float(table[1]["seconds"]) >= 0
    assert len(caplog.records) == 2
    assert "epoch 2, loss 0.4000, val loss 0.5000" in caplog.text


def test_test_metrics_belong_to_no_epoch(tmp_path):
    log = EpochLog(tmp_path / "metrics.csv")
    log.log_metrics({"test/accuracy": 1.0, "epoch": 2})
    assert log.rows == []
    assert not (tmp_path / "metrics.csv").exists()


def test_resumed_run_continues_its_table(tmp_path):
    EpochLog(tmp_path / "metrics.csv").log_metrics({"train/loss": 0.4, "epoch": 0})
    log = EpochLog(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 0.3, "epoch": 1})
    assert [row["train/loss"] for row in rows(tmp_path / "metrics.csv")] == ["0.4", "0.3"]


def test_unknown_values_are_left_out_of_the_line():
    assert describe({"epoch": 0.0, "train/loss": 1.0, "val/auc": float("nan")}) == "epoch 1, loss 1.0000"
