import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.analytic import GaussianMixture, GaussianModel
from diffusionlab.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
A = SCHEDULE.alphas_cumprod


def at(t, x):
    return torch.full((len(x),), t)


@settings(deadline=None, max_examples=30)
@given(t=st.integers(0, 999), mean=st.floats(-2, 2), std=st.floats(0.2, 2), x=st.floats(-3, 3))
def test_the_gaussian_prediction_is_the_posterior_mean_of_the_noise(t, mean, std, x):
    # E[eps | x_t] by numerical integration over eps: x_0 = (x_t - sqrt(1 - A) eps) / sqrt(A) came from N(mean, std^2).
    root_A, root_1A = math.sqrt(A[t]), math.sqrt(1 - A[t])
    eps = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_weight = -eps**2 / 2 - ((x - root_1A * eps) / root_A - mean) ** 2 / (2 * std**2)
    expected = float((log_weight.softmax(0) * eps).sum())
    x_t = torch.tensor([[x]], dtype=torch.float64)
    got = float(GaussianModel(SCHEDULE, mean, std)(x_t, at(t, x_t)))
    # What reaches beyond the grid is unlikely, but the truth may lie there for far-off x.
    assert got == pytest.approx(expected, abs=1e-6) or abs(got) > 8


@settings(deadline=None, max_examples=30)
@given(t=st.integers(0, 999), seed=st.integers(0, 10**6))
def test_for_a_known_x0_the_prediction_is_the_true_noise(t, seed):
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 3, 4, dtype=torch.float64, generator=g), torch.randn(5, 2, 3, 4, dtype=torch.float64,
                                                                                  generator=g)
    x_t = A[t].sqrt() * x0 + (1 - A[t]).sqrt() * eps
    got = GaussianModel(SCHEDULE, mean=x0, std=0, sample_shape=(2, 3, 4))(x_t, at(t, x_t))
    assert torch.allclose(got, eps, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_keep_shape_and_dtype(dtype):
    for shape in ((3,), (1, 5, 7), (2, 9)):
        x = torch.randn(4, *shape, dtype=dtype)
        out = GaussianModel(SCHEDULE, sample_shape=shape)(x, torch.tensor([0, 1, 500, 999]))
        assert out.shape == x.shape and out.dtype == dtype
    points = torch.randn(4, 2, dtype=dtype)
    assert GaussianMixture.ring(SCHEDULE)(points, at(3, points)).dtype == dtype


def test_each_sample_gets_its_own_timestep():
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 10, 500, 999])
    for model in (GaussianModel(SCHEDULE, 0.3, 0.5), GaussianMixture.ring(SCHEDULE)):
        together = model(x, t)
        alone = torch.cat([model(x[i:i + 1], t[i:i + 1]) for i in range(4)])
        assert torch.allclose(together, alone, rtol=1e-13)


@settings(deadline=None, max_examples=40)
@given(t=st.integers(0, 999), seed=st.integers(0, 10**6), d=st.integers(1, 3), K=st.integers(1, 5))
def test_the_mixture_prediction_is_the_gradient_of_its_log_density(t, seed, d, K):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(K, d, dtype=torch.float64, generator=g)
    stds = 0.1 + torch.rand(K, dtype=torch.float64, generator=g)
    weights = 0.1 + torch.rand(K, dtype=torch.float64, generator=g)
    x = torch.randn(6, d, dtype=torch.float64, generator=g, requires_grad=True)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.Independent(torch.distributions.Normal(
            A[t].sqrt() * means, (A[t] * stds**2 + 1 - A[t]).sqrt()[:, None].expand(K, d)), 1))
    score, = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    got = GaussianMixture(SCHEDULE, means, stds, weights)(x.detach(), at(t, x))
    assert torch.allclose(got, -(1 - A[t]).sqrt() * score, rtol=1e-9, atol=1e-9)


def test_a_mixture_of_one_is_the_gaussian():
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.tensor([0, 5, 100, 700, 999])
    mean = torch.tensor([0.4, -0.7])
    assert torch.allclose(GaussianMixture(SCHEDULE, mean[None], 0.3)(x, t), GaussianModel(SCHEDULE, mean, 0.3, (2,))(x, t),
                          rtol=1e-11)


def test_far_from_every_mode_the_prediction_stays_finite():
    x = torch.tensor([[1e4, -1e4]], dtype=torch.float64)
    out = GaussianMixture.ring(SCHEDULE)(x, at(0, x))
    assert bool(torch.isfinite(out).all())


def test_data_of_a_mixture_has_its_moments():
    model = GaussianMixture(SCHEDULE, [[1.0, 0.0], [-3.0, 2.0]], stds=[0.1, 0.5], weights=[3, 1])
    x = model.sample_data(40_000, torch.Generator().manual_seed(0))
    assert x.shape == (40_000, 2) and x.dtype == torch.float64
    assert float((x[:, 0] > -1).double().mean()) == pytest.approx(0.75, abs=0.01)
    assert x[x[:, 0] > -1].std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.05)
    assert x[x[:, 0] < -1].std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.05)


def test_a_ring_has_its_modes_on_a_circle():
    model = GaussianMixture.ring(SCHEDULE, components=6, radius=2.0, std=0.2)
    assert model.sample_shape == (2,) and model.means.norm(dim=1).tolist() == pytest.approx([2.0] * 6)
    assert float(torch.pdist(model.means).min()) == pytest.approx(2.0)
    assert model.weights.tolist() == pytest.approx([1 / 6] * 6)
