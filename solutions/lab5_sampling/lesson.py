# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 5 · Sampling from a trained model
#
# In Labs 1 to 4 you trained a network to see the noise in an image. Today you use it the other way round: you start from
# nothing but noise and let the network lead you to a digit. You build the two samplers that most of the field stands on,
# measure them, and make one of them fit for use.
#
# **When you are done you can**
# - implement DDPM sampling in full, down to the last step to clean data;
# - implement DDIM, and step between any two noise levels;
# - choose which timesteps to visit;
# - dial the randomness of a sampler with eta, and say what the dial does;
# - weigh speed against quality with measurements of your own;
# - make a sampler fit for deployment: cached, batched, and polite about bad input.
#
# | part | minutes | you build | points |
# |---|---|---|---|
# | 1 · Know your model | 15 | `ForwardProcessImpl`, `TrainedModelAnalyzer` | 9 |
# | 2 · DDPM, step by step | 25 | `DDPMSampler` | 25 |
# | 3 · DDIM, and how to skip | 25 | `DDIMSampler`, `sample_diversity`, `StochasticityController` | 39 |
# | 4 · Which one, when? | 15 | `benchmark_samplers`, your measurements | 12 |
# | 5 · Ready for use | 10 | `SamplingOptimizer` | 15 |
#
# **How a part goes.** First the idea in words, then the formula, then a class with gaps. A gap is a `# TODO` with a
# `raise NotImplementedError`: replace both. Below it, one `check(...)` for each question says what is right, what is wrong
# and what to look at. Then your picture appears beside the expected one. Take turns at the keyboard: whoever does not type
# reads the formula aloud.
#
# Work in the class cells, under the written questions, and in cells of your own (add as many as you like); the rest is
# locked. The notebook runs from top to bottom at any time: what you have not written yet is named and skipped. Five times
# you meet **Myth or measured?**: a sentence from a circulating handout. Bet on it before you run the cell.

# %% [markdown] editable=true
# **Names of the pair** (double-click to edit): *first name, second name*

# %%
import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffusionlab import NoiseSchedule, analytic, check, datasets, explore, load_pretrained, metrics, plots, runtime
from diffusionlab.guards import (check_count, check_eta, check_finite, check_images, check_jump, check_num_steps,
                                 check_same_shape, check_shape, check_sigma, check_timestep, check_timesteps)
from diffusionlab.noise_model import count_calls
from diffusionlab.pretrained import load_classifier, read_card
from diffusionlab.runtime import progress, standard_normal, standard_normal_like, starting_noise, synchronize
from diffusionlab.schedule import coefficient

# %%
schedule = NoiseSchedule.linear()
model = load_pretrained("mnist")                      # on the GPU where there is one
images, labels = datasets.mnist("test", size=500)
x_clean = images.to(model.device)
digits = model.condition(torch.arange(10))            # sample number i becomes a digit i mod 10


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that gives the same noise on every device."""
    return torch.Generator().manual_seed(seed)


print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {model.device}, "
      f"samples of shape {model.sample_shape}, T = {schedule.num_timesteps}")

# %% [markdown]
# ## What you are given
#
# **The model** is called `model(x, t)`: a batch `x` `[B, 1, 28, 28]` and one timestep for each sample, a LongTensor `t`
# `[B]`. It returns the noise that it sees in `x`. It knows the digits' names, too: `model.condition(7)` is a model of
# sevens, `model.condition(labels)` takes one label for each sample, and both are again called with `(x, t)`. A sampler need
# not know the difference.
#
# **The schedule** holds three float64 tables of length $T$. One letter each, for the whole lab, and for the noise:
#
# | in papers | here | in code | meaning |
# |---|---|---|---|
# | $\beta_t$ | $\beta_t$ | `schedule.betas[t]` | share of variance that step $t$ replaces by noise |
# | $\alpha_t = 1-\beta_t$ | $a_t$ | `schedule.alphas[t]` | share that stays |
# | $\bar\alpha_t = \prod_{i \le t} \alpha_i$ | $A_t$ | `schedule.alphas_cumprod[t]` | share of the image's variance that is left |
# | $\epsilon$, $\epsilon_\theta$ | $\epsilon$, $\hat\epsilon$ | `eps`, `predicted_noise` | the noise, and the model's guess at it |
# | $z$ | $z$ | `noise` | fresh noise that a sampler adds |
#
# **Clean data is `s = -1`.** Timesteps run over $0, \dots, T-1$, and already $t = 0$ is a little noisy. Clean data comes
# before it; we call it $s = -1$, with $A_{-1} = 1$. The table has no such row, and Python will not warn you: `table[-1]` is
# its *last* entry. Two names stay as papers have them: $x_0$ is clean data, here level $-1$, and $x_T$ is the noise that a sampler
# starts from, here at level $T-1$.

# %%
table = schedule.alphas_cumprod
print(f"A at t = 0      {float(table[0]):.6f}    nearly clean")
print(f"A at t = T-1    {float(table[schedule.num_timesteps - 1]):.6f}    nearly pure noise")
print(f"table[-1]       {float(table[-1]):.6f}    what Python gives you for s = -1; what you want is 1")

# %% [markdown]
# **Why float64?** Near clean data the noise is $1 - A_t$, a small difference of two numbers close to 1. The tables keep
# about 16 digits, so that the difference keeps most of them. Compute coefficients in float64, and cast the *result* back to
# the dtype of `x`.

# %%
in_float32 = 1 - (1 - schedule.betas.float()).cumprod(0)[0]
print(f"1 - A_0    float64: {float(1 - table[0]):.12f}    float32: {float(in_float32):.12f}    "
      f"relative error: {abs(float(in_float32) / float(1 - table[0]) - 1):.1e}")

# %% [markdown]
# **Why `[B, 1, 1, 1]`?** A coefficient for each sample has shape `[B]`. PyTorch lines shapes up from the right, so a plain
# `[B]` meets the *width*, not the batch. Mostly that is an error. Where $B$ equals the width it is silent, and wrong. Here
# are four images of ones, 4 x 4 pixels; image number $b$ is to be multiplied by $b$:

# %%
ones, per_sample = torch.ones(4, 1, 4, 4), torch.arange(4.0)
wrong = per_sample * ones                             # [4] meets the last axis: no error, no warning
right = coefficient(per_sample, torch.arange(4), ones) * ones
print("shape of the coefficient:", list(coefficient(per_sample, torch.arange(4), ones).shape))
print("first row of image 0:   wrong", wrong[0, 0, 0].tolist(), "   right", right[0, 0, 0].tolist())
print("first row of image 3:   wrong", wrong[3, 0, 0].tolist(), "   right", right[3, 0, 0].tolist())

# %% [markdown]
# `coefficient(table, t, x)` does it right for every `x`: images, signals, points. For an int `t` it gives a plain number,
# for a LongTensor `[B]` a tensor `[B, 1, ..., 1]`.
#
# **Also in the kit**, all imported above (`help(...)` or Shift-Tab shows more):
#
# | what | for |
# |---|---|
# | `standard_normal_like(x, generator)` | noise of the shape, dtype and device of `x` |
# | `standard_normal(shape, device=..., generator=...)` | the same where there is no `x` yet |
# | `starting_noise(shape, x_T, model, generator)` | the $x_T$ to start from: the given one, checked, or a fresh draw |
# | `progress(steps, "DDPM")` | wrap a loop's range in it and get a progress bar when it takes long |
# | `with count_calls() as calls:` | counts network calls: `calls.nfe`, and different timesteps: `calls.num_steps` |
# | `synchronize()` | waits for the GPU; call it before reading a clock |
#
# **Guards** refuse bad input with a `ValueError` of one clear sentence. Each is one line at the top of a method:
#
# | guard | lets through |
# |---|---|
# | `check_images(x)` | floating-point tensors with a batch axis |
# | `check_same_shape(x, noise)` | two tensors of one shape |
# | `check_timestep(t, T)` | an int $t$ in $0..T-1$ (a tensor is refused by `coefficient`, where it is used) |
# | `check_jump(t, s, T)` | $t$ likewise, and $s$ in $-1..t-1$ |
# | `check_num_steps(n, T)` | $n$ in $1..T$ |
# | `check_timesteps(steps, T)` | a strictly falling list of timesteps |
# | `check_eta(eta)` | finite, not negative |
# | `check_sigma(sigma2, A_s)` | $\sigma^2 \le 1 - A_s$ |
# | `check_count(n, "batch_size")` | a whole number, 1 or larger |
# | `check_shape(shape)` | whole numbers, 1 or larger |
# | `check_finite(x)` | no NaN, no infinity; once, at the end |
#
# Three points of this lab (`bad-input`, Part 5) ask that your methods refuse nonsense, so call the guards as you go. Each
# docstring's *Raises* says which cases; the check tries some twenty of them.

# %% [markdown]
# ---
# # Part 1 · Know your model (15 minutes)
#
# ## The forward process
#
# **Idea.** The model never saw a clean digit. It saw digits with noise mixed in, at every level from a breath to a storm.
# Before we ask it anything we need the same mixture, exactly: what it is asked about must look like what it learned from.
#
# **Formula.** Adding a little noise $t+1$ times is the same as adding a lot once (Ho et al. 2020, eq. 4):
#
# $$x_t = \sqrt{A_t}\,x_0 + \sqrt{1 - A_t}\,\epsilon, \qquad \epsilon \sim \mathcal N(0, I)$$
#
# The squares of the two coefficients add up to 1: data of variance 1 keeps variance 1.
#
# **Steps** for `add_noise`:
# 1. guard the images;
# 2. draw the noise if none was given;
# 3. look $A_t$ up with `coefficient`, since `t` may be an int or a tensor;
# 4. mix, and cast to the dtype of `x_start`.
#
# `demonstrate_forward_trajectory` draws *one* noise and uses it at every level; otherwise you would see the noise flicker
# instead of grow.

# %% reference="forward:ForwardProcessImpl"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"My coefficients have the wrong shape for a tensor t"</b></summary>
#
# Do not index the table yourself. `coefficient(schedule.alphas_cumprod, t, x_start)` returns a number for an int and
# `[B, 1, ..., 1]` for a tensor; the formula then reads the same for both. `** 0.5` works on both, `torch.sqrt` only on the
# tensor.
# </details>
#
# <details><summary><b>"My noisy images get brighter and brighter"</b></summary>
#
# Then the squares of your two coefficients do not add up to 1. Did both get their square root?
# </details>
#
# <details><summary><b>"The dtype is wrong"</b></summary>
#
# A tensor `t` gives float64 coefficients, and these a float64 result. Cast at the very end: `.to(x_start.dtype)`.
# </details>

# %% question="forward-add-noise"
check("forward-add-noise", ForwardProcessImpl)

# %% tags=["demonstration"]
@plots.beside_expected("forward-trajectory")
def _():
    """Four test digits drown in one draw of noise"""
    torch.manual_seed(0)
    ForwardProcessImpl(schedule).demonstrate_forward_trajectory(x_clean[:4], [0, 50, 100, 200, 400, 600, 999])

# %% [markdown]
# **See it move.** From here on you meet panels: controls on the left, pictures on the right, and your own code in between.
# Drag a slider, or walk to it with the Tab key and use the arrows. After a change of your class, run the panel's cell again.

# %% tags=["demonstration"]
explore.forward(ForwardProcessImpl)

# %% [markdown]
# **Think.** Three schedules, one image, one noise: linear (yours), scaled linear (Stable Diffusion's) and cosine (Nichol and Dhariwal
# 2021). Each of them ends near $A = 0$ and begins near $A = 1$: how do they spend their steps in between? On each, find the $t$ at
# which signal and noise are equally strong ($A_t = \tfrac12$, where the curve crosses the middle). Which schedule would you choose if
# most of what you see is decided while the digit is just readable?
#
# At which $t$ can you no longer read the digit? Why is that so much later than $A_t = \tfrac12$?
#
# *In the margin: does the noise really win at $T-1$?* A sampler starts from $\mathcal N(0, I)$, while training data at
# $T-1$ still carries the share $\sqrt{A_{T-1}}$ of the image. A published ECG model uses the same $\beta$ with $T = 200$:

# %%
for length in (1000, 200):
    last = float(NoiseSchedule.linear(length).alphas_cumprod[-1])
    print(f"T = {length:4d}: sqrt(A) at the last timestep = {last**0.5:.4f}")

# %% [markdown]
# Whoever shortens $T$ must raise $\beta$, or the sampler starts from something that the model has never seen.
#
# ## How good is the noise prediction?
#
# **Idea.** All a sampler knows about digits comes through `model(x, t)`. So measure that first. Two errors are of interest:
# that of the noise, which training made small, and that of the clean image that the noise implies, which is what you care
# about. The two behave very differently.
#
# **Formula.** Solve the forward process for $x_0$: what one error is worth in terms of the other depends on the
# signal-to-noise ratio alone.
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-A_t}\,\hat\epsilon}{\sqrt{A_t}}, \qquad \mathrm{SNR}_t = \frac{A_t}{1-A_t},
# \qquad \hat x_0 - x_0 = -\frac{\hat\epsilon - \epsilon}{\sqrt{\mathrm{SNR}_t}}$$
#
# **Steps** for `analyze_noise_prediction_quality`:
# 1. one noise for all levels;
# 2. for each `t`: noisy images by your own forward process, the prediction (`torch.full((B,), t)` on the device of the images), the
#    $\hat x_0$ it implies, both mean squared errors in float64;
# 3. a dict as the docstring says.
#
# `visualize_noise_predictions` is provided.

# %% reference="analyzer:TrainedModelAnalyzer"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"My eps_mse is about 2 everywhere"</b></summary>
#
# The mean squared difference of two independent draws is 2. You are comparing the prediction with noise other than the one
# you mixed in.
# </details>
#
# <details><summary><b>"My curves are noisy, or differ from run to run"</b></summary>
#
# One draw of noise serves all timesteps, and `generator` is where it comes from. Is the model asked about each image's own
# `t`?
# </details>

# %% question="analyzer-quality"
check("analyzer-quality", TrainedModelAnalyzer, ForwardProcessImpl)

# %% tags=["demonstration"]
@plots.beside_expected("analyzer-curves")
def _():
    """Mean squared error of the predicted noise and of the clean image it implies, on 64 test digits"""
    quality = TrainedModelAnalyzer(model, schedule).analyze_noise_prediction_quality(
        x_clean[:64], [0, 2, 5, 10, 20, 50, 100, 200, 400, 600, 800, 999], generator=seeded(1))
    t = quality["timesteps"]
    return plots.curves({"noise": (t, quality["eps_mse"]), "clean image": (t, quality["x0_mse"])},
                        "timestep t", "mean squared error", logy=True)


@plots.beside_expected("noise-predictions")
def _():
    """What the model sees: one digit at four noise levels"""
    torch.manual_seed(2)
    return TrainedModelAnalyzer(model, schedule).visualize_noise_predictions(x_clean[:1], [10, 200, 500, 900])

# %% [markdown]
# **Think.** At $t = 999$ the noise is predicted almost perfectly, and the clean image is hopeless. The third formula above
# says how both can be true. Which of the two would you show somebody who asks how good your model is at $t = 999$? And look at
# $\hat x_0$ at $t = 900$: it is blurred, not wrong. Of what is it the mean?

# %% [markdown]
# ---
# # Part 2 · DDPM, step by step (25 minutes)
#
# **Idea.** One guess at $x_0$ from pure noise is a blur: the mean of every digit it could still be. So do not jump. Go back
# *one* level, look again, and let the guess sharpen as the noise falls. If we knew $x_0$, the way back from $x_t$ to
# $x_{t-1}$ would be a Gaussian whose mean and variance are known exactly. We do not know $x_0$, but we have a guess.
#
# **Formula.** The Gaussian $q(x_{t-1} \mid x_t, x_0)$, with the guess put in for $x_0$ and written in terms of the
# predicted noise (Ho et al. 2020, eq. 7, 11):
#
# $$\mu_t = \frac{1}{\sqrt{a_t}}\left(x_t - \frac{1-a_t}{\sqrt{1-A_t}}\,\hat\epsilon\right), \qquad
# \tilde\beta_t = \beta_t\,\frac{1-A_{t-1}}{1-A_t}, \qquad x_{t-1} = \mu_t + \sqrt{\tilde\beta_t}\;z$$
#
# Small $a$ and big $A$ both appear: $a_t$ belongs to one step, $A_t$ to the whole way. And the fresh noise $z$ is no
# blemish. The mean alone would be too smooth at every level; $z$ puts back what averaging took away.
#
# **The edge.** At $t = 0$ the step leads to clean data, where $A_{-1} = 1$: the variance is 0, and no noise is added.
#
# **Steps.**
# 1. `compute_posterior_mean`: guards, two coefficients, the formula, back to the dtype of `x_t`.
# 2. `compute_posterior_variance`: `t` may be an int or a tensor; `torch.as_tensor` makes them alike. There is no image here
#    to take a shape from, so index the tables yourself; they are on the CPU. Check each timestep first (`for each in
#    index.reshape(-1).tolist()`): Python takes $-1$ for the last row. Where `t` is 0, $A_{t-1}$ is 1 and no row of the table.
#    Keep it in float64.
# 3. `ddpm_step`: ask the model with a LongTensor `[B]`, take the mean, add the *standard deviation* times the noise, except
#    at $t = 0$.
# 4. `sample`: start from `starting_noise(...)`, walk `t` from $T-1$ down to 0, pass `generator` on, collect copies if a
#    trajectory is wanted, and look once, at the end, for NaN (`check_finite`).

# %% reference="ddpm:DDPMSampler"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"All my digits are grey, or smooth blobs"</b></summary>
#
# Too little noise on the way, or none. Is `z` drawn afresh at every step, and scaled by the standard deviation rather than
# the variance? The variance is far smaller than its square root.
# </details>
#
# <details><summary><b>"There is a digit, but buried in static"</b></summary>
#
# Noise was added at the last step. At $t = 0$ return the mean. And look at your variance at $t = 0$: `A[t - 1]` is `A[-1]`
# there, the last entry of the table, nearly 0 where you need 1.
# </details>
#
# <details><summary><b>"The samples are only noise"</b></summary>
#
# Check that the loop falls from $T-1$ to 0, that the model gets the same `t` as the formulas, and that $a_t$ and $A_t$ have
# not changed places. The check cells below tell these apart.
# </details>
#
# <details><summary><b>"Values explode"</b></summary>
#
# The predicted noise is *subtracted*, and the whole is divided by $\sqrt{a_t}$ of one step, not by $\sqrt{A_t}$ of the
# whole way.
# </details>
#
# <details><summary><b>"My variance fails at t = 0, though my samples look fine"</b></summary>
#
# They do as long as your step ignores the variance there. Someone who uses `compute_posterior_variance` alone will not be
# so lucky. With a tensor `t`, `torch.where` picks between the table and 1.
# </details>

# %% question="ddpm-posterior-mean"
check("ddpm-posterior-mean", DDPMSampler)

# %% question="ddpm-posterior-variance"
check("ddpm-posterior-variance", DDPMSampler)

# %% question="ddpm-step"
check("ddpm-step", DDPMSampler)

# %% question="ddpm-sample"
check("ddpm-sample", DDPMSampler)

# %% [markdown]
# **First where the truth is known.** For data from a normal distribution the best noise prediction has a closed form; the
# kit has it as `analytic.GaussianModel`. No network, no training error: whatever is off is the sampler's doing. Three runs
# should agree with each other and with the data, and one seed should give one result. (A standard deviation a touch too
# small is no error of yours: $\tilde\beta_t$ is exact for a *known* $x_0$, and a guess is not quite that.)

# %% tags=["demonstration"]
@plots.when_written
def _():
    sampler = DDPMSampler(analytic.GaussianModel(schedule, mean=0.3, std=0.5), schedule)
    runs = {seed: sampler.sample((20_000, 1), generator=seeded(seed)) for seed in (1, 2, 3)}
    again = sampler.sample((20_000, 1), generator=seeded(1))
    print("seed 1 twice, largest difference:", float((again - runs[1]).abs().max()))
    records = [{"": "data", "mean": 0.3, "standard deviation": 0.5}]
    for seed, x in runs.items():
        records.append({"": f"seed {seed}", "mean": float(x.mean()), "standard deviation": float(x.std())})
    return plots.Table(records)


@plots.beside_expected("ddpm-ring")
def _():
    """Eight clusters on a ring: the data, and what your DDPM sampler makes of noise with the exact model"""
    ring = analytic.GaussianMixture.ring(schedule)
    made = DDPMSampler(ring, schedule).sample((800, 2), generator=seeded(4))
    return plots.points({"data": ring.sample_data(800, seeded(3)), "samples": made})

# %% [markdown]
# **Now the digits.** A thousand network calls; have a look at the formulas of Part 3 meanwhile.

# %% tags=["demonstration"]
@cache
def ddpm_run() -> tuple[Tensor, Tensor]:
    """Ten digits and their way from noise. Kept, since it takes a while: run this cell again after a change."""
    return DDPMSampler(digits, schedule).sample((10, *model.sample_shape), return_trajectory=True, generator=seeded(5))


@plots.beside_expected("ddpm-digits")
def _():
    """The ten digits, asked for by name, from your DDPM sampler"""
    x, _ = ddpm_run()
    return plots.image_grid(x, columns=5)


@plots.beside_expected("ddpm-trajectory")
def _():
    """From noise to data: x_t on the way, t falling from left to right"""
    _, trajectory = ddpm_run()
    shown = [999, 600, 400, 250, 150, 75, -1]
    return plots.filmstrip(trajectory[[999 - t for t in shown], :4], [f"t = {t}" for t in shown])

# %% [markdown]
# **Think.** For most of the thousand steps there is hardly anything to see; then, between $t = 400$ and $200$, a digit appears.
# Compare with the curve of the clean image's error in Part 1. Which steps would you skip, if you could?
#
# *In the margin: two variances.* Ho et al. also used the larger $\beta_t$ in place of $\tilde\beta_t$, and found the two about
# equally good over a thousand steps. The table in Part 4 (under *What to conclude* of myth 4) has the larger one ahead there, and far behind as soon as steps are
# skipped (the row of $\hat\sigma$).

# %% [markdown]
# ---
# # Part 3 · DDIM, and how to skip (25 minutes)
#
# **Idea.** Training never asked *how* $x_t$ came about, only how much noise is in it. So we may choose another way back, as
# long as every stop has the right mixture of image and noise. The simplest: guess the clean image, and mix *the same noise*
# back in, at any lower level you like. Nothing says it must be the next one.
#
# **Formula.** From $t$ to any $s < t$ (Song et al. 2021, eq. 12 and 16; $s = -1$ is clean data, $A_{-1} = 1$):
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-A_t}\,\hat\epsilon}{\sqrt{A_t}}, \qquad
# \sigma^2 = \eta^2\,\frac{1-A_s}{1-A_t}\left(1 - \frac{A_t}{A_s}\right)$$
#
# $$x_s = \sqrt{A_s}\,\hat x_0 + \sqrt{1 - A_s - \sigma^2}\;\hat\epsilon + \sigma z$$
#
# Read the second line as a budget. At level $s$ there must be noise of variance $1 - A_s$. A part $\sigma^2$ of it is
# fresh; only the rest may point in the old direction $\hat\epsilon$. At $\eta = 0$ all of it is old and the step is
# deterministic. At $\eta = 1$ it is the DDPM step, on *these two* timesteps: as if the schedule had only ever had them,
# with $\beta = 1 - A_t/A_s$.
#
# **Which timesteps?** Three usual answers, each $n$ different numbers in $0..T-1$, strictly falling; the last jump, to
# $s = -1$, is implied:
#
# - `uniform`: evenly from $T-1$ to $0$, rounded;
# - `trailing`: $\mathrm{round}(T - iT/n) - 1$ for $i = 0..n-1$: the top of each of $n$ equal pieces;
# - `quadratic`: rising, $\max(i, \mathrm{round}((T-1)(i/(n-1))^2))$, then reversed: dense near clean data. The maximum
#   keeps small numbers apart.
#
# With $n = 1$ each is $T-1$ alone.
#
# **Steps.**
# 1. `predict_x0_from_eps`: as in Part 1, now for an int or a tensor `t`.
# 2. `ddim_step`: guards; $A_t$ and $A_s$ as Python floats, with $A_s = 1$ written out for $s = -1$; $\sigma^2$; the model;
#    $\hat x_0$ from your own method; the formula. Draw noise only where $\sigma > 0$: a deterministic step leaves the
#    generator as it was. Some $\eta > 1$ ask for more noise than fits, and the root would be of a negative number:
#    `check_sigma` refuses these. The others are as legal as any.
# 3. `create_timestep_schedule`: guard $n$; do the arithmetic in float64 and round at the end.
# 4. `sample`: `timesteps` may be None, a number, or a list or tensor of timesteps; make a list of it, pair each entry with
#    its successor (the last with -1), and step.

# %% reference="ddim:DDIMSampler"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"The digits look right with 1000 steps and fall apart with 50"</b></summary>
#
# Then something still assumes that $s = t - 1$. $A_s$ comes from the schedule you walk on, and so does the pair $(t, s)$ in
# $\sigma^2$. Neither $\beta_t$ nor $a_t$ appears in DDIM.
# </details>
#
# <details><summary><b>"All samples end as noise, or as one and the same pattern"</b></summary>
#
# Is the last $A_s$ really 1? `A[s]` with $s = -1$ is the last entry of the table. And does the model get the timestep, not
# the loop counter?
# </details>
#
# <details><summary><b>"eta = 0 is fine, eta = 1 is grainy"</b></summary>
#
# The budget: $\sigma^2$ must be taken out of the direction term. See the first myth below.
# </details>
#
# <details><summary><b>"eta = 1 is fine, eta = 0.5 is off"</b></summary>
#
# $\eta$ is squared in $\sigma^2$. At 0 and at 1 the square makes no difference, so only a value between shows it.
# </details>
#
# <details><summary><b>"My quadratic schedule repeats timesteps"</b></summary>
#
# Near $0$ the squares round to the same number. Take the maximum with $i$ *before* reversing the order.
# </details>

# %% question="ddim-predict-x0"
check("ddim-predict-x0", DDIMSampler)

# %% question="ddim-step-deterministic"
check("ddim-step-deterministic", DDIMSampler)

# %% question="ddim-step-eta"
check("ddim-step-eta", DDIMSampler)

# %% question="ddim-schedule"
check("ddim-schedule", DDIMSampler)

# %% question="ddim-sample"
check("ddim-sample", DDIMSampler)

# %% tags=["demonstration"]
@plots.beside_expected("ddim-digits")
def _():
    """The same ten starting noises, led to data in 5, 10, 20 and 50 steps, eta = 0"""
    sampler, shape = DDIMSampler(digits, schedule), (10, *model.sample_shape)
    x_T = standard_normal(shape, device=model.device, generator=seeded(5))
    counts = (5, 10, 20, 50)
    made = torch.cat([sampler.sample(shape, count, x_T=x_T) for count in counts])
    return plots.image_grid(made, columns=10, rows=[f"{count} steps" for count in counts])


@plots.beside_expected("ddim-paths")
def _():
    """Sixteen points on their way to the ring in 50 steps: smoothly at eta = 0, shaken at eta = 1"""
    ring = analytic.GaussianMixture.ring(schedule)
    sampler = DDIMSampler(ring, schedule)
    paths = {f"eta = {eta:g}": sampler.sample((16, 2), 50, eta, True, generator=seeded(6))[1] for eta in (0.0, 1.0)}
    return plots.point_paths(paths, ring.sample_data(400, seeded(3)))

# %% [markdown]
# **See it move: the truth in view.** The prediction is exact here, so what is wrong comes from taking few steps. Grey is
# where the points should be at the noise level they have reached; below, their $x$ against its true density. On the left, $W_1$
# (the Wasserstein distance) says how far the two are apart; *by chance*: how far 300 points drawn from the truth itself are.

# %% tags=["demonstration"]
explore.paths(DDIMSampler, DDPMSampler)

# %% [markdown]
# **Think.** Go to 5 steps and drag *time*: at which of them do $\eta = 0$ and $\eta = 1$ part from the truth, and is it the
# same one? Then 100 steps. Follow one bold path at $\eta = 0$ and at $\eta = 1$: each ends in a cluster, mostly not in the
# same one. Why is the whole cloud right all the same, when one of the two forgets on the way where it came from?

# %% [markdown]
# **Is it DDPM at eta = 1?** On neighbouring timesteps the two samplers you wrote must agree to the last digits. This is the
# best test there is: two formulas that look nothing alike.

# %% tags=["demonstration"]
@plots.when_written
def _():
    exact = analytic.GaussianModel(schedule, mean=0.3, std=0.5)
    ddpm, ddim = DDPMSampler(exact, schedule), DDIMSampler(exact, schedule)
    x, z = torch.randn(2, 1000, 1, dtype=torch.float64, generator=seeded(7))
    records = []
    for t in (999, 500, 100, 10, 1, 0):
        difference = ddim.ddim_step(x, t, t - 1, 1.0, noise=z) - ddpm.ddpm_step(x, t, noise=z)
        records.append({"t": t, "DDIM step at eta = 1 minus DDPM step, largest": f"{float(difference.abs().max()):.1e}"})
    return plots.Table(records)

# %% [markdown]
# **The noise is a code for the image.** At $\eta = 0$ each starting noise stands for one image. So one can walk between two
# images through the noise. Random vectors of this size all have nearly the same length: they lie near a sphere. A straight line
# between two would cut through its inside, so we follow an arc.

# %% tags=["demonstration"]
@plots.beside_expected("ddim-interpolation")
def _():
    """From one three to another, by an arc between their starting noises (eta = 0, 50 steps)"""
    first, last = standard_normal((2, *model.sample_shape), device=model.device, generator=seeded(8))
    angle = torch.arccos((first * last).sum() / (first.norm() * last.norm()))
    share = torch.linspace(0, 1, 8, device=model.device)[:, None, None, None]
    arc = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(angle)
    return plots.image_grid(DDIMSampler(model.condition(3), schedule).sample(arc.shape, 50, x_T=arc), columns=8)

# %% [markdown]
# **Think.** Would the walk be as smooth at $\eta = 1$? What would you have to keep fixed besides $x_T$?
#
# ### Myth or measured? (1 of 5)
#
# > *"To make DDIM stochastic, take the deterministic step and add* $\sigma z$ *on top."*
#
# **Bet first:** at $\eta = 1$ with 50 steps, by how much is the noise too strong at a typical step: not at all, by about a
# tenth, or by half? And can you see it in the digits?
#
# The cell takes a single known $x_0$, so that the prediction is the true noise, and starts each step from a correct $x_t$.
# The noise in $x_s$ is then compared with what belongs there, $\sqrt{1 - A_s}$. The last column starts no step afresh: it has what all
# of them together lead to, at $s = 0$.

# %% tags=["demonstration"]
def handouts_step(sampler, x_t, t, s, z):
    """The handout's way: the deterministic step, and noise on top."""
    A = schedule.alphas_cumprod
    A_t, A_s = float(A[t]), float(A[s]) if s >= 0 else 1.0
    sigma = ((1 - A_s) / (1 - A_t) * (1 - A_t / A_s)) ** 0.5
    return sampler.ddim_step(x_t, t, s, 0.0) + sigma * z


@plots.when_written
def _():
    sampler = DDIMSampler(analytic.GaussianModel(schedule, mean=0.0, std=0.0), schedule)
    noise_level = (1 - schedule.alphas_cumprod).sqrt()
    ways = {"the handout's step": lambda x_t, t, s, z: handouts_step(sampler, x_t, t, s, z),
            "your step": lambda x_t, t, s, z: sampler.ddim_step(x_t, t, s, 1.0, noise=z)}
    steps, records = sampler.create_timestep_schedule(50).tolist(), []
    for name, step in ways.items():
        ratios, x = {}, noise_level[steps[0]] * torch.randn(20_000, 1, dtype=torch.float64, generator=seeded(0))
        for t, s in zip(steps, steps[1:]):
            eps, z, again = torch.randn(3, 20_000, 1, dtype=torch.float64, generator=seeded(t))
            ratios[s] = float(step(noise_level[t] * eps, t, s, z).std() / noise_level[s])
            x = step(x, t, s, again)
        records.append({"noise in x_s over what belongs there": name, "median": median(ratios.values()), "largest": max(ratios.values()),
                        "at s =": max(ratios, key=ratios.get), "after all steps": float(x.std() / noise_level[0])})
    return plots.Table(records)


@plots.beside_expected("myth-noise-on-top", bet=True)
def _():
    """Digits at eta = 1 in 50 steps, with room made for the noise (your step) and with the noise on top (the handout's)"""
    sampler, shape = DDIMSampler(digits, schedule), (10, *model.sample_shape)
    x_T, source = standard_normal(shape, device=model.device, generator=seeded(9)), seeded(10)
    steps, x = sampler.create_timestep_schedule(50).tolist(), x_T
    for t, s in zip(steps, [*steps[1:], -1]):
        x = handouts_step(sampler, x, t, s, standard_normal_like(x, source))
    yours = sampler.sample(shape, 50, 1.0, x_T=x_T, generator=seeded(10))
    return plots.image_grid(torch.cat([yours, x]), columns=10, rows=["room made", "on top"])

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth. Variances add: old noise of variance $1 - A_s$ plus fresh noise of variance $\sigma^2$ is more than belongs there,
# at every single step, and the model is then asked about images noisier than the $t$ it is told. It is worst on the
# jump to $s = 0$, which takes away nearly all the noise there is. And each excess is carried on into the next step: a tenth too
# much at a time becomes several times too much in the end. The budget $\sqrt{1 - A_s - \sigma^2}$ is what makes
# every $\eta$ arrive at the right noise level. It is also what makes $\eta = 1$ DDPM.
# </details>
#
# ### Myth or measured? (2 of 5)
#
# > *"For n steps, take* `linspace(T-1, 0, n+1)` *and step from each entry to the next."*
#
# **Bet first:** where does that end, and what is left in the image there? Would you see it?

# %% tags=["demonstration"]
@plots.when_written
def _():
    x0, records = 0.5, []
    sampler = DDIMSampler(analytic.GaussianModel(schedule, mean=x0, std=0.0), schedule)
    for n in (10, 50):
        steps = torch.linspace(schedule.num_timesteps - 1, 0, n + 1).round().long().tolist()
        x = torch.randn(20_000, 1, dtype=torch.float64, generator=seeded(11))
        for t, s in zip(steps, steps[1:]):
            x = sampler.ddim_step(x, t, s)
        finished = sampler.ddim_step(x, 0, -1)
        records.append({"n": n, "noise left at the handout's end": float((x - x0).std()),
                        "in grey levels of 255": float((x - x0).std()) * 127.5,
                        "largest error after the jump to s = -1": f"{float((finished - x0).abs().max()):.1g}"})
    return plots.Table(records)

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# It ends at $t = 0$, which is *not* clean data: the noise of the first forward step stays in every pixel, however large $n$
# is. Too little to see in a digit, enough to spoil a numerical comparison, a likelihood, or a second model that takes the
# image as input. The jump to $s = -1$ costs one network call and removes it. That is why your schedule has $n$ entries, the
# last jump is implied, and `sample` makes exactly $n$ calls.
# </details>
#
# ### Three schedules, ten steps each
#
# *In the margin, two more errors in circulation:* a "quadratic" schedule written as
# $T(1-(i/n)^2)$ starts at $t = T$, one past the end of the table, and is dense where the image is all noise. And "trailing"
# is not denser at high $t$; it is uniform, counted down from $T-1$ (Lin et al. 2023).

# %% tags=["demonstration"]
@plots.beside_expected("schedules")
def _():
    """Ten timesteps: your three schedules, and the reversed quadratic of some handouts"""
    sampler, n = DDIMSampler(model, schedule), 10
    kinds = {kind: sampler.create_timestep_schedule(n, kind) for kind in ("uniform", "trailing", "quadratic")}
    return plots.schedules(kinds | {"reversed quadratic": [schedule.num_timesteps * (1 - (i / n) ** 2) for i in range(n)]})

# %% [markdown]
# **See it move: a schedule of your own.** The eight sliders say how densely your steps fall at each range of $t$. After your
# first move the panel also runs all 1000 steps from the same starts, once; you can stop it, and it resumes where it was.

# %% tags=["demonstration"]
explore.schedules(DDIMSampler)

# %% [markdown]
# **Think.** Can you draw a schedule that comes closer to the 1000 steps than all three? Does it still win with another digit,
# another seed, twice as many steps? And is coming closer the same as looking better?
#
# Where does the model know most about the image (Part 1)? Which schedule puts its calls there, and what does it
# give up?
#
# ## The dial
#
# **Idea.** $\eta$ runs from 0, "no fresh noise", to 1, "as much as DDPM". To see what it does, and nothing else, start every
# $\eta$ from the same $x_T$ and give it the same fresh noise: then only the dial differs. And since a network call on a
# batch costs less than one call for each sample, all $\eta$ can go through it together, as one batch.
#
# First a measure of how different the samples of a batch are: the mean over all pairs of the root-mean-square distance,
#
# $$D = \frac{2}{B(B-1)} \sum_{i<j} \sqrt{\tfrac1d \lVert x_i - x_j \rVert^2},\qquad d \text{ values in a sample.}$$
#
# The controller below uses it; its own check comes with the measurements of Part 4, under `benchmark`. Until then, try it in a cell
# of your own: `sample_diversity(torch.randn(50, 1, 28, 28))` should be about $\sqrt2$. Why?

# %% reference="measure:sample_diversity"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"I would need two nested loops"</b></summary>
#
# `torch.pdist` gives the distances of all pairs of rows; flatten each sample to a row first.
# </details>
#
# ### Every eta at once
#
# **Formula** for `compute_stochastic_variance`, the same as inside `ddim_step`:
# $\sigma^2 = \eta^2\,\frac{1-A_s}{1-A_t}\left(1-\frac{A_t}{A_s}\right)$. It returns the *variance*, in float64.
#
# **Steps** for `analyze_eta_effects`:
# 1. one `x_T` of the given shape, repeated $E$ times to `[E*B, ...]`;
# 2. a table of $\sigma^2$ `[E, num_steps]`;
# 3. in each step *one* network call for all, and one fresh noise `[B, ...]`, repeated likewise;
# 4. each sample's own $\sigma$, of shape `[E*B, 1, ..., 1]`: `repeat_interleave` and `reshape`;
# 5. unfold to `[E, B, ...]` and measure.

# %% reference="stochasticity:StochasticityController"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"My variance is not 0 at s = -1, or is far too large"</b></summary>
#
# $A_{-1} = 1$ makes the factor $1 - A_s$ vanish. `A[-1]` does not.
# </details>
#
# <details><summary><b>"The samples of different eta have nothing to do with each other"</b></summary>
#
# They must share the start *and* the fresh noise: draw for `B` samples and repeat, rather than draw for `E*B`. `repeat`
# puts whole sets one after the other, `repeat_interleave` puts copies side by side; use each in its place.
# </details>
#
# <details><summary><b>"NaN at eta = 1"</b></summary>
#
# In float32, rounding can push $1 - A_s - \sigma^2$ just below 0. Take the square roots in float64, before `.to(x)`. A
# clamp would help as well, but it also hides wrong formulas.
# </details>

# %% question="eta-variance"
check("eta-variance", StochasticityController, DDIMSampler)

# %% question="eta-effects"
check("eta-effects", StochasticityController, DDIMSampler)

# %% tags=["demonstration"]
@cache
def eta_study(seed: int) -> dict:
    """Sixteen twos for each eta, 50 steps. Run this cell again after you change your class."""
    controller = StochasticityController(DDIMSampler(model.condition(2), schedule))
    return controller.analyze_eta_effects((16, *model.sample_shape), [0.0, 0.25, 0.5, 0.75, 1.0], 50, generator=seeded(seed))


@plots.beside_expected("eta-digits")
def _():
    """The same starts and the same fresh noise; only eta differs from row to row"""
    study = eta_study(12)
    names = [f"eta = {eta:g}" for eta in study["eta_values"]]
    return plots.image_grid(study["samples"][:, :8].flatten(0, 1), columns=8, rows=names)


@plots.beside_expected("eta-curves")
def _():
    """Diversity by eta, and the standard deviation of the fresh noise from step to step"""
    study = eta_study(12)
    real = images[labels == 2][:16]
    diversity = {"samples": (study["eta_values"], study["diversity"]),
                 "real twos": ([0.0, 1.0], [sample_diversity(real)] * 2)}
    sigma = {f"eta = {eta:g}": (range(50), each) for eta, each in zip(study["eta_values"], study["sigma"])}
    return plots.curve_panels({"named": diversity, "xlabel": "eta", "ylabel": "diversity"},
                              {"named": sigma, "xlabel": "step", "ylabel": "sigma"})

# %% [markdown]
# **Think.** Follow one column from top to bottom: what stays, what changes, and does it change smoothly? From the curve on
# the left, would you say that eta makes samples more diverse? Keep your answer; Part 4 puts it to the test.
#
# **See it move: the dial itself.** All of it is your code: the samples, the guess on the way, and the curves, which are read
# off your `ddim_step`. The menu *sampler* also has the handout's step of the first myth.

# %% tags=["demonstration"]
explore.eta(DDIMSampler, StochasticityController, sample_diversity, DDPMSampler)

# %% [markdown]
# **Think.** Turn $\eta$ up and watch the two curves: what one gives up, the other takes, and both together (the root of the sum of
# their squares) stay on the grey band. Now choose *noise on top*: by how much does one step leave the band with 10 steps, with 100,
# with 1000, and what comes of all of them, carried on? Does the handout's error go away when you are patient? And what does
# *guidance* do to diversity? (It pushes towards the digit asked for; its formula is in *In colour*, at the end.)

# %% [markdown]
# ---
# # Part 4 · Which one, when? (15 minutes)
#
# **Idea.** Everything you read about samplers is a trade: steps for quality, noise for diversity, memory for speed. Most of
# it was measured on somebody else's model and machine, some of it not at all. You have both samplers now, so measure.
#
# Three numbers for speed, because each alone misleads: **wall time** is what a user waits; **NFE**, the number of function
# evaluations, is what the method costs on any machine; time **per step** shows how much of it is the network and how much
# is your own loop.
#
# **Steps** for `benchmark_samplers`: for each sampler, `synchronize()`, read the clock, run inside `count_calls()`,
# `synchronize()`, read the clock again. A GPU returns before it is done; without the wait you would time only the launch.

# %% reference="measure:benchmark_samplers"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"num_steps and nfe are the same, why both?"</b></summary>
#
# They are the same for DDPM and DDIM. Later solvers call the network twice a step, and a fair comparison is made at equal
# NFE.
# </details>
#
# <details><summary><b>"How do I know the number of steps of any callable?"</b></summary>
#
# You need not: `with count_calls() as calls:` sees every call of a network, wherever it happens.
# </details>

# %% question="benchmark"
check("benchmark", benchmark_samplers, sample_diversity)

# %% [markdown]
# ### Myth or measured? (3 of 5)
#
# > *"DDIM with 50 steps instead of 1000 is 20 times faster."*
#
# **Bet first:** less than 20, 20, or more? One write-up reports 20x in theory and 2.2x in practice. Where could the rest
# have gone?
#
# Printed first is the network alone, called 100 times in a bare loop: no sampler can be faster. What a step takes beyond
# that is overhead, yours and the kit's.

# %% tags=["demonstration"]
@cache
def speed() -> list[dict]:
    """Time all samplers on one batch of 8. Run this cell again after you change your classes."""
    shape, ddim = (8, *model.sample_shape), DDIMSampler(model, schedule)

    short = {"network alone": runtime.bare_loop(model, range(990, -1, -10))}
    short |= {f"DDIM-{count}": lambda shape, count=count: ddim.sample(shape, count) for count in (100, 50, 20, 10)}
    ddim.sample(shape, 5)  # the first calls of a network are slower; do not blame one sampler for it
    rounds = [benchmark_samplers(short, shape) for _ in range(2)]  # turn and turn about, with the long run in between:
    ddpm, = benchmark_samplers({"DDPM-1000": DDPMSampler(model, schedule).sample}, shape)
    rounds.append(benchmark_samplers(short, shape))                # a slow moment hits all, and the middle one of three counts
    network, *ddims = [sorted(each, key=lambda record: record["seconds"])[1] for each in zip(*rounds)]
    return [network, ddpm, *ddims]


@plots.when_written
def _():
    bare, ddpm, *_ = speed()
    print(f"the network alone: {1000 * bare['seconds_per_step']:.2f} ms a call, batch of 8")
    return plots.Table([{"sampler": each["name"], "NFE": each["nfe"], "seconds": each["seconds"],
                         "ms per step": 1000 * each["seconds_per_step"],
                         "overhead, ms per step": 1000 * (each["seconds_per_step"] - bare["seconds_per_step"]),
                         "speed-up by steps": ddpm["num_steps"] / each["num_steps"],
                         "speed-up measured": ddpm["seconds"] / each["seconds"]} for each in speed()[1:]])

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# Measured. For these two samplers the work is the network's, one call a step; the ratio of steps comes close to the ratio
# of times as long as the overhead per step is small beside a call. It stops being true with a costly start (loading,
# compiling, text encoding), a step that waits for the GPU, a decoder at the end, or a network so small that the loop is
# what you time. The same loop runs in every row of your table: if the overheads differ by more than a tenth of a call, or one is
# negative, something else kept the machine busy. Run the cell again before you explain anything.
# </details>
#
# ### Myth or measured? (4 of 5)
#
# > *"DDIM skips steps at no cost in quality."*
#
# **Bet first:** from which number of steps on can you not tell the samples from those of 1000 DDPM steps?
#
# Eyes are poor judges of ten digits. The **Fréchet distance** compares two sets of images by mean and covariance of a
# classifier's features. With few images it is far from 0 even for two sets of the same kind. That is its **noise floor**,
# measured here between random halves of the reference, with 20 of each digit on either side; a difference of less than twice its
# spread shows nothing. A distance without $n$ and floor says nothing either. Here $n = 200$ on both sides; the reference is made
# of samples of DDPM-1000 that come with the course, since making them takes too long in class. All cells share starting noise and
# labels. The judge, a small classifier, also says how often it sees the digit asked for. (This is the longest cell of the lab. On a
# CPU, write question 1 below meanwhile.)

# %% tags=["demonstration"]
judged = 200
asked_for = torch.arange(judged) % 10
of_ddpm = metrics.reference_features("ddpm-1000")
reference = of_ddpm[:judged]  # its digits are 0, 1, ..., 9, 0, 1, ..., too
floor = metrics.noise_floor(of_ddpm, judged, generator=seeded(13), labels=torch.arange(len(of_ddpm)) % 10)


@cache
def made(eta: float, num_steps: int) -> dict:
    """Make 200 samples, with a clock and a counter. Run this cell again after you change your class."""
    shape = (judged, *model.sample_shape)
    x_T = standard_normal(shape, device=model.device, generator=seeded(14))
    sampler = DDIMSampler(model.condition(asked_for), schedule)
    fresh_noise = torch.Generator(model.device).manual_seed(15)  # on the GPU, if there is one: noise from elsewhere would cost time
    sampler.sample(shape, 2, x_T=x_T)  # the first calls with a batch of this size are slower
    synchronize()
    start = time.perf_counter()
    with count_calls() as calls:
        x = sampler.sample(shape, num_steps, eta, x_T=x_T, generator=fresh_noise)
    synchronize()
    return {"samples": x, "seconds": time.perf_counter() - start, "nfe": calls.nfe}


@cache
def quality(eta: float, num_steps: int) -> dict:
    """Judge them."""
    x = made(eta, num_steps)["samples"]
    distance = metrics.frechet_distance(metrics.features(x), reference)
    return {"eta": f"{eta:g}", "steps": num_steps, "Fréchet distance": distance,
            "judged as asked": f"{metrics.conditional_accuracy(x, asked_for):.1%}"}


measured = {0.0: (5, 10, 20, 50, 100), 1.0: (5, 10, 20, 50)}
print(f"n = {judged}, noise floor {floor[0]:.3g} +- {floor[1]:.2g}")


@plots.when_written
def _():
    settings = [(eta, steps) for eta, counts in measured.items() for steps in counts]
    return plots.Table([quality(eta, steps) for eta, steps in progress(settings, "settings")])


@plots.beside_expected("quality-by-steps", bet=True)
def _():
    """Fréchet distance to DDPM-1000 by number of steps, with the noise floor at this n"""
    named = {f"eta = {eta:g}": (counts, [quality(eta, steps)["Fréchet distance"] for steps in counts])
             for eta, counts in measured.items()}
    return plots.curves(named, "steps", f"Fréchet distance (n = {judged})", logx=True, logy=True, floor=floor)

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth: with 5 steps both curves are far above the band. Be careful with the rest. Inside the band these $n$ samples cannot show a
# difference, which is not the same as there being none; and where the two curves are less than twice the spread apart, neither $\eta$
# has won. Mind the yardstick, too: DDPM-1000 is itself a sampler with $\eta = 1$.
#
# With more samples two forces show. The noise in $x_t$ still carries what the blurred guess $\hat x_0$ leaves out. Fresh noise in
# its place throws that away, and with few steps there is little chance to paint it again: pictures come out paler and smoother.
# That speaks against $\eta = 1$ with few steps. But fresh noise also replaces what the network got wrong earlier, which a
# deterministic path carries to its end: that speaks for $\eta = 1$ with many steps, or with a weak network. The authors of DDIM,
# with 50,000 samples of CIFAR-10 (FID against real images, quadratic spacing; Song et al. 2021, table 1), still see a difference at
# 100 steps:
#
# | steps | 10 | 20 | 50 | 100 | 1000 |
# |---|---|---|---|---|---|
# | $\eta$ = 0 | 13.36 | 6.84 | 4.67 | 4.16 | 4.04 |
# | $\eta$ = 0.2 | 14.04 | 7.11 | 4.77 | 4.25 | 4.09 |
# | $\eta$ = 0.5 | 16.66 | 8.35 | 5.25 | 4.46 | 4.29 |
# | $\eta$ = 1 | 41.07 | 18.36 | 8.01 | 5.78 | 4.73 |
# | $\hat\sigma$ (DDPM's larger variance) | 367.43 | 133.37 | 32.72 | 9.99 | 3.17 |
#
# The last row, by far the worst at 10 steps, is the best at 1000. Handouts often shift or invent the row of $\eta = 1$;
# check what you copy.
# </details>
#
# ### Myth or measured? (5 of 5)
#
# > *"DDIM needs less memory than DDPM, since it takes fewer steps."*
#
# **Bet first:** does memory double when you double the steps? When you double the batch? When you keep the trajectory?

# %% tags=["demonstration"]
@plots.when_written
def _():
    ddim, size = DDIMSampler(model, schedule), model.sample_shape
    ddpm = DDPMSampler(model, NoiseSchedule.linear(60))  # a DDPM of 60 steps; never mind what it makes
    ddim.sample((64, *size), 2)  # the first call also pays for workspaces that stay
    cases = {("DDIM", 64, 5): lambda: ddim.sample((64, *size), 5),
             ("DDIM", 64, 20): lambda: ddim.sample((64, *size), 20),
             ("DDIM", 64, 60): lambda: ddim.sample((64, *size), 60),
             ("DDPM", 64, 60): lambda: ddpm.sample((64, *size)),
             ("DDIM, trajectory kept", 64, 60): lambda: ddim.sample((64, *size), 60, return_trajectory=True),
             ("DDIM", 16, 5): lambda: ddim.sample((16, *size), 5),
             ("DDIM", 256, 5): lambda: ddim.sample((256, *size), 5)}
    return plots.Table([{"sampler": name, "batch": batch, "steps": steps, "peak, MiB": metrics.peak_memory(call) / 2**20}
                        for (name, batch, steps), call in cases.items()])

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth. At any moment a sampler holds one network call's activations and a few images; the next step uses the same room
# again. Peak memory follows the *batch*, not the number of steps, and DDPM is no different: the same network, the same
# batch. The one thing that does grow with the steps is a trajectory you keep. Resident memory is a coarse ruler, since
# memory once taken is not always given back: read the table for what depends on what, not for the last digit.
# </details>
#
# ### Diversity by eta, again
#
# One curve is one draw of starting noise. Here is your study from three seeds.

# %% tags=["demonstration"]
@plots.when_written
def _():
    studies = {f"seed {seed}": eta_study(seed) for seed in (12, 21, 22)}
    etas = studies["seed 12"]["eta_values"]
    return plots.Table([{"eta": f"{eta:g}"} | {name: float(study["diversity"][i]) for name, study in studies.items()}
                        for i, eta in enumerate(etas)])

# %% [markdown]
# **Think.** Which is larger, the difference between rows or between columns? A difference that a seed can reverse is not
# a finding.
#
# **Everything in one picture**, with the samples behind each point: your 200 at each setting, and the time that they took. Point
# at a point, click it, or go there with the Tab key.

# %% tags=["demonstration"]
@plots.when_written
def _():
    points = [made(eta, steps) | {"name": f"DDIM, η = {eta:g}", "steps": steps, "distance": quality(eta, steps)["Fréchet distance"]}
              for eta, counts in measured.items() for steps in counts]
    return explore.speed_quality(points, floor=floor, xlabel=f"seconds for {judged} samples",
                                 ylabel=f"Fréchet distance (n = {judged})")

# %% [markdown]
# **Think.** Cover the axis with your hand: between which two neighbouring points of a curve can you *see* the difference?
# Between which can only the distance? Would your users need what you cannot see?

# %% [markdown] question="analysis-written"
# **Your analysis** (6 points). Answer from *your* tables and plots, two to five sentences each, with the numbers you rely
# on.
#
# 1. **Speed.** How much faster than DDPM-1000 were DDIM-50 and DDIM-10 in wall time, and how much by steps? Explain the
#    difference, or its absence, from NFE, time per step and overhead. What would make it large?
# 2. **Quality.** Which of your distances at $\eta = 0$ can be told from DDPM-1000, if a difference of less than twice the floor's
#    spread shows nothing? What would a larger $n$ change? Is any difference between $\eta = 0$ and $\eta = 1$, at equal steps, larger
#    than that? Name a reason for which DDPM-1000 may be an unfair yardstick.
# 3. **Decision.** You serve batches of 8 digits on this machine and may take at most a fortieth of DDPM-1000's time. Choose
#    sampler, steps and $\eta$, and defend the choice by speed, quality, diversity and memory. When would you choose
#    otherwise?

# %% [markdown] instructor=true
# **Rubric for `analysis-written`** (6 points, 2 for each question; half points are fine)
#
# 1. *1 point*: both measured ratios are given and set against 20 and 100. *1 point*: the explanation uses time per step or
#    overhead from the table (close to the ratio of steps since the network dominates), and names something that would break
#    it: a small network, a start-up cost, a decoder, host synchronisation. A claim of "20 times" without a measurement
#    earns nothing here.
# 2. *1 point*: an answer that agrees with the pair's own table, argued by floor and spread (as a rule 5 steps can be told and 10 or
#    more cannot), and the remark that "not to be told apart at n = 200" is not "equal": more samples lower floor and spread. *1 point*:
#    the differences between the two $\eta$ set against the same spread (as a rule none exceeds it), and a reason such as: DDPM-1000 is
#    itself $\eta = 1$; it is no more than another sampler of the same network; real digits would be the fairer yardstick.
# 3. *1 point*: a choice within the time limit (of those measured, up to 20 steps), $\eta$ stated, quality taken from the table. *1 point*:
#    diversity and memory are used as measured (diversity by $\eta$ against its spread over seeds; memory depends on the
#    batch, not on the steps), and a sensible case for another choice, such as $\eta > 0$ at many steps, or the larger
#    budget of offline work.

# %% [markdown]
# ---
# # Part 5 · Ready for use (10 minutes)
#
# **Idea.** A sampler that people rely on does nothing twice, fits into the memory there is, and says clearly what it will
# not do. You build the first two; for the third you have put guards in place.
#
# **Caching.** A DDIM step is linear in $x_t$, $\hat\epsilon$ and $z$, so three numbers are all there is to know about it,
# and they depend only on the schedule, the number of steps and $\eta$:
#
# $$x_s = c_x\,x_t + c_\epsilon\,\hat\epsilon + \sigma z, \qquad c_x = \sqrt{\frac{A_s}{A_t}}, \qquad
# c_\epsilon = \sqrt{1 - A_s - \sigma^2} - \sqrt{\frac{A_s (1 - A_t)}{A_t}}$$
#
# (put $\hat x_0$ into the step of Part 3 and collect terms).
#
# **Batches.** Memory grows with the batch, as you measured. So a thousand images are made some at a time, and each batch
# goes to the CPU before the next begins.
#
# **Steps.**
# 1. `cached_noise_schedule_sampling`: a key that holds *everything* the coefficients depend on; compute the list once, as
#    Python floats, if the key is new; then a loop with one network call a step that does not touch the schedule again. The
#    result must be that of the plain sampler.
# 2. `batch_sampling_with_memory_management`: all starting noise in one draw on the CPU
#    (`standard_normal(..., device="cpu")`), so that the samples do not depend on how they are batched; then slices, the
#    last of which may be short.

# %% reference="optimizer:SamplingOptimizer"
# (the class is taken from the reference)

# %% [markdown]
# <details><summary><b>"The second call gives the first call's answer"</b></summary>
#
# Something is missing in your key: eta, the number of steps, or the schedule. A key that is too small is the classical
# error of caching.
# </details>
#
# <details><summary><b>"Cached and plain differ at eta > 0"</b></summary>
#
# $\sigma^2$ is inside $c_\epsilon$, too. And the noise must be drawn in the same order from the same generator: the start
# first, then one draw a step, none at the last.
# </details>
#
# <details><summary><b>"I ask for 50 samples in batches of 16 and get 48"</b></summary>
#
# The remainder is a batch as well: `range(0, total, batch_size)` with slices takes care of it.
# </details>

# %% question="optimizer-cached"
check("optimizer-cached", SamplingOptimizer, DDIMSampler)

# %% question="optimizer-batches"
check("optimizer-batches", SamplingOptimizer, DDIMSampler)

# %% [markdown]
# *In the margin:* "precomputing coefficients makes sampling 10 to 20 % faster." It depends on what a network call costs.
# Here are a real one and one that costs next to nothing.

# %% tags=["demonstration"]
@plots.when_written
def _():
    models = {"UNet": model, "exact model of a ring": analytic.GaussianMixture.ring(schedule)}
    records = []
    for name, net in models.items():
        ddim, shape = DDIMSampler(net, schedule), (4, *net.sample_shape)
        optimizer = SamplingOptimizer(ddim)
        ways = {"plain": lambda shape: ddim.sample(shape, 50),
                "cached": lambda shape: optimizer.cached_noise_schedule_sampling(ddim, shape, 50)}
        ddim.sample(shape, 5)
        # Turn and turn about: a slow moment of the machine then hits both.
        rounds = [[1000 * each["seconds_per_step"] for each in benchmark_samplers(ways, shape)] for _ in range(5)]
        plain, cached = torch.tensor(rounds).median(dim=0).values.tolist()
        gains = sorted(1 - cached / plain for plain, cached in rounds)
        records.append({"model": name, "plain, ms per step": plain, "cached, ms per step": cached,
                        "gain, middle of five": f"{gains[2]:.0%}", "smallest": f"{gains[0]:.0%}", "largest": f"{gains[-1]:.0%}"})
    return plots.Table(records)


@plots.beside_expected("batched-digits")
def _():
    """Fifty digits in batches of 16, the remainder included, 20 steps"""
    optimizer = SamplingOptimizer(DDIMSampler(model, schedule))
    made = optimizer.batch_sampling_with_memory_management(50, 16, num_steps=20, generator=seeded(16))
    return plots.image_grid(made, columns=10)

# %% [markdown]
# **Think.** In which row is the gain larger than its own spread from round to round? What do you wait for in the other, and what would
# you have to make faster?
#
# **Bad input.** Each of these should be refused with one sentence that says what is wrong. What comes back as a result, or
# as an error deep inside PyTorch, is a guard still missing.

# %% tags=["demonstration"]
@plots.when_written
def _():
    forward, ddpm, ddim = ForwardProcessImpl(schedule), DDPMSampler(model, schedule), DDIMSampler(model, schedule)
    controller, optimizer = StochasticityController(ddim), SamplingOptimizer(ddim)
    one, shape = x_clean[:1], (1, *model.sample_shape)
    cases = {"integer images": lambda: forward.add_noise(one.byte(), 10),
             "a timestep past the end": lambda: ddpm.ddpm_step(one, schedule.num_timesteps),
             "a start of another shape": lambda: ddim.sample(shape, 5, x_T=one[..., :20]),
             "no steps": lambda: ddim.create_timestep_schedule(0),
             "an unknown schedule": lambda: ddim.create_timestep_schedule(10, "cubic"),
             "a rising schedule": lambda: ddim.sample(shape, [10, 500]),
             "a step upwards": lambda: ddim.ddim_step(one, 10, 20),
             "a negative eta": lambda: controller.compute_stochastic_variance(10, 5, -1.0),
             "half a batch": lambda: optimizer.batch_sampling_with_memory_management(4, 0.5)}
    records = []
    for name, call in cases.items():
        try:
            answer = f"accepted: returned a {type(call()).__name__}"
        except ValueError as error:
            answer = f"refused: {error}"
        except Exception as error:  # the finding
            if isinstance(error, NotImplementedError) and not error.args:  # a stub
                raise
            answer = f"broke with {type(error).__name__}"
        records.append({"what": name, "your answer": answer})
    return plots.Table(records)

# %% question="bad-input"
check("bad-input", ForwardProcessImpl, DDPMSampler, DDIMSampler, StochasticityController, SamplingOptimizer)

# %% [markdown]
# **The rest of production** is in `runtime`, written for any sampler that takes a shape. Here it runs on yours; read the
# source when you have time (`runtime.health_check??`):
#
# - `health_check` takes a quick look before a sampler goes into service;
# - `steps_for_budget` says how many steps fit into a time limit on the machine at hand;
# - `with_memory_backoff` halves the batch when memory runs out, rather than fail;
# - `in_mixed_precision` runs the network in half precision, and keeps your coefficients out of it;
# - `compile_if_faster` compiles the network where that pays, and tells what compiling took: after how many images has it
#   paid for itself? (Not run here; it takes a minute.)
# - `captured` records a whole sampling loop on a GPU and replays it without Python.

# %% tags=["demonstration"]
@plots.when_written
def _():
    ddim, shape = DDIMSampler(model, schedule), (8, *model.sample_shape)
    print("steps within half a second: ", runtime.steps_for_budget(ddim.sample, shape, seconds=0.5))
    twenty, broken = lambda shape: ddim.sample(shape, 20), lambda shape: 3 * ddim.sample(shape, 10)
    print("health of DDIM-20:          ", runtime.health_check(twenty, shape, expected_calls=20))
    print("health of a broken one:     ", runtime.health_check(broken, shape, expected_calls=20), sep="\n")

    def on_a_small_machine(batch: int) -> Tensor:
        if batch > 10:
            raise MemoryError("pretend that there is room for 10 samples only")
        return ddim.sample((batch, *model.sample_shape), 5)

    samples, batch = runtime.with_memory_backoff(on_a_small_machine, 64)
    print("batch that fits, asked 64:  ", batch, "->", list(samples.shape))
    x_T = starting_noise(shape, None, model, seeded(17))
    difference = (runtime.in_mixed_precision(ddim.sample)(shape, 20, x_T=x_T) - ddim.sample(shape, 20, x_T=x_T)).abs()
    print(f"mixed precision, difference: mean {float(difference.mean()):.1e}, largest {float(difference.max()):.1e} "
          "(pixels in [-1, 1])")

# %% [markdown]
# **Think.** `steps_for_budget` trades quality for time without asking you. With your curve from Part 4: below which budget
# should it refuse rather than deliver?
#
# **If there is time**, in a cell of your own: push the digits harder with guidance, `model.condition(7, guidance=3.0)`, and
# see with `sample_diversity` and `metrics.conditional_accuracy` what it buys and what it costs. Its formula is in the next section.

# %% [markdown] question="code-quality" optional=true
# **Code quality** (2 points). Your class cells are read by a person. Nothing to write is needed; if you are proud of a
# piece of code, or know a weakness of it, say so here.

# %% [markdown] instructor=true
# **Rubric for `code-quality`** (2 points)
#
# - *1 point*: the code reads like the formulas: names from the notation, no copies of one formula in several places (steps
#   use the pair's own `predict_x0_from_eps`, `compute_posterior_mean`, ...), no left-overs of debugging.
# - *1 point*: efficient use of tensors: no loop over samples or pixels, no `.item()` or transfer inside the sampling loop
#   that could be outside, nothing of the input changed in place.

# %% [markdown]
# ---
# # In colour, if there is time
#
# **Idea.** Nothing that you wrote knows what a digit is. A sampler sees a shape, a schedule and a network; change the network,
# and the same lines draw something else. This one learned from CIFAR-10: photographs of 32 x 32 pixels in ten classes. They are
# much harder than digits, and the network is small; its model card (`data/checkpoints/cifar10-unet.md`) says how long it was trained
# and how good it is. So here you meet what you will often meet outside: a network that is not quite good enough.
#
# **Formula.** What helps such a network is *guidance* (Ho and Salimans 2022). It was trained to predict the noise with the label
# and without it; the difference of the two says what the label changes, and we go further that way, $w$ times as far:
#
# $$\hat\epsilon = \hat\epsilon_{\text{none}} + w\,(\hat\epsilon_{\text{label}} - \hat\epsilon_{\text{none}})$$
#
# $w = 1$ is the plain prediction for the label. Your sampler does not notice: `photographs.condition(labels, guidance=w)` is once more
# a model called with `(x, t)`; for any other $w$ its calls cost twice as much. **Bet first:** which $w$ would you ship, and what will it
# cost besides time? (On a CPU the cell takes a while.)

# %% tags=["demonstration"]
photographs, strengths = load_pretrained("cifar10"), (1.0, 2.0, 4.0)
wanted = torch.arange(500 if photographs.device.type == "cuda" else 50) % 10  # the same number of each class


@cache
def in_colour(guidance: float) -> Tensor:
    """Photographs in 25 steps, from the same starts at every guidance. Run this cell again after you change your class."""
    shape = (len(wanted), *photographs.sample_shape)
    x_T = standard_normal(shape, device=photographs.device, generator=seeded(18))
    return DDIMSampler(photographs.condition(wanted, guidance), schedule).sample(shape, 25, x_T=x_T)


@plots.beside_expected("photographs", bet=True)
def _():
    """Ten starting noises, one for each class, led to photographs at three strengths of guidance (DDIM, eta = 0, 25 steps)"""
    made = torch.cat([in_colour(guidance)[:10] for guidance in strengths])
    return plots.image_grid(made, columns=10, titles=photographs.class_names, rows=[f"w = {guidance:g}" for guidance in strengths])


@plots.when_written
def _():
    classifier, accuracy = load_classifier("cifar10"), read_card("cifar10-classifier")["evaluation"]["test_accuracy"]
    print(f"n = {len(wanted)}; judged by a classifier that is right on {accuracy:.1%} of real photographs")
    records = []
    for guidance in strengths:
        x = in_colour(guidance)
        of_a_class = [sample_diversity(x[wanted == label]) for label in range(10)]
        records.append({"guidance": f"{guidance:g}",
                        "judged as asked": f"{metrics.conditional_accuracy(x, wanted, classifier):.0%}",
                        "diversity within a class": sum(of_a_class) / 10,
                        "pixels out of range": f"{float((x.abs() > 1).float().mean()):.1%}"})
    return plots.Table(records)

# %% [markdown]
# **Think.** Can the judge be trusted? It may score your samples higher than real photographs. How can that be? Find a picture that has
# the right colours for its class and nothing else. And what do you see where pixels leave the range?
#
# Which faults of these pictures are your sampler's, and which are the network's? One experiment tells them apart: what would you change,
# and what would you leave alone?

# %% tags=["demonstration"]
explore.eta(DDIMSampler, StochasticityController, sample_diversity, DDPMSampler, model=load_pretrained("cifar10"))

# %% [markdown]
# **Think.** Ask for *horse* at guidance 3 and turn $\eta$ up, with 20 steps and then with 100 (which takes a while on a CPU). What
# changes with few steps, and what with many? Does $\eta$ leave noise in the picture, or does it take something out?

# %% [markdown]
# ---
# # Hand in
#
# 1. *Kernel → Restart Kernel and Run All Cells*: what counts is what the notebook does from a fresh start. (Time for a break, on a CPU.)
# 2. Look at the points under each check once more, and fill in your names at the top and your analysis in Part 4.
# 3. Save the notebook. Then, in a terminal in the course's folder, `make handin` (on Windows `.venv\Scripts\python -m
#    diffusionlab.handin`), or in a cell of your own `from diffusionlab.handin import hand_in; hand_in()`. It writes one file and
#    prints a receipt. Upload the file and keep the receipt.
#
# **What comes next.** DDIM at $\eta = 0$ is Euler's method on a differential equation, in disguise. Lab 6 replaces Euler by
# better solvers. *In the margin, the last error in circulation:* Heun's method does not "halve the error"; it raises the
# *order*, so that the error falls faster as steps are added, and at very few network calls it can lose to Euler. You will
# measure that, too.
#
# ---
# *Sources.* Ho, Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models" · Song, Meng, Ermon 2021, "Denoising
# Diffusion Implicit Models" · Lin, Liu, Li, Yang 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed" · Ho
# and Salimans 2022, "Classifier-Free Diffusion Guidance" · Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update
# Rule Converge to a Local Nash Equilibrium" (the Fréchet distance) · Nichol and Dhariwal 2021, "Improved Denoising Diffusion
# Probabilistic Models" (the cosine schedule) · MNIST: LeCun, Cortes, Burges · CIFAR-10: Krizhevsky 2009.
