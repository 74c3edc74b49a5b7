"""Load the networks that the course ships, and write them after training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .classifier import Classifier
from .datasets import CLASSES
from .folders import data_dir
from .schedule import NoiseSchedule
from .unet import UNet


def default_device() -> torch.device:
    """CUDA where there is a GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_pretrained(name: str = "mnist", device: str | torch.device | None = None) -> UNet:
    """The pretrained UNet for a data set, ready for sampling: evaluation mode, no gradients.

    Args:
        name: "mnist" or "cifar10".
        device: where to put it; None takes CUDA where there is a GPU, else the CPU.

    Raises:
        ValueError: no such model, or a file that differs from its checksum.
    """
    config, weights = read_checkpoint(f"{name}-unet")
    model = UNet(NoiseSchedule.linear(), **config)
    model.class_names = CLASSES.get(name, model.class_names)
    return _ready(model, weights, device)


def load_classifier(name: str = "mnist", device: str | torch.device | None = None) -> Classifier:
    """The pretrained classifier for a data set; arguments and errors as for `load_pretrained`."""
    config, weights = read_checkpoint(f"{name}-classifier")
    return _ready(Classifier(**config), weights, device)


def _ready(model: nn.Module, weights: dict, device) -> nn.Module:
    model.load_state_dict(weights)
    return model.to(device or default_device(), memory_format=torch.channels_last).eval().requires_grad_(False)


def checkpoint_path(name: str) -> Path:
    """Where the tensors called `name` are, or will be; the model card lies beside them, as .json."""
    return data_dir() / "checkpoints" / f"{name}.safetensors"


def read_card(name: str) -> dict:
    """The model card of a checkpoint; raises ValueError where there is none."""
    path = checkpoint_path(name).with_suffix(".json")
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.json"))
        raise ValueError(f"there is no checkpoint {name!r}; there are: {', '.join(found) or 'none'}")
    return json.loads(path.read_text())


def write_card(card: dict) -> Path:
    """Write a model card beside the checkpoint that it names; returns its path."""
    path = checkpoint_path(card["name"]).with_suffix(".json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(card, indent=1) + "\n")
    return path


def read_checkpoint(name: str) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the float32 tensors of data/checkpoints/<name>.safetensors, checksum verified."""
    card, path = read_card(name), checkpoint_path(name)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(f"{path.name} is missing or differs from the checksum in its model card; "
                         "fetch the course's data folder again")
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    return config, {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def write_checkpoint(tensors: dict[str, Tensor], config: dict, card: dict) -> Path:
    """Write data/checkpoints/<card["name"]>.safetensors and its card, which gets the file's SHA-256; returns the path."""
    path = checkpoint_path(card["name"])
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path, metadata={"config": json.dumps(config)})
    write_card({**card, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    return path


def save_checkpoint(model: UNet | Classifier, card: dict, dtype: torch.dtype = torch.float32) -> Path:
    """Write a model's weights and its card (see `write_checkpoint`), floating-point weights as dtype; returns the path."""
    weights = {key: value.to(dtype) if value.is_floating_point() else value for key, value in model.state_dict().items()}
    return write_checkpoint(weights, model.config, card)
