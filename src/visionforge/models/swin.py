"""Swin Transformer V2 with patches and windows that fit the resolution."""

from torch import nn
from torchvision.models import SwinTransformer, swin_v2_t
from torchvision.models.swin_transformer import ShiftedWindowAttentionV2

from visionforge.models.surgery import replace_convolution

PATCH, WINDOW = 4, 8  # of Swin-V2-T
MIN_WINDOW = 4  # smaller windows see too little; a map without a larger divisor is padded instead


def stage_window(side: int) -> int:
    """Return the window for a feature map: the largest divisor of its height and width up to 8; nothing is padded."""
    if side <= WINDOW:
        return max(2, side)  # positions in a window of 1 have no distance to scale by
    divisor = max(w for w in range(1, WINDOW + 1) if side % w == 0)
    return divisor if divisor >= MIN_WINDOW else WINDOW


def build_swin_v2_t(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> SwinTransformer:
    """Build torchvision's Swin-V2-T with random weights, and patches and windows that fit the resolution.

    The standard patches are 4×4 pixels, the windows 8×8 patches. At scale 2 the patch kernel moves by 2 pixels, at
    scale 4 it is 3×3 with stride 1; windows then divide each stage's map, 7×7 for 28×28 pixels. The bias of the
    attention is a function of relative positions, so its weights fit every window.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        resolution: Height and width in pixels.
        scale: What the downsampling of 4 is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network = swin_v2_t(weights=None, num_classes=num_classes)
    geometry = {1: {}, 2: {"stride": 2, "padding": 1}, 4: {"kernel": 3, "stride": 1, "padding": 1}}[scale]
    patches = network.features[0]
    patches[0] = replace_convolution(patches[0], in_channels, **geometry)
    network.head = nn.Sequential(nn.Dropout(dropout), network.head)
    if scale > 1:
        side = resolution * scale // PATCH
        for stage in (1, 3, 5, 7):
            _set_windows(network.features[stage], stage_window(side))
            side = -(-side // 2)
    return network


def _set_windows(stage: nn.Module, window: int) -> None:
    """Give all attentions of a stage a window, every second one shifted by half of it."""
    layers = [m for m in stage.modules() if isinstance(m, ShiftedWindowAttentionV2)]
    for index, layer in enumerate(layers):
        layer.window_size = [window, window]
        layer.shift_size = [0, 0] if index % 2 == 0 else [window // 2, window // 2]
        layer.define_relative_position_index()
        layer.define_relative_position_bias_table()
