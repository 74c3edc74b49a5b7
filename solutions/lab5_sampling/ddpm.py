import torch
from torch import Tensor

from diffusionlab import NoiseSchedule
from diffusionlab.guards import check_finite, check_images, check_same_shape, check_timestep
from diffusionlab.runtime import progress, standard_normal_like, starting_noise
from diffusionlab.schedule import coefficient


class DDPMSampler:
    """Ancestral sampling: walk back through every noise level, adding a little fresh noise at each.

    Args:
        model: `model(x_t, t) -> eps`, with t a LongTensor [B].
        schedule: the NoiseSchedule it was trained with.

    Source: Ho et al. 2020, algorithm 2 and eq. 6, 7, 11.
    """

    def __init__(self, model, schedule: NoiseSchedule):
        self.model, self.schedule = model, schedule
        if isinstance(model, torch.nn.Module):
            model.eval()

    def compute_posterior_mean(self, x_t: Tensor, t: int | Tensor, predicted_noise: Tensor) -> Tensor:
        """The mean of x_{t-1}: (x_t - (1 - a_t) / sqrt(1 - A_t) eps) / sqrt(a_t).

        Args:
            x_t: noisy data [B, ...].
            t: an int for the whole batch, or a LongTensor [B]; in 0..T-1.
            predicted_noise: eps, shaped like x_t.

        Returns:
            The mean, with the shape and dtype of x_t.

        Raises:
            ValueError: integer images, a t out of range or of the wrong length, predicted_noise of another shape.
        """
        ### BEGIN SOLUTION
        check_images(x_t, "x_t")
        check_same_shape(x_t, predicted_noise, "x_t and predicted_noise")
        a_t = coefficient(self.schedule.alphas, t, x_t)
        A_t = coefficient(self.schedule.alphas_cumprod, t, x_t)
        mean = (x_t - (1 - a_t) / (1 - A_t) ** 0.5 * predicted_noise) / a_t**0.5
        return mean.to(x_t.dtype)
        ### END SOLUTION

    def compute_posterior_variance(self, t: int | Tensor) -> Tensor:
        """The variance of x_{t-1} given x_t and x_0: beta_t (1 - A_{t-1}) / (1 - A_t), with A_{-1} = 1.

        Args:
            t: an int, or a LongTensor [B]; in 0..T-1.

        Returns:
            Float64, 0-d for an int and [B] for a tensor; 0 at t = 0.

        Raises:
            ValueError: a timestep out of range.
        """
        ### BEGIN SOLUTION
        index = torch.as_tensor(t, device="cpu")
        for each in index.reshape(-1).tolist():
            check_timestep(each, self.schedule.num_timesteps)
        A = self.schedule.alphas_cumprod
        # Index t - 1 wraps around to the end of the table at t = 0; clean data has A = 1.
        A_prev = torch.where(index > 0, A[index - 1], 1.0)
        return self.schedule.betas[index] * (1 - A_prev) / (1 - A[index])
        ### END SOLUTION

    @torch.no_grad()
    def ddpm_step(self, x_t: Tensor, t: int, *, noise: Tensor | None = None,
                  generator: torch.Generator | None = None) -> Tensor:
        """One step from x_t to x_{t-1}: predict the noise, take the posterior mean, add posterior noise.

        Args:
            x_t: noisy data [B, ...].
            t: an int in 0..T-1; the model gets it as a LongTensor [B].
            noise: the fresh noise, shaped like x_t; None draws it from N(0, I).
            generator: source of that draw.

        Returns:
            x_{t-1}, with the shape and dtype of x_t. At t = 0 nothing is added: the mean is the clean sample.

        Raises:
            ValueError: integer images, a t out of range, noise of another shape.
        """
        ### BEGIN SOLUTION
        check_images(x_t, "x_t")
        check_timestep(t, self.schedule.num_timesteps)
        if noise is not None:
            check_same_shape(x_t, noise, "x_t and noise")
        predicted_noise = self.model(x_t, torch.full((len(x_t),), t, device=x_t.device))
        mean = self.compute_posterior_mean(x_t, t, predicted_noise)
        if t == 0:
            return mean
        noise = standard_normal_like(x_t, generator) if noise is None else noise
        x_prev = mean + float(self.compute_posterior_variance(t)) ** 0.5 * noise
        return x_prev.to(x_t.dtype)
        ### END SOLUTION

    @torch.no_grad()
    def sample(self, shape, return_trajectory: bool = False, *, x_T: Tensor | None = None,
               generator: torch.Generator | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """From pure noise to data, through all T steps.

        Args:
            shape: (B, ...), what to make.
            return_trajectory: whether to return every x_t on the way as well.
            x_T: the noise to start from, of that shape; None draws it.
            generator: source of all draws.

        Returns:
            x, or (x, trajectory) with the trajectory [T+1, B, ...], x_T first and x last.

        Raises:
            ValueError: a shape that disagrees with x_T, or a model that returns NaN or infinity.
        """
        ### BEGIN SOLUTION
        x = starting_noise(shape, x_T, self.model, generator)
        trajectory = [x]
        for t in progress(range(self.schedule.num_timesteps - 1, -1, -1), "DDPM"):
            x = self.ddpm_step(x, t, generator=generator)
            if return_trajectory:
                trajectory.append(x)
        check_finite(x)
        return (x, torch.stack(trajectory)) if return_trajectory else x
        ### END SOLUTION
