"""What pruning saves, and what TPE is worth against random search, by running the search itself.

``python benchmarks/tuning.py --root FOLDER`` prints Markdown tables. The test split is not read.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from scipy.stats import t

from visionforge.cli.main import main

SEEDS = (1, 2, 3, 4, 5)
VALUES = {
    "best": "best validation AUC of the search",
    "worth": "best validation AUC of what it has found, trained again",
}
FIRST_SEED_AGAIN = 1001  # of the trainings of what was found; no search has such a one
BATCH = 32
ARMS: dict[str, dict[str, object]] = {  # how trials are proposed and ended, and how many there are for one at random
    "tpe, whole trials": {"pruner": "none"},
    "tpe, halving": {"pruner": "halving"},
    "tpe, halving, twice the trials": {"pruner": "halving", "n_trials": 2},
    "gp, whole trials": {"pruner": "none", "sampler": "gp"},
    "gp, halving": {"pruner": "halving", "sampler": "gp"},
    "gp, halving, twice the trials": {"pruner": "halving", "sampler": "gp", "n_trials": 2},
    "random, whole trials": {"pruner": "none", "sampler": "random"},
}


def search(
    options: argparse.Namespace, folder: Path, name: str, config: Path | None = None, **tune: object
) -> tuple[dict, float]:
    """Run one search and return its summary and how long it took, in seconds; it begins with a configuration."""
    seed, rate = tune.pop("seed", 42), tune.pop("learning_rate", None)
    settings = {
        "data.dataset": options.dataset,
        "data.root": options.root,
        "model.backbone.name": "mini_cnn",
        "model.backbone.pretrained": "false",
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": options.epochs,
        "trainer.default_root_dir": folder,
        "seed_everything": seed,
        "log_level": "error",
        "tune.study": name,
        "tune.preset": "full",
        "tune.target": "null",
        "tune.n_trials": options.trials,
        **{f"tune.{key}": value for key, value in tune.items()},
        **({} if options.images is None else few(options)),
        **({} if config is not None else {"data.batch_size": BATCH}),  # a flag would win over what was found
        **({} if rate is None else {"model.optimizer.learning_rate": rate}),
    }
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    arguments += [] if config is None else ["--config", str(config)]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = main(["tune", *arguments])
    if status:
        raise SystemExit(f"{name}: exit status {status}")
    content = json.loads((folder / "studies" / name / "reports" / "study_summary.json").read_text())
    return content, time.perf_counter() - started


def worth(options: argparse.Namespace, folder: Path, name: str, again: int) -> float | None:
    """Return the mean best value of the configuration that a search has found, trained anew from other seeds."""
    config = folder / "studies" / name / "reports" / "best_config.yaml"
    seeds = range(FIRST_SEED_AGAIN, FIRST_SEED_AGAIN + again)
    alone = {"n_trials": 1, "pruner": "none"}
    found = [best(search(options, folder, f"{name}-again{seed}", config, seed=seed, **alone)[0]) for seed in seeds]
    return statistics.mean(found) if found else None


def few(options: argparse.Namespace) -> dict[str, int]:
    """Return the settings of a search on some of the images of a large data set."""
    return {"data.max_samples": options.images, "trainer.limit_val_batches": options.validation_images // BATCH}


def best(content: dict) -> float:
    """Return the best value of a search."""
    return float(content["best"]["val/auc"])


def pruning(options: argparse.Namespace, folder: Path) -> None:
    """Search with and without pruning, from the same seed."""
    sys.stdout.write(
        f"{options.dataset}, mini_cnn, {options.trials} trials of {options.epochs} epochs, preset full, TPE\n\n"
        "| pruner | epochs trained | saved | pruned trials | best validation AUC | minutes |\n"
        "|---|---|---|---|---|---|\n"
    )
    for pruner in ("none", "median"):
        content, seconds = search(options, folder, pruner, pruner=pruner)
        trained = sum(trial["epochs"] for trial in content["trials"])
        sys.stdout.write(
            f"| {pruner} | {trained} | {content['epochs_saved']:.0%} | {content['counts']['pruned']} | "
            f"{best(content):.4f} | {seconds / 60:.1f} |\n"
        )
        sys.stdout.flush()


def samplers(options: argparse.Namespace, folder: Path) -> None:
    """Search with TPE and at random, from several seeds, in turn."""
    found: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed in options.seeds:
        for sampler, values in found.items():
            name = f"{sampler}{seed}"
            values.append(best(search(options, folder, name, sampler=sampler, seed=seed)[0]))
            sys.stderr.write(f"{name}: {values[-1]:.4f}\n")
    sys.stdout.write(
        f"\n{options.dataset}, mini_cnn, {len(options.seeds)} seeds, {options.trials} trials of {options.epochs} "
        "epochs, median pruner\n\n"
        "| sampler | best validation AUC: mean (range) |\n|---|---|\n"
    )
    for sampler, values in found.items():
        sys.stdout.write(f"| {sampler} | {statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f}) |\n")
    better = sum(a > b for a, b in zip(found["tpe"], found["random"], strict=True))
    sys.stdout.write(f"\nTPE was better with {better} of {len(options.seeds)} seeds.\n")


def halving(options: argparse.Namespace, folder: Path) -> None:
    """Search in full, with halving, with halving twice as long, and at random, from several seeds.

    The configuration that they begin with has a learning rate at the lower end, so that the first trial is not the
    best already. What a search has found is a line of ``--record``, and is not searched for again.
    """
    names = ("dataset", "trials", "epochs", "images", "validation_images", "again")
    asked = {name: getattr(options, name) for name in names}
    found: dict[tuple[str, int], dict] = {}
    if options.record is not None and options.record.is_file():
        lines = map(json.loads, options.record.read_text().splitlines())
        found = {(line["arm"], line["seed"]): line for line in lines if asked.items() <= line.items()}
    for seed in options.seeds:
        for place, arm in enumerate(options.arms):
            if (arm, seed) in found:
                continue
            name = f"arm{place}-{seed}"
            tune = {**ARMS[arm], "n_trials": options.trials * int(str(ARMS[arm].get("n_trials", 1)))}
            content, seconds = search(options, folder, name, seed=seed, learning_rate=1e-4, **tune)
            trained = sum(trial["epochs"] for trial in content["trials"])
            line = {**asked, "arm": arm, "seed": seed, "best": best(content), "trained": trained}
            found[arm, seed] = {**line, "worth": worth(options, folder, name, options.again)}
            sys.stderr.write(json.dumps({**found[arm, seed], "seconds": round(seconds)}) + "\n")
            if options.record is not None:
                with options.record.open("a") as record:
                    record.write(json.dumps(found[arm, seed]) + "\n")
    compared = [arm for arm in ("tpe, whole trials", "random, whole trials") if arm in options.arms]
    heads = ["search", "epochs", "value: mean (range)", *(f"less {arm}" for arm in compared)]
    for value in ("best", "worth") if options.again else ("best",):
        sys.stdout.write(
            f"\n{options.dataset}, mini_cnn, {len(options.seeds)} seeds, {options.trials} trials of {options.epochs} "
            f"epochs, {VALUES[value]}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n"
        )
        for arm in options.arms:
            values = [found[arm, seed][value] for seed in options.seeds]
            cells = [f"{statistics.mean(found[arm, seed]['trained'] for seed in options.seeds):.0f}"]
            cells.append(f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
            for other in compared:
                others = [found[other, seed][value] for seed in options.seeds]
                cells.append("" if other == arm else difference(values, others))
            sys.stdout.write(f"| {arm} | {' | '.join(cells)} |\n")
    sys.stdout.flush()


def difference(values: list[float], others: list[float]) -> str:
    """Return the mean difference of pairs with its 95 % interval (Student's t)."""
    pairs = [a - b for a, b in zip(values, others, strict=True)]
    mean = statistics.mean(pairs)
    if len(pairs) < 2:
        return f"{mean:+.4f}"
    low, high = t.interval(0.95, len(pairs) - 1, loc=mean, scale=statistics.stdev(pairs) / len(pairs) ** 0.5)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def benchmark() -> None:
    """Run the comparisons that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds the archives")
    parser.add_argument("--dataset", default="breastmnist")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--part", choices=("pruning", "samplers", "halving"), action="append", help="default: all")
    parser.add_argument("--images", type=int, help="of a large data set: train on so many")
    parser.add_argument("--validation-images", type=int, default=512, help="with --images: validate on so many")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="of halving")
    parser.add_argument("--record", type=Path, help="of halving: a file that keeps what the searches have found")
    parser.add_argument("--again", type=int, default=0, help="of halving: train what was found from so many seeds more")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for part in (pruning, samplers, halving):
            if options.part is None or part.__name__ in options.part:
                part(options, Path(temporary))


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    benchmark()
