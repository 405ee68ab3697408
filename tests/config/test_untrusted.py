"""Of a stranger's configuration only data is taken, and classes of a short list with plain arguments."""

from typing import get_args

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
        ({"strategy": "theirs"}, "trainer.strategy: theirs"),
        ({"strategy": {"stage": 3}}, "trainer.strategy: {'stage': 3}"),
        ({"strategy": "ddp\n"}, "trainer.strategy: ddp"),
        ({"strategy": "deepspeed_stage_3_offload_nvme"}, "trainer.strategy: deepspeed"),
        ({"accelerator": "theirs"}, "trainer.accelerator: theirs"),
        ({"accelerator": {"x": 1}}, "trainer.accelerator: {'x': 1}"),
        ({"precision": "theirs"}, "trainer.precision: theirs"),
        ({"precision": [16]}, "trainer.precision: [16]"),
        ({"devices": "theirs"}, "trainer.devices: theirs"),
        ({"deterministic": "theirs"}, "trainer.deterministic: theirs"),
        ({"gradient_clip_algorithm": "theirs"}, "trainer.gradient_clip_algorithm: theirs"),
        ({"max_time": "theirs"}, "trainer.max_time: theirs"),
        ({"limit_train_batches": "theirs"}, "trainer.limit_train_batches: theirs"),
        ({"num_sanity_val_steps": "theirs"}, "trainer.num_sanity_val_steps: theirs"),
        ({"model_registry": "theirs"}, "trainer.model_registry: theirs"),
        ({"plugins": ""}, "trainer.plugins: "),
        ({"theirs": "x"}, "trainer.theirs: x"),
    ],
)
def test_everything_else_is_refused(trainer, named):
    (line,) = for_training({"trainer": trainer})[1]
    assert line.startswith(named)


PLAIN = {
    "accelerator": ("auto", "cpu", "gpu"),
    "strategy": ("auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true", "fsdp"),
    "precision": (None, 16, "16", "bf16-mixed", "32-true", "64"),
    "devices": ("auto", 2, [0, 1], "0,1", "-1"),
    "deterministic": ("warn", True),
    "gradient_clip_algorithm": ("norm", "value", None),
    "max_time": ("00:12:00:00", {"hours": 1}),
    "val_check_interval": (0.5, "00:00:10:00"),
    "profiler": ("simple", None),
    "plugins": (None,),
}


@pytest.mark.parametrize(("flag", "value"), [(flag, value) for flag, values in PLAIN.items() for value in values])
def test_plain_values_are_taken(flag, value):
    config = {"trainer": {flag: value}}
    assert for_training(config) == (config, [])
    assert named_classes(config) == []


def test_the_words_are_those_of_the_trainer():
    """An independent reference: Lightning's own registries and types."""
    from lightning.fabric.plugins.precision import precision
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    writing = {"deepspeed_stage_3_offload_nvme", "xla_debug"}
    known = {
        "strategy": {*StrategyRegistry.available_strategies()} - writing,
        "accelerator": {*AcceleratorRegistry.available_accelerators()},
        "precision": {*get_args(precision._PRECISION_INPUT_STR), *get_args(precision._PRECISION_INPUT_STR_ALIAS)},
    }
    for flag, words in known.items():
        assert [word for word in sorted(words) if for_training({"trainer": {flag: word}})[1]] == []


@pytest.mark.parametrize("flag", ["strategy", "accelerator", "precision"])
@pytest.mark.parametrize("value", ["theirs", {"x": 1}, POPEN, [1, "x"]])
def test_an_evaluation_goes_by_the_default_instead(flag, value):
    assert for_evaluation({"trainer": {flag: value, "max_epochs": 3}}) == {"trainer": {"max_epochs": 3}}


@pytest.mark.parametrize(
    "weights",
    [
        "https://evil.example/w.pth#sha256=0",
        "/home/me/private.pth",
        "../x.ckpt",
        ".x",
        "hf-hub:evil/net",
        "package:something",
    ],
)
def test_weights_from_elsewhere_are_refused_and_tags_are_not(weights):
    assert for_training({"model": {"backbone": {"weights": weights}}})[1] == [f"model.backbone.weights: {weights}"]
    assert for_training({"model": {"backbone": {"weights": "IMAGENET1K_V1"}}})[1] == []


@pytest.mark.parametrize("name", ["mine.ckpt", "in1k"])
def test_a_word_is_no_file_of_the_working_folder(tmp_path, name):
    (tmp_path / name).write_text("mine")
    assert for_training({"model": {"backbone": {"weights": name}}})[1] == [f"model.backbone.weights: {name}"]
    assert for_training({"ckpt_path": name})[1] == [f"ckpt_path: {name}"]


def test_what_would_be_built_is_listed_with_its_place():
    callbacks = [EARLY, {"class_path": "a.B", "init_args": {"x": [POPEN]}}]
    config = {"trainer": {"callbacks": callbacks, "logger": "C", "strategy": "theirs", "profiler": "simple"}}
    assert named_classes(config) == [
        "trainer.callbacks.0: lightning.pytorch.callbacks.EarlyStopping",
        "trainer.callbacks.1: a.B",
        "trainer.callbacks.1.init_args.x.0: subprocess.Popen",
        "trainer.logger: C",
        "trainer.strategy: theirs",
    ]
