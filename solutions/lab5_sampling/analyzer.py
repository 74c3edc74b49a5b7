import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffusionlab import NoiseSchedule, plots
from diffusionlab.guards import check_count, check_images, check_same_shape
from diffusionlab.runtime import standard_normal_like

from .forward import ForwardProcessImpl


class TrainedModelAnalyzer:
    """How good is a trained model's noise prediction, and what is it worth at each noise level?

    Args:
        model: `model(x_t, t) -> eps`, with t a LongTensor [B].
        schedule: the NoiseSchedule it was trained with.
    """

    def __init__(self, model, schedule: NoiseSchedule):
        self.model, self.schedule = model, schedule
        if isinstance(model, torch.nn.Module):
            model.eval()
        self.forward_process = ForwardProcessImpl(schedule)

    @torch.no_grad()
    def analyze_noise_prediction_quality(self, x_clean: Tensor, timesteps: list[int], *, noise: Tensor | None = None,
                                         generator: torch.Generator | None = None) -> dict:
        """Measure the errors of the predicted noise and of the clean image it implies, at K noise levels.

        Args:
            x_clean: clean data [B, ...], pixels in [-1, 1].
            timesteps: K ints in 0..T-1.
            noise: the true noise, shaped like x_clean, used at every level; None draws it.
            generator: source of that draw.

        Returns:
            A dict. `timesteps`: the K ints. Float64 tensors [K]: `eps_mse`, the mean squared error of the noise; `x0_mse`, that
            of x_0 = (x_t - sqrt(1 - A_t) eps) / sqrt(A_t); `snr`, the signal-to-noise ratio A_t / (1 - A_t).

        Raises:
            ValueError: integer images, no timesteps or one out of range, noise or a prediction of another shape.
        """
        ### BEGIN SOLUTION
        check_images(x_clean, "x_clean")
        check_count(len(timesteps), "the number of timesteps")
        noise = standard_normal_like(x_clean, generator) if noise is None else noise
        eps_mse, x0_mse, snr = [], [], []
        for t in timesteps:
            x_t = self.forward_process.add_noise(x_clean, t, noise)
            A_t = float(self.schedule.alphas_cumprod[t])
            eps = self.model(x_t, torch.full((len(x_t),), t, device=x_t.device))
            check_same_shape(x_t, eps, "x_t and the model's prediction")
            x0 = (x_t - (1 - A_t) ** 0.5 * eps) / A_t**0.5
            eps_mse.append((eps - noise).double().square().mean().cpu())
            x0_mse.append((x0 - x_clean).double().square().mean().cpu())
            snr.append(A_t / (1 - A_t))
        return {"timesteps": [int(t) for t in timesteps], "eps_mse": torch.stack(eps_mse),
                "x0_mse": torch.stack(x0_mse), "snr": torch.tensor(snr, dtype=torch.float64)}
        ### END SOLUTION

    @torch.no_grad()
    def visualize_noise_predictions(self, x_clean: Tensor, timesteps: list[int]) -> Figure:
        """One row for each noise level: clean, noisy, true noise, predicted noise, and the x_0 that it implies.

        Args:
            x_clean: clean images [B, C, H, W]; the first is shown.
            timesteps: K ints in 0..T-1.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: no timesteps, or one out of range.
        """
        check_count(len(timesteps), "the number of timesteps")
        rows = []
        for t in timesteps:
            x, noise = x_clean[:1], standard_normal_like(x_clean[:1])
            A_t = float(self.schedule.alphas_cumprod[t])
            x_t = self.forward_process.add_noise(x, t, noise)
            eps = self.model(x_t, torch.full((1,), t, device=x.device))
            rows.append((x, x_t, noise, eps, (x_t - (1 - A_t) ** 0.5 * eps) / A_t**0.5))
        return plots.noise_predictions(rows, timesteps)
