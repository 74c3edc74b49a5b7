"""How good are the samples? Distances, accuracies and memory, each with what is needed to read it."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from functools import cache

import psutil
import torch
from torch import Tensor

from . import datasets
from .classifier import Classifier
from .guards import check_count, check_images
from .pretrained import load_classifier, read_checkpoint

_BATCH = 250


@cache
def _mnist_classifier() -> Classifier:
    return load_classifier("mnist")


@torch.no_grad()
def _in_batches(function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Tensor:
    check_images(x, "the samples")
    return torch.cat([function(batch.to(device, torch.float32)).double().cpu() for batch in x.split(_BATCH)])


def features(x: Tensor, classifier: Classifier | None = None) -> Tensor:
    """What a classifier sees in images: its feature vectors, float64 [N, F] on the CPU.

    Args:
        x: images [N, C, H, W], pixels in [-1, 1].
        classifier: in evaluation mode; None takes the MNIST classifier that the course ships.
    """
    classifier = classifier or _mnist_classifier()
    return _in_batches(classifier.features, x, classifier.head.weight.device)


def conditional_accuracy(x: Tensor, labels: int | Tensor, classifier: Classifier | None = None) -> float:
    """The share of images, in 0..1, that a classifier judges to be what was asked for.

    Args:
        x: images [N, C, H, W], pixels in [-1, 1].
        labels: the class asked for, one for all or a LongTensor [N].
        classifier: as for `features`.

    Raises:
        ValueError: another number of labels than of images.
    """
    classifier = classifier or _mnist_classifier()
    labels = torch.as_tensor(labels).cpu()
    if labels.ndim > 0 and labels.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} images need {len(x)} labels, or one for all; there are {labels.numel()}")
    judged = _in_batches(classifier, x, classifier.head.weight.device).argmax(dim=1)
    return float((judged == labels).double().mean())


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """The Frechet distance between two sets of features, each summed up by its mean and covariance.

    |mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64. It is biased upwards, the more so the fewer
    samples there are: compare only distances of one n, and look at `noise_floor` for that n.

    Args:
        features_a, features_b: [N, F] and [M, F]; N and M at least 2.

    Raises:
        ValueError: another shape, fewer than two samples, NaN or infinity.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6.
    """
    a, b = torch.as_tensor(features_a).double(), torch.as_tensor(features_b).double()
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be [N, F] and [M, F] with one F, not {list(a.shape)} and {list(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least two samples; there are {len(a)} and {len(b)}")
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("the features hold NaN or infinity; look at the samples they were taken from")
    mean_gap = (a.mean(0) - b.mean(0)).square().sum()
    # C = R^T R with R from a QR of the centred features, and the eigenvalues of C_a C_b are the squared singular values
    # of R_a R_b^T: no matrix square root, and no trouble when n is smaller than F and the covariances have no inverse.
    R_a, R_b = (torch.linalg.qr(x - x.mean(0), mode="r").R / (len(x) - 1) ** 0.5 for x in (a, b))
    distance = mean_gap + R_a.square().sum() + R_b.square().sum() - 2 * torch.linalg.svdvals(R_a @ R_b.T).sum()
    return max(float(distance), 0.0)


def balanced_order(labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random order of samples in which the classes take turns: any stretch of it holds each about equally often.

    Args:
        labels: class of each sample, LongTensor [N].
        generator: source of the order.

    Returns:
        Indices, LongTensor [N]. Once the rarest class is used up, the others go on without it.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    of_class = labels[shuffled, None] == labels.unique()
    turn = (of_class.cumsum(0) * of_class).sum(1)
    return shuffled[turn.argsort(stable=True)]


def noise_floor(features: Tensor, n: int, splits: int = 10, generator: torch.Generator | None = None, *,
                labels: Tensor | None = None) -> tuple[float, float]:
    """The Frechet distance that n against n *real* samples have: no sampler can be told from perfect below it.

    Args:
        features: real features [N, F], N at least 2 n.
        n: samples on each side.
        splits: random pairs of disjoint sets of n to try. They are drawn from all of N: the first and the second half of
            a data set may differ more than by chance (MNIST's test set: other writers).
        generator: source of the splits.
        labels: classes [N]. With them both sides hold each class equally often: the floor for samples whose classes were
            chosen so. It is lower than that of random sides, which also differ in how often each class was met.

    Returns:
        Mean and standard deviation over the splits (the deviation is 0 for a single one).

    Raises:
        ValueError: n below 2 or above N / 2, splits below 1.
    """
    check_count(splits, "splits")
    check_count(n, "n")
    if 2 * n > len(features):
        raise ValueError(f"two disjoint sets of {n} need {2 * n} samples; there are {len(features)}")
    distances = []
    for _ in range(splits):
        pick = torch.randperm(len(features), generator=generator) if labels is None else balanced_order(labels, generator)
        distances.append(frechet_distance(features[pick[:n]], features[pick[n:2 * n]]))
    return float(torch.tensor(distances).mean()), float(torch.tensor(distances).std(correction=0))


@cache
def real_features(data: str = "mnist") -> tuple[Tensor, Tensor]:
    """Features of a data set's 10,000 test images, float64 [N, F], by its shipped classifier, and their labels [N].

    MNIST's are computed once, which takes some seconds. CIFAR-10's are shipped, since its images are not.

    Raises:
        ValueError: no such data set, or a file that differs from its checksum.
    """
    if data == "mnist":
        images, labels = datasets.mnist("test")
        return features(images), labels
    tensors = read_checkpoint(f"{data}-features-real")[1]
    return tensors["features"].double(), tensors["labels"].long()


def reference_features(name: str) -> Tensor:
    """Features of digits to compare samples with, float64 [N, F].

    Args:
        name: "real", as `real_features` gives them; or "ddpm-1000", of samples that DDPM made with the shipped UNet in all
            1,000 steps, with balanced labels (shipped: it takes too long in class).

    Raises:
        ValueError: another name, or a file that differs from its checksum.
    """
    if name == "real":
        return real_features("mnist")[0]
    if name == "ddpm-1000":
        return read_checkpoint("mnist-features-ddpm-1000")[1]["features"].double()
    raise ValueError(f'reference features are "real" or "ddpm-1000", not {name!r}')


def peak_memory(fn: Callable[[], object]) -> int:
    """How many bytes of memory a call needs at its peak, above what was in use before.

    Of a call that uses the GPU, this is what torch allocated there, exactly. Of another, it is the growth of the process's
    resident memory, looked at every millisecond: good to about a megabyte, and short peaks may be missed.

    Args:
        fn: called once, without arguments.
    """
    gc.collect()
    _return_freed_memory()
    on_gpu = 0
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        on_gpu = torch.cuda.memory_allocated()
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        fn()
        peak = max(peak, process.memory_info().rss)
    finally:
        done.set()
        watcher.join()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        on_gpu = torch.cuda.max_memory_allocated() - on_gpu
    return on_gpu or peak - before


def _return_freed_memory() -> None:
    """Hand freed memory back to the system, so that what an earlier call has left behind does not hide this one's need."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc: the figure is a little too small then
        pass
