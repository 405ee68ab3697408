"""Of a stranger's configuration only data is taken, and classes of a short list with plain arguments."""

import pytest

from visionforge.config.untrusted import for_evaluation, for_training, named_classes

EARLY = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/auc", "patience": 2}}
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "true", "shell": True}}


def test_an_evaluation_takes_no_class_and_no_limit():
    trainer = {
        "accelerator": "cpu",
        "precision": "bf16-mixed",
        "devices": [0, 1],
        "max_epochs": 3,
        "callbacks": [EARLY],
        "logger": "subprocess.Popen",
        "strategy": POPEN,
        "plugins": [POPEN],
        "profiler": "antigravity.Geohash",
        "limit_test_batches": 2,
        "fast_dev_run": True,
        "default_root_dir": "/elsewhere",
    }
    kept = for_evaluation({"data": {"dataset": "digits"}, "trainer": trainer, "ckpt_path": "/x.ckpt", "tune": POPEN})
    plain = {"accelerator": "cpu", "precision": "bf16-mixed", "devices": [0, 1], "max_epochs": 3}
    assert kept == {"data": {"dataset": "digits"}, "trainer": plain}
    assert for_evaluation({"trainer": ["x"], "data": 3}) == {"data": 3}


def test_a_training_takes_known_callbacks_with_plain_arguments():
    config = {"model": {"tta": "off"}, "trainer": {"callbacks": [EARLY, "LearningRateMonitor"], "max_epochs": 2}}
    assert for_training(config) == (config, [])
    logged = {"trainer": {"logger": POPEN, "default_root_dir": "/elsewhere", "max_time": {"hours": 1}}}
    assert for_training(logged) == ({"trainer": {"max_time": {"hours": 1}}}, [])


@pytest.mark.parametrize(
    ("trainer", "named"),
    [
        ({"callbacks": POPEN}, "trainer.callbacks.0: subprocess.Popen"),
        ({"callbacks": [EARLY, POPEN]}, "trainer.callbacks.1: subprocess.Popen"),
        ({"callbacks": ["os.system"]}, "trainer.callbacks.0: os.system"),
        ({"callbacks": ["LambdaCallback"]}, "trainer.callbacks.0: LambdaCallback"),
        ({"callbacks": [{**EARLY, "dict_kwargs": {"x": POPEN}}]}, "trainer.callbacks.0: "),
        ({"callbacks": [{"class_path": "evil.callbacks.EarlyStopping"}]}, "trainer.callbacks.0: evil.callbacks"),
        ({"callbacks": [{"class_path": ["x"]}]}, "trainer.callbacks.0: "),
        (
            {"callbacks": [{"class_path": "RichProgressBar", "init_args": {"console_kwargs": {"x": POPEN}}}]},
            "trainer.callbacks.0.init_args.console_kwargs: subprocess.Popen",
        ),
        ({"plugins": "os.system"}, "trainer.plugins: os.system"),
        ({"profiler": "antigravity.Geohash"}, "trainer.profiler: antigravity.Geohash"),
        ({"strategy": POPEN}, "trainer.strategy: subprocess.Popen"),
        ({"strategy": "subprocess.Popen"}, "trainer.strategy: subprocess.Popen"),
        ({"precision": {"a": [POPEN]}}, "trainer.precision: subprocess.Popen"),
    ],
)
def test_everything_else_is_refused(trainer, named):
    (line,) = for_training({"trainer": trainer})[1]
    assert line.startswith(named)


@pytest.mark.parametrize("weights", ["https://evil.example/w.pth#sha256=0", "/home/me/private.pth", "../x.ckpt", ".x"])
def test_weights_from_elsewhere_are_refused_and_tags_are_not(weights):
    assert for_training({"model": {"backbone": {"weights": weights}}})[1] == [f"model.backbone.weights: {weights}"]
    assert for_training({"model": {"backbone": {"weights": "IMAGENET1K_V1"}}})[1] == []


def test_what_would_be_built_is_listed_with_its_place():
    config = {"trainer": {"callbacks": [EARLY, {"class_path": "a.B", "init_args": {"x": [POPEN]}}], "logger": "C"}}
    assert named_classes(config) == [
        "trainer.callbacks.0: lightning.pytorch.callbacks.EarlyStopping",
        "trainer.callbacks.1: a.B",
        "trainer.callbacks.1.init_args.x.0: subprocess.Popen",
        "trainer.logger: C",
    ]
