"""A small image classifier: its features measure samples, its answers judge conditional ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Stages of two convolutions, each half the resolution of the one before, and two linear layers: `model(x)` gives logits,
    `model.features(x)` the layer before.

    Args:
        sample_shape: (channels, height, width) of the images.
        num_classes: number of classes.
        width: channels of the first stage; each later one has twice as many.
        num_features: length of the feature vector.
        stages: how many.
    """

    def __init__(self, sample_shape=(1, 28, 28), num_classes: int = 10, width: int = 32, num_features: int = 128, stages: int = 2):
        super().__init__()
        self.config = dict(sample_shape=list(sample_shape), num_classes=num_classes, width=width,
                           num_features=num_features, stages=stages)
        C, H, W = sample_shape
        layers = []
        for w in (width * 2**stage for stage in range(stages)):
            layers += [nn.Conv2d(C, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(),
                       nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2)]
            C, H, W = w, H // 2, W // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(C * H * W, num_features))
        self.head = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The feature vectors [B, num_features] of images [B, C, H, W] in [-1, 1], before the last non-linearity."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, C, H, W] in [-1, 1]."""
        return self.head(F.relu(self.body(x)))
