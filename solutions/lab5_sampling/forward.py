import torch
from torch import Tensor

from diffusionlab import NoiseSchedule, plots
from diffusionlab.guards import check_images, check_same_shape
from diffusionlab.runtime import standard_normal_like
from diffusionlab.schedule import coefficient


class ForwardProcessImpl:
    """The forward process: how the noisy images that the model was trained on were made.

    Args:
        schedule: the NoiseSchedule, with float64 tables [T].

    Source: Ho et al. 2020, eq. 4.
    """

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule

    def add_noise(self, x_start: Tensor, t: int | Tensor, noise: Tensor | None = None) -> Tensor:
        """Jump from clean data straight to noise level t: x_t = sqrt(A_t) x_0 + sqrt(1 - A_t) eps.

        Args:
            x_start: clean data x_0 [B, ...], pixels in [-1, 1].
            t: an int for the whole batch, or a LongTensor [B], one for each sample; in 0..T-1.
            noise: eps, shaped like x_start; None draws it from N(0, I).

        Returns:
            x_t, with the shape and dtype of x_start.

        Raises:
            ValueError: integer images, a t out of range or of the wrong length, noise of another shape.
        """
        ### BEGIN SOLUTION
        check_images(x_start, "x_start")
        noise = standard_normal_like(x_start) if noise is None else noise
        check_same_shape(x_start, noise, "x_start and noise")
        A_t = coefficient(self.schedule.alphas_cumprod, t, x_start)
        x_t = A_t**0.5 * x_start + (1 - A_t) ** 0.5 * noise
        return x_t.to(x_start.dtype)
        ### END SOLUTION

    def demonstrate_forward_trajectory(self, x_start: Tensor, timesteps: list[int]) -> Tensor:
        """Follow one draw of noise through several noise levels, and draw the pictures.

        Args:
            x_start: clean data [B, ...], pixels in [-1, 1].
            timesteps: K ints in 0..T-1, in any order.

        Returns:
            x_t for each of the timesteps, [K, B, ...]; all K share the same noise.
        """
        ### BEGIN SOLUTION
        noise = standard_normal_like(x_start)
        trajectory = torch.stack([self.add_noise(x_start, t, noise) for t in timesteps])
        ### END SOLUTION
        plots.forward_trajectory(trajectory, timesteps)
        return trajectory
