import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import ForwardProcessImpl

SCHEDULE = NoiseSchedule.linear()
A = SCHEDULE.alphas_cumprod
FORWARD = ForwardProcessImpl(SCHEDULE)
SHAPES = [(3, 2), (4, 1, 4, 4), (4, 2, 3, 4), (2, 1, 5, 7), (5, 8, 16)]


def normal(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=50)
@given(t=st.integers(0, 999), x0=st.floats(-1, 1), eps=st.floats(-4, 4))
def test_x_t_holds_signal_and_noise_in_their_shares(t, x0, eps):
    x_t = FORWARD.add_noise(torch.tensor([[x0]], dtype=torch.float64), t, torch.tensor([[eps]], dtype=torch.float64))
    assert float(x_t) == pytest.approx(float(A[t]) ** 0.5 * x0 + float(1 - A[t]) ** 0.5 * eps, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_timestep_each_or_one_for_all(shape, dtype):
    x, noise = normal(shape, dtype), normal(shape, dtype, 1)
    t = torch.arange(shape[0]) * 199
    together = FORWARD.add_noise(x, t, noise)
    alone = torch.cat([FORWARD.add_noise(x[i:i + 1], int(t[i]), noise[i:i + 1]) for i in range(shape[0])])
    assert together.shape == shape and together.dtype == dtype
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(FORWARD.add_noise(x, torch.full((shape[0],), 5), noise), FORWARD.add_noise(x, 5, noise), atol=1e-6)


@pytest.mark.parametrize("t", [0, 10, 500, 999])
def test_unit_variance_data_keeps_unit_variance(t):
    torch.manual_seed(7)
    x_t = FORWARD.add_noise(normal((20_000, 1)), t)
    assert float(x_t.var()) == pytest.approx(1, abs=0.05)
    at_rest = FORWARD.add_noise(torch.zeros(20_000, 1), t)
    assert float(at_rest.std()) == pytest.approx(float(1 - A[t]) ** 0.5, rel=0.03)


def test_it_agrees_with_diffusers():
    x, noise, t = normal((4, 1, 8, 8), torch.float32), normal((4, 1, 8, 8), torch.float32, 1), torch.tensor([0, 1, 500, 999])
    theirs = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02).add_noise(x, noise, t)
    assert torch.allclose(FORWARD.add_noise(x, t, noise), theirs, atol=1e-5)


def test_inputs_are_left_alone():
    x, noise, t = normal((3, 2)), normal((3, 2), seed=1), torch.tensor([1, 2, 3])
    before = x.clone(), noise.clone(), t.clone()
    FORWARD.add_noise(x, t, noise)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, noise, t)))


@pytest.mark.parametrize("shape", [(2, 1, 6, 6), (3, 2), (2, 8, 16)])
def test_a_trajectory_follows_one_draw_of_noise(shape):
    x, timesteps = normal(shape), [0, 100, 999]
    trajectory = FORWARD.demonstrate_forward_trajectory(x, timesteps)
    plt.close("all")
    assert trajectory.shape == (3, *shape)
    noise = [(trajectory[k] - A[t].sqrt() * x) / (1 - A[t]).sqrt() for k, t in enumerate(timesteps)]
    assert torch.allclose(noise[0], noise[1], atol=1e-9) and torch.allclose(noise[1], noise[2], atol=1e-9)
    assert float(noise[0].std()) > 0.3


@pytest.mark.parametrize(("x", "t", "noise"), [
    (torch.zeros(2, 3, dtype=torch.uint8), 5, None), (torch.zeros(2, 3), 1000, None), (torch.zeros(2, 3), -1, None),
    (torch.zeros(2, 3), 1.5, None), (torch.zeros(2, 3), 5, torch.zeros(2, 1)),
    (torch.zeros(2, 3), torch.tensor([1, 2, 3]), None),
    (torch.zeros(2, 3), torch.tensor([1.0, 2.0]), None), (torch.zeros(3), 5, None)])
def test_bad_input_is_refused(refuses, x, t, noise):
    refuses(FORWARD.add_noise, x, t, noise)
