"""Where settings come from, and which of them have to be looked at together: what no schema can say."""

SOURCES = {
    "data.augmentation.flip_mode": "Jordan, 2024, arXiv:2404.00498",
    "data.augmentation.magnitude": "Cubuk et al., 2020, arXiv:1909.13719",
    "data.augmentation.min_scale": "Szegedy et al., 2015, arXiv:1409.4842",
    "data.augmentation.num_ops": "Cubuk et al., 2020, arXiv:1909.13719",
    "model.backbone.dropout": "Srivastava et al., 2014, JMLR 15:1929",
    "model.distillation.temperature": "Hinton et al., 2015, arXiv:1503.02531",
    "model.distillation.weight": "Hinton et al., 2015, arXiv:1503.02531",
    "model.finetuning.stage_epochs": "Howard and Ruder, 2018, arXiv:1801.06146",
    "model.loss.dice": "Milletari et al., 2016, arXiv:1606.04797",
    "model.loss.effective_beta": "Cui et al., 2019, arXiv:1901.05555",
    "model.loss.focal": "Lin et al., 2017, arXiv:1708.02002",
    "model.loss.focal_gamma": "Lin et al., 2017, arXiv:1708.02002",
    "model.loss.label_smoothing": "Szegedy et al., 2016, arXiv:1512.00567",
    "model.loss.tversky": "Salehi et al., 2017, arXiv:1706.05721",
    "model.loss.tversky_alpha": "Salehi et al., 2017, arXiv:1706.05721",
    "model.loss.tversky_beta": "Salehi et al., 2017, arXiv:1706.05721",
    "model.mixup.alpha": "Zhang et al., 2018, arXiv:1710.09412",
    "model.mixup.cutmix_alpha": "Yun et al., 2019, arXiv:1905.04899",
    "model.optimizer.nesterov": "Sutskever et al., 2013, ICML",
    "model.optimizer.rate_scaling": "Goyal et al., 2017, arXiv:1706.02677",
    "model.schedule.rise_fraction": "Smith and Topin, 2019, arXiv:1708.07120",
    "model.schedule.warmup_epochs": "Goyal et al., 2017, arXiv:1706.02677",
    "model.warm_start": "Kumar et al., 2022, arXiv:2202.10054",
    "tune.pruner": "Li et al., 2020, arXiv:1810.05934 (halving)",
    "tune.reduction_factor": "Li et al., 2020, arXiv:1810.05934",
    "tune.sampler": "Bergstra et al., 2011, NeurIPS (tpe); Ament et al., 2023, arXiv:2310.20708 (gp)",
}
"""Setting → the paper that it comes from."""

TOGETHER = {
    "images a step, and how far it goes": (
        *("data.batch_size", "data.global_batch_size", "trainer.devices", "trainer.accumulate_grad_batches"),
        *("model.optimizer.learning_rate", "model.optimizer.rate_scaling", "model.optimizer.reference_batch_size"),
    ),
    "the learning rate over the training": (
        *("model.optimizer.learning_rate", "model.schedule.name", "model.schedule.min_lr", "trainer.max_epochs"),
        *("model.schedule.warmup_epochs", "model.schedule.cosine_fraction", "model.schedule.scheduler_patience"),
    ),
    "what keeps a network from learning by heart": (
        *("model.optimizer.weight_decay", "model.backbone.dropout", "data.augmentation.preset"),
        *("model.mixup.alpha", "model.mixup.cutmix_alpha", "model.loss.label_smoothing"),
    ),
    "how images are mixed": (
        *("model.mixup.alpha", "model.mixup.cutmix_alpha", "model.mixup.cutmix_prob", "model.mixup.per_image"),
        "model.mixup.mixup_epochs",
    ),
    "rare classes": (
        *("data.balanced_sampling", "data.sampler.name", "model.loss.class_weights", "model.loss.effective_beta"),
        "model.loss.focal_gamma",
    ),
    "pretrained weights": (
        *("model.backbone.pretrained", "model.backbone.weights", "model.backbone.normalisation", "data.force_rgb"),
        *("model.finetuning.freeze_epochs", "model.finetuning.backbone_rate", "model.warm_start"),
    ),
    "how large the images are for the network": (
        *("data.resolution", "data.resize.size", "data.resize.mode", "model.backbone.adapt_stem"),
    ),
    "augmentation": (
        *("data.augmentation.preset", "data.augmentation.hflip", "data.augmentation.vflip"),
        *("data.augmentation.rotation_angle", "data.augmentation.jitter_val", "data.augmentation.min_scale"),
        *("data.augmentation.num_ops", "data.augmentation.magnitude", "data.augmentation.operations"),
    ),
    "views at test time": ("model.tta", "model.tta_weight"),
    "which weights are kept": (
        *("model.monitor", "model.averaging.name", "model.averaging.decay", "model.averaging.start_epoch"),
    ),
    "a teacher": ("model.distillation.teacher", "model.distillation.weight", "model.distillation.temperature"),
    "folds": (*("data.folds", "data.fold", "data.fold_pool", "data.fold_repeats", "data.fold_seed", "data.groups"),),
    "speed, and the same bits": ("trainer.precision", "trainer.deterministic", "model.compile", "model.cuda_graphs"),
    "what the report says where it is not sure": (
        *("evaluation.conformal", "evaluation.coverage", "evaluation.abstain_below", "evaluation.ood"),
    ),
    "intervals": ("evaluation.resamples", "evaluation.confidence"),
    "which trials end early": (
        *("tune.pruner", "tune.n_startup_trials", "tune.n_warmup_epochs", "tune.reduction_factor", "tune.percentile"),
        *("tune.patience", "tune.epochs"),
    ),
    "when a search ends": ("tune.n_trials", "tune.target", "tune.target_trials", "tune.timeout_minutes"),
}
"""What several settings decide together → these settings."""


def acts_with(path: str) -> dict[str, list[str]]:
    """Return what a setting decides together with others → these others."""
    return {what: [each for each in group if each != path] for what, group in TOGETHER.items() if path in group}
