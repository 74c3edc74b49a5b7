"""What holds for every solver, and what each promises beside its order."""

import math
from functools import partial

import pytest
import torch

from diffusionlab.guards import check_finite
from diffusionlab.levels import Denoiser, levels_at, log_snr, only_guesses
from diffusionlab.noise_model import Recorder, count_calls
from solutions.lab6_solvers import (adaptive_levels, create_timesteps, solve_ddim, solve_dpm1, solve_dpmpp_2m, solve_heun,
                                    solve_hybrid,
                                    solve_unipc, stop_when_settled, unipc_step, unipc_weights)

DETERMINISTIC = {"ddim": solve_ddim, "dpm1": solve_dpm1, "heun": solve_heun, "2m": solve_dpmpp_2m,
                 "unipc-3": partial(solve_unipc, order=3)}
SOLVERS = DETERMINISTIC | {"hybrid": solve_hybrid}

every_solver = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture
def levels(schedule):
    return levels_at(schedule, create_timesteps(schedule, 10))


@every_solver
def test_solvers_keep_dtype_and_shape_and_change_nothing_given(solve, ring, schedule, levels):
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    given, levels_given = x.clone(), levels.clone()
    made = solve(Denoiser(ring, schedule), x, levels)
    assert made.shape == x.shape and made.dtype == torch.float32
    assert torch.equal(x, given) and torch.equal(levels, levels_given)
    torch.testing.assert_close(DETERMINISTIC["ddim"](Denoiser(ring, schedule), x, levels),
                               DETERMINISTIC["ddim"](Denoiser(ring, schedule), x.double(), levels).float(), rtol=0,
                               atol=1e-4)


@every_solver
def test_the_callback_sees_every_step_and_can_stop_it(solve, ring, schedule, levels, x):
    seen = []
    solve(Denoiser(ring, schedule), x, levels, callback=lambda *each: seen.append(each))
    assert [i for i, *_ in seen] == list(range(10))
    assert [lam for _, lam, *_ in seen] == levels[:-1].tolist()
    assert torch.equal(seen[0][2], x)
    with count_calls() as calls:
        made = solve(Denoiser(ring, schedule), x, levels, callback=lambda i, *_: i == 2)
    assert calls.num_steps == 3
    assert made.shape == x.shape


@pytest.mark.parametrize("name, nfe", [("ddim", 10), ("dpm1", 10), ("heun", 19), ("2m", 10), ("unipc-3", 10)])
def test_network_calls(name, nfe, ring, schedule, levels, x):
    recorder = Recorder(ring)
    SOLVERS[name](Denoiser(recorder, schedule), x, levels)
    assert len(recorder.calls) == nfe
    assert list(dict.fromkeys(call["t"] for call in recorder.calls)) == create_timesteps(schedule, 10).tolist()


@every_solver
def test_bad_input_is_refused(solve, ring, schedule, levels, x, refuses):
    denoise = Denoiser(ring, schedule)
    refuses(solve, denoise, x.to(torch.uint8), levels)
    refuses(solve, denoise, x, levels[[0, 1, 1, 2, 3]])
    refuses(solve, denoise, x, levels[[0, 2, 1, 3]])
    refuses(solve, denoise, x, levels[:1])
    refuses(solve, denoise, x, torch.tensor([-9.0, -2.0, -1.0, 1.0], dtype=torch.float64))
    refuses(solve, lambda x, lam: x * math.nan, x, levels)


def test_what_else_is_refused(ring, schedule, levels, x, refuses):
    denoise = Denoiser(ring, schedule)
    refuses(solve_unipc, denoise, x, levels[-3:], order=3)
    refuses(solve_unipc, denoise, x, levels, variant="bh3")
    refuses(solve_hybrid, denoise, x, levels[:-1].flip(0))
    refuses(solve_hybrid, denoise, x, levels, eta=-1.0)
    refuses(solve_hybrid, denoise, x, levels, eta=5.0)
    refuses(adaptive_levels, denoise, x, levels, 5)
    refuses(adaptive_levels, denoise, x, levels[:-1], 0)
    refuses(adaptive_levels, denoise, x, levels[:-1].flip(0), 5)
    refuses(stop_when_settled, -0.1)
    refuses(stop_when_settled, 0.1, 0)
    for ratios, h, variant in (([], 1.0, "bh1"), ([-1.0, -1.0], 1.0, "bh1"), ([0.0], 1.0, "bh1"), ([1.0], math.inf, "bh1"),
                               ([1.0], 0.0, "bh1")):
        refuses(unipc_weights, ratios, h, variant)


def test_dpm_solver_1_is_ddim(ring, schedule, levels, x):
    for steps in (levels, levels[:-1], levels[:-1].flip(0)):
        torch.testing.assert_close(solve_dpm1(Denoiser(ring, schedule), x, steps),
                                   solve_ddim(Denoiser(ring, schedule), x, steps),
                                   rtol=0, atol=1e-10)


def test_unip_2_is_2m_and_unip_1_is_ddim(ring, schedule, levels, x):
    denoise = Denoiser(ring, schedule)
    torch.testing.assert_close(solve_unipc(denoise, x, levels, order=2, corrector=False), solve_dpmpp_2m(denoise, x, levels),
                               rtol=0, atol=1e-10)
    torch.testing.assert_close(solve_unipc(denoise, x, levels, order=1, corrector=False), solve_ddim(denoise, x, levels),
                               rtol=0, atol=1e-10)


@pytest.mark.parametrize("solve", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_one_known_point_is_reached_in_any_number_of_steps(solve, schedule, x):
    # With a single point as data the guess never changes, and every solver of this kind is exact.
    known = torch.tensor([[0.3, -0.7]], dtype=torch.float64).expand_as(x)
    steps = torch.tensor([-4.0, -1.0, 0.0, 1.0, math.inf], dtype=torch.float64)
    torch.testing.assert_close(solve(lambda x, lam: known, x, steps), known, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solve", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_encoded_and_decoded_again(solve, gaussian, x):
    up = torch.linspace(-2, 2, 201, dtype=torch.float64)
    back = solve(gaussian.denoise, solve(gaussian.denoise, x, up.flip(0)), up)
    assert float((back - x).abs().max()) < 0.05


def test_a_history_takes_the_place_of_the_steps_before(ring, schedule, levels, x):
    for solve in (solve_dpmpp_2m, partial(solve_unipc, order=3, corrector=False)):
        denoise, seen = Denoiser(ring, schedule), []
        whole = solve(denoise, x, levels, callback=lambda i, lam, x, x0: seen.append((lam, x, x0)))
        history = [(lam, x0) for lam, _, x0 in seen[:4]]
        torch.testing.assert_close(solve(denoise, seen[4][1], levels[4:], history=history), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("h", [0.01, 0.5, 3.0, -0.5])
def test_the_weights_integrate_polynomials(variant, h):
    # With x0 a polynomial of lambda, x_next / alpha_next has an integral in closed form: int_0^h e^(u-h) u^n du.
    for ratios in ([-1.0, 1.0], [-0.7, -2.0], [-1.5, -0.4, 1.0]):
        weights = unipc_weights(ratios, h, variant)
        for n in range(1, len(ratios) + 1):
            found = sum(float(w) / r * (r * h) ** n for w, r in zip(weights, ratios))
            u = torch.linspace(0, h, 20_001, dtype=torch.float64)
            assert found == pytest.approx(float(torch.trapezoid((u - h).exp() * u**n, u)), rel=1e-6, abs=1e-12)


def test_a_single_guess_weighs_half_of_B():
    assert float(unipc_weights([-0.8], 0.6, "bh1")[0]) == pytest.approx(0.3)
    assert float(unipc_weights([1.0], 0.6, "bh2")[0]) == pytest.approx((1 - math.exp(-0.6)) / 2)


def test_the_corrector_is_nearer_to_the_truth_than_the_predictor(gaussian, x):
    def guess(lam):
        return lam, gaussian.denoise(gaussian.solution(x, -1.0, lam), lam)
    truth = gaussian.solution(x, -1.0, -0.5)
    for guesses in ([guess(-1.0)], [guess(-1.5), guess(-1.0)]):
        predicted, corrected = unipc_step(x, guesses, -0.5), unipc_step(x, guesses, -0.5, x0_next=guess(-0.5)[1])
        assert float((corrected - truth).abs().max()) < 0.5 * float((predicted - truth).abs().max())


# ---------------------------------------------------------------------------------------------- where to spend steps


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic", "log-snr", "karras"])
@pytest.mark.parametrize("n", [1, 2, 7, 50, 999, 1000])
def test_timesteps_fall_strictly_for_every_number_of_them(schedule, spacing, n):
    steps = create_timesteps(schedule, n, spacing)
    assert steps.dtype == torch.int64 and steps.shape == (n,)
    assert steps[0] == 999 and bool((steps.diff() < 0).all()) and int(steps[-1]) >= 0
    assert n == 1 or spacing == "trailing" or steps[-1] == 0


def test_log_snr_and_karras_lie_where_they_should(schedule):
    levels = torch.tensor([log_snr(schedule, int(t)) for t in create_timesteps(schedule, 8, "log-snr")])
    assert float((levels.diff() - levels.diff().mean()).abs().max()) < 0.1
    roots = torch.tensor([math.exp(-log_snr(schedule, int(t)) / 7) for t in create_timesteps(schedule, 8, "karras")])
    assert float((roots.diff() - roots.diff().mean()).abs().max()) < 0.01


def test_adaptive_levels_even_the_error_out(ring, x):
    grid = torch.linspace(-4, 4, 65, dtype=torch.float64)
    x = x / 2
    made = adaptive_levels(ring.denoise, x, grid, 12)
    assert made[0] == -4 and made[-1] == 4 and len(made) == 13 and bool((made.diff() > 0).all())
    fine = solve_heun(ring.denoise, x, torch.linspace(-4, 4, 2001, dtype=torch.float64))

    def error(levels):
        return float((solve_ddim(ring.denoise, x, levels) - fine).square().mean().sqrt())
    assert error(made) < 0.9 * error(torch.linspace(-4, 4, 13, dtype=torch.float64))


def test_adaptive_levels_are_even_where_there_is_no_error(x):
    grid = torch.linspace(-2, 2, 21, dtype=torch.float64)
    made = adaptive_levels(lambda x, lam: torch.zeros_like(x), torch.zeros_like(x), grid, 4)
    torch.testing.assert_close(made, torch.linspace(-2, 2, 5, dtype=torch.float64), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------- early exit, hybrid


def test_a_run_stops_when_the_guess_has_settled(ring, schedule, x):
    levels = levels_at(schedule, create_timesteps(schedule, 50, "log-snr"))
    stop = stop_when_settled(0.05, patience=2)
    made, calls = [], []
    for _ in range(2):  # the same callback serves again
        with count_calls() as count:
            made.append(solve_ddim(Denoiser(ring, schedule), x, levels, callback=stop))
        calls.append(count.nfe)
    assert calls[0] == calls[1] < 50
    assert torch.equal(*made)
    assert float((made[0] - solve_ddim(Denoiser(ring, schedule), x, levels)).abs().max()) < 0.2
    with count_calls() as count:
        solve_ddim(Denoiser(ring, schedule), x, levels, callback=stop_when_settled(0.0))
    assert count.nfe == 50


def test_the_unsettled_sample_decides():
    stop, x0 = stop_when_settled(0.1, patience=2), torch.zeros(3, 4)
    moved = x0.clone()
    moved[1] = 0.11
    assert [stop(i, 0.5, x0, each) for i, each in enumerate([x0, x0, moved, moved, moved])] == [False, False, False, False,
                                                                                                True]


def test_a_guess_that_has_not_begun_to_move_has_not_settled(ring, schedule, x):
    levels = levels_at(schedule, create_timesteps(schedule, 50))
    whole = solve_ddim(Denoiser(ring, schedule), x, levels)

    def harm(after):
        return float((solve_ddim(Denoiser(ring, schedule), x, levels,
                                 callback=stop_when_settled(1e-2, after=after)) - whole).abs().max())
    assert harm(-9.0) > 0.5 > 0.2 > harm(0.0)


def test_a_hybrid_draws_noise_early_only(schedule, gaussian):
    levels = levels_at(schedule, create_timesteps(schedule, 12))
    denoise, x = Denoiser(gaussian, schedule), torch.zeros(4, 2, dtype=torch.float64)

    def run(seed, **options):
        return solve_hybrid(denoise, x, levels, generator=torch.Generator().manual_seed(seed), **options)
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(run(1, switch=-99.0), solve_dpmpp_2m(denoise, x, levels))
    torch.testing.assert_close(run(1, eta=0.0, switch=99.0), solve_ddim(denoise, x, levels))
    torch.testing.assert_close(run(1, eta=0.0, switch=0.0, late=solve_ddim), solve_ddim(denoise, x, levels))
    assert run(1, late=only_guesses).shape == x.shape


def test_a_stochastic_chain_keeps_the_marginal_for_a_known_point(schedule):
    # With the true noise of a known x_0 each step keeps mean alpha x_0 and variance sigma^2, whatever eta.
    known = torch.full((20_000, 1), 0.4, dtype=torch.float64)
    levels = torch.linspace(-2, 0.5, 6, dtype=torch.float64)
    x = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    from diffusionlab.levels import signal_noise
    alpha, sigma = signal_noise(-2.0)
    for eta in (0.0, 0.6, 1.0):
        made = solve_hybrid(lambda x, lam: known, alpha * 0.4 + sigma * x, levels, eta=eta, switch=9.0,
                            generator=torch.Generator().manual_seed(1))
        alpha_end, sigma_end = signal_noise(0.5)
        assert float(made.mean()) == pytest.approx(alpha_end * 0.4, abs=5 * sigma_end / 20_000**0.5)
        assert float(made.std()) == pytest.approx(sigma_end, rel=5 / 40_000**0.5)
    check_finite(made)
