"""Images as tensors with pixels in [-1, 1]: MNIST, which is bundled, and CIFAR-10, which is not."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .folders import data_dir

CLASSES = {"mnist": tuple("0123456789"),
           "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")}
"""By data set: what its labels 0, 1, ... stand for."""

ORIGINAL = "original"


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
    _check_split(split)
    with np.load(data_dir() / "mnist.npz") as archive:
        images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    return _first(size, images, labels)


def cifar10(split: str = "train", size: int | None = None, folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """CIFAR-10 images [N, 3, 32, 32] in [-1, 1] and labels [N] (Krizhevsky 2009). They do not come with the course.

    Args:
        split: "train" (50,000) or "test" (10,000).
        size: how many to return, from the front; None for all.
        folder: holds `cifar-10-batches-py`, the original as torchvision's CIFAR10 or its authors' page delivers it; or
            cifar10_train.npz and cifar10_test.npz, archives of JPEG files whose classes are made to take turns here.
            None for the course's data folder.

    Raises:
        ValueError: unknown split, a size that is not in 1..N, or no such images in the folder.
    """
    _check_split(split)
    folder = data_dir() if folder is None else Path(folder)
    original, archive = folder / "cifar-10-batches-py", folder / f"cifar10_{split}.npz"
    if image_files("cifar10", folder) == ORIGINAL:
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        parts = [pickle.loads((original / name).read_bytes(), encoding="bytes") for name in names]
        images = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _first(size, images, np.concatenate([part[b"labels"] for part in parts]))
    if not archive.is_file():
        raise ValueError(f"there is no CIFAR-10 in {folder}; fetch it once with torchvision: "
                         f"python -c \"import torchvision; torchvision.datasets.CIFAR10('{folder}', download=True)\"")
    with np.load(archive) as file:
        header, body, offsets, labels = (file[name] for name in ("header", "body", "offsets", "labels"))
    files = (BytesIO(header.tobytes() + body[a:b].tobytes()) for a, b in zip(offsets, offsets[1:]))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    turn = np.argsort((np.arange(len(labels)) - np.searchsorted(labels, labels)) * len(labels) + labels)  # sorted by class
    return _first(size, images[turn], labels[turn])


def image_files(data: str, folder: Path | None = None) -> str:
    """What a data set's images are read from: their original, or a copy that was compressed with losses; for model cards.

    Args:
        data: the data set's name; only "cifar10" comes in two forms.
        folder: as for `cifar10`.

    Returns:
        ORIGINAL, or words for the copy.
    """
    folder = data_dir() if folder is None else Path(folder)
    return ORIGINAL if data != "cifar10" or (folder / "cifar-10-batches-py").is_dir() else "recompressed as JPEG, slightly lossy"


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", not {split!r}')


def _first(size: int | None, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    size = len(images) if size is None else size
    if not 1 <= size <= len(images):
        raise ValueError(f"size must be in 1..{len(images)}, not {size}")
    return to_pixels(images[:size]), torch.from_numpy(labels[:size].astype(np.int64))
