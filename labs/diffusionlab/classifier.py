"""A small image classifier: its features measure samples, its answers judge conditional ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Four convolutions and two linear layers: `model(x)` gives logits, `model.features(x)` the layer before.

    Args:
        sample_shape: (channels, height, width) of the images.
        num_classes: number of classes.
        width: channels of the first convolution; the later ones have twice as many.
        num_features: length of the feature vector.
    """

    def __init__(self, sample_shape=(1, 28, 28), num_classes: int = 10, width: int = 32, num_features: int = 128):
        super().__init__()
        self.config = dict(sample_shape=list(sample_shape), num_classes=num_classes, width=width,
                           num_features=num_features)
        C, H, W = sample_shape
        self.body = nn.Sequential(
            nn.Conv2d(C, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(2 * width * (H // 4) * (W // 4), num_features))
        self.head = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The feature vectors [B, num_features] of images [B, C, H, W] in [-1, 1], before the last non-linearity."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, C, H, W] in [-1, 1]."""
        return self.head(F.relu(self.body(x)))
