"""The order of every solver, measured in continuous time on exact models, to a fixed end, with exact starting values."""

from functools import cache, partial

import pytest
import torch
from scipy.integrate import solve_ivp

from diffusionlab.levels import signal_noise
from solutions.lab6_solvers import (measured_order, solve_ddim, solve_dpm1, solve_dpmpp_2m, solve_heun, solve_hybrid,
                                    solve_unipc)

START, END = -3.0, 1.0
STEPS = [160, 320, 640]

SOLVERS = {"ddim": (solve_ddim, 0, 1), "dpm-solver-1": (solve_dpm1, 0, 1), "heun": (solve_heun, 0, 2),
           "dpm-solver++(2m)": (partial(solve_dpmpp_2m, lower_order_final=False), 1, 2)}
for p in (1, 2, 3):
    for variant in ("bh1", "bh2"):
        settings = {"order": p, "variant": variant, "lower_order_final": False}
        SOLVERS[f"unip-{p} {variant}"] = partial(solve_unipc, corrector=False, **settings), p - 1, p
        SOLVERS[f"unipc-{p} {variant}"] = partial(solve_unipc, **settings), p - 1, p + 1


def errors(solver, model, exact, needs: int):
    """The largest error at the end for each number of steps; `exact(lam)` is the true solution, from which `needs` guesses
    come."""
    found = []
    for n in STEPS:
        levels = torch.linspace(START, END, n + 1, dtype=torch.float64)
        before = [START - k * (END - START) / n for k in range(needs, 0, -1)]
        history = {"history": [(lam, model.denoise(exact(lam), lam)) for lam in before]} if needs else {}
        found.append(float((solver(model.denoise, exact(START), levels, **history) - exact(END)).abs().max()))
    return found


@pytest.mark.parametrize("name", SOLVERS)
def test_the_order_on_a_gaussian(name, gaussian, x):
    solver, needs, order = SOLVERS[name]
    found = errors(solver, gaussian, lambda lam: gaussian.solution(x, START, lam), needs)
    assert measured_order(STEPS, found) == pytest.approx(order, abs=0.15)


@pytest.fixture(scope="module")
def path():
    """The true way of a point through a mixture, by a solver that is none of ours."""
    from diffusionlab import NoiseSchedule, analytic

    model = analytic.GaussianMixture.ring(NoiseSchedule.linear(), components=3, std=0.4)
    x = torch.tensor([[0.7, -0.4]], dtype=torch.float64)

    def slope(s, y):  # dy/ds = eps in y = x / alpha and s = sigma / alpha = exp(-lam)
        lam = -float(torch.tensor(s, dtype=torch.float64).log())
        alpha, sigma = signal_noise(lam)
        x = alpha * torch.tensor(y, dtype=torch.float64)[None]
        return ((x - alpha * model.denoise(x, lam)) / sigma)[0].numpy()

    @cache
    def exact(lam):
        s_start, s_end = (float(torch.tensor(-each, dtype=torch.float64).exp()) for each in (START, lam))
        y = x[0].numpy() / signal_noise(START)[0]
        if s_start != s_end:
            y = solve_ivp(slope, (s_start, s_end), y, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
        return signal_noise(lam)[0] * torch.tensor(y)[None]

    return model, exact


@pytest.mark.parametrize("name", ["ddim", "heun", "dpm-solver++(2m)", "unip-2 bh2", "unipc-1 bh2", "unipc-2 bh2"])
def test_the_order_on_a_mixture_which_is_not_linear(name, path):
    solver, needs, order = SOLVERS[name]
    assert measured_order(STEPS, errors(solver, *path, needs)) == pytest.approx(order, abs=0.15)


def test_a_hybrid_without_noise_has_the_order_of_its_worse_half(gaussian, x):
    solver = partial(solve_hybrid, eta=0.0, switch=-1.0)
    assert measured_order(STEPS, errors(solver, gaussian, lambda lam: gaussian.solution(x, START, lam),
                                        0)) == pytest.approx(1, abs=0.15)


def test_bh1_and_bh2_differ_only_where_a_single_guess_is_weighed(gaussian, x):
    levels = torch.linspace(START, END, 11, dtype=torch.float64)
    history = [(lam, gaussian.denoise(gaussian.solution(x, START, lam), lam)) for lam in (-3.8, -3.4)]

    def gap(order):
        both = [solve_unipc(gaussian.denoise, x, levels, order=order, variant=variant, lower_order_final=False,
                            history=history)
                for variant in ("bh1", "bh2")]
        return float((both[0] - both[1]).abs().max())
    assert gap(2) > 1e-3 > 1e-10 > gap(3)


def test_orders_are_measured_and_nonsense_is_refused():
    assert measured_order([10, 20, 40], [3 / n**1.5 for n in (10, 20, 40)]) == pytest.approx(1.5)
    for steps, found in (([10], [1.0]), ([10, 10], [1.0, 2.0]), ([10, 20], [1.0, 0.0]), ([10, 20], [1.0])):
        with pytest.raises(ValueError):
            measured_order(steps, found)
