"""ViT-Ti with patches that fit the resolution."""

import math
from collections.abc import Mapping

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from visionforge.models.surgery import replace_convolution

PATCH, LAYERS, HEADS, WIDTH = 16, 12, 3, 192  # DeiT-Ti of Touvron et al., 2021


def build_vit_tiny(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> VisionTransformer:
    """Build a ViT-Ti with random weights whose patches are 16 pixels wide, divided by `scale`.

    So 28×28 pixels give 7×7 patches of 4×4, where patches of 16 would leave one.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        resolution: Height and width in pixels, a multiple of the patch.
        scale: What the patch is divided by.

    Returns:
        A network from (N, in_channels, resolution, resolution) to (N, K).
    """
    network = VisionTransformer(resolution, PATCH // scale, LAYERS, HEADS, WIDTH, 4 * WIDTH, num_classes=num_classes)
    network.conv_proj = replace_convolution(network.conv_proj, in_channels)
    fan_in = in_channels * (PATCH // scale) ** 2
    nn.init.trunc_normal_(network.conv_proj.weight, std=math.sqrt(1 / fan_in))
    assert network.conv_proj.bias is not None
    nn.init.zeros_(network.conv_proj.bias)
    head = network.heads.head
    network.heads.head = nn.Sequential(nn.Dropout(dropout), head)
    nn.init.trunc_normal_(head.weight, std=0.02)  # zeros, torchvision's choice, leave the backbone without a gradient
    return network


def fit_positions(positions: Tensor, own: Tensor) -> Tensor:
    """Resample position embeddings (1, 1 + g², D) to the shape of `own` by bicubic interpolation.

    The class token's embedding stays (Dosovitskiy et al., 2021, section 3.2).

    Raises:
        ValueError: If either number of patches is not a square.
    """
    tokens = own.shape[1]
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(tokens - 1)
    if old * old != positions.shape[1] - 1 or new * new != tokens - 1:
        raise ValueError(f"{positions.shape[1]} and {tokens} tokens are not a class token and a square of patches")
    if old == new:
        return positions
    grid = positions[:, 1:].mT.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return F.pad(grid.flatten(2).mT, (0, 0, 1, 0)) + F.pad(positions[:, :1], (0, 0, 0, new * new))


_TIMM_NAMES = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "norm": "encoder.ln",
    "head": "heads.head",
}
_TIMM_BLOCK_NAMES = {
    "norm1.": "ln_1.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "norm2.": "ln_2.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}


def rename_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return timm's ViT state dict under torchvision's names; a name that is torchvision's already stays."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            prefix = next((old for old in _TIMM_BLOCK_NAMES if rest.startswith(old)), "")
            rest = _TIMM_BLOCK_NAMES.get(prefix, "") + rest.removeprefix(prefix)
            renamed[f"encoder.layers.encoder_layer_{index}.{rest}"] = value
            continue
        prefix = next((old for old in _TIMM_NAMES if name == old or name.startswith(f"{old}.")), "")
        renamed[_TIMM_NAMES.get(prefix, "") + name.removeprefix(prefix)] = value
    return renamed
