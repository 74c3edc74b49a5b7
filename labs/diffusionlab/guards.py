"""Refusals in one clear sentence. A sampler in production meets bad input every day; these say what was wrong with it.

Each function returns nothing and raises ValueError where its sentence does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor


def check_images(x: Tensor, name: str = "x") -> None:
    """x is a floating-point tensor with a batch axis; uint8 pixels must be brought to [-1, 1] first."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a floating-point tensor with values around [-1, 1], not {kind}")
    if x.ndim < 2:
        raise ValueError(f"{name} needs a batch axis, [B, ...]; it has shape {list(x.shape)}")


def check_same_shape(x: Tensor, other: Tensor, names: str = "x and noise") -> None:
    """Both tensors have one shape, so that nothing is broadcast by accident."""
    if tuple(x.shape) != tuple(other.shape):
        raise ValueError(f"{names} must have the same shape, not {list(x.shape)} and {list(other.shape)}")


def check_shape(shape) -> None:
    """shape is a tuple or list of whole numbers (B, ...), each at least 1."""
    if not isinstance(shape, (tuple, list)) or len(shape) < 2 or not all(_is_whole(n) and n >= 1 for n in shape):
        raise ValueError(f"shape must be whole numbers (B, ...), each at least 1, not {_brief(shape)}")


def check_timestep(t: int, num_timesteps: int) -> None:
    """t is a whole number in 0..T-1."""
    if not _is_whole(t) or not 0 <= t < num_timesteps:
        raise ValueError(f"timestep t must be a whole number in 0..{num_timesteps - 1}, not {_brief(t)}")


def check_jump(t: int, s: int, num_timesteps: int) -> None:
    """A step leads down from t in 0..T-1 to s in -1..t-1, where -1 is clean data."""
    check_timestep(t, num_timesteps)
    if not _is_whole(s) or not -1 <= s < t:
        raise ValueError(f"a step from t = {t} must lead to a whole number s in -1..{t - 1}, not {_brief(s)}")


def check_eta(eta: float) -> None:
    """eta is a finite number, 0 or larger."""
    if not isinstance(eta, Real) or isinstance(eta, bool) or not math.isfinite(eta) or eta < 0:
        raise ValueError(f"eta must be a finite number, 0 or larger, not {_brief(eta)}")


def check_sigma(sigma2: float | Tensor, alpha_bar_s: float | Tensor) -> None:
    """The fresh noise fits into the noise that x_s may hold: sigma^2 <= 1 - A_s. Numbers, or tables that broadcast."""
    if bool(torch.as_tensor(sigma2 > 1 - alpha_bar_s).any()):
        raise ValueError("eta is too large for these steps: sigma^2 would exceed 1 - A_s, all the noise that x_s may hold")


def check_num_steps(num_steps: int, num_timesteps: int) -> None:
    """num_steps is a whole number in 1..T."""
    if not _is_whole(num_steps) or not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"num_steps must be a whole number in 1..{num_timesteps}, not {_brief(num_steps)}")


def check_timesteps(timesteps: Sequence[int], num_timesteps: int) -> None:
    """An explicit schedule: at least one timestep, whole numbers in 0..T-1, strictly falling."""
    if len(timesteps) == 0:
        raise ValueError("the list of timesteps is empty; give at least one")
    for t in timesteps:
        check_timestep(t, num_timesteps)
    for t, s in zip(timesteps, timesteps[1:]):
        if s >= t:
            raise ValueError(f"timesteps must fall strictly, from noise to data; {s} comes after {t}")


def check_count(count: int, name: str) -> None:
    """A count is a whole number, 1 or larger."""
    if not _is_whole(count) or count < 1:
        raise ValueError(f"{name} must be a whole number, 1 or larger, not {_brief(count)}")


NOT_FINITE = "the samples hold NaN or infinity; the model's prediction, or the formula, broke down on the way"


def check_finite(x: Tensor) -> None:
    """No NaN or infinity in a finished sample. Call it once at the end: on a GPU each look stalls the loop."""
    if x.is_cuda and (torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode() == 2):
        return  # recorded, or tried for it: nothing is to be waited for; whoever replays the recording looks (`runtime.captured`)
    if not bool(torch.isfinite(x).all()):
        raise ValueError(NOT_FINITE)


def _is_whole(number) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _brief(value) -> str:
    """The value in one short line: a refusal stays readable whatever was passed in."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
