"""Keep what this version writes: `python -m tests.upgrades.make` at every release, in a clean checkout of it.

Every later version has to read the folder that it makes; see test_upgrades.py.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

KEPT = Path(__file__).parent
RUN_FILES = ("run.json", "config.yaml", "metrics.json", "metrics.csv", "predictions.csv", "checkpoints")
SETTINGS = """\
# a configuration as a user wrote it for version {version}
seed_everything: 7
data:
  dataset: stripes
  resolution: 12
  batch_size: 16
  balanced_sampling: true
  augmentation: {{hflip: 0.5, rotation_angle: 5, jitter_val: 0.1, min_scale: 0.95}}
model:
  backbone: {{name: mini_cnn, pretrained: false, dropout: 0.1}}
  optimizer: {{name: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
  schedule: {{name: cosine, min_lr: 1.0e-6}}
  loss: {{label_smoothing: 0.05}}
  mixup: {{alpha: 0.2, mixup_epochs: 1}}
  averaging: {{name: ema}}
  tta: true
trainer: {{max_epochs: 2, accelerator: cpu, deterministic: true}}
evaluation: {{resamples: 50, figures: false, report: false}}
tune: {{n_trials: 3, preset: quick}}
"""


def pictures(folder: Path) -> None:
    """Write pictures of stripes that lie or stand, several of an owner."""
    rng = np.random.default_rng(0)
    rows = ["path,label,owner,site"]
    for number in range(60):
        kind = ("lying", "standing")[number % 2]
        values = rng.normal(120, 40, (12, 12)) + 60 * (np.arange(12) % 4 > 1)[:, None]
        values = values if kind == "lying" else values.T
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{kind},o{number // 3},{'east' if number % 3 else 'west'}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Write the folder of this version."""
    with tempfile.TemporaryDirectory(prefix="visionforge-") as made:
        work = Path(made)
        os.environ |= {
            "VISIONFORGE_CATALOG": str(work / "catalog"),
            "XDG_DATA_HOME": str(work / "share"),
            "XDG_CACHE_HOME": str(work / "cache"),
        }
        os.chdir(work)
        import visionforge as vf

        kept = KEPT / vf.__version__
        (work / "photos").mkdir()
        pictures(work / "photos")
        vf.import_dataset(
            "photos/table.csv", "stripes", resolution=12, group_column="owner", columns=["site"], root="archives"
        )
        (work / "config.yaml").write_text(SETTINGS.format(version=vf.__version__), encoding="utf-8")
        run = vf.fit("config.yaml", data={"root": "archives"}, trainer={"default_root_dir": "outputs"})
        shutil.rmtree(kept, ignore_errors=True)
        (kept / "run" / "checkpoints").mkdir(parents=True)
        for name in RUN_FILES:
            if name != "checkpoints":
                shutil.copy(run.path / name, kept / "run" / name)
        for name in ("best", "last"):
            shutil.copy(run.path / "checkpoints" / f"{name}.ckpt", kept / "run" / "checkpoints")
        for kind in ("onnx", "safetensors"):
            vf.export(run, kind, out=work / kind)
            shutil.copytree(work / kind, kept / kind)
        for name in ("archives", "catalog"):
            shutil.copytree(work / name, kept / name, ignore=shutil.ignore_patterns(".*", "*.lock"))
        shutil.copy(work / "config.yaml", kept / "config.yaml")
        without_places(kept, work)


def without_places(kept: Path, work: Path) -> None:
    """Take the folders and the name of this machine out of what is kept."""
    names = {
        str(work): "/home/me/project",
        os.uname().nodename: "machine",
        str(KEPT.parent.parent): "/home/me/visionforge",
    }
    for path in kept.rglob("*"):
        if path.suffix in (".json", ".yaml", ".csv", ".md"):
            text = path.read_text(encoding="utf-8")
            for old, new in names.items():
                text = text.replace(old, new)
            if path.name == "run.json":
                content = json.loads(text)
                for session in content["sessions"]:
                    for fact in ("code", "environment", "hardware"):
                        session[fact] = {}
                    session["process"]["machine"], session["packages"]["system"] = "machine", "Linux"
                text = json.dumps(content, indent=2) + "\n"
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
