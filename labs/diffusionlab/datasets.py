"""The bundled images, as tensors with pixels in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .folders import data_dir


def to_pixels(images: np.ndarray) -> Tensor:
    """Turn uint8 images [N, H, W] or [N, H, W, C] into float32 [N, C, H, W] in [-1, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(images))
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x.float() / 127.5 - 1


def mnist(split: str = "train", size: int | None = None) -> tuple[Tensor, Tensor]:
    """MNIST images [N, 1, 28, 28] in [-1, 1] and labels [N] (LeCun, Cortes and Burges; CC BY-SA 3.0).

    Args:
        split: "train" (60,000) or "test" (10,000).
        size: how many to return, from the front; None for all.

    Raises:
        ValueError: unknown split, or a size that is not in 1..N.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", not {split!r}')
    with np.load(data_dir() / "mnist.npz") as archive:
        images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    size = len(images) if size is None else size
    if not 1 <= size <= len(images):
        raise ValueError(f"size must be in 1..{len(images)}, not {size}")
    return to_pixels(images[:size]), torch.from_numpy(labels[:size].astype(np.int64))
