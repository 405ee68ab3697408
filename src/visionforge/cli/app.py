"""The LightningCLI: four stages of one Trainer, with the run folder, its checkpoints and its results added."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from visionforge.cli.arguments import say
from visionforge.cli.compat import use_current_leaf_spec
from visionforge.cli.ending import conclude, requeue, translate
from visionforge.cli.equipment import (
    TRAINER_DEFAULTS,
    as_list,
    check_callbacks,
    checkpoint_plugins,
    describe_data,
    describe_session,
    fit_callbacks,
    hold_device,
    leave_or_end,
    leave_process_group,
)
from visionforge.cli.limits import integers_first, limited, validation_limit
from visionforge.cli.loggers import close_loggers, log_hyperparameters, log_results, logger_error, shield
from visionforge.cli.outcome import write_outcome
from visionforge.cli.parser import Parser, describe_further_flags
from visionforge.cli.plan import Plan, expected_processes, inherited_folder, outputs_of, parent_of
from visionforge.cli.precheck import check_settings, gather_facts
from visionforge.cli.report import print_results
from visionforge.cli.target import Target, read_checkpoint, require_more_training, restore
from visionforge.config.problems import describe_allowed, flatten
from visionforge.config.rules import cut_short
from visionforge.config.schema import RunSettings
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.data.info import Split
from visionforge.data.source import fingerprint, load_split, prepare
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.evaluation import Partial
from visionforge.evaluation.predictions import answers_without_truth, write_predictions
from visionforge.evaluation.results import write_training_curves
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state
from visionforge.runs.active import ActiveRun
from visionforge.runs.anchors import resolve, shown
from visionforge.runs.files import write_atomic
from visionforge.runs.identity import digest, with_portable_paths
from visionforge.runs.locks import Lock
from visionforge.runs.logfile import RunLog
from visionforge.runs.signals import Interrupted
from visionforge.runs.workspace import Workspace, run_name
from visionforge.training.checkpoints import BEST, LAST, keep_calibration
from visionforge.training.classifier import ImageClassifier
from visionforge.training.epoch_log import EpochLog
from visionforge.training.monitor import RANKED, Monitor, monitor_for
from visionforge.training.schedules import steps_per_epoch

log = logging.getLogger(__name__)

RUN_FLAGS = ("resume", "checkpoint_minutes", "exclusive_device", "device_wait", "log_level")
BAR_REFRESH_STEPS = 10  # a refresh costs as much as a training step of a small network


def current_rank() -> int:
    """Return the number of this process; the first, 0, writes the files. Lightning reads it from the environment."""
    return getattr(rank_zero_only, "rank", None) or 0


class VisionForgeCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` of an `ImageClassifier` on a `MedMNISTDataModule`.

    Args:
        stage: The subcommand.
        arguments: What follows it on the command line.
        run_log: Takes the log file once the run folder exists.
        target: The trained network to evaluate; None when fitting.
        plan: The run to continue, and how signals are handled.
    """

    def __init__(self, stage: str, arguments: list[str], run_log: RunLog, target: Target | None, plan: Plan) -> None:
        self._run_log = run_log
        self._target = target
        self._plan = plan
        self.active: ActiveRun | None = plan.active
        self.workspace: Workspace | None = None
        self._device_lock: Lock | None = None
        super().__init__(
            ImageClassifier,
            MedMNISTDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=RunSettings().seed_everything,
            parser_class=Parser,
            parser_kwargs={"description": "Train and evaluate image classifiers on small images."},
            args=[stage, *arguments],
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @classmethod
    def launch(cls, stage: str, arguments: list[str], run_log: RunLog, target: Target | None, plan: Plan) -> None:
        """Run a stage; LightningCLI runs inside its constructor, so whatever ends it is dealt with here."""
        use_current_leaf_spec()
        cli = cls.__new__(cls)
        try:
            cli.__init__(stage, arguments, run_log, target, plan)  # type: ignore[misc]
            leave_process_group()
        except BaseException as error:
            told = translate(error)
            cli._end(told)
            if isinstance(error, SystemExit) and cli._was_interrupted():
                raise KeyboardInterrupt from None  # which Lightning turned into an exit
            if told is error:
                raise
            raise told from told.__cause__
        cli._end(None)

    def _was_interrupted(self) -> bool:
        trainer = getattr(self, "trainer", None)
        return trainer is not None and bool(trainer.interrupted)

    def _end(self, error: BaseException | None) -> None:
        """Let go of run and device, and write how the run ended."""
        with self._plan.interruption.deferred():
            if self.active is not None:
                trial = self._plan.trial
                conclude(self.active, error, None if trial is None else trial.pruned)
            if self._device_lock is not None:
                self._device_lock.release()
            trainer: pl.Trainer | None = getattr(self, "trainer", None)
            if trainer is not None and trainer.is_global_zero:
                pruned = self._plan.trial is not None and isinstance(error, self._plan.trial.pruned)
                close_loggers(trainer.loggers, failed=error is not None and not pruned)
            if isinstance(error, Interrupted) and trainer is not None:
                requeue(trainer, error.number)
                if trainer.world_size > 1:
                    leave_or_end(trainer, error)

    # --- the parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the stages, each with the arguments of its Trainer method that are not settings."""
        common = {"model", "datamodule", "weights_only"}
        return {
            "fit": common | {"train_dataloaders", "val_dataloaders"},
            "validate": common | {"dataloaders", "verbose"},
            "test": common | {"dataloaders", "verbose"},
            "predict": common | {"dataloaders", "return_predictions"},
        }

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; the model's spec is bound late and is no setting."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        for action in parser._actions:
            if not action.dest.startswith("trainer."):
                continue
            if kind := integers_first(getattr(action, "_typehint", None)):
                action._typehint = kind  # type: ignore[attr-defined]  # of jsonargparse
            if getattr(action, "_enable_path", False):  # a word is no name of a file that lies in the working folder
                action._enable_path = False  # type: ignore[attr-defined]
        parser.add_class_arguments(ImageClassifier, "model", skip={"spec", "restoring"}, fail_untyped=False)
        parser.add_lightning_class_args(MedMNISTDataModule, "data")
        evaluation = RunSettings.model_fields["evaluation"]
        parser.add_argument("--evaluation", type=evaluation.annotation, default=evaluation.default)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take the help of every setting from its declaration."""
        fields = flatten(RunSettings)
        for action in parser._actions:
            field = fields.get(action.dest)
            if field is not None and field.description and not action.dest.startswith("trainer."):
                action.help = f"{field.description} Allowed: {describe_allowed(field)}.".replace("%", "%%")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for name, field in RunSettings.model_fields.items():
            if name in RUN_FLAGS and not (name == "resume" and subcommand != "fit"):
                help_text = f"{field.description} Allowed: {describe_allowed(field)}."
                parser.add_argument(f"--{name}", type=field.annotation, default=field.default, help=help_text)
        # a file may hold the settings of the search; they are checked with all others, and read by `tune` alone
        text = "The search of `visionforge tune`, which this command passes over; `visionforge tune --help` lists it."
        parser.add_argument("--tune", type=dict, default={}, help=text)  # printed, it is a valid section
        if subcommand == "fit":
            text = "Run that is continued and may be a stranger's: build the classes that its configuration names."
            parser.add_argument("--trust", type=str, default=None, help=text)
        else:
            parser.add_argument(
                "--run",
                type=str,
                default=None,
                help="Run (folder, or name in the outputs folder): its configuration and its best checkpoint.",
            )
        describe_further_flags(parser, subcommand)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the given arguments; those of the process stay, for ranks that are started by repeating them."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: the settings of a checkpoint never override the command line."""

    # --- before the run

    def before_instantiate_classes(self) -> None:
        """Check the resolved settings, verify data and weights, then make the run folder; nothing exists before."""
        stage = str(self.subcommand)
        dumped = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[stage]
        left_out = ("config", "run", "resume", "trust", "tune", *(() if stage == "fit" else ("ckpt_path",)))
        config = {key: value for key, value in dumped.items() if key not in left_out}
        self.settings = check_settings(config, stage)
        config["model"]["tta"] = self.settings.model.tta  # true and full are the same run
        config = self._resolved = with_portable_paths(config)
        data = self.settings.data
        module = MedMNISTDataModule(dataset=data.dataset, resolution=data.resolution, synthetic=data.synthetic)
        prepare(module.info, data.resolution, data.root, data.download)
        backbone = self.settings.model.backbone
        if stage == "fit" and backbone.pretrained and self._plan.checkpoint is None:
            pretrained_state(backbone_entry(backbone.name), backbone.weights, data.resolution)
        if stage == "fit" and self._plan.checkpoint is None and self.settings.ckpt_path is not None:
            require_more_training(resolve(self.settings.ckpt_path), self.settings.trainer)
        self.workspace = self._take_workspace(stage, config)
        rank = current_rank()
        if stage != "fit":
            return
        if rank == 0:
            self._run_log.attach(self.workspace.log)
            assert self.active is not None
            describe_data(self.active, module.info, data)
        elif inherited_folder() is not None:
            self._run_log.attach(self.workspace.rank_log(rank))

    def _take_workspace(self, stage: str, config: dict[str, Any]) -> Workspace:
        """Return the folder of this command, made if need be."""
        identity = digest(config)
        if self._target is not None and self._target.run is not None:
            return Workspace(self._evaluation_folder(stage, self._target, digest(config, training=False)))
        if current_rank() != 0:  # only the first rank writes; the Trainer tells the others where its checkpoints are
            folder = inherited_folder()
            if folder is None and expected_processes(self.settings) == 1:
                raise RunError(
                    f"the environment says that this is process {current_rank()} of several (RANK, LOCAL_RANK or "
                    "SLURM_PROCID), but the training has one; unset it"
                )
            names = self.settings.data.dataset, self.settings.model.backbone.name, identity
            return Workspace(folder or outputs_of(self.settings) / run_name(*names))
        if self.active is None:
            plan = self._plan
            self.active = ActiveRun.create(
                outputs_of(self.settings),
                config,
                identity,
                stage=stage,
                parent=plan.parent or parent_of(self.settings),
                past_interrupted=plan.past_interrupted,
                past_running=plan.trial is not None,  # another worker may try the same values
            )
            plan.made = self.active.workspace
        return self.active.workspace

    def _evaluation_folder(self, stage: str, target: Target, current: str) -> Path:
        """Return where a later evaluation writes; the results of the fit itself are never overwritten."""
        assert target.run is not None
        changed = "" if current == digest(target.config, training=False) else f"_{current}"
        return target.run.within("evaluations", f"{stage}_{target.checkpoint.stem}{changed}")

    def instantiate_classes(self) -> None:
        """Build data module, model and Trainer; Lightning's own version calls a deprecated method of the parser."""
        try:
            self.config_init = self.parser.instantiate(self.config)
        except Exception as error:
            told = logger_error(error)
            if told is None:
                raise
            raise told from error
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()
        if self.settings.exclusive_device:
            device = self.trainer.strategy.root_device
            self._device_lock = hold_device(device, current_rank(), self.settings.device_wait)

    def _choose_monitor(self, callbacks: list[Any]) -> Monitor:
        """Return what the epochs are compared by, which has to be defined on the validation split.

        Raises:
            SettingsError: If a callback or the search goes by the AUC, and that is undefined.
        """
        data = self.datamodule.settings
        labels = load_split(self.datamodule.info, data.resolution, data.root, "val").labels
        limit = validation_limit(self._get(self.config_init, "trainer"))
        most = limited(len(labels), limit, data.batch_size * expected_processes(self.settings))
        monitor, reason = monitor_for(np.asarray(labels[:most]), self.datamodule.info.classes)
        self.model.monitor = monitor
        if reason is None:
            return monitor
        told = f"{RANKED} is undefined on the validation split, because {reason}"
        if self._plan.trial is not None and self._plan.trial.metric == RANKED:
            raise SettingsError(f"tune.metric: {told}; set it to val/loss, or mend the split")
        for callback in callbacks:
            if getattr(callback, "monitor", None) == RANKED:
                raise SettingsError(
                    f"trainer.callbacks: {type(callback).__name__} goes by {RANKED}, and {told}; let it go by val/loss"
                )
        log.warning("%s; epochs are compared by %s instead", told, monitor.name)
        return monitor

    def _progress(self, epochs: int, steps: int) -> None:
        """Write into the manifest how far the training has come."""
        if self.active is not None:
            longest, most = self.settings.trainer.max_epochs, self.trainer.max_steps
            if most > 0:
                longest = min(longest, math.ceil(most / steps_per_epoch(self.trainer)))
            self.active.update(progress={"epochs": epochs, "max_epochs": longest, "steps": steps})

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add what every run has: checkpoints, the table of epochs, a progress bar on a terminal."""
        assert self.workspace is not None
        given = dict(self._get(self.config_init, "trainer"))
        callbacks, loggers = as_list(given.get("callbacks")), as_list(given.get("logger"))
        if self.subcommand == "fit":
            rows = EpochLog(self.workspace.epochs)
            interruption = self._plan.interruption
            check_callbacks(callbacks)
            callbacks += () if self._plan.trial is None else self._plan.trial.callbacks
            monitor = self._choose_monitor(callbacks)
            callbacks += fit_callbacks(self.workspace, self.settings, interruption, rows, monitor, self._progress)
            loggers.insert(0, rows)
            kwargs["plugins"] = [*as_list(given.get("plugins")), *checkpoint_plugins(given.get("strategy"))]
        else:
            kwargs["enable_checkpointing"] = False
        shield(loggers)
        wanted = given.get("enable_progress_bar")
        bar = (sys.stdout.isatty() and self._plan.trial is None) if wanted is None else bool(wanted)
        if bar:
            callbacks.append(RichProgressBar(refresh_rate=BAR_REFRESH_STEPS))
        kwargs.update(
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(self.workspace.path),
            enable_progress_bar=bar,
        )
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            raise SettingsError(f"trainer: {' '.join(str(error).split())}") from error

    # --- the stages

    def before_fit(self) -> None:
        """Say what is about to be trained, and where."""
        assert self.workspace is not None
        log.info("run folder %s", shown(self.workspace.path))
        if told := cut_short(self.settings, gather_facts(self.settings)):
            log.warning("%s", told)
        checkpoint = self._beginning()
        if checkpoint is not None:
            log.info("continues from %s", shown(checkpoint))
        if self.active is not None:
            describe_session(self.active, self.trainer, None if checkpoint is None else checkpoint.name)
        self._introduce(self.workspace.path.name)
        data = self.datamodule
        log.info(
            "%s: %s, %d classes, %s train / %s val / %s test images of %d×%d pixels",
            data.spec.dataset,
            data.spec.task,
            len(data.spec.classes),
            *(f"{n:,}" for n in data.info.splits.model_dump().values()),
            data.spec.resolution,
            data.spec.resolution,
        )

    def _introduce(self, run: str) -> None:
        """Tell the loggers what is about to run."""
        if self.trainer.is_global_zero:
            facts = {"run.name": run, "run.hash": digest(self._resolved), "run.stage": str(self.subcommand)}
            parent = self._plan.parent or {}
            facts |= {f"run.{key}": parent[key] for key in ("study", "trial") if key in parent}
            log_hyperparameters(self.trainer.loggers, self._resolved, facts)

    def _beginning(self) -> Path | None:
        """Return the checkpoint that the training goes on from: the run's own, or the one that it was given."""
        given = self.settings.ckpt_path
        return self._plan.checkpoint or (None if given is None else resolve(given))

    def fit(self, **kwargs: Any) -> None:
        """Train; a signal ends the training after a step."""
        kwargs.pop("ckpt_path", None)
        checkpoint = self._beginning()
        if checkpoint is not None:
            read_checkpoint(checkpoint)  # the Trainer would not say in a line what is wrong with it
        with self._plan.interruption.deferred():
            self.trainer.fit(**kwargs, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
        self._plan.interruption.check()

    def _write_transfer(self) -> None:
        """Write what became of pretrained weights."""
        assert self.workspace is not None
        if self.model.transfer is not None:
            if self.active is not None:
                weights = {"source": self.model.transfer.source, "sha256": self.model.transfer.sha256}
                self.active.update(weights=weights)
            self.workspace.weight_transfer.parent.mkdir(exist_ok=True)
            write_atomic(self.workspace.weight_transfer, json.dumps(self.model.transfer.as_dict(), indent=2) + "\n")

    def after_fit(self) -> None:
        """Test the best checkpoint and write the results; a trial of a study does not touch the test split."""
        assert self.workspace is not None
        if self._plan.trial is not None:
            self._write_transfer()
            return
        checkpoint = self.trainer.strategy.broadcast(self._tested())
        if checkpoint is None:
            log.warning("no checkpoint was written, so there is nothing to test")
            return
        if checkpoint.name != BEST:
            log.warning("no epoch was validated, so that none is known to be the best; the last one is tested")
        if self.trainer.is_global_zero:
            if self.settings.evaluation.figures:
                title = f"{self.model.spec.dataset}, {self.model.settings.backbone.name}"
                picture = self.workspace.figures / "training_curves.png"
                write_training_curves(self.workspace.epochs, picture, title, self.settings.evaluation.figure_dpi)
            self._write_transfer()
        self._evaluate("test", checkpoint)

    def _tested(self) -> Path | None:
        """Return the checkpoint that is tested: the best, or the last of a training without validation."""
        assert self.workspace is not None
        paths = (self.workspace.checkpoints / name for name in (BEST, LAST))
        return next((path for path in paths if path.is_file()), None)

    def test(self, **_: Any) -> None:
        """Evaluate the target on the test split and write the results."""
        assert self._target is not None
        self._evaluate("test", self._target.checkpoint)

    def validate(self, **_: Any) -> None:
        """Evaluate the target on the validation split and write the results."""
        assert self._target is not None
        self._evaluate("val", self._target.checkpoint)

    def predict(self, **_: Any) -> None:
        """Write the class probabilities of the test split."""
        assert self._target is not None
        assert self.workspace is not None
        if self.trainer.world_size > 1:
            raise RunError("predict: runs on one device; set trainer.devices to 1")
        self._restore(self._target.checkpoint)
        batches = self.trainer.predict(self.model, datamodule=self.datamodule)
        if not batches:
            raise RunError("trainer.limit_predict_batches: leaves no image to predict; raise it")
        probabilities = torch.cat([batch for batch in batches if isinstance(batch, Tensor)])
        answers = answers_without_truth(self.model, probabilities)
        write_predictions(self.workspace.predictions, self.model.spec, answers, self.datamodule.side_table("test"))
        say(f"{len(probabilities):,} predictions: {self.workspace.predictions}")

    def _evaluate(self, split: Split, checkpoint: Path) -> None:
        """Evaluate one checkpoint on one split and write the results.

        A checkpoint whose temperature is not known yet is calibrated first; the one that a fit has chosen keeps it.
        """
        epoch = self._restore(checkpoint)
        if self.subcommand != "fit":
            run = self._target.run if self._target is not None else None
            self._introduce((run.path if run is not None else checkpoint).name)
        self.model.predictions = None
        loggers, self.trainer.loggers = self.trainer.loggers, []  # they get what is reported, in `_write`
        try:
            if split == "test":
                if self.model.calibration is None:
                    self._calibrate(checkpoint)
                self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            else:
                self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        finally:
            self.trainer.loggers = loggers
        if self.model.predictions is None or self.model.predictions.split != split:
            log.warning("no image of the %s split was evaluated, so there are no results", split)
            return
        if self.trainer.is_global_zero:
            self._write(split, checkpoint, epoch)

    def _calibrate(self, checkpoint: Path) -> None:
        """Look at the validation split once more, with test-time views."""
        if not self.trainer.limit_val_batches:
            return
        self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if self.subcommand == "fit" and self.trainer.is_global_zero and self.model.calibration is not None:
            keep_calibration(checkpoint, self.model.calibration)

    def _restore(self, checkpoint: Path) -> int | None:
        """Take the weights, and nothing else, of a checkpoint; return the number of epochs it was trained for."""
        content = read_checkpoint(checkpoint)
        self.model.bind(self.datamodule.spec)
        restore(self.model, content, checkpoint)
        epoch = content.get("epoch")
        return epoch + 1 if isinstance(epoch, int) else None

    def _write(self, split: Split, checkpoint: Path, epoch: int | None) -> None:
        """Write and print the results of the split that was just evaluated."""
        assert self.workspace is not None
        model, data = self.model, self.datamodule
        settings = data.settings
        provenance = {
            "backbone": model.settings.backbone.name,
            "checkpoint": checkpoint.name,
            "epoch": epoch,
            "chosen_by": self.model.monitor.name if checkpoint.name == BEST else None,
            "archive_md5": fingerprint(data.info, settings.resolution, settings.root),
        }
        run = self._target.run if self._target is not None else self.workspace
        reported = self.settings.evaluation
        partial = self._partial(split)
        content = write_outcome(self.workspace, run, model, data, split, reported, self._resolved, provenance, partial)
        print_results(content, self.workspace, checkpoint)
        log_results(self.trainer.loggers, self.workspace, content, self.trainer.global_step)

    def _partial(self, split: Split) -> Partial | None:
        """Return how much of a split was evaluated, and which flag says so; None if it was all of it."""
        assert self.model.predictions is not None
        seen, images = len(self.model.predictions.labels), len(self.datamodule.dataset_for(split))
        if seen >= images:
            return None
        given = self._get(self.config_init, "trainer")
        names = ("fast_dev_run", "overfit_batches", f"limit_{split}_batches")
        reasons = [f"trainer.{name} {given[name]}" for name in names if given.get(name)]
        return Partial(seen, images, ", ".join(reasons) or "fewer batches")
