import torch
from torch import Tensor

from diffusionlab import NoiseSchedule
from diffusionlab.guards import (check_eta, check_finite, check_images, check_jump, check_num_steps, check_same_shape,
                                 check_sigma, check_timesteps)
from diffusionlab.runtime import progress, standard_normal_like, starting_noise
from diffusionlab.schedule import coefficient


class DDIMSampler:
    """Implicit sampling: guess the clean image, then jump straight to any lower noise level.

    Args:
        model: `model(x_t, t) -> eps`, with t a LongTensor [B].
        schedule: the NoiseSchedule it was trained with.

    Source: Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 9, 12, 16.
    """

    def __init__(self, model, schedule: NoiseSchedule):
        self.model, self.schedule = model, schedule
        if isinstance(model, torch.nn.Module):
            model.eval()

    def predict_x0_from_eps(self, x_t: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        """The clean image that a noise prediction implies: (x_t - sqrt(1 - A_t) eps) / sqrt(A_t).

        Args:
            x_t: noisy data [B, ...].
            eps: the noise in it, shaped like x_t.
            t: an int for the whole batch, or a LongTensor [B]; in 0..T-1.

        Returns:
            x_0, with the shape and dtype of x_t.

        Raises:
            ValueError: integer images, a t out of range or of the wrong length, eps of another shape.
        """
        ### BEGIN SOLUTION
        check_images(x_t, "x_t")
        check_same_shape(x_t, eps, "x_t and eps")
        A_t = coefficient(self.schedule.alphas_cumprod, t, x_t)
        x0 = (x_t - (1 - A_t) ** 0.5 * eps) / A_t**0.5
        return x0.to(x_t.dtype)
        ### END SOLUTION

    @torch.no_grad()
    def ddim_step(self, x_t: Tensor, t: int, s: int, eta: float = 0.0, *, noise: Tensor | None = None,
                  generator: torch.Generator | None = None) -> Tensor:
        """One jump from x_t to x_s: sqrt(A_s) x_0 + sqrt(1 - A_s - sigma^2) eps + sigma z.

        Args:
            x_t: noisy data [B, ...].
            t: an int in 0..T-1.
            s: an int in -1..t-1; -1 is clean data, where A_s = 1.
            eta: 0 is deterministic, 1 is DDPM on this pair of timesteps;
                sigma^2 = eta^2 (1 - A_s) / (1 - A_t) (1 - A_t / A_s).
            noise: z, shaped like x_t; None draws it from N(0, I) where sigma is not 0.
            generator: source of that draw.

        Returns:
            x_s, with the shape and dtype of x_t.

        Raises:
            ValueError: integer images, t or s out of range, s >= t, noise of another shape, eta negative, not finite, or so
                large that sigma^2 exceeds 1 - A_s.
        """
        ### BEGIN SOLUTION
        check_images(x_t, "x_t")
        check_jump(t, s, self.schedule.num_timesteps)
        check_eta(eta)
        if noise is not None:
            check_same_shape(x_t, noise, "x_t and noise")
        A = self.schedule.alphas_cumprod
        A_t, A_s = float(A[t]), 1.0 if s == -1 else float(A[s])
        sigma2 = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        check_sigma(sigma2, A_s)
        eps = self.model(x_t, torch.full((len(x_t),), t, device=x_t.device))
        x0 = self.predict_x0_from_eps(x_t, eps, t)
        x_s = A_s**0.5 * x0 + (1 - A_s - sigma2) ** 0.5 * eps
        if sigma2 > 0:
            noise = standard_normal_like(x_t, generator) if noise is None else noise
            x_s = x_s + sigma2**0.5 * noise
        return x_s.to(x_t.dtype)
        ### END SOLUTION

    def create_timestep_schedule(self, num_steps: int, schedule_type: str = "uniform") -> Tensor:
        """Which timesteps to visit, from noise to data.

        Args:
            num_steps: n, a whole number in 1..T.
            schedule_type: "uniform": round(linspace(T-1, 0, n)), T-1 alone for n = 1. "trailing": round(T - i T/n) - 1
                for i = 0..n-1 (Lin et al. 2023). "quadratic": dense near clean data; rising, it is
                max(i, round((T-1) (i/(n-1))^2)), and T-1 alone for n = 1.

        Returns:
            LongTensor [n], strictly falling, all in 0..T-1. The last jump, to s = -1, is implied and not listed.

        Raises:
            ValueError: num_steps not whole or not in 1..T, or an unknown schedule_type.
        """
        ### BEGIN SOLUTION
        T, n = self.schedule.num_timesteps, num_steps
        check_num_steps(n, T)
        i = torch.arange(n, dtype=torch.float64)
        if schedule_type == "uniform":
            return torch.linspace(T - 1, 0, n, dtype=torch.float64).round().long()
        if schedule_type == "trailing":
            return (T - i * T / n).round().long() - 1
        if schedule_type == "quadratic":
            if n == 1:
                return torch.tensor([T - 1])
            return torch.maximum(i, ((T - 1) * (i / (n - 1)) ** 2).round()).long().flip(0)
        raise ValueError(f'schedule_type must be "uniform", "trailing" or "quadratic", not {schedule_type!r}')
        ### END SOLUTION

    @torch.no_grad()
    def sample(self, shape, timesteps=None, eta: float = 0.0, return_trajectory: bool = False, *,
               x_T: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """From pure noise to data along a schedule of your choice, then to s = -1.

        Args:
            shape: (B, ...), what to make.
            timesteps: None for 50 uniform steps (all T where T is smaller), a number of uniform steps, or the timesteps themselves, strictly falling.
            eta: 0 is deterministic, 1 is DDPM on the schedule.
            return_trajectory: whether to return every x on the way as well.
            x_T: the noise to start from, of that shape; None draws it.
            generator: source of all draws.

        Returns:
            x, or (x, trajectory) with the trajectory [len(timesteps)+1, B, ...], x_T first and x last.

        Raises:
            ValueError: bad timesteps or eta, a shape that disagrees with x_T, a model that returns NaN or infinity.
        """
        ### BEGIN SOLUTION
        T = self.schedule.num_timesteps
        if timesteps is None:
            timesteps = min(50, T)
        if isinstance(timesteps, Tensor):
            timesteps = timesteps.tolist()
        if not isinstance(timesteps, (list, tuple, range)):
            timesteps = self.create_timestep_schedule(timesteps).tolist()
        steps = list(timesteps)
        check_timesteps(steps, T)
        check_eta(eta)
        x = starting_noise(shape, x_T, self.model, generator)
        trajectory = [x]
        for t, s in progress(list(zip(steps, [*steps[1:], -1])), "DDIM"):
            x = self.ddim_step(x, t, s, eta, generator=generator)
            if return_trajectory:
                trajectory.append(x)
        check_finite(x)
        return (x, torch.stack(trajectory)) if return_trajectory else x
        ### END SOLUTION
