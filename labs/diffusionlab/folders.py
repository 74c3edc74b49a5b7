"""Where the course's data lies. Needs no torch, so that the self-check loads quickly."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def data_dir() -> Path:
    """The course's data folder: the nearest `data/` beside or above this package that holds mnist.npz."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "data" / "mnist.npz").is_file():
            return parent / "data"
    raise FileNotFoundError("data/mnist.npz was not found above the diffusionlab package; "
                            "unpack the course again with its data folder")
