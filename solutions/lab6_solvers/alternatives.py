"""Right solutions of Lab 6 in other styles than the reference: none of them may lose a point."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import torch

from diffusionlab.levels import check_levels, check_order, signal_noise
from solutions import lab6_solvers as lab
from solutions.questions import Alternatives

ALTERNATIVES = Alternatives()
alternative = ALTERNATIVES.alternative


def guard(x, levels):
    if not torch.is_tensor(x) or not x.is_floating_point():
        raise ValueError("x must be a floating-point tensor, with values around [-1, 1]")
    check_levels(levels)


def finite(x):
    if torch.isnan(x).any() or torch.isinf(x).any():
        raise ValueError("something went wrong on the way: NaN or infinity")
    return x


# ---------------------------------------------------------------------------------------------- DDIM, DPM-Solver-1


@alternative("guess and noise mixed anew, as in Lab 5, float64 inside")
def solve_ddim(denoise, x, levels, *, callback=None):
    guard(x, levels)
    for i in range(len(levels) - 1):
        lam, lam_next = float(levels[i]), float(levels[i + 1])
        x0 = denoise(x, lam)
        if callback and callback(i, lam, x, x0):
            return x0
        A_t, A_s = 1 / (1 + math.exp(-2 * lam)), 1 / (1 + math.exp(-2 * lam_next))
        eps = (x.double() - A_t**0.5 * x0.double()) / (1 - A_t) ** 0.5
        x = (A_s**0.5 * x0.double() + (1 - A_s) ** 0.5 * eps).to(x.dtype)
    return finite(x)


@alternative("coefficients as tables made beforehand, a step as one linear combination of x and x0")
def solve_ddim(denoise, x, levels, *, callback=None):
    guard(x, levels)
    alpha, sigma = (table.sqrt() for table in (torch.sigmoid(2 * levels.double()), torch.sigmoid(-2 * levels.double())))
    on_x = (sigma[1:] / sigma[:-1]).tolist()
    on_x0 = (alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]).tolist()
    for i, (lam, a, b) in enumerate(zip(levels.tolist(), on_x, on_x0)):
        x0 = denoise(x, lam)
        stop = callback(i, lam, x, x0) if callback is not None else False
        if stop:
            return x0
        x = torch.add(a * x, x0, alpha=b)
    return finite(x)


class Walker:
    """A solver as an object that is called."""

    def __call__(self, denoise, x, levels, *, callback=None):
        guard(x, levels)
        for i, (lam, after) in enumerate(itertools.pairwise(levels.tolist())):
            x0 = denoise(x, lam)
            if callback is not None and callback(i, lam, x, x0):
                return x0
            x = self.step(x, x0, lam, after)
        return finite(x)

    def step(self, x, x0, lam, after):
        (a, s), (a_next, s_next) = signal_noise(lam), signal_noise(after)
        return a_next * x0 + s_next / s * (x - a * x0)


alternative("an object that is called", "solve_ddim")(Walker())


class DataForm(Walker):
    """The same step with the guess held still, not the noise: for one step there is no difference."""

    def step(self, x, x0, lam, after):
        (_, s), (a_next, s_next) = signal_noise(lam), signal_noise(after)
        return s_next / s * x - a_next * math.expm1(lam - after) * x0


alternative("the data form of the same step", "solve_dpm1")(DataForm())


@alternative("torch for every coefficient; the limit by alpha_next sigma / alpha - sigma_next")
def solve_dpm1(denoise, x, levels, *, callback=None):
    guard(x, levels)
    for i in range(len(levels) - 1):
        lam, after = levels[i].double(), levels[i + 1].double()
        x0 = denoise(x, float(lam))
        if callback is not None:
            if callback(i, float(lam), x, x0):
                return x0
        alpha, sigma, alpha_next, sigma_next = (torch.sigmoid(2 * each).sqrt() for each in (lam, -lam, after, -after))
        eps = (x - alpha * x0) / sigma
        x = alpha_next / alpha * x - (alpha_next * sigma / alpha - sigma_next) * eps
    return finite(x)


# ---------------------------------------------------------------------------------------------- Heun


@alternative("y is carried from step to step, in the names of the EDM paper")
def solve_heun(denoise, x, levels, *, callback=None):
    guard(x, levels)
    lams = levels.tolist()
    t_steps = [math.exp(-lam) for lam in lams]
    x_cur = x * math.sqrt(1 + t_steps[0] ** 2)
    for i, (lam, after, t_cur, t_next) in enumerate(zip(lams, lams[1:], t_steps, t_steps[1:])):
        scaled = x_cur / math.sqrt(1 + t_cur**2)
        denoised = denoise(scaled, lam)
        if callback is not None and callback(i, lam, scaled, denoised):
            return denoised
        d_cur = (x_cur - denoised) / t_cur
        x_next = x_cur + (t_next - t_cur) * d_cur
        if t_next > 0:
            d_prime = (x_next - denoise(x_next / math.sqrt(1 + t_next**2), after)) / t_next
            x_next = x_cur + (t_next - t_cur) * (0.5 * d_cur + 0.5 * d_prime)
        x_cur = x_next
    return finite(x_cur / math.sqrt(1 + t_steps[-1] ** 2))


@alternative("Euler's step by DDIM's formula, then a correction of half the difference")
def solve_heun(denoise, x, levels, *, callback=None):
    guard(x, levels)
    for i, (lam, after) in enumerate(zip(levels[:-1].tolist(), levels[1:].tolist())):
        (a, s), (a_next, s_next) = signal_noise(lam), signal_noise(after)
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        eps = (x - a * x0) / s
        x = a_next * x0 + s_next * eps
        if after != math.inf:
            eps_next = (x - a_next * denoise(x, after)) / s_next
            x = x + (s_next - a_next * s / a) * (eps_next - eps) / 2
    return finite(x)


# ---------------------------------------------------------------------------------------------- DPM-Solver++(2M)


@alternative("a deque of guesses, two coefficients instead of D")
def solve_dpmpp_2m(denoise, x, levels, *, callback=None, lower_order_final=True, history=()):
    guard(x, levels)
    guesses = collections.deque(history, maxlen=2)
    n = len(levels) - 1
    for i in range(n):
        lam, after = float(levels[i]), float(levels[i + 1])
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        guesses.append((lam, x0))
        ratio, b = signal_noise(after)[1] / signal_noise(lam)[1], signal_noise(after)[0] * (1 - math.exp(lam - after))
        if len(guesses) == 1 or after == math.inf or (lower_order_final and i + 1 == n):
            x = ratio * x + b * x0
        else:
            (lam_1, x1), _ = guesses
            c = (after - lam) / (2 * (lam - lam_1))
            x = ratio * x + b * ((1 + c) * x0 - c * x1)
    return finite(x)


@alternative("UniPC's predictor of order 2, which it is")
def solve_dpmpp_2m(denoise, x, levels, *, callback=None, lower_order_final=True, history=()):
    guard(x, levels)
    history = list(history)[-1:]
    if len(levels) == 2:
        return lab.solve_unipc(denoise, x, levels, callback=callback, order=1) if lower_order_final or not history else \
            finite(lab.unipc_step(x, [*history, (float(levels[0]), denoise(x, float(levels[0])))], float(levels[1])))
    return lab.solve_unipc(denoise, x, levels, callback=callback, order=2, corrector=False,
                           lower_order_final=lower_order_final, history=history)


# ---------------------------------------------------------------------------------------------- UniPC


@alternative("diffusers' way to the weights, in numpy")
def unipc_weights(ratios, h, variant="bh2"):
    if variant not in {"bh1", "bh2"} or not 0 < abs(h) < math.inf:
        raise ValueError(f"no such step or variant: {h}, {variant}")
    if len(ratios) == 0 or len(np.unique(ratios)) < len(ratios) or not np.all(ratios):
        raise ValueError(f"these ratios give no system of equations: {ratios}")
    hh = -h
    B_h = hh if variant == "bh1" else math.expm1(hh)
    h_phi_k, factorial, R, b = math.expm1(hh) / hh - 1, 1, [], []
    for i in range(1, len(ratios) + 1):
        R.append(np.asarray(ratios, dtype=np.float64) ** (i - 1))
        b.append(h_phi_k * factorial / B_h)
        factorial *= i + 1
        h_phi_k = h_phi_k / hh - 1 / factorial
    rhos = np.array([0.5]) if len(ratios) == 1 else np.linalg.solve(np.stack(R), np.array(b))
    return torch.from_numpy(-B_h * rhos)


@alternative("the moments of e^(u-h) by parts, and a Vandermonde matrix")
def unipc_weights(ratios, h, variant="bh2"):
    if variant not in ("bh1", "bh2"):
        raise ValueError("variant is bh1 or bh2")
    if not math.isfinite(h) or h == 0 or not ratios or 0.0 in ratios or len(set(ratios)) != len(ratios):
        raise ValueError("a finite step and different ratios, please")
    moments = [1 - math.exp(-h)]
    if len(ratios) == 1:
        return 0.5 * torch.tensor([moments[0] if variant == "bh2" else h], dtype=torch.float64)
    for n in range(1, len(ratios) + 1):
        moments.append(h**n - n * moments[-1])
    matrix = torch.linalg.vander(torch.tensor(ratios, dtype=torch.float64)).T
    return torch.linalg.inv(matrix) @ torch.tensor([moments[n] / h**n for n in range(1, len(ratios) + 1)],
                                                   dtype=torch.float64)


@alternative("all guesses stacked, one einsum")
def unipc_step(x, guesses, lam_next, *, x0_next=None, variant="bh2"):
    lam, x0 = guesses[-1]
    h = lam_next - lam
    points = list(guesses[:-1]) + ([] if x0_next is None else [(lam_next, x0_next)])
    alpha_next, sigma_next = signal_noise(lam_next)
    x_next = sigma_next / signal_noise(lam)[1] * x + alpha_next * (1 - math.exp(-h)) * x0
    if points:
        r = torch.tensor([(lam_k - lam) / h for lam_k, _ in points], dtype=torch.float64)
        slopes = torch.stack([x0_k - x0 for _, x0_k in points]) / r.reshape(-1, *[1] * x.ndim)
        x_next = x_next + alpha_next * torch.einsum("k,k...->...", lab.unipc_weights(r.tolist(), h, variant), slopes)
    return x_next


@alternative("predictor and corrector as two lists, like the library's")
def solve_unipc(denoise, x, levels, *, callback=None, order=2, variant="bh2", corrector=True, lower_order_final=True,
                history=()):
    guard(x, levels)
    n = len(levels) - 1
    check_order(order, n)
    outputs, lams = [x0 for _, x0 in history], [lam for lam, _ in history]
    last_sample, this_order = None, 0
    for i in range(n):
        lam, after = levels[i].item(), levels[i + 1].item()
        output = denoise(x, lam)
        if callback is not None and callback(i, lam, x, output):
            return output
        if corrector and last_sample is not None:
            x = lab.unipc_step(last_sample, list(zip(lams, outputs))[-this_order:], lam, x0_next=output, variant=variant)
        outputs.append(output)
        lams.append(lam)
        this_order = min(order, n - i) if lower_order_final else order
        if after == math.inf:
            this_order = 1
        this_order = min(this_order, len(outputs))
        last_sample = x
        x = lab.unipc_step(x, list(zip(lams, outputs))[-this_order:], after, variant=variant)
    return finite(x)


# ---------------------------------------------------------------------------------------------- the rest


@alternative("numpy's polyfit")
def measured_order(num_steps, errors):
    if len(num_steps) != len(errors) or len(set(num_steps)) < 2 or min(errors) <= 0:
        raise ValueError("an order takes two different numbers of steps and positive errors")
    return -np.polyfit(np.log(num_steps), np.log(errors), 1)[0]


@alternative("least squares by torch, base 2")
def measured_order(num_steps, errors):
    if any(not e > 0 for e in errors):
        raise ValueError("errors must be positive")
    if min(num_steps) == max(num_steps):
        raise ValueError("no line goes through a single number of steps")
    n = torch.tensor(num_steps, dtype=torch.float64).log2()
    solution = torch.linalg.lstsq(torch.stack([n, torch.ones_like(n)], dim=1),
                                  torch.tensor(errors, dtype=torch.float64).log2()[:, None]).solution
    return -solution[0, 0].item()


@alternative("numpy throughout, the nearest rows by broadcasting")
def create_timesteps(schedule, num_steps, spacing="uniform"):
    T, n = schedule.num_timesteps, num_steps
    if not isinstance(n, int) or not 1 <= n <= T:
        raise ValueError(f"num_steps must be in 1..{T}")
    A = schedule.alphas_cumprod.numpy()
    table = 0.5 * np.log(A / (1 - A))
    u = np.linspace(0, 1, n)
    if spacing == "uniform":
        steps = np.rint((T - 1) * (1 - u))
    elif spacing == "trailing":
        steps = np.rint(np.arange(n, 0, -1) * T / n) - 1
    elif spacing == "quadratic":
        steps = np.maximum(np.rint((T - 1) * u**2), np.arange(n))[::-1]
    elif spacing in ("log-snr", "karras"):
        s_max, s_min = np.exp(-table[-1]), np.exp(-table[0])
        roots = s_max ** (1 / 7) + u * (s_min ** (1 / 7) - s_max ** (1 / 7))
        lams = table[-1] + u * (table[0] - table[-1]) if spacing == "log-snr" else -7 * np.log(roots)
        steps = np.abs(table[None] - lams[:, None]).argmin(1)[::-1].copy()
        for i in range(1, n):
            steps[i] = max(steps[i], steps[i - 1] + 1)
        steps = np.minimum(steps, T - n + np.arange(n))[::-1]
    else:
        raise ValueError(f"no such spacing: {spacing}")
    return torch.tensor([T - 1]) if n == 1 else torch.from_numpy(steps.astype(np.int64))


@alternative("numpy's interp inverts the sum; Euler and Heun by their own functions")
def adaptive_levels(denoise, x, levels, num_steps):
    if not torch.isfinite(levels).all() or num_steps < 1:
        raise ValueError("a finite grid and at least one step, please")
    guard(x, levels)
    if levels[0] > levels[-1]:
        raise ValueError("the grid must rise")
    counts, asked = [], {}

    def once(x, lam):
        # Heun asks at the same x as Euler, first.
        key = (id(x), lam)
        if key not in asked:
            asked[key] = denoise(x, lam)
        return asked[key]

    for i in range(len(levels) - 1):
        pair = levels[i:i + 2]
        euler, heun = lab.solve_ddim(once, x, pair), lab.solve_heun(once, x, pair)
        counts.append(math.sqrt(math.sqrt(float(((euler - heun) ** 2).mean()))))
        x, asked = heun, {}
    counts = np.array(counts)
    if counts.sum() == 0:
        counts = np.diff(levels.numpy())
    total = np.concatenate([[0], np.cumsum(counts + 1e-12 * counts.sum())])
    return torch.from_numpy(np.interp(np.linspace(0, total[-1], num_steps + 1), total, levels.numpy()))


@alternative("a class whose objects are called")
class stop_when_settled:
    def __init__(self, tolerance, patience=1, after=0.0):
        if tolerance < 0 or patience < 1:
            raise ValueError("tolerance from 0 on, patience from 1 on")
        self.tolerance, self.patience, self.after = tolerance, patience, after

    def __call__(self, i, lam, x, x0):
        if i == 0:
            self.calm = 0
        elif lam < self.after or torch.linalg.vector_norm((x0 - self.last).flatten(1),
                                                          dim=1).max() > self.tolerance * x0[0].numel() ** 0.5:
            self.calm = 0
        else:
            self.calm += 1
        self.last = x0.clone()
        return self.calm >= self.patience


@alternative("two loops, and noise drawn with torch.randn")
def solve_hybrid(denoise, x, levels, *, callback=None, switch=0.0, eta=1.0, late=lab.solve_dpmpp_2m, generator=None):
    guard(x, levels)
    if eta < 0 or levels[0] > levels[-1]:
        raise ValueError("eta must not be negative, and the levels must rise")
    k = next((i for i, lam in enumerate(levels[:-1].tolist()) if lam >= switch), len(levels) - 1)
    for i, (lam, after) in enumerate(zip(levels[:k].tolist(), levels[1:k + 1].tolist())):
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        A_t, A_s = signal_noise(lam)[0] ** 2, signal_noise(after)[0] ** 2
        variance = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        if variance > 1 - A_s:
            raise ValueError("eta is too large")
        eps = (x - A_t**0.5 * x0) / (1 - A_t) ** 0.5
        x = A_s**0.5 * x0 + (1 - A_s - variance) ** 0.5 * eps + variance**0.5 * torch.randn(x.shape, dtype=x.dtype,
                                                                                            generator=generator)
    if k == len(levels) - 1:
        return finite(x)
    return late(denoise, x, levels[k:], callback=callback and (lambda i, *rest: callback(i + k, *rest)))


@alternative("Python's own round and range")
def library_timesteps(num_train_timesteps, num_steps, spacing="leading", steps_offset=0):
    T, n = num_train_timesteps, num_steps
    made = {"leading": lambda: [i * (T // n) + steps_offset for i in reversed(range(n))],
            "linspace": lambda: [round(i * (T - 1) / max(n - 1, 1)) for i in reversed(range(n))],
            "trailing": lambda: [round(T - i * T / n) - 1 for i in range(n)]}
    if spacing not in made or not 1 <= n <= T:
        raise ValueError(f"no such spacing or number of steps: {spacing}, {n}")
    return torch.tensor(made[spacing]())
