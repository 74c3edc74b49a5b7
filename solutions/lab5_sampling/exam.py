"""The questions of Lab 5: what is asked, how it is judged, for how many points.

Where the right answer follows from a closed form, it is computed here from the formulas, not from the reference.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from diffusionlab.asking import Call, Look, Part, ask, call
from diffusionlab.schedule import NoiseSchedule
from solutions.questions import DTYPE, INPUTS, LIKE_X, VALUE, Question, Questions, normal, refusals, tensor

from .measure import sample_diversity

QUESTIONS = Questions()
question = QUESTIONS.question

# ---------------------------------------------------------------------------------------------- materials

EXACT = Look("value", "close", {"rtol": 1e-3, "atol": 1e-7})
MOMENTS = Look("value", "moments")
TIMESTEPS = Look("network.t", "same")
NO_GRADIENTS = Look("network.grad", "at_most")
EVALUATION = Look("network.training", "at_most")
N = 20_000


def alike(value: float, dtype=np.float32) -> Call:
    """A batch of N equal one-dimensional points."""
    return ask(tensor(np.array([[value]], dtype)), "repeat", N, 1)


def generator(rng: np.random.Generator) -> Call:
    return ask(call("torch:Generator"), "manual_seed", int(rng.integers(2**31)))


def redrawn(rng: np.random.Generator, draw) -> list:
    """What `draw` makes of a generator, and the differences when it draws again from the same seed, from another, and twice from none."""
    seed, another = (int(n) for n in rng.integers(2**31, size=2))
    first, second, third = (draw(ask(call("torch:Generator"), "manual_seed", each)) for each in (seed, seed, another))
    return [first, call("torch:sub", first, second), call("torch:sub", first, third), call("torch:sub", draw(None), draw(None))]


REDRAWN = tuple(Look(f"value.{i}", "moments") for i in range(4))
SAME_AGAIN, RUNS = Look("value.4", "close", {"atol": 1e-6}), 7  # five runs of `redrawn` and two of `repeated`


def redrawn_moments(moments: np.ndarray) -> dict[str, np.ndarray]:
    """The same again from the same seed; independent, with twice the variance of one, from another or none."""
    mean, std, n = moments
    independent = np.array([0.0, math.sqrt(2) * std, n])
    return {"value.0": moments, "value.1": np.array([0.0, 0.0, n]), "value.2": independent, "value.3": independent}


def repeated(rng: np.random.Generator, draw) -> Call:
    """The difference of what `draw` makes of a generator twice, from the same seed: 0."""
    seed = int(rng.integers(2**31))
    return call("torch:sub", *(draw(ask(call("torch:Generator"), "manual_seed", seed)) for _ in range(2)))


def linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Call:
    return call("diffusionlab.schedule:NoiseSchedule.linear", T, beta_start, beta_end)


def alpha_bar(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    return NoiseSchedule.linear(T, beta_start, beta_end).alphas_cumprod.numpy()


# Of a model that was taught by another schedule: its chain shows in its moments what eta was, which a perfect prediction would hide.
TAUGHT = (1000, 1e-4, 0.005)

# Few steps with large betas: every term matters at every step, and a whole chain is quick.
SHORT = (12, 0.02, 0.4)


def gaussian(schedule: Call, mean: float = 0.7, std: float = 0.4, shape: tuple[int, ...] = (1,)) -> Call:
    """A recorded model whose noise prediction is exact for data N(mean, std^2)."""
    return call("diffusionlab.noise_model:Recorder",
                call("diffusionlab.analytic:GaussianModel", schedule, mean, std, shape))


def data(rng: np.random.Generator) -> dict[str, float]:
    """Mean and standard deviation of the data that a model knows, so that no chain ends where another student's does."""
    return {"mean": float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)), "std": float(rng.uniform(0.3, 0.5))}


def sampler(name: str, schedule: Call, taught: Call | None = None, **model) -> Call:
    return call(name, gaussian(taught or schedule, **model), schedule)


def chain_moments(A: np.ndarray, steps: list[int], eta: float, n: int = N, taught: np.ndarray | None = None,
                  mean: float = 0.7, std: float = 0.4, end: int = -1) -> np.ndarray:
    """Mean, standard deviation and n of the chain along `steps` and on to `end`, started at N(0, 1), with the Gaussian model.

    Each step is linear, x_s = c x_t + d + sigma z, so mean and variance follow a recursion. The model's alpha_bar is A, or `taught`.
    """
    taught = A if taught is None else taught
    m, v = 0.0, 1.0
    for t, s in zip(steps, [*steps[1:], end]):
        A_t, A_s = A[t], A[s] if s >= 0 else 1.0
        sigma2 = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        M_t = taught[t]
        k = math.sqrt(1 - M_t) / (M_t * std**2 + 1 - M_t)               # eps = k (x - sqrt(M_t) mean)
        on_eps = math.sqrt(1 - A_s - sigma2) - math.sqrt(A_s * (1 - A_t) / A_t)
        c, d = math.sqrt(A_s / A_t) + on_eps * k, -on_eps * k * math.sqrt(M_t) * mean
        m, v = c * m + d, c**2 * v + sigma2
    return np.array([m, math.sqrt(v), n])


# Numbers of uniform steps that leave nothing to round for T = 1000: n - 1 divides 999.
WHOLE = (4, 10, 28)


def uniform(T: int, n: int) -> list[int]:
    return np.linspace(T - 1, 0, n).round().astype(int).tolist()


# ---------------------------------------------------------------------------------------------- written with what they rest on


def eta_step_by_jump(ddim, x_t, t, s, eta=0.0, *, noise=None, generator=None):
    """What eta adds to a deterministic jump: less of the predicted noise, and fresh noise in its place."""
    A = ddim.schedule.alphas_cumprod
    A_t, A_s = float(A[t]), float(A[s]) if s >= 0 else 1.0
    sigma2 = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
    noise = torch.randn(x_t.shape, dtype=x_t.dtype, generator=generator) if noise is None else noise
    eps = ddim.model(x_t, torch.full((len(x_t),), t))
    return ddim.own(x_t, t, s) + (math.sqrt(1 - A_s - sigma2) - math.sqrt(1 - A_s)) * eps + math.sqrt(sigma2) * noise


def cached_by_sample(optimizer, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
    """Equal to the plain sampler's, so: the plain sampler's."""
    return ddim_sampler.sample(shape, num_steps, eta, x_T=x_T, generator=generator)


def eta_effects_by_steps(controller, shape, eta_values, num_steps, *, generator=None):
    """One chain after the other, each step by `ddim_step`."""
    ddim = controller.ddim_sampler
    steps = ddim.create_timestep_schedule(num_steps).tolist()
    jumps = list(zip(steps, [*steps[1:], -1]))
    noises = [torch.randn(shape, generator=generator) for _ in range(num_steps + 1)]
    samples = []
    for eta in eta_values:
        x = noises[-1]
        for (t, s), noise in zip(jumps, noises):
            x = ddim.ddim_step(x, t, s, eta, noise=noise)
        samples.append(x)
    sigma = [[float(controller.compute_stochastic_variance(t, s, eta)) ** 0.5 for t, s in jumps] for eta in eta_values]
    return {"eta_values": list(eta_values), "samples": torch.stack(samples), "sigma": torch.tensor(sigma, dtype=torch.float64),
            "diversity": torch.tensor([sample_diversity(x) for x in samples], dtype=torch.float64)}


# ---------------------------------------------------------------------------------------------- part 1


@question("forward-add-noise", 5, "Jump to any noise level", "ForwardProcessImpl", method="add_noise")
def forward_add_noise(rng):
    forward = call("ForwardProcessImpl", linear())
    t = int(rng.integers(200, 600))
    x, noise = normal(rng, 3, 1, 5, 7), normal(rng, 3, 1, 5, 7)
    yield Part("one timestep for the whole batch", 1.5, ask(forward, "add_noise", tensor(x), t, tensor(noise)), LIKE_X)
    yield Part("float64 in, float64 out, at t = 0", 0.5,
               ask(forward, "add_noise", tensor(x.astype(float)), 0, tensor(noise.astype(float))), (EXACT, DTYPE))
    # As many samples as columns: a [B] that is not reshaped would be broadcast along the width without an error.
    x, noise, ts = normal(rng, 4, 2, 3, 4), normal(rng, 4, 2, 3, 4), rng.permutation(1000)[:4]
    yield Part("one timestep for each sample", 1, ask(forward, "add_noise", tensor(x), tensor(ts), tensor(noise)), LIKE_X)
    yield Part("signals [B, C, L] as well as images", 0.5, ask(forward, "add_noise", tensor(x[:, 0]), tensor(ts), tensor(noise[:, 0])))
    t, value = int(rng.integers(200, 700)), float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5))
    yield Part("noise is drawn where none is given", 0.5, ask(forward, "add_noise", alike(value), t),
               (MOMENTS,), {"value": np.array([math.sqrt(alpha_bar()[t]) * value, math.sqrt(1 - alpha_bar()[t]), N])})
    ks = [int(rng.integers(*range_)) for range_ in ((300, 500), (800, 1000), (50, 200))]  # neither rising nor falling
    trajectory = ask(forward, "demonstrate_forward_trajectory", tensor(np.zeros((N // 4, 1, 2, 2), np.float32)), ks)
    scale = np.sqrt(1 - alpha_bar()[ks]).reshape(-1, 1, 1, 1, 1).astype(np.float32)
    noises = call("torch:div", trajectory, tensor(scale))
    alike_at_all_k = ask(call("torch:lt", call("torch:std", noises, 0), 1e-3), "all")
    yield Part("a trajectory keeps one draw of noise for all its timesteps", 1, [alike_at_all_k, call("torch:sum", noises, 0)],
               (Look("value.0", "same"), Look("value.1", "moments")),
               {"value.0": np.array(True), "value.1": np.array([0, 3, N])})


@question("analyzer-quality", 4, "How good is the noise prediction?", "TrainedModelAnalyzer", "ForwardProcessImpl",
          needs=("forward-add-noise",), method="analyze_noise_prediction_quality")
def analyzer_quality(rng):
    schedule, ks = linear(), [int(rng.integers(*range_)) for range_ in ((400, 600), (20, 80), (800, 960), (150, 300))]
    analysis = ask(sampler("TrainedModelAnalyzer", schedule), "analyze_noise_prediction_quality",
                   tensor(normal(rng, 5, 1, 4, 4)), ks, noise=tensor(normal(rng, 5, 1, 4, 4)))
    A = alpha_bar()[ks]
    yield Part("eps_mse: the error of the predicted noise", 1, analysis, (Look("value.eps_mse"), Look("value.eps_mse.dtype", "same")))
    yield Part("x0_mse: the error of the clean image it implies", 1.5, analysis, (Look("value.x0_mse"), Look("value.x0_mse.dtype", "same")))
    yield Part("snr: A / (1 - A)", 1, analysis, (Look("value.snr"),), {"value.snr": A / (1 - A)})
    drawn = ask(sampler("TrainedModelAnalyzer", schedule), "analyze_noise_prediction_quality", tensor(normal(rng, N // 4, 1, 2, 2)),
                [*ks, ks[0]])
    again = call("operator:truediv", *(call("operator:getitem", call("operator:getitem", drawn, "eps_mse"), i) for i in (0, -1)))
    few = normal(rng, 2, 1, 3, 3)
    same = repeated(rng, lambda generator: call("operator:getitem", ask(
        sampler("TrainedModelAnalyzer", schedule), "analyze_noise_prediction_quality", tensor(few), ks[:1], generator=generator), "eps_mse"))
    yield Part("the timesteps, one draw of noise for all where none is given, a model asked in evaluation mode, without gradients", 0.5,
               [analysis, drawn, again, same],
               (Look("value.0.timesteps", "same"), Look("value.1.eps_mse", "close", {"rtol": 0.15}),
                Look("value.2", "close", {"rtol": 1e-5, "atol": 0}), Look("value.3", "close", {"atol": 1e-7}),
                NO_GRADIENTS, EVALUATION, INPUTS), {"value.2": np.array(1.0), "value.3": np.array([0.0])})


# ---------------------------------------------------------------------------------------------- part 2


@question("ddpm-posterior-mean", 8, "The posterior mean", "DDPMSampler", method="compute_posterior_mean")
def ddpm_posterior_mean(rng):
    # Where betas are small, half of the factors differ by less than rounding; with large ones every factor shows.
    ddpm, short = sampler("DDPMSampler", linear()), sampler("DDPMSampler", linear(*SHORT))
    def mean(ddpm, x, t, eps):
        return ask(ddpm, "compute_posterior_mean", tensor(x), t if isinstance(t, int) else tensor(t), tensor(eps))
    x, eps = normal(rng, 3, 2, 5, 3), normal(rng, 3, 2, 5, 3)
    yield Part("one timestep for the whole batch", 3, mean(ddpm, x, int(rng.integers(600, 950)), eps), LIKE_X)
    yield Part("t = 0, in float64", 1, mean(ddpm, x.astype(float), 0, eps.astype(float)), (VALUE, DTYPE))
    yield Part("t = T - 1, where T is not 1000", 1, mean(short, x, SHORT[0] - 1, eps))
    x, eps = normal(rng, 4, 1, 4, 4), normal(rng, 4, 1, 4, 4)
    ts = rng.permutation(11)[:4] + 1
    yield Part("one timestep for each sample", 2.5, mean(short, x, ts, eps), LIKE_X)
    yield Part("points [B, 2] as well as images", 0.5, mean(short, x[:, 0, :2, 0], ts, eps[:, 0, :2, 0]))


@question("ddpm-posterior-variance", 7, "The posterior variance", "DDPMSampler", method="compute_posterior_variance")
def ddpm_posterior_variance(rng):
    # A handful of timesteps is soon known by heart; their variances in a schedule of one's own are not.
    linear_ddpm = sampler("DDPMSampler", linear(1000, float(rng.uniform(5e-5, 2e-4))))
    short_ddpm = sampler("DDPMSampler", linear(SHORT[0], float(rng.uniform(0.01, 0.04)), SHORT[2]))
    t = int(rng.integers(2, 9))
    yield Part("a small timestep, where it is well below beta_t", 2, ask(linear_ddpm, "compute_posterior_variance", t),
               (EXACT, DTYPE))
    yield Part("another schedule", 1.5, ask(short_ddpm, "compute_posterior_variance", int(rng.integers(3, 11))), (EXACT, DTYPE))
    # As a share of the next one, which is a variance and no timestep: neither 0 nor t is an answer.
    first, second = (ask(linear_ddpm, "compute_posterior_variance", each) for each in (0, 1))
    yield Part("0 at t = 0, and only there", 1.5, [call("operator:truediv", first, second), second],
               (Look("value.0", "close", {"atol": 0, "rtol": 0}), Look("value.0.dtype", "same"), Look("value.1", "close", EXACT.options)),
               {"value.0": np.array(0.0)})
    ts = np.array([0, *rng.permutation(11)[:4] + 1])
    yield Part("one value for each timestep of a LongTensor", 2,
               ask(short_ddpm, "compute_posterior_variance", tensor(ts)), (EXACT, DTYPE, INPUTS))


@question("ddpm-step", 5, "One step of DDPM", "DDPMSampler", needs=("ddpm-posterior-mean", "ddpm-posterior-variance"),
          method="ddpm_step")
def ddpm_step(rng):
    known = data(rng)
    ddpm, mean, std = sampler("DDPMSampler", linear(*SHORT), **known), known["mean"], known["std"]
    x, z, t = normal(rng, 4, 1, 3, 4), normal(rng, 4, 1, 3, 4), int(rng.integers(4, 10))
    step = ask(ddpm, "ddpm_step", tensor(x), t, noise=tensor(z))
    yield Part("mean plus standard deviation times noise", 2, step, LIKE_X)
    yield Part("the model is asked once, with a LongTensor [B] of t, without gradients", 1, step, (VALUE, TIMESTEPS, NO_GRADIENTS))
    yield Part("at t = 1 noise is added, at t = 0 none", 1, [
        ask(ddpm, "ddpm_step", tensor(x.astype(float)), t, noise=tensor(z.astype(float))) for t in (1, 0)],
        (Look("value.0"), Look("value.1"), Look("value.1.dtype", "same")))
    A = alpha_bar(*SHORT)
    a, t = A[t] / A[t - 1], t
    k = math.sqrt(1 - A[t]) / (A[t] * std**2 + 1 - A[t])
    centre = (0.5 - (1 - a) / math.sqrt(1 - A[t]) * k * (0.5 - math.sqrt(A[t]) * mean)) / math.sqrt(a)
    spread = math.sqrt((1 - a) * (1 - A[t - 1]) / (1 - A[t]))
    yield Part("noise is drawn afresh for each sample where none is given, from the generator where one is", 1,
               redrawn(rng, lambda generator: ask(ddpm, "ddpm_step", alike(0.5), t, generator=generator)), REDRAWN,
               redrawn_moments(np.array([centre, spread, N])))


@question("ddpm-sample", 5, "The whole DDPM loop", "DDPMSampler", needs=("ddpm-step",), method="sample")
def ddpm_sample(rng):
    T, falling, known = SHORT[0], np.arange(SHORT[0] - 1, -1, -1), data(rng)
    def sample(*args, **kwargs):
        return ask(sampler("DDPMSampler", linear(*SHORT), **known), "sample", *args, **kwargs)
    x_T, ddpm = normal(rng, 3, 1, 2, 2), sampler("DDPMSampler", linear(*SHORT), **known)
    moments = chain_moments(alpha_bar(*SHORT), falling.tolist(), eta=1, **known)
    yield Part("the samples have the chain's mean and standard deviation, and are the same again from the same seed", 2,
               [*redrawn(rng, lambda generator: ask(ddpm, "sample", (N, 1), generator=generator)),
                repeated(rng, lambda generator: ask(ddpm, "sample", x_T.shape, x_T=tensor(x_T), generator=generator))],
               (*REDRAWN, SAME_AGAIN, TIMESTEPS),
               redrawn_moments(moments) | {"value.4": np.zeros_like(x_T), "network.t": np.tile(falling, RUNS)})
    yield Part("the model is asked at T-1, ..., 0, once each, in evaluation mode, without gradients", 1.5,
               sample((N, 1)), (MOMENTS, TIMESTEPS, NO_GRADIENTS, EVALUATION), {"value": moments, "network.t": falling})
    def trajectory(x_T, at):
        pair = sample(x_T.shape, True, x_T=tensor(x_T), generator=generator(rng))
        return call("operator:getitem", pair, 0), call("operator:getitem", pair, 1), call("operator:getitem", call("operator:getitem", pair, 1), at)
    x, way, last = trajectory(x_T, -1)
    _, _, halfway = trajectory(normal(rng, N, 1), T // 2)
    yield Part("the trajectory: T + 1 entries, x_T first, the chain's mean and standard deviation on the way, x last", 1.5,
               [call("operator:getitem", way, 0), call("torch:sub", last, x), ask(way, "size"), halfway],
               (Look("value.0"), Look("value.1", "close", {"atol": 1e-6}), Look("value.2", "same"), Look("value.3", "moments"), INPUTS),
               {"value.0": x_T, "value.1": np.zeros_like(x_T), "value.2": np.array([T + 1, *x_T.shape]),
                "value.3": chain_moments(alpha_bar(*SHORT), falling[:T // 2].tolist(), eta=1, end=int(falling[T // 2]), **known)})


# ---------------------------------------------------------------------------------------------- part 3


@question("ddim-predict-x0", 5, "The clean image that a noise prediction implies", "DDIMSampler",
          method="predict_x0_from_eps")
def ddim_predict_x0(rng):
    ddim = sampler("DDIMSampler", linear())
    def predict(x, eps, t):
        return ask(ddim, "predict_x0_from_eps", tensor(x), tensor(eps), t if isinstance(t, int) else tensor(t))
    x, eps = normal(rng, 3, 1, 5, 7), normal(rng, 3, 1, 5, 7)
    yield Part("one timestep for the whole batch", 2, predict(x, eps, int(rng.integers(200, 600))), LIKE_X)
    yield Part("t = T - 1, where sqrt(A_t) is tiny", 1, predict(x.astype(float), eps.astype(float), 999), (VALUE, DTYPE))
    x, eps = normal(rng, 4, 2, 3, 4), normal(rng, 4, 2, 3, 4)
    ts = rng.permutation(700)[:4] + 100
    yield Part("one timestep for each sample", 1.5, predict(x, eps, ts), LIKE_X)
    yield Part("signals [B, C, L] as well as images", 0.5, predict(x[:, 0], eps[:, 0], ts))


@question("ddim-step-deterministic", 8, "A deterministic jump", "DDIMSampler", needs=("ddim-predict-x0",),
          method="ddim_step")
def ddim_step_deterministic(rng):
    ddim = sampler("DDIMSampler", linear(), **data(rng))
    x, z = normal(rng, 4, 1, 3, 4), normal(rng, 4, 1, 3, 4)
    t, s = int(rng.integers(500, 900)), int(rng.integers(150, 400))
    step = ask(ddim, "ddim_step", tensor(x), t, s)
    yield Part("from t to any lower s", 3, step, LIKE_X)
    near = int(rng.integers(20, 60))
    yield Part("to s = -1, clean data, where A = 1; and to s = 0, where it is not", 2.5,
               [ask(ddim, "ddim_step", tensor(x.astype(float)), near, s) for s in (-1, 0)],
               (Look("value.0"), Look("value.0.dtype", "same"), Look("value.1")))
    yield Part("the model is asked once, with a LongTensor [B] of t, without gradients", 1, step, (VALUE, TIMESTEPS, NO_GRADIENTS))
    yield Part("at eta = 0 noise makes no difference, even if it is given", 1.5,
               ask(ddim, "ddim_step", tensor(x), t, s, 0.0, noise=tensor(z)))


@question("ddim-step-eta", 6, "A jump with eta", "DDIMSampler", needs=("ddim-predict-x0", "ddim-step-deterministic"),
          method="ddim_step", by_needs=eta_step_by_jump)
def ddim_step_eta(rng):
    known = data(rng)
    ddim, mean, std = sampler("DDIMSampler", linear(), **known), known["mean"], known["std"]
    x, z = normal(rng, 4, 1, 3, 4), normal(rng, 4, 1, 3, 4)
    t, s = int(rng.integers(600, 800)), int(rng.integers(300, 500))
    yield Part("eta = 0.5", 2, ask(ddim, "ddim_step", tensor(x), t, s, 0.5, noise=tensor(z)), LIKE_X)
    # Above 1 there is more noise than DDPM's; from 520 to 500 the variance has room for more than 2.
    yield Part("eta = 1, neighbours; and eta above 1, where there is room for it", 1,
               [ask(ddim, "ddim_step", tensor(x), 3, 2, 1.0, noise=tensor(z)),
                ask(ddim, "ddim_step", tensor(x), 520, 500, float(rng.uniform(1.3, 1.7)), noise=tensor(z))], (Look("value.0"), Look("value.1")))
    yield Part("eta = 0.3, near clean data", 1, ask(ddim, "ddim_step", tensor(x), 60, int(rng.integers(3, 20)), 0.3, noise=tensor(z)))
    yield Part("the last jump, to s = -1, adds no noise; the one to s = 0 does", 1,
               [ask(ddim, "ddim_step", tensor(x), 40, s, 0.8, noise=tensor(z)) for s in (-1, 0)], (Look("value.0"), Look("value.1")))
    A_t, A_s, x0 = alpha_bar()[t], alpha_bar()[s], 0.5
    sigma2 = 0.6**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
    eps = math.sqrt(1 - A_t) / (A_t * std**2 + 1 - A_t) * (x0 - math.sqrt(A_t) * mean)
    centre = math.sqrt(A_s) * (x0 - math.sqrt(1 - A_t) * eps) / math.sqrt(A_t) + math.sqrt(1 - A_s - sigma2) * eps
    yield Part("noise is drawn afresh for each sample where none is given, from the generator where one is", 1,
               redrawn(rng, lambda generator: ask(ddim, "ddim_step", alike(x0), t, s, 0.6, generator=generator)), REDRAWN,
               redrawn_moments(np.array([centre, math.sqrt(sigma2), N])))


@question("ddim-schedule", 6, "Which timesteps to visit", "DDIMSampler", method="create_timestep_schedule")
def ddim_schedule(rng):
    T, n = int(rng.integers(800, 1200)), int(rng.integers(6, 40))
    ddim = sampler("DDIMSampler", linear(T))
    def schedule(kind, n):
        return ask(ddim, "create_timestep_schedule", n, kind)
    kinds = {"uniform": lambda n: np.linspace(T - 1, 0, n).round(),
             "trailing": lambda n: np.round(T - np.arange(n) * T / n) - 1,
             "quadratic": lambda n: np.maximum(np.arange(n), np.round((T - 1) * (np.arange(n) / max(n - 1, 1)) ** 2))[::-1]}
    for kind, formula in kinds.items():
        wants = {f"value.{i}": formula(k).astype(int) if k > 1 else np.array([T - 1]) for i, k in enumerate((n, 50))}
        yield Part(f"{kind}: where the steps fall", 1.5, [schedule(kind, n), schedule(kind, 50)],
                   tuple(Look(at, "falling") for at in wants), wants)
        wants = {"value.0": np.array([T - 1]), "value.1": np.arange(T)[::-1].copy()}
        yield Part(f"{kind}: a single step, and all T of them", 0.5, [schedule(kind, 1), schedule(kind, T)],
                   tuple(Look(at, "falling") for at in wants), wants)


@question("ddim-sample", 5, "The whole DDIM loop", "DDIMSampler", needs=("ddim-step-deterministic", "ddim-step-eta", "ddim-schedule"),
          method="sample")
def ddim_sample(rng):
    known = data(rng)
    def ddim(taught=None):
        return sampler("DDIMSampler", linear(), taught, **known)
    x_T, n = normal(rng, 3, 1, 2, 3), int(rng.choice(WHOLE))
    sample = ask(ddim(), "sample", (3, 1, 2, 3), n, x_T=tensor(x_T))
    yield Part("n uniform steps from a given x_T", 1.5, sample, (TIMESTEPS, *LIKE_X, NO_GRADIENTS, EVALUATION))
    steps = sorted((int(t) for t in rng.permutation(900)[:5] + 50), reverse=True)
    yield Part("a list of timesteps, on to clean data", 1, ask(ddim(), "sample", (3, 1, 2, 3), steps, x_T=tensor(x_T)), (TIMESTEPS, VALUE))
    yield Part("a tensor of timesteps", 0.5, ask(ddim(), "sample", (3, 1, 2, 3), tensor(np.array(steps)), x_T=tensor(x_T)), (TIMESTEPS, VALUE))
    yield Part("50 uniform steps where nothing is said", 0.5, ask(ddim(), "sample", (3, 1, 2, 3), x_T=tensor(x_T)),
               (Look("value", "close", {"atol": 0.1}), DTYPE, Look("network.t", "falling")))  # no schedule's rounding shows in it
    steps, taught = uniform(1000, 10), ddim(linear(*TAUGHT))
    yield Part("eta = 0.7: the samples have the chain's mean and standard deviation, and are the same again from the same seed", 1,
               [*redrawn(rng, lambda generator: ask(taught, "sample", (N, 1), 10, 0.7, generator=generator)),
                repeated(rng, lambda generator: ask(taught, "sample", x_T.shape, 10, 0.7, x_T=tensor(x_T), generator=generator))],
               (*REDRAWN, SAME_AGAIN, TIMESTEPS),
               redrawn_moments(chain_moments(alpha_bar(), steps, 0.7, taught=alpha_bar(*TAUGHT), **known))
               | {"value.4": np.zeros_like(x_T), "network.t": np.tile(steps, RUNS)})
    pair = ask(ddim(), "sample", (3, 1, 2, 3), 4, 0.0, True, x_T=tensor(x_T))
    yield Part("the trajectory, x_T first and x last", 0.5, pair, (Look("value.0"), Look("value.1"), INPUTS))


@question("eta-variance", 5, "The variance that eta asks for", "StochasticityController", "DDIMSampler",
          method="compute_stochastic_variance")
def eta_variance(rng):
    controller = call("StochasticityController", sampler("DDIMSampler", linear()))
    t, s = int(rng.integers(600, 900)), int(rng.integers(200, 500))
    def variance(t, s, eta):
        return ask(controller, "compute_stochastic_variance", t, s, eta)
    yield Part("eta = 0.5", 2, variance(t, s, 0.5), (EXACT,))
    from_ = [int(rng.integers(*range_)) for range_ in ((450, 520), (400, 440), (940, 999))]
    yield Part("eta = 1 between neighbours and far apart", 1.5, [variance(t, t - gap, 1.0) for t, gap in zip(from_, (1, 20, 20))],
               tuple(Look(f"value.{i}", "close", {"rtol": 1e-3, "atol": 0}) for i in range(3)))
    near = int(rng.integers(10, 50))
    last, beside = variance(near, -1, 1.0), variance(near, 0, 1.0)
    yield Part("s = -1: none, and only there", 1, [call("operator:truediv", last, beside), beside],
               (Look("value.0", "close", {"rtol": 0, "atol": 0}), Look("value.1", "close", EXACT.options)), {"value.0": np.array(0.0)})
    yield Part("a float64 number, 0-d", 0.5, variance(t, s, 0.9), (EXACT, DTYPE))


@question("eta-effects", 4, "What eta does to samples", "StochasticityController", "DDIMSampler",
          needs=("eta-variance", "ddim-step-eta", "ddim-schedule"),
          method="analyze_eta_effects", by_needs=eta_effects_by_steps)
def eta_effects(rng):
    known = data(rng)
    def study(shape, etas, n, drawn_from=None):
        controller = call("StochasticityController", sampler("DDIMSampler", linear(), linear(*TAUGHT), **known))
        return ask(controller, "analyze_eta_effects", shape, etas, n, generator=drawn_from or generator(rng))
    def item(of, *keys):
        for key in keys:
            of = call("operator:getitem", of, key)
        return of
    twice = study((4, 1, 3), [0.6, 0.6, 0.0, 0.0], 4)
    apart = {pair: call("torch:dist", *(item(twice, "samples", i) for i in pair)) for pair in ((0, 1), (2, 3), (0, 2))}
    # As a share of how far another eta is: samples that are all alike do not count as shared.
    shared = [call("operator:lt", call("operator:truediv", apart[pair], apart[0, 2]), 1e-4) for pair in ((2, 3), (0, 1))]
    same = repeated(rng, lambda generator: item(study((4, 1, 3), [0.6, 0.9], 4, generator), "samples"))
    yield Part("all eta share x_T and noise: the same eta twice gives the same samples, another eta others; the same seed the same again", 1,
               [*shared, same], (Look("value.0", "same"), Look("value.1", "same"), Look("value.2", "close", {"atol": 1e-6})),
               {"value.0": np.array(True), "value.1": np.array(True), "value.2": np.zeros((2, 4, 1, 3), np.float32)})
    etas, n, B = [0.0, 1.0, 0.5], int(rng.choice(WHOLE[:2])), 2000
    A, steps = alpha_bar(), uniform(1000, n)
    sigma = np.array([[eta * math.sqrt((1 - A_s) / (1 - A[t]) * (1 - A[t] / A_s)) for t, A_s in zip(steps, [*A[steps[1:]], 1.0])]
                      for eta in etas])
    exact = [chain_moments(A, steps, eta, B, alpha_bar(*TAUGHT), **known) for eta in etas]
    result, guess = study((B, 1), etas, n), chain_moments(A, [999], 1.0, B, alpha_bar(*TAUGHT), **known)
    yield Part("for each eta the chain's mean and standard deviation, and those of a single step", 1.5,
               [*(item(result, "samples", i) for i in range(3)), item(study((B, 1), [1.0], 1), "samples", 0)],
               tuple(Look(f"value.{i}", "moments") for i in range(4)), {f"value.{i}": each for i, each in enumerate([*exact, guess])})
    own = [call("torch:mean", call("torch:pdist", item(result, "samples", i))) for i in range(3)]
    diversity = call("torch:div", call("torch:as_tensor", item(result, "diversity")), call("torch:stack", own))
    yield Part("sigma by step, and each eta's diversity (beside torch.pdist of its samples)", 1.5,
               {"result": result, "diversity": diversity},
               (Look("value.result.sigma", "close", {"atol": 1e-6}), Look("value.result.eta_values", "same"), Look("value.diversity"),
                NO_GRADIENTS), {"value.result.sigma": sigma, "value.diversity": np.ones(3)})


# ---------------------------------------------------------------------------------------------- parts 4 and 5


@question("benchmark", 6, "Measuring samplers", "benchmark_samplers", "sample_diversity", attempts=3)
def benchmark(rng):
    few, many, again = int(rng.integers(3, 6)), int(rng.integers(14, 25)), int(rng.integers(1, 4))
    # The first asks at some timesteps twice, as a solver of second order does. The last is the shortest: in this order none is sorted.
    asked = [sorted([*range(few), *range(again)], reverse=True), list(range(many - 1, -1, -1)), [0]]
    names = [f"{'abcde'[n]}{n}" for n in rng.permutation(5)[:3]]
    def measured(seconds):
        models = [call("diffusionlab.noise_model:Recorder", call("diffusionlab.analytic:SlowModel", linear(), each)) for each in seconds]
        loops = {name: call("diffusionlab.runtime:bare_loop", model, ts) for name, model, ts in zip(names, models, asked)}
        return call("benchmark_samplers", loops, (2, 1))
    def item(records, i, key):
        return call("operator:getitem", call("operator:getitem", records, i), key)
    records, named = measured([0.004] * 3), {f"value.{i}.name": name for i, name in enumerate(names)}
    yield Part("names, steps and network calls, in the order given", 1.5, records,
               tuple(Look(f"value.{i}.{key}", "same") for i in range(3) for key in ("name", "num_steps", "nfe")),
               {**named, "value.0.num_steps": np.array(few), "value.1.num_steps": np.array(many), "value.2.num_steps": np.array(1),
                "value.0.nfe": np.array(few + again), "value.1.nfe": np.array(many), "value.2.nfe": np.array(1)})
    # How long each takes only its model knows, so made-up numbers are hardly near all three. What comes on top is a busy machine's doing:
    # up to three times is right.
    taken = np.ones(3)
    while np.diff(np.sort(np.log(taken))).min() < 0.4:  # so far apart that no machine puts them in another order
        taken = np.exp(rng.uniform(math.log(0.04), math.log(0.6), 3))
    timed = measured([float(total) / len(ts) for total, ts in zip(taken, asked)])
    # How far off a wrong one is differs from run to run: it is cut off.
    ratios = [call("numpy:clip", call("operator:truediv", item(timed, i, "seconds"), float(taken[i])), 0.5, 8.0) for i in range(3)]
    yield Part("seconds are wall time", 1.5, [ratios, item(timed, 1, "name")],
               (*(Look(f"value.0.{i}", "close", {"rtol": 0.52, "atol": 0}) for i in range(3)), Look("value.1", "same")),
               {**{f"value.0.{i}": np.array(2.0) for i in range(3)}, "value.1": names[1]})
    quotients = [call("operator:truediv", item(records, i, "seconds"), item(records, i, "seconds_per_step")) for i in range(2)]
    yield Part("seconds per step", 1, quotients,
               (Look("value.0"), Look("value.1")), {"value.0": np.array(float(few)), "value.1": np.array(float(many))})
    x = normal(rng, 5, 1, 3, 4)
    flat = x.reshape(5, -1).astype(float)
    distances = [math.sqrt(np.mean((flat[i] - flat[j]) ** 2)) for i in range(5) for j in range(i)]
    yield Part("diversity: the mean root-mean-square distance over all pairs", 1.5, call("sample_diversity", tensor(x)), (VALUE, INPUTS),
               {"value": np.array(np.mean(distances))})
    scale = float(rng.uniform(4, 9))  # so that no number that comes to mind is near
    alike, different = (call("sample_diversity", tensor(each)) for each in (np.repeat(x[:1], 2, axis=0), np.float32(scale) * x))
    yield Part("diversity of samples that are all alike is 0, and only theirs", 0.5, [call("operator:truediv", alike, different), different],
               (Look("value.0", "close", {"atol": 1e-3}), Look("value.1", "close", {"rtol": 0.5})),
               {"value.0": np.array(0.0), "value.1": np.array(scale * np.mean(distances))})


@question("optimizer-cached", 5, "Coefficients computed once", "SamplingOptimizer", "DDIMSampler", needs=("ddim-sample",),
          method="cached_noise_schedule_sampling", by_needs=cached_by_sample)
def optimizer_cached(rng):
    known = data(rng)
    def fresh(taught=None):
        ddim = sampler("DDIMSampler", linear(), taught, **known)
        return call("SamplingOptimizer", ddim), ddim
    other = sampler("DDIMSampler", linear(1000, 1e-3, 0.03))
    def cached(pair, x_T, n, **kwargs):
        return ask(pair[0], "cached_noise_schedule_sampling", pair[1], (2, 1, 3, 2), n, x_T=tensor(x_T), **kwargs)
    x_T, n = normal(rng, 2, 1, 3, 2), int(rng.choice(WHOLE[:2]))
    once = cached(fresh(), x_T, n)
    yield Part("the plain sampler's result, with one network call a step", 1, once, (TIMESTEPS, *LIKE_X, NO_GRADIENTS))
    pair, later = fresh(), normal(rng, 2, 1, 3, 2)
    # An eta so near to 0 that a key which rounds it takes it for 0.
    after = [cached(pair, x_T, n, eta=0.04), cached(pair, x_T, WHOLE[2]), cached(pair, x_T, n), cached(pair, later, n),
             cached((pair[0], other), x_T, n)]
    yield Part("another eta, number of steps, x_T or sampler is not answered from the wrong cache", 0.5, after,
               tuple(Look(f"value.{i}") for i in range(1, 5)))
    counted, n = call("diffusionlab.schedule:CountedSchedule.linear"), WHOLE[2]
    ddim = sampler("DDIMSampler", counted, linear(), **known)
    pair = call("SamplingOptimizer", ddim), ddim
    first, second = (cached(pair, each, n) for each in (x_T, later))
    before, then = (ask(counted, "taken_after", each) for each in (first, second))
    # A key may be made from the tables, so they may be taken, but not at every step.
    yield Part("a second call of the same kind does not go back to the schedule's tables", 2,
               [first, before, second, call("operator:sub", then, before)],
               (Look("value.0"), Look("value.2"), Look("value.3", "at_most")), {"value.3": np.array(n // 4)})
    optimizer, ddim = fresh(linear(*TAUGHT))
    yield Part("eta = 0.8: the chain's mean and standard deviation, and the same again from the same seed", 1.5,
               [ask(optimizer, "cached_noise_schedule_sampling", ddim, (N, 1), 10, eta=0.8, generator=generator(rng)),
                repeated(rng, lambda generator: cached(fresh(), x_T, WHOLE[0], eta=0.8, generator=generator))],
               (Look("value.0", "moments"), Look("value.1", "close", {"atol": 1e-6})),
               {"value.0": chain_moments(alpha_bar(), uniform(1000, 10), 0.8, taught=alpha_bar(*TAUGHT), **known),
                "value.1": np.zeros_like(x_T)})


@question("optimizer-batches", 5, "Batches that fit into memory", "SamplingOptimizer", "DDIMSampler", needs=("ddim-sample",),
          method="batch_sampling_with_memory_management")
def optimizer_batches(rng):
    known, total, size = data(rng), int(rng.integers(10, 15)), 3
    form = tuple(int(n) for n in rng.permutation(4)[:3] + 2)
    def batches(total, size, shape=(1,), **kwargs):
        optimizer = call("SamplingOptimizer", sampler("DDIMSampler", linear(), linear(*TAUGHT), shape=shape, **known))
        return ask(optimizer, "batch_sampling_with_memory_management", total, size, **kwargs)
    def plain(samples, steps, shape=form):
        n = samples * math.prod(shape)
        return chain_moments(alpha_bar(), uniform(1000, steps), 0.0, n, alpha_bar(*TAUGHT), **known)
    few = batches(total, size, sample_shape=form, num_steps=4, generator=generator(rng))
    shape = call("builtins:list", call("builtins:getattr", few, "shape"))
    yield Part("as many as asked for, the remainder too, in batches", 1.5,
               [shape, call("builtins:str", call("builtins:getattr", few, "device")), few],
               (Look("value.0", "same"), Look("value.1", "same"), Look("value.2", "moments"), Look("network.batch", "at_most")),
               {"value.0": np.array([total, *form]), "value.1": "cpu", "value.2": plain(total, 4), "network.batch": np.array(size)})
    yield Part("never more than batch_size at a time", 1, batches(total, size, sample_shape=form, num_steps=4, generator=generator(rng)),
               (Look("value", "moments"), Look("network.batch", "at_most")), {"value": plain(total, 4), "network.batch": np.array(size)})
    default = batches(60, 40, shape=form[1:], num_steps=2)
    yield Part("the model's sample_shape where none is given", 0.5,
               [call("builtins:list", call("builtins:getattr", default, "shape")), default], (Look("value.0", "same"), Look("value.1", "moments")),
               {"value.0": np.array([60, *form[1:]]), "value.1": plain(60, 2, form[1:])})
    many = batches(3000, 200, num_steps=4, eta=0.6, generator=generator(rng))
    stochastic = chain_moments(alpha_bar(), uniform(1000, 4), 0.6, 3000, alpha_bar(*TAUGHT), **known)
    plenty = batches(800, 200, num_steps=4, generator=generator(rng))
    difference = call("torch:sub", ask(plenty, "narrow", 0, 0, 200), ask(plenty, "narrow", 0, 200, 200))
    same = repeated(rng, lambda generator: batches(5, 2, num_steps=4, eta=0.6, generator=generator))
    seed = int(rng.integers(2**31))
    batched = [batches(7, size, sample_shape=form, num_steps=3, generator=ask(call("torch:Generator"), "manual_seed", seed)) for size in (2, 5)]
    yield Part("at eta = 0 the same samples, however they are batched", 0.5, call("torch:sub", *batched),
               (Look("value", "close", {"atol": 1e-4}),), {"value": np.zeros((7, *form), np.float32)})
    yield Part("different samples in every batch, with the chain's mean and standard deviation; the same again from the same seed", 1.5,
               [many, difference, same],
               (Look("value.0", "moments"), Look("value.1", "moments"), Look("value.2", "close", {"atol": 1e-6})),
               {"value.0": stochastic, "value.1": np.array([0.0, math.sqrt(2) * plain(200, 4, (1,))[1], 200]),
                "value.2": np.zeros((5, 1), np.float32)})


@question("bad-input", 3, "Bad input is refused", "ForwardProcessImpl", "DDPMSampler", "DDIMSampler", "StochasticityController",
          "SamplingOptimizer")
def bad_input(rng):
    schedule = linear()
    ddim, ddpm = sampler("DDIMSampler", schedule), sampler("DDPMSampler", linear(*SHORT))
    forward, controller = call("ForwardProcessImpl", schedule), call("StochasticityController", ddim)
    array = normal(rng, 2, 1, 3, 3)
    x, other, pixels = tensor(array), tensor(normal(rng, 2, 1, 3, 2)), tensor(rng.integers(0, 255, (2, 1, 3, 3)))
    broken = call("DDIMSampler", call("diffusionlab.analytic:GaussianModel", schedule, math.nan, 1.0), schedule)
    # A single step, so that infinity is not turned into NaN by the next one.
    one = linear(1)
    infinite = call("DDPMSampler", call("diffusionlab.analytic:GaussianModel", one, math.inf, 1.0), one)
    def steps(*args):
        return ask(ddim, "create_timestep_schedule", *args)
    def jump(t, s, *eta):
        return ask(ddim, "ddim_step", x, t, s, *eta)
    def sample(timesteps, shape=(2, 1, 3, 3)):
        return ask(ddim, "sample", shape, timesteps)
    def study(*etas):
        return ask(controller, "analyze_eta_effects", (2, 1), list(etas), 4)
    def cached(ddim, steps):
        return ask(call("SamplingOptimizer", ddim), "cached_noise_schedule_sampling", ddim, (2, 1), steps)
    methods = [
        ([steps(10), steps(50), steps(int(rng.integers(11, 30)))],
         {"num_steps = 0": steps(0), "num_steps negative": steps(-int(rng.integers(1, 9))), "num_steps above T": steps(1001),
          "num_steps not whole": steps(2.5), "an unknown schedule type": steps(10, "cubic")}),
        ([jump(500, 400), jump(int(rng.integers(600, 900)), 300), jump(700, 20)],
         {"eta below 0": jump(500, 400, -0.5), "s >= t": jump(400, 400)}),
        ([ask(controller, "compute_stochastic_variance", 500, s, 0.5) for s in (400, 300, 20)],
         {"eta not finite": ask(controller, "compute_stochastic_variance", 500, 400, math.nan)}),
        ([sample([200, 100]), sample([900, 500, 20]), sample([300])],
         {"an empty schedule": sample([], (2, 1)), "a schedule that rises": sample([100, 200], (2, 1)),
          "a schedule out of range": sample([1000, 500], (2, 1)), "NaN from the model": ask(broken, "sample", (2, 1), 3)}),
        ([ask(ddpm, "compute_posterior_mean", x, t, x) for t in (5, 6, 7)],
         {"shapes that disagree": ask(ddpm, "compute_posterior_mean", x, 5, other)}),
        ([ask(forward, "add_noise", x, t, x) for t in (5, 6, 7)], {"integer images": ask(forward, "add_noise", pixels, 5)}),
        ([call("builtins:len", ask(ddpm, "sample", (2, 1, 3, 3), x_T=each)) for each in (x, x, x)],
         {"x_T of another shape": ask(ddpm, "sample", (2, 1, 3, 3), x_T=other), "infinity from the model": ask(infinite, "sample", (2, 1))}),
        ([ask(ddpm, "compute_posterior_variance", t) for t in (3, 5, 7)],
         {"a timestep below 0": ask(ddpm, "compute_posterior_variance", -1)}),
        ([study(0.2), study(0.5), study(0.9)], {"an eta with no room for it": study(0.4, float(rng.integers(3, 9)))}),
        ([cached(ddim, n) for n in (3, 4, 5)], {"NaN from the model, with cached coefficients": cached(broken, 3)}),
    ]
    yield from refusals(rng, 3, methods)


QUESTIONS += [Question("analysis-written", 6, "What your measurements say"), Question("code-quality", 2, "Code that others can read")]
