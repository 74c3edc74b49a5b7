"""Noise levels on the scale of log-SNR, and networks of every kind of prediction in the form that solvers take."""

import math

import pytest
import torch

from diffusionlab import NoiseSchedule, analytic
from diffusionlab.levels import (Denoiser, Trajectory, check_levels, check_order, levels_at, log_snr, only_guesses, signal_noise,
                                 table_of_log_snr, timestep_at, timesteps_near)
from diffusionlab.noise_model import Recorder

SCHEDULES = [NoiseSchedule.linear(), NoiseSchedule.cosine(), NoiseSchedule.scaled_linear(),
             NoiseSchedule.linear(12, 0.02, 0.4)]


def test_the_log_snr_is_half_the_logarithm_of_lab_5s_snr():
    schedule = NoiseSchedule.linear()
    A = float(schedule.alphas_cumprod[300])
    assert log_snr(schedule, 300) == pytest.approx(math.log(A / (1 - A)) / 2, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_signal_and_noise_come_back_from_the_log_snr(schedule):
    for t in range(schedule.num_timesteps):
        alpha, sigma = signal_noise(log_snr(schedule, t))
        A = float(schedule.alphas_cumprod[t])
        assert alpha == pytest.approx(math.sqrt(A), rel=1e-9)
        assert sigma == pytest.approx(math.sqrt(1 - A), rel=1e-9)
        assert timestep_at(schedule, log_snr(schedule, t)) == t


@pytest.mark.parametrize("lam", [-800.0, -40.0, -1.0, 0.0, 3.0, 40.0, 800.0, math.inf])
def test_signal_and_noise_neither_overflow_nor_lose_the_small_one(lam):
    alpha, sigma = signal_noise(lam)
    assert alpha**2 + sigma**2 == pytest.approx(1)
    if abs(lam) < 100:
        assert math.log(alpha / sigma) == pytest.approx(lam)


def test_clean_data_is_infinitely_far(refused):
    schedule = SCHEDULES[0]
    assert log_snr(schedule, -1) == math.inf and signal_noise(math.inf) == (1.0, 0.0)
    assert levels_at(schedule, [500, 20])[-1] == math.inf
    assert levels_at(schedule, torch.tensor([500, 20]), end=3).tolist() == [log_snr(schedule, t) for t in (500, 20, 3)]
    refused(levels_at, schedule, [500, 500])
    refused(levels_at, schedule, [20, 500])
    refused(levels_at, schedule, [500, 20], 20)
    refused(levels_at, schedule, [1000])


@pytest.mark.parametrize("lam", [-6.0, 5.0, math.inf, math.nan])
def test_a_log_snr_outside_the_table_is_refused(lam, refused):
    refused(timestep_at, SCHEDULES[0], lam)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [2, 5, 12])
def test_timesteps_near_levels_are_the_nearest_and_never_the_same(schedule, n):
    lowest, highest = log_snr(schedule, schedule.num_timesteps - 1), log_snr(schedule, 0)
    found = timesteps_near(schedule, torch.linspace(lowest, highest, n, dtype=torch.float64))
    assert found.dtype == torch.int64 and len(found) == n
    assert found[0] == schedule.num_timesteps - 1 and found[-1] == 0
    assert bool((found.diff() < 0).all())


@pytest.mark.parametrize("schedule", [each for each in SCHEDULES if each.num_timesteps == 1000])
def test_where_levels_lie_apart_the_nearest_timesteps_are_found(schedule):
    table, levels = table_of_log_snr(schedule), torch.linspace(-2.0, 3.0, 6, dtype=torch.float64)
    assert timesteps_near(schedule, levels).tolist() == [int((table - lam).abs().argmin()) for lam in levels]


def test_crowded_levels_are_kept_apart_and_inside(refused):
    schedule = SCHEDULES[3]
    assert timesteps_near(schedule, torch.full((4,), log_snr(schedule, 0))).tolist() == [3, 2, 1, 0]
    assert timesteps_near(schedule, torch.full((4,), log_snr(schedule, 11))).tolist() == [11, 10, 9, 8]
    refused(timesteps_near, schedule, torch.zeros(13))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_kind_of_prediction_gives_the_same_guess(prediction):
    schedule = SCHEDULES[0]
    exact = analytic.GaussianModel(schedule, 0.3, 0.5, (3,))
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def model(x, t):
        alpha, sigma = signal_noise(log_snr(schedule, int(t[0])))
        eps = exact(x, t)
        x0 = (x - sigma * eps) / alpha
        return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[prediction]

    for t in (999, 300, 0):
        lam = log_snr(schedule, t)
        torch.testing.assert_close(Denoiser(model, schedule, prediction)(x, lam), exact.denoise(x, lam), rtol=0, atol=1e-9)


def test_a_network_is_asked_properly(refused):
    schedule = SCHEDULES[0]
    recorder = Recorder(analytic.GaussianModel(schedule, 0.3, 0.5, (3,))).train()
    denoise = Denoiser(recorder, schedule)
    x = torch.randn(4, 3, requires_grad=True)
    x0 = denoise(x, log_snr(schedule, 700))
    assert x0.dtype == torch.float32 and not x0.requires_grad
    assert recorder.calls == [{"t": 700, "batch": 4, "grad": False, "training": False}]
    refused(denoise, x, math.inf)
    refused(denoise, torch.ones(4, 3, dtype=torch.uint8), 0.0)
    refused(Denoiser(lambda x, t: x[:1], schedule), x, 0.0)
    refused(Denoiser, recorder, schedule, "noise")


def test_only_guesses_asks_at_every_level_but_the_last_and_can_be_stopped():
    levels, x = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.zeros(2, 3)
    kept, stopped = Trajectory(), Trajectory(stop_at=1)
    assert only_guesses(lambda x, lam: x + lam, x, levels, callback=kept).tolist() == [[7.0] * 3] * 2
    assert [each[:2] for each in kept.steps] == [(0, 1.0), (1, 2.0), (2, 4.0)]
    assert only_guesses(lambda x, lam: x + lam, x, levels, callback=stopped).tolist() == [[3.0] * 3] * 2


def test_a_trajectory_keeps_copies_and_can_stop_the_run():
    path, x = Trajectory(stop_at=1), torch.zeros(2, 3)
    assert [path(i, float(i), x, x + i) for i in range(2)] == [False, True]
    x += 9
    run = path.after(x)
    assert run["i"] == [0, 1] and run["lam"] == [0.0, 1.0] and run["result"] is x
    assert float(run["x"].max()) == 0 and run["x0"][1].tolist() == [[1.0] * 3] * 2
    assert Trajectory().after(x)["x"].numel() == 0


def test_levels_rise_or_fall_and_only_the_last_is_infinite(refused):
    for good in ([0.0, 1.0], [0.0, math.inf], [2.0, 1.0, 0.0]):
        check_levels(torch.tensor(good))
    for bad in ([0.0], [0.0, 0.0], [0.0, 1.0, 0.5], [math.inf, 1.0], [0.0, math.nan], [1.0, -math.inf]):
        refused(check_levels, torch.tensor(bad))
    refused(check_levels, torch.tensor([1, 2]))
    refused(check_levels, [0.0, 1.0])


def test_an_order_needs_as_many_steps(refused):
    check_order(3, 3)
    refused(check_order, 3, 2)
    refused(check_order, 0, 2)
    refused(check_order, 4, 20)
    refused(check_order, True, 20)


def test_an_exact_model_s_solution_solves_the_equation():
    model = analytic.GaussianModel(SCHEDULES[0], 0.3, 0.5, (3,))
    x = torch.randn(5, 3, dtype=torch.float64)
    (alpha, sigma), h = signal_noise(0.4), 1e-6
    y = [model.solution(x, 0.4, lam) / signal_noise(lam)[0] for lam in (0.4 - h, 0.4 + h)]
    s = [signal_noise(lam)[1] / signal_noise(lam)[0] for lam in (0.4 - h, 0.4 + h)]
    eps = (x - alpha * model.denoise(x, 0.4)) / sigma
    torch.testing.assert_close((y[1] - y[0]) / (s[1] - s[0]), eps, rtol=0, atol=1e-7)


@pytest.fixture
def refused():
    def refused(function, *args):
        with pytest.raises(ValueError) as refusal:
            function(*args)
        assert 20 < len(str(refusal.value)) < 200 and "\n" not in str(refusal.value)
    return refused
