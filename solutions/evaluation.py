"""Samples of the shipped networks, kept as they are made, what a classifier says of them, and how long calls take: shared by all labs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusionlab import metrics
from diffusionlab.pretrained import load_classifier, read_card
from diffusionlab.runtime import progress

BATCH, SPLITS = 125, 10
REAL_IMAGES = 10_000  # those of each data set's test


def balanced(n: int) -> Tensor:
    """n labels 0, 1, ..., 9, 0, 1, ...: each class equally often where n is a multiple of 10."""
    return torch.arange(n) % 10


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(cell: str, n: int, seed: int, make: Callable[[Tensor, torch.Generator], Tensor], data: str,
            device: str | torch.device) -> Tensor:
    """n conditional samples, each batch kept in a file as soon as `make(labels, generator)` has made it on the device."""
    # Network and device are in the folder's name: samples of another network are not taken for this one's, nor a CPU's for a GPU's.
    folder = Path("runs") / f"evaluate-{read_card(f'{data}-unet')['sha256'][:12]}-{torch.device(device).type}"
    folder.mkdir(parents=True, exist_ok=True)
    batches = []
    for start in progress(range(0, n, BATCH), cell):
        labels = balanced(n)[start:start + BATCH]
        path = folder / f"{cell}-seed{seed}-{start}-{len(labels)}.pt"  # the first of n samples are the same whatever n is
        if not path.exists():
            x = make(labels, seeded(seed * 100_000 + start)).cpu()
            torch.save(x, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        batches.append(torch.load(path, weights_only=True))
    return torch.cat(batches)


def judge(x: Tensor, data: str = "mnist") -> dict:
    """What the classifier says of samples with balanced labels: accuracy, and the Frechet distance to as many real ones.

    Raises:
        ValueError: more samples than real images.
    """
    (real, classes), classifier, n, generator = metrics.real_features(data), load_classifier(data), len(x), seeded(0)
    if n > len(real):
        raise ValueError(f"there are only {len(real)} real images to compare {n} samples with")
    ours = metrics.features(x, classifier)
    distances = torch.tensor([metrics.frechet_distance(ours, real[metrics.balanced_order(classes, generator)[:n]])
                              for _ in range(SPLITS)])
    pair = min(n, len(real) // 2)  # a floor needs two disjoint sets
    floor = metrics.noise_floor(real, pair, SPLITS, seeded(0), labels=classes)
    return {"n": n, "judged_as_asked": round(metrics.conditional_accuracy(x, balanced(n), classifier), 4),
            "frechet_to_real": [round(float(distances.mean()), 2), round(float(distances.std(correction=0)), 2)],
            "frechet_floor_real_to_real": [round(each, 2) for each in floor]} | ({"floor_n": pair} if pair < n else {})


def machine_in_words(device: str) -> str:
    """What kind of machine figures are from."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"a CPU with {os.cpu_count()} cores"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
