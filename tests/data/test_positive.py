"""The class that is to be found is told by the names, or said to be only the last one."""

import numpy as np
import pytest
from PIL import Image

from visionforge.cli.main import main
from visionforge.data.info import TaskSpec
from visionforge.data.positive import choose_positive
from visionforge.data.registry import dataset_info


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("malignant", "normal, benign"), "malignant"),
        (("NORMAL", "PNEUMONIA"), "PNEUMONIA"),
        (("covid", "no_covid"), "covid"),
        (("covid", "not covid"), "covid"),
        (("defect", "without-defect"), "defect"),
        (("glasses", "none"), "glasses"),
        (("Parasitized", "Uninfected"), "Parasitized"),
        (("bad", "good"), "bad"),
        (("0", "1"), "1"),
        (("False", "True"), "True"),
        (("nontumour", "tumour"), "tumour"),
        (("abnormal", "normal"), "abnormal"),
        (("anomaly", "ok"), "anomaly"),
    ],
)
def test_names_tell(classes, positive):
    chosen = choose_positive(classes)
    assert (chosen.name, chosen.certain) == (positive, True)


@pytest.mark.parametrize("classes", [("cat", "dog"), ("benign", "normal"), ("left", "right"), ("…", "—")])
def test_names_that_do_not_tell_give_the_last(classes):
    chosen = choose_positive(classes)
    assert (chosen.name, chosen.certain) == (classes[1], False)


def test_a_network_keeps_which_class_is_positive():
    breast = TaskSpec.of(dataset_info("breastmnist"), 28, force_rgb=False)
    assert breast.classes[breast.positive_index] == "malignant"
    pneumonia = TaskSpec.of(dataset_info("pneumoniamnist"), 28, force_rgb=False)
    assert pneumonia.classes[pneumonia.positive_index] == "pneumonia"
    old = breast.model_dump(exclude={"positive"})  # of a checkpoint from before
    assert TaskSpec.model_validate(old).positive_index == 1


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 3_000_000},
        {"resolution": 1},
        {"std": (0.0,)},
        {"std": (1e-300,)},
        {"std": (float("inf"),)},
        {"mean": (float("nan"),)},
        {"mean": (0.5, 0.5)},
        {"classes": [str(k) for k in range(10_001)]},
        {"classes": []},
        {"positive": 2},
        {"positive": -1},
    ],
)
def test_task_beyond_its_bounds_is_refused(change):
    content = TaskSpec.of(dataset_info("breastmnist"), 28, force_rgb=False).model_dump()
    with pytest.raises(ValueError, match="TaskSpec"):
        TaskSpec.model_validate({**content, **change})


def test_import_says_which_class_it_took(tmp_path, capsys, refuse):
    for name in ("cat", "dog", "healthy"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 9)).astype(np.uint8)).save(
                tmp_path / "all" / name / f"{number}.png"
            )
    for pair in (("cat", "dog"), ("cat", "healthy")):
        (tmp_path / "-".join(pair)).mkdir()
        for name in pair:
            (tmp_path / "-".join(pair) / name).symlink_to(tmp_path / "all" / name)
    assert main(["datasets", "import", "cat-dog", "--name", "a"]) == 0
    assert (
        "! positive dog, because it is the last one: the names do not tell; --positive CLASS" in capsys.readouterr().out
    )
    assert main(["datasets", "import", "cat-healthy", "--name", "b"]) == 0
    assert "  positive cat, because 'healthy' says that there is nothing" in capsys.readouterr().out
    assert main(["datasets", "import", "cat-dog", "--name", "c", "--positive", "cat"]) == 0
    assert main(["datasets", "info", "c"]) == 0
    assert "positive" in capsys.readouterr().out
    assert [dataset_info(name).positive for name in "abc"] == ["dog", "cat", "cat"]
    assert TaskSpec.of(dataset_info("c"), 28, force_rgb=True).positive_index == 0
    capsys.readouterr()
    assert refuse("datasets", "import", "cat-dog", "--name", "d", "--positive", "owl") == [
        "--positive: 'owl' is not allowed; allowed: cat, dog"
    ]
    (line,) = refuse("datasets", "import", "all", "--name", "d", "--positive", "cat")
    assert line == "--positive: is for binary data, this is multi-class (3 classes)"
