"""What every noise predictor of the course has in common, and how its calls are counted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

_open_counts: list[NetworkCalls] = []


@dataclass
class NetworkCalls:
    """The network calls seen by `count_calls`: one entry of `t` for each, the timesteps as they were passed."""

    t: list[Tensor] = field(default_factory=list)

    @property
    def nfe(self) -> int:
        """Number of function evaluations, one a call whatever the batch."""
        return len(self.t)

    @property
    def num_steps(self) -> int:
        """How many different timesteps were asked for; equal to `nfe` for DDPM and DDIM, smaller for Heun."""
        return len({int(t.reshape(-1)[0]) for t in self.t})


@contextmanager
def count_calls():
    """Count network calls: `with count_calls() as calls: sampler(shape)`, then `calls.nfe` and `calls.num_steps`.

    Sees every NoiseModel: the UNet, its conditioned forms, the analytic models. It costs a list entry a call.
    """
    calls = NetworkCalls()
    _open_counts.append(calls)
    try:
        yield calls
    finally:
        # By identity: two counts with equal contents are still two counts.
        _open_counts[:] = [each for each in _open_counts if each is not calls]


class NoiseModel(nn.Module):
    """Base of all noise predictors: `model(x_t, t) -> eps`, with x_t [B, *sample_shape] and t a LongTensor [B].

    Attributes:
        sample_shape: shape of one sample, without the batch.
        num_timesteps: T of the schedule it belongs to.
    """

    sample_shape: tuple[int, ...]
    num_timesteps: int

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are, so where samples are made."""
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def __call__(self, x: Tensor, t: Tensor, *args, **kwargs) -> Tensor:
        for calls in _open_counts:
            calls.t.append(t.clone())  # a sampler may fill one tensor anew for each call
        return super().__call__(x, t, *args, **kwargs)


class Recorder(NoiseModel):
    """Another model, with a record of every call: for tests and for the lab's checks.

    Args:
        model: any `model(x, t) -> eps`.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.sample_shape = getattr(model, "sample_shape", ())
        self.num_timesteps = getattr(model, "num_timesteps", 0)
        self.calls: list[dict] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The model's prediction for x [B, ...] at t [B]."""
        whole = isinstance(t, Tensor) and t.shape == x.shape[:1] and not t.is_floating_point()
        self.calls.append({"t": int(t[0]) if whole and bool((t == t[0]).all()) else -1, "batch": len(x),
                           "grad": torch.is_grad_enabled(), "training": self.training})
        # A noise model's forward, not its call: one call of this model is one network call.
        return (self.model.forward if isinstance(self.model, NoiseModel) else self.model)(x, t)

    def observed(self) -> dict:
        """Arrays over the calls: `t` (-1 where it was not a LongTensor [B] of one value), `batch`, `grad`, `training`."""
        return {key: np.array([each[key] for each in self.calls]) for key in ("t", "batch", "grad", "training")}
