import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.analytic import GaussianModel
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import DDPMSampler

SCHEDULE = NoiseSchedule.linear()
A, BETAS = SCHEDULE.alphas_cumprod, SCHEDULE.betas
SHORT = NoiseSchedule.linear(12, 0.02, 0.4)


def normal(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def zero(x, t):
    return torch.zeros_like(x)


DDPM = DDPMSampler(zero, SCHEDULE)


@settings(deadline=None, max_examples=60)
@given(t=st.integers(1, 999), x0=st.floats(-1, 1), eps=st.floats(-4, 4))
def test_the_mean_is_the_posterior_mean_given_x_t_and_x_0(t, x0, eps):
    # Ho et al., eq. 7, in terms of x_0: another form of the same mean.
    A_t, A_prev, beta = float(A[t]), float(A[t - 1]), float(BETAS[t])
    x_t = math.sqrt(A_t) * x0 + math.sqrt(1 - A_t) * eps
    expected = math.sqrt(A_prev) * beta / (1 - A_t) * x0 + math.sqrt(1 - beta) * (1 - A_prev) / (1 - A_t) * x_t
    got = DDPM.compute_posterior_mean(torch.tensor([[x_t]], dtype=torch.float64), t,
                                      torch.tensor([[eps]], dtype=torch.float64))
    assert float(got) == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_at_t_0_the_mean_is_the_clean_sample():
    x0, eps = normal((3, 2)), normal((3, 2), 1)
    x_t = A[0].sqrt() * x0 + (1 - A[0]).sqrt() * eps
    assert torch.allclose(DDPM.compute_posterior_mean(x_t, 0, eps), x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2), (4, 1, 4, 4), (4, 2, 3, 4), (2, 1, 5, 7), (5, 8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_takes_one_timestep_each_or_one_for_all(shape, dtype):
    x, eps, t = normal(shape, 0, dtype), normal(shape, 1, dtype), torch.arange(shape[0]) * 199
    together = DDPM.compute_posterior_mean(x, t, eps)
    alone = torch.cat([DDPM.compute_posterior_mean(x[i:i + 1], int(t[i]), eps[i:i + 1]) for i in range(shape[0])])
    assert together.shape == shape and together.dtype == dtype
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_variance_is_the_posterior_variance_at_every_t():
    got = DDPM.compute_posterior_variance(torch.arange(1000))
    expected = [0.0] + [float(BETAS[t]) * (1 - float(A[t - 1])) / (1 - float(A[t])) for t in range(1, 1000)]
    assert got.dtype == torch.float64 and got.tolist() == pytest.approx(expected, rel=1e-12)
    assert bool((got < BETAS).all()) and float(got[0]) == 0.0


def test_the_variance_of_an_int_is_0_d_and_of_a_batch_a_row():
    one, batch = DDPM.compute_posterior_variance(7), DDPM.compute_posterior_variance(torch.tensor([7, 0, 999]))
    assert one.shape == () and one.dtype == torch.float64 and batch.shape == (3,) and float(batch[0]) == float(one)


@pytest.mark.parametrize("t", [1, 2, 100, 500, 999])
def test_it_agrees_with_diffusers(t):
    theirs = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, clip_sample=False, variance_type="fixed_small")
    # 1 - A_t of their float32 tables is off by a relative 2e-4 at the low end.
    assert float(DDPM.compute_posterior_variance(t)) == pytest.approx(float(theirs._get_variance(t)), rel=5e-4)
    x, eps = normal((3, 1, 4, 4), 0, torch.float32), normal((3, 1, 4, 4), 1, torch.float32)
    expected = theirs.step(eps, t, x, generator=torch.Generator().manual_seed(5)).prev_sample
    noise = normal((3, 1, 4, 4), 5, torch.float32)
    got = DDPMSampler(lambda x, t: eps, SCHEDULE).ddpm_step(x, t, noise=noise)
    assert torch.allclose(got, expected, atol=5e-4)


def test_a_step_adds_the_posterior_noise_to_the_mean():
    x, noise = normal((4, 3)), normal((4, 3), 1)
    step = DDPMSampler(lambda x, t: x / 2, SCHEDULE).ddpm_step(x, 400, noise=noise)
    expected = DDPM.compute_posterior_mean(x, 400, x / 2) + DDPM.compute_posterior_variance(400).sqrt() * noise
    assert torch.allclose(step, expected, rtol=1e-13)


def test_the_last_step_ignores_noise():
    x = normal((4, 3))
    assert torch.equal(DDPM.ddpm_step(x, 0, noise=normal((4, 3), 1)), DDPM.ddpm_step(x, 0, noise=normal((4, 3), 2)))
    assert torch.equal(DDPM.ddpm_step(x, 0), DDPM.compute_posterior_mean(x, 0, torch.zeros_like(x)))


@pytest.mark.parametrize("std", [0.0, 0.4, 1.0])
def test_with_the_exact_gaussian_the_chain_follows_the_closed_form_recursion(chain, std):
    mean, T = 0.7, SHORT.num_timesteps
    sampler = DDPMSampler(GaussianModel(SHORT, mean, std), SHORT)
    x, noises = chain.impulses(T - 1)
    for k, t in enumerate(range(T - 1, -1, -1)):
        x = sampler.ddpm_step(x, t, noise=noises[k] if t > 0 else torch.zeros_like(x))
    # By the rules of conditional Gaussians: x_{t-1} | x_t, x_0 has mean p x_0 + q x_t,
    # and E[x_0 | x_t] = mean + g (x_t - r mean) with r = sqrt(A_t).
    m, v = 0.0, 1.0
    for t in range(T - 1, -1, -1):
        A_t, beta = float(SHORT.alphas_cumprod[t]), float(SHORT.betas[t])
        A_prev, r = float(SHORT.alphas_cumprod[t - 1]) if t else 1.0, math.sqrt(A_t)
        p, q = math.sqrt(A_prev) * beta / (1 - A_t), math.sqrt(1 - beta) * (1 - A_prev) / (1 - A_t)
        g = r * std**2 / (A_t * std**2 + 1 - A_t)
        m = p * (mean - g * r * mean) + (p * g + q) * m
        v = (p * g + q) ** 2 * v + beta * (1 - A_prev) / (1 - A_t)
    assert chain.moments(x) == pytest.approx((m, v), rel=1e-10, abs=1e-12)


def test_samples_of_the_exact_gaussian_have_the_datas_moments():
    x = DDPMSampler(GaussianModel(SCHEDULE, 0.7, 0.4), SCHEDULE).sample((20_000, 1),
                                                                        generator=torch.Generator().manual_seed(0))
    assert float(x.mean()) == pytest.approx(0.7, abs=0.02) and float(x.std()) == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize("shape", [(3, 2), (4, 1, 3, 4), (4, 2, 5, 4), (2, 8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampling_asks_the_model_once_for_every_timestep(chain, shape, dtype):
    model = chain.Strict(SHORT, shape[1:], dtype).train()
    x_T = normal(shape, 3, dtype)
    before = x_T.clone()
    x, trajectory = DDPMSampler(model, SHORT).sample(shape, True, x_T=x_T)
    assert model.asked == list(range(11, -1, -1))
    assert x.shape == shape and x.dtype == dtype and not x.requires_grad
    assert trajectory.shape == (13, *shape) and torch.equal(trajectory[0], before) and torch.equal(trajectory[-1], x)
    assert torch.equal(x_T, before)


def test_a_trajectory_is_a_copy_of_its_own():
    x_T = normal((3, 2), 1)
    x, trajectory = DDPMSampler(zero, SHORT).sample((3, 2), True, x_T=x_T)
    kept = trajectory.clone()
    x.zero_(), x_T.zero_(), trajectory[4].zero_()
    assert torch.equal(trajectory[[0, 3, 5, -1]], kept[[0, 3, 5, -1]])


def test_the_same_generator_gives_the_same_samples_and_another_does_not():
    sampler = DDPMSampler(GaussianModel(SHORT), SHORT)
    a, b, c = (sampler.sample((4, 1), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c)
    assert len(a.unique()) == 4  # nor is any noise shared within the batch


def test_a_step_leaves_its_inputs_alone_and_keeps_the_dtype_of_x():
    x, noise = normal((3, 2), 0, torch.float32), normal((3, 2), 1, torch.float64)
    before = x.clone(), noise.clone()
    assert DDPM.ddpm_step(x, 5, noise=noise).dtype == torch.float32
    assert torch.equal(x, before[0]) and torch.equal(noise, before[1])


def test_nan_from_the_model_is_found_at_the_end_and_not_before(chain, refuses):
    model = chain.Broken()
    assert "NaN" in refuses(DDPMSampler(model, SHORT).sample, (3, 2))
    assert model.calls == 12


@pytest.mark.parametrize(("method", "arguments"), [
    ("compute_posterior_mean", (torch.zeros(2, 3, dtype=torch.uint8), 5, torch.zeros(2, 3))),
    ("compute_posterior_mean", (torch.zeros(2, 3), 1000, torch.zeros(2, 3))),
    ("compute_posterior_mean", (torch.zeros(2, 3), -1, torch.zeros(2, 3))),
    ("compute_posterior_mean", (torch.zeros(2, 3), torch.tensor([1]), torch.zeros(2, 3))),
    ("compute_posterior_mean", (torch.zeros(2, 3), 5, torch.zeros(2, 1))),
    ("compute_posterior_variance", (1000,)), ("compute_posterior_variance", (-1,)), ("compute_posterior_variance", (2.5,)),
    ("compute_posterior_variance", (torch.tensor([1, 1000]),)),
    ("ddpm_step", (torch.zeros(2, 3, dtype=torch.int64), 5)), ("ddpm_step", (torch.zeros(2, 3), 1000)),
    ("ddpm_step", (torch.zeros(2, 3), -1)),
    ("ddpm_step", (torch.zeros(2, 3), 1.0)), ("sample", ((3,),)), ("sample", ((3, 0),)), ("sample", (3,))])
def test_bad_input_is_refused(refuses, method, arguments):
    refuses(getattr(DDPM, method), *arguments)


def test_shapes_that_disagree_are_refused(refuses):
    refuses(DDPM.ddpm_step, torch.zeros(2, 3), 5, noise=torch.zeros(2, 1))
    refuses(DDPM.sample, (2, 3), x_T=torch.zeros(3, 2))
    refuses(DDPM.sample, (2, 3), x_T=torch.zeros(2, 3, dtype=torch.uint8))
    refuses(DDPMSampler(lambda x, t: x[:, :1], SHORT).sample, (2, 3))
