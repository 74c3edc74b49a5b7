"""The questions of Lab 6: what is asked, how it is judged, for how many points."""

from __future__ import annotations

import math

import numpy as np

from diffusionlab.asking import Call, Look, Part, ask, call
from diffusionlab.levels import log_snr, signal_noise
from diffusionlab.schedule import NoiseSchedule
from solutions.questions import DTYPE, INPUTS, LIKE_X, VALUE, Question, Questions, normal, refusals, tensor

QUESTIONS = Questions()
question = QUESTIONS.question

# ---------------------------------------------------------------------------------------------- materials

EXACT = Look("value", "close", {"rtol": 1e-6, "atol": 1e-9})
TIMESTEPS = Look("network.t", "same")
N = 20_000

SCHEDULE = NoiseSchedule.linear()


def linear() -> Call:
    return call("diffusionlab.schedule:NoiseSchedule.linear")


def model(mean=0.6, std=0.5, shape: tuple[int, ...] = (1, 3, 4)) -> Call:
    """An exact model, recorded."""
    return call("diffusionlab.noise_model:Recorder", call("diffusionlab.analytic:GaussianModel", linear(), mean, std, shape))


def denoiser(**which) -> Call:
    """A recorded model as solvers take it: asked at the nearest timestep of the table."""
    return call("diffusionlab.levels:Denoiser", model(**which), linear())


def exact(mean: float = 0.6, std: float = 0.5, shape: tuple[int, ...] = (1, 3, 4)) -> Call:
    """The exact guess at any log-SNR, unrecorded."""
    return call("builtins:getattr", call("diffusionlab.analytic:GaussianModel", linear(), mean, std, shape), "denoise")


def some_levels(rng: np.random.Generator, n: int, end: int = -1, lowest: int = 60) -> np.ndarray:
    """The log-SNRs of n timesteps, unevenly spread over the table, and of the end."""
    edges = np.linspace(lowest, 950, n + 1)
    steps = [int(rng.integers(math.ceil(low + 0.15 * (high - low)), math.floor(low + 0.85 * (high - low))))
             for low, high in zip(edges, edges[1:])]
    return np.array([log_snr(SCHEDULE, t) for t in [*reversed(steps), end]])


def trajectory(stop_at: int | None = None) -> Call:
    return call("diffusionlab.levels:Trajectory", stop_at)


def recorded(log: Call, name: str, *args, **kwargs) -> Call:
    """A run with a callback, and all that the callback was told."""
    return ask(log, "after", call(name, *args, callback=log, **kwargs))


TOLD = tuple(Look(f"value.{key}") for key in ("i", "lam", "x", "x0"))


def called_back(rng: np.random.Generator, name: str, points: tuple[float, float], **options):
    """Two parts that every solver has: the callback is told of each step, and can end the run."""
    x, levels = normal(rng, 3, 1, 3, 4), some_levels(rng, 4)
    yield Part("the callback is told i, lam, x and x0 once a step", points[0],
               recorded(trajectory(), name, denoiser(), tensor(x), tensor(levels), **options), (*TOLD, Look("value.result")))
    yield Part("where the callback returns True, x0 is returned at once", points[1],
               recorded(trajectory(2), name, denoiser(), tensor(x), tensor(levels), **options),
               (Look("value.result"), TIMESTEPS))


# ---------------------------------------------------------------------------------------------- part 1


@question("ddim-euler", 8, "DDIM is Euler's method", "solve_ddim")
def solve_ddim(rng):
    x = normal(rng, 4, 1, 3, 4)
    def solve(x, levels):
        return call("solve_ddim", denoiser(), tensor(x), tensor(levels))
    yield Part("one step between two noise levels", 2, solve(x, some_levels(rng, 1, end=int(rng.integers(20, 50)))), LIKE_X)
    whole = solve(x.astype(float), some_levels(rng, 5))
    yield Part("five steps to clean data", 2.5, whole, LIKE_X)
    yield Part("the model is asked once a step, at that step's level", 1, whole, (VALUE, TIMESTEPS))
    yield Part("falling levels lead from data back to noise", 1, solve(x, some_levels(rng, 4, end=3)[::-1].copy()))
    yield from called_back(rng, "solve_ddim", (1, 0.5))


@question("order", 3, "The order of a method", "measured_order")
def measured_order(rng):
    steps = sorted(int(n) for n in rng.choice(np.arange(5, 200), 5, replace=False))
    order = float(rng.uniform(0.8, 3.2))
    errors = [float(rng.uniform(0.1, 5)) * n**-order for n in steps]
    clean = [3.7 * n**-order for n in steps]
    yield Part("errors that fall like 1 / n^p", 1.5, call("measured_order", steps, clean), (EXACT,),
               {"value": np.array(order)})
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    yield Part("errors that scatter: the slope of the best straight line", 1, call("measured_order", steps, errors),
               (EXACT,),
               {"value": np.array(slope)})
    yield Part("in any order", 0.5, call("measured_order", steps[::-1], clean[::-1]), (EXACT,), {"value": np.array(order)})


# ---------------------------------------------------------------------------------------------- part 2


@question("heun", 9, "Heun's method", "solve_heun")
def solve_heun(rng):
    x = normal(rng, 4, 1, 3, 4)
    def solve(x, levels):
        return call("solve_heun", denoiser(), tensor(x), tensor(levels))
    one = solve(x, some_levels(rng, 1, end=int(rng.integers(20, 50))))
    yield Part("one step between two noise levels", 2.5, one, (*LIKE_X, TIMESTEPS))
    whole = solve(x.astype(float), some_levels(rng, 4))
    yield Part("four steps to clean data, the last of them Euler's", 2.5, whole, LIKE_X)
    yield Part("two calls of the model a step, one in the last: 2n - 1", 1.5, whole, (VALUE, TIMESTEPS))
    yield Part("falling levels lead from data back to noise", 1, solve(x, some_levels(rng, 3, end=3)[::-1].copy()))
    yield from called_back(rng, "solve_heun", (1, 0.5))


# ---------------------------------------------------------------------------------------------- part 3


@question("dpm-solver-1", 6, "DPM-Solver of order 1", "solve_dpm1")
def solve_dpm1(rng):
    x = normal(rng, 4, 1, 3, 4)
    def solve(x, levels):
        return call("solve_dpm1", denoiser(), tensor(x), tensor(levels))
    yield Part("one step between two noise levels", 2, solve(x, some_levels(rng, 1, end=int(rng.integers(20, 50)))), LIKE_X)
    whole = solve(x.astype(float), some_levels(rng, 5))
    yield Part("five steps to clean data, where h is infinite", 2, whole, LIKE_X)
    yield Part("the model is asked once a step, at that step's level", 0.5, whole, (VALUE, TIMESTEPS))
    yield Part("falling levels lead from data back to noise", 0.5, solve(x, some_levels(rng, 4, end=3)[::-1].copy()))
    yield from called_back(rng, "solve_dpm1", (0.5, 0.5))


def history(rng: np.random.Generator, levels: np.ndarray, count: int, shape=(4, 1, 3, 4)) -> list:
    """Guesses made before levels[0], newest last."""
    before = levels[0] - np.cumsum(rng.uniform(0.2, 0.7, count))[::-1]
    return [(float(lam), tensor(normal(rng, *shape, dtype=float))) for lam in before]


@question("dpm-solver-2m", 13, "DPM-Solver++(2M)", "solve_dpmpp_2m")
def solve_dpmpp(rng):
    x = normal(rng, 4, 1, 3, 4)
    def solve(x, levels, **options):
        return call("solve_dpmpp_2m", denoiser(), tensor(x), tensor(levels), **options)
    yield Part("the first step, without a guess before it", 2,
               solve(x, some_levels(rng, 1, end=int(rng.integers(20, 50))), lower_order_final=False), LIKE_X)
    yield Part("four steps of unequal length, none of lower order", 4,
               solve(x.astype(float), some_levels(rng, 4, end=20), lower_order_final=False),
               LIKE_X)
    yield Part("the last step to a finite level is of lower order, unless told otherwise", 1.5,
               solve(x.astype(float), some_levels(rng, 3, end=20)))
    whole = solve(x.astype(float), some_levels(rng, 5))
    last = solve(x.astype(float), some_levels(rng, 3), lower_order_final=False)
    yield Part("the last step to clean data always is", 1.5, [whole, last], (Look("value.0"), Look("value.1")))
    yield Part("the model is asked once a step, at that step's level", 1, whole, (VALUE, TIMESTEPS))
    levels = some_levels(rng, 3)
    yield Part("falling levels lead from data back to noise", 0.5, solve(x, some_levels(rng, 4, end=3)[::-1].copy()))
    yield Part("going on from guesses made before", 1, solve(x.astype(float), levels, history=history(rng, levels, 3)))
    yield from called_back(rng, "solve_dpmpp_2m", (1, 0.5))


@question("unipc-weighing", 7, "What UniPC weighs the guesses with", "unipc_weights", method="unipc_weights")
def unipc_weights(rng):
    def weights(ratios, variant="bh2", h=None):
        return call("unipc_weights", [float(r) for r in ratios], float(rng.uniform(0.3, 1.5)) if h is None else h, variant)
    behind = [-float(rng.uniform(0.5, 0.9)), -float(rng.uniform(1.4, 2.0))]
    yield Part("a single guess: half of B(h), bh2", 1, weights([behind[0]]), (EXACT,))
    yield Part("a single guess: half of B(h), bh1", 1, weights([1.0], "bh1"), (EXACT,))
    yield Part("two guesses", 2.5, [weights(behind), weights([behind[0], 1.0])],
               (Look("value.0", "close", {"atol": 1e-6}), Look("value.1", "close", {"atol": 1e-6})))
    yield Part("three guesses", 1.5, weights([*behind, 1.0]), (Look("value", "close", {"rtol": 1e-5, "atol": 1e-7}), DTYPE))
    yield Part("a step back to noise, h below 0", 1, [weights(behind, h=-0.7), weights([1.0], "bh1", -0.7)],
               (Look("value.0", "close", {"atol": 1e-6}), Look("value.1", "close", {"atol": 1e-6})))


@question("unipc-predict-correct", 7, "Predict and correct", "unipc_step", "unipc_weights", needs=("unipc-weighing",),
          method="unipc_step")
def unipc_step(rng):
    x = normal(rng, 4, 1, 3, 4, dtype=float)
    lams = np.cumsum(rng.uniform(0.2, 0.7, 4)) - 1.5
    guesses = [(float(lam), normal(rng, 4, 1, 3, 4, dtype=float)) for lam in lams[:3]]
    def step(p, lam_next, **options):
        given = [(lam, tensor(x0)) for lam, x0 in guesses[-p:]]
        options = {key: tensor(each) if key == "x0_next" else each for key, each in options.items()}
        return call("unipc_step", tensor(x), given, lam_next, **options)
    x0_next, lam_next = normal(rng, 4, 1, 3, 4, dtype=float), float(lams[3])
    yield Part("the predictor with one guess, to a finite level and to clean data", 1.5,
               [step(1, lam_next), step(1, math.inf)],
               (Look("value.0"), Look("value.1"), INPUTS))
    yield Part("the predictor with two guesses and with three", 2, [step(2, lam_next), step(3, lam_next)],
               (Look("value.0"), Look("value.1"), INPUTS))
    yield Part("the corrector with one guess more", 2.5,
               [step(1, lam_next, x0_next=x0_next), step(2, lam_next, x0_next=x0_next)],
               (Look("value.0"), Look("value.1"), INPUTS))
    yield Part("with bh1", 1, step(2, lam_next, variant="bh1"), LIKE_X)


@question("unipc-loop", 7, "UniPC, the whole loop", "solve_unipc", "unipc_step", "unipc_weights",
          needs=("unipc-predict-correct", "unipc-weighing"))
def solve_unipc(rng):
    x = normal(rng, 4, 1, 3, 4, dtype=float)
    def solve(levels, **options):
        return call("solve_unipc", denoiser(), tensor(x), tensor(levels), **options)
    whole = solve(some_levels(rng, 5))
    yield Part("order 2, five steps to clean data", 2, whole, LIKE_X)
    yield Part("the model is asked once a step, for predictor and corrector together", 1, whole, (VALUE, TIMESTEPS))
    yield Part("order 3, and bh1", 1, [solve(some_levels(rng, 5), order=3), *(solve(some_levels(rng, 4), order=p, variant="bh1")
                                                                              for p in (1, 2))],
               (Look("value.0"), Look("value.1"), Look("value.2")))
    yield Part("without the corrector", 1, solve(some_levels(rng, 4), order=3, corrector=False))
    levels = some_levels(rng, 4, end=20)
    yield Part("full order to the end only where asked for, and never to clean data; going on from guesses made before", 1,
               [solve(levels, order=3), solve(levels, order=3, lower_order_final=False),
                solve(levels, order=3, lower_order_final=False, history=history(rng, levels, 2)),
                solve(some_levels(rng, 4), order=3, lower_order_final=False)],
               tuple(Look(f"value.{i}") for i in range(4)))
    yield from called_back(rng, "solve_unipc", (0.5, 0.5))


# ---------------------------------------------------------------------------------------------- part 4


@question("steps-spacing", 8, "Which timesteps to visit", "create_timesteps")
def steps_spacing(rng):
    T, n = 1000, int(rng.integers(6, 30))
    table = np.array([log_snr(SCHEDULE, t) for t in range(T)])

    def apart(lams):
        rising = []
        for i, lam in enumerate(lams[::-1]):
            t = int(np.abs(table - lam).argmin())
            rising.append(min(max(t, rising[-1] + 1) if rising else t, T - len(lams) + i))
        return np.array(rising[::-1])

    def quadratic(n):
        return np.maximum(np.arange(n), np.round((T - 1) * (np.arange(n) / (n - 1)) ** 2)).astype(int)[::-1].copy()

    def karras(n):
        s = np.linspace(np.exp(-table[-1] / 7), np.exp(-table[0] / 7), n) ** 7
        return apart((-np.log(s)).clip(table[-1], table[0]))

    spacings = {"uniform": (1, lambda n: np.linspace(T - 1, 0, n).round().astype(int)),
                "trailing": (1, lambda n: np.round(T - np.arange(n) * T / n).astype(int) - 1), "quadratic": (1, quadratic),
                "log-snr": (2.5, lambda n: apart(np.linspace(table[-1], table[0], n))), "karras": (2.5, karras)}
    for spacing, (points, formula) in spacings.items():
        wants = {"value.0": formula(n), "value.1": formula(50), "value.2": np.array([T - 1]),
                 "value.3": np.arange(T)[::-1].copy()}
        yield Part(f"{spacing}: where the steps fall; a single one; all T of them", points,
                   [call("create_timesteps", linear(), k, spacing) for k in (n, 50, 1, T)],
                   tuple(Look(at, "falling") for at in wants), wants)


@question("adaptive-spacing", 6, "Steps where the error is", "adaptive_levels")
def adaptive_levels(rng):
    x, n = normal(rng, 6, 1, 3, 4, dtype=float), int(rng.integers(5, 9))
    grid = some_levels(rng, 24, end=int(rng.integers(3, 20)))
    # Pixels of different spread, so that a mean over them is not any one of them.
    spread = rng.uniform(0.1, 1.2, (1, 3, 4))
    adapted = call("adaptive_levels", denoiser(mean=0.9, std=tensor(spread)), tensor(x), tensor(grid), n)
    yield Part("each step has the same share of the error", 3, adapted, (VALUE, DTYPE, INPUTS))
    yield Part("two calls of the model an interval of the grid", 1, adapted, (VALUE, TIMESTEPS))
    ends = [call("operator:getitem", adapted, i) for i in (0, -1)]
    coarse = [call("adaptive_levels", denoiser(), tensor(x), tensor(grid[::k].copy()), 2 * n) for k in (12, 24)]
    yield Part("as many levels as asked for, from the grid's first to its last; more than the grid has, too", 1,
               [adapted, *ends, *coarse],
               (Look("value.0"), Look("value.1", "same"), Look("value.2", "same"), Look("value.3"), Look("value.4")),
               {"value.1": np.array(grid[0]), "value.2": np.array(grid[-1])})
    still = call("diffusionlab.levels:Denoiser", call("diffusionlab.analytic:GaussianModel", linear(), 0.0, 0.0, (1, 3, 4)),
                 linear())
    zeros = np.zeros((2, 1, 3, 4))
    yield Part("evenly spaced where no error is seen at all", 1,
               call("adaptive_levels", still, tensor(zeros), tensor(grid), 5),
               (Look("value", "close", {"atol": 1e-5}),), {"value": np.linspace(grid[0], grid[-1], 6)})


@question("early-exit", 5, "Stop when there is nothing left to do", "stop_when_settled")
def early_exit(rng):
    base = normal(rng, 4, 1, 3, 3)
    def told(stop, changes, lams=None, first=0):
        """The answers of one callback to guesses of which one sample changes by so much (root mean square) in each step."""
        guesses, answers = base.astype(float), []
        for i, change in enumerate(changes):
            # Some pixels change by more than the root mean square, some by less.
            pattern = rng.standard_normal(guesses[1].shape)
            guesses = guesses.copy()
            guesses[1] += change * pattern / np.sqrt(np.mean(pattern**2))
            lam = 0.3 + 0.1 * i if lams is None else lams[i]
            noisy = rng.standard_normal(guesses.shape)  # what is noisy changes all the time
            answers.append(call("builtins:bool", ask(stop, "__call__", first + i, lam, tensor(noisy), tensor(guesses))))
        return answers
    tolerance = float(rng.uniform(0.02, 0.2))
    small, large = 0.8 * tolerance, 1.3 * tolerance
    # Runs of other lengths each time: who recites the answers of one has those of no other.
    def some(low, high):
        return int(rng.integers(low, high + 1))
    def part(title, points, *runs):
        """Of each run the answers, and whether the last is True; all before are False."""
        answers = [answer for run, _ in runs for answer in run]
        wants = [stops and i == len(run) - 1 for run, stops in runs for i in range(len(run))]
        return Part(title, points, answers, tuple(Look(f"value.{i}", "same") for i in range(len(wants))),
                    {f"value.{i}": np.array(want) for i, want in enumerate(wants)})
    yield part("it stops once no sample's guess has changed by more than the tolerance, be that 0", 2,
               (told(call("stop_when_settled", tolerance), [0, *[large] * some(1, 4), small]), True),
               (told(call("stop_when_settled", 0.0), [0, *[small] * some(1, 3), 0]), True),
               (told(call("stop_when_settled", tolerance), [0, *[large] * some(2, 5)]), False))
    patience = some(2, 3)
    yield part("patience: so many quiet steps in a row", 1,
               (told(call("stop_when_settled", tolerance, patience),
                     [0, *[small] * (patience - 1), *[large] * some(1, 2), *[small] * some(1, patience - 1), large, *[small] * patience]), True))
    again = call("stop_when_settled", tolerance)
    yield part("a new run begins at i = 0", 1, *((told(again, [0, small]), True) for _ in range(some(1, 3))),
               (told(again, [0, *[large] * some(1, 3)]), False))
    noise = some(2, 5)
    lams = [*np.sort(rng.uniform(-3, 0.4, noise)).tolist(), 0.5, 0.7, 0.8]
    yield part("quiet steps in pure noise do not count", 1,
               (told(call("stop_when_settled", tolerance, patience=2, after=0.5), [0, *[small] * (noise + 1)], lams), True))


@question("hybrid", 5, "Stochastic early, deterministic late", "solve_hybrid")
def hybrid(rng):
    x = normal(rng, 4, 1, 3, 4, dtype=float)
    # A solver that only guesses: what comes of it shows where it was entered.
    late = call("builtins:getattr", call("importlib:import_module", "diffusionlab.levels"), "only_guesses")
    levels = some_levels(rng, 6)
    switch = float(levels[3] - 0.4 * (levels[3] - levels[2]))
    plain = call("solve_hybrid", denoiser(), tensor(x), tensor(levels), switch=switch, eta=0.0, late=late)
    yield Part("without noise: DDIM up to the switch, and then the other solver", 1.5, plain, (*LIKE_X, TIMESTEPS))
    yield Part("a switch that lies on a level belongs to the second half; one above all leaves only the first", 0.5,
               [call("solve_hybrid", denoiser(), tensor(x), tensor(levels), switch=each, eta=0.0, late=late)
                for each in (float(levels[2]), 99.0)],
               (Look("value.0"), Look("value.1"), TIMESTEPS))
    seed, other = (int(s) for s in rng.integers(2**31, size=2))
    eta, mean, std = float(rng.uniform(0.5, 0.9)), 0.6, 0.5
    # A single step shows how much noise is fresh; in a chain less of it and more of the old come to much the same.
    three = some_levels(rng, 3, end=int(rng.integers(60, 90)), lowest=200)
    one = np.array([log_snr(SCHEDULE, t) for t in (int(rng.integers(200, 300)), 100)])
    points = ask(tensor(np.array([[0.4]])), "repeat", N, 1)

    def drawn(steps, seed):
        return call("solve_hybrid", exact(mean, std, (1,)), points, tensor(steps), switch=99.0, eta=eta,
                    generator=None if seed is None else ask(call("torch:Generator"), "manual_seed", seed))

    def moments(steps):
        m, v = 0.4, 0.0
        for lam, lam_next in zip(steps, steps[1:]):
            (alpha, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
            fresh = (eta * sigma_next / sigma) ** 2 * (1 - (alpha / alpha_next) ** 2)
            k = sigma / (alpha**2 * std**2 + sigma**2)                                   # eps = k (x - alpha mean)
            on_eps = math.sqrt(sigma_next**2 - fresh) - alpha_next * sigma / alpha
            c = alpha_next / alpha + on_eps * k
            m, v = c * m - on_eps * k * alpha * mean, c**2 * v + fresh
        return np.array([m, math.sqrt(v), N])
    same = call("torch:sub", drawn(three, seed), drawn(three, seed))
    another = call("torch:sub", drawn(three, seed), drawn(three, other))
    unseeded = call("torch:sub", drawn(three, None), drawn(three, None))
    independent = np.array([0.0, math.sqrt(2) * moments(three)[1], N])
    wants = [moments(one), moments(three), np.array([0.0, 0.0, N]), independent, independent]
    single = call("solve_hybrid", denoiser(), tensor(x.astype(np.float32)), tensor(levels), switch=switch, eta=eta, late=late)
    yield Part("eta: the samples have the chain's mean and standard deviation, the same again from the same seed, in the dtype of x", 2,
               [drawn(one, seed), drawn(three, seed), same, another, unseeded, single],
               (*(Look(f"value.{i}", "moments") for i in range(5)), Look("value.5.dtype", "same")),
               {f"value.{i}": want for i, want in enumerate(wants)})
    def run(stop_at=None):
        return recorded(trajectory(stop_at), "solve_hybrid", denoiser(), tensor(x), tensor(levels), switch=switch, eta=0.0, late=late)
    yield Part("the callback counts over both halves", 0.5, run(), TOLD)
    yield Part("where the callback returns True, x0 is returned at once, in either half", 0.5, [run(1), run(4)],
               (Look("value.0.result"), Look("value.1.result"), TIMESTEPS))


# ---------------------------------------------------------------------------------------------- part 6 and the rest


@question("library-options", 4, "What a library's options mean", "library_timesteps")
def library_timesteps(rng):
    def part(title, points, cases, formula):
        wants = {f"value.{i}": formula(*case) for i, case in enumerate(cases)}
        asked = [call("library_timesteps", T, n, title.partition(":")[0].partition(",")[0], *rest) for T, n, *rest in cases]
        return Part(title, points, asked, tuple(Look(at, "same") for at in (*wants, "value.0.dtype")), wants)
    n, few, many = int(rng.integers(6, 40)), int(rng.integers(3, 12)), int(rng.integers(12, 40))
    times = int(rng.integers(7, 40))
    # Numbers of steps at which 1000 leaves much to rounding, but never a half.
    uneven = int(rng.choice([14, 22, 26, 34]))
    yield part("leading: counted up from 0", 1.5, [(1000, n), (1000, 50), (1000, 1000)], lambda T, n: (np.arange(n) * (T // n))[::-1].copy())
    yield part("leading, with steps_offset", 0.5, [(1000, n, 1)], lambda T, n, k: (np.arange(n) * (T // n))[::-1] + k)
    yield part("linspace: both ends, whatever steps_offset", 1,
               [(times * (few - 1) + 1, few), (times * (many - 1) + 1, many, 1), (1000, uneven)],
               lambda T, n, *_: np.linspace(0, T - 1, n).round().astype(int)[::-1].copy())
    yield part("trailing: counted down from T", 1, [(times * few, few), (times * many, many, 1), (1000, uneven)],
               lambda T, n, *_: np.round(T - np.arange(n) * T / n).astype(int) - 1)


@question("solver-bad-input", 4, "Bad input is refused", "solve_ddim", "measured_order", "solve_heun", "solve_dpm1",
          "solve_dpmpp_2m", "unipc_weights", "unipc_step", "solve_unipc", "create_timesteps", "adaptive_levels",
          "stop_when_settled", "solve_hybrid", "library_timesteps")
def bad_input(rng):
    array, levels = normal(rng, 2, 1, 3, 4), some_levels(rng, 4)
    x, pixels, steps = tensor(array), tensor(rng.integers(0, 255, (2, 1, 3, 4))), tensor(levels)
    wrong = {"repeated": levels[[0, 1, 1, 2, 3]], "disorder": levels[[0, 2, 1, 3]], "single": levels[:1],
             "falling": levels[-2::-1].copy(), "outside": np.array([-8.0, *levels])}
    wrong = {key: tensor(each) for key, each in wrong.items()}
    broken, remote = exact(math.nan), denoiser()
    def solve(name, denoise=exact(), x=x, steps=steps, **options):
        return call(name, denoise, x, steps, **options)
    def good(name, *denoise):
        """Three calls that are right."""
        return [solve(name, *denoise, steps=tensor(some_levels(rng, n))) for n in (2, 3, 5)]
    def weights(ratios, h, *variant):
        return call("unipc_weights", ratios, h, *variant)
    def spaced(*args):
        return call("create_timesteps", linear(), *args)
    def adapted(steps, n):
        return call("adaptive_levels", exact(), x, steps, n)
    def order(*args):
        return call("measured_order", *args)
    yield from refusals(rng, 4, [
        (good("solve_ddim"), {"integer images": solve("solve_ddim", x=pixels), "NaN from the model": solve("solve_ddim", broken)}),
        (good("solve_heun"), {"a level twice": solve("solve_heun", steps=wrong["repeated"])}),
        (good("solve_dpmpp_2m"), {"levels in disorder": solve("solve_dpmpp_2m", steps=wrong["disorder"])}),
        (good("solve_dpm1"), {"a single level": solve("solve_dpm1", steps=wrong["single"])}),
        ([*good("solve_unipc", remote), solve("solve_unipc", steps=tensor(levels[-4:]), order=3)],
         {"a level outside the table": solve("solve_unipc", remote, steps=wrong["outside"]),
          "an order above the number of steps": solve("solve_unipc", steps=tensor(levels[-3:]), order=3)}),
        ([weights([-1.0], 0.5), weights([-1.0, 1.0], 0.3), weights([-2.0], 0.7, "bh1")],
         {"an unknown variant of B(h)": weights([-1.0], 0.5, "bh3"), "weights for an infinite step": weights([-1.0, 1.0], math.inf),
          "weights for a step of no length": weights([-1.0], 0.0), "a guess at the level itself, r = 0": weights([0.0, 1.0], 0.5)}),
        ([spaced(10), spaced(20, "log-snr"), spaced(7, "karras")],
         {"an unknown spacing": spaced(10, "cubic"), "more steps than timesteps": spaced(1001, "log-snr"), "no steps": spaced(0, "karras")}),
        ([adapted(tensor(some_levels(rng, 5)[:-1]), n) for n in (2, 3, 4)],
         {"a grid that ends at clean data": adapted(steps, 3), "a grid that falls": adapted(wrong["falling"], 3)}),
        ([call("stop_when_settled", each) for each in (0.0, 0.1, 0.5)], {"a tolerance below 0": call("stop_when_settled", -0.1)}),
        ([solve("solve_hybrid", eta=eta) for eta in (0.0, 0.5, 1.0)],
         {"an eta below 0": solve("solve_hybrid", eta=-0.5),
          "an eta that asks for more noise than there is": solve("solve_hybrid", eta=3.0, switch=99.0),
          "stochastic steps back to noise": solve("solve_hybrid", steps=wrong["falling"])}),
        ([order([10, 20], [0.2, 0.1]), order([8, 16, 32], [0.3, 0.1, 0.02]), order([5, 9], [1.0, 0.5])],
         {"an order from a single number of steps": order([10, 10], [0.2, 0.1]), "an error of 0": order([10, 20], [0.2, 0.0])})])


QUESTIONS += [Question("solver-analysis", 6, "What your measurements say"),
              Question("solver-code-quality", 2, "Code that others can read")]
