"""Where a network looks: Grad-CAM for feature maps, attention rollout for transformers.

Both answer a question about one network and one image. Neither shows that what is bright is what decides, and a map can
look sensible for a network that is wrong.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from visionforge.config.schema import Task
from visionforge.data.augment import normalise
from visionforge.errors import RunError
from visionforge.evaluation.slices import middle_slices
from visionforge.models.feature_heads import TreeHead
from visionforge.models.volumes import channels_last
from visionforge.training.criterion import cumulative_probabilities
from visionforge.training.ensemble import Ensemble
from visionforge.training.task_network import TaskNetwork

Method = Literal["grad-cam", "attention-rollout"]
OVERLAY_PIXELS = 224
MAX_ALPHA = 0.75  # of the brightest spot, so that the image can be seen through it
_SMALL_PIXELS = 96  # up to this width the pixels of an image stay visible when it is enlarged
_SMALLEST = 1e-30
_OF_ATTENTION = ("attn", "attention")  # modules within; theirs are maps of tokens by tokens, not of the image
_MOST_LAYERS_AFTER = 6  # with parameters, behind the last feature map; a network of tokens has many behind its stem


def explanation_method(model: TaskNetwork) -> Method:
    """Return which method fits the network: rollout where every token attends to all others, Grad-CAM otherwise.

    Raises:
        RunError: If the network is not built yet.
    """
    if model.ensemble is not None:
        return explanation_method(model.alone(0))
    return "attention-rollout" if _attention_modules(_network(model)) else "grad-cam"


def explain(model: TaskNetwork, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return maps (N, R, R), or (N, R, R, R) of volumes, float32 in [0, 1] on the CPU, each scaled by its own maximum.

    A map without any evidence stays 0.

    Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) weighs the channels of the last feature map by the mean gradient
    of the class's logit, under the ordinal loss by that of the grade's log-probability, and keeps what speaks for it.
    Attention rollout (Abnar and Zuidema, 2020, arXiv:2005.00928) multiplies the attention of all layers, averaged over
    the heads and with the identity for the residual path; it is the same for every class. As every patch gets some
    attention, the least is taken as 0.

    Args:
        model: The model; it is left as it was.
        images: (N, C, R, R) uint8, or volumes (N, C, R, R, R).
        targets: (N,) classes or labels to explain; None is the predicted class, or the most probable label.

    Raises:
        RunError: If the network is not built, has no feature map of more than one pixel near its end, or a target is no
            class.
    """
    spec = model.spec
    assert spec is not None
    method = explanation_method(model)  # of an ensemble that of its first network
    if targets is not None and not bool(((targets >= 0) & (targets < len(spec.classes))).all()):
        raise RunError(f"there is no such class to explain; classes are numbered 0 to {len(spec.classes) - 1}")
    if model.ensemble is not None:
        return _of_members(model, model.ensemble, images, targets)
    whole = _Whole.of(model)
    with _evaluating(whole):
        inputs = normalise(images, spec.mean, spec.std)
        if model.resizing is not None:
            inputs = model.resizing(inputs)
        maps = _rollout(whole.network, inputs) if method == "attention-rollout" else _grad_cam(whole, inputs, targets)
    mode = "trilinear" if spec.spatial_dims == 3 else "bilinear"
    if model.resizing is None:
        maps = F.interpolate(maps[:, None].float(), size=images.shape[2:], mode=mode, align_corners=False)[:, 0]
    else:
        maps = model.resizing.undone(maps[:, None].float(), mode)[:, 0]
    highest = maps.flatten(1).amax(dim=1).view(-1, *[1] * spec.spatial_dims)
    return (maps / highest.clamp(min=_SMALLEST)).clamp(0, 1).detach().cpu()


def _of_members(model: TaskNetwork, ensemble: Ensemble, images: Tensor, targets: Tensor | None) -> Tensor:
    """Return the mean of the members' maps, of the class that they predict together, scaled by its own maximum."""
    if targets is None:
        with torch.no_grad(), _evaluating(model):
            given, _ = model.predict_probabilities(images, tta=False)
        targets = given.argmax(dim=1)
    maps = torch.stack([explain(model.alone(k), images, targets) for k in range(len(ensemble))]).mean(dim=0)
    highest = maps.flatten(1).amax(dim=1).view(-1, *[1] * (maps.ndim - 1))
    return maps / highest.clamp(min=_SMALLEST)


class _Whole(nn.Module):
    """A network with the layer behind it, in float32.

    Args:
        network: Gives logits, or a score.
        cumulative: Makes logits of the score; None where the network gives logits.
        task: The task, which decides.
    """

    def __init__(self, network: nn.Module, cumulative: nn.Module | None, task: Task) -> None:
        super().__init__()
        self.network = network
        self.cumulative = cumulative
        self.task = task

    @classmethod
    def of(cls, model: TaskNetwork) -> "_Whole":
        """Return the modules of a model; one that was trained in another precision is copied."""
        network, cumulative = _network(model), model.cumulative
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in network.parameters()):
            network, cumulative = copy.deepcopy(network).float(), copy.deepcopy(cumulative)
            cumulative = None if cumulative is None else cumulative.float()
        assert model.spec is not None
        return cls(network, cumulative, model.spec.kind)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (N, K), or cumulative ones (N, K-1), of normalised images (N, C, R, R) or volumes."""
        logits: Tensor = self.network(channels_last(inputs))
        return logits if self.cumulative is None else self.cumulative(logits)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode, and each back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _network(model: TaskNetwork) -> nn.Module:
    if model.network is None:
        raise RunError("the network is not built: load a checkpoint first")
    return model.network


# --- Grad-CAM


def _grad_cam(whole: _Whole, inputs: Tensor, targets: Tensor | None) -> Tensor:
    """Return (N, h, w), or (N, d, h, w), maps of the last feature map's size."""
    if any(isinstance(module, TreeHead) for module in whole.network.modules()):
        raise RunError(
            "trees have no gradient, so nothing says where in an image they look; probe with another classifier"
        )
    layer = feature_layer(whole.network, inputs[:1])
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        held = output.clone()  # later layers may work in place
        kept.append(held)
        return held.clone()

    with torch.inference_mode(False), torch.enable_grad(), _hooked(layer.register_forward_hook(keep)):
        logits = whole(inputs.clone().requires_grad_())
        score = _score(whole, logits, targets)
        (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    features = kept[0].detach()
    if _channels_last(features):
        features, gradient = features.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.flatten(2).mean(dim=2).view(*gradient.shape[:2], *[1] * (gradient.ndim - 2))
    return F.relu((weights * features).sum(dim=1))


def _score(whole: _Whole, logits: Tensor, targets: Tensor | None) -> Tensor:
    """Return (N,) what is explained."""
    graded = whole.cumulative is not None
    shown = cumulative_probabilities(logits) if graded else logits
    if targets is None:
        stated = shown if graded else whole.task.probabilities(shown)
        targets = stated.argmax(dim=1) if whole.task.several else whole.task.decide(stated)
    score = shown.gather(1, targets.to(shown.device)[:, None])[:, 0]
    return score.clamp(min=_SMALLEST).log() if graded else score


def feature_layer(network: nn.Module, image: Tensor) -> nn.Module:
    """Return the module that gives the last feature map of more than one pixel, found by watching one image pass.

    Args:
        network: The network.
        image: (1, C, R, R) or (1, C, R, R, R), normalised.

    Raises:
        RunError: If there is none.
    """
    order: list[tuple[nn.Module, bool]] = []  # every call, and whether it gave a feature map

    def watch(module: nn.Module, given: Any, output: Any) -> None:
        order.append((module, isinstance(output, Tensor) and output.ndim == image.ndim and _pixels(output) > 1))

    with torch.no_grad(), ExitStack() as stack:
        for name, module in network.named_modules():
            if not any(word in name.lower() for word in _OF_ATTENTION):
                stack.enter_context(_hooked(module.register_forward_hook(watch)))
        network(image)
    calls = Counter(module for module, _ in order)
    # an activation that is shared has no output of its own
    places = [place for place, (module, is_map) in enumerate(order) if is_map and calls[module] == 1]
    after = order[places[-1] + 1 :] if places else []
    layers = sum(1 for module, _ in after if any(True for _ in module.parameters(recurse=False)))
    if not places or layers > _MOST_LAYERS_AFTER:
        raise RunError("the network has no feature map of more than one pixel near its end, so there is no map to show")
    return order[places[-1]][0]


def _channels_last(features: Tensor) -> bool:
    """Return whether (N, H, W, C) features of a square image are meant, not (N, C, H, W)."""
    return features.ndim == 4 and features.shape[1] == features.shape[2] != features.shape[3]


def _pixels(features: Tensor) -> int:
    return prod(features.shape[1:3] if _channels_last(features) else features.shape[2:])


# --- attention rollout


def _attention_modules(network: nn.Module) -> list[nn.Module]:
    """Return the layers of global self-attention, in order; none where tokens attend within windows."""
    if isinstance(network, VisionTransformer):
        return [module for module in network.modules() if isinstance(module, nn.MultiheadAttention)]
    blocks = getattr(network, "blocks", None)
    if not hasattr(network, "num_prefix_tokens") or not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return []
    layers = [getattr(block, "attn", None) for block in blocks]  # timm's VisionTransformer
    if not all(isinstance(layer, nn.Module) and hasattr(layer, "fused_attn") for layer in layers):
        return []
    return [layer for layer in layers if isinstance(layer, nn.Module)]


def _rollout(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return (N, g, g) how much each patch was attended to, through all layers."""
    layers = _attention_modules(network)
    attentions: list[Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            watch = _watch_torch if isinstance(layer, nn.MultiheadAttention) else _watch_timm
            stack.enter_context(watch(layer, attentions))
        network(inputs)
    joint: Tensor | None = None
    for attention in attentions:
        identity = torch.eye(attention.shape[-1], device=attention.device)
        step = (attention.float() + identity) / 2  # rows of both add up to 1
        joint = step if joint is None else step @ joint
    assert joint is not None
    prefix = int(getattr(network, "num_prefix_tokens", 1))
    by_token = prefix > 0 and getattr(network, "global_pool", "token") == "token"  # what the classifier reads
    patches = (joint[:, 0] if by_token else joint[:, prefix:].mean(dim=1))[:, prefix:]
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1]:
        raise RunError(f"{patches.shape[1]} patches are no square, so they cannot be laid over the image")
    patches = patches - patches.amin(dim=1, keepdim=True)
    return patches.reshape(-1, side, side)


@contextmanager
def _watch_torch(layer: nn.Module, attentions: list[Tensor]) -> Iterator[None]:
    """Collect the attention (N, L, L) of an `nn.MultiheadAttention`, averaged over its heads."""

    def ask(module: nn.Module, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return given, {**named, "need_weights": True, "average_attn_weights": True}

    def take(module: nn.Module, given: Any, output: tuple[Tensor, Tensor]) -> None:
        attentions.append(output[1])

    with _hooked(layer.register_forward_pre_hook(ask, with_kwargs=True)), _hooked(layer.register_forward_hook(take)):
        yield


@contextmanager
def _watch_timm(layer: Any, attentions: list[Tensor]) -> Iterator[None]:
    """Collect the attention (N, L, L) of timm's `Attention`, which its fused form never computes as such."""

    def take(module: nn.Module, given: tuple[Tensor]) -> None:
        attentions.append(given[0].mean(dim=1))

    fused, layer.fused_attn = layer.fused_attn, False
    try:
        with _hooked(layer.attn_drop.register_forward_pre_hook(take)):
            yield
    finally:
        layer.fused_attn = fused


@contextmanager
def _hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


# --- pictures


def overlay(image: npt.NDArray[Any], heat: npt.NDArray[Any], pixels: int = OVERLAY_PIXELS) -> npt.NDArray[np.uint8]:
    """Return an image with a map on top, (P, P, 3) uint8; where the map is 0, the image is as it was.

    Of a volume it is the middle slices side by side, which are more than three times as wide.

    Args:
        image: (C, R, R) uint8, grey or colour, or a volume (C, R, R, R).
        heat: (R, R) in [0, 1], or (R, R, R).
        pixels: Height P of the result.
    """
    if image.ndim == 4:
        image, heat = middle_slices(image, 255), middle_slices(heat, 0)
    size = (pixels * image.shape[-1] // image.shape[-2], pixels)
    planes = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    small = image.shape[-2] <= _SMALL_PIXELS
    way = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    ground = np.asarray(Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).resize(size, way))
    values = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(values), 0, 1)[..., None]
    colours = matplotlib.colormaps["inferno"](strength[..., 0])[..., :3] * 255
    alpha = MAX_ALPHA * strength
    return np.asarray(np.rint(ground * (1 - alpha) + colours * alpha), dtype=np.uint8)
