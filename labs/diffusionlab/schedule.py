"""The noise schedule: how much signal and how much noise x_t holds at each timestep t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .guards import check_timestep


# Compared and hashed by identity, so that a schedule can be a dictionary's key.
@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The float64 tables of a discrete diffusion process, each of shape [T], on the CPU.

    Make one with `NoiseSchedule.linear()`, `.cosine()` or `.scaled_linear()`, or from your own betas with
    `NoiseSchedule.from_betas(betas)`. Timesteps run over 0..T-1; clean data has no row of its own: it is written
    s = -1, and there alpha_bar is 1.

    Attributes:
        betas: beta_t, the share of variance that step t replaces by noise; in (0, 1).
        alphas: alpha_t = 1 - beta_t.
        alphas_cumprod: alpha_bar_t, the product of alpha_0..alpha_t; falls from nearly 1 to nearly 0.

    Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", section 2.
    """

    betas: Tensor
    alphas: Tensor
    alphas_cumprod: Tensor

    @property
    def num_timesteps(self) -> int:
        """T, the number of noise levels."""
        return len(self.betas)

    @classmethod
    def from_betas(cls, betas) -> NoiseSchedule:
        """Build the tables from betas [T], each strictly between 0 and 1; raises ValueError otherwise."""
        betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu").clone()
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas must be a non-empty list of numbers, not of shape {list(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("every beta must lie strictly between 0 and 1")
        alphas = 1 - betas
        return cls(betas, alphas, alphas.cumprod(0))

    @classmethod
    def linear(cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
        """Betas in equal steps from beta_start to beta_end (Ho et al. 2020)."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> NoiseSchedule:
        """The square roots of the betas in equal steps (Rombach et al. 2022, latent diffusion)."""
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_timesteps, dtype=torch.float64)
        return cls.from_betas(roots**2)

    @classmethod
    def cosine(cls, num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
        """alpha_bar along a squared cosine, betas capped at max_beta (Nichol and Dhariwal 2021, eq. 17)."""
        u = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        alpha_bar = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


class CountedSchedule(NoiseSchedule):
    """A schedule that counts how often one of its tables is taken from it: for the lab's checks."""

    def __getattribute__(self, name: str):
        if name in ("betas", "alphas", "alphas_cumprod"):
            self.__dict__["taken"] = self.__dict__.get("taken", 0) + 1  # frozen: not by assignment
        return super().__getattribute__(name)

    @property
    def num_timesteps(self) -> int:
        """T; to ask for it takes no table."""
        return len(self.__dict__["betas"])

    def taken_after(self, *results) -> int:
        """How often, once `results` were worked out: an expression among whose arguments they are comes after them."""
        return self.__dict__.get("taken", 0)


def coefficient(table: Tensor, t: int | Tensor, x: Tensor) -> float | Tensor:
    """Take table[t] in a form that multiplies x: one number for all, or one for each sample of the batch.

    Args:
        table: float64 table [T] on the CPU.
        t: an int in 0..T-1, or a LongTensor [B] of such.
        x: the batch [B, ...] that the coefficient will multiply.

    Returns:
        A Python float for an int t. For a tensor, float64 on x's device, of shape [B, 1, ..., 1]: the trailing ones
        matter, for a plain [B] would be lined up with the *last* axis of x, silently so where B equals the width.
        Cast what you compute from it back to x's dtype at the end, not before: 1 - A_0 = 0.0001 loses four digits in float32.

    Raises:
        ValueError: t outside 0..T-1, a tensor t that does not hold whole numbers, or whose length is not B.
    """
    if not isinstance(t, Tensor):
        check_timestep(t, len(table))
        return float(table[t])
    if t.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"timesteps must be whole numbers, a LongTensor, not {str(t.dtype).removeprefix('torch.')}")
    if t.shape != x.shape[:1]:
        raise ValueError(f"t has shape {list(t.shape)}; a batch of {len(x)} needs one timestep each, shape [{len(x)}]")
    # On a GPU this look would stall the loop; out of range there ends in a device error instead.
    if t.device.type == "cpu" and not bool(((t >= 0) & (t < len(table))).all()):
        raise ValueError(f"each timestep must lie in 0..{len(table) - 1}; the batch holds {int(t.min())} to {int(t.max())}")
    return table.to(x.device)[t.to(x.device)].reshape(-1, *[1] * (x.ndim - 1))
