"""What our own small networks have in common: maps, their mean, a linear classifier."""

from torch import Tensor, nn


class PooledClassifier(nn.Module):
    """Convolutions, the mean of each last map, dropout, and a linear layer.

    Args:
        features: Maps (N, C, H, W) to the last maps.
        channels: How many those are.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
    """

    def __init__(self, features: nn.Sequential, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) float32 to logits (N, K)."""
        logits: Tensor = self.head(self.pool(self.features(images)).flatten(1))
        return logits
