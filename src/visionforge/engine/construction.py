"""LightningCLI as a constructor: settings become a Trainer, a module and a data module; nothing runs in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from visionforge.config.imports import import_modules
from visionforge.config.rules import check_rules
from visionforge.config.schema import RunSettings
from visionforge.config.schema.base import fields_of
from visionforge.data.datamodule import ImageDataModule
from visionforge.engine.class_paths import class_problems
from visionforge.engine.limits import integers_first
from visionforge.engine.loggers import logger_error
from visionforge.engine.parser import NotAllowedError, Parser, dump
from visionforge.engine.validation import TRAINER_DEFAULTS, gather_facts
from visionforge.errors import SettingsError
from visionforge.printable import printable
from visionforge.runs.config_hash import digest, with_portable_paths
from visionforge.training import fully_shard  # noqa: F401  # a name of a strategy, which the Trainer then knows
from visionforge.training.classifier import ImageClassifier

_LISTS = ("callbacks", "logger", "plugins")  # flags that take several things
_DATA = (str, int, float, bool, Mapping, list, type(None))
_LONGEST = 200  # characters of a value in a message
_LAST = ("ckpt_path", "checkpoint_minutes", "exclusive_device", "device_wait", "log_level")  # of a configuration


def as_list(value: Any) -> list[Any]:
    """Return what a Trainer flag takes as one thing, several or none, as a list."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _take_objects(trainer: dict[str, Any]) -> dict[str, list[Any]]:
    """Take what is an object, not data, out of the Trainer's flags, and return it: flag → objects."""
    found: dict[str, list[Any]] = {}
    for flag, value in list(trainer.items()):
        objects = [item for item in as_list(value) if not isinstance(item, _DATA)]
        if objects:
            found[flag] = objects
            trainer[flag] = [item for item in as_list(value) if isinstance(item, _DATA)] or None
    return found


def _class_of(value: Any) -> dict[str, Any]:
    """Return how a configuration names an object that was built elsewhere: its class, without its arguments."""
    return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}"}


class Construction(LightningCLI):
    """The parts of one run, resolved at once and built when its folder is known.

    Args:
        settings: The settings, which are valid.
        evaluation: A trained network is evaluated, not trained.
        probing: A classifier is fitted to its features.
        sources: Dotted path → where it was written, for messages.

    Attributes:
        config_tree: The complete configuration: defaults, class paths and their arguments filled in.
        resolved: The same with portable paths: the content of `config.yaml`, and what the digest of a run is taken of.
        settings: The settings, whose Trainer flags have the types that the Trainer takes.

    Raises:
        SettingsError: If a flag of the Trainer has a value that it does not take.
    """

    def __init__(
        self,
        settings: RunSettings,
        evaluation: bool = False,
        sources: Mapping[str, str] | None = None,
        probing: bool = False,
    ) -> None:
        self._sources = dict(sources or {})
        tree = {"trainer": settings.trainer.model_dump(exclude_unset=True)}
        self._flags = settings.trainer.model_dump(exclude_unset=True)  # the parser changes what it is given
        self._objects = _take_objects(tree["trainer"])
        if tree["trainer"].get("callbacks") is not None:
            tree["trainer"]["callbacks"] = as_list(tree["trainer"]["callbacks"])
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=settings.seed_everything,
            parser_class=Parser,
            args=tree,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
        dumped = yaml.safe_load(dump(self.parser, self.config))
        for flag, objects in self._objects.items():
            dumped["trainer"][flag] = [*as_list(dumped["trainer"].get(flag)), *map(_class_of, objects)]
        others = settings.model_dump(mode="json", exclude={"imports", "trainer", "tune", "benchmark", "resume"})
        last = [name for name in _LAST if not (evaluation and name == "ckpt_path")]
        config: dict[str, Any] = {"imports": import_modules(settings.imports)} if settings.imports else {}
        config |= {"seed_everything": settings.seed_everything, "trainer": dumped["trainer"]}
        sections = ("model", "data", "probe", "evaluation") if probing else ("model", "data", "evaluation")
        config |= {name: others[name] for name in (*sections, *last)}
        self.config_tree = config
        self.resolved = with_portable_paths(config)
        self.settings = settings.model_copy(
            update={"trainer": type(settings.trainer).model_validate(dumped["trainer"])}
        )
        # what a text among the Trainer's flags means is known only now
        stage = "probe" if probing else "test" if evaluation else "fit"
        if problems := check_rules(self.settings, gather_facts(self.settings), stage):
            raise SettingsError(problems)

    @property
    def hash(self) -> str:
        """Return the digest that identifies a training of this configuration."""
        return digest(self.resolved)

    # --- what LightningCLI asks for

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the Trainer's flags; module and data module are built from settings that are valid already."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        for action in parser._actions:
            if not action.dest.startswith("trainer."):
                continue
            if kind := integers_first(getattr(action, "_typehint", None)):
                action._typehint = kind  # type: ignore[attr-defined]  # of jsonargparse
            if getattr(action, "_enable_path", False):  # a word is no name of a file that lies in the working folder
                action._enable_path = False  # type: ignore[attr-defined]

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Resolve the tree; Lightning's own version warns of arguments of the process."""
        try:
            self.config = parser.parse_object(args)
        except SettingsError as error:
            raise SettingsError(class_problems(self._flags, self._sources) or [self._told(error)]) from error

    def _told(self, error: SettingsError) -> str:
        """Return a complaint of the parser with the value as it was written, and where."""
        if not isinstance(error, NotAllowedError):
            return error.problems[0]
        value: Any = {"trainer": self._flags}
        for part in error.path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        written = value if isinstance(value, str) else error.value
        shown = str(value) if isinstance(value, int | float) else repr(printable(written, _LONGEST))
        where = f" ({self._sources[error.path]})" if error.path in self._sources else ""
        return error.line(shown, where)

    def _set_seed(self) -> None:
        """Leave the generators alone until something is built."""

    def instantiate_classes(self) -> None:
        """Build nothing yet."""

    # --- building

    def instantiate(self) -> None:
        """Build module, data module and the classes that the Trainer's flags name, each once.

        Raises:
            SettingsError: If a class cannot be built.
        """
        super()._set_seed()
        try:
            self.config_init = self.parser.instantiate(self.config)
        except Exception as error:
            told = logger_error(error)
            if told is None:
                raise
            raise told from error
        seed = self.settings.seed_everything
        self.model = ImageClassifier(**fields_of(self.settings.model), seed=seed)
        self.datamodule = ImageDataModule(**fields_of(self.settings.data), seed=seed)

    @property
    def flags(self) -> dict[str, Any]:
        """Return the Trainer's flags; what `instantiate` has built, and what came as an object, stand among them."""
        flags = dict(self.config_init["trainer"])
        for flag, objects in self._objects.items():
            several = [*as_list(flags.get(flag)), *objects]
            flags[flag] = several if flag in _LISTS else several[0]
        return flags

    def make_trainer(self, callbacks: Sequence[Callback], loggers: Sequence[Logger], **flags: Any) -> pl.Trainer:
        """Build the Trainer.

        Args:
            callbacks: All callbacks.
            loggers: All loggers.
            flags: Further flags, in place of those of the configuration.

        Raises:
            SettingsError: If it does not take a flag.
        """
        given = {**self.flags, "callbacks": list(callbacks), "logger": list(loggers) or False, **flags}
        try:
            return pl.Trainer(**given)
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            raise SettingsError(f"trainer: {' '.join(str(error).split())}") from error
