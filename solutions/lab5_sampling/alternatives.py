"""Right solutions of Lab 5 in other styles than the reference: none of them may lose a point.

Each is a subclass of the reference or a class of its own, registered with its style in words.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from diffusionlab import plots
from diffusionlab.guards import (check_count, check_eta, check_finite, check_images, check_jump, check_num_steps, check_same_shape,
                                 check_timesteps)
from diffusionlab.noise_model import count_calls
from solutions import lab5_sampling as lab
from solutions.questions import Alternatives

ALTERNATIVES = Alternatives()
alternative = ALTERNATIVES.alternative


def in_table(t, schedule) -> None:
    """Refuse a timestep that would be read from the table's other end, or from beyond it."""
    if not all(0 <= each < schedule.num_timesteps for each in torch.as_tensor(t).reshape(-1).tolist()):
        raise ValueError("there is no such timestep")


def column(values, x):
    """[B] -> [B, 1, ..., 1]."""
    return values.view(-1, *[1] * (x.ndim - 1))


def full_t(x, t):
    return torch.full((x.shape[0],), t, dtype=torch.long)


# ---------------------------------------------------------------------------------------------- the forward process


@alternative("float64 throughout, cast at the end")
class _(lab.ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        check_images(x_start)
        noise = torch.randn_like(x_start) if noise is None else noise
        A = self.schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x_start))]
        return (column(A.sqrt(), x_start) * x_start.double() + column((1 - A).sqrt(), x_start) * noise.double()).type_as(x_start)


@alternative("float32 tables made once, roots taken in float64")
class _(lab.ForwardProcessImpl):
    def __init__(self, schedule):
        super().__init__(schedule)
        self.signal, self.noise = schedule.alphas_cumprod.sqrt().float(), (1 - schedule.alphas_cumprod).sqrt().float()

    def add_noise(self, x_start, t, noise=None):
        if not torch.is_floating_point(x_start):
            raise ValueError("x_start must be floating point")
        z = noise if noise is not None else torch.randn(x_start.shape, dtype=x_start.dtype)
        t = torch.full((len(x_start),), t) if isinstance(t, int) else t
        return column(self.signal[t], x_start).to(x_start.dtype) * x_start + column(self.noise[t], x_start).to(x_start.dtype) * z


@alternative("float32 all the way, the roots too")
class _(lab.ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        check_images(x_start)
        z = noise if noise is not None else torch.randn_like(x_start)
        A = self.schedule.alphas_cumprod.float()[t]
        A = A if A.ndim == 0 else column(A, x_start)
        return (A.sqrt() * x_start + (1 - A).sqrt() * z).to(x_start.dtype)


@alternative("one sample after the other, and a trajectory by list comprehension")
class _(lab.ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        check_images(x_start)
        noise = torch.randn_like(x_start) if noise is None else noise
        ts = [t] * len(x_start) if isinstance(t, int) else t.tolist()
        A = [float(self.schedule.alphas_cumprod[each]) for each in ts]
        return torch.stack([math.sqrt(a) * x + math.sqrt(1 - a) * z for a, x, z in zip(A, x_start, noise)])

    def demonstrate_forward_trajectory(self, x_start, timesteps):
        z = torch.randn_like(x_start)
        stages = []
        for t in timesteps:
            stages.append(self.add_noise(x_start, t, noise=z)[None])
        result = torch.cat(stages)
        plots.forward_trajectory(result, timesteps)
        return result


@alternative("einsum")
class _(lab.ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        check_images(x_start)
        noise = torch.randn_like(x_start) if noise is None else noise
        A = self.schedule.alphas_cumprod[t if torch.is_tensor(t) else [t] * len(x_start)].to(x_start)
        return torch.einsum("b,b...->b...", A.sqrt(), x_start) + torch.einsum("b,b...->b...", (1 - A).sqrt(), noise)


@alternative("numpy inside")
class _(lab.ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        check_images(x_start)
        noise = torch.randn_like(x_start) if noise is None else noise
        A = self.schedule.alphas_cumprod.numpy()[np.asarray(t)].reshape(-1, *[1] * (x_start.ndim - 1))
        return torch.from_numpy(np.sqrt(A) * x_start.numpy() + np.sqrt(1 - A) * noise.numpy()).to(x_start.dtype)


# ---------------------------------------------------------------------------------------------- DDPM


@alternative("the mean from x_0 and x_t, as in eq. 7 of the paper")
class _(lab.DDPMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        t = torch.as_tensor(t).expand(len(x_t))
        b, a, A = (column(table[t], x_t) for table in (self.schedule.betas, self.schedule.alphas, self.schedule.alphas_cumprod))
        before = torch.where(column(t, x_t) > 0, A / a, 1.0)
        x0 = (x_t - (1 - A).sqrt() * predicted_noise) / A.sqrt()
        return (before.sqrt() * b / (1 - A) * x0 + a.sqrt() * (1 - before) / (1 - A) * x_t).to(x_t.dtype)


@alternative("betas derived again from alphas_cumprod, on its own subsequence")
class _(lab.DDPMSampler):
    def __init__(self, model, schedule):
        super().__init__(model, schedule)
        self.before = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alphas_cumprod[:-1]])
        self.b = 1 - schedule.alphas_cumprod / self.before

    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        b, A = (table[t].reshape(-1, *[1] * (x_t.ndim - 1)) for table in (self.b, self.schedule.alphas_cumprod))
        return ((x_t - b * predicted_noise / torch.sqrt(1 - A)) * torch.rsqrt(1 - b)).to(x_t.dtype)

    def compute_posterior_variance(self, t):
        in_table(t, self.schedule)
        return (self.b * (1 - self.before) / (1 - self.schedule.alphas_cumprod))[t]


@alternative("tables computed once, cast to float32")
class _(lab.DDPMSampler):
    def __init__(self, model, schedule):
        super().__init__(model, schedule)
        self.outer = schedule.alphas.rsqrt().float()
        self.inner = (schedule.betas / (1 - schedule.alphas_cumprod).sqrt()).float()

    def compute_posterior_mean(self, x_t, t, predicted_noise):
        if x_t.shape != predicted_noise.shape:
            raise ValueError("x_t and the predicted noise must have one shape")
        t = torch.as_tensor(t).expand(x_t.shape[0])
        return (column(self.outer[t], x_t) * (x_t - column(self.inner[t], x_t) * predicted_noise)).to(x_t.dtype)


@alternative("float32 tables and float32 arithmetic")
class _(lab.DDPMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        a, A = (table.float()[torch.as_tensor(t).expand(len(x_t))] for table in (self.schedule.alphas, self.schedule.alphas_cumprod))
        a, A = column(a, x_t), column(A, x_t)
        return ((x_t - (1 - a) / (1 - A).sqrt() * predicted_noise) / a.sqrt()).to(x_t.dtype)


@alternative("float32 cumprod of its own")
class _(lab.DDPMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        a = (1 - self.schedule.betas.float())
        A = torch.cumprod(a, dim=0)
        index = torch.as_tensor(t).expand(len(x_t))
        a, A = column(a[index], x_t), column(A[index], x_t)
        return (1 / a.sqrt() * (x_t - (1 - a) / (1 - A).sqrt() * predicted_noise)).to(x_t.dtype)


@alternative("in place, on copies of its own")
class _(lab.DDPMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        a, A = (column(table[torch.as_tensor(t).expand(len(x_t))], x_t) for table in (self.schedule.alphas, self.schedule.alphas_cumprod))
        mean = x_t.clone().double()
        mean -= (1 - a) / (1 - A).sqrt() * predicted_noise
        return mean.div_(a.sqrt()).to(x_t.dtype)


@alternative("numpy inside, variances by a list")
class _(lab.DDPMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        if tuple(x_t.shape) != tuple(predicted_noise.shape):
            raise ValueError("shapes disagree")
        a, A = (np.asarray(table)[np.asarray(t)].reshape(-1, *[1] * (x_t.ndim - 1)) for table in (self.schedule.alphas, self.schedule.alphas_cumprod))
        x, eps = x_t.numpy().astype(np.float64), predicted_noise.numpy().astype(np.float64)
        return torch.as_tensor((x - (1 - a) / np.sqrt(1 - A) * eps) / np.sqrt(a), dtype=x_t.dtype)

    def compute_posterior_variance(self, t):
        if torch.is_tensor(t) and t.ndim:
            return torch.stack([self.compute_posterior_variance(int(each)) for each in t])
        in_table(t, self.schedule)
        b, A = self.schedule.betas.tolist(), self.schedule.alphas_cumprod.tolist()
        return torch.tensor(b[t] * (1 - A[t - 1]) / (1 - A[t]) if t else 0.0, dtype=torch.float64)


@alternative("variance by logarithms")
class _(lab.DDPMSampler):
    def compute_posterior_variance(self, t):
        in_table(t, self.schedule)
        A = torch.cat([torch.ones(1).double(), self.schedule.alphas_cumprod])
        return torch.exp(self.schedule.betas[t].log() + torch.log1p(-A[t]) - torch.log1p(-A[torch.as_tensor(t) + 1]))


@alternative("variance by a table with a zero at the front")
class _(lab.DDPMSampler):
    def compute_posterior_variance(self, t):
        in_table(t, self.schedule)
        A, b = self.schedule.alphas_cumprod, self.schedule.betas
        table = torch.zeros_like(b)
        table[1:] = b[1:] * (1 - A[:-1]) / (1 - A[1:])
        return table[t].clone()


@alternative("variance by masked multiplication")
class _(lab.DDPMSampler):
    def compute_posterior_variance(self, t):
        in_table(t, self.schedule)
        t = torch.as_tensor(t)
        A = self.schedule.alphas_cumprod
        return (t > 0).double() * self.schedule.betas[t] * (1 - A[(t - 1).clamp(min=0)]) / (1 - A[t])


@alternative("inference_mode, and noise drawn even where it is not used")
class _(lab.DDPMSampler):
    @torch.inference_mode()
    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        z = noise if noise is not None else torch.empty_like(x_t).normal_(generator=generator)
        mean = self.compute_posterior_mean(x_t, t, self.model(x_t, full_t(x_t, t)))
        return mean + (t > 0) * self.compute_posterior_variance(t).sqrt().to(x_t.dtype) * z


@alternative("no_grad and inference_mode at once, in with-blocks")
class _(lab.DDPMSampler):
    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        with torch.no_grad(), torch.inference_mode():
            mu = self.compute_posterior_mean(x_t, t, self.model(x_t, torch.ones(len(x_t), dtype=torch.int64) * t))
            if t > 0:
                mu = mu + math.sqrt(self.compute_posterior_variance(t)) * (noise if noise is not None else torch.randn(x_t.shape, generator=generator))
            return mu


@alternative("torch.normal, noise drawn before the model is asked")
class _(lab.DDPMSampler):
    @torch.no_grad()
    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        std = float(self.compute_posterior_variance(t)) ** 0.5
        added = torch.normal(0.0, std, x_t.shape, generator=generator, dtype=x_t.dtype) if noise is None else std * noise
        return self.compute_posterior_mean(x_t, t, self.model(x_t, torch.tensor([t] * len(x_t)))) + added


@alternative("all noise drawn before the loop, the last first")
class _(lab.DDPMSampler):
    @torch.no_grad()
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        T = self.schedule.num_timesteps
        noises = [torch.randn(*shape, generator=generator) for _ in range(T)][::-1]
        x = torch.randn(*shape, generator=generator) if x_T is None else x_T
        if tuple(x.shape) != tuple(shape):
            raise ValueError("x_T has another shape")
        kept = [x.clone()]
        for t in reversed(range(T)):
            x = self.ddpm_step(x, t, noise=noises[t])
            kept.append(x.clone())
        check_finite(x)
        return (x, torch.stack(kept)) if return_trajectory else x


@alternative("a while loop, filling a trajectory made beforehand in place")
class _(lab.DDPMSampler):
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        if x_T is not None and list(x_T.shape) != list(shape):
            raise ValueError("x_T has another shape")
        t = self.schedule.num_timesteps
        way = torch.empty(t + 1, *shape)
        way[0] = torch.randn(tuple(shape), generator=generator) if x_T is None else x_T
        while t > 0:
            t -= 1
            way[-1 - t] = self.ddpm_step(way[-2 - t], t, generator=generator)
        if not way[-1].abs().max() < torch.inf:
            raise ValueError("the model gave NaN or infinity")
        return (way[-1], way) if return_trajectory else way[-1].clone()


@alternative("a generator function that yields every step")
class _(lab.DDPMSampler):
    def steps(self, x, generator):
        yield x
        for t in torch.arange(self.schedule.num_timesteps).flip(0):
            x = self.ddpm_step(x, t.item(), generator=generator)
            yield x

    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        if x_T is not None and x_T.shape != torch.Size(shape):
            raise ValueError("x_T has another shape")
        way = list(self.steps(torch.randn(torch.Size(shape), generator=generator) if x_T is None else x_T.clone(), generator))
        if torch.any(way[-1].isnan() | way[-1].isinf()):
            raise ValueError("the model gave NaN or infinity")
        return (way[-1], torch.stack(way)) if return_trajectory else way[-1]


@alternative("a helper method, and comments and names in German")
class _(lab.DDPMSampler):
    def _hole(self, tabelle, t, x):
        # Für jedes Bild der Zeile ein Wert: [B, 1, ..., 1]
        return tabelle[torch.as_tensor(t).expand(len(x))].reshape(-1, *(1,) * (x.dim() - 1))

    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        α, ᾱ = self._hole(self.schedule.alphas, t, x_t), self._hole(self.schedule.alphas_cumprod, t, x_t)
        rauschen = (1 - α) / torch.sqrt(1 - ᾱ) * predicted_noise
        return ((x_t - rauschen) / torch.sqrt(α)).to(x_t.dtype)  # Mittelwert von x_{t-1}


@alternative("DDPM as DDIM at eta = 1", "DDPMSampler")
class _(lab.DDIMSampler):
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        check_same_shape(x_t, predicted_noise)
        return lab.DDPMSampler(self.model, self.schedule).compute_posterior_mean(x_t, t, predicted_noise)

    def compute_posterior_variance(self, t):
        controller = lab.StochasticityController(self)
        if torch.is_tensor(t):
            return torch.stack([controller.compute_stochastic_variance(int(each), int(each) - 1, 1.0) for each in t])
        return controller.compute_stochastic_variance(t, t - 1, 1.0)

    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        return self.ddim_step(x_t, t, t - 1, 1.0, noise=noise, generator=generator)

    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        return super().sample(shape, range(self.schedule.num_timesteps - 1, -1, -1), 1.0, return_trajectory, x_T=x_T, generator=generator)


@alternative("a dataclass", "DDPMSampler")
@dataclass
class DDPMSampler:
    model: nn.Module
    schedule: object
    alphas: torch.Tensor = field(init=False)

    compute_posterior_mean = lab.DDPMSampler.compute_posterior_mean
    compute_posterior_variance = lab.DDPMSampler.compute_posterior_variance
    ddpm_step = lab.DDPMSampler.ddpm_step

    def __post_init__(self):
        self.model = self.model.eval()
        self.alphas = self.schedule.alphas

    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        assert len(shape) > 1
        if x_T is not None and x_T.shape != shape:
            raise ValueError("x_T has another shape")
        x = x_T if x_T is not None else torch.randn(shape, generator=generator)
        chain = itertools.accumulate(range(self.schedule.num_timesteps - 1, -1, -1), lambda x, t: self.ddpm_step(x, t, generator=generator), initial=x)
        chain = torch.stack(tuple(chain))
        check_finite(chain[-1])
        return (chain[-1], chain) if return_trajectory else chain[-1]


class DDPMSampler(lab.DDPMSampler):
    """A first, wrong try in an earlier cell."""

    def compute_posterior_mean(self, x_t, t, predicted_noise):
        return x_t


class DDPMSampler(lab.DDPMSampler):  # noqa: F811
    """The second definition is the one that counts."""

    def compute_posterior_mean(self, x_t, t, predicted_noise):
        return super().compute_posterior_mean(x_t, t, predicted_noise)


alternative("a class defined twice", "DDPMSampler")(DDPMSampler)


class Pieces:
    """A class written over several cells: the methods are put in later."""

    def __init__(self, model, schedule):
        self.model, self.schedule = model, schedule
        model.eval()


for name in ("compute_posterior_mean", "compute_posterior_variance", "ddpm_step", "sample"):
    setattr(Pieces, name, vars(lab.DDPMSampler)[name])
alternative("a class put together over several cells", "DDPMSampler")(Pieces)

# ---------------------------------------------------------------------------------------------- DDIM


@alternative("x_0 with reciprocal roots, as diffusion code bases have them")
class _(lab.DDIMSampler):
    def predict_x0_from_eps(self, x_t, eps, t):
        A = self.schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x_t))]
        return (column(torch.rsqrt(A), x_t) * x_t - column(torch.sqrt(1 / A - 1), x_t) * eps).to(x_t.dtype)


@alternative("x_0 with reciprocal roots in float32")
class _(lab.DDIMSampler):
    def predict_x0_from_eps(self, x_t, eps, t):
        A = self.schedule.alphas_cumprod.float()[torch.as_tensor(t).expand(len(x_t))]
        return (column(torch.rsqrt(A), x_t) * x_t - column(torch.sqrt(1 / A - 1), x_t) * eps).to(x_t.dtype)


@alternative("float32 tables and float32 arithmetic in the jump")
class _(lab.DDIMSampler):
    def predict_x0_from_eps(self, x_t, eps, t):
        A = self.schedule.alphas_cumprod.float()[t]
        A = A.view(-1, *[1] * (x_t.ndim - 1)) if A.ndim else A
        return (x_t - (1 - A).sqrt() * eps) / A.sqrt()

    @torch.no_grad()
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        check_jump(t, s, self.schedule.num_timesteps)
        check_eta(eta)
        A = torch.cat([self.schedule.alphas_cumprod.float(), torch.ones(1)])
        A_t, A_s = A[t], A[s]
        sigma = eta * torch.sqrt((1 - A_s) / (1 - A_t)) * torch.sqrt(1 - A_t / A_s)
        eps = self.model(x_t, full_t(x_t, t))
        x = A_s.sqrt() * self.predict_x0_from_eps(x_t, eps, t) + torch.sqrt((1 - A_s - sigma**2).clamp(min=0)) * eps
        if eta > 0:
            x = x + sigma * (torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype) if noise is None else noise)
        return x.to(x_t.dtype)


@alternative("vmap over the batch")
class _(lab.DDIMSampler):
    def predict_x0_from_eps(self, x_t, eps, t):
        A = self.schedule.alphas_cumprod[torch.as_tensor(t).expand(len(x_t))]
        return torch.vmap(lambda x, e, a: (x - torch.sqrt(1 - a) * e) / torch.sqrt(a))(x_t, eps, A).to(x_t.dtype)


@alternative("a step as one linear combination, x_0 never formed")
class _(lab.DDIMSampler):
    @torch.no_grad()
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        if not (0 <= s + 1 <= t < self.schedule.num_timesteps):
            raise ValueError("s must lie below t")
        if not (math.isfinite(eta) and eta >= 0):
            raise ValueError("bad eta")
        A_t, A_s = (1.0 if i < 0 else self.schedule.alphas_cumprod[i].item() for i in (t, s))
        v = eta * eta * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        eps = self.model(x_t, full_t(x_t, t))
        x = math.sqrt(A_s / A_t) * x_t + (math.sqrt(1 - A_s - v) - math.sqrt(A_s * (1 - A_t) / A_t)) * eps
        return x if v == 0 else x + math.sqrt(v) * (torch.randn(x_t.shape, generator=generator) if noise is None else noise)


@alternative("a step in the variance-exploding form, sigma = sqrt((1 - A) / A), noise always drawn")
class _(lab.DDIMSampler):
    @torch.no_grad()
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        check_jump(t, s, self.schedule.num_timesteps)
        check_eta(eta)
        z = torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype) if noise is None else noise
        A_t, A_s = self.schedule.alphas_cumprod[t], self.schedule.alphas_cumprod[s] if s != -1 else torch.tensor(1.0, dtype=torch.float64)
        now, then = ((1 - A_t) / A_t).sqrt(), ((1 - A_s) / A_s).sqrt()
        up = eta * (then**2 / now**2 * (now**2 - then**2)).sqrt() * (A_t / A_s).sqrt() * (1 + now**2).sqrt() / (1 + then**2).sqrt()
        down = (then**2 - up**2).clamp(min=0).sqrt()
        eps = self.model(x_t, full_t(x_t, t))
        return (A_s.sqrt() * (x_t / A_t.sqrt() + (down - now) * eps + up * z)).to(x_t.dtype)


def jump(x, eps, z, A_t, A_s, eta):
    """A function outside of the class, in Song's notation."""
    sigma = eta * math.sqrt((1 - A_s) / (1 - A_t)) * math.sqrt(1 - A_t / A_s)
    predicted = (x - math.sqrt(1 - A_t) * eps) / math.sqrt(A_t)
    pointing = math.sqrt(max(1 - A_s - sigma**2, 0)) * eps
    return math.sqrt(A_s) * predicted + pointing + sigma * z


@alternative("a pure function outside of the class, and a table with 1 at its end so that -1 finds it")
class _(lab.DDIMSampler):
    def __init__(self, model, schedule):
        super().__init__(model.eval(), schedule)
        self.A = [*schedule.alphas_cumprod.tolist(), 1.0]

    @torch.no_grad()
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        check_jump(t, s, self.schedule.num_timesteps)
        check_eta(eta)
        z = 0 if eta == 0 else torch.randn(x_t.shape, generator=generator) if noise is None else noise
        return jump(x_t, self.model(x_t, full_t(x_t, t)), z, self.A[t], self.A[s], eta)


@alternative("schedules by numpy and a dict of functions")
class _(lab.DDIMSampler):
    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        T = self.schedule.num_timesteps
        check_num_steps(num_steps, T)
        kinds = {"uniform": lambda n: np.linspace(0, T - 1, n)[::-1] if n > 1 else np.array([T - 1]),
                 "trailing": lambda n: np.array([T - i * T / n for i in range(n)]) - 1,
                 "quadratic": lambda n: np.maximum(np.linspace(0, 1, n) ** 2 * (T - 1), np.arange(n))[::-1] if n > 1 else np.array([T - 1])}
        if schedule_type not in kinds:
            raise ValueError(f"unknown: {schedule_type}")
        return torch.tensor(np.rint(kinds[schedule_type](num_steps)).astype(np.int64).copy())


@alternative("schedules by integer arithmetic, rounded down, repeats pushed up")
class _(lab.DDIMSampler):
    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        n, T = num_steps, self.schedule.num_timesteps
        if not isinstance(n, int) or n < 1 or n > T:
            raise ValueError("num_steps must be a whole number in 1..T")
        match schedule_type:
            case "uniform":
                rising = [i * (T - 1) // max(n - 1, 1) for i in range(n)] if n > 1 else [T - 1]
            case "trailing":
                rising = [T * (i + 1) // n - 1 for i in range(n)]
            case "quadratic":
                rising = []
                for i in range(n):
                    rising.append(max(i * i * (T - 1) // max(n - 1, 1) ** 2, rising[-1] + 1 if rising else 0) if n > 1 else T - 1)
            case _:
                raise ValueError("no such schedule")
        return torch.LongTensor(rising[::-1])


@alternative("schedules by torch in float32")
class _(lab.DDIMSampler):
    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        T = self.schedule.num_timesteps
        check_num_steps(num_steps, T)
        if schedule_type == "uniform":
            return torch.linspace(T - 1, 0, num_steps).round().to(torch.int64)
        if schedule_type == "trailing":
            return torch.round(torch.linspace(T, T / num_steps, num_steps)).long() - 1
        if schedule_type == "quadratic":
            if num_steps == 1:
                return torch.tensor([T - 1])
            return torch.maximum(torch.arange(num_steps), (torch.linspace(0, (T - 1) ** 0.5, num_steps) ** 2).round().long()).flip(0)
        raise ValueError("no such schedule")


@alternative("a loop over a tensor of timesteps, a trajectory by torch.cat, a context manager")
class _(lab.DDIMSampler):
    def sample(self, shape, timesteps=None, eta=0.0, return_trajectory=False, *, x_T=None, generator=None):
        timesteps = 50 if timesteps is None else timesteps
        if isinstance(timesteps, int):
            timesteps = self.create_timestep_schedule(timesteps)
        timesteps = torch.as_tensor(timesteps)
        check_timesteps(timesteps.tolist(), self.schedule.num_timesteps)
        with torch.inference_mode():
            x = torch.randn(*shape, generator=generator) if x_T is None else x_T.clone()
            way = x.unsqueeze(0)
            following = torch.cat([timesteps[1:], torch.tensor([-1])])
            for t, s in torch.stack([timesteps, following], dim=1):
                x = self.ddim_step(x, int(t), int(s), eta, generator=generator)
                way = torch.cat([way, x.unsqueeze(0)])
        check_finite(x)
        return (x, way) if return_trajectory else x


@alternative("recursion, each step with its own draw from a seed of the generator")
class _(lab.DDIMSampler):
    def sample(self, shape, timesteps=None, eta=0.0, return_trajectory=False, *, x_T=None, generator=None):
        shape = tuple(shape)
        if timesteps is None or isinstance(timesteps, int):
            timesteps = self.create_timestep_schedule(50 if timesteps is None else timesteps)
        steps = [int(t) for t in timesteps]
        if not steps or steps != sorted(set(steps), reverse=True) or steps[0] >= self.schedule.num_timesteps or steps[-1] < 0:
            raise ValueError("timesteps must fall strictly within the table")
        seeds = torch.randint(2**40, (len(steps) + 1,), generator=generator).tolist()
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]

        def walk(x, i):
            if i == len(steps):
                return [x]
            s = steps[i + 1] if i + 1 < len(steps) else -1
            return [x, *walk(self.ddim_step(x, steps[i], s, eta, generator=rngs[i]), i + 1)]

        way = walk(torch.randn(shape, generator=rngs[-1]) if x_T is None else x_T, 0)
        if torch.isnan(way[-1]).any():
            raise ValueError("NaN in the samples")
        return (way[-1], torch.stack(way)) if return_trajectory else way[-1]


# ---------------------------------------------------------------------------------------------- eta


@alternative("variance by plain floats")
class _(lab.StochasticityController):
    def compute_stochastic_variance(self, t, s, eta):
        check_jump(t, s, 1000)
        check_eta(eta)
        A_t, A_s = (float(self.ddim_sampler.schedule.alphas_cumprod[i]) if i >= 0 else 1.0 for i in (t, s))
        sigma = eta * math.sqrt((1 - A_s) / (1 - A_t)) * math.sqrt(1 - A_t / A_s)
        return torch.tensor(sigma**2, dtype=torch.float64)


@alternative("variance as a DDPM posterior with betas of the subsequence")
class _(lab.StochasticityController):
    def compute_stochastic_variance(self, t, s, eta):
        if math.isnan(eta) or eta < 0 or s >= t:
            raise ValueError("bad input")
        A = torch.nn.functional.pad(self.ddim_sampler.schedule.alphas_cumprod, (1, 0), value=1.0)
        b = 1 - A[t + 1] / A[s + 1]
        return eta**2 * b * (1 - A[s + 1]) / (1 - A[t + 1])


@alternative("one eta after the other, with noise kept in a list")
class _(lab.StochasticityController):
    @torch.no_grad()
    def analyze_eta_effects(self, shape, eta_values, num_steps, *, generator=None):
        ddim = self.ddim_sampler
        t = ddim.create_timestep_schedule(num_steps).tolist()
        jumps = list(zip(t, t[1:] + [-1]))
        noises = [torch.randn(*shape, generator=generator) for _ in range(num_steps + 1)]
        samples = []
        for eta in eta_values:
            x = noises[-1]
            for (now, then), z in zip(jumps, noises):
                x = ddim.ddim_step(x, now, then, eta, noise=z)
            samples.append(x)
        sigma = [[self.compute_stochastic_variance(*jump, eta).sqrt().item() for jump in jumps] for eta in eta_values]
        return dict(eta_values=eta_values, samples=torch.stack(samples), sigma=torch.tensor(sigma).double(),
                    diversity=torch.tensor([lab.sample_diversity(x) for x in samples]).double())


@alternative("the same seed for each eta")
class _(lab.StochasticityController):
    def analyze_eta_effects(self, shape, eta_values, num_steps, *, generator=None):
        seed = int(torch.randint(2**31, (1,), generator=generator))
        samples = torch.stack([self.ddim_sampler.sample(shape, num_steps, eta, generator=torch.Generator().manual_seed(seed)) if eta else
                               self.ddim_sampler.sample(shape, num_steps, 0.0, generator=torch.Generator().manual_seed(seed))
                               for eta in eta_values])
        t = self.ddim_sampler.create_timestep_schedule(num_steps)
        A = torch.cat([self.ddim_sampler.schedule.alphas_cumprod[t], torch.ones(1).double()])
        unit = ((1 - A[1:]) / (1 - A[:-1]) * (1 - A[:-1] / A[1:])).sqrt()
        return {"samples": samples, "eta_values": eta_values, "sigma": torch.outer(torch.tensor(eta_values).double(), unit),
                "diversity": torch.tensor([lab.sample_diversity(x) for x in samples], dtype=torch.float64)}


# ---------------------------------------------------------------------------------------------- measuring


@alternative("all noise levels in one batch")
class _(lab.TrainedModelAnalyzer):
    @torch.no_grad()
    def analyze_noise_prediction_quality(self, x_clean, timesteps, *, noise=None, generator=None):
        check_images(x_clean)
        z = torch.randn(x_clean.shape, generator=generator) if noise is None else noise
        K, t = len(timesteps), torch.tensor(timesteps).repeat_interleave(len(x_clean))
        x, z = x_clean.repeat(K, 1, 1, 1), z.repeat(K, 1, 1, 1)
        A = self.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        x_t = (A.sqrt() * x + (1 - A).sqrt() * z).float()
        eps = self.model(x_t, t)
        def errors(a, b):
            return (a - b).double().pow(2).view(K, -1).mean(1)
        snr = self.schedule.alphas_cumprod[timesteps]
        return {"timesteps": timesteps, "eps_mse": errors(eps, z), "x0_mse": errors((x_t - (1 - A).sqrt() * eps) / A.sqrt(), x), "snr": snr / (1 - snr)}


@alternative("mse_loss in float32, results collected in lists")
class _(lab.TrainedModelAnalyzer):
    def analyze_noise_prediction_quality(self, x_clean, timesteps, *, noise=None, generator=None):
        results = {"timesteps": [], "eps_mse": [], "x0_mse": [], "snr": []}
        true = torch.randn(x_clean.shape, generator=generator) if noise is None else noise
        with torch.inference_mode():
            for t in timesteps:
                A = self.schedule.alphas_cumprod[t].float()
                x_t = self.forward_process.add_noise(x_clean, t, true)
                predicted = self.model(x_t, torch.full((len(x_clean),), t))
                x0 = (x_t - (1 - A).sqrt() * predicted) / A.sqrt()
                results["timesteps"].append(t)
                results["eps_mse"].append(nn.functional.mse_loss(predicted, true).item())
                results["x0_mse"].append(nn.functional.mse_loss(x0, x_clean).item())
                results["snr"].append(float(self.schedule.alphas_cumprod[t] / (1 - self.schedule.alphas_cumprod[t])))
        return {k: v if k == "timesteps" else torch.tensor(v, dtype=torch.float64) for k, v in results.items()}


@alternative("monotonic clock, counted from outside")
def benchmark_samplers(samplers, shape):
    if not samplers:
        raise ValueError("no samplers")
    rows = []
    for name in samplers:
        start = time.monotonic_ns()
        with count_calls() as calls:
            samplers[name](shape)
        seconds = (time.monotonic_ns() - start) / 1e9
        rows.append(dict(name=name, num_steps=calls.num_steps, nfe=calls.nfe, seconds=seconds, seconds_per_step=seconds / calls.num_steps))
    return rows


@alternative("pairs by itertools")
def sample_diversity(samples):
    pairs = itertools.combinations(samples.double(), 2)
    return float(np.mean([((a - b) ** 2).mean().sqrt().item() for a, b in pairs]))


@alternative("distances by the Gram matrix, in float64")
def sample_diversity(samples):  # noqa: F811
    x = samples.reshape(len(samples), -1).double()
    gram = x @ x.T
    squared = (gram.diag()[:, None] + gram.diag()[None] - 2 * gram).clamp(min=0) / x.shape[1]
    B = len(x)
    return float(squared.fill_diagonal_(0).sqrt().sum() / (B * (B - 1)))


@alternative("cdist in float32, upper triangle")
def sample_diversity(samples):  # noqa: F811
    x = samples.flatten(1)
    i, j = torch.triu_indices(len(x), len(x), 1)
    return (torch.cdist(x, x)[i, j] / x.shape[1] ** 0.5).mean().item()


# ---------------------------------------------------------------------------------------------- production


@functools.lru_cache(maxsize=8)
def coefficients(schedule, steps, eta):
    """Kept by functools rather than by hand."""
    A = [schedule.alphas_cumprod[t].item() for t in steps] + [1.0]
    table = []
    for t, A_t, A_s in zip(steps, A, A[1:]):
        v = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        table.append((t, math.sqrt(A_t), math.sqrt(1 - A_t), math.sqrt(A_s), math.sqrt(1 - A_s - v), math.sqrt(v)))
    return table


@alternative("lru_cache, x_0 formed in every step")
class _(lab.SamplingOptimizer):
    @torch.inference_mode()
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        x = torch.randn(tuple(shape), generator=generator) if x_T is None else x_T
        steps = tuple(ddim_sampler.create_timestep_schedule(num_steps).tolist())
        for t, signal, noise, to_x0, to_eps, sigma in coefficients(ddim_sampler.schedule, steps, eta):
            eps = ddim_sampler.model(x, full_t(x, t))
            x = to_x0 * ((x - noise * eps) / signal) + to_eps * eps
            if sigma:
                x = x + sigma * torch.randn(x.shape, generator=generator)
        if not math.isfinite(x.sum()):
            raise ValueError("the model gave NaN or infinity")
        return x


@alternative("float32 coefficients in tensors, cached on the sampler and the number of steps, eta applied afterwards")
class _(lab.SamplingOptimizer):
    @torch.no_grad()
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        key = (id(ddim_sampler), num_steps)
        if key not in self.cache:
            t = ddim_sampler.create_timestep_schedule(num_steps)
            A = torch.cat([ddim_sampler.schedule.alphas_cumprod[t], torch.ones(1).double()])
            self.cache[key] = t, A[:-1].float(), A[1:].float(), ((1 - A[1:]) / (1 - A[:-1]) * (1 - A[:-1] / A[1:])).float(), ddim_sampler
        x = torch.randn(*shape, generator=generator) if x_T is None else x_T.clone()
        for t, A_t, A_s, unit, *_ in zip(*self.cache[key][:4]):
            eps = ddim_sampler.model(x, t.expand(len(x)))
            x0 = (x - (1 - A_t).sqrt() * eps) / A_t.sqrt()
            x = A_s.sqrt() * x0 + (1 - A_s - eta**2 * unit).clamp(min=0).sqrt() * eps + eta * unit.sqrt() * torch.randn(x.shape, generator=generator)
        check_finite(x)
        return x


@alternative("batches collected in a list, the noise taken off the front of one draw")
class _(lab.SamplingOptimizer):
    def batch_sampling_with_memory_management(self, total_samples, batch_size, *, sample_shape=None, num_steps=50, eta=0.0, generator=None):
        check_count(total_samples, "total_samples")
        check_count(batch_size, "batch_size")
        shape = tuple(sample_shape or self.ddim_sampler.model.sample_shape)
        made, left = [], torch.randn(total_samples, *shape, generator=generator)
        while len(left):
            x_T, left = left[:batch_size], left[batch_size:]
            made.append(self.ddim_sampler.sample(x_T.shape, num_steps, eta, x_T=x_T, generator=generator).cpu())
        return torch.cat(made, dim=0)


@alternative("batches of equal size, filled into a tensor made beforehand")
class _(lab.SamplingOptimizer):
    def batch_sampling_with_memory_management(self, total_samples, batch_size, *, sample_shape=None, num_steps=50, eta=0.0, generator=None):
        sample_shape = self.ddim_sampler.model.sample_shape if sample_shape is None else sample_shape
        count = math.ceil(total_samples / batch_size)
        result = torch.empty(total_samples, *sample_shape).normal_(generator=generator)
        for rows in torch.arange(total_samples).chunk(count):
            result[rows] = self.ddim_sampler.sample([len(rows), *sample_shape], num_steps, eta=eta, x_T=result[rows], generator=generator)
        return result


@alternative("batches by recursion")
class _(lab.SamplingOptimizer):
    def batch_sampling_with_memory_management(self, total_samples, batch_size, *, generator=None, x_T=None, **kwargs):
        shape = kwargs.pop("sample_shape", None) or self.ddim_sampler.model.sample_shape
        x_T = torch.randn(total_samples, *shape, generator=generator) if x_T is None else x_T
        def first(n, steps=kwargs.get("num_steps", 50), eta=kwargs.get("eta", 0.0)):
            return self.ddim_sampler.sample((n, *shape), steps, eta, x_T=x_T[:n], generator=generator).detach().cpu()
        if total_samples <= batch_size:
            return first(total_samples)
        rest = self.batch_sampling_with_memory_management(total_samples - batch_size, batch_size, sample_shape=shape, generator=generator,
                                                          x_T=x_T[batch_size:], **kwargs)
        return torch.cat([first(batch_size), rest])
