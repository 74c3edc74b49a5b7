import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.schedule import CountedSchedule, NoiseSchedule, coefficient

SCHEDULES = {"linear": NoiseSchedule.linear, "scaled_linear": NoiseSchedule.scaled_linear, "cosine": NoiseSchedule.cosine}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 200, 1000])
def test_alpha_bar_is_the_product_of_the_alphas_in_float64(make, T):
    schedule = make(T)
    assert schedule.num_timesteps == T
    for table in (schedule.betas, schedule.alphas, schedule.alphas_cumprod):
        assert table.dtype == torch.float64 and table.shape == (T,) and table.device.type == "cpu"
    logs = [math.log1p(-beta) for beta in schedule.betas.tolist()]
    expected = [math.exp(math.fsum(logs[:t + 1])) for t in range(T)]
    assert schedule.alphas_cumprod.tolist() == pytest.approx(expected, rel=1e-11)
    assert (schedule.alphas + schedule.betas - 1).abs().max() < 1e-15


def test_the_least_noise_is_not_lost_to_float32_rounding():
    schedule = NoiseSchedule.linear()
    assert float(1 - schedule.alphas_cumprod[0]) == pytest.approx(1e-4, rel=1e-11)


def test_linear_betas_run_evenly_from_end_to_end():
    betas = NoiseSchedule.linear(5, 0.1, 0.5).betas
    assert betas.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], rel=1e-14)


def test_scaled_linear_is_linear_in_the_square_root():
    roots = NoiseSchedule.scaled_linear(1000).betas.sqrt()
    assert float(roots[0] ** 2) == pytest.approx(0.00085) and float(roots[-1] ** 2) == pytest.approx(0.012)
    assert roots.diff().std() < 1e-12


def test_cosine_follows_the_squared_cosine_until_its_betas_are_capped():
    schedule = NoiseSchedule.cosine(1000)

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    for t in (0, 10, 500, 990):
        assert float(schedule.alphas_cumprod[t]) == pytest.approx(f((t + 1) / 1000) / f(0), rel=1e-9)
    assert float(schedule.betas.max()) == 0.999


@pytest.mark.parametrize(("make", "name"), [(NoiseSchedule.linear, "linear"), (NoiseSchedule.cosine, "squaredcos_cap_v2"),
                                            (NoiseSchedule.scaled_linear, "scaled_linear")])
def test_tables_agree_with_diffusers_up_to_its_float32(make, name):
    start, end = (0.00085, 0.012) if name == "scaled_linear" else (1e-4, 0.02)
    theirs = DDPMScheduler(1000, beta_schedule=name, beta_start=start, beta_end=end).alphas_cumprod.double()
    assert torch.allclose(make().alphas_cumprod, theirs, rtol=1e-4, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 0.9), min_size=1, max_size=60))
def test_any_betas_make_alpha_bar_fall_strictly_within_0_and_1(betas):
    A = NoiseSchedule.from_betas(betas).alphas_cumprod
    assert bool((A.diff() < 0).all()) and 0 < float(A[-1]) <= float(A[0]) < 1


@pytest.mark.parametrize("betas", [[], [[0.1, 0.2]], [0.0], [0.1, 1.0], [-0.1], [0.1, math.nan], 0.1])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="beta"):
        NoiseSchedule.from_betas(betas)


def test_the_tables_are_not_the_callers_tensor():
    betas = torch.tensor([0.1, 0.2], dtype=torch.float64)
    schedule = NoiseSchedule.from_betas(betas)
    betas.zero_()
    assert schedule.betas.tolist() == [0.1, 0.2]


def test_a_schedule_is_a_key_of_its_own():
    a, b = NoiseSchedule.linear(10), NoiseSchedule.linear(10)
    assert {a: 1, b: 2}[a] == 1 and a != b


def test_a_counted_schedule_is_a_schedule_and_says_how_often_its_table_was_taken():
    counted, plain = CountedSchedule.linear(10), NoiseSchedule.linear(10)
    assert counted.taken_after() == 0
    assert counted.num_timesteps == 10 and counted.taken_after() == 0
    assert torch.equal(counted.alphas_cumprod, plain.alphas_cumprod) and counted.taken_after() == 1
    assert isinstance(counted, NoiseSchedule) and counted.taken_after([counted.alphas_cumprod, counted.alphas_cumprod]) == 3
    assert torch.equal(counted.betas + counted.alphas, torch.ones(10, dtype=torch.float64)) and counted.taken_after() == 5


def test_coefficient_of_an_int_is_a_plain_number():
    table = NoiseSchedule.linear().alphas_cumprod
    value = coefficient(table, 7, torch.zeros(3, 1, 4, 4))
    assert isinstance(value, float) and value == float(table[7])


@pytest.mark.parametrize("shape", [(4, 2), (4, 5), (4, 1, 3, 4), (4, 4, 4, 4), (4, 8, 16)])
def test_coefficients_of_a_batch_vary_along_the_batch_and_nothing_else(shape):
    table, t = NoiseSchedule.linear().alphas_cumprod, torch.tensor([0, 9, 500, 999])
    scaled = coefficient(table, t, torch.ones(shape)) * torch.ones(shape)
    assert scaled.shape == shape and scaled.dtype == torch.float64
    for b in range(4):
        assert bool((scaled[b] == table[t[b]]).all())


@pytest.mark.parametrize("t", [-1, 1000, 2.0, True, torch.tensor([0, 1]), torch.tensor(3), torch.tensor([0.0, 1.0, 2.0]),
                               torch.tensor([True, False, True]), torch.tensor([0, 1, 1000]), torch.tensor([-1, 0, 1])])
def test_timesteps_that_are_not_in_the_table_are_refused(t):
    with pytest.raises(ValueError, match="timestep"):
        coefficient(NoiseSchedule.linear().alphas_cumprod, t, torch.zeros(3, 5))
