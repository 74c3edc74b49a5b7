# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 6 · Fewer steps, the same network
#
# In Lab 5 you went from a thousand steps to fifty, and fewer cost quality. How few calls can you get away with, with
# the same network and no further training? What changes today is how its answers are put together, and that is a chapter of
# numerical mathematics that is older than neural networks.
#
# **When you are done you can**
# - read a deterministic sampler as a solver of a differential equation, and measure its order;
# - implement Heun, DPM-Solver++(2M) and UniPC, first and last steps included;
# - compare solvers fairly, by network calls;
# - put steps where the error is, and stop when there is nothing left to do;
# - use your network behind a library's schedulers, and know what each of their options does.
#
# | part | minutes | you build | points |
# |---|---|---|---|
# | 1 · A sampler is a solver | 15 | `solve_ddim`, `measured_order` | 11 |
# | 2 · Heun looks twice | 10 | `solve_heun` | 9 |
# | 3 · The clock of log-SNR | 30 | `solve_dpm1`, `solve_dpmpp_2m`, `unipc_weights`, `unipc_step`, `solve_unipc` | 40 |
# | 4 · Where to spend steps | 20 | `create_timesteps`, `adaptive_levels`, `stop_when_settled`, `solve_hybrid` | 24 |
# | 5 · The chart | 8 | your measurements | 6 |
# | 6 · In the wild | 7 | `library_timesteps`, and the guards of all | 10 |
#
# **How a part goes.** As in Lab 5: the idea, the formula, a function with a gap (`# TODO`, `raise
# NotImplementedError`), a `check(...)`, your picture beside the expected one, a question to think about. Take turns at
# the keyboard. Four times you meet **Myth or measured?**: bet before you run the cell.

# %% [markdown] editable=true
# **Names of the pair** (double-click to edit): *first name, second name*

# %%
import math
from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor

from diffusionlab import NoiseSchedule, analytic, check, explore, load_pretrained, metrics, plots
from diffusionlab.guards import check_count, check_eta, check_finite, check_images, check_num_steps
from diffusionlab.levels import (Callback, Denoise, Denoiser, Trajectory, check_levels, check_order, levels_at, log_snr,
                                 signal_noise, table_of_log_snr, timesteps_near)
from diffusionlab.noise_model import count_calls
from diffusionlab.runtime import standard_normal, standard_normal_like
from diffusionlab.schedulers import PipelineUNet, make_scheduler, scheduler_steps, solve_with_scheduler

# %%
schedule = NoiseSchedule.linear()
model = load_pretrained("mnist")                      # on the GPU where there is one
digits = model.condition(torch.arange(10))            # sample number i becomes a digit i mod 10
ring = analytic.GaussianMixture.ring(schedule)        # eight clusters in the plane, the noise prediction exact
gaussian = analytic.GaussianModel(schedule, mean=torch.tensor([0.3, -0.5]), std=torch.tensor([0.5, 0.7]), sample_shape=(2,))


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that gives the same noise on every device."""
    return torch.Generator().manual_seed(seed)


print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {model.device}, T = {schedule.num_timesteps}")

# %% [markdown]
# ## What you are given
#
# **Two letters for the mixture.** What was $\sqrt{A_t}$ and $\sqrt{1-A_t}$ in Lab 5 is called alpha and sigma here, as
# the papers on solvers do: $x = \alpha\,x_0 + \sigma\,\epsilon$ with $\alpha^2 + \sigma^2 = 1$. (Mind the clash:
# `schedule.alphas` are the $\alpha_t$ of DDPM, another thing.)
#
# **One clock.** A noise level is named by $\lambda = \log(\alpha/\sigma)$: low is noise, high is data, and clean data is at
# infinity. It is half the logarithm of Lab 5's $\mathrm{SNR} = \alpha^2/\sigma^2$; we say **log-SNR** for short, papers say half-log-SNR.
#
# | what | for |
# |---|---|
# | `levels_at(schedule, timesteps)` | the log-SNRs of $n$ timesteps, and infinity at the end: a tensor `[n+1]` |
# | `levels_at(schedule, timesteps, end=0)` | the same, but to end at timestep 0 |
# | `signal_noise(lam)` | the pair (alpha, sigma), two plain numbers; (1, 0) at infinity |
# | `Denoiser(model, schedule)` | a network as solvers want it: `denoise(x, lam)` guesses $x_0$ |
# | `gaussian.denoise`, `ring.denoise` | the same for exact models, at *any* log-SNR, between the timesteps too |
# | `Trajectory()` | a callback that keeps what it is told: `.steps` is a list of `(i, lam, x, x0)` |
# | `check_levels`, `check_order` | guards, beside those of Lab 5 |
#
# `Denoiser` takes networks that predict the noise (ours), the clean data, or $v = \alpha\epsilon - \sigma x_0$. Each
# can be had from any other, given $x$ and $\lambda$; your solvers need not care.
#
# **One signature.** Every solver of this lab is a function
#
# > `solve(denoise, x, levels, *, callback=None)` → `x` at `levels[-1]`
#
# The callback is called once a step as `callback(i, lam, x, x0)`. If it returns True, the solver returns `x0` there and
# then.

# %%
levels = levels_at(schedule, [999, 700, 400, 100])
for t, lam in zip([999, 700, 400, 100, "clean"], levels.tolist()):
    print(f"t = {t!s:>5}    log-SNR {lam:6.2f}    alpha {signal_noise(lam)[0]:.4f}    sigma {signal_noise(lam)[1]:.4f}")

# %% [markdown]
# ---
# # Part 1 · A sampler is a solver (15 minutes)
#
# **Idea.** At $\eta = 0$ each starting noise leads to one image, and more steps change that image less and less. So
# there is a path that the steps approach. Which? Write one DDIM step and divide by alpha:
#
# $$x_\text{next} = \alpha_\text{next}\,\hat x_0 + \sigma_\text{next}\,\hat\epsilon \quad\Longrightarrow\quad
# \frac{x_\text{next}}{\alpha_\text{next}} = \frac{x}{\alpha} + \left(\frac{\sigma_\text{next}}{\alpha_\text{next}} -
# \frac{\sigma}{\alpha}\right)\hat\epsilon$$
#
# With $y = x/\alpha$ and $s = \sigma/\alpha = e^{-\lambda}$ this reads $y_\text{next} = y + (s_\text{next} -
# s)\,\hat\epsilon$. That is **Euler's method** for
#
# $$\frac{dy}{ds} = \hat\epsilon, \qquad \hat\epsilon = \frac{x - \alpha\,\hat x_0}{\sigma},$$
#
# the *probability-flow* equation (Song et al. 2021). DDIM was a solver all along, the simplest there is.
#
# **Steps** for `solve_ddim`:
# 1. guards for `x` and `levels`;
# 2. for each pair of neighbouring levels ask `denoise` once (`levels.tolist()`: plain numbers leave the dtype of `x` alone);
# 3. tell the callback, and return `x0` if it says True;
# 4. Euler's step in $y$, and back to $x$;
# 5. `check_finite` at the end.

# %% reference="euler:solve_ddim"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"The last step divides by something infinite"</b></summary>
#
# At clean data `signal_noise` gives (1, 0), so that $s = 0$: nothing is infinite as long as you compute with alpha and
# sigma rather than with lambda itself.
# </details>
#
# <details><summary><b>"It works upwards, but not with falling levels"</b></summary>
#
# The formula knows no direction. Do not sort the levels, and take the width as $s_\text{next} - s$, with its sign.
# </details>

# %% question="ddim-euler"
check("ddim-euler", solve_ddim)

# %% tags=["demonstration"]
def path(solve, levels: Tensor, x: Tensor) -> Tensor:
    """All x that a solver passes through on the exact ring, the last included: [steps + 1, B, 2]."""
    kept = Trajectory()
    end = solve(ring.denoise, x, levels, callback=kept)
    return torch.stack([each for _, _, each, _ in kept.steps] + [end])


@plots.beside_expected("paths-by-steps")
def _():
    """Eight points on their way from noise to the ring, by your Euler in 5, 10 and 200 steps"""
    x, data = torch.randn(8, 2, dtype=torch.float64, generator=seeded(1)), ring.sample_data(400, seeded(2))
    grids = {n: torch.linspace(-4, 4, n + 1, dtype=torch.float64) for n in (5, 10, 200)}
    return plots.point_paths({f"{n} steps": path(solve_ddim, grid, x) for n, grid in grids.items()}, data)

# %% [markdown]
# **How good is a solver?** Its error, for small steps, falls like $c/n^p$. The power $p$ is its **order**: with $p = 1$
# twice the steps halve the error, with $p = 2$ they quarter it. On doubly logarithmic axes that is a straight line of
# slope $-p$.
#
# To see it, the *truth* must be known. For data from a normal distribution it is: each point keeps its place in the
# distribution, while the distribution moves and narrows. `gaussian.solution(x, lam, lam_end)` says where it ends.
#
# **Steps** for `measured_order`: logarithms of both, then the slope of the best straight line (least squares), with its
# sign turned.

# %% reference="euler:measured_order"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"Least squares by hand?"</b></summary>
#
# With the means taken off, the slope is $\sum xy / \sum x^2$.
# </details>

# %% question="order"
check("order", measured_order)

# %% tags=["demonstration"]
START, END = -3.0, 1.0                                # log-SNRs between which solvers are compared


def errors(solve, counts: Sequence[int]) -> list[float]:
    """The largest error on the exact Gaussian after so many equal steps of log-SNR, from START to END."""
    x = torch.randn(64, 2, dtype=torch.float64, generator=seeded(3))
    truth = gaussian.solution(x, START, END)
    grids = [torch.linspace(START, END, n + 1, dtype=torch.float64) for n in counts]
    return [float((solve(gaussian.denoise, x, grid) - truth).abs().max()) for grid in grids]


@plots.when_written
def _():
    counts = [20, 40, 80, 160]
    found = errors(solve_ddim, counts)
    print(f"measured order of DDIM: {measured_order(counts, found):.2f}")
    return plots.Table([{"steps": n, "error": f"{error:.1e}"} for n, error in zip(counts, found)])

# %% [markdown]
# **Think.** At order 1, how many steps does one more correct digit cost? And why do we compare at a fixed, finite last
# level, rather than at clean data?

# %% [markdown]
# ---
# # Part 2 · Heun looks twice (10 minutes)
#
# **Idea.** Euler takes the slope where it stands and trusts it for the whole step. Heun goes there, looks at the slope
# again, and makes the step anew with the mean of both. That costs a second call of the network, so compare at equal
# **NFE** (network calls), never at equal steps.
#
# **Formula** (Karras et al. 2022, algorithm 1, without noise), in the $y$ and $s$ of Part 1:
#
# $$y' = y + (s_\text{next} - s)\,\epsilon(y, s), \qquad
# y_\text{next} = y + (s_\text{next} - s)\,\tfrac12\bigl(\epsilon(y, s) + \epsilon(y', s_\text{next})\bigr)$$
#
# At clean data there is no noise to ask about: the last step stays Euler's. So $n$ steps to clean data cost $2n - 1$
# calls.

# %% reference="heun:solve_heun"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"The model refuses a log-SNR of infinity"</b></summary>
#
# You correct the last step, too. `math.isinf(lam_next)` tells it from the others.
# </details>
#
# <details><summary><b>"It is no better than Euler"</b></summary>
#
# The second guess belongs to the point where Euler's step has led *and* to its level, with that level's alpha and
# sigma. And the second step starts from $y$ again, not from $y'$.
# </details>

# %% question="heun"
check("heun", solve_heun)

# %% [markdown]
# ### Myth or measured? (1 of 4)
#
# > *"Heun's method halves the error."*
#
# **Bet first:** by what factor does it lower the error at 4 calls, at 20, at 80? Always the same?

# %% tags=["demonstration"]
@plots.when_written
def _():
    calls = [4, 6, 10, 20, 40, 80]
    euler, heun = errors(solve_ddim, calls), errors(solve_heun, [nfe // 2 for nfe in calls])
    return plots.Table([{"network calls": nfe, "Euler": f"{a:.1e}", "Heun": f"{b:.1e}", "Euler / Heun": a / b}
                        for nfe, a, b in zip(calls, euler, heun)])

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth. Heun does not change the error by a factor, it changes how fast the error *falls*: the last column grows with
# the calls, and by about as much. And it starts below 1: with few calls Heun's steps are twice as long as Euler's, too
# long for the slope at their far end to be of use. Higher order pays once steps are short enough, not before.
# </details>

# %% [markdown]
# ---
# # Part 3 · The clock of log-SNR (30 minutes)
#
# ## One step, exactly
#
# **Idea.** Half of the equation is known: without the network, $x$ just grows and shrinks with the schedule. So solve
# that half exactly, and approximate only what the network says. In $\lambda$ the split is clean (Lu et al. 2022):
#
# $$x_\text{next} = \frac{\alpha_\text{next}}{\alpha}\,x - \alpha_\text{next}\int_\lambda^{\lambda_\text{next}}
# e^{-u}\,\hat\epsilon(u)\,du$$
#
# **Formula.** Hold $\hat\epsilon$ still over the step, $h = \lambda_\text{next} - \lambda$. The integral is elementary,
# and this is **DPM-Solver-1**:
#
# $$x_\text{next} = \frac{\alpha_\text{next}}{\alpha}\,x - \sigma_\text{next}\,(e^h - 1)\,\hat\epsilon$$
#
# Use `math.expm1(h)`: for small $h$ it keeps the digits that `exp(h) - 1` loses.
#
# **The edge.** At clean data $\sigma_\text{next} = 0$ and $e^h = \infty$. Their product has a limit. Put $e^h =
# \frac{\alpha_\text{next}\,\sigma}{\sigma_\text{next}\,\alpha}$ in, and you see it.

# %% reference="dpm:solve_dpm1"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"NaN at the end"</b></summary>
#
# $0 \cdot \infty$. For `math.isinf(lam_next)` take the limit, $\sigma / \alpha$.
# </details>

# %% question="dpm-solver-1"
check("dpm-solver-1", solve_dpm1)

# %% tags=["demonstration"]
@plots.when_written
def _():
    x, records = torch.randn(100, 2, dtype=torch.float64, generator=seeded(5)), []
    for n in (1, 3, 10, 50):
        grid = torch.cat([torch.linspace(-4, 4, n, dtype=torch.float64), torch.tensor([math.inf])])
        gap = solve_dpm1(ring.denoise, x, grid) - solve_ddim(ring.denoise, x, grid)
        records.append({"steps": n, "DPM-Solver-1 minus DDIM, largest": f"{float(gap.abs().max()):.0e}"})
    return plots.Table(records)

# %% [markdown]
# **Think.** You have just typed DDIM a second time, in other words. What was gained by the new words?
#
# ## Second order for the price of one call
#
# **Idea.** Heun buys its second slope with a network call. A **multistep** method takes it from the past: the guess of
# the step before is still there, and two guesses show where guesses are going. DPM-Solver++ does this with the guess at
# the *data*, which near the end moves little and stays within the range of pixels, while $\hat\epsilon$ does neither.
#
# **Formula** (Lu et al. 2022, "DPM-Solver++", algorithm 2). With $r = (\lambda - \lambda_\text{before})/h$:
#
# $$D = \hat x_0 + \frac{1}{2r}\bigl(\hat x_0 - \hat x_0^\text{before}\bigr), \qquad
# x_\text{next} = \frac{\sigma_\text{next}}{\sigma}\,x - \alpha_\text{next}\,(e^{-h} - 1)\,D$$
#
# $D$ is the guess carried on by half a step: what it will be in the middle.
#
# **The edges.** In the first step there is no guess before: $D = \hat x_0$. In the last step to clean data $h$ is
# infinite and half a step is nowhere: again $D = \hat x_0$, and $e^{-h} = 0$. And if the last level is finite,
# `lower_order_final=True` asks for $D = \hat x_0$ there all the same, which steadies short runs. `history` lets a run
# go on from guesses made elsewhere.

# %% reference="dpm:solve_dpmpp_2m"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"Right for equal steps, wrong for others"</b></summary>
#
# $r$ compares the *last* step with *this* one, and divides.
# </details>
#
# <details><summary><b>"The result is infinite"</b></summary>
#
# With an infinite $h$ your $r$ is 0. A step to clean data takes $D = \hat x_0$, whatever `lower_order_final` says.
# </details>
#
# <details><summary><b>"It has order 1"</b></summary>
#
# Is the guess before really kept, and replaced after *every* step?
# </details>

# %% question="dpm-solver-2m"
check("dpm-solver-2m", solve_dpmpp_2m)

# %% [markdown]
# ## Predict, then correct
#
# **Idea.** When the next guess arrives, it is used for the next step. But it also says something about the step just
# made: it is a look at the far end, as Heun takes one, and it was paid for already. **UniPC** (Zhao et al. 2023) makes
# the last step again with it, and only then goes on. The same number of calls, one order more.
#
# **Formula.** Take $p$ guesses, the newest $\hat x_0$ at $\lambda$, the others $\hat x_0^{(k)}$ at $\lambda + r_k h$:
#
# $$x_\text{next} = \frac{\sigma_\text{next}}{\sigma}\,x + \alpha_\text{next}\Bigl((1 - e^{-h})\,\hat x_0 +
# \sum_k w_k\,\frac{\hat x_0^{(k)} - \hat x_0}{r_k}\Bigr)$$
#
# The **predictor** has $r_k < 0$: the past. The **corrector** has one more, $r = 1$: the guess at the level just
# reached. So there are $m$ others, $p - 1$ for the predictor and $p$ for the corrector. The weights follow from one demand:
# the step must be exact whenever $\hat x_0$ is a polynomial of $\lambda$ of degree at most $m$.
# With $\varphi_1 = \frac{e^{-h} - 1}{-h}$ and $\varphi_{n+1} = \frac{\varphi_n - 1/n!}{-h}$ that is a small system of
# equations,
#
# $$\sum_k w_k\,r_k^{\,n-1} = h\,n!\,\varphi_{n+1}, \qquad n = 1, \dots, m.$$
#
# For a single other guess UniPC does not solve it but takes $w = B(h)/2$, with $B(h) = h$ (`bh1`) or $1 - e^{-h}$
# (`bh2`), which agrees with the solution for small $h$.
#
# **Steps.**
# 1. `unipc_weights`: the guards; $B(h)/2$ for one ratio; else rows of powers, the right side, `torch.linalg.solve`,
#    float64.
# 2. `unipc_step`: split off the newest guess; collect pairs $(r_k, \hat x_0^{(k)})$, and $(1, $ `x0_next` $)$ where it
#    is given; the formula. With the newest guess alone it is a step of order 1, and that must work to clean data.
# 3. `solve_unipc`: guess; correct the last step from the $x$ *before* it, with the guesses that it was predicted from
#    and the new one; keep the guess (do not ask again at the corrected $x$); choose $p$; predict.

# %% reference="unipc:unipc_weights"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"Two guesses are right, three are not"</b></summary>
#
# The recursion takes $1/n!$ off $\varphi_n$: $1$, then $\frac12$, then $\frac16$. And $n!$ stands on the right side.
# </details>

# %% question="unipc-weighing"
check("unipc-weighing", unipc_weights)

# %% reference="unipc:unipc_step"
# (the function is taken from the reference)

# %% question="unipc-predict-correct"
check("unipc-predict-correct", unipc_step, unipc_weights)

# %% reference="unipc:solve_unipc"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"The corrector makes it worse"</b></summary>
#
# It makes the *last* step again: from the $x$ before that step, with the same guesses as the predictor, plus the new
# one.
# </details>
#
# <details><summary><b>"Twice as many calls as steps"</b></summary>
#
# The guess made at the predicted $x$ serves the corrector and the next predictor. It is a little off, but only by as
# much as the order allows.
# </details>

# %% question="unipc-loop"
check("unipc-loop", solve_unipc, unipc_step, unipc_weights)

# %% [markdown]
# **Think.** Write the predictor with two guesses out, with `bh2`: its one weight is $(1 - e^{-h})/2$. Which solver of this lab is that?

# %% [markdown]
# **The race**, on the Gaussian, where the truth is exact. (The first step of a multistep method is of order 1, for want
# of a past, and one such step is enough to hold a method of high order back: the theory's orders take exact starting
# values. Here the first step is made in deep noise, where the guess hardly moves yet, and the slopes hardly suffer. Set
# `START = 0.0` in a cell of your own and race again; then put it back, for the next table needs it.)

# %% tags=["demonstration"]
SOLVERS = {"DDIM": solve_ddim, "Heun": solve_heun, "DPM++(2M)": partial(solve_dpmpp_2m, lower_order_final=False),
           "UniPC-2": partial(solve_unipc, lower_order_final=False),
           "UniPC-3": partial(solve_unipc, order=3, lower_order_final=False)}


@plots.beside_expected("orders")
def _():
    """Error on the exact Gaussian against network calls; the legend gives the slopes measured"""
    calls, named = [10, 20, 40, 80, 160], {}
    for name, solve in SOLVERS.items():
        found = errors(solve, [nfe // 2 for nfe in calls] if name == "Heun" else calls)
        named[f"{name}, order {measured_order(calls[1:], found[1:]):.1f}"] = calls, found
    return plots.curves(named, "network calls", "largest error", logx=True, logy=True)

# %% [markdown]
# ### Myth or measured? (2 of 4)
#
# > *"bh1 or bh2 is an important choice, all the more so at high order."*
#
# **Bet first:** at which orders do the two differ at all?

# %% tags=["demonstration"]
@plots.when_written
def _():
    x, records = torch.randn(200, 2, dtype=torch.float64, generator=seeded(6)), []
    before = [(lam, gaussian.denoise(gaussian.solution(x, START, lam), lam)) for lam in (-3.8, -3.4)]
    grid, truth = torch.linspace(START, END, 11, dtype=torch.float64), gaussian.solution(x, START, END)
    for order in (1, 2, 3):
        made = [solve_unipc(gaussian.denoise, x, grid, order=order, variant=variant, lower_order_final=False, history=before)
                for variant in ("bh1", "bh2")]
        records.append({"order": order, "error with bh1": f"{float((made[0] - truth).abs().max()):.1e}",
                        "error with bh2": f"{float((made[1] - truth).abs().max()):.1e}",
                        "largest difference": f"{float((made[0] - made[1]).abs().max()):.0e}"})
    return plots.Table(records)

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth, upside down. $B(h)$ cancels wherever the weights come from the equations, so with two other guesses and more
# both variants are one and the same. Only the single guess, with its $B(h)/2$, tells them apart: the corrector of order
# 1, the predictor of order 2, and the first steps of any run. (The third order here has a past from `history`, so that
# it never sees a single guess.)
# </details>

# %% [markdown]
# ---
# # Part 4 · Where to spend steps (20 minutes)
#
# ## Five spacings
#
# **Idea.** Ten calls, a thousand timesteps: which ten? Three answers you know from Lab 5 (take your own code along).
# Two more come from the new clock:
#
# - `log-snr`: $n$ evenly spaced $\lambda$, from the table's lowest to its highest;
# - `karras`: $n$ evenly spaced $s^{1/7}$ with $s = e^{-\lambda}$, between the same ends (Karras et al. 2022, eq. 5): something
#   between even in $s$ and even in $\log s$.
#
# Both give log-SNRs; `timesteps_near(schedule, levels)` finds the nearest rows and keeps them apart. `table_of_log_snr`
# is the whole table. With $n = 1$ each spacing is $T-1$ alone.

# %% reference="spacing:create_timesteps"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"A log-SNR lies outside the table, by 1e-16"</b></summary>
#
# A root and a seventh power do not cancel to the last digit. `timesteps_near` forgives that much; if it refuses, your
# ends are off by more.
# </details>

# %% question="steps-spacing"
check("steps-spacing", create_timesteps)

# %% tags=["demonstration"]
SPACINGS = ("uniform", "trailing", "quadratic", "log-snr", "karras")


@plots.beside_expected("spacings")
def _():
    """Ten timesteps by each of your five spacings"""
    return plots.schedules({spacing: create_timesteps(schedule, 10, spacing) for spacing in SPACINGS})


@plots.when_written
def _():
    x = torch.randn(500, 2, dtype=torch.float64, generator=seeded(4))
    exact = Denoiser(ring, schedule)
    truth = solve_heun(exact, x, levels_at(schedule, range(999, -1, -1)))
    records = []
    for spacing in SPACINGS:
        grid = levels_at(schedule, create_timesteps(schedule, 10, spacing))
        found = {f"error of {name}": float((solve(exact, x, grid) - truth).square().mean().sqrt())
                 for name, solve in (("DDIM", solve_ddim), ("DPM++(2M)", solve_dpmpp_2m))}
        records.append({"ten steps": spacing} | found)
    return plots.Table(records)

# %% [markdown]
# **Think.** Does one spacing win for both solvers? Look at where the five put their steps: what do the best do near clean
# data that the others do not?
#
# ## Let the error decide
#
# **Idea.** Rather than guess where steps are needed, measure it, once, on a fine grid. In each interval Euler's step
# and Heun's cost two calls together, and their difference $e$ is about Euler's error there: an **embedded pair**. Where
# $e$ is large, later runs take more steps.
#
# **Formula.** A step half as long has a quarter of the error, so that $\sqrt e$ adds up along the way as length does.
# Cut the sum of $\sqrt e$ over the grid into $n$ equal parts, and put the levels at the cuts.
#
# **Steps** for `adaptive_levels`:
# 1. walk the grid with Heun's result, noting $\sqrt e$ for each interval ($e$: the root mean square, over all of `x`, of $x$ after
#    Heun's step minus $x$ after Euler's, that is $\alpha_\text{next}$ times the difference in $y$);
# 2. the running sum;
# 3. the places where it reaches $0, \frac1n, \frac2n, \dots$ of the whole, interpolated inside an interval;
# 4. the two ends exactly. Where no error is seen at all, space evenly.

# %% reference="spacing:adaptive_levels"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"How do I invert a running sum?"</b></summary>
#
# `torch.searchsorted(total, parts)` finds the interval; the rest is a straight line. A grain added to every interval, in
# proportion to its width, keeps the sum from standing still, and a grid without any error comes out even by itself.
# </details>

# %% question="adaptive-spacing"
check("adaptive-spacing", adaptive_levels)

# %% tags=["demonstration"]
@plots.beside_expected("adaptive")
def _():
    """Error of DDIM on the ring against steps, on evenly spaced levels and on those that the pilot run chose"""
    x = torch.randn(500, 2, dtype=torch.float64, generator=seeded(7))
    pilot, counts = torch.linspace(-4, 4, 41, dtype=torch.float64), [6, 10, 20, 40]
    truth = solve_heun(ring.denoise, x, torch.linspace(-4, 4, 1001, dtype=torch.float64))
    found = {"even in log-SNR": [], "adaptive": []}
    for n in counts:
        even = torch.linspace(-4, 4, n + 1, dtype=torch.float64)
        for name, grid in zip(found, (even, adaptive_levels(ring.denoise, x[:50], pilot, n))):
            found[name].append(float((solve_ddim(ring.denoise, x, grid) - truth).square().mean().sqrt()))
    return plots.curves({name: (counts, each) for name, each in found.items()}, "steps", "error", logx=True, logy=True)

# %% [markdown]
# **Think.** The pilot run cost calls, too. How many, and after how many runs have they paid for themselves? Why may it be made
# with fifty points and serve five hundred?
#
# ## Stop early
#
# **Idea.** Late in a run the guess at the clean data often stands still while steps go on. A callback sees every guess:
# let it end the run.
#
# **Steps** for `stop_when_settled`: a function that returns a callback. It remembers the last guess and how many quiet
# steps there were in a row. A step is quiet if *no* sample's guess has moved by more than `tolerance` (root mean square
# over the sample). Step `i = 0` begins a new run. And steps at a log-SNR below `after` do not count (you will see why),
# but their guess is remembered: the first step above is compared with it.

# %% reference="control:stop_when_settled"
# (the function is taken from the reference)

# %% [markdown]
# <details><summary><b>"UnboundLocalError"</b></summary>
#
# The inner function assigns to variables of the outer one: `nonlocal`.
# </details>

# %% question="early-exit"
check("early-exit", stop_when_settled)

# %% [markdown]
# ### Myth or measured? (3 of 4)
#
# > *"When the prediction stops changing, the sample is finished; stopping there is free."*
#
# **Bet first:** digits, DDIM, 50 steps. How many calls does a tolerance of 0.02 save (pixels run from -1 to 1)? What
# does it do to the image? And what happens if the rule is in force from the first step on, in pure noise?

# %% tags=["demonstration"]
@cache
def early_exits() -> list[dict]:
    """Runs of 50 steps with and without an early end. Run this cell again after you change your functions."""
    shape, denoise = (10, *model.sample_shape), Denoiser(digits, schedule)
    x_T = standard_normal(shape, device=model.device, generator=seeded(8))
    grid = levels_at(schedule, create_timesteps(schedule, 50))
    whole = solve_ddim(denoise, x_T, grid)
    records = []
    for tolerance, after in ((0.01, 0.0), (0.02, 0.0), (0.02, -9.0)):
        with count_calls() as calls:
            x = solve_ddim(denoise, x_T, grid, callback=stop_when_settled(tolerance, after=after))
        shorter = solve_ddim(denoise, x_T, levels_at(schedule, create_timesteps(schedule, calls.nfe)))
        harm, planned = (float((each - whole).square().mean().sqrt()) for each in (x, shorter))
        records.append({"tolerance": tolerance, "in force": "from the start" if after < 0 else "above log-SNR 0",
                        "network calls": calls.nfe, "harm (root mean square)": harm, "of a run of so many steps": planned,
                        "x": x})
    return records


@plots.when_written
def _():
    return plots.Table([{key: value for key, value in each.items() if key != "x"} for each in early_exits()])


@plots.beside_expected("early-exit")
def _():
    """The same ten digits ended at tolerance 0.01, at 0.02, and at 0.02 with the rule in force from the start"""
    return plots.image_grid(torch.cat([each["x"] for each in early_exits()]), columns=10, rows=["0.01", "0.02", "start"])

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# A myth: your table has the price of the calls saved. The last column sets it against the other way to save them, a
# run that was planned that short from the outset; which of the two is nearer to the run of 50? In pure noise the guess
# stands still as well, because nothing has begun. A rule that looks at changes alone takes a start for an end, and
# returns a blur: the third row of the picture.
# </details>
#
# ## Two halves
#
# **Idea.** Fresh noise replaces part of what earlier steps got wrong, and part of what they got right. Early on that may help,
# for later steps can still repaint what was thrown away; near data none are left. So: stochastic while there is more noise than signal, then a
# fast deterministic solver. Whether it pays in ten steps you will measure in Part 5.
#
# **Formula** for a stochastic step, Lab 5's in today's letters:
#
# $$x_\text{next} = \alpha_\text{next}\,\hat x_0 + \sqrt{\sigma_\text{next}^2 - v}\;\hat\epsilon + \sqrt v\,z, \qquad
# v = \eta^2\,\frac{\sigma_\text{next}^2}{\sigma^2}\Bigl(1 - \frac{\alpha^2}{\alpha_\text{next}^2}\Bigr)$$
#
# From the first level of at least `switch` on, hand `x` and the rest of the levels to `late`; if that level is the last, nothing
# is left to hand on. The callback goes on counting, and a True from it ends either half.

# %% reference="control:solve_hybrid"
# (the function is taken from the reference)

# %% question="hybrid"
check("hybrid", solve_hybrid)

# %% tags=["demonstration"]
@plots.beside_expected("hybrid")
def _():
    """Ten steps from the same noise: DDIM, DPM++(2M), and hybrids of eta = 1 up to log-SNR -1 and up to 1"""
    shape, denoise = (10, *model.sample_shape), Denoiser(digits, schedule)
    x_T = standard_normal(shape, device=model.device, generator=seeded(9))
    grid = levels_at(schedule, create_timesteps(schedule, 10, "log-snr"))
    made = [solve_ddim(denoise, x_T, grid), solve_dpmpp_2m(denoise, x_T, grid)]
    made += [solve_hybrid(denoise, x_T, grid, switch=switch, generator=seeded(10)) for switch in (-1.0, 1.0)]
    return plots.image_grid(torch.cat(made), columns=10, rows=["DDIM", "2M", "to -1", "to 1"])

# %% [markdown]
# ---
# # Part 5 · The chart (8 minutes)
#
# **All of it on the ring**, to clean data, against network calls. The ring is far from linear, and nothing but your own
# Heun with a thousand steps is near enough to the truth to compare with.

# %% tags=["demonstration"]
@cache
def ring_truth() -> tuple[Tensor, Tensor]:
    """Points at log-SNR -4 and where they end on the ring. Run this cell again after you change your function."""
    x = torch.randn(500, 2, dtype=torch.float64, generator=seeded(4))
    grid = torch.cat([torch.linspace(-4, 7, 1000, dtype=torch.float64), torch.tensor([math.inf])])
    return x, solve_heun(ring.denoise, x, grid)


def ring_error(solve, num_steps: int) -> float:
    """The root-mean-square error on the ring after so many steps to clean data, all but the last equal in log-SNR."""
    x, truth = ring_truth()
    grid = torch.cat([torch.linspace(-4, 4, num_steps, dtype=torch.float64), torch.tensor([math.inf])])
    return float((solve(ring.denoise, x, grid) - truth).square().mean().sqrt())


@plots.beside_expected("ring-chart")
def _():
    """Error on the ring against network calls, levels even in log-SNR and then clean data"""
    calls, named = [5, 9, 19, 39, 79], {}
    for name, solve in (("DDIM", solve_ddim), ("Heun", solve_heun), ("DPM++(2M)", solve_dpmpp_2m), ("UniPC-2", solve_unipc),
                        ("UniPC-3", partial(solve_unipc, order=3))):
        named[name] = calls, [ring_error(solve, (nfe + 1) // 2 if name == "Heun" else nfe) for nfe in calls]
    return plots.curves(named, "network calls", "error", logx=True, logy=True)

# %% [markdown]
# **Think.** With many calls all solvers meet at one floor, whatever their order. Which single step is to blame? (In
# $\lambda$ it is infinitely long, so none of your solvers takes it in second order. In $s$ it is not: could you?)
#
# ### Myth or measured? (4 of 4)
#
# > *"A modern solver does in 10 calls what DDIM does in 50."*
#
# **Bet first:** on these digits, which solver and which spacing come nearest, and by how much does the spacing matter?
#
# As in Lab 5: the Fréchet distance to samples of DDPM-1000, $n = 200$, with its noise floor; all cells share starting
# noise and labels. At this $n$ small differences are chance. Your instructor has the course's own measurement with more samples.

# %% tags=["demonstration"]
judged = 200
asked_for = torch.arange(judged) % 10
of_ddpm = metrics.reference_features("ddpm-1000")
reference = of_ddpm[:judged]  # its digits are 0, 1, ..., 9, 0, 1, ..., too
floor = metrics.noise_floor(of_ddpm, judged, generator=seeded(11), labels=torch.arange(len(of_ddpm)) % 10)


@cache
def quality(solver: str, num_steps: int, spacing: str = "log-snr", last: int | None = None) -> dict:
    """Measure 200 samples; `last`: even steps of log-SNR to a last call there. Run this cell again after you change something."""
    shape = (judged, *model.sample_shape)
    x_T = standard_normal(shape, device=model.device, generator=seeded(12))
    solve = {"DDIM": solve_ddim, "Heun": solve_heun, "DPM++(2M)": solve_dpmpp_2m, "UniPC-2": solve_unipc,
             "hybrid, eta = 1 to log-SNR -1": partial(solve_hybrid, switch=-1.0, generator=seeded(16))}[solver]
    if last is None:
        steps = create_timesteps(schedule, num_steps, spacing)
    else:
        even = torch.linspace(log_snr(schedule, 999), log_snr(schedule, last), num_steps, dtype=torch.float64)
        steps = timesteps_near(schedule, even)
    with count_calls() as calls:
        x = solve(Denoiser(model.condition(asked_for), schedule), x_T, levels_at(schedule, steps))
    return {"solver": solver, "spacing": spacing, "last call at t": int(steps[-1]), "network calls": calls.nfe,
            "Fréchet distance": metrics.frechet_distance(metrics.features(x), reference),
            "judged as asked": f"{metrics.conditional_accuracy(x, asked_for):.1%}"}


measured = {"DDIM": (5, 10, 20), "DPM++(2M)": (5, 10, 20), "UniPC-2": (5, 10, 20)}
print(f"n = {judged}, noise floor {floor[0]:.3g} +- {floor[1]:.2g}")


@plots.when_written
def _():
    four = [quality(solver, 10, spacing) for solver in ("DDIM", "DPM++(2M)") for spacing in ("uniform", "log-snr")]
    others = [quality("UniPC-2", 10), quality("hybrid, eta = 1 to log-SNR -1", 10), quality("Heun", 5)]
    return plots.Table([quality("DDIM", 50, "uniform"), *four, *others])


@plots.beside_expected("quality-chart")
def _():
    """Fréchet distance to DDPM-1000 against network calls, steps even in log-SNR, with the noise floor at this n"""
    named = {}
    for solver, counts in measured.items():
        cells = [quality(solver, count) for count in counts]
        named[solver] = [each["network calls"] for each in cells], [each["Fréchet distance"] for each in cells]
    named["DDIM, uniform"] = (10, 50), [quality("DDIM", count, "uniform")["Fréchet distance"] for count in (10, 50)]
    return plots.curves(named, "network calls", f"Fréchet distance (n = {judged})", logx=True, logy=True, floor=floor)

# %% [markdown]
# <details><summary><b>What to conclude</b></summary>
#
# That depends on your table; read it against the floor and its spread. (Heun is in the table only: at 9 calls its
# distance would squeeze all other curves flat.) Three things to look for. How much of the gain is the solver's, and how
# much the spacing's: what serves DDIM may ruin a solver of order 2, and the other way round. Whether DDIM needed its
# fifty on these digits in the first place: it has a row with ten uniform steps. (Below the noise floor $n = 200$ samples
# do not tell two samplers apart; with a thousand the same row may come out otherwise.) And whether the order of the
# solvers on the ring is their order here. A small error along the path and a good picture are not the same: a network's
# own error is there in either case, and no solver removes it.
# </details>
#
# **The last call.** Ten even steps of log-SNR from end to end make three of their calls below $t = 40$. Does the network have
# that much to say there? Let the last call come earlier, and spread the ten over the rest of the way; one step leads from there to
# clean data, as always.

# %% tags=["demonstration"]
@plots.when_written
def _():
    print("from end to end:", create_timesteps(schedule, 10, "log-snr").tolist())
    return plots.Table([quality("DPM++(2M)", 10, last=last) for last in (0, 40, 100, 200, 400)])

# %% [markdown]
# **Think.** Where does your table turn? A digit is nearly black and white: why does that let the last call come so early,
# and what would a photograph lose? And DDIM-50 on uniform steps asks below $t = 40$, too: how fair is the comparison above?
#
# **There and back.** Falling levels lead from an image to its noise. How well does the image come back?

# %% tags=["demonstration"]
@plots.beside_expected("there-and-back")
def _():
    """Ten digits encoded to noise and decoded again: error by steps, for DDIM and DPM++(2M)"""
    shape, denoise = (10, *model.sample_shape), Denoiser(digits, schedule)
    x = solve_dpmpp_2m(denoise, standard_normal(shape, device=model.device, generator=seeded(13)),
                       levels_at(schedule, create_timesteps(schedule, 20, "log-snr")[:-1], end=0))
    counts, named = (5, 10, 20), {}
    for name, solve in (("DDIM", solve_ddim), ("DPM++(2M)", solve_dpmpp_2m)):
        found = []
        for n in counts:
            up = levels_at(schedule, create_timesteps(schedule, n + 1, "log-snr")[:-1], end=0)
            back = solve(denoise, solve(denoise, x, up.flip(0)), up)
            found.append(float((back - x).square().mean().sqrt()))
        named[name] = counts, found
    return plots.curves(named, "steps each way", "root mean square error", logx=True, logy=True)

# %% [markdown] question="solver-analysis"
# **Your analysis** (6 points). Answer from *your* tables and plots, two to five sentences each, with the numbers you
# rely on.
#
# 1. **Order.** Which orders did you measure, and at how many calls does Heun begin to pay? Explain why it does not pay
#    earlier, and why UniPC-$p$ has one order more than its predictor at no extra call.
# 2. **Quality.** How near do ten calls come to DDIM-50 on digits, and what does that owe to the solver, to the spacing,
#    and to $n$? Where do the chart of the ring and the chart of the digits disagree, and why may they?
# 3. **Decision.** You may spend ten calls an image. Choose solver, spacing, and whether to stop early, and defend the
#    choice with your measurements. What would you choose for encoding and decoding an image?

# %% [markdown] instructor=true
# **Rubric for `solver-analysis`** (6 points, 2 for each question; half points are fine)
#
# 1. *1 point*: the pair's own slopes, near 1 for DDIM and 2 for Heun and 2M, and the number of calls from which the
#    ratio in their table exceeds 1. *1 point*: long steps (the expansion behind the order does not hold yet); the
#    corrector uses the guess at the far end, which the next step has paid for.
# 2. *1 point*: distances from the table set against floor and spread, with the solver's and the spacing's share told
#    apart by the four cells of DDIM and 2M. *1 point*: path error against picture quality: the network's own error,
#    features that do not see small errors, and $n = 200$.
# 3. *1 point*: a choice that their table supports. *1 point*: early exit judged by the harm per call saved against a
#    shorter plan; for encoding a deterministic solver, with the error of the way back as measured.

# %% [markdown]
# ---
# # Part 6 · In the wild (7 minutes)
#
# **Idea.** In practice you will meet these solvers as *schedulers* of a library. The formulas are yours by now; what
# differs is the small print. diffusers' options decide which timesteps are visited and where the run ends:
#
# | option | means | trap |
# |---|---|---|
# | `timestep_spacing="leading"` | $0, k, 2k, \dots$; $k = \lfloor T/n \rfloor$ | `DDIMScheduler`'s default; never at $T-1$ |
# | `"linspace"` | from $0$ to $T-1$ in $n$ points | `DDIMScheduler` steps to $t - \lfloor T/n \rfloor$ all the same |
# | `"trailing"` | counted down from $T$ | right where $n$ divides $T$ |
# | `steps_offset` | added to `leading` | 1 in Stable Diffusion's settings: its last call is at $t = 1$ |
# | `set_alpha_to_one` | the last step leads to clean data | `False` ends at $A_0$, with noise left over |
# | `clip_sample` | the guess is cut to $[-1, 1]$ | on by default in `DDIMScheduler`; the noise is not derived anew |
# | `prediction_type` | `"epsilon"`, `"sample"`, `"v_prediction"` | of the network, not a matter of taste |
#
# **Steps** for `library_timesteps`: the timesteps that `DDIMScheduler` visits. Its sources were read for you; the
# docstring has the formulas.

# %% reference="spacing:library_timesteps"
# (the function is taken from the reference)

# %% question="library-options"
check("library-options", library_timesteps)

# %% [markdown]
# **Do they agree?** Here are their schedulers behind the same exact model, beside your solvers on *their* timesteps.
# Rows that differ are no error of yours; find the option that explains each.

# %% tags=["demonstration"]
@plots.when_written
def _():
    denoise, records = Denoiser(gaussian, schedule), []
    x = torch.randn(50, 2, dtype=torch.float64, generator=seeded(14))
    for name, solve, options in [
            ("DDIMScheduler", solve_ddim, {"timestep_spacing": "trailing", "clip_sample": False}),
            ("DDIMScheduler", solve_ddim, {"timestep_spacing": "trailing", "clip_sample": True}),
            ("DDIMScheduler", solve_ddim, {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}),
            ("DDIMScheduler", solve_ddim, {"timestep_spacing": "linspace", "clip_sample": False}),
            ("HeunDiscreteScheduler", solve_heun, {"timestep_spacing": "trailing"}),
            ("DPMSolverMultistepScheduler", solve_dpmpp_2m, {"timestep_spacing": "trailing"}),
            ("UniPCMultistepScheduler", solve_unipc, {"timestep_spacing": "trailing"})]:
        scheduler = make_scheduler(name, schedule, **options)
        theirs = solve_with_scheduler(scheduler, schedule, denoise, x, 10)
        ours = solve(denoise, x, levels_at(schedule, scheduler_steps(scheduler, 10)))
        records.append({"theirs": name, "options": ", ".join(f"{key}={value}" for key, value in options.items()),
                        "largest difference": f"{float((theirs - ours).abs().max()):.0e}"})
    return plots.Table(records)


@plots.when_written
def _():
    steps = {spacing: library_timesteps(1000, 10, spacing).tolist() for spacing in ("leading", "linspace", "trailing")}
    for spacing, each in steps.items():
        alpha, _ = signal_noise(log_snr(schedule, each[0]))
        print(f"{spacing:>9}: starts at t = {each[0]}, where alpha = {alpha:.4f}; then {each[1:4]} ...")

# %% [markdown]
# **Think.** With `leading` the network is told that $x_T$ is less noisy than it is. What would you expect to see in the
# images, most of all in their overall brightness? The next cell shows it: their pipeline around our network, which
# `PipelineUNet` gives the form that they call, in two steps from the same noise. In a cell of your own, try five.

# %% tags=["demonstration"]
def by_their_pipeline(spacing: str, num_steps: int = 2) -> Tensor:
    """Ten digits by diffusers' own loop."""
    from diffusers import DDIMPipeline

    scheduler = make_scheduler("DDIMScheduler", schedule, timestep_spacing=spacing, clip_sample=False)
    pipeline = DDIMPipeline(PipelineUNet(digits), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    x = pipeline(10, seeded(15), num_inference_steps=num_steps, output_type="pt", return_dict=False)[0]
    print(f"{spacing:>9}: starts at t = {scheduler_steps(scheduler, num_steps)[0]}, mean brightness {float(x.mean()):.3f}")
    return 2 * x - 1  # it gives pixels from 0 to 1


plots.image_grid(torch.cat([by_their_pipeline(spacing) for spacing in ("leading", "trailing")]), columns=10,
                 rows=["leading", "trailing"])

# %% [markdown]
# **See it move: yours and theirs.** The panel leads points to the ring by any solver that is written as `walk(denoise, x,
# num_steps, *, callback)`: two of yours on your own steps, and a scheduler of theirs. Grey is where the points should be
# at that moment.

# %% tags=["demonstration"]
def yours(solve, spacing: str = "log-snr"):
    """Your solver, from pure noise to clean data."""
    def walk(denoise, x, num_steps, *, callback):
        return solve(denoise, x, levels_at(schedule, create_timesteps(schedule, num_steps, spacing)), callback=callback)
    return walk


theirs = make_scheduler("UniPCMultistepScheduler", schedule, timestep_spacing="trailing")
explore.solvers({"DDIM": yours(solve_ddim), "UniPC": yours(solve_unipc),
                 "diffusers' UniPC": partial(solve_with_scheduler, theirs, schedule)})

# %% [markdown]
# **Think.** The two UniPC are the same formula, as the table above shows. Why does one of them do so much worse in 8
# steps? (Drag *time* through its last step; and mind what chance alone makes of the distances.) How many steps does theirs need to be as
# near to the truth as yours in 8? And which spacing must yours have to end where theirs does? A panel in a cell of your own tells.
#
# **Bad input.** Four points ask that your functions refuse nonsense with a `ValueError` of one clear sentence: levels
# that come twice or in disorder, an order above the number of steps, a log-SNR that the model has never seen, NaN on
# the way. Each docstring's *Raises* says which.

# %% question="solver-bad-input"
check("solver-bad-input", solve_ddim, measured_order, solve_heun, solve_dpm1, solve_dpmpp_2m, unipc_weights, unipc_step,
      solve_unipc, create_timesteps, adaptive_levels, stop_when_settled, solve_hybrid, library_timesteps)

# %% [markdown] question="solver-code-quality" optional=true
# **Code quality** (2 points). Your functions are read by a person. Nothing to write is needed; if you are proud of a
# piece of code, or know a weakness of it, say so here.

# %% [markdown] instructor=true
# **Rubric for `solver-code-quality`** (2 points)
#
# - *1 point*: the code reads like the formulas: names from the notation, phases of a step in the order of the text, no
#   left-overs of debugging.
# - *1 point*: no call of the network too many, plain numbers as coefficients, nothing of the input changed in place.

# %% [markdown]
# ---
# # Hand in
#
# 1. *Kernel → Restart Kernel and Run All Cells*: what counts is what the notebook does from a fresh start.
# 2. Look at the points under each check once more, and fill in your names at the top and your analysis in Part 5.
# 3. Save the notebook. Then, in a cell of your own, `from diffusionlab.handin import hand_in; hand_in()`; or, in a terminal in the
#    course's folder, `make handin` (on Windows `.venv\Scripts\python -m diffusionlab.handin`). It writes one file and prints a
#    receipt. Upload the file and keep the receipt.
#
# **What comes next.** No solver gets below a handful of calls: somewhere between ten and one the path bends too much
# for any formula that looks at it a few times. Going on means training again, so that the network itself takes longer
# steps.
#
# ---
# *Sources.* Song, Meng, Ermon 2021, "Denoising Diffusion Implicit Models" · Song et al. 2021, "Score-Based Generative
# Modeling through Stochastic Differential Equations" · Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space
# of Diffusion-Based Generative Models" · Lu et al. 2022, "DPM-Solver" and "DPM-Solver++" · Zhao et al. 2023, "UniPC" ·
# Lin, Liu, Li, Yang 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed"
