"""The LightningCLI: four stages of one Trainer, with the run folder, its checkpoints and its results added."""

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from visionforge.cli.compat import use_current_leaf_spec
from visionforge.cli.precheck import check_settings
from visionforge.cli.report import print_results
from visionforge.cli.target import Target, read_checkpoint
from visionforge.config.problems import describe_allowed, flatten
from visionforge.config.schema import RunSettings
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.data.info import Split
from visionforge.data.source import fingerprint, prepare
from visionforge.errors import RunError, SettingsError, TrainingError, VisionForgeError
from visionforge.evaluation.predictions import write_predictions
from visionforge.evaluation.results import write_results, write_training_curves
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state
from visionforge.runs.files import write_atomic
from visionforge.runs.identity import digest
from visionforge.runs.logfile import RunLog
from visionforge.runs.workspace import OUTPUTS, Workspace, create_workspace
from visionforge.training.callbacks import BestCheckpoint, SpaceCheck
from visionforge.training.classifier import MONITOR, ImageClassifier
from visionforge.training.epoch_log import EpochLog

log = logging.getLogger(__name__)

TRAINER_DEFAULTS = {
    "max_epochs": 60,
    "accelerator": "auto",
    "devices": "auto",
    "precision": "32-true",
    "deterministic": False,
    "enable_model_summary": False,  # one line in the log says as much
    "log_every_n_steps": 1,  # epochs of small data sets are shorter than Lightning's default of 50 steps
    "num_sanity_val_steps": 0,  # the archive is verified; metrics of two batches would only mislead
}
BAR_REFRESH_STEPS = 10  # a refresh costs as much as a training step of a small network


class Parser(LightningArgumentParser):
    """A parser whose complaints are one line each."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing sixty lines of usage."""
        text = " ".join(str(message).split())
        key = re.search(r'Parser key "([^"]+)"', text)
        value = re.search(r"Given value: (.*)$", text)
        kinds = re.search(r"Subtypes: \[(.*?)\] Errors", text)
        if key and value and kinds:
            names = re.sub(r"<class '([^']+)'>", r"\1", kinds[1]).replace("NoneType", "null").split(", ")
            text = f"{key[1]}: {value[1]!r} is not allowed; allowed: {', '.join(sorted(names))}"
        raise SettingsError(text) from ex


def is_first_rank() -> bool:
    """Return whether this process writes the files; Lightning reads the rank from the launcher's environment."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def _leave_process_group() -> None:
    """Let all ranks wait for the first, which writes the results, and end their communication in order.

    A rank that ends before is taken for a crash by its launcher, which then kills the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class VisionForgeCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` of an `ImageClassifier` on a `MedMNISTDataModule`.

    Args:
        stage: The subcommand.
        arguments: What follows it on the command line.
        run_log: Takes the log file once the run folder exists.
        target: The trained network to evaluate; None when fitting.
    """

    def __init__(self, stage: str, arguments: list[str], run_log: RunLog, target: Target | None) -> None:
        self._run_log = run_log
        self._target = target
        self.workspace: Workspace | None = None
        self._best: ModelCheckpoint | None = None
        self._last: ModelCheckpoint | None = None
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
    def launch(cls, stage: str, arguments: list[str], run_log: RunLog, target: Target | None = None) -> None:
        """Run a stage; LightningCLI runs inside its constructor, so a failure is cleaned up here."""
        use_current_leaf_spec()
        cli = cls.__new__(cls)
        try:
            cli.__init__(stage, arguments, run_log, target)  # type: ignore[misc]
            _leave_process_group()
        except SystemExit:
            trainer = getattr(cli, "trainer", None)
            if trainer is None or not trainer.interrupted:
                raise
            raise KeyboardInterrupt from None  # which Lightning turned into an exit
        except RuntimeError as error:
            kernel = re.search(r"(\S+) does not have a deterministic implementation", str(error))
            if kernel is None:
                raise
            cli._discard(target)
            raise TrainingError(
                f"trainer.deterministic: {kernel[1]} has no deterministic form on this device; choose another "
                "backbone, set trainer.accelerator to cpu, or trainer.deterministic to warn (gives up repeatability)"
            ) from error
        except (VisionForgeError, OSError):
            cli._discard(target)
            raise

    def _discard(self, target: Target | None) -> None:
        """Remove the run folder of a failed fit that was not trained."""
        workspace = getattr(self, "workspace", None)
        if workspace is not None and (target is None or target.run is None):
            workspace.discard_unless_trained()

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
        parser.add_class_arguments(
            ImageClassifier, "model", skip={"spec", "restoring"}, fail_untyped=False, sub_configs=True
        )
        parser.add_lightning_class_args(MedMNISTDataModule, "data")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take the help of every setting from its declaration."""
        fields = flatten(RunSettings)
        for action in parser._actions:
            field = fields.get(action.dest)
            if field is not None and field.description and not action.dest.startswith("trainer."):
                action.help = f"{field.description} Allowed: {describe_allowed(field)}.".replace("%", "%%")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand != "fit":
            parser.add_argument(
                "--run", type=str, default=None, help="Run folder: its configuration and its best checkpoint."
            )
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
        config = {key: value for key, value in dumped.items() if key not in ("config", "run", "ckpt_path")}
        settings = check_settings(config, stage)
        config["model"]["tta"] = settings.model.tta  # true and full are the same run
        data = settings.data
        module = MedMNISTDataModule(dataset=data.dataset, resolution=data.resolution, synthetic=data.synthetic)
        prepare(module.info, data.resolution, data.root, data.download)
        backbone = settings.model.backbone
        if stage == "fit" and backbone.pretrained:
            pretrained_state(backbone_entry(backbone.name), backbone.weights, data.resolution)
        outputs = Path(config["trainer"].get("default_root_dir") or OUTPUTS)
        name = data.dataset, settings.model.backbone.name, digest(config)
        if self._target is not None and self._target.run is not None:
            self.workspace = Workspace(self._evaluation_folder(stage, self._target, digest(config)))
        elif is_first_rank():
            self.workspace = create_workspace(outputs, *name)
        else:  # only the first rank writes files; the Trainer tells the others where its checkpoints are
            self.workspace = Workspace(outputs / "_".join(name))
        if stage == "fit" and is_first_rank():
            write_atomic(self.workspace.config, yaml.safe_dump(config, sort_keys=False))
            self._run_log.attach(self.workspace.log)

    def _evaluation_folder(self, stage: str, target: Target, current: str) -> Path:
        """Return where a later evaluation writes; the results of the fit itself are never overwritten."""
        assert target.run is not None
        changed = "" if current == digest(target.config) else f"_{current}"
        return target.run.path / "evaluations" / f"{stage}_{target.checkpoint.stem}{changed}"

    def instantiate_classes(self) -> None:
        """Build data module, model and Trainer; Lightning's own version calls a deprecated method of the parser."""
        self.config_init = self.parser.instantiate(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add what every run has: checkpoints, the table of epochs, a progress bar on a terminal."""
        assert self.workspace is not None
        given = dict(self._get(self.config_init, "trainer"))
        callbacks = given.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        loggers: list[Any] = []
        if self.subcommand == "fit":
            self._best = BestCheckpoint(
                self.workspace.checkpoints,
                filename="best",
                monitor=MONITOR,
                mode="max",
                save_weights_only=True,
                enable_version_counter=False,
            )
            self._last = ModelCheckpoint(self.workspace.checkpoints, filename="last", enable_version_counter=False)
            callbacks += [SpaceCheck(self.workspace.path), self._best, self._last]
            loggers.append(EpochLog(self.workspace.epochs))
        else:
            kwargs["enable_checkpointing"] = False
        wanted = given.get("enable_progress_bar")
        bar = sys.stdout.isatty() if wanted is None else bool(wanted)
        if bar:
            callbacks.append(RichProgressBar(refresh_rate=BAR_REFRESH_STEPS))
        chosen = given.get("logger")
        if isinstance(chosen, list):
            loggers += chosen
        elif chosen is not None and not isinstance(chosen, bool):
            loggers.append(chosen)
        kwargs.update(
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(self.workspace.path),
            enable_progress_bar=bar,
        )
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, ImportError) as error:
            raise SettingsError(f"trainer: {' '.join(str(error).split())}") from error

    # --- the stages

    def before_fit(self) -> None:
        """Say what is about to be trained, and where."""
        assert self.workspace is not None
        log.info("run folder %s", self.workspace.path)
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

    def fit(self, **kwargs: Any) -> None:
        """Train."""
        self.trainer.fit(**kwargs, weights_only=True)

    def _write_transfer(self) -> None:
        """Write what became of pretrained weights."""
        assert self.workspace is not None
        if self.model.transfer is not None:
            self.workspace.weight_transfer.parent.mkdir(exist_ok=True)
            write_atomic(self.workspace.weight_transfer, json.dumps(self.model.transfer.as_dict(), indent=2) + "\n")

    def after_fit(self) -> None:
        """Test the best checkpoint and write the results."""
        assert self.workspace is not None
        assert self._best is not None
        assert self._last is not None
        written = self._best.best_model_path or self._last.best_model_path
        if not written:
            log.warning("no checkpoint was written, so there is nothing to test")
            return
        checkpoint = Path(written)
        if self.trainer.is_global_zero:
            checkpoint = self.workspace.checkpoints / checkpoint.name  # relative if the outputs folder is
            title = f"{self.model.spec.dataset}, {self.model.settings.backbone.name}"
            picture = self.workspace.figures / "training_curves.png"
            write_training_curves(self.workspace.epochs, picture, title)
            self._write_transfer()
        self._evaluate("test", checkpoint)

    def test(self, **_: Any) -> None:
        """Evaluate the target on the test split and write the results."""
        assert self._target is not None
        self._evaluate("test", self._target.checkpoint)

    def validate(self, **_: Any) -> None:
        """Evaluate the target on the validation split, without test-time augmentation, and write the results."""
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
        probabilities = torch.cat([batch for batch in batches or [] if isinstance(batch, Tensor)])
        write_predictions(self.workspace.predictions, self.model.spec, probabilities.cpu().numpy(), None, None)
        sys.stdout.write(f"{len(probabilities):,} predictions: {self.workspace.predictions}\n")

    def _evaluate(self, split: Split, checkpoint: Path) -> None:
        """Evaluate one checkpoint on one split and write the results."""
        epoch = self._restore(checkpoint)
        stage = self.trainer.test if split == "test" else self.trainer.validate
        stage(self.model, datamodule=self.datamodule, verbose=False)
        if self.trainer.is_global_zero:
            self._write(split, checkpoint, epoch)

    def _restore(self, checkpoint: Path) -> int | None:
        """Take the weights, and nothing else, of a checkpoint; return the number of epochs it was trained for."""
        content = read_checkpoint(checkpoint)
        self.model.bind(self.datamodule.spec)
        self.model.restore(content)
        return int(content["epoch"]) + 1 if "epoch" in content else None

    def _write(self, split: Split, checkpoint: Path, epoch: int | None) -> None:
        """Write and print the results of the split that was just evaluated."""
        assert self.workspace is not None
        model, data = self.model, self.datamodule
        assert model.predictions is not None
        settings = data.settings
        provenance = {
            "backbone": model.settings.backbone.name,
            "checkpoint": checkpoint.name,
            "epoch": epoch,
            "archive_md5": fingerprint(data.info, settings.resolution, settings.root),
        }
        content = write_results(
            self.workspace.path, model.predictions, model.spec, split, data.dataset_for(split), provenance
        )
        print_results(content, self.workspace, checkpoint)
