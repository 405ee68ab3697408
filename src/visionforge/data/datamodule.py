"""The LightningDataModule: from a catalog name to normalised batches, in anyone's Lightning project."""

import inspect
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import DataLoader

from visionforge.config.folds import fold_problems
from visionforge.config.functions import with_names
from visionforge.config.problems import unknown_setting, validation_problems
from visionforge.config.resizing import resize_problems
from visionforge.config.schema import Augmentation, DataSettings, Preset, Resize, Sampler, Synthetic
from visionforge.config.schema.data import FoldPool, unequal_parts
from visionforge.config.seeding import Seeded, derive_seed
from visionforge.config.volumes import volume_problems
from visionforge.data.archive import SplitArrays
from visionforge.data.augment import (
    AugmentationDraw,
    Operation,
    apply_operations,
    normalise,
    numbers_for,
    respect_flags,
)
from visionforge.data.augment_volumes import VolumeDraw, apply_draw, draw_for
from visionforge.data.batches import ArrayDataset, Batch, EpochSampler, FixedOrder, as_is
from visionforge.data.draws import Draws
from visionforge.data.info import Split, TaskSpec
from visionforge.data.loader import ResumableLoader, seed_worker
from visionforge.data.memory import CacheChoice, CacheMode, choose_cache, free_memory
from visionforge.data.records import is_mapped
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import SideTable
from visionforge.data.source import prepare
from visionforge.data.split_source import SplitSource
from visionforge.data.stratify import stratified_order
from visionforge.errors import DataError, SettingsError

if TYPE_CHECKING:
    AugmentationLike = Augmentation | Mapping[str, Any] | Preset
    SyntheticLike = Synthetic | Mapping[str, Any]
    SamplerLike = Sampler | Mapping[str, Any] | str
    ResizeLike = Resize | Mapping[str, Any] | int
else:  # the command line derives its flags from these
    AugmentationLike, SyntheticLike, ResizeLike = Augmentation, Synthetic, Resize
    SamplerLike = dict[str, Any] | str  # of whichever kind

log = logging.getLogger(__name__)
_P = ParamSpec("_P")

LEAST_PLAIN = 64  # training images that are looked at, however short an epoch is
CALIBRATION_EPOCH = 1 << 20  # beyond every training
DRAWN_AT_ONCE = 1 << 14  # images whose augmentation is drawn together, with some MB of numbers
_DEFAULT = DataSettings()
_CACHE_NAMES = {"ram": "in memory", "mmap": "memory-mapped", "device": "on the device"}
_SIDES = {"hflip": "left and right", "vflip": "top and bottom", "dflip": "front and back"}
_OF_IMAGES = (
    *("dataset", "root", "download", "resolution", "force_rgb", "synthetic"),
    *("folds", "fold", "fold_pool", "fold_repeats", "fold_seed", "groups"),
)
_STAGE_SPLITS: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


def _told_of_nearest_names(init: Callable[_P, None]) -> Callable[_P, None]:
    """Return a constructor that refuses a name it does not have as other mistakes are refused, in one line."""
    names = [f"data.{name}" for name in inspect.signature(init).parameters if name != "self"]

    @wraps(init)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        if unknown := [path for name in kwargs if (path := f"data.{name}") not in names]:
            raise SettingsError([unknown_setting(path, names) for path in unknown])
        init(*args, **kwargs)

    return checked


class ImageDataModule(Seeded, pl.LightningDataModule):
    """Batches of a catalog data set, augmented and normalised on the training device.

    The images have the data set's size; a network brings them to the one of `resize` itself, which it takes from here.

    A batch is `(images, labels)`: images (B, C, R, R), or volumes (B, C, R, R, R), float32, normalised with the
    constants of the catalog; labels (B,) int64, or (B, L) uint8 where an image may have several; masks (B, R, R) uint8,
    or boxes (B, M, 5) float32, which move with their images. The order of the images and their augmentation are
    functions of (seed, epoch, step). They do not depend on the number of workers.

    Args:
        dataset: Catalog name.
        root: Folder of the archives; None is $VISIONFORGE_DATA, or else the user's cache folder.
        download: Download a missing archive.
        resolution: Height and width R of the images, and depth of volumes, in pixels; the data set must offer it.
        batch_size: Images per batch and device, 1 to 2048.
        global_batch_size: Images of all devices together, in the place of `batch_size`.
        num_workers: Loader processes.
        cache: Where the images are kept: `auto`, `ram`, `mmap` or `device`.
        balanced_sampling: Draw training images with weights 1 / class count.
        max_samples: Keep at most this many training images, a stratified subset; None keeps all.
        force_rgb: Give grey images three equal channels.
        augmentation: Random changes of training images; a word such as ``strong`` is the preset of that name.
        synthetic: What the data set `synthetic` renders.
        resize: The size that the network reads, and the way there; a number is that size.
        sampler: Which training images an epoch shows, and in which order; a word is the sampler of that name.
        seed: Seed of order and augmentation; None is the one of `lightning.seed_everything`, or 42.
        folds: Divide the images of `fold_pool` into so many folds; None keeps the splits.
        fold: The fold that is held out, from 0.
        fold_pool: `train+val`: the fold validates; or `all`: it tests, and the next one validates.
        fold_repeats: How often the images are divided; fold numbers go on.
        fold_seed: What the folds are a function of.
        groups: Keep the groups of the archive together in folds, and draw them whole for intervals.

    Raises:
        SettingsError: If a value is out of its bounds, the data set is unknown or does not offer the resolution.
    """

    @_told_of_nearest_names
    def __init__(
        self,
        dataset: str = _DEFAULT.dataset,
        root: str | None = _DEFAULT.root,
        download: bool = _DEFAULT.download,
        resolution: int = _DEFAULT.resolution,
        batch_size: int = _DEFAULT.batch_size,
        num_workers: int = _DEFAULT.num_workers,
        cache: CacheMode = _DEFAULT.cache,
        balanced_sampling: bool = _DEFAULT.balanced_sampling,
        max_samples: int | None = _DEFAULT.max_samples,
        force_rgb: bool = _DEFAULT.force_rgb,
        augmentation: AugmentationLike = _DEFAULT.augmentation,
        synthetic: SyntheticLike = _DEFAULT.synthetic,
        sampler: SamplerLike = _DEFAULT.sampler,
        seed: int | None = None,
        folds: int | None = _DEFAULT.folds,
        fold: int | None = _DEFAULT.fold,
        fold_pool: FoldPool = _DEFAULT.fold_pool,
        fold_repeats: int = _DEFAULT.fold_repeats,
        fold_seed: int = _DEFAULT.fold_seed,
        groups: bool = _DEFAULT.groups,
        resize: ResizeLike = _DEFAULT.resize,
        global_batch_size: int | None = _DEFAULT.global_batch_size,
    ) -> None:
        super().__init__()
        self.seed = seed
        try:
            self.settings = DataSettings.model_validate(
                {
                    "dataset": dataset,
                    "root": None if root is None else str(root),
                    "download": download,
                    "resolution": resolution,
                    "batch_size": batch_size,
                    "global_batch_size": global_batch_size,
                    "num_workers": num_workers,
                    "cache": cache,
                    "balanced_sampling": balanced_sampling,
                    "sampler": sampler,
                    "max_samples": max_samples,
                    "force_rgb": force_rgb,
                    "augmentation": {"preset": augmentation}
                    if isinstance(augmentation, str)
                    else with_names(augmentation, "data.augmentation"),
                    "synthetic": synthetic,
                    "folds": folds,
                    "fold": fold,
                    "fold_pool": fold_pool,
                    "fold_repeats": fold_repeats,
                    "fold_seed": fold_seed,
                    "groups": groups,
                    "resize": {"size": resize} if isinstance(resize, int) else resize,
                }
            )
        except ValidationError as error:
            raise SettingsError(validation_problems(error, DataSettings, prefix="data.")) from error
        self.info = dataset_info(dataset, self.settings.synthetic)
        offered = self.info.resolutions
        if offered is not None and resolution not in offered:
            raise SettingsError(
                f"data.resolution: {resolution} is not offered by {dataset}; allowed: {', '.join(map(str, offered))}"
            )
        if problems := fold_problems(self.settings):
            raise SettingsError(problems)
        if problems := volume_problems(self.info.name, self.info.spatial_dims, self.settings):
            raise SettingsError(problems)
        resizing = self.settings.resize
        if problems := resize_problems(resizing, resolution, self.info.task, self.info.spatial_dims):
            raise SettingsError(problems)
        self.spec = TaskSpec.of(self.info, resolution, force_rgb, resizing)
        self.augmentation = respect_flags(self.settings.augmentation.resolved(), self.info.flags)
        self._datasets: dict[Split, ArrayDataset] = {}
        self._operations: list[Operation] | None = None  # built when they are first needed
        self.source = SplitSource(self.info, self.spec, self.settings)
        self._sampled_by: npt.NDArray[Any] | None = None  # what training images are drawn by
        self._mirrored: tuple[Any, Tensor] | None = None  # of an epoch under alternating flips
        self._draws: tuple[Any, AugmentationDraw | VolumeDraw] | None = None  # of the steps around the last one

    @classmethod
    def of_images(cls, settings: DataSettings) -> Self:
        """Return a module of the same images, without what says how they are trained on: batches, sampling, changes."""
        return cls(**{name: getattr(settings, name) for name in _OF_IMAGES})

    @property
    def batch_size(self) -> int:
        """Return the images of a batch of this process."""
        return self.settings.batch_of(self._rank()[1])

    def state_dict(self) -> dict[str, Any]:
        """Return how many images a step takes, for a checkpoint."""
        processes = self._rank()[1]
        return {"images_of_step": self.settings.images_of(processes), "processes": processes}

    # --- preparation

    def prepare_data(self) -> None:
        """Download and verify the archive; called in one process per machine.

        Raises:
            DataError: If the archive is missing or is not what the catalog says.
        """
        prepare(self.info, self.settings.resolution, self.settings.root, self.settings.download)

    def setup(self, stage: str) -> None:
        """Load the splits that a stage (`fit`, `validate`, `test`, `predict`) needs.

        Raises:
            DataError: If one is damaged, or nothing can be learnt of the training images.
        """
        for split in _STAGE_SPLITS[stage]:
            if split not in self._datasets:
                self._datasets[split] = self._load(split)
        if stage == "fit":
            self._require_learnable()
            for flip, sides in _SIDES.items():
                if getattr(self.settings.augmentation.resolved(), flip) > getattr(self.augmentation, flip):
                    log.info("%s: %s are not interchangeable, so images are not flipped", self.info.name, sides)

    def _require_learnable(self) -> None:
        """Refuse training images of which nothing can be learnt.

        Raises:
            DataError: If all of them are such.
        """
        dataset, reason = self._datasets["train"], None
        for part in dataset.label_parts():
            if (reason := self.spec.kind.unlearnable_reason(part)) is None:
                return
        most = self.settings.max_samples
        fewer = "raise data.max_samples, or " if most is not None and most == len(dataset) else ""
        raise DataError(
            f"{self.info.name}: nothing can be learnt of the {len(dataset):,} images of its train split, because "
            f"{reason}; {fewer}divide the data so that train has such images"
        )

    def dataset_for(self, split: Split) -> ArrayDataset:
        """Return the images and labels of one split, loading them if need be."""
        if split not in self._datasets:
            self.prepare_data()
            self._datasets[split] = self._load(split)
        return self._datasets[split]

    def side_table(self, split: Split) -> SideTable:
        """Return the names and groups of a split's images, in the order of `dataset_for`, where its archive has them.

        Raises:
            DataError: If the archive is missing, or what it has beside its images is no table of them.
        """
        return self.source.side_table(split).at(self.dataset_for(split).positions)

    def groups(self, split: Split) -> tuple[str, ...] | None:
        """Return the group of each image of a split, in the order of `dataset_for`; None if that is unknown."""
        return self.side_table(split).whole_groups if self.settings.groups else None

    def _load(self, split: Split) -> ArrayDataset:
        settings = self.settings
        choice = self._choose_cache(self.source.sample(split))
        arrays = self.source.arrays(split, in_memory=choice.kind != "mmap")
        log.info("%s %s split: %s (%s)", self.info.name, split, _CACHE_NAMES[choice.kind], choice.reason)
        indices = None
        if split == "train" and settings.max_samples is not None and settings.max_samples < len(arrays.labels):
            rng = np.random.default_rng(derive_seed(self.seed, "subset"))
            order = stratified_order(self._image_labels(arrays.labels), rng.permutation(len(arrays.labels)))
            indices = np.sort(order[: settings.max_samples]).tolist()
        dataset = ArrayDataset(arrays, indices, in_memory=choice.kind != "mmap")
        return dataset.to(self._device()) if choice.kind == "device" else dataset

    def _choose_cache(self, arrays: SplitArrays) -> CacheChoice:
        """Decide where a split is kept.

        Raises:
            SettingsError: If it is to be kept on a device that is no GPU.
        """
        device, device_free = self._device(), None
        mode = self.settings.cache
        if mode == "mmap" and not is_mapped(arrays.images):
            return CacheChoice("ram", "there is no file to map")
        if device.type == "cuda":
            device_free = torch.cuda.mem_get_info(device)[0]
        elif mode == "device":
            raise SettingsError(
                f"data.cache: 'device' needs a GPU, the device is {device.type}; allowed here: auto, ram, mmap"
            )
        count, own = len(arrays.images), arrays.images.nbytes + arrays.labels.nbytes
        return choose_cache(mode, count, own, own * self.info.images // count, free_memory(), device_free)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    # --- loaders

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches; the last, incomplete batch of an epoch is left out.

        Raises:
            SettingsError: If the processes cannot have equal parts of `data.global_batch_size`.
        """
        dataset, processes = self._loaded("train"), self._rank()[1]
        if (images := self.settings.images_of(processes)) % processes:
            raise SettingsError(unequal_parts(images, processes))
        loader = self._loader(dataset, self._train_sampler(dataset), drop_last=True)
        if self.trainer is not None:
            loader.consumed = partial(self._consumed, self.trainer, weakref.ref(loader))
        return loader

    def _consumed(self, trainer: pl.Trainer, loader: Callable[[], ResumableLoader | None]) -> int | None:
        """Return the position in the epoch if a Trainer is training with a loader at this moment."""
        source = trainer.fit_loop._combined_loader  # the loop's own; `trainer.train_dataloader` makes one if need be
        training = trainer.training and source is not None and any(item is loader() for item in source.flattened)
        return self._position(trainer) if training else None

    def _loaded(self, split: Split) -> ArrayDataset:
        """Return a split that `setup` has loaded.

        Raises:
            DataError: If it was not called.
        """
        if split not in self._datasets:
            stage = next(name for name, splits in _STAGE_SPLITS.items() if split in splits)
            raise DataError(
                f"{self.info.name}: the {split} split is not loaded; call prepare_data() and setup({stage!r})"
            )
        return self._datasets[split]

    def _train_sampler(self, dataset: ArrayDataset) -> EpochSampler | FixedOrder:
        if self._overfits:
            return FixedOrder(len(dataset))
        settings = self.settings
        sampler = settings.sampler.resolved(settings.balanced_sampling)
        if self._sampled_by is None or len(self._sampled_by) != len(dataset):  # of masks they take a look at each pixel
            self._sampled_by = np.concatenate([self._image_labels(part) for part in dataset.label_parts()])
        labels = self._sampled_by
        weights = sampler.weights(labels)
        rank, replicas = self._rank()
        return EpochSampler(
            len(dataset),
            self.seed,
            weights=None if weights is None else torch.from_numpy(weights),
            draw=partial(sampler.indices, labels),
            drop_uneven=True,
            rank=rank,
            num_replicas=replicas,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, in order and complete."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order and complete."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order and complete."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch]:
        dataset = self._loaded(split)
        rank, replicas = self._rank()
        if self._overfits:
            return self._loader(dataset, FixedOrder(len(dataset)), drop_last=False)
        if len(dataset) < replicas:
            raise DataError(
                f"{self.info.name}: its {split} split has {len(dataset):,} images for {replicas} processes, each of "
                f"which needs one; set trainer.devices to at most {len(dataset)}"
            )
        sampler = EpochSampler(len(dataset), self.seed, shuffle=False, rank=rank, num_replicas=replicas)
        return self._loader(dataset, sampler, drop_last=False)

    @property
    def _overfits(self) -> bool:
        """Whether the Trainer is to overfit the first batches, always the same."""
        return self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))

    def _loader(self, dataset: ArrayDataset, sampler: EpochSampler | FixedOrder, drop_last: bool) -> ResumableLoader:
        on_gpu = dataset.device.type == "cuda"
        workers = 0 if on_gpu else self.settings.num_workers  # a forked process cannot use a GPU
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=as_is,
            drop_last=drop_last,
            pin_memory=self._device().type == "cuda" and not on_gpu,
            persistent_workers=workers > 0,
            worker_init_fn=partial(seed_worker, self.seed),
            generator=torch.Generator().manual_seed(self.seed),  # the global stream stays untouched
        )

    def _rank(self) -> tuple[int, int]:
        """Return (rank, number of processes)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _image_labels(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what images are sampled by: their classes (N,), or (N, L) 0/1 which ones they have."""
        return self.spec.kind.image_labels(labels, len(self.info.classes))

    def class_counts(self) -> tuple[Tensor, int]:
        """Return (K,) training images per class or label, and the number of all of them; of masks pixels."""
        parts = self.dataset_for("train").label_parts()
        counts, totals = zip(
            *(self.spec.kind.weighed_counts(part, len(self.info.classes)) for part in parts), strict=True
        )
        return torch.from_numpy(np.sum(counts, axis=0)), sum(totals)

    def calibration_batches(self, limit: int, device: torch.device) -> Iterator[Tensor]:
        """Yield augmented, normalised training images (N, C, R, R[, R]), at most `limit`, the same at every call.

        They are drawn as the training draws them, with the random numbers of an epoch that no training has.
        """
        dataset = self.dataset_for("train")
        sampler = self._train_sampler(dataset)
        sampler.set_epoch(CALIBRATION_EPOCH)
        order = sampler.positions().tolist()[:limit]
        size = self.batch_size
        for step in range(max(1, len(order) // size)):
            images = dataset.__getitems__(order[step * size : (step + 1) * size])[0]
            yield self.augment(images.to(device), CALIBRATION_EPOCH, step)

    def plain_batches(self, limit: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised training images (N, C, R, R[, R]) as they are, and their labels.

        At most `limit`, evenly drawn from the split, are yielded, and no more than the Trainer trains on in an epoch.
        """
        dataset, order = self.dataset_for("train"), self.plain_positions(limit).tolist()
        for start in range(0, len(order), self.batch_size):
            images, labels = dataset.__getitems__(order[start : start + self.batch_size])
            yield self.normalise(images.to(device)), labels

    def plain_positions(self, limit: int) -> npt.NDArray[np.int64]:
        """Return the positions, ascending, of the images that `plain_batches` yields."""
        dataset = self.dataset_for("train")
        trained = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        most = trained * (self.batch_size if isinstance(trained, int) else len(dataset))
        limit = min(limit, max(LEAST_PLAIN, int(most)))
        return np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(np.int64))

    def validation_batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all normalised validation images (N, C, R, R[, R]) in their order, and their labels."""
        dataset, size = self.dataset_for("val"), self.batch_size
        for start in range(0, len(dataset), size):
            images, labels = dataset.__getitems__(list(range(start, min(len(dataset), start + size))))
            yield self.normalise(images.to(device)), labels

    # --- on the device

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment training batches and normalise all of them; a batch of another project's loader passes unchanged."""
        if not (isinstance(batch, Sequence) and len(batch) == 2 and self._is_raw(batch[0])):
            return batch
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            return self.augment_pairs(images, labels, self.trainer.current_epoch, self._step())
        return self.normalise(images), labels

    def _step(self) -> int:
        """Return how many batches of this epoch the Trainer has taken; it restores the number on resume."""
        assert self.trainer is not None
        return self._position(self.trainer)

    @staticmethod
    def _position(trainer: pl.Trainer) -> int:
        return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def augment(self, images: Tensor, epoch: int, step: int) -> Tensor:
        """Return (N, C, R, R[, R]) uint8 images augmented and normalised, with the random numbers of (epoch, step)."""
        return self._augmented(images, self._drawn(images, epoch, step), epoch, step)

    def augment_pairs(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the same, and the labels: masks and boxes move with their images, others stay."""
        draw = self._drawn(images, epoch, step)
        moved = self.spec.kind.moved(labels, draw, (images.shape[-2], images.shape[-1]))
        return self._augmented(images, draw, epoch, step), moved

    def _drawn(self, images: Tensor, epoch: int, step: int) -> AugmentationDraw | VolumeDraw:
        """Return the draws of a batch, which are made for many steps at once: each of them is a few numbers."""
        size = max(self.batch_size, len(images))
        held, dataset = max(1, DRAWN_AT_ONCE // size), self._datasets.get("train")
        if dataset is not None:  # which has an image
            held = min(held, -(-len(dataset) // (size * self._rank()[1])))
        block, place = divmod(step, held)
        key = (self.seed, self.augmentation, epoch, block, size, self._rank(), images.device, images.ndim)
        if self._draws is None or self._draws[0] != key:
            count = held * size
            self._draws = key, self._draw(images, epoch, block * count, count)
        return self._draws[1][place * size : place * size + len(images)]

    def _draw(self, images: Tensor, epoch: int, first: int, count: int) -> AugmentationDraw | VolumeDraw:
        """Return the draws of so many places of this process in an epoch, from its first one on.

        An image's are a function of (seed, epoch, place in the order of all processes), however many these are.
        """
        places = self._places(first, count, images.device)
        parity = None
        if self.augmentation.flip_mode == "alternating":
            parity = self._flip_parity(epoch, first, count).to(images.device)
        draws = Draws.at(derive_seed(self.seed, "augment", epoch), places)
        return draw_for(images.ndim - 2, draws, self.augmentation, parity)

    def _places(self, first: int, count: int, device: torch.device) -> Tensor:
        """Return (count,) places in the order of all processes, of so many places of this one."""
        rank, replicas = self._rank()
        return torch.arange(first, first + count, device=device) * replicas + rank

    def _augmented(self, images: Tensor, draw: AugmentationDraw | VolumeDraw, epoch: int, step: int) -> Tensor:
        if self._operations is None:
            self._operations = [operation.build() for operation in self.augmentation.operations]
        mean, std = self._constants
        if not self._operations:
            return apply_draw(images, draw, mean, std)
        channels, (rank, _) = images.shape[1], self._rank()
        pixels = apply_draw(images, draw, (0.0,) * channels, (1.0,) * channels)
        size = max(self.batch_size, len(images))
        numbers = numbers_for(
            self.augmentation.operations,
            derive_seed(self.seed, "operations", epoch),
            self._places(step * size, len(images), images.device),
            derive_seed(self.seed, "operations", epoch, step, *([rank] if rank else [])),
        )
        return apply_operations(pixels, self._operations, numbers, mean, std)

    def _flip_parity(self, epoch: int, first: int, count: int) -> Tensor:
        """Return (count,) which images of an epoch are mirrored: a fixed half of them, in turn; none beyond its end."""
        key = (self.seed, epoch, self._rank())
        if self._mirrored is None or self._mirrored[0] != key:
            dataset = self._datasets["train"]
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "flip"))
            half = torch.rand(len(dataset), generator=generator) < 0.5
            sampler = self._train_sampler(dataset)
            sampler.set_epoch(epoch)
            self._mirrored = key, half[sampler.positions()] ^ bool(epoch % 2)
        found = self._mirrored[1][first : first + count]
        return torch.cat([found, found.new_zeros(count - len(found))])

    def normalise(self, images: Tensor) -> Tensor:
        """Return (N, C, R, R[, R]) uint8 images as normalised float32 with the channels of the task."""
        return normalise(images, *self._constants)

    @property
    def _constants(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that pixels are normalised by: the network's, which are in its checkpoint."""
        network = None if self.trainer is None else getattr(self.trainer.lightning_module, "spec", None)
        spec = network if isinstance(network, TaskSpec) else self.spec
        return spec.mean, spec.std

    def _is_raw(self, value: object) -> bool:
        """Return whether it is a batch of uint8 images, or of volumes if those are what the data set has."""
        return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 2 + self.spec.spatial_dims


class MedMNISTDataModule(ImageDataModule):
    """`ImageDataModule`, under the name by which users of MedMNIST look for it."""
