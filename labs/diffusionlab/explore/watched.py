"""A noise model under the eyes of a run: the student's sampler calls it, and every call may be the last."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..noise_model import NoiseModel
from .work import Run


class Watched(nn.Module):
    """Another model, whose calls can be stopped, counted and looked at.

    It is no NoiseModel, and calls the other's forward: what a panel does in the background is not counted among the calls
    that somebody else counts meanwhile.

    Args:
        model: a NoiseModel.
        run: checked before each call; told of progress.
        total: calls to come, for the progress.
        glimpse: called as `glimpse(x_t)` now and then, when the work takes long.
        done: calls that were made before.
    """

    def __init__(self, model: NoiseModel, run: Run, total: int,
                 glimpse: Callable[[Tensor], None] = lambda x: None, done: int = 0):
        super().__init__()
        self.model, self.run, self.total, self.glimpse, self.done = model, run, total, glimpse, done
        self.sample_shape, self.num_timesteps, self.device = model.sample_shape, model.num_timesteps, model.device
        self.calls: list[tuple[int, Tensor, Tensor]] = []  # t, and x_t and eps of the first sample
        self.glimpsed = time.monotonic() + 0.5  # work that is done in a second shows its result only

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The model's prediction for x [B, ...] at t [B]."""
        self.run.advance(self.done + len(self.calls), self.total)
        if (now := time.monotonic()) - self.glimpsed > 0.5:
            self.glimpsed = now
            self.glimpse(x)
        eps = self.model.forward(x, t)
        self.calls.append((int(t.reshape(-1)[0]), x[:1].clone(), eps[:1].clone()))  # a view would keep the whole batch
        return eps


class Ones(nn.Module):
    """Answers 1 to everything, so that a step shows what it multiplies the prediction by. No NoiseModel either."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Ones like x."""
        return torch.ones_like(x)
