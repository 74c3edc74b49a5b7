import torch
from torch import Tensor

from diffusionlab.guards import check_count, check_eta, check_finite, check_jump, check_sigma
from diffusionlab.runtime import progress, standard_normal_like, starting_noise

from .ddim import DDIMSampler
from .measure import sample_diversity


class StochasticityController:
    """The dial between deterministic DDIM (eta = 0) and stochastic DDPM (eta = 1).

    Args:
        ddim_sampler: the DDIMSampler to study; its model and schedule are used.

    Source: Song et al. 2021, eq. 16.
    """

    def __init__(self, ddim_sampler: DDIMSampler):
        self.ddim_sampler = ddim_sampler

    def compute_stochastic_variance(self, t: int, s: int, eta: float) -> Tensor:
        """The variance of the fresh noise on the way from t to s: eta^2 (1 - A_s) / (1 - A_t) (1 - A_t / A_s).

        Args:
            t: an int in 0..T-1.
            s: an int in -1..t-1; -1 is clean data, where A_s = 1 and the variance is 0.
            eta: a finite number, 0 or larger.

        Returns:
            sigma^2 (not sigma), float64, 0-d.

        Raises:
            ValueError: t or s out of range, s >= t, eta negative or not finite.
        """
        ### BEGIN SOLUTION
        schedule = self.ddim_sampler.schedule
        check_jump(t, s, schedule.num_timesteps)
        check_eta(eta)
        A = schedule.alphas_cumprod
        A_t, A_s = A[t], A[s] if s >= 0 else torch.ones((), dtype=torch.float64)
        return eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        ### END SOLUTION

    @torch.no_grad()
    def analyze_eta_effects(self, shape, eta_values: list[float], num_steps: int, *,
                            generator: torch.Generator | None = None) -> dict:
        """Sample with several eta from the same x_T and the same fresh noise, so that eta alone makes the difference.

        Args:
            shape: (B, ...), B at least 2; the samples for each eta.
            eta_values: E numbers, 0 or larger.
            num_steps: steps of the uniform schedule, in 1..T.
            generator: source of all draws.

        Returns:
            A dict. `eta_values`: the E numbers. `samples` [E, B, ...]. `diversity`: float64 [E], the mean pairwise distance of
            each eta's samples. `sigma`: float64 [E, num_steps], the standard deviation of the fresh noise at each step.

        Raises:
            ValueError: no eta, a bad eta or num_steps, an eta so large that nothing is left under the root, fewer than two
                samples, a model that returns NaN or infinity.
        """
        # One batch for all: E sets of B samples lie one after the other, [E * B, ...], and each step is one network call.
        ### BEGIN SOLUTION
        sampler, E = self.ddim_sampler, len(eta_values)
        check_count(E, "the number of eta values")
        for eta in eta_values:
            check_eta(eta)
        timesteps = sampler.create_timestep_schedule(num_steps).tolist()
        jumps = list(zip(timesteps, [*timesteps[1:], -1]))
        A_s = torch.cat([sampler.schedule.alphas_cumprod[timesteps[1:]], torch.ones(1, dtype=torch.float64)])
        sigma2 = torch.stack([torch.stack([self.compute_stochastic_variance(t, s, eta) for t, s in jumps]) for eta in eta_values])
        check_sigma(sigma2, A_s)
        x_T = starting_noise(shape, None, sampler.model, generator)
        if len(x_T) < 2:
            raise ValueError("diversity needs at least two samples to compare")
        ones = [1] * (x_T.ndim - 1)

        def for_each_sample(table: Tensor) -> Tensor:
            """[E, num_steps] or [num_steps] -> [num_steps, E * B, 1, ..., 1], brought to the samples before the loop."""
            return table.expand(E, num_steps).T.repeat_interleave(len(x_T), dim=1).reshape(num_steps, -1, *ones).to(x_T)

        to_x0, to_eps, to_noise = map(for_each_sample, (A_s.sqrt(), (1 - A_s - sigma2).sqrt(), sigma2.sqrt()))
        x = x_T.repeat(E, *ones)
        for i, (t, s) in enumerate(progress(jumps, "eta study")):
            eps = sampler.model(x, torch.full((len(x),), t, device=x.device))
            x = to_x0[i] * sampler.predict_x0_from_eps(x, eps, t) + to_eps[i] * eps
            if s >= 0:
                x = x + to_noise[i] * standard_normal_like(x_T, generator).repeat(E, *ones)
        check_finite(x)
        samples = x.reshape(E, *x_T.shape)
        return {"eta_values": list(eta_values), "samples": samples, "sigma": sigma2.sqrt(),
                "diversity": torch.tensor([sample_diversity(each) for each in samples], dtype=torch.float64)}
        ### END SOLUTION
