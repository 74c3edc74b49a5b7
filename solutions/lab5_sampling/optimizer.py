import torch
from torch import Tensor

from diffusionlab.guards import check_count, check_eta, check_finite, check_num_steps, check_same_shape, check_shape, check_sigma
from diffusionlab.runtime import progress, standard_normal, standard_normal_like, starting_noise

from .ddim import DDIMSampler


class SamplingOptimizer:
    """What a sampler needs in production: nothing computed twice, and batches that fit into memory.

    Args:
        ddim_sampler: the DDIMSampler to build on.
    """

    def __init__(self, ddim_sampler: DDIMSampler):
        self.ddim_sampler = ddim_sampler
        self.cache = {}

    @torch.no_grad()
    def cached_noise_schedule_sampling(self, ddim_sampler: DDIMSampler, shape, num_steps: int, *, eta: float = 0.0,
                                       x_T: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Sample like `ddim_sampler.sample`, with every coefficient computed once and kept for the next call.

        A step is linear in x_t, eps and z, so three numbers a step are all there is to know:
        x_s = c_x x_t + c_eps eps + sigma z, with c_x = sqrt(A_s / A_t) and
        c_eps = sqrt(1 - A_s - sigma^2) - sqrt(A_s (1 - A_t) / A_t).

        Args:
            ddim_sampler: whose model and schedule are used.
            shape: (B, ...), what to make.
            num_steps: steps of the uniform schedule, in 1..T.
            eta, x_T, generator: as for `DDIMSampler.sample`.

        Returns:
            x, equal to the plain sampler's up to rounding.

        Raises:
            ValueError: as `DDIMSampler.sample`.
        """
        ### BEGIN SOLUTION
        check_num_steps(num_steps, ddim_sampler.schedule.num_timesteps)  # before it is a key: 50.0 and 50 are one key
        check_eta(eta)
        key = (ddim_sampler.schedule, num_steps, eta)
        if key not in self.cache:
            t = ddim_sampler.create_timestep_schedule(num_steps)
            A = ddim_sampler.schedule.alphas_cumprod
            A_t, A_s = A[t], torch.cat([A[t[1:]], torch.ones(1, dtype=torch.float64)])
            sigma2 = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
            check_sigma(sigma2, A_s)
            c_eps = (1 - A_s - sigma2).sqrt() - (A_s * (1 - A_t) / A_t).sqrt()
            # Python floats: a coefficient on the device would have to be waited for at every step.
            self.cache[key] = list(zip(t.tolist(), (A_s / A_t).sqrt().tolist(), c_eps.tolist(), sigma2.sqrt().tolist()))
        x = starting_noise(shape, x_T, ddim_sampler.model, generator)
        for t, c_x, c_eps, sigma in progress(self.cache[key], "cached DDIM"):
            eps = ddim_sampler.model(x, torch.full((len(x),), t, device=x.device))
            check_same_shape(x, eps, "x and the model's prediction")
            x = (c_x * x + c_eps * eps).to(x.dtype)
            if sigma > 0:
                x = x + sigma * standard_normal_like(x, generator)
        check_finite(x)
        return x
        ### END SOLUTION

    def batch_sampling_with_memory_management(self, total_samples: int, batch_size: int, *, sample_shape=None,
                                              num_steps: int = 50, eta: float = 0.0,
                                              generator: torch.Generator | None = None) -> Tensor:
        """Make many samples a batch at a time; the device never holds more than one batch.

        Args:
            total_samples: how many in all, at least 1; need not be a multiple of batch_size.
            batch_size: how many at a time, at least 1.
            sample_shape: shape of one sample; None takes the model's `sample_shape`.
            num_steps, eta, generator: as for `DDIMSampler.sample`.

        Returns:
            A CPU tensor [total_samples, *sample_shape]. At eta = 0 it does not depend on batch_size.

        Raises:
            ValueError: a count that is not whole or below 1, and as `DDIMSampler.sample`.
        """
        ### BEGIN SOLUTION
        check_count(total_samples, "total_samples")
        check_count(batch_size, "batch_size")
        sampler = self.ddim_sampler
        sample_shape = getattr(sampler.model, "sample_shape", None) if sample_shape is None else sample_shape
        if sample_shape is None:
            raise ValueError("the model does not say what it makes; give sample_shape")
        check_shape((total_samples, *sample_shape))
        # All the starting noise in one draw: then the samples are the same however they are batched. It is overwritten in place.
        samples = standard_normal((total_samples, *sample_shape), device="cpu", generator=generator)
        for start in progress(range(0, total_samples, batch_size), "batches"):
            batch = samples[start:start + batch_size]
            batch.copy_(sampler.sample(batch.shape, num_steps, eta, x_T=batch, generator=generator))
        return samples
        ### END SOLUTION
