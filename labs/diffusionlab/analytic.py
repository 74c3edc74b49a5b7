"""Models whose noise prediction is exact: no training, no error, so whatever is off is the sampler's doing."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from .levels import signal_noise
from .noise_model import NoiseModel
from .schedule import NoiseSchedule


class _Exact(NoiseModel):
    def __init__(self, schedule: NoiseSchedule, sample_shape):
        super().__init__()
        self.num_timesteps, self.sample_shape = schedule.num_timesteps, tuple(sample_shape)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x [B, ...] at timesteps t [B], computed in float64, in x's dtype."""
        A = self.alphas_cumprod[t].reshape(-1, *[1] * (x.ndim - 1))
        return self._eps(x, A.sqrt(), (1 - A).sqrt()).to(x.dtype)

    def denoise(self, x: Tensor, lam: float) -> Tensor:
        """The best guess at the clean data in x [B, ...] at any finite log-SNR, between the timesteps too; in x's dtype."""
        alpha, sigma = (torch.tensor(each, dtype=torch.float64, device=x.device) for each in signal_noise(lam))
        x64 = x.double()
        return ((x64 - sigma * self._eps(x64, alpha, sigma)) / alpha).to(x.dtype)

    def _eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The noise in x, in float64; alpha and sigma weigh signal and noise, each 0-d or [B, 1, ..., 1]."""
        raise NotImplementedError


class GaussianModel(_Exact):
    """The exact noise prediction for data x_0 ~ N(mean, std^2), each value on its own.

    x_t is then normal too, with mean sqrt(A_t) mean and variance A_t std^2 + 1 - A_t, and the best guess at the noise is
    linear: E[eps | x_t] = sqrt(1 - A_t) (x_t - sqrt(A_t) mean) / (A_t std^2 + 1 - A_t).

    Args:
        schedule: the noise schedule.
        mean: a number, or a tensor of the shape of one sample.
        std: likewise, each value at least 0; 0 is a single known x_0, for which the prediction is the *true* noise.
        sample_shape: shape of one sample.
    """

    def __init__(self, schedule: NoiseSchedule, mean=0.0, std=1.0, sample_shape=(1,)):
        super().__init__(schedule, sample_shape)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float64))

    def solution(self, x: Tensor, lam: float, lam_end: float) -> Tensor:
        """Where the deterministic path through x at log-SNR lam arrives at lam_end: each value keeps its place in the crowd."""
        (alpha, sigma), (alpha_end, sigma_end) = signal_noise(lam), signal_noise(lam_end)
        place = (x - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2).sqrt()
        return (alpha_end * self.mean + (alpha_end**2 * self.std**2 + sigma_end**2).sqrt() * place).to(x.dtype)

    def _eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma * (x - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)


class GaussianMixture(_Exact):
    """The exact noise prediction for data from a mixture of round Gaussians, in the plane or any R^d.

    Each component k stays Gaussian under the forward process: x_t ~ N(sqrt(A_t) mean_k, (A_t std_k^2 + 1 - A_t) I). The score is
    the mean of the components' scores, weighted by how likely each made x_t; eps = -sqrt(1 - A_t) score.

    Args:
        schedule: the noise schedule.
        means: [K, d].
        stds: a number or [K], positive.
        weights: [K], positive; None for equal ones. They are normalised.
    """

    def __init__(self, schedule: NoiseSchedule, means, stds=0.1, weights=None):
        means = torch.as_tensor(means, dtype=torch.float64)
        super().__init__(schedule, means.shape[1:])
        K = len(means)
        weights = torch.ones(K) if weights is None else torch.as_tensor(weights)
        self.register_buffer("means", means)
        self.register_buffer("stds", torch.as_tensor(stds, dtype=torch.float64).expand(K).clone())
        self.register_buffer("weights", weights.double() / weights.double().sum())

    @classmethod
    def ring(cls, schedule: NoiseSchedule, components: int = 8, radius: float = 1.0, std: float = 0.05) -> GaussianMixture:
        """Equal components on a circle, the usual picture of a distribution with many modes."""
        angles = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
        return cls(schedule, radius * torch.stack([angles.cos(), angles.sin()], dim=1), std)

    def sample_data(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw clean points [size, d] from the mixture itself, in float64 on the CPU."""
        k = torch.multinomial(self.weights.cpu(), size, replacement=True, generator=generator)
        z = torch.randn(size, self.means.shape[1], dtype=torch.float64, generator=generator)
        return self.means.cpu()[k] + self.stds.cpu()[k, None] * z

    def _eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        variance = alpha**2 * self.stds**2 + sigma**2                         # [B, K] or [K]
        offset = x[:, None, :] - alpha[..., None] * self.means                # [B, K, d]
        distance = offset.square().sum(-1) / variance
        log_likelihood = self.weights.log() - (distance + self.means.shape[1] * variance.log()) / 2
        share = log_likelihood.softmax(dim=1) / variance
        return sigma * (share[:, :, None] * offset).sum(1)


class SlowModel(_Exact):
    """Predicts no noise at all and takes a set time over it: for testing clocks and counters.

    Args:
        schedule: the noise schedule.
        seconds: how long each call takes, at least.
        sample_shape: shape of one sample.
    """

    def __init__(self, schedule: NoiseSchedule, seconds: float, sample_shape=(1,)):
        super().__init__(schedule, sample_shape)
        self.seconds = seconds

    def _eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return torch.zeros_like(x)
