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


def search(options: argparse.Namespace, folder: Path, name: str, **tune: object) -> tuple[dict, float]:
    """Run one search and return its summary and how long it took, in seconds."""
    seed, rate = tune.pop("seed", 42), tune.pop("learning_rate", None)
    settings = {
        "data.dataset": options.dataset,
        "data.root": options.root,
        "data.batch_size": 32,
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
        **({} if options.images is None else {"data.max_samples": options.images, "trainer.limit_val_batches": 16}),
        **({} if rate is None else {"model.optimizer.learning_rate": rate}),
    }
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = main(["tune", *arguments])
    if status:
        raise SystemExit(f"{name}: exit status {status}")
    content = json.loads((folder / "studies" / name / "reports" / "study_summary.json").read_text())
    return content, time.perf_counter() - started


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
    best already.
    """
    arms: dict[str, tuple[str, int, dict[str, object]]] = {  # name → study, trials, settings
        "tpe, whole trials": ("whole", options.trials, {"pruner": "none"}),
        "tpe, halving": ("halving", options.trials, {"pruner": "halving"}),
        "tpe, halving, twice the trials": ("halving", 2 * options.trials, {"pruner": "halving"}),
        "random, whole trials": ("random", options.trials, {"pruner": "none", "sampler": "random"}),
    }
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in arms}
    for name, (study, trials, tune) in arms.items():
        for seed in options.seeds:
            content, _ = search(
                options, folder, f"{study}{seed}", seed=seed, n_trials=trials, learning_rate=1e-4, **tune
            )
            found[name].append((best(content), sum(trial["epochs"] for trial in content["trials"])))
            sys.stderr.write(f"{options.dataset} {seed} {name}: {found[name][-1]}\n")
    sys.stdout.write(
        f"\n{options.dataset}, mini_cnn, {len(options.seeds)} seeds, {options.trials} trials of {options.epochs} "
        "epochs\n\n"
        "| search | epochs | best validation AUC: mean (range) | less the whole trials' | less random search's |\n"
        "|---|---|---|---|---|\n"
    )
    for name, results in found.items():
        values = [value for value, _ in results]
        cells = [f"{statistics.mean(epochs for _, epochs in results):.0f}"]
        cells.append(f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
        for other in ("tpe, whole trials", "random, whole trials"):
            cells.append("" if other == name else difference(values, [value for value, _ in found[other]]))
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
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
    parser.add_argument("--images", type=int, help="of a large data set: train on so many, validate on 512")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for part in (pruning, samplers, halving):
            if options.part is None or part.__name__ in options.part:
                part(options, Path(temporary))


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    benchmark()
