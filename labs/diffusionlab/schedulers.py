"""The bridge to diffusers: our models behind its schedulers, and its schedulers where a solver of this course is expected.

diffusers is imported on first use. A scheduler is configured by its own options; what each of them means is in diffusers'
documentation and, measured, in Lab 6.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .levels import Callback, Denoise, log_snr, signal_noise
from .noise_model import NoiseModel
from .schedule import NoiseSchedule

SCHEDULERS = ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler")


def make_scheduler(name: str, schedule: NoiseSchedule, **options):
    """A scheduler of diffusers over our noise schedule.

    Args:
        name: one of SCHEDULERS.
        schedule: the schedule that the model was trained with. The scheduler gets its float64 table; its own would be
            float32.
        options: diffusers' options for that scheduler, such as `timestep_spacing="trailing"`.

    Raises:
        ValueError: another name, or an option that this scheduler does not know.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"the scheduler must be one of {', '.join(SCHEDULERS)}; not {name!r}")
    try:
        import diffusers
    except ImportError:
        raise ValueError("diffusers is not installed here; `pip install diffusers` makes this work") from None
    kind = getattr(diffusers, name)
    if unknown := sorted(set(options) - set(kind().config)):
        raise ValueError(f"{name} has no option {unknown[0]!r}")
    scheduler = kind(num_train_timesteps=schedule.num_timesteps, trained_betas=schedule.betas.numpy(), **options)
    scheduler.alphas_cumprod = schedule.alphas_cumprod.clone()
    if hasattr(scheduler, "final_alpha_cumprod"):
        ends_clean = scheduler.config.set_alpha_to_one
        scheduler.final_alpha_cumprod = torch.tensor(1.0) if ends_clean else scheduler.alphas_cumprod[0]
    return scheduler


def scheduler_steps(scheduler, num_steps: int) -> list[int]:
    """The timesteps that a scheduler visits in num_steps steps, each once, from noise to data."""
    scheduler.set_timesteps(num_steps)
    return list(dict.fromkeys(round(float(t)) for t in scheduler.timesteps))


@torch.no_grad()
def solve_with_scheduler(scheduler, schedule: NoiseSchedule, denoise: Denoise, x: Tensor, num_steps: int, *,
                         callback: Callback | None = None) -> Tensor:
    """Sample with a scheduler of diffusers as with a solver of this course.

    Args:
        scheduler: from `make_scheduler`; its option prediction_type is "epsilon", and the noise is what it is given.
        schedule: the same schedule.
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at the first timestep that the scheduler visits, as our solvers take it.
        num_steps: steps to take.
        callback: called as `callback(i, lam, x, x0)` at every call of the model, i counting these; where it returns True, x0
            is returned.

    Returns:
        x at the end, with the shape and dtype of the x given.

    Raises:
        ValueError: a scheduler that expects something else than the noise.
    """
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(f'the scheduler\'s prediction_type must be "epsilon", not {scheduler.config.prediction_type!r}')
    scheduler.set_timesteps(num_steps)
    times = [round(float(t)) for t in scheduler.timesteps]
    scaled = "Heun" in type(scheduler).__name__  # it works on y = x / alpha, and wants to be asked how to scale it
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = _exact_sigmas(scheduler, schedule, times)
    alpha, _ = signal_noise(log_snr(schedule, times[0]))
    y = x / alpha if scaled else x
    for i, (t, theirs) in enumerate(zip(times, scheduler.timesteps)):
        lam = log_snr(schedule, t)
        alpha, sigma = signal_noise(lam)
        x_t = y * alpha if scaled else y
        x0 = denoise(x_t, lam)
        if callback is not None and callback(i, lam, x_t, x0):
            return x0
        eps = (x_t - alpha * x0) / sigma
        y = scheduler.step(eps, theirs, y).prev_sample
    return y.to(x.dtype)


def _exact_sigmas(scheduler, schedule: NoiseSchedule, times: list[int]) -> Tensor:
    """The scheduler's sigma / alpha in float64: the same rows of the table, but for what its options chose as the last."""
    A = schedule.alphas_cumprod
    exact = ((1 - A) / A).sqrt()
    sigmas = scheduler.sigmas.double().clone()
    if getattr(scheduler.config, "use_karras_sigmas", False):
        return sigmas  # these lie between the rows
    # Heun's list has each but the first and the last twice, as `times` has.
    sigmas[:len(times)] = exact[torch.tensor(times)] if len(sigmas) == len(times) + 1 else sigmas[:len(times)]
    if float(sigmas[-1]) > 0:
        sigmas[-1] = exact[0]
    return sigmas


class PipelineUNet(nn.Module):
    """A noise model in the form that diffusers' pipelines call: `unet(sample, timestep).sample`.

    Args:
        model: `model(x, t)`, with t a LongTensor [B], and `sample_shape` (C, H, W).
    """

    def __init__(self, model: NoiseModel):
        super().__init__()
        self.model = model
        channels, height, width = model.sample_shape
        self.config = SimpleNamespace(in_channels=channels, out_channels=channels, sample_size=(height, width))

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The samples' dtype."""
        return torch.float32

    @torch.no_grad()
    def forward(self, sample: Tensor, timestep, **options) -> SimpleNamespace:
        """The predicted noise as `.sample`, for x [B, C, H, W] at one timestep or [B] of them."""
        t = torch.as_tensor(timestep, device=sample.device).round().long().expand(len(sample))
        return SimpleNamespace(sample=self.model(sample, t))
