"""Typical mistakes of Lab 6: each a variant of one reference function, what the student sees, and a hint.

The first entry that explains everything that was seen is the one named. A mutant that equals the reference on all valid
input is no mistake and is not listed: bh1 for bh2 where the weights come from a system of equations, for one; B(h) cancels
there.
"""

import math

import torch

from diffusionlab.levels import check_levels, log_snr, signal_noise, table_of_log_snr, timestep_at, timesteps_near
from solutions.questions import Catalogue

from . import (adaptive_levels as right_adaptive, create_timesteps as right_timesteps, library_timesteps as right_library,
               measured_order as right_order, solve_ddim as right_ddim, solve_dpm1 as right_dpm1,
               solve_dpmpp_2m as right_dpmpp, solve_heun as right_heun, solve_hybrid as right_hybrid,
               solve_unipc as right_unipc, stop_when_settled as right_stop, unipc_step as right_step,
               unipc_weights as right_weights)

MISTAKES = Catalogue()


def put(question, id, symptom, hint, name, function):
    """Register a wrong function under the reference's name."""
    function.__name__ = name
    MISTAKES.mistake(question, id, symptom, hint)(function)


# ---------------------------------------------------------------------------------- what goes wrong alike in every solver


def about_the_run(change):
    """A solver run on other arguments, which `change` makes of (denoise, x, levels, callback)."""
    def make(right):
        def solve(denoise, x, levels, *, callback=None, **options):
            denoise, x, levels, callback = change(denoise, x, levels, callback)
            return right(denoise, x, levels, callback=callback, **options)
        return solve
    return make


def about_the_result(change):
    """A solver whose result becomes `change(result, x)`."""
    def make(right):
        def solve(denoise, x, levels, **options):
            return change(right(denoise, x, levels, **options), x)
        return solve
    return make


def stops_with_x(right):
    def solve(denoise, x, levels, *, callback=None, **options):
        last = {}

        def remember(i, lam, x, x0):
            stop = callback(i, lam, x, x0)
            last["x"] = x if stop else None
            return stop
        result = right(denoise, x, levels, callback=callback and remember, **options)
        return result if last.get("x") is None else last["x"]
    return solve


def asked_at_the_next(denoise, x, levels, callback):
    steps = levels.tolist()
    following = {lam: after if math.isfinite(after) else lam for lam, after in zip(steps, steps[1:])}
    return lambda x, lam: denoise(x, following.get(lam, lam)), x, levels, callback


def asked_twice(denoise, x, levels, callback):
    return lambda x, lam: (denoise(x, lam), denoise(x, lam))[1], x, levels, callback


def on_other_levels(pick):
    return about_the_run(lambda denoise, x, levels, callback: (denoise, x, pick(levels), callback))


def not_listening(callback):
    def heard(*each):
        callback(*each)
    return heard


def counting_from_1(callback):
    def heard(i, *rest):
        return callback(i + 1, *rest)
    return heard


def swapping(callback):
    def heard(i, lam, x, x0):
        return callback(i, lam, x0, x)
    return heard


def told(respond):
    return about_the_run(lambda denoise, x, levels, callback: (denoise, x, levels, callback and respond(callback)))


ALIKE = {
    "asks-next": ("The model is asked at the level that the step leads to.",
                  "x is at levels[i]: that is what the model must be told.",
                  about_the_run(asked_at_the_next)),
    "asks-twice": ("The model is called twice as often as need be.", "Keep its answer: the network is what takes the time.",
                   about_the_run(asked_twice)),
    "skips-first": ("The first step is missing.", "x is at levels[0]; pair each level with its successor.",
                    on_other_levels(lambda levels: levels[1:] if len(levels) > 2 else levels)),
    "skips-last": ("The last step is missing.", "n + 1 levels are n steps: the last leads to levels[-1].",
                   on_other_levels(lambda levels: levels[:-1] if len(levels) > 2 else levels)),
    "only-rises": ("Falling levels are turned round.", "Walk them in the order given: up for sampling, down for encoding.",
                   on_other_levels(lambda levels: levels.sort().values)),
    "dtype": ("Your result is float64 whatever x was.",
              "Take Python floats as coefficients: they leave the dtype of x alone.",
              about_the_result(lambda result, x: result.double())),
    "in-place": ("You write the result into the x that was passed in.",
                 "Whoever called you still needs it: `+=`, `mul_` and the like change it.",
                 about_the_result(lambda result, x: x.copy_(result))),
    "never-calls-back": ("The callback is never called.", "Call it once a step, after the guess.",
                         told(lambda callback: None)),
    "never-stops": ("What the callback returns is not looked at.", "Where it is True, return x0 at once.",
                    told(not_listening)),
    "stops-with-x": ("Stopped by the callback, you return the noisy x.",
                     "The best there is at that moment is the guess: return x0.",
                     stops_with_x),
    "counts-from-1": ("The callback is told steps 1, 2, ...", "Steps are counted from 0, as `enumerate` does.",
                      told(counting_from_1)),
    "swaps-x-and-x0": ("The callback gets x0 where it expects x.", "Its arguments are i, lam, x, x0.",
                       told(swapping)),
}

SOLVERS = {"ddim-euler": ("ddim", right_ddim), "heun": ("heun", right_heun), "dpm-solver-1": ("dpm1", right_dpm1),
           "dpm-solver-2m": ("dpmpp", right_dpmpp), "unipc-loop": ("unipc", right_unipc)}
UNSUITABLE = {"unipc-only-rises", "unipc-dtype"}  # its question asks for neither
for question, (short, right) in SOLVERS.items():
    for kind, (symptom, hint, make) in ALIKE.items():
        if f"{short}-{kind}" not in UNSUITABLE:
            put(question, f"{short}-{kind}", symptom, hint, right.__name__, make(right))


# ---------------------------------------------------------------------------------------------- DDIM as Euler, DPM-Solver-1


def one_call(question, name, entries):
    """Register solvers with one guess a step: `step(x, x0, (lam, alpha, sigma), (lam_next, alpha_next, sigma_next))`."""
    def make(step):
        def solve(denoise, x, levels, *, callback=None):
            check_levels(levels)
            steps = levels.tolist()
            for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
                x0 = denoise(x, lam)
                if callback is not None and callback(i, lam, x, x0):
                    return x0
                x = step(x, x0, (lam, *signal_noise(lam)), (lam_next, *signal_noise(lam_next)))
            return x
        return solve
    for id, symptom, hint, step in entries:
        put(question, id, symptom, hint, name, make(step))


def eps_of(x, x0, now):
    _, alpha, sigma = now
    return (x - alpha * x0) / sigma


def euler(x, x0, now, after, *, eps=eps_of, width=lambda now, after: after[2] / after[1] - now[2] / now[1],
          into=lambda x, now: x / now[1], back=lambda y, after: after[1] * y):
    return back(into(x, now) + width(now, after) * eps(x, x0, now), after)


one_call("ddim-euler", "solve_ddim", [
    ("ddim-guess-only", "Every step returns the guess, without noise.",
     "At level s there must be noise sigma_s: mix eps back in.",
     lambda x, x0, now, after: after[1] * x0),
    ("ddim-old-noise", "The noise keeps its old strength.", "At the next level it is sigma_next eps.",
     lambda x, x0, now, after: after[1] * x0 + now[2] * eps_of(x, x0, now)),
    ("ddim-old-signal", "The guess is mixed in with the old alpha.", "At the next level it is alpha_next x0.",
     lambda x, x0, now, after: now[1] * x0 + after[2] * eps_of(x, x0, now)),
    ("ddim-not-back", "You return y, not x.", "Multiply by alpha_next at the end: y = x / alpha.",
     lambda x, x0, now, after: euler(x, x0, now, after, back=lambda y, after: y)),
    ("ddim-not-into", "You add the step to x, not to y = x / alpha.", "The equation dy/ds = eps is one for y.",
     lambda x, x0, now, after: euler(x, x0, now, after, into=lambda x, now: x)),
    ("ddim-eps-unscaled", "Your noise is not divided by sigma.", "x = alpha x0 + sigma eps; solve it for eps.",
     lambda x, x0, now, after: euler(x, x0, now, after, eps=lambda x, x0, now: x - now[1] * x0)),
    ("ddim-eps-no-alpha", "In your noise x0 lacks its alpha.",
     "x = alpha x0 + sigma eps. (x - x0) / sigma holds for y, not for x.",
     lambda x, x0, now, after: euler(x, x0, now, after, eps=lambda x, x0, now: (x - x0) / now[2])),
    ("ddim-x0-for-eps", "The slope is the guess x0.", "dy/ds is the noise: eps = (x - alpha x0) / sigma.",
     lambda x, x0, now, after: euler(x, x0, now, after, eps=lambda x, x0, now: x0)),
    ("ddim-lambda-width", "The width of the step is taken in log-SNR.",
     "The variable of this equation is s = sigma / alpha.",
     lambda x, x0, now, after: euler(x, x0, now, after, width=lambda now, after: min(after[0], 10.0) - now[0])),
    ("ddim-sigma-width", "The width of the step is a difference of sigmas.",
     "The variable is s = sigma / alpha, for y is divided by alpha, too.",
     lambda x, x0, now, after: euler(x, x0, now, after, width=lambda now, after: after[2] - now[2])),
    ("ddim-backwards", "The step has the wrong sign.", "The width is s_next - s: negative on the way to data.",
     lambda x, x0, now, after: euler(x, x0, now, after, width=lambda now, after: now[2] / now[1] - after[2] / after[1])),
    ("ddim-squares", "alpha and sigma are used as if they were variances.",
     "alpha = sqrt(A) and sigma = sqrt(1 - A): `signal_noise` gives the roots.",
     lambda x, x0, now, after: after[1]**2 * x0 + after[2]**2 * eps_of(x, x0, now)),
    ("ddim-half-lambda", "alpha and sigma are those of half the log-SNR.",
     "Levels are lambda = log(alpha / sigma) already: `signal_noise(lam)`.",
     lambda x, x0, now, after: euler(x, x0, *((lam, *signal_noise(lam / 2)) for lam, *_ in (now, after)))),
])

one_call("dpm-solver-1", "solve_dpm1", [
    (f"dpm1-{id}", symptom, hint, step) for id, symptom, hint, step in [
        ("nan", "The last step gives NaN.", "At clean data sigma_next (e^h - 1) is 0 times infinity; the limit is finite.",
         lambda x, x0, now, after: after[1] / now[1] * x - after[2] * (math.inf if after[0] == math.inf
                                                                       else math.expm1(after[0] - now[0]))
         * eps_of(x, x0, now)),
        ("no-noise-removed-last", "The last step removes no noise.",
         "sigma_next is 0 there and e^h infinite: what is their product?",
         lambda x, x0, now, after: after[1] / now[1] * x - (0 if after[0] == math.inf
                                                            else after[2] * math.expm1(after[0] - now[0]))
         * eps_of(x, x0, now)),
        ("limit-upside-down", "The limit of the last step is upside down.", "sigma_next e^h is alpha_next sigma / alpha.",
         lambda x, x0, now, after: after[1] / now[1] * x - (now[1] / now[2] if after[0] == math.inf
                                                            else after[2] * math.expm1(after[0] - now[0])) * eps_of(x, x0, now)),
        ("no-minus-1", "You take e^h for e^h - 1.", "A step of length 0 must change nothing.",
         lambda x, x0, now, after: after[1] / now[1] * x - after[1] * now[2] / now[1] * eps_of(x, x0, now)),
        ("sign-of-h", "h has the wrong sign.", "h = lam_next - lam, positive on the way to data.",
         lambda x, x0, now, after: after[1] / now[1] * x - after[2] * math.expm1(now[0] - after[0]) * eps_of(x, x0, now)),
        ("old-sigma", "The factor before e^h - 1 is the old sigma.", "It is that of the level the step leads to.",
         lambda x, x0, now, after: after[1] / now[1] * x - now[2] * math.expm1(min(after[0] - now[0], 20)) * eps_of(x, x0,
                                                                                                                    now)),
        ("no-ratio", "x is carried over as it is.", "Its signal grows by alpha_next / alpha.",
         lambda x, x0, now, after: x - (after[1] * now[2] / now[1] - after[2]) * eps_of(x, x0, now)),
        ("sigma-ratio", "x is multiplied by sigma_next / sigma.",
         "That belongs to the data form. Beside the noise stands alpha_next / alpha.",
         lambda x, x0, now, after: after[2] / now[2] * x - (after[1] * now[2] / now[1] - after[2]) * eps_of(x, x0, now)),
        ("guess-for-noise", "The guess x0 stands where the noise belongs.",
         "This form holds the noise still: eps = (x - alpha x0) / sigma.",
         lambda x, x0, now, after: after[1] / now[1] * x - (after[1] * now[2] / now[1] - after[2]) * x0),
        ("plus", "The noise is added.", "Denoising takes it away.",
         lambda x, x0, now, after: after[1] / now[1] * x + (after[1] * now[2] / now[1] - after[2]) * eps_of(x, x0, now)),
        ("full-snr", "Your h is twice too large.", "lambda is the logarithm of alpha / sigma, half that of the SNR.",
         lambda x, x0, now, after: after[1] / now[1] * x
         - (now[2] / now[1] if after[0] == math.inf else after[2] * math.expm1(2 * (after[0] - now[0]))) * eps_of(x, x0,
                                                                                                                  now)),
        ("linearised", "e^h - 1 is replaced by h.", "That is Euler in log-SNR, without the exact linear part.",
         lambda x, x0, now, after: after[1] / now[1] * x
         - (now[2] / now[1] if after[0] == math.inf else after[2] * (after[0] - now[0])) * eps_of(x, x0, now)),
    ]])


# ---------------------------------------------------------------------------------------------- Heun


def heun(id, symptom, hint, *, mean=lambda a, b: (a + b) / 2, where=lambda x, x_next: x_next,
         at=lambda lam, lam_next: lam_next,
         slope_of=lambda x, x0, now, after: (x - after[0] * x0) / after[1], begin=lambda y, y_euler: y,
         corrects=math.isfinite, corrects_last=True,
         says_again=False):
    """Register a mistake in the second slope (where it is taken, how), in the mean, or in what the mean is added to."""
    def solve_heun(denoise, x, levels, *, callback=None):
        check_levels(levels)
        steps = levels.tolist()
        for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
            x0 = denoise(x, lam)
            if callback is not None and callback(i, lam, x, x0):
                return x0
            now, after = signal_noise(lam), signal_noise(lam_next)
            width, y, slope = after[1] / after[0] - now[1] / now[0], x / now[0], (x - now[0] * x0) / now[1]
            x_next = after[0] * (y + width * slope)
            if corrects(lam_next) and (corrects_last or i < len(steps) - 2):
                asked = where(x, x_next)
                x0_next = denoise(asked, at(lam, lam_next))
                if says_again and callback is not None and callback(i, lam_next, x_next, x0_next):
                    return x0_next
                slope_next = slope_of(asked, x0_next, now, after)
                x_next = after[0] * (begin(y, y + width * slope) + width * mean(slope, slope_next))
            x = x_next
        return x
    put("heun", f"heun-{id}", symptom, hint, "solve_heun", solve_heun)


heun("no-half", "The two slopes are added, not averaged.", "Their mean is what one step takes.", mean=lambda a, b: a + b)
heun("second-only", "Only the second slope is used.", "Heun's step takes the mean of both.", mean=lambda a, b: b)
heun("first-only", "The second slope is asked for and not used.", "The step is made again with the mean of both slopes.",
     mean=lambda a, b: a)
heun("asked-at-old-x", "The second guess is made from the old x.", "Look where Euler's step has led: from x_next.",
     where=lambda x, x_next: x)
heun("asked-at-old-level", "The second guess is asked for at the old level.", "x_next is at lam_next.",
     at=lambda lam, lam_next: lam)
heun("old-alpha-and-sigma", "The second slope is taken with the old alpha and sigma.",
     "x_next is at the next level: alpha_next, sigma_next.",
     slope_of=lambda x, x0, now, after: (x - now[0] * x0) / now[1])
heun("slope-no-alpha", "In the second slope x0 lacks its alpha.", "eps = (x - alpha x0) / sigma at either end.",
     slope_of=lambda x, x0, now, after: (x - x0) / after[1])
heun("from-euler", "The mean step starts from where Euler's has led.", "The step is made again, from y.",
     begin=lambda y, y_euler: y_euler)
heun("euler", "No step is corrected: this is Euler's method.", "Ask the model again where the step has led.",
     corrects=lambda lam: False)
heun("asks-at-clean-data", "The model is asked at clean data, too.",
     "There is no noise to predict: the last step stays Euler's.",
     corrects=lambda lam: True)
heun("last-never-corrected", "The last step is Euler's wherever it leads.", "Only a step to clean data is: `math.isinf(lam_next)`.",
     corrects_last=False)
heun("calls-back-twice", "The callback is called twice a step.", "Once, at the step's start.", says_again=True)
heun("weights", "The second slope weighs more than the first.", "Heun's mean is that of equals.",
     mean=lambda a, b: (a + 2 * b) / 3)


# ---------------------------------------------------------------------------------------------- DPM-Solver++(2M)


def dpmpp(id, symptom, hint, *, extrapolate=lambda x0, before, r: x0 + (x0 - before) / (2 * r),
          begin=lambda history: history[-1] if history else None,
          lowered=lambda i, n, asked: asked and i == n - 1,
          update=lambda x, D, h, now, after: after[1] / now[1] * x - after[0] * math.expm1(-h) * D,
          keep=lambda before, new: new, clean=math.isinf):
    """Register a mistake in D, in the guess before the first, in when the order is lowered, in the step, in what is kept."""
    def solve_dpmpp_2m(denoise, x, levels, *, callback=None, lower_order_final=True, history=()):
        check_levels(levels)
        steps, before = levels.tolist(), begin(history)
        for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
            x0 = denoise(x, lam)
            if callback is not None and callback(i, lam, x, x0):
                return x0
            h, D = lam_next - lam, x0
            if before is not None and not clean(h) and not lowered(i, len(steps) - 1, lower_order_final):
                r = (lam - before[0]) / h
                D = extrapolate(x0, before[1], r)
            x = update(x, D, h, signal_noise(lam), signal_noise(lam_next))
            before = keep(before, (lam, x0))
        return x
    put("dpm-solver-2m", f"dpmpp-{id}", symptom, hint, "solve_dpmpp_2m", solve_dpmpp_2m)


dpmpp("first-order", "No guess before the last is ever used: this is DDIM.", "Keep (lam, x0) of the step before.",
      keep=lambda before, new: None)
dpmpp("backwards", "The line through the two guesses is followed backwards.",
      "x0 + (x0 - x0_before) / (2 r): on in the direction it goes.",
      extrapolate=lambda x0, before, r: x0 - (x0 - before) / (2 * r))
dpmpp("no-half", "The line is followed twice as far.", "D stands for the middle of the step: 1 / (2 r).",
      extrapolate=lambda x0, before, r: x0 + (x0 - before) / r)
dpmpp("r-inverted", "r is upside down.", "r = (lam - lam_before) / h, and it divides.",
      extrapolate=lambda x0, before, r: x0 + (x0 - before) * r / 2)
dpmpp("equal-steps", "All steps are taken to be of one length.", "r compares the last step with this one.",
      extrapolate=lambda x0, before, r: x0 + (x0 - before) / 2)
dpmpp("mean", "D is the mean of both guesses.", "Guesses are carried on, not averaged: the middle of the step lies ahead.",
      extrapolate=lambda x0, before, r: (x0 + before) / 2)
dpmpp("sign-of-r", "r is negative.", "r = (lam - lam_before) / h.",
      extrapolate=lambda x0, before, r: x0 + (x0 - before) / (-2 * r))
dpmpp("never-lowered", "The last step to a finite level is of full order even where lower_order_final is True.",
      "There D = x0.",
      lowered=lambda i, n, asked: False)
dpmpp("always-lowered", "lower_order_final=False is not heeded.", "Then only a step to clean data is of order 1.",
      lowered=lambda i, n, asked: i == n - 1)
dpmpp("lowered-too-early", "The last two steps are of order 1.", "Only the last is.",
      lowered=lambda i, n, asked: asked and i >= n - 2)
dpmpp("second-order-to-clean-data", "At clean data r is 0, and you divide by it.",
      "There h is infinite, and D = x0, always.",
      clean=lambda h: False, lowered=lambda i, n, asked: False)
dpmpp("no-history", "`history` is not used.", "Its newest guess is the one before the first.", begin=lambda history: None)
dpmpp("oldest", "Of `history` the oldest guess is used.", "Newest last: take the last.",
      begin=lambda history: history[0] if history else None)
dpmpp("never-updated", "The guess before is that of the first step for ever.", "Keep (lam, x0) at the end of every step.",
      keep=lambda before, new: before or new)
dpmpp("alpha-ratio", "x is multiplied by alpha_next / alpha.",
      "That belongs to the noise form. Beside the data stands sigma_next / sigma.",
      update=lambda x, D, h, now, after: after[0] / now[0] * x - after[0] * math.expm1(-h) * D)
dpmpp("ratio-inverted", "x is multiplied by sigma / sigma_next.", "Its noise shrinks: sigma_next / sigma.",
      update=lambda x, D, h, now, after: (now[1] / after[1] if after[1] else 0) * x - after[0] * math.expm1(-h) * D)
dpmpp("sign-of-h", "e^h stands where e^-h belongs.", "At clean data h is infinite and e^-h is 0: x_next = D.",
      update=lambda x, D, h, now, after: after[1] / now[1] * x - after[0] * math.expm1(min(h, 20)) * D)
dpmpp("no-minus-1", "You take e^-h for e^-h - 1.", "A step of length 0 must change nothing.",
      update=lambda x, D, h, now, after: after[1] / now[1] * x - after[0] * math.exp(-h) * D)
dpmpp("plus", "D is taken away.", "e^-h - 1 is negative, and minus it is plus.",
      update=lambda x, D, h, now, after: after[1] / now[1] * x + after[0] * math.expm1(-h) * D)
dpmpp("old-alpha", "D is mixed in with the old alpha.", "The step leads to the next level: alpha_next.",
      update=lambda x, D, h, now, after: after[1] / now[1] * x - now[0] * math.expm1(-h) * D)


# ---------------------------------------------------------------------------------------------- UniPC


def weights(id, symptom, hint, *, B=lambda h, variant: h if variant == "bh1" else -math.expm1(-h), single=lambda B: B / 2,
            solves_single=False,
            power=lambda n: n, start=lambda h: math.expm1(-h) / -h,
            next_phi=lambda phi, k, h: (phi - 1 / math.factorial(k)) / -h,
            wanted=lambda h, k, phi: h * math.factorial(k) * phi, turn=lambda matrix: matrix, finish=lambda w, h, B: w):
    """Register a mistake in B(h), in the weight of a single guess, or in the system of equations."""
    def unipc_weights(ratios, h, variant="bh2"):
        if len(ratios) == 1 and not solves_single:
            return torch.tensor([single(B(h, variant))], dtype=torch.float64)
        r, n = torch.tensor(ratios, dtype=torch.float64), torch.arange(len(ratios), dtype=torch.float64)
        phi, right = start(h), []
        for k in range(1, len(ratios) + 1):
            phi = next_phi(phi, k, h)
            right.append(wanted(h, k, phi))
        return finish(torch.linalg.solve(turn(r ** power(n[:, None])), torch.tensor(right, dtype=torch.float64)), h,
                      B(h, variant))
    put("unipc-weighing", f"weights-{id}", symptom, hint, "unipc_weights", unipc_weights)


weights("no-half", "A single guess weighs B(h).", "It weighs half of it.", single=lambda B: B)
weights("always-solved", "A single guess gets its weight from the equation.",
        "UniPC takes B(h) / 2 there, which is as exact.", solves_single=True)
weights("bh-swapped", "bh1 and bh2 are swapped.", "bh1 is h itself, bh2 is 1 - e^-h.",
        B=lambda h, variant: -math.expm1(-h) if variant == "bh1" else h)
weights("variant-ignored", "`variant` makes no difference.", "It chooses B(h), and with it the weight of a single guess.",
        B=lambda h, variant: -math.expm1(-h))
weights("bh2-growing", "Your bh2 is e^h - 1.", "For guesses at the data it is 1 - e^-h.",
        B=lambda h, variant: h if variant == "bh1" else math.expm1(h))
weights("bh2-negative", "Your bh2 has the wrong sign.", "1 - e^-h is positive for a step to data.",
        B=lambda h, variant: h if variant == "bh1" else math.expm1(-h))
weights("no-factorial", "The factorials are missing on the right side.", "The n-th equation has h n! phi_{n+1}.",
        wanted=lambda h, k, phi: h * phi)
weights("wrong-factorial", "The factorials on the right side are one too large.", "The n-th equation has n!, not (n+1)!.",
        wanted=lambda h, k, phi: h * math.factorial(k + 1) * phi)
weights("no-h", "The factor h is missing on the right side.", "The n-th equation has h n! phi_{n+1}.",
        wanted=lambda h, k, phi: math.factorial(k) * phi)
weights("phi-of-plus-h", "phi is taken at +h.", "These are guesses at the data: every h in phi is -h.",
        start=lambda h: math.expm1(h) / h, next_phi=lambda phi, k, h: (phi - 1 / math.factorial(k)) / h)
weights("phi-late", "The right side begins with phi_1.", "The first equation has phi_2.", start=lambda h: 1.0,
        next_phi=lambda phi, k, h: math.expm1(-h) / -h if k == 1 else (phi - 1 / math.factorial(k - 1)) / -h)
weights("phi-factorial", "1 / (n-1)! is taken off phi_n.", "It is 1 / n!: what is left must be small for small h.",
        next_phi=lambda phi, k, h: (phi - 1 / math.factorial(k - 1)) / -h)
weights("powers", "The powers of r are one too high.",
        "The first equation has r^0: the differences are already divided by r.", power=lambda n: n + 1)
weights("transposed", "The matrix of powers is transposed.", "A row for each power, a column for each guess.",
        turn=lambda matrix: matrix.T)
weights("divided-by-B", "The weights are divided by B(h).", "You return B(h) rho, what the differences weigh in the end.",
        finish=lambda w, h, B: w / B)
weights("halves", "Every guess weighs the same.", "With two and more guesses the weights solve a system of equations.",
        finish=lambda w, h, B: torch.full_like(w, B / 2))
weights("dtype", "The weights are float32.", "Compute them in float64: their errors add up over the steps.",
        finish=lambda w, h, B: w.float(),
        single=lambda B: B / 2)


def step(id, symptom, hint, *, base=lambda x, x0, h, now, after: after[1] / now[1] * x - after[0] * math.expm1(-h) * x0,
         guesses_of=lambda guesses: guesses, next_ratio=1.0, term=lambda w, r, x0_k, x0: w / r * (x0_k - x0), corrects=True,
         order=lambda others: others, variant_of=lambda variant: variant, outer=lambda now, after: after[0],
         ratio=lambda before, h: before / h):
    """Register a mistake in the first-order part, in which guesses are used, or in what their differences become."""
    def unipc_step(x, guesses, lam_next, *, x0_next=None, variant="bh2"):
        *older, (lam, x0) = guesses_of(guesses)
        h, now, after = lam_next - lam, signal_noise(lam), signal_noise(lam_next)
        others = order([(ratio(lam_k - lam, h), x0_k) for lam_k, x0_k in reversed(older)])
        if x0_next is not None and corrects:
            others.append((next_ratio, x0_next))
        x = base(x, x0, h, now, after)
        if others:
            weights = right_weights([r for r, _ in others], h, variant_of(variant)).tolist()
            x = x + outer(now, after) * sum(term(w, r, x0_k, x0) for w, (r, x0_k) in zip(weights, others))
        return x
    put("unipc-predict-correct", f"unistep-{id}", symptom, hint, "unipc_step", unipc_step)


step("not-divided", "The differences are not divided by r.", "Each is (x0_k - x0) / r_k: a slope.",
     term=lambda w, r, x0_k, x0: w * (x0_k - x0))
step("turned", "The differences have the wrong sign.", "x0_k - x0: the other guess minus the newest.",
     term=lambda w, r, x0_k, x0: w / r * (x0 - x0_k))
step("ratios-positive", "Your r_k are positive.", "Guesses made before lie behind: r_k = (lam_k - lam) / h is negative.",
     ratio=lambda before, h: -before / h)
step("ratios-inverted", "Your r_k are upside down.", "r_k = (lam_k - lam) / h.", ratio=lambda before, h: h / before)
step("no-differences", "The other guesses are added as they are.", "What counts is how they differ from x0.",
     term=lambda w, r, x0_k, x0: w / r * x0_k)
step("ignores-older", "Older guesses are not used.", "They are what makes the order.", order=lambda others: [])
step("only-one-older", "Of the older guesses only the last is used.", "With three guesses the order is 3.",
     order=lambda others: others[:1])
step("ignores-next", "x0_next is not used.", "It is one more x0_k, with r = 1: that makes the corrector.", corrects=False)
step("next-behind", "x0_next is taken to lie behind.", "It belongs to lam_next: r = 1.", next_ratio=-1.0)
step("oldest-first", "The oldest guess is taken for the newest.", "Newest last: the x given is at guesses[-1].",
     guesses_of=lambda guesses: list(guesses)[::-1])
step("old-alpha", "The differences are mixed in with the old alpha.", "The step leads to the next level: alpha_next.",
     outer=lambda now, after: now[0])
step("no-alpha", "The differences lack their alpha_next.", "Everything that is a guess is multiplied by it.",
     outer=lambda now, after: 1.0)
step("alpha-ratio", "x is multiplied by alpha_next / alpha.", "Beside guesses at the data stands sigma_next / sigma.",
     base=lambda x, x0, h, now, after: after[0] / now[0] * x - after[0] * math.expm1(-h) * x0)
step("no-ratio", "x is carried over as it is.", "Its noise shrinks by sigma_next / sigma.",
     base=lambda x, x0, h, now, after: x - after[0] * math.expm1(-h) * x0)
step("sign-of-h", "e^h stands where e^-h belongs.", "At clean data h is infinite and e^-h is 0.",
     base=lambda x, x0, h, now, after: after[1] / now[1] * x - after[0] * math.expm1(min(h, 20)) * x0)
step("minus-guess", "The guess is taken away.", "1 - e^-h is positive.",
     base=lambda x, x0, h, now, after: after[1] / now[1] * x + after[0] * math.expm1(-h) * x0)
step("in-place", "You write into the x that was passed in.", "The corrector needs it again.",
     base=lambda x, x0, h, now, after: x.mul_(after[1] / now[1]) - after[0] * math.expm1(-h) * x0)
step("variant-ignored", "`variant` is not passed on.", "Hand it to `unipc_weights`.", variant_of=lambda variant: "bh2")


def unipc(id, symptom, hint, *, corrects=lambda corrector: corrector, from_x=lambda before, now: before,
          points=lambda used, guesses: used,
          asks_again=False, order_of=lambda order, left, lowered: min(order, left) if lowered else order,
          begin=lambda history: list(history),
          variant_of=lambda variant: variant, tells_corrected=False):
    """Register a mistake in the loop: what is corrected, from where, with which guesses; how often is asked; the order; what is told."""
    def solve_unipc(denoise, x, levels, *, callback=None, order=2, variant="bh2", corrector=True, lower_order_final=True,
                    history=()):
        check_levels(levels)
        steps, guesses, used = levels.tolist(), begin(history), []
        variant = variant_of(variant)
        for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
            x0 = denoise(x, lam)
            if callback is not None and not tells_corrected and callback(i, lam, x, x0):
                return x0
            if corrects(corrector) and i > 0:
                x = right_step(from_x(x_before, x), points(used, guesses), lam, x0_next=x0, variant=variant)
                if asks_again:
                    x0 = denoise(x, lam)
            if callback is not None and tells_corrected and callback(i, lam, x, x0):
                return x0
            guesses.append((lam, x0))
            p = 1 if math.isinf(lam_next) else order_of(order, len(steps) - 1 - i, lower_order_final)
            x_before, used = x, guesses[-p:]
            x = right_step(x, used, lam_next, variant=variant)
        return x
    put("unipc-loop", f"unipc-{id}", symptom, hint, "solve_unipc", solve_unipc)


unipc("no-corrector", "Nothing is corrected.", "When the guess at the new level is there, make the last step again with it.",
      corrects=lambda corrector: False)
unipc("corrector-always", "corrector=False is not heeded.", "Then the predictor runs alone.",
      corrects=lambda corrector: True)
unipc("corrects-from-predicted", "The corrected step starts from the predicted x.",
      "It is the last step made again: from the x before it.",
      from_x=lambda before, now: now)
unipc("asks-again", "After each correction the model is asked once more.",
      "The guess made at the predicted x is kept: NFE = steps.", asks_again=True)
unipc("corrector-all-guesses", "The corrector uses more guesses than the predictor did.", "The same p, and the new one.",
      points=lambda used, guesses: guesses)
unipc("corrector-one-guess", "The corrector always is of the lowest order.",
      "It takes the predictor's guesses, and the new one.",
      points=lambda used, guesses: used[-1:])
unipc("order-2-always", "`order` is not heeded.", "It is how many guesses the predictor rests on.",
      order_of=lambda order, left, lowered: min(2, left) if lowered else 2)
unipc("never-lowered", "The order is not lowered towards the end.", "At most the number of steps left.",
      order_of=lambda order, left, lowered: order)
unipc("always-lowered", "lower_order_final=False is not heeded.", "Then only a step to clean data is of order 1.",
      order_of=lambda order, left, lowered: min(order, left))
unipc("order-one-short", "The order is one too small.", "Order p rests on p guesses, the newest included.",
      order_of=lambda order, left, lowered: max(1, (min(order, left) if lowered else order) - 1))
unipc("lowered-too-early", "The order is lowered one step too early.", "At most the number of steps left, this one included.",
      order_of=lambda order, left, lowered: max(1, min(order, left - 1)) if lowered else order)
unipc("tells-the-corrected-x", "The callback is told the corrected x.", "It is told x and the guess made there: the predicted x.",
      tells_corrected=True)
unipc("no-history", "`history` is not used.", "Begin with its guesses instead of none.", begin=lambda history: [])
unipc("history-reversed", "`history` is taken in the wrong order.", "Newest last, as in your own list.",
      begin=lambda history: list(history)[::-1])
unipc("variant-ignored", "`variant` is not passed on.", "Hand it to `unipc_step`.", variant_of=lambda variant: "bh2")


# ---------------------------------------------------------------------------------------------- measured order

for id, symptom, hint, wrong in [
    ("sign", "Your order is negative.", "Errors fall: the order is minus the slope.",
     lambda x, y: (x * y).sum() / x.square().sum()),
    ("ends", "You use the first and the last error alone.", "A best straight line takes all of them.",
     lambda x, y: -(y[-1] - y[0]) / (x[-1] - x[0])),
    ("first-two", "You use the first two errors alone.", "A best straight line takes all of them.",
     lambda x, y: -(y[1] - y[0]) / (x[1] - x[0])),
    ("steps-over-errors", "Your slope is that of steps over errors.", "log(error) over log(n): n is what you choose.",
     lambda x, y: -(x * y).sum() / y.square().sum()),
    ("inverted", "Your order is upside down.", "An error that falls like 1 / n^2 has order 2, not 1/2.",
     lambda x, y: -x.square().sum() / (x * y).sum()),
    ("rounded", "Your order is a whole number.", "What is measured is not: 1.97 says more than 2.",
     lambda x, y: (-(x * y).sum() / x.square().sum()).round()),
    ("base-mixed", "Errors and steps have logarithms of different bases.", "The same base for both.",
     lambda x, y: -(x * y).sum() / x.square().sum() / math.log(10)),
    ("through-origin", "Your line is forced through the origin.",
     "error = c / n^p: the constant c is free. Take the means off first.", None),
    ("not-logs", "The slope is that of the errors themselves.", "The order is a slope of logarithms.", None),
]:
    def measured_order(num_steps, errors, *, id=id, wrong=wrong):
        n, error = (torch.as_tensor(each, dtype=torch.float64) for each in (num_steps, errors))
        if id == "not-logs":
            x, y = n - n.mean(), error - error.mean()
            return -float((x * y).sum() / x.square().sum())
        x, y = n.log(), error.log()
        if id == "through-origin":
            return -float((x * y).sum() / x.square().sum())
        return float(wrong(x - x.mean(), y - y.mean()))
    put("order", f"order-{id}", symptom, hint, "measured_order", measured_order)

put("order", "order-sorted", "Steps in another order give another slope.",
    "Each error belongs to its own n: sort neither or both.",
    "measured_order", lambda num_steps, errors: float(-torch.as_tensor(errors, dtype=torch.float64).log().diff().sum()
                                                      / torch.as_tensor(sorted(num_steps),
                                                                        dtype=torch.float64).log().diff().sum()))


# ---------------------------------------------------------------------------------------------- where steps fall


def spacing(id, symptom, hint, wrong):
    """Register a mistake of which `wrong(schedule, n, spacing)` gives the timesteps; None where it does not show."""
    def create_timesteps(schedule, num_steps, spacing="uniform"):
        found = wrong(schedule, num_steps, spacing)
        return right_timesteps(schedule, num_steps, spacing) if found is None else found
    put("steps-spacing", f"spacing-{id}", symptom, hint, "create_timesteps", create_timesteps)


def only(kind, make):
    return lambda schedule, n, spacing: make(schedule, n) if spacing == kind and n > 1 else None


def between(schedule, n, there=lambda lam: lam, back=lambda value: value):
    """n values in equal steps of `there(lambda)`, as log-SNRs inside the table."""
    table = table_of_log_snr(schedule)
    values = there(table[-1]) + torch.arange(n, dtype=torch.float64) / (n - 1) * (there(table[0]) - there(table[-1]))
    return back(values).clamp(float(table[-1]), float(table[0]))


spacing("rising", "Your timesteps rise.", "Sampling runs from noise to data: highest first.",
        lambda schedule, n, spacing: right_timesteps(schedule, n, spacing).flip(0))
spacing("one-more", "There is one timestep too many.", "n steps visit n timesteps; the jump to clean data is implied.",
        lambda schedule, n, spacing: right_timesteps(schedule, min(n + 1, 1000), spacing))
spacing("float", "Your timesteps are not whole numbers of type int64.", "Round, and `.long()`.",
        lambda schedule, n, spacing: right_timesteps(schedule, n, spacing).double())
spacing("single-is-0", "A single step starts at t = 0.", "It starts from noise: T-1.",
        lambda schedule, n, spacing: torch.tensor([0]) if n == 1 else None)
spacing("uniform-truncated", "uniform is cut off, not rounded, from T down.", "round(linspace(T-1, 0, n)).",
        only("uniform", lambda schedule, n: torch.arange(n - 1, -1, -1) * (1000 // n)))
spacing("uniform-stops-early", "uniform does not reach t = 0.", "linspace includes both ends.",
        only("uniform", lambda schedule, n: torch.linspace(999, 0, n + 1).round().long()[:-1]))
spacing("trailing-from-T", "trailing starts at T, which is no timestep.", "Count down from T, and take 1 off.",
        only("trailing", lambda schedule, n: right_timesteps(schedule, n, "trailing") + 1))
spacing("trailing-is-uniform", "Your trailing is your uniform.", "trailing ends T/n above the table's end, not at 0.",
        only("trailing", lambda schedule, n: right_timesteps(schedule, n, "uniform") if n < 1000 else None))
spacing("quadratic-reversed", "quadratic is dense where the noise is.", "Square i rising from 0, and turn the list round.",
        only("quadratic", lambda schedule, n: 999 - right_timesteps(schedule, n, "quadratic").flip(0) if n < 1000 else None))
spacing("quadratic-repeats", "quadratic repeats timesteps near 0.", "The maximum with i keeps small numbers apart.",
        only("quadratic", lambda schedule, n: (999 * (torch.arange(n) / (n - 1)) ** 2).round().long().flip(0)))
spacing("log-snr-uniform", "log-snr is uniform in t.", "Equal steps of lambda, then the nearest timesteps.",
        only("log-snr", lambda schedule, n: right_timesteps(schedule, n, "uniform") if n < 1000 else None))
spacing("log-snr-repeats", "log-snr repeats timesteps near clean data.", "`timesteps_near` keeps them apart.",
        only("log-snr", lambda schedule, n: torch.tensor([timestep_at(schedule, lam)
                                                          for lam in between(schedule, n).tolist()])))
spacing("log-snr-of-A", "log-snr has equal steps of A.", "lambda = log(alpha / sigma).",
        only("log-snr", lambda schedule, n: timesteps_near(schedule,
                                                           between(schedule, n, lambda lam: torch.sigmoid(2 * lam),
                                                                   lambda A: A.logit() / 2))))
spacing("karras-rho-1", "karras has equal steps of s itself.", "Of its seventh root: rho = 7.",
        only("karras", lambda schedule, n: timesteps_near(schedule,
                                                          between(schedule, n, lambda lam: torch.exp(-lam),
                                                                  lambda s: -s.log()))))
spacing("karras-no-power", "karras forgets to take the seventh power again.", "Equal steps of s^(1/7), then ^7, then -log.",
        only("karras", lambda schedule, n: timesteps_near(schedule,
                                                          between(schedule, n, lambda lam: torch.exp(-lam / 7),
                                                                  lambda s: -s.log()))))
spacing("karras-rho-5", "karras has equal steps of the fifth root.", "Of the seventh: s^(1/7).",
        only("karras", lambda schedule, n: timesteps_near(schedule,
                                                          between(schedule, n, lambda lam: torch.exp(-lam / 5),
                                                                  lambda root: -5 * root.log()))))
spacing("log-snr-stops-early", "log-snr does not reach the table's highest.", "n points, both ends among them: n - 1 steps.",
        only("log-snr", lambda schedule, n: timesteps_near(schedule, between(schedule, n + 1)[:-1] if n < 1000 else between(schedule, n))))
spacing("karras-is-log-snr", "karras is your log-snr.", "Equal steps of s^(1/7), with s = e^-lambda.",
        only("karras", lambda schedule, n: right_timesteps(schedule, n, "log-snr") if n < 1000 else None))
spacing("karras-power-7", "karras takes seventh powers where roots belong.", "rho = 7 stands below: s^(1/7).",
        only("karras", lambda schedule, n: timesteps_near(schedule,
                                                          between(schedule, n, lambda lam: torch.exp(-7 * lam),
                                                                  lambda s: -s.log() / 7))))
spacing("karras-of-sigma", "karras is taken of sigma.", "Of s = sigma / alpha = e^-lambda; sigma itself is at most 1.",
        only("karras", lambda schedule, n: timesteps_near(schedule, between(
            schedule, n, lambda lam: torch.sigmoid(-2 * lam) ** (1 / 14),
            lambda root: -torch.logit((root**14).clamp(1e-12, 1 - 1e-12)) / 2))))


def adaptive(id, symptom, hint, *, count=lambda e, h: e**0.5, walk=lambda x, euler: x, asks=True, number=lambda n: n,
             inside=True,
             share=lambda total, n: torch.linspace(0, 1, n + 1, dtype=torch.float64) * total[-1],
             size=lambda d: float(d.double().square().mean()) ** 0.5, gap=lambda heun, euler, alpha: heun - euler,
             still=lambda levels: levels.double().diff()):
    """Register a mistake in what an interval counts, in what the walk goes on from, or in how the sum is cut."""
    def adaptive_levels(denoise, x, levels, num_steps):
        grid, counts = levels.tolist(), []
        for lam, lam_next in zip(grid, grid[1:]):
            now, after = signal_noise(lam), signal_noise(lam_next)
            y, width = x / now[0], after[1] / after[0] - now[1] / now[0]
            slope = (x - now[0] * denoise(x, lam)) / now[1]
            euler = after[0] * (y + width * slope)
            slope_next = (euler - after[0] * denoise(euler, lam_next)) / after[1] if asks else slope
            x_heun = after[0] * (y + width * (slope + slope_next) / 2)
            counts.append(count(size(gap(x_heun, euler, after[0])), lam_next - lam))
            x = walk(x_heun, euler)
        count_ = torch.tensor(counts, dtype=torch.float64)
        if float(count_.sum()) == 0:
            count_ = still(levels)
        count_ = count_ + 1e-9 * count_.sum()
        total = torch.cat([torch.zeros(1, dtype=torch.float64), count_.cumsum(0)])
        parts = share(total, number(num_steps))
        k = torch.searchsorted(total, parts, right=True).clamp(1, len(count_)) - 1
        made = levels[k] + (parts - total[k]) / count_[k] * (levels[k + 1] - levels[k]) * inside
        made[0], made[-1] = levels[0], levels[-1]
        return made
    put("adaptive-spacing", f"adaptive-{id}", symptom, hint, "adaptive_levels", adaptive_levels)


adaptive("no-root", "Intervals count by their error, not by its root.", "A step half as long has a quarter of the error.",
         count=lambda e, h: e)
adaptive("in-y", "The error is measured in y.", "In x: alpha_next times the difference in y.",
         gap=lambda heun, euler, alpha: (heun - euler) / alpha)
adaptive("still-by-the-grid", "Where no error is seen, your levels are as uneven as the grid.",
         "Evenly spaced in log-SNR: let each interval count by its width there.",
         still=lambda levels: torch.ones(len(levels) - 1, dtype=torch.float64))
adaptive("fourth-root", "The root is taken twice.", "e is a root mean square; what counts is sqrt(e).",
         count=lambda e, h: e**0.25)
adaptive("square", "Intervals count by the square of their error.", "By its root: sqrt(e).", count=lambda e, h: e**2)
adaptive("inverted", "Steps are long where the error is large.", "More error, more steps.",
         count=lambda e, h: (e + 1e-12) ** -0.5)
adaptive("even", "Your levels are evenly spaced.", "What an interval counts comes from the two results in it.",
         count=lambda e, h: h)
adaptive("times-length", "Intervals count by their length as well.",
         "The error of an interval has its length in it already.", count=lambda e, h: e**0.5 * h)
adaptive("over-length", "What an interval counts is divided by its length.",
         "The sum is cut, not the density: an interval counts sqrt(e) in all.",
         count=lambda e, h: e**0.5 / h)
adaptive("walks-with-euler", "The walk goes on from Euler's result.", "From Heun's, the better of the two.",
         walk=lambda x, euler: euler)
adaptive("never-compares", "The model is asked once an interval.", "Heun's step asks again where Euler's has led.",
         asks=False)
adaptive("one-short", "There is one level too few.", "n steps have n + 1 levels.", number=lambda n: n - 1)
adaptive("one-more", "There is one level too many.", "n steps have n + 1 levels.", number=lambda n: n + 1)
adaptive("on-the-grid", "Levels fall on the grid's own levels only.",
         "Inside an interval the sum grows evenly: interpolate.", inside=0.0)
adaptive("largest", "The error is the largest difference.", "Root mean square over all of x.",
         size=lambda d: float(d.abs().max()) if d.numel() > 24 else 0.0)
adaptive("from-the-end", "The sum is cut from the wrong end.",
         "Equal parts, from 0 to the whole sum, in the order of the grid.",
         share=lambda total, n: total[-1] - torch.linspace(0, 1, n + 1, dtype=torch.float64) * total[-1])
put("adaptive-spacing", "adaptive-dtype", "Your levels are float32.", "Levels are float64.", "adaptive_levels",
    lambda *args: right_adaptive(*args).float())
put("adaptive-spacing", "adaptive-thirds", "The grid is thinned out, whatever the errors.",
    "Where the error is large, steps are short.", "adaptive_levels",
    lambda denoise, x, levels, n: levels[torch.linspace(0, len(levels) - 1, n + 1).round().long()])


# ---------------------------------------------------------------------------------------------- early exit


def stopping(id, symptom, hint, *, change=lambda x0, before: (x0 - before).double().flatten(1).square().mean(1).sqrt(),
             calm=torch.all,
             against=lambda before, first: before, guess=lambda x, x0: x0, resets=True,
             counts=lambda quiet, calm: quiet + 1 if calm else 0,
             needed=lambda patience: patience, noise=lambda lam, after: lam < after, at_once=False, forgets=False):
    """Register a mistake in how a change is measured, against which guess, or in how quiet steps are counted."""
    def stop_when_settled(tolerance, patience=1, after=0.0):
        state = {"before": None, "first": None, "quiet": 0}

        def callback(i, lam, x, x0):
            x0 = guess(x, x0)
            if forgets and noise(lam, after):
                return False
            if state["before"] is None or (i == 0 and resets):
                state.update(first=x0, quiet=int(at_once))
            elif noise(lam, after):
                state["quiet"] = 0
            else:
                quiet = calm(change(x0, against(state["before"], state["first"])) <= tolerance)
                state["quiet"] = counts(state["quiet"], bool(quiet))
            state["before"] = x0
            return state["quiet"] >= needed(patience)
        return callback
    put("early-exit", f"exit-{id}", symptom, hint, "stop_when_settled", stop_when_settled)


stopping("mean-over-batch", "A batch counts as settled while one of its samples still changes.",
         "No sample may have changed: look at each.",
         change=lambda x0, before: (x0 - before).double().square().mean().sqrt())
stopping("any-sample", "One quiet sample is enough for you.", "All of them must be quiet.", calm=torch.any)
stopping("sum", "The change grows with the size of a sample.", "Root *mean* square: divide by the number of values.",
         change=lambda x0, before: (x0 - before).double().flatten(1).square().sum(1).sqrt())
stopping("no-root", "The change is a mean square.", "Take its root, to compare it with pixels.",
         change=lambda x0, before: (x0 - before).double().flatten(1).square().mean(1))
stopping("signed", "Changes up and down cancel.", "Square before you average.",
         change=lambda x0, before: (x0 - before).double().flatten(1).mean(1))
stopping("against-first", "Each guess is compared with the first.", "With that of the step before.",
         against=lambda before, first: first)
stopping("never-resets", "A second run begins with the first run's state.", "Step i = 0 begins a new run.", resets=False)
stopping("patience-ignored", "`patience` is not heeded.", "So many quiet steps in a row are needed.",
         needed=lambda patience: 1)
stopping("patience-one-more", "It takes one quiet step too many.", "`patience` steps, not more.",
         needed=lambda patience: patience + 1)
stopping("not-in-a-row", "Quiet steps are counted over the whole run.", "In a row: a change begins the count anew.",
         counts=lambda quiet, calm: quiet + calm)
stopping("after-ignored", "It stops in pure noise, before anything has begun.",
         "Steps at a log-SNR below `after` do not count.", noise=lambda lam, after: False)
stopping("after-reversed", "It stops in noise and not near data.", "What does not count lies below `after`.",
         noise=lambda lam, after: lam >= after)
stopping("noise-forgotten", "The first step that counts has nothing to be compared with.",
         "Steps below `after` do not count, but their guess is remembered.", forgets=True)
stopping("noisy-x", "You compare the noisy x, not the guess.", "x changes in every step; x0 is what settles.", guess=lambda x, x0: x)
stopping("at-once", "It stops after the first guess.", "There is nothing to compare it with yet.", at_once=True)
stopping("inverted", "It stops while the guess still changes.", "Settled is a change of at most the tolerance.",
         calm=lambda within: (~within).any())
put("early-exit", "exit-none", "Your callback returns nothing.", "It says True where the run may end.", "stop_when_settled",
    lambda *args, **kwargs: lambda i, lam, x, x0: None)


# ---------------------------------------------------------------------------------------------- hybrid


def hybrid(id, symptom, hint, *, over=lambda lam, switch, lam_next: lam >= switch, v_of=lambda eta, v: eta**2 * v,
           old=lambda s2, v: s2 - v,
           scale=lambda v: math.sqrt(v), draw=lambda x, generator: torch.randn(x.shape, generator=generator, dtype=x.dtype),
           rest=lambda levels, i: levels[i:], shift=lambda i: i, passes_on=True, enters=lambda late: late, root=math.sqrt,
           heeds=lambda callback: callback, heeds_late=lambda callback: callback):
    """Register a mistake in where the second half begins or what it is given, or in the stochastic step."""
    def solve_hybrid(denoise, x, levels, *, callback=None, switch=0.0, eta=1.0, late=right_dpmpp, generator=None):
        check_levels(levels)
        steps = levels.tolist()
        for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
            if over(lam, switch, lam_next):
                shifted = None if callback is None or not passes_on else lambda k, *others: heeds_late(callback)(shift(i) + k, *others)
                return enters(late)(denoise, x, rest(levels, i), callback=shifted)
            x0 = denoise(x, lam)
            if callback is not None and heeds(callback)(i, lam, x, x0):
                return x0
            (alpha, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
            v = v_of(eta, (sigma_next / sigma) ** 2 * (1 - (alpha / alpha_next) ** 2))
            x = alpha_next * x0 + root(max(old(sigma_next**2, v), 0)) * (x - alpha * x0) / sigma
            if v > 0:
                x = x + scale(v) * draw(x, generator)
        return x
    put("hybrid", f"hybrid-{id}", symptom, hint, "solve_hybrid", solve_hybrid)


hybrid("never-switches", "The other solver never takes over.",
       "At the first level of at least `switch` hand x and the rest of the levels to it.",
       over=lambda lam, switch, lam_next: False)
hybrid("late-at-once", "The other solver takes over at once.", "It does at the first level of at least `switch`.",
       over=lambda lam, switch, lam_next: switch < 90)
hybrid("too-late", "The switch comes one step too late.", "A level that equals `switch` belongs to the second half.",
       over=lambda lam, switch, lam_next: lam > switch)
hybrid("too-early", "The switch comes one step too early.", "It is x's own level that counts, not the one the step leads to.",
       over=lambda lam, switch, lam_next: lam_next >= switch)
hybrid("all-levels", "The second half is given all levels again.", "x is at levels[i]: hand on levels[i:].", rest=lambda levels, i: levels)
hybrid("old-noise-not-rooted", "The old noise is multiplied by a variance.", "By its root: sqrt(sigma_next^2 - v).", root=lambda v: v)
hybrid("never-stops-early", "In your own half a True from the callback is not heeded.", "Return x0 there and then.",
       heeds=not_listening)
hybrid("never-stops-late", "What the callback returns is lost on the way to the second half.", "Return it: `return callback(...)`.",
       heeds_late=not_listening)
hybrid("float64-noise", "Your noise is float64 whatever x is.", "Draw it like x: `standard_normal_like(x, generator)`.",
       draw=lambda x, generator: torch.randn(x.shape, generator=generator, dtype=torch.float64))
hybrid("noise-on-top", "The fresh noise comes on top.", "v is taken out of the old noise: sqrt(sigma_next^2 - v).",
       old=lambda s2, v: s2)
hybrid("eta-not-squared", "eta is not squared.", "v is a variance: eta^2.", v_of=lambda eta, v: eta * v)
hybrid("eta-ignored", "eta makes no difference.", "v = eta^2 times DDPM's variance on these levels.", v_of=lambda eta, v: v)
hybrid("no-noise", "No noise is ever drawn.", "The first half is stochastic: + sqrt(v) z.", scale=lambda v: 0.0)
hybrid("variance-for-deviation", "The noise is multiplied by its variance.", "By its root.", scale=lambda v: v)
hybrid("generator-ignored", "The same seed gives other samples.", "Draw the noise from `generator`.",
       draw=lambda x, generator: torch.randn_like(x))
hybrid("seed-of-its-own", "Without a generator it draws the same noise every time.", "Hand `generator` on, be it None.",
       draw=lambda x, generator: torch.randn(x.shape, generator=generator or torch.Generator().manual_seed(0), dtype=x.dtype))
hybrid("one-draw", "All samples of the batch get the same noise.", "Draw it with the shape of the whole batch.",
       draw=lambda x, generator: torch.randn(x[:1].shape, generator=generator, dtype=x.dtype).expand_as(x))
hybrid("uniform-noise", "The fresh noise lies between 0 and 1.", "`torch.rand` is uniform; the noise is standard normal.",
       draw=lambda x, generator: torch.rand(x.shape, generator=generator, dtype=x.dtype))
hybrid("skips-a-level", "The second half begins one level too late.", "x is at levels[i]: hand on levels[i:].",
       rest=lambda levels, i: levels[i + 1:] if len(levels) > i + 2 else levels[i:])
hybrid("own-late", "`late` is not the solver that takes over.", "Call the one you were given.",
       enters=lambda late: right_dpmpp)
hybrid("callback-from-0", "The callback counts from 0 again in the second half.", "Add the steps taken so far.",
       shift=lambda i: 0)
hybrid("callback-dropped", "The second half does not call back.", "Hand the callback on, with its count shifted.",
       passes_on=False)


# ---------------------------------------------------------------------------------------------- the library's timesteps


def library(id, symptom, hint, wrong):
    """Register a mistake of which `wrong(T, n, spacing, offset)` gives the timesteps; None where it does not show."""
    def library_timesteps(num_train_timesteps, num_steps, spacing="leading", steps_offset=0):
        found = wrong(num_train_timesteps, num_steps, spacing, steps_offset)
        return right_library(num_train_timesteps, num_steps, spacing, steps_offset) if found is None else found
    put("library-options", f"library-{id}", symptom, hint, "library_timesteps", library_timesteps)


library("rising", "Your timesteps rise.", "From noise to data: highest first.",
        lambda T, n, spacing, offset: right_library(T, n, spacing, offset).flip(0))
library("offset-ignored", "steps_offset is not heeded.", "It is added where spacing is leading.",
        lambda T, n, spacing, offset: right_library(T, n, spacing, 0))
library("offset-everywhere", "steps_offset is added to every spacing.", "To leading alone.",
        lambda T, n, spacing, offset: None if spacing == "leading" else right_library(T, n, spacing) + offset)
library("offset-always", "1 is added even without steps_offset.", "Its default is 0.",
        lambda T, n, spacing, offset: right_library(T, n, spacing, offset) + (spacing == "leading" and offset == 0))
library("leading-reaches-the-end", "Your leading begins at T-1.", "leading is counted up from 0, and stops short of T-1.",
        lambda T, n, spacing, offset: right_library(T, n, "linspace") + offset if spacing == "leading" else None)
library("leading-not-whole", "leading is spread with T / n, rounded.", "Its step is the whole number T // n.",
        lambda T, n, spacing, offset: (torch.arange(n) * T / n).round().long().flip(0) + offset if spacing == "leading"
        else None)
library("leading-n-minus-1", "The step of leading is T // (n-1).", "T // n.",
        lambda T, n, spacing, offset: (torch.arange(n) * (T // (n + 1))).flip(0) + offset if spacing == "leading" else None)
library("linspace-one-more", "linspace is cut from n + 1 points.",
        "n points, both ends among them. (Other schedulers there do take n + 1.)",
        lambda T, n, spacing, offset: torch.linspace(0, T - 1, n + 1, dtype=torch.float64).round().long().flip(0)[:-1]
        if spacing == "linspace" else None)
library("linspace-from-T", "linspace begins at T.", "At T-1, the last timestep.",
        lambda T, n, spacing, offset: torch.linspace(0, T, n, dtype=torch.float64).round().long().flip(0)
        if spacing == "linspace" else None)
library("linspace-cut-off", "linspace is cut off, not rounded.", "`.round()` before `.long()`.",
        lambda T, n, spacing, offset: torch.linspace(0, T - 1, n, dtype=torch.float64).long().flip(0) if spacing == "linspace" else None)
library("trailing-whole-steps", "trailing goes down by the whole number T // n.", "By T / n, rounded at each step.",
        lambda T, n, spacing, offset: T - torch.arange(n) * (T // n) - 1 if spacing == "trailing" else None)
library("trailing-from-T", "trailing begins at T.", "Count down from T, and take 1 off.",
        lambda T, n, spacing, offset: right_library(T, n, "trailing") + 1 if spacing == "trailing" else None)
library("trailing-is-leading", "Your trailing is leading.", "leading is counted from 0 up, trailing from T down.",
        lambda T, n, spacing, offset: right_library(T, n, "leading") if spacing == "trailing" else None)
library("float", "Your timesteps are not whole numbers of type int64.", "`.long()` at the end.",
        lambda T, n, spacing, offset: right_library(T, n, spacing, offset).double())


# ---------------------------------------------------------------------------------------------- bad input


def accepts(id, symptom, function):
    put("solver-bad-input", f"accepts-{id}", symptom, "Call the guard first; it raises ValueError with one clear sentence.",
        function.__name__, function)


def solver_that(right, change):
    """A solver that makes other input of bad input, and goes on."""
    def solve(denoise, x, levels, **options):
        return right(*change(denoise, x, levels), **options)
    solve.__name__ = right.__name__
    return solve


def sorted_and_once(denoise, x, levels):
    return denoise, x, levels.unique()


accepts("integers", "Integer images are converted.",
        solver_that(right_ddim, lambda denoise, x, levels: (denoise, x.float(), levels)))
accepts("repeats", "A level that comes twice is dropped.", solver_that(right_heun, sorted_and_once))
accepts("disorder", "Levels in disorder are sorted.", solver_that(right_dpmpp, sorted_and_once))


def solve_dpm1(denoise, x, levels, **options):
    return x if len(levels) < 2 else right_dpm1(denoise, x, levels, **options)


accepts("a-single-level", "A single level is answered with x.", solve_dpm1)


def solve_unipc(denoise, x, levels, *, order=2, **options):
    return right_unipc(denoise, x, levels, order=min(order, len(levels) - 1), **options)


accepts("any-order", "An order above the number of steps is lowered silently.", solve_unipc)


def solve_unipc(denoise, x, levels, **options):
    return right_unipc(denoise, x, levels.clamp(min=log_snr(denoise.schedule, 999)).unique() if hasattr(denoise, "schedule")
                       else levels, **options)


accepts("any-level", "A level outside the model's table is moved into it.", solve_unipc)


def unipc_weights(ratios, h, variant="bh2"):
    return right_weights(ratios, h, variant if variant == "bh1" else "bh2")


accepts("any-variant", "An unknown variant is taken for bh2.", unipc_weights)


def unipc_weights(ratios, h, variant="bh2"):
    return right_weights(ratios, min(h, 50.0), variant)


accepts("infinite-step", "Weights are made for an infinite step.", unipc_weights)


def unipc_weights(ratios, h, variant="bh2"):
    return right_weights(ratios, h or 1e-9, variant)


accepts("no-step", "Weights are made for a step of no length.", unipc_weights)


def unipc_weights(ratios, h, variant="bh2"):
    return right_weights([r for r in ratios if r], h, variant)


accepts("ratio-0", "A guess at the level itself is left out silently.", unipc_weights)


def create_timesteps(schedule, num_steps, spacing="uniform"):
    return right_timesteps(schedule, num_steps,
                           spacing if spacing in ("uniform", "trailing", "quadratic", "log-snr", "karras") else "uniform")


accepts("any-spacing", "An unknown spacing is taken for uniform.", create_timesteps)


def create_timesteps(schedule, num_steps, spacing="uniform"):
    return right_timesteps(schedule, min(num_steps, schedule.num_timesteps), spacing)


accepts("too-many-steps", "More steps than timesteps are cut down silently.", create_timesteps)


def create_timesteps(schedule, num_steps, spacing="uniform"):
    return right_timesteps(schedule, max(num_steps, 1), spacing)


accepts("no-steps", "No steps at all are answered with one.", create_timesteps)


def adaptive_levels(denoise, x, levels, num_steps):
    return right_adaptive(denoise, x, levels[levels.isfinite()], num_steps)


accepts("infinite-grid", "A grid that ends at clean data is cut short silently.", adaptive_levels)


def adaptive_levels(denoise, x, levels, num_steps):
    return right_adaptive(denoise, x, levels.flip(0) if levels[0] > levels[-1] else levels, num_steps)


accepts("a-falling-grid", "A grid that falls is turned round.", adaptive_levels)


def stop_when_settled(tolerance, *args, **kwargs):
    return right_stop(abs(tolerance), *args, **kwargs)


accepts("negative-tolerance", "A tolerance below 0 is accepted.", stop_when_settled)


def solve_hybrid(denoise, x, levels, *, eta=1.0, **options):
    return right_hybrid(denoise, x, levels, eta=max(eta, 0.0), **options)


accepts("negative-eta", "An eta below 0 is taken for 0.", solve_hybrid)


def solve_hybrid(denoise, x, levels, *, eta=1.0, **options):
    return right_hybrid(denoise, x, levels, eta=min(eta, 1.0), **options)


accepts("a-large-eta", "An eta that asks for more noise than there is is cut down silently.", solve_hybrid)


def solve_hybrid(denoise, x, levels, **options):
    return right_hybrid(denoise, x, levels.flip(0) if levels[0] > levels[-1] else levels, **options)


accepts("falling-levels", "Falling levels are turned round.", solve_hybrid)


def measured_order(num_steps, errors):
    n, error = (torch.as_tensor(each, dtype=torch.float64).log() for each in (num_steps, errors))
    return float(-(error[-1] - error[0]) / (n[-1] - n[0]))


accepts("an-error-of-0", "The logarithm of an error of 0 is taken.", measured_order)


def measured_order(num_steps, errors):
    return right_order(num_steps, errors) if len(set(num_steps)) > 1 else 0.0


accepts("a-single-number-of-steps", "A single number of steps is answered with a number.", measured_order)


def solve_ddim(denoise, x, levels, *, callback=None):
    return right_ddim(lambda x, lam: denoise(x, lam).nan_to_num(0.0), x, levels, callback=callback)


accepts("nan", "NaN from the model goes unnoticed.", solve_ddim)


def other_error(error_type):
    def create_timesteps(schedule, num_steps, spacing="uniform"):
        try:
            return right_timesteps(schedule, num_steps, spacing)
        except ValueError as error:
            raise error_type(str(error)) from error
    return create_timesteps


for error_type, hint in ((AssertionError, "An assert vanishes under `python -O`: raise ValueError."),
                         (Exception, "Nobody can catch that one alone: raise ValueError."),
                         (TypeError, "A wrong value is a ValueError.")):
    put("solver-bad-input", f"raises-{error_type.__name__.lower()}", f"Bad input is answered with {error_type.__name__}.",
        hint,
        "create_timesteps", other_error(error_type))


ONE_AXIS = "it is the axis, and there is only one"
GRAIN = "a billionth of the sum is below what is compared; it only keeps an interval without any error from standing still"
NOTHING_ADDED = "it only says whether noise with the factor 0 is drawn and added"
ROOT_REFUSES = "the root of a negative number, which comes next, raises ValueError as well"
FIRST_STEP = "step i = 0 sets it anew"

BLIND_SPOTS = {
    "measured_order: error.log() + error.log().mean(), was error.log() - error.log().mean()":
        "it is multiplied with numbers that sum to 0, so that no constant matters",
    "create_timesteps: -1, was 0": ONE_AXIS,
    "library_timesteps: -1, was 0": ONE_AXIS,
    "adaptive_levels: count - 1e-09 * count.sum(), was count + 1e-09 * count.sum()": GRAIN,
    "adaptive_levels: 1e-09 / count.sum(), was 1e-09 * count.sum()": GRAIN,
    "adaptive_levels: 0, was 1": "searchsorted, to the right of a sum that begins with 0, gives 1 at the least",
    "adaptive_levels: False, was True": "only the two ends fall on a sum exactly, and they are set by hand",
    "adaptive_levels: -1, was 0": "the axis of a sum that has only one, or an end that is right without being set",
    "adaptive_levels: float(levels[1]) <= float(levels[0]), was float(levels[1]) < float(levels[0])":
        "that no level comes twice was checked before",
    "solve_hybrid: steps[1] <= steps[0], was steps[1] < steps[0]": "that no level comes twice was checked before",
    "solve_hybrid: v >= 0, was v > 0": NOTHING_ADDED,
    "solve_hybrid: -1, was 0": NOTHING_ADDED,
    "solve_hybrid: sigma_next * 2, was sigma_next ** 2": ROOT_REFUSES,
    "solve_hybrid: 1, was 2": ROOT_REFUSES,
    "solve_hybrid: x - math.sqrt(v) * standard_normal_like(x, generator), "
    "was x + math.sqrt(v) * standard_normal_like(x, generator)": "noise that is drawn has no sign",
    "stop_when_settled: 1, was 0": FIRST_STEP,
    "stop_when_settled: -1, was 0": FIRST_STEP,
}
"""Mutants of the reference that get all points, and why: they equal it on all valid input, or the difference is not asked
about."""
