"""What the commands do, as functions: the same settings, defaults and files, and objects as results."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from visionforge.config.loading import Config, read_values
from visionforge.engine.explanations import Explanations, explain_pictures
from visionforge.engine.picture_predictions import PicturePredictions, predict_pictures
from visionforge.engine.run import EvaluationResult, Run, open_run
from visionforge.errors import SettingsError
from visionforge.printable import printable
from visionforge.runs.signals import Interrupted, Interruption

if TYPE_CHECKING:
    from visionforge.benchmarking.found import Benchmark
    from visionforge.data.corruption import Corruption
    from visionforge.engine.audit import Audit
    from visionforge.engine.comparison import Comparison
    from visionforge.engine.embeddings import Embeddings
    from visionforge.engine.folds import FoldRuns
    from visionforge.engine.robustness import Robustness
    from visionforge.exporting.export import ExportResult
    from visionforge.publishing.pull import PullResult
    from visionforge.publishing.push import PushResult
    from visionforge.tuning.found import Study

log = logging.getLogger(__name__)
Pictures = str | Path | Sequence[str | Path]
ARTIFACTS = (".onnx", ".safetensors", ".pt2")  # the last is refused, with the reason


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Finish a step and its checkpoint before Ctrl-C takes effect, which Python code then sees as usual."""
    with Interruption() as interruption:
        try:
            yield interruption
        except Interrupted as interrupted:
            if interrupted.name == "SIGINT":
                raise KeyboardInterrupt from interrupted
            raise


@overload
def fit(
    config: Config | Sequence[Config] | None = ...,
    *,
    resume: str | Path | Run | None = ...,
    trust: str | Path | Run | None = ...,
    seeds: None = ...,
    profile: bool = ...,
    **settings: Any,
) -> Run: ...


@overload
def fit(
    config: Config | Sequence[Config] | None = ...,
    *,
    resume: Literal["auto", "never"] | None = ...,
    seeds: int | Sequence[int],
    **settings: Any,
) -> list[Run]: ...


@overload
def fit(
    config: Config | Sequence[Config] | None = ...,
    *,
    resume: Literal["auto", "never"] | None = ...,
    folds: int,
    workers: int | None = ...,
    distill: bool = ...,
    **settings: Any,
) -> "FoldRuns": ...


def fit(
    config: Config | Sequence[Config] | None = None,
    *,
    resume: str | Path | Run | None = None,
    trust: str | Path | Run | None = None,
    seeds: int | Sequence[int] | None = None,
    folds: int | None = None,
    workers: int | None = None,
    distill: bool = False,
    profile: bool = False,
    **settings: Any,
) -> "Run | list[Run] | FoldRuns":
    """Train a network, test its best checkpoint, and write everything into a run folder, as `visionforge fit` does.

    Args:
        config: A YAML file, the name of a shipped configuration such as ``quickstart``, a nested mapping,
            `RunSettings`, or several of these, of which later ones win key by key. None is the defaults.
        resume: A run to continue; ``auto`` continues the newest interrupted run of the same settings, if there is one;
            ``never`` begins a new run also where one was interrupted.
        trust: The run that is continued may be a stranger's: build the classes that its configuration names.
        seeds: Train for several seeds: this many from the configured one on, or these. Complete runs are taken as they
            are.
        folds: Train a network for each of so many folds of train and val, 2 to 100, and join them into an ensemble.
            Complete folds are taken as they are.
        workers: Processes that share the folds; None is 1.
        distill: With `folds`: train one network more, on the splits of the data set, which learns from the ensemble
            (``model={"distillation": …}``).
        profile: Measure where the time of a step goes (`Run.profile`), and trace a few steps.
        settings: Sections (``data={"dataset": "breastmnist"}``), single settings (``seed_everything=7``), or dotted
            names; they win over `config`. Callbacks and loggers among the Trainer's flags may be objects.

    Returns:
        The run; with `seeds`, a list of runs; with `folds`, `FoldRuns`: the runs, their ensemble, and its student.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If data, weights or folder cannot be used, or the training fails in a known way.
        KeyboardInterrupt: After Ctrl-C; the run is whole up to that step and can be continued.

    >>> import visionforge as vf
    >>> vf.fit(data={"dataset": "breastmnst"})
    Traceback (most recent call last):
    ...
    visionforge.errors.SettingsError: data.dataset: breastmnst is no data set; ...
    """
    from visionforge.engine.fit import fit as fit_one
    from visionforge.engine.fit import request_of, require_subject
    from visionforge.engine.folds import fit_folds
    from visionforge.engine.seeds import fit_seeds
    from visionforge.engine.starter import refuse_sources
    from visionforge.engine.team import launched_together

    refuse_sources(config, settings)
    named = _named_runs(resume=resume, trust=trust)
    with launched_together(), _interruptible() as interruption:
        raw = read_values(config, {**settings, **named, **({"profile": True} if profile else {})})
        require_subject(raw)
        if folds is not None or workers is not None or distill:
            return fit_folds(raw, folds, interruption, workers=workers, seeds=seeds, distill=distill)
        if seeds is None:
            return fit_one(request_of(raw), interruption)
        return fit_seeds(raw, _seeds_text(seeds), interruption)


@overload
def probe(
    config: Config | Sequence[Config] | None = ...,
    *,
    run: str | Path | Run | None = ...,
    seeds: None = ...,
    folds: None = ...,
    **settings: Any,
) -> Run: ...


@overload
def probe(
    config: Config | Sequence[Config] | None = ...,
    *,
    run: str | Path | Run | None = ...,
    seeds: int | Sequence[int],
    folds: None = ...,
    **settings: Any,
) -> list[Run]: ...


@overload
def probe(
    config: Config | Sequence[Config] | None = ...,
    *,
    run: str | Path | Run | None = ...,
    seeds: None = ...,
    folds: int,
    **settings: Any,
) -> "FoldRuns": ...


def probe(
    config: Config | Sequence[Config] | None = None,
    *,
    run: str | Path | Run | None = None,
    seeds: int | Sequence[int] | None = None,
    folds: int | None = None,
    **settings: Any,
) -> "Run | list[Run] | FoldRuns":
    """Fit a classifier to the features of a network that stays as it is, as `visionforge probe` does.

    The result is used like the run of any fit: `evaluate`, `predict`, `explain`, `export` and `ensemble` take it.

    Args:
        config: As in `fit`; the section ``probe`` says which classifier, and its candidates.
        run: A trained network whose features are taken; None is ``model.backbone`` with its pretrained weights.
        seeds: Fit for several seeds: this many from the configured one on, or these.
        folds: Fit a classifier for each of so many folds of train and val, 2 to 100, and join them.
        settings: As in `fit`.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If data, weights or folder cannot be used; nothing is left then.

    >>> import visionforge as vf
    >>> vf.probe(data={"dataset": "breastmnst"})
    Traceback (most recent call last):
    ...
    visionforge.errors.SettingsError: data.dataset: breastmnst is no data set; ...
    """
    from visionforge.engine.probe import PROBES, probe_folds, probe_request
    from visionforge.engine.probe import probe as probe_one
    from visionforge.engine.seeds import fit_seeds

    raw = read_values(config, {**settings, **_named_runs(run=run)})
    with _interruptible() as interruption:
        if folds is not None:
            return probe_folds(raw, folds, interruption, seeds=seeds)
        if seeds is None:
            return probe_one(probe_request(raw), interruption)
        return fit_seeds(raw, _seeds_text(seeds), interruption, making=PROBES)


def _seeds_text(seeds: int | Sequence[int]) -> str:
    return str(seeds) if isinstance(seeds, int) else ",".join(map(str, seeds)) + ","


def ensemble(runs: Sequence[str | Path | Run], *, outputs: str | Path | None = None, overwrite: bool = False) -> Run:
    """Join the best networks of several runs, as `visionforge ensemble` does; their probabilities are averaged.

    The result is used like any run: `evaluate`, `predict`, `explain` and `export` take it. Predictions have a column
    ``disagreement``. Of runs that are all the folds of a division, no validation split is left on which a temperature
    could be fitted; their `out_of_fold.csv` has what is said of every image by a network that has not learnt it.

    Args:
        runs: Complete fits on the same data, at least two: folders, names, or the objects. Backbones may differ.
        outputs: Folder of the ensemble's run folder; None is that of the first run.
        overwrite: Make it anew where it is there; otherwise it is taken as it is.

    Raises:
        SettingsError: If the runs cannot be joined.
        VisionForgeError: If a run, its checkpoint or the data cannot be used.

    >>> import visionforge as vf
    >>> vf.ensemble(["nothing", "nobody"])
    Traceback (most recent call last):
    ...
    visionforge.errors.RunError: open_run: nothing is no folder; ...
    """
    from visionforge.engine.ensembles import make_ensemble

    with _interruptible() as interruption:
        return make_ensemble(runs, interruption, None if outputs is None else Path(outputs), anew=overwrite)


def evaluate(
    run: str | Path | Run,
    split: Literal["test", "val"] = "test",
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    config: Config | Sequence[Config] | None = None,
    **settings: Any,
) -> EvaluationResult:
    """Evaluate a trained network on a split, as `visionforge test` and `visionforge validate` do.

    The results lie in a folder of their own in the run; those of the fit are never overwritten.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file.
        split: ``test`` or ``val``.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        config: As in `fit`, over the settings of the run.
        settings: As in `fit`.

    Raises:
        SettingsError: With a line for every mistake in the settings.
        VisionForgeError: If the run, its checkpoint or the data cannot be used.
    """
    from visionforge.engine.evaluate import evaluate as evaluate_one

    stages = {"test": "test", "val": "validate"}
    if split not in stages:
        raise SettingsError(f"split: {split} is not allowed; allowed: test, val")
    named = _as_flags(_named_network(run, checkpoint))
    return evaluate_one(read_values(config, {**settings, **named}), stages[split])


@overload
def predict(
    run: str | Path | Run,
    pictures: None = ...,
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = ...,
    config: Config | Sequence[Config] | None = ...,
    **settings: Any,
) -> EvaluationResult: ...


@overload
def predict(
    run: str | Path | Run,
    pictures: Pictures,
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = ...,
    out: str | Path | None = ...,
    overwrite: bool = ...,
    split: Literal["train", "val", "test"] | None = ...,
    tta: bool | None = ...,
    batch_size: int | None = ...,
    accelerator: str | None = ...,
    num_threads: int | None = ...,
    scale: Literal["fit", "native"] | None = ...,
    overlap: float | None = ...,
    precision: str | None = ...,
) -> PicturePredictions: ...


def predict(
    run: str | Path | Run,
    pictures: Pictures | None = None,
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    split: Literal["train", "val", "test"] | None = None,
    tta: bool | None = None,
    batch_size: int | None = None,
    accelerator: str | None = None,
    num_threads: int | None = None,
    scale: Literal["fit", "native"] | None = None,
    overlap: float | None = None,
    precision: str | None = None,
    config: Config | Sequence[Config] | None = None,
    **settings: Any,
) -> PicturePredictions | EvaluationResult:
    """Classify pictures, or the test split, as `visionforge predict` does; both tables have the same columns.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file; or for pictures an exported `.onnx` or
            `.safetensors` file.
        pictures: Folders, picture files (of volumes `.npy`, `.nii` and `.nii.gz` files) and `.npz` archives, one or
            several; None is the test split of the run.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        out: The table of the pictures, `.csv`, `.parquet`, `.jsonl` or `.xlsx`; None is `predictions.csv` in the
            evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace a table that exists.
        split: Part of `.npz` archives; None is ``test``.
        tta: Average over test-time views; None is as the network is set.
        batch_size: Pictures per batch, of masks tiles; None is 128.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``; None is ``auto``.
        num_threads: CPU threads of the network, and of reading pictures; torch keeps them.
        scale: Of masks: ``fit`` scales pictures as in training, ``native`` keeps their size; None is ``fit``.
        overlap: Of masks: smallest share of a tile that is also in the next one, 0 to 0.75; None is 0.25.
        precision: What layers multiply in: ``32-true``; ``bf16-mixed``, which many devices are faster in; ``auto`` is
            that on such a one. None is ``32-true``.
        config: For the test split, as in `fit`, over the settings of the run.
        settings: For the test split, as in `fit`.

    Raises:
        SettingsError: If an argument is not allowed, or does not belong to what is classified.
        VisionForgeError: If the run, its checkpoint or the data cannot be used, or no picture could be read.

    >>> import visionforge as vf
    >>> vf.predict("nothing", "photos")
    Traceback (most recent call last):
    ...
    visionforge.errors.RunError: --run: nothing is no folder; ...
    """
    artifact = _artifact(run, checkpoint, pictures)
    named: dict[str, Any] = {"artifact": artifact} if artifact is not None else _named_network(run, checkpoint)
    given = {
        "out": _path(out),
        "overwrite": overwrite or None,
        "split": split,
        "tta": tta,
        "batch_size": batch_size,
        "accelerator": accelerator,
        "num_threads": num_threads,
        "scale": scale,
        "overlap": overlap,
        "precision": precision,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if pictures is None:
        from visionforge.engine.evaluate import evaluate as evaluate_one

        if options:
            raise SettingsError(f"{next(iter(options))}: is for pictures; name some, or set what a run is set by")
        return evaluate_one(read_values(config, {**settings, **_as_flags(named)}), "predict")
    if settings or config is not None:
        name = next(iter(settings), "config")
        raise SettingsError(f"{name}: is for the test split; pictures take {', '.join(given)}")
    with _interruptible() as interruption:
        return predict_pictures(_paths(pictures), interruption, **named, **options, warn=_warn)


def embed(
    run: str | Path | Run | None = None,
    pictures: Pictures | None = None,
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    split: Literal["train", "val", "test", "all"] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    cache: bool = True,
    config: Config | Sequence[Config] | None = None,
    **settings: Any,
) -> "Embeddings":
    """Return the features of images by a frozen network, as `visionforge embed` writes them.

    They are what the last layer of the network is given, of each image as it is.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file. None is a pretrained backbone:
            ``model={"backbone": {"name": "resnet18"}}, data={"dataset": "breastmnist"}``.
        pictures: Folders, picture files and `.npz` archives, one or several; None is the images of the data set.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        split: Images of the data set; None is ``all``. Of pictures the part of `.npz` archives; None is ``test``.
        output: File to write: `.npz`, `.parquet`, `.csv` or `.jsonl`; None writes none.
        overwrite: Replace a file that exists.
        cache: Take features of a data set from the user's cache folder if they are there, and keep them there.
        config: As in `fit`; it wins over the settings of the run.
        settings: As in `fit`.

    Raises:
        SettingsError: If a setting is not allowed, the weights would be random, or a file would be lost.
        VisionForgeError: If run, checkpoint, weights or data cannot be used, or no picture could be read.

    >>> import visionforge as vf
    >>> vf.embed(model={"backbone": {"name": "resnet18", "pretrained": False}})
    Traceback (most recent call last):
    ...
    visionforge.errors.SettingsError: model.backbone.pretrained: false leaves random weights, ...
    """
    from visionforge.engine.embeddings import embed as embed_images

    named = _named_runs(checkpoint=checkpoint) if run is None else _named_network(run, checkpoint)
    raw = read_values(config, {**settings, **_as_flags(named)})
    with _interruptible() as interruption:
        return embed_images(
            raw,
            interruption=interruption,
            split=split,
            pictures=None if pictures is None else _paths(pictures),
            output=_path(output),
            overwrite=overwrite,
            cache=cache,
            write=output is not None,
            warn=_warn,
        )


def explain(
    run: str | Path | Run,
    pictures: Pictures,
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    target: str | int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    limit: int = 100,
    split: Literal["train", "val", "test"] | None = None,
    accelerator: str = "auto",
) -> Explanations:
    """Show on pictures where a network looks, as `visionforge explain` does.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file.
        pictures: Folders, picture files (of volumes `.npy`, `.nii` and `.nii.gz` files) and `.npz` archives, one or
            several.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        target: The class to explain, by name or number; None is the predicted one.
        out: The folder; None is one in the evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier call wrote there.
        limit: Most pictures, 1 to 1000.
        split: Part of `.npz` archives; None is ``test``.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.

    Raises:
        SettingsError: If an argument is not allowed, or a file would be lost.
        VisionForgeError: If the run or its checkpoint cannot be used, or no picture could be read.
    """
    named = _named_network(run, checkpoint)
    with _interruptible():
        return explain_pictures(
            _paths(pictures),
            **named,
            target=target,
            out=_path(out),
            overwrite=overwrite,
            limit=limit,
            split=split,
            accelerator=accelerator,
            warn=_warn,
        )


def audit(
    what: str | Path | Run,
    *,
    split: Sequence[Literal["train", "val", "test", "all"]] = ("train", "val"),
    folds: int | None = None,
    seed: int = 0,
    resolution: int | None = None,
    root: str | Path | None = None,
    limit: int = 100,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> "Audit":
    """Find labels that are likely to be wrong, as `visionforge audit` does.

    Args:
        what: A run of ``fit(folds=…)``: its folder, its name, or the object; or the name of a data set.
        split: Splits that are audited; ``all`` is every one.
        folds: Of a data set: number of folds, 2 to 20; None is 5.
        seed: Of the folds of a data set, and of the intervals.
        resolution: Of a data set: height and width of the images; None is the smallest.
        root: Folder of the archives; None is as the run has it, or the usual one.
        limit: Most images of the page, 1 to 1000.
        out: The folder; None is one in the run, or in the working folder for a data set.
        overwrite: Replace what an earlier call wrote there.

    Raises:
        SettingsError: If an argument is not allowed, or a file would be lost.
        VisionForgeError: If the run has no out-of-fold predictions, or the data cannot be used.
    """
    from visionforge.engine.audit import audit as audit_labels

    with _interruptible():
        return audit_labels(
            str(what.path if isinstance(what, Run) else what),
            split=(split,) if isinstance(split, str) else tuple(split),
            folds=folds,
            seed=seed,
            resolution=resolution,
            root=None if root is None else str(root),
            limit=limit,
            out=_path(out),
            overwrite=overwrite,
        )


def robustness(
    run: str | Path | Run,
    split: Literal["train", "val", "test"] = "test",
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    corruptions: "Sequence[str | Corruption] | None" = None,
    severities: Sequence[int] | None = None,
    seed: int = 0,
    baseline: str | Path | Run | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    accelerator: str = "auto",
) -> "Robustness":
    """Test a network of classes or labels on corrupted images, as `visionforge robustness` does.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file.
        split: ``train``, ``val`` or ``test``.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        corruptions: Names, or `Corruption` objects with strengths of their own; None is every one that applies.
        severities: Of 1 to 5; None is all.
        seed: Seed of what the corruptions draw.
        baseline: Another run of the same data, or its checkpoint file, that the errors are divided by.
        limit: Look at so many of the first images only; None takes all.
        out: The folder; None is one in the evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier call wrote there.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.

    Raises:
        SettingsError: If an argument is not allowed, or a file would be lost.
        VisionForgeError: If the run, its checkpoint or the data cannot be used.
    """
    from visionforge.engine.robustness import measure_robustness

    named = _named_network(run, checkpoint)
    with _interruptible() as interruption:
        return measure_robustness(
            **named,
            split=split,
            corruptions=[corruptions] if isinstance(corruptions, str) else corruptions,
            severities=severities,
            seed=seed,
            baseline=_named_runs(baseline=baseline).get("baseline"),
            limit=limit,
            out=_path(out),
            overwrite=overwrite,
            accelerator=accelerator,
            interruption=interruption,
        )


def export(
    run: str | Path | Run,
    format: Literal["onnx", "torch", "safetensors"] = "onnx",
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    input: Literal["uint8", "float32"] = "uint8",
    tta: bool | None = None,
    opset: int | None = None,
    int8: bool = False,
    benchmark: bool = False,
    pictures: Pictures | None = None,
    root: str | Path | None = None,
) -> "ExportResult":
    """Write a network as a file that predicts without visionforge, with the proof, as `visionforge export` does.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file.
        format: ``onnx``, ``torch`` (a torch.export program) or ``safetensors`` (the weights).
        checkpoint: ``best``, ``last`` or a file; None is the best.
        out: The folder; None is one in the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier export wrote there.
        input: Pixels 0 to 255 (``uint8``), or 0 to 1 (``float32``).
        tta: Test-time views inside; None is as the network is set.
        opset: Of ONNX; None is the lowest that is allowed.
        int8: Write a quantised ONNX model, too, and measure what it loses.
        benchmark: Measure latency and throughput beside PyTorch's.
        pictures: Prove it on these instead of the test split.
        root: Folder of the archives; None is as the run was configured.

    Raises:
        SettingsError: If an argument is not allowed, a package is missing, or a file would be lost.
        VisionForgeError: If the run, its checkpoint or the data cannot be used, or the artifact is not the network;
            nothing is left behind then.
    """
    from visionforge.exporting.export import export_network
    from visionforge.exporting.formats import OPSET

    named = _named_network(run, checkpoint)
    with _interruptible():
        return export_network(
            **named,
            format=format,
            out=_path(out),
            overwrite=overwrite,
            input=input,
            tta=tta,
            opset=OPSET if opset is None else opset,
            int8=int8,
            benchmark=benchmark,
            pictures=None if pictures is None else _paths(pictures),
            root=None if root is None else str(root),
            warn=_warn,
        )


def push(
    run: str | Path | Run,
    repository: str | None = None,
    *,
    formats: Sequence[Literal["safetensors", "onnx"]] = ("safetensors",),
    folder: str | Path | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    pictures: Pictures | None = None,
    root: str | Path | None = None,
) -> "PushResult":
    """Publish the network of a run on the Hugging Face Hub, or as a folder, as `visionforge push` does.

    Args:
        run: The run: its folder, its name, or the object.
        repository: ``OWNER/NAME``, made if it is not there; with `folder`, what the card calls it.
        formats: Of the network.
        folder: Write the files there, and send nothing.
        private: Make a new repository private; one that is public is refused.
        revision: The branch, made if it is not there; None is the main one.
        message: Of the commit.
        licence: Identifier of the network's licence, as the Hub has them: ``mit``, ``cc-by-4.0``.
        dry_run: Prove everything; send and write nothing.
        overwrite: Replace a card that was edited, and files that no push has written.
        pictures: Prove it on these instead of the test split.
        root: Folder of the archives; None is as the run was configured.

    Raises:
        SettingsError: If an argument is not allowed, a package is missing, or a file would be lost.
        RunError: If the run is not complete, its network cannot be proven, or the Hub does not take it; the repository
            has what it had then.
    """
    from visionforge.publishing.push import push_run

    with _interruptible():
        return push_run(
            **_named_runs(run=run),
            repository=repository,
            formats=formats,
            folder=_path(folder),
            private=private,
            revision=revision,
            message=message,
            licence=licence,
            dry_run=dry_run,
            overwrite=overwrite,
            pictures=None if pictures is None else _paths(pictures),
            root=None if root is None else str(root),
            tell=_tell,
            warn=_warn,
        )


def pull(source: str | Path, *, revision: str | None = None, out: str | Path | None = None) -> "PullResult":
    """Fetch a network that `push` has published, as `visionforge pull` does; nothing in it is executed.

    Args:
        source: ``OWNER/NAME`` on the Hugging Face Hub, or a folder of the same files, as ``./NAME``.
        revision: Branch, tag or commit; None is the main branch.
        out: The folder, which must not exist, unless it holds the same network; None is NAME in the working folder.

    Returns:
        What was fetched; `predict` takes its `model`.

    Raises:
        SettingsError: If a name is not allowed, something else is in the way, or a package is missing.
        RunError: If there is no such network, or what is there is not what it says; nothing is left behind then.
    """
    from visionforge.publishing.pull import pull_network

    with _interruptible():
        return pull_network(_place(source), revision=revision, out=_path(out))


def tune(
    config: Config | Sequence[Config] | None = None,
    *,
    n_trials: int | None = None,
    folds: int | None = None,
    **settings: Any,
) -> "Study":
    """Search hyperparameters, as `visionforge tune` does; the same call again goes on with the study.

    Args:
        config: As in `fit`; the section ``tune`` says what is searched.
        n_trials: Trials of the whole study; the same as ``tune={"n_trials": …}``.
        folds: Every trial trains so many folds, 2 to 100, and its value is their mean; the same as
            ``data={"folds": …}, tune={"cross_validate": True}``.
        settings: As in `fit`.

    Returns:
        The study.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If data or storage cannot be used, or too many trials fail.
        KeyboardInterrupt: After Ctrl-C; the study can be gone on with.
    """
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.tuning import take_folds
    from visionforge.tuning.tuning import tune as search

    raw = read_values(config, {**settings, **({} if folds is None else {"folds": folds})})
    take_folds(raw)
    if n_trials is not None:
        raw.set("tune.n_trials", n_trials, "in Python")
    checked = check_arguments(raw, "fit")
    with _interruptible() as interruption:
        return search(checked, interruption)


def benchmark(
    config: Config | Sequence[Config] | None = None,
    *,
    suite: Literal["medmnist2d", "medmnist3d", "quick"] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    leaderboard_only: bool = False,
    **settings: Any,
) -> "Benchmark":
    """Train and test a matrix, and write its leaderboard, as `visionforge benchmark` does; the same call goes on.

    Args:
        config: As in `fit`; the section ``benchmark`` says what the matrix is.
        suite: A matrix that is shipped; the same as ``benchmark={"suite": …}``.
        workers: Processes that share the cells; the same as ``benchmark={"workers": …}``.
        retry_failed: Try cells again that have failed.
        leaderboard_only: Train nothing; write the leaderboard anew from what is there.
        settings: As in `fit`.

    Returns:
        The benchmark: its leaderboard, its runs, and what has failed.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If the database cannot be used.
        KeyboardInterrupt: After Ctrl-C; nothing is lost, and the same call goes on.

    >>> import visionforge as vf
    >>> vf.benchmark(benchmark={"datasets": ["breastmnst"]})
    Traceback (most recent call last):
    ...
    visionforge.errors.SettingsError: benchmark.datasets: breastmnst is no data set; ...
    """
    from visionforge.benchmarking.benchmark import benchmark as run_benchmark
    from visionforge.benchmarking.benchmark import rewrite, settings_of

    raw = read_values(config, settings)
    for name, value in {"suite": suite, "workers": workers}.items():
        if value is not None:
            raw.set(f"benchmark.{name}", value, "in Python")
    checked = settings_of(raw)
    if leaderboard_only:
        return rewrite(checked)
    with _interruptible() as interruption:
        return run_benchmark(checked, interruption, retry_failed)


def open_study(study: str | Path, **settings: Any) -> "Study":
    """Return a study by its folder, or by its name in the outputs folder; its reports are read, not written.

    Args:
        study: Folder or name.
        settings: As in `fit`, where the studies lie in another outputs folder.

    Raises:
        RunError: If there is no such study.
    """
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.found import Study
    from visionforge.tuning.report import find_study
    from visionforge.tuning.tuning import studies_folder

    return Study(find_study(str(study), studies_folder(check_arguments(read_values(None, settings), "predict"))).path)


def _is_checkpoint(run: str | Path | Run) -> bool:
    return not isinstance(run, Run) and str(run).endswith(".ckpt")


def _artifact(run: str | Path | Run, checkpoint: str | Path | None, pictures: Pictures | None) -> Path | None:
    """Return the exported file that was named in the place of a run; None if it is none.

    Raises:
        SettingsError: If something else is asked for than an artifact has.
    """
    if isinstance(run, Run) or Path(run).suffix not in ARTIFACTS or Path(run).is_dir():
        return None
    if checkpoint is not None:
        raise SettingsError(f"checkpoint: {checkpoint} was named, and {run} is an exported file already")
    if pictures is None:
        raise SettingsError(f"pictures: {run} is an exported file, which knows no test split; name some pictures")
    return Path(run)


def _named_network(run: str | Path | Run, checkpoint: str | Path | None) -> dict[str, Any]:
    """Return `run` and `checkpoint` as text, as far as they are given.

    Raises:
        SettingsError: If two checkpoints are named.
    """
    if not _is_checkpoint(run):
        return _named_runs(run=run, checkpoint=checkpoint)
    if checkpoint is not None:
        raise SettingsError(f"checkpoint: {checkpoint} was named, and {run} is a checkpoint already")
    return _named_runs(checkpoint=run)


def _as_flags(named: dict[str, str]) -> dict[str, str]:
    """Return what names a network as the settings of an evaluation have it."""
    return {"ckpt_path" if name == "checkpoint" else name: value for name, value in named.items()}


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(pictures: Pictures) -> list[Path]:
    """Return one path or several as a list.

    Raises:
        SettingsError: If there is none.
    """
    given = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    if not given or "" in given:  # an empty text would be the working folder
        raise SettingsError("pictures: name a folder, a picture file or an .npz archive at least")
    return [Path(path) for path in given]


def _place(source: str | Path) -> str:
    """Return a source as text; a path is a folder, also where its text could be the name of a repository."""
    return str(source if isinstance(source, str) else source.absolute())


def _tell(text: str) -> None:
    log.info("%s", printable(text))


def _warn(text: str) -> None:
    log.warning("%s", printable(text))


def _named_runs(**given: str | Path | Run | None) -> dict[str, str]:
    """Return what names a run or a file as text."""
    return {
        name: str(value.path if isinstance(value, Run) else value) for name, value in given.items() if value is not None
    }


def compare(
    runs: Sequence[str | Path | Run],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    margins: Mapping[str, float] | None = None,
) -> "Comparison":
    """Compare runs, as `visionforge runs compare` does.

    Args:
        runs: Two runs or more.
        resamples: Bootstrap resamples of the paired differences; 0 leaves them out.
        confidence: Share of the resamples that an interval holds.
        margins: Name of a metric → by how much a model may be worse than the first and still be non-inferior.

    Raises:
        SettingsError: If there are fewer than two runs, a number is out of its bounds, or a margin cannot be judged.
        RunError: If there is no such run.
    """
    from visionforge.engine.comparison import Comparison
    from visionforge.evaluation.comparison import MOST_RESAMPLES, comparison

    alone = isinstance(runs, str | Path | Run)
    if alone or len(runs) < 2:
        raise SettingsError(f"compare: {'one' if alone or runs else 'no'} run was given; two or more are compared")
    if not 0 <= resamples <= MOST_RESAMPLES:
        raise SettingsError(f"resamples: {resamples} is not allowed; allowed: 0 to {MOST_RESAMPLES:,}")
    if not 0.5 < confidence < 1:
        raise SettingsError(f"confidence: {confidence:g} is not allowed; allowed: above 0.5 to below 1")
    return Comparison(comparison([open_run(run).stored for run in runs], resamples, confidence, margins))
