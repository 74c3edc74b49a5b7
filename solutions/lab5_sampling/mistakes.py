"""Typical mistakes of Lab 5: each a variant of one reference method, what the student sees, and a hint.

The first entry that explains everything that was seen is the one named. A mutant that equals the reference on all valid
input is no mistake and is not listed: the opposite sign of noise that is drawn, not given; a clamp at 0 of what is never
negative; noise at t = 0 with a factor of 0.
"""

import dataclasses
import time

import torch

from diffusionlab.schedule import coefficient
from solutions.questions import Catalogue

from . import (DDIMSampler, DDPMSampler, ForwardProcessImpl, SamplingOptimizer, StochasticityController,
               TrainedModelAnalyzer,
               benchmark_samplers as right_benchmark, sample_diversity as right_diversity)

MISTAKES = Catalogue()
randn = torch.randn


def variant(base: type, method: str, function) -> type:
    """A subclass of a reference class with one method replaced."""
    return type(base.__name__, (base,), {method: function})


# ------------------------------------------------------------------------------ one formula of x, eps and table entries at t

FORMULAS = {
    "forward-add-noise": (ForwardProcessImpl, "add_noise", lambda x, eps, a, A: A**0.5 * x + (1 - A) ** 0.5 * eps),
    "ddpm-posterior-mean": (DDPMSampler, "compute_posterior_mean",
                            lambda x, eps, a, A: (x - (1 - a) / (1 - A) ** 0.5 * eps) / a**0.5),
    "ddim-predict-x0": (DDIMSampler, "predict_x0_from_eps", lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / A**0.5),
}


def formula(question, id, symptom, hint, wrong=None, *, look_up=coefficient, cast=lambda result, x: result.to(x.dtype)):
    """Register a mistake in the formula itself, in how the table is read, or in what becomes of the result."""
    base, method, right = FORMULAS[question]

    def compute(self, x, *rest):
        eps, t = rest if base is DDIMSampler else (rest[1] if len(rest) > 1 else torch.randn_like(x), rest[0])
        a, A = (look_up(table, t, x) for table in (self.schedule.alphas, self.schedule.alphas_cumprod))
        return cast((wrong or right)(x, eps, a, A), x)

    MISTAKES.mistake(question, id, symptom, hint)(variant(base, method, compute))


def at(offset):
    """Read the table some rows off, without leaving it."""
    return lambda table, t, x: coefficient(table, (torch.as_tensor(t) + offset).clamp(0, len(table) - 1).expand(len(x)), x)


# What goes wrong in the same way in all three.
for question, (base, method, right) in FORMULAS.items():
    short = {"add_noise": "noise", "compute_posterior_mean": "mean", "predict_x0_from_eps": "x0"}[method]
    formula(question, f"{short}-not-reshaped",
            "Your coefficients of shape [B] are lined up with the width of the image, not with the batch.",
            "Reshape them to [B, 1, ..., 1].", look_up=lambda table, t, x: table[t])
    formula(question, f"{short}-first-t-for-all", "Every sample gets the coefficients of the first sample's timestep.",
            "A LongTensor t holds a timestep for each sample.",
            look_up=lambda table, t, x: float(table[t] if isinstance(t, int) else table[t[0]]))
    formula(question, f"{short}-only-whole-batch",
            "A LongTensor t raises an error: your code makes one Python number of it.",
            "Index the table with the tensor itself.", look_up=lambda table, t, x: float(table[t]))
    formula(question, f"{short}-only-four-axes",
            "It works for images [B, C, H, W] alone: your coefficients always have four axes.",
            "Points and signals have fewer. Take the number of ones from `x.ndim`.",
            look_up=lambda table, t, x: table[t] if isinstance(t, int) else table[t].reshape(-1, 1, 1, 1))
    formula(question, f"{short}-dtype", "Your result is float64 whatever the input was.",
            "The tables are float64; cast back to the dtype of the input at the end.",
            cast=lambda result, x: result.double())
    formula(question, f"{short}-float32-always", "Your result is float32, even for float64 input.",
            "Cast to the dtype of the input, not to a fixed one.", cast=lambda result, x: result.float())
    formula(question, f"{short}-in-place", "You write the result into the tensor that was passed in.",
            "Whoever called you still needs it: `+=`, `mul_` and the like change it.",
            cast=lambda result, x: x.copy_(result))
    formula(question, f"{short}-next-row", "Your coefficients are those of t + 1.",
            "Row t of the table belongs to timestep t: no + 1.", look_up=at(1))
    formula(question, f"{short}-previous-row", "Your coefficients are those of t - 1.",
            "Row t of the table belongs to timestep t: no - 1.", look_up=at(-1))
    if short != "x0":  # its question does not ask at t = 0
        formula(question, f"{short}-previous-row-wraps", "Your coefficients are those of t - 1, and at t = 0 those of the table's last row.",
                "Row t of the table belongs to timestep t: no - 1.",
                look_up=lambda table, t, x: coefficient(table, (torch.as_tensor(t) - 1).expand(len(x)) % len(table), x))
    formula(question, f"{short}-clipped", "Your result is clipped to [-1, 1].",
            "The formula has no clamp; values beyond are meant to be kept.",
            cast=lambda result, x: result.clamp(-1, 1).to(x.dtype))

# ---------------------------------------------------------------------------------------------- forward-add-noise

for id, symptom, hint, wrong in [
    ("noise-swapped", "Image and noise have each other's coefficients.",
     "At t = 0 nearly everything is image: which factor is near 1?",
     lambda x, eps, a, A: (1 - A) ** 0.5 * x + A**0.5 * eps),
    ("noise-signal-no-root", "The image is multiplied by A_t.", "The factor is a root: A_t is the signal's variance.",
     lambda x, eps, a, A: A * x + (1 - A) ** 0.5 * eps),
    ("noise-no-root", "The noise is multiplied by 1 - A_t.", "That is its variance; the factor is the standard deviation.",
     lambda x, eps, a, A: A**0.5 * x + (1 - A) * eps),
    ("noise-no-roots", "Neither factor has its square root.",
     "A_t and 1 - A_t are variances; noise is scaled by standard deviations.",
     lambda x, eps, a, A: A * x + (1 - A) * eps),
    ("noise-alpha-for-alpha-bar", "You use alpha_t, the noise of a single step.",
     "The jump from clean data to t takes their product, alphas_cumprod.",
     lambda x, eps, a, A: a**0.5 * x + (1 - a) ** 0.5 * eps),
    ("noise-beta-under-root", "The image's factor is right, the noise's is sqrt(beta_t).",
     "All steps up to t added noise: 1 - A_t.",
     lambda x, eps, a, A: A**0.5 * x + (1 - a) ** 0.5 * eps),
    ("noise-minus", "The noise is subtracted.", "x_t is a sum of image and noise.",
     lambda x, eps, a, A: A**0.5 * x - (1 - A) ** 0.5 * eps),
    ("noise-root-before-minus", "The noise's factor is 1 - sqrt(A_t).", "First 1 - A_t, then the root.",
     lambda x, eps, a, A: A**0.5 * x + (1 - A**0.5) * eps),
    ("noise-signal-kept", "The image keeps its full strength.", "It fades by sqrt(A_t), so that the variance stays bounded.",
     lambda x, eps, a, A: x + (1 - A) ** 0.5 * eps),
    ("noise-at-full", "The noise has full strength at every t.", "Its factor is sqrt(1 - A_t).",
     lambda x, eps, a, A: A**0.5 * x + eps),
    ("noise-none", "No noise arrives in the result.", "x_t is a sum of two terms.",
     lambda x, eps, a, A: A**0.5 * x + 0 * eps),
]:
    formula("forward-add-noise", id, symptom, hint, wrong)

@MISTAKES.mistake("forward-add-noise", "noise-cumprod-of-beta", "Your A_t is the cumulative product of the betas.",
                  "It is that of the alphas, 1 - beta.")
class _(ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        wrong = dataclasses.replace(self.schedule, alphas_cumprod=self.schedule.betas.cumprod(0))
        return ForwardProcessImpl(wrong).add_noise(x_start, t, noise)


@MISTAKES.mistake("forward-add-noise", "noise-ignored", "The noise that is passed in is not used; you draw your own.",
                  "Draw only where `noise` is None.")
class _(ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        return super().add_noise(x_start, t)


@MISTAKES.mistake("forward-add-noise", "noise-uniform", "The noise you draw lies between 0 and 1.",
                  "`torch.rand` is uniform; the noise is standard normal, `torch.randn`.")
class _(ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        return super().add_noise(x_start, t, torch.rand_like(x_start) if noise is None else noise)


@MISTAKES.mistake("forward-add-noise", "noise-one-for-the-batch", "All samples of the batch get the same noise.",
                  "Draw it with the shape of the whole batch.")
class _(ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        return super().add_noise(x_start, t, torch.randn_like(x_start[:1]).expand_as(x_start) if noise is None else noise)


@MISTAKES.mistake("forward-add-noise", "noise-must-be-given", "Without `noise` an error is raised.",
                  "None means: draw it yourself.")
class _(ForwardProcessImpl):
    def add_noise(self, x_start, t, noise=None):
        return super().add_noise(x_start, t, noise.clone())


@MISTAKES.mistake("forward-add-noise", "trajectory-fresh-noise", "Your trajectory draws new noise at every timestep.",
                  "Draw once before the loop and pass it in each time.")
class _(ForwardProcessImpl):
    def demonstrate_forward_trajectory(self, x_start, timesteps):
        return torch.stack([self.add_noise(x_start, t) for t in timesteps])


@MISTAKES.mistake("forward-add-noise", "trajectory-piles-up", "Your trajectory adds noise to what is already noisy.",
                  "Each entry is a jump from the clean image.")
class _(ForwardProcessImpl):
    def demonstrate_forward_trajectory(self, x_start, timesteps):
        noise, x, stages = torch.randn_like(x_start), x_start, []
        for t in timesteps:
            x = self.add_noise(x, t, noise)
            stages.append(x)
        return torch.stack(stages)


@MISTAKES.mistake("forward-add-noise", "trajectory-reversed", "Your trajectory runs backwards.",
                  "Keep the order of `timesteps`.")
class _(ForwardProcessImpl):
    def demonstrate_forward_trajectory(self, x_start, timesteps):
        return super().demonstrate_forward_trajectory(x_start, timesteps).flip(0)


@MISTAKES.mistake("forward-add-noise", "trajectory-sorted", "Your trajectory sorts the timesteps.",
                  "Row k belongs to timesteps[k], in whatever order they come.")
class _(ForwardProcessImpl):
    def demonstrate_forward_trajectory(self, x_start, timesteps):
        return super().demonstrate_forward_trajectory(x_start, sorted(timesteps))


@MISTAKES.mistake("forward-add-noise", "trajectory-batch-first", "Your trajectory is [B, K, ...].",
                  "The timesteps come first: [K, B, ...].")
class _(ForwardProcessImpl):
    def demonstrate_forward_trajectory(self, x_start, timesteps):
        return super().demonstrate_forward_trajectory(x_start, timesteps).transpose(0, 1)


# ---------------------------------------------------------------------------------------------- ddpm-posterior-mean

for id, symptom, hint, wrong in [
    ("mean-alpha-bar-outside", "You divide by sqrt(A_t).", "One step undoes one step: the divisor outside is sqrt(a_t).",
     lambda x, eps, a, A: (x - (1 - a) / (1 - A) ** 0.5 * eps) / A**0.5),
    ("mean-alpha-under-root", "You divide the noise by sqrt(1 - a_t).",
     "x_t holds the noise of all steps so far: sqrt(1 - A_t).",
     lambda x, eps, a, A: (x - (1 - a) / (1 - a) ** 0.5 * eps) / a**0.5),
    ("mean-no-inner-root", "You divide the noise by 1 - A_t.", "That is a variance; the formula has its root.",
     lambda x, eps, a, A: (x - (1 - a) / (1 - A) * eps) / a**0.5),
    ("mean-of-clipped-x0", "Your mean comes from an x_0 that is clipped to [-1, 1].",
     "Many repositories do that; the formula here has no clamp.",
     lambda x, eps, a, A: ((A / a) ** 0.5 * (1 - a) * ((x - (1 - A) ** 0.5 * eps) / A**0.5).clamp(-1, 1)
                           + a**0.5 * (1 - A / a) * x) / (1 - A)),
    ("mean-no-outer-root", "You divide by a_t.", "The divisor outside is sqrt(a_t).",
     lambda x, eps, a, A: (x - (1 - a) / (1 - A) ** 0.5 * eps) / a),
    ("mean-root-of-beta", "The noise's numerator is sqrt(beta_t).", "It is beta_t = 1 - a_t itself.",
     lambda x, eps, a, A: (x - (1 - a) ** 0.5 / (1 - A) ** 0.5 * eps) / a**0.5),
    ("mean-beta-alone", "You take away beta_t eps.", "The noise's factor has a denominator, sqrt(1 - A_t).",
     lambda x, eps, a, A: (x - (1 - a) * eps) / a**0.5),
    ("mean-plus", "You add the predicted noise.", "Denoising takes it away.",
     lambda x, eps, a, A: (x + (1 - a) / (1 - A) ** 0.5 * eps) / a**0.5),
    ("mean-all-noise-removed", "You remove all the noise at once, sqrt(1 - A_t) eps.",
     "One step removes its own share: (1 - a_t) / sqrt(1 - A_t).",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / a**0.5),
    ("mean-times-root", "You multiply by sqrt(a_t).", "The forward step shrank x by it; the way back divides.",
     lambda x, eps, a, A: (x - (1 - a) / (1 - A) ** 0.5 * eps) * a**0.5),
    ("mean-not-divided", "The division by sqrt(a_t) is missing.", "The forward step shrank x by that factor.",
     lambda x, eps, a, A: x - (1 - a) / (1 - A) ** 0.5 * eps),
    ("mean-parenthesis", "Only x_t is divided by sqrt(a_t).", "The whole difference is: mind the parentheses.",
     lambda x, eps, a, A: x / a**0.5 - (1 - a) / (1 - A) ** 0.5 * eps),
    ("mean-is-x0", "You return the estimate of x_0.", "The mean of x_{t-1} lies one small step from x_t.",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / A**0.5),
    ("mean-roles-swapped", "alphas and alphas_cumprod have changed places throughout.",
     "a_t belongs to one step, A_t to all steps up to t.",
     lambda x, eps, a, A: (x - (1 - A) / (1 - a) ** 0.5 * eps) / A**0.5),
    ("mean-no-one-minus", "The inner root is over A_t.", "It is over 1 - A_t, the variance of the noise in x_t.",
     lambda x, eps, a, A: (x - (1 - a) / A**0.5 * eps) / a**0.5),
    ("mean-alpha-numerator", "The noise's numerator is a_t.", "It is 1 - a_t, the share of one step.",
     lambda x, eps, a, A: (x - a / (1 - A) ** 0.5 * eps) / a**0.5),
    ("mean-no-noise-term", "The predicted noise is not used.", "Without it nothing is denoised.",
     lambda x, eps, a, A: x / a**0.5 + 0 * eps),
    ("mean-fraction-inverted", "The noise's fraction is upside down.", "(1 - a_t) is above, sqrt(1 - A_t) below.",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 / (1 - a) * eps) / a**0.5),
    ("mean-previous-alpha-bar", "The inner root is over 1 - A_{t-1}.",
     "x_t, not x_{t-1}, is what holds the predicted noise.",
     lambda x, eps, a, A: (x - (1 - a) / (1 - A / a) ** 0.5 * eps) / a**0.5),
]:
    formula("ddpm-posterior-mean", id, symptom, hint, wrong)


# ---------------------------------------------------------------------------------------------- ddpm-posterior-variance


def variance(id, symptom, hint, wrong, previous=lambda A, t: torch.where(t > 0, A[t - 1], 1.0)):
    """Register a mistake in the formula of b = beta_t, A = A_t and P = A_{t-1}, or in how A_{t-1} is read."""
    def compute_posterior_variance(self, t):
        t, A = torch.as_tensor(t), self.schedule.alphas_cumprod
        return wrong(self.schedule.betas[t], A[t], previous(A, t))
    MISTAKES.mistake("ddpm-posterior-variance", id, symptom, hint)(
        variant(DDPMSampler, "compute_posterior_variance", compute_posterior_variance))


def right_variance(b, A, P):
    return b * (1 - P) / (1 - A)


for id, symptom, hint, wrong in [
    ("beta-for-variance", "Your variance is beta_t.",
     "The posterior's is smaller by (1 - A_{t-1}) / (1 - A_t): knowing x_0 narrows it.", lambda b, A, P: b + 0 * A),
    ("variance-is-std", "You return the standard deviation.", "The variance is its square; the root is taken in the step.",
     lambda b, A, P: right_variance(b, A, P) ** 0.5),
    ("variance-inverted", "The fraction is upside down: your variance exceeds beta_t.",
     "1 - A_{t-1} is the smaller one and stands above.",
     lambda b, A, P: b * (1 - A) / (1 - P)),
    ("variance-no-one-minus", "You use A_{t-1} / A_t.", "Both stand for noise here: 1 - A.", lambda b, A, P: b * P / A),
    ("variance-no-beta", "The factor beta_t is missing.", "(1 - A_{t-1}) / (1 - A_t) alone is a share, not a variance.",
     lambda b, A, P: (1 - P) / (1 - A)),
    ("variance-alpha-for-beta", "You multiply by alpha_t.", "The formula has beta_t = 1 - alpha_t.",
     lambda b, A, P: (1 - b) * (1 - P) / (1 - A)),
    ("variance-beta-squared", "beta_t is squared.", "beta_t is a variance already.",
     lambda b, A, P: b**2 * (1 - P) / (1 - A)),
    ("variance-root-of-beta", "You use sqrt(beta_t).", "beta_t is a variance already; no root.",
     lambda b, A, P: b**0.5 * (1 - P) / (1 - A)),
    ("variance-root-of-share", "The share (1 - A_{t-1}) / (1 - A_t) is under a root.", "That is for the standard deviation.",
     lambda b, A, P: b * ((1 - P) / (1 - A)) ** 0.5),
    ("variance-no-denominator", "The division by 1 - A_t is missing.", "The share is a quotient of two amounts of noise.",
     lambda b, A, P: b * (1 - P)),
    ("variance-log", "You return a logarithm.",
     "Some code bases store log-variances; here the variance itself is asked for.",
     lambda b, A, P: right_variance(b, A, P).clamp(min=1e-20).log()),
    ("variance-floor", "At t = 0 your variance is tiny, but not 0.",
     "A floor serves a logarithm. Here the last step adds nothing.",
     lambda b, A, P: right_variance(b, A, P).clamp(min=1e-20)),
    ("variance-beta-at-zero", "At t = 0 your variance is beta_0.",
     "Before the first noise stands clean data, with A_{-1} = 1.",
     lambda b, A, P: torch.where(P == 1, b, right_variance(b, A, P))),
    ("variance-float32", "Your variance is float32.", "Keep the float64 of the tables.",
     lambda b, A, P: right_variance(b, A, P).float()),
    ("variance-extra-axis", "A single t gives a tensor of shape [1].",
     "An int gives a 0-d tensor, a LongTensor [B] gives [B].",
     lambda b, A, P: right_variance(b, A, P).reshape(-1)),
    ("variance-four-axes", "Your variances have shape [B, 1, 1, 1].", "One plain number for each timestep: [B].",
     lambda b, A, P: right_variance(b, A, P).reshape(-1, 1, 1, 1) if b.ndim else right_variance(b, A, P)),
    ("variance-first-only", "You return one value for a whole LongTensor.", "One for each timestep.",
     lambda b, A, P: right_variance(b, A, P).reshape(-1)[0]),
    ("variance-mean-of-all", "You average over the timesteps.", "One value for each timestep.",
     lambda b, A, P: right_variance(b, A, P).mean()),
]:
    variance(id, symptom, hint, wrong)

variance("variance-wraps", "At t = 0 your A_{t-1} is the *last* row of the table.",
         "Index -1 wraps around; clean data has A_{-1} = 1.", right_variance,
         lambda A, t: A[t - 1])
variance("variance-next", "You take A_{t+1} for A_{t-1}.", "The previous timestep is the less noisy one.", right_variance,
         lambda A, t: A[(t + 1).clamp(max=len(A) - 1)])
variance("variance-two-back", "You take A_{t-2} for A_{t-1}.", "One row back, not two.", right_variance,
         lambda A, t: torch.where(t > 1, A[t - 2], 1.0))
variance("variance-zero-previous", "At t = 0 you set A_{-1} to 0.", "0 means all noise. Clean data has A_{-1} = 1.",
         right_variance,
         lambda A, t: torch.where(t > 0, A[t - 1], 0.0))


@MISTAKES.mistake("ddpm-posterior-variance", "variance-alpha-for-alpha-bar", "You use alpha_t and alpha_{t-1}, the signal kept by single steps.",
                  "The share is of all the noise so far: A, from `alphas_cumprod`.")
class _(DDPMSampler):
    def compute_posterior_variance(self, t):
        t, a = torch.as_tensor(t), self.schedule.alphas
        return right_variance(self.schedule.betas[t], a[t], torch.where(t > 0, a[t - 1], 1.0))


@MISTAKES.mistake("ddpm-posterior-variance", "variance-only-ints", "A LongTensor of timesteps raises an error.",
                  "`if t > 0` needs one truth value; choose elementwise, with `torch.where`.")
class _(DDPMSampler):
    def compute_posterior_variance(self, t):
        return super().compute_posterior_variance(t) if t > 0 else torch.zeros((), dtype=torch.float64)


@MISTAKES.mistake("ddpm-posterior-variance", "variance-any-zero", "One t = 0 in the batch makes every variance 0.",
                  "Decide for each element, with `torch.where`.")
class _(DDPMSampler):
    def compute_posterior_variance(self, t):
        return super().compute_posterior_variance(t) * bool((torch.as_tensor(t) > 0).all())

# ---------------------------------------------------------------------------------------------- ddim-predict-x0

for id, symptom, hint, wrong in [
    ("x0-no-noise-root", "You subtract (1 - A_t) eps.", "That is a variance; the noise in x_t has the factor sqrt(1 - A_t).",
     lambda x, eps, a, A: (x - (1 - A) * eps) / A**0.5),
    ("x0-no-signal-root", "You divide by A_t.", "The image in x_t has the factor sqrt(A_t).",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / A),
    ("x0-no-roots", "Neither factor has its square root.", "A_t and 1 - A_t are variances.",
     lambda x, eps, a, A: (x - (1 - A) * eps) / A),
    ("x0-plus", "You add the noise.", "x_t holds it already; take it away.",
     lambda x, eps, a, A: (x + (1 - A) ** 0.5 * eps) / A**0.5),
    ("x0-swapped", "The two coefficients have changed places.", "The noise's is sqrt(1 - A_t), the image's sqrt(A_t).",
     lambda x, eps, a, A: (x - A**0.5 * eps) / (1 - A) ** 0.5),
    ("x0-alpha-for-alpha-bar", "You use alpha_t, of a single step.",
     "The way back to clean data undoes all steps: alphas_cumprod.",
     lambda x, eps, a, A: (x - (1 - a) ** 0.5 * eps) / a**0.5),
    ("x0-beta-under-root", "You subtract sqrt(beta_t) eps.", "x_t holds the noise of all steps so far, sqrt(1 - A_t).",
     lambda x, eps, a, A: (x - (1 - a) ** 0.5 * eps) / A**0.5),
    ("x0-alpha-outside", "You divide by sqrt(alpha_t).", "The image faded in all steps so far: sqrt(A_t).",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / a**0.5),
    ("x0-times-root", "You multiply by sqrt(A_t).", "Going forward multiplied; going back divides.",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) * A**0.5),
    ("x0-not-divided", "The division by sqrt(A_t) is missing.", "Without it the image stays as faded as it is in x_t.",
     lambda x, eps, a, A: x - (1 - A) ** 0.5 * eps),
    ("x0-parenthesis", "Only x_t is divided by sqrt(A_t).", "The whole difference is: mind the parentheses.",
     lambda x, eps, a, A: x / A**0.5 - (1 - A) ** 0.5 * eps),
    ("x0-noise-only-divided", "Only the noise is divided by sqrt(A_t).", "The whole difference is: mind the parentheses.",
     lambda x, eps, a, A: x - (1 - A) ** 0.5 * eps / A**0.5),
    ("x0-root-before-minus", "You subtract (1 - sqrt(A_t)) eps.", "First 1 - A_t, then the root.",
     lambda x, eps, a, A: (x - (1 - A**0.5) * eps) / A**0.5),
    ("x0-full-noise", "You subtract all of eps.", "It is scaled by sqrt(1 - A_t) in x_t.",
     lambda x, eps, a, A: (x - eps) / A**0.5),
    ("x0-no-noise-term", "The predicted noise is not used.", "Only without it would x_t be a faded image.",
     lambda x, eps, a, A: x / A**0.5 + 0 * eps),
    ("x0-guarded-root", "At high t your x_0 is too small.", "A floor under sqrt(A_t) bends the formula where A_t is small.",
     lambda x, eps, a, A: (x - (1 - A) ** 0.5 * eps) / torch.as_tensor(A).clamp(min=1e-3) ** 0.5),
]:
    formula("ddim-predict-x0", id, symptom, hint, wrong)

# ---------------------------------------------------------------------------------------------- steps of DDPM

ASK = {
    "one-t": ("The model gets a single t.", "It expects one for each sample, a LongTensor [B].",
              lambda model, x, t: model(x, torch.tensor([t]))),
    "previous": ("The model is asked at t - 1.", "x_t is noisy to level t, and that is what the network must be told.",
                 lambda model, x, t: model(x, torch.full((len(x),), max(t - 1, 0)))),
    "next": ("The model is asked at t + 1.", "x_t is noisy to level t, and that is what the network must be told.",
             lambda model, x, t: model(x, torch.full((len(x),), t + 1))),
    "twice": ("The model is called twice in one step.", "Keep its answer: the network is what takes the time.",
              lambda model, x, t: (model(x, torch.full((len(x),), t)), model(x, torch.full((len(x),), t)))[1]),
}


class Asked:
    """A model that is asked in another way than it should be."""

    def __init__(self, model, ask):
        self.model, self.ask = model, ask

    def __call__(self, x, t):
        return self.ask(self.model, x, int(t[0]))


def asked_wrongly(question, base, method, prefix, kinds):
    """Register the wrong ways of calling the model in one method."""
    def make(ask):
        def call_it(self, *args, **kwargs):
            wrong = base(None, self.schedule)
            wrong.model = Asked(self.model, ask)
            return getattr(wrong, method)(*args, **kwargs)
        return variant(base, method, call_it)
    for kind in kinds:
        symptom, hint, ask = ASK[kind]
        MISTAKES.mistake(question, f"{prefix}-asks-{kind}", symptom, hint)(make(ask))


def ddpm_step(id, symptom, hint, *, mean=lambda x, mean: mean, scale=lambda v, b, A: v**0.5, last=lambda t: t == 0,
              draw=lambda x, noise, generator: randn(x.shape, generator=generator,
                                                     dtype=x.dtype) if noise is None else noise):
    """Register a mistake in what becomes of the mean, in the noise's factor (v the posterior variance, b beta_t, A A_t), in
    where the noise ends, or in where it comes from."""
    @torch.no_grad()
    def step(self, x_t, t, *, noise=None, generator=None):
        eps = self.model(x_t, torch.full((len(x_t),), t))
        centre = mean(x_t, self.compute_posterior_mean(x_t, t, eps))
        if last(t):
            return centre
        v = float(self.compute_posterior_variance(t))
        b, A = float(self.schedule.betas[t]), float(self.schedule.alphas_cumprod[t])
        return (centre + scale(v, b, A) * draw(x_t, noise, generator)).to(x_t.dtype)
    MISTAKES.mistake("ddpm-step", id, symptom, hint)(variant(DDPMSampler, "ddpm_step", step))


ddpm_step("step-variance-times-noise", "The noise is multiplied by the variance.",
          "By its root: noise is scaled by a standard deviation.", scale=lambda v, b, A: v)
ddpm_step("step-beta", "The noise has variance beta_t.",
          "That is the larger choice; yours is the posterior variance, which you wrote above.",
          scale=lambda v, b, A: b**0.5)
ddpm_step("step-no-noise", "No noise is added.", "DDPM draws x_{t-1}; the mean alone is its centre.",
          scale=lambda v, b, A: 0.0)
ddpm_step("step-unit-noise", "The noise is added at full strength.",
          "Its standard deviation is the root of the posterior variance.", scale=lambda v, b, A: 1.0)
ddpm_step("step-noise-minus", "The noise that is passed in is subtracted.",
          "x_{t-1} is the mean *plus* the standard deviation times it.", scale=lambda v, b, A: -(v**0.5))
ddpm_step("step-noise-twice", "The noise is added twice.", "Once a step.", scale=lambda v, b, A: 2 * v**0.5)
ddpm_step("step-forward-noise", "The noise has the standard deviation sqrt(1 - A_t).",
          "That is all the noise in x_t; a step adds far less.", scale=lambda v, b, A: (1 - A) ** 0.5)
ddpm_step("step-exp-half", "The noise's factor is exp(v / 2).",
          "That belongs to a log-variance; yours is the variance itself.", scale=lambda v, b, A: 2.718281828 ** (v / 2))
ddpm_step("step-noise-at-the-end", "At t = 0 noise is added.", "The last step returns the mean: nothing lies below.",
          last=lambda t: False,
          scale=lambda v, b, A: (v or b) ** 0.5)
ddpm_step("step-stops-at-one", "At t = 1 no noise is added.",
          "Papers count from 1, tables from 0: only t = 0 is the last step.", last=lambda t: t <= 1)
ddpm_step("step-ignores-noise", "The noise that is passed in is not used.", "Draw only where `noise` is None.",
          draw=lambda x, noise, generator: randn(x.shape, generator=generator, dtype=x.dtype))
ddpm_step("step-one-noise", "All samples of the batch get the same noise.", "Draw it with the shape of the whole batch.",
          draw=lambda x, noise, generator: randn(1, *x.shape[1:], generator=generator) if noise is None else noise)
ddpm_step("step-uniform-noise", "The noise you draw is uniform.", "It is standard normal: `torch.randn`, not `torch.rand`.",
          draw=lambda x, noise, generator: torch.rand(x.shape, generator=generator) if noise is None else noise)
ddpm_step("step-no-generator", "The same seed gives different noise: the generator is not used.",
          "Pass `generator` on to where you draw.",
          draw=lambda x, noise, generator: randn(x.shape, dtype=x.dtype) if noise is None else noise)
ddpm_step("step-fixed-noise", "Your noise is the same at every call.",
          "No seed inside a step: it would repeat the same noise all the way.",
          draw=lambda x, noise, generator: randn(x.shape,
                                                 generator=torch.Generator().manual_seed(0)) if noise is None else noise)
ddpm_step("step-difference", "You return how far the step goes, not where it ends.", "x_{t-1} is the mean plus noise.",
          mean=lambda x, mean: mean - x)
ddpm_step("step-on-x", "The mean is added to x_t.", "The mean is already where x_{t-1} lies.", mean=lambda x, mean: x + mean)
ddpm_step("step-clipped", "The mean is clipped to [-1, 1].",
          "No clamp in the formula: x_{t-1} is noisy and may lie outside.", mean=lambda x, mean: mean.clamp(-1, 1))
ddpm_step("step-in-place", "You write into x_t, which was passed in.",
          "Make a new tensor; whoever called you still needs the old one.",
          mean=lambda x, mean: x.copy_(mean))
asked_wrongly("ddpm-step", DDPMSampler, "ddpm_step", "step", ["one-t", "previous", "next", "twice"])


@MISTAKES.mistake("ddpm-step", "step-dtype", "Your result is float64 whatever x_t was.", "Cast back to the dtype of x_t.")
class _(DDPMSampler):
    def ddpm_step(self, x_t, t, **kwargs):
        return super().ddpm_step(x_t, t, **kwargs).double()


@MISTAKES.mistake("ddpm-step", "step-gradients", "Gradients are recorded through the network.",
                  "Sampling needs none: `torch.no_grad()`, or memory grows with every step.")
class _(DDPMSampler):
    ddpm_step = DDPMSampler.ddpm_step.__wrapped__


@MISTAKES.mistake("ddpm-step", "step-previous-variance", "The noise has the variance of t - 1.",
                  "The posterior variance of step t has the index t.")
class _(DDPMSampler):
    def ddpm_step(self, x_t, t, **kwargs):
        class Shifted(DDPMSampler):
            def compute_posterior_variance(self, t):
                return super().compute_posterior_variance(max(t - 1, 0))
        return Shifted(self.model, self.schedule).ddpm_step(x_t, t, **kwargs)


# ---------------------------------------------------------------------------------------------- whole loops


def ddpm_sample(id, symptom, hint, *, steps=lambda T: range(T - 1, -1, -1), start=lambda x: x, before=lambda x: x,
                after=lambda x: x,
                step=lambda self, x, t, z, generator: self.ddpm_step(x, t, generator=generator),
                given=lambda x_T: x_T, finish=lambda x: x, stages=lambda x_T, later: [x_T, *later],
                generators=lambda generator: (generator, generator), keep=torch.clone):
    """Register a mistake in one part of the loop over all timesteps."""
    @torch.no_grad()
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        first, later = generators(generator)
        x_T = given(x_T)
        x_T = x = start(randn(*shape, generator=first) if x_T is None else x_T)
        z, trajectory = randn(*shape, generator=later), []
        for t in steps(self.schedule.num_timesteps):
            x = after(step(self, before(x), t, z, later))
            trajectory.append(keep(x))
        x = finish(x)
        return (x, torch.stack(stages(x_T, trajectory))) if return_trajectory else x
    MISTAKES.mistake("ddpm-sample", id, symptom, hint)(variant(DDPMSampler, "sample", sample))


ddpm_sample("loop-ascending", "Your loop climbs from t = 0 to T - 1.", "Sampling goes from noise to data: t falls.",
            steps=lambda T: range(T))
ddpm_sample("loop-misses-zero", "Your loop ends at t = 1.", "`range` stops before its end; the last timestep is 0.",
            steps=lambda T: range(T - 1, 0, -1))
ddpm_sample("loop-starts-low", "Your loop begins at T - 2.", "x_T is noisy to level T - 1, the last row of the table.",
            steps=lambda T: range(T - 2, -1, -1))
ddpm_sample("loop-skips", "Your loop leaves out every other timestep.", "DDPM's step leads from t to t - 1 only.",
            steps=lambda T: range(T - 1, -1, -2))
ddpm_sample("loop-beyond-table", "Your loop asks for timesteps that the table does not have.",
            "They run over 0..T-1, and T is the schedule's `num_timesteps`, not always 1000.",
            steps=lambda T: range(T, 0, -1))
ddpm_sample("loop-once-more", "Your loop takes the step at t = 0 twice.", "T steps, each timestep once.",
            steps=lambda T: [*range(T - 1, -1, -1), 0])
ddpm_sample("loop-repeats-first", "Your loop takes the first step twice.", "T steps, each timestep once.",
            steps=lambda T: [T - 1, *range(T - 1, -1, -1)])
ddpm_sample("loop-from-zeros", "Your loop starts from zeros.", "It starts from noise, N(0, I).", start=torch.zeros_like)
ddpm_sample("loop-x_T-ignored", "The x_T that is passed in is not used.", "Draw only where x_T is None.",
            given=lambda x_T: None)
ddpm_sample("loop-x_T-rescaled", "The starting noise is scaled.", "x_T is N(0, I) as it is.", start=lambda x: 0.5 * x)
ddpm_sample("loop-same-noise", "The same noise is added at every step.",
            "Each step needs a fresh draw; let the step draw its own.",
            step=lambda self, x, t, z, generator: self.ddpm_step(x, t, noise=z))
ddpm_sample("loop-no-noise", "The steps add no noise.", "Pass nothing, and the step draws its own.",
            step=lambda self, x, t, z, generator: self.ddpm_step(x, t, noise=0 * z))
ddpm_sample("loop-noise-twice", "Noise is added a second time, after the step.",
            "The step adds all the noise there is to add.", after=lambda x: x + 0.1 * torch.randn_like(x))
ddpm_sample("loop-noise-at-end", "Noise is added to the finished sample.", "At t = 0 the mean is the sample.",
            finish=lambda x: x + 0.1 * randn(x.shape, generator=torch.Generator().manual_seed(1)))
ddpm_sample("loop-clipped", "Every step is clipped to [-1, 1].", "x_t is noisy and may lie outside; the loop has no clamp.",
            after=lambda x: x.clamp(-1, 1))
ddpm_sample("loop-clipped-end", "The finished sample is clipped to [-1, 1].", "Clip for the picture, not in the sampler.",
            finish=lambda x: x.clamp(-1, 1))
ddpm_sample("loop-no-seed-start", "The same seed gives other samples.",
            "The generator must reach every draw: x_T and each step.", generators=lambda generator: (None, generator))
ddpm_sample("loop-no-seed-steps", "The same seed gives other samples: the steps do not draw from the generator.",
            "Pass `generator` on to `ddpm_step`.", generators=lambda generator: (generator, None))
ddpm_sample("loop-one-sample", "All samples of the batch are alike.", "Draw x_T with the whole shape.",
            start=lambda x: x[:1].expand_as(x),
            step=lambda self, x, t, z, generator: self.ddpm_step(x, t, noise=z[:1].expand_as(z)))
ddpm_sample("trajectory-no-start", "The trajectory lacks x_T: it has T entries.", "T + 1 of them: the start and every step.",
            stages=lambda x_T, later: later)
ddpm_sample("trajectory-no-end", "The trajectory lacks the finished sample.", "Record after each step, the last one too.",
            stages=lambda x_T, later: [x_T, *later[:-1]])
ddpm_sample("trajectory-start-twice", "The trajectory begins with x_T twice and lacks the end.",
            "Record the outcome of each step, not what went in.",
            stages=lambda x_T, later: [x_T, x_T, *later[:-1]])
ddpm_sample("trajectory-from-data", "The trajectory runs from data to noise.", "x_T first, x last.",
            stages=lambda x_T, later: [x_T, *later][::-1])
ddpm_sample("trajectory-one-tensor", "Every entry of the trajectory is the finished sample.",
            "You keep one tensor and overwrite it; store a copy.",
            stages=lambda x_T, later: [later[-1]] * (len(later) + 1))


@MISTAKES.mistake("ddpm-sample", "loop-generator-for-start", "Where x_T is given, the steps do not draw from the generator.",
                  "`generator` is the source of every draw, not of x_T alone.")
class _(DDPMSampler):
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        return super().sample(shape, return_trajectory, x_T=x_T, generator=generator if x_T is None else None)


@MISTAKES.mistake("ddpm-sample", "loop-always-pairs", "You return a pair even where no trajectory is asked for.",
                  "Look at `return_trajectory`.")
class _(DDPMSampler):
    def sample(self, shape, return_trajectory=False, **kwargs):
        return super().sample(shape, True, **kwargs)


@MISTAKES.mistake("ddpm-sample", "loop-never-pairs", "You return no trajectory where one is asked for.",
                  "Look at `return_trajectory`.")
class _(DDPMSampler):
    def sample(self, shape, return_trajectory=False, **kwargs):
        return super().sample(shape, **kwargs)


@MISTAKES.mistake("ddpm-sample", "loop-training-mode", "The model is in training mode.",
                  "Dropout and the like would disturb the prediction: `model.eval()`.")
class _(DDPMSampler):
    def sample(self, *args, **kwargs):
        self.model.train()
        return super().sample(*args, **kwargs)


@MISTAKES.mistake("ddpm-sample", "loop-own-seed", "Without a generator, every call gives the same samples.",
                  "No generator means torch's global one: pass the None on, and make none with a seed of your own.")
class _(DDPMSampler):
    def sample(self, *args, generator=None, **kwargs):
        return super().sample(*args, generator=generator or torch.Generator().manual_seed(42), **kwargs)


@MISTAKES.mistake("ddpm-sample", "loop-in-place", "You write into the x_T that was passed in.", "Begin with a copy.")
class _(DDPMSampler):
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        result = super().sample(shape, return_trajectory, x_T=x_T, generator=generator)
        if x_T is not None:
            x_T.copy_(result[0] if return_trajectory else result)
        return result


# ---------------------------------------------------------------------------------------------- jumps of DDIM


def right_sigma2(eta, A_t, A_s):
    return eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)


def right_direction(A_t, A_s, v):
    return max(1 - A_s - v, 0) ** 0.5


def ddim_step(question, id, symptom, hint, *, table=lambda schedule: schedule.alphas_cumprod, read_s=lambda A, s, t: float(A[s]) if s >= 0 else 1.0, sigma2=right_sigma2,
              signal=lambda A_t, A_s: A_s**0.5, direction=right_direction, scale=lambda v, eta: v**0.5, x0=lambda x0, x: x0,
              default=0.0,
              finish=lambda result, x: result.to(x.dtype), draws=lambda v, eta: v > 0,
              draw=lambda x, noise, generator: randn(x.shape, generator=generator,
                                                     dtype=x.dtype) if noise is None else noise):
    """Register a mistake in one piece of the jump: A_s, sigma^2, the factors of x_0, eps and z, x_0 itself, or the noise."""
    @torch.no_grad()
    def step(self, x_t, t, s, eta=default, *, noise=None, generator=None):
        A = table(self.schedule)
        A_t, A_s = float(A[t]), read_s(A, s, t)
        v = sigma2(eta, A_t, A_s)
        eps = self.model(x_t, torch.full((len(x_t),), t))
        clean = x0(self.predict_x0_from_eps(x_t, eps, t), x_t)
        result = signal(A_t, A_s) * clean + direction(A_t, A_s, v) * eps
        if draws(v, eta):
            result = result + scale(v, eta) * draw(x_t, noise, generator)
        return finish(result, x_t)
    MISTAKES.mistake(question, id, symptom, hint)(variant(DDIMSampler, "ddim_step", step))


def jump(id, symptom, hint, **wrong):
    ddim_step("ddim-step-deterministic", id, symptom, hint, **wrong)


def eta_jump(id, symptom, hint, **wrong):
    ddim_step("ddim-step-eta", id, symptom, hint, **wrong)


@MISTAKES.mistake("ddim-step-eta", "eta-refused-above-one", "An eta above 1 is refused where its variance fits.",
                  "Refuse it where sigma^2 exceeds 1 - A_s; far from there it is noisier than DDPM, and legal.")
class _(DDIMSampler):
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        if eta > 1:
            raise ValueError(f"eta must be in [0, 1], not {eta}")
        return super().ddim_step(x_t, t, s, eta, noise=noise, generator=generator)


jump("jump-wraps", "At s = -1 your A_s is the *last* row of the table: pure noise.",
     "Index -1 wraps around; clean data has A = 1.", read_s=lambda A, s, t: float(A[s]))
jump("jump-zero-is-clean", "At s = 0 your A_s is 1, as if it were clean data.",
     "s = 0 is a timestep like others, with A_0 < 1; only s = -1 is clean.", read_s=lambda A, s, t: float(A[s]) if s > 0 else 1.0)
jump("jump-alpha-for-alpha-bar", "You use alpha_s, the signal kept by a single step.", "The jump takes the product, `alphas_cumprod`.",
     table=lambda schedule: schedule.alphas)
jump("jump-final-row", "At s = -1 your A_s is A_0.",
     "The last jump goes to clean data, where A = 1; A_0 leaves a little noise.", read_s=lambda A, s, t: float(A[max(s, 0)]))
jump("jump-zero-at-end", "At s = -1 your A_s is 0.", "0 means all noise; clean data has A = 1.",
     read_s=lambda A, s, t: float(A[s]) if s >= 0 else 0.0)
jump("jump-neighbour", "You go to t - 1 whatever s is.", "The step must reach any s below t: read A at s.",
     read_s=lambda A, s, t: float(A[t - 1]) if s >= 0 else 1.0)
jump("jump-fixed-stride", "You go to t - T // 50 whatever s is.", "The schedule decides; read A at s.",
     read_s=lambda A, s, t: float(A[t - 20]) if t >= 20 and s >= 0 else 1.0)
jump("jump-next-row", "Your A_s is that of s + 1.", "Row s of the table belongs to timestep s.",
     read_s=lambda A, s, t: float(A[s + 1]) if s >= 0 else 1.0)
jump("jump-row-below", "Your A_s is that of s - 1.", "Row s of the table belongs to timestep s.",
     read_s=lambda A, s, t: float(A[max(s - 1, 0)]) if s >= 0 else 1.0)
jump("jump-stays", "Your A_s is A_t: you go nowhere.", "The new noise level is that of s.",
     read_s=lambda A, s, t: float(A[t]))
jump("jump-signal-no-root", "x_0 is multiplied by A_s.", "Its factor is sqrt(A_s).", signal=lambda A_t, A_s: A_s)
jump("jump-signal-A_t", "x_0 is multiplied by sqrt(A_t).", "You make x_s: its coefficients are those of s.",
     signal=lambda A_t, A_s: A_t**0.5)
jump("jump-signal-ratio", "x_0 is multiplied by sqrt(A_s / A_t).",
     "That ratio carries x_t along; x_0 itself takes sqrt(A_s).", signal=lambda A_t, A_s: (A_s / A_t) ** 0.5)
jump("jump-signal-missing", "x_0 enters at full strength.", "Its factor is sqrt(A_s).", signal=lambda A_t, A_s: 1.0)
jump("jump-direction-A_t", "The predicted noise is multiplied by sqrt(1 - A_t).",
     "That is how much x_t held; x_s holds sqrt(1 - A_s).", direction=lambda A_t, A_s, v: (1 - A_t - min(v, 1 - A_t)) ** 0.5)
jump("jump-direction-no-root", "The predicted noise is multiplied by 1 - A_s.", "That is a variance; take its root.",
     direction=lambda A_t, A_s, v: 1 - A_s - v)
jump("jump-direction-missing", "No noise is left in x_s.",
     "The direction term, sqrt(1 - A_s) eps, takes x_0 back up to level s.", direction=lambda A_t, A_s, v: 0.0)
jump("jump-direction-minus", "The direction term is subtracted.", "x_s is a sum: image plus noise.",
     direction=lambda A_t, A_s, v: -right_direction(A_t, A_s, v))
jump("jump-direction-A_s", "The predicted noise is multiplied by sqrt(A_s).",
     "That is the image's factor; the noise's is sqrt(1 - A_s).", direction=lambda A_t, A_s, v: A_s**0.5)
jump("jump-direction-full", "The predicted noise enters at full strength.", "Its factor is sqrt(1 - A_s).",
     direction=lambda A_t, A_s, v: 1.0)
jump("jump-root-before-minus", "The predicted noise is multiplied by 1 - sqrt(A_s).", "First 1 - A_s, then the root.",
     direction=lambda A_t, A_s, v: 1 - A_s**0.5)
jump("jump-swapped", "Image and noise have each other's factors.", "Near clean data, s small, the image's is near 1.",
     signal=lambda A_t, A_s: (1 - A_s) ** 0.5, direction=lambda A_t, A_s, v: A_s**0.5)
jump("jump-clipped", "x_0 is clipped to [-1, 1], while eps still belongs to the unclipped one.",
     "The formula has no clamp; a clipped x_0 would need its eps computed anew.",
     x0=lambda x0, x: x0.clamp(-1, 1))
jump("jump-scaled-by-batch", "A sample depends on its neighbours in the batch.",
     "Nothing in the formula looks at other samples: no maximum or mean over the batch.",
     x0=lambda x0, x: x0 / x0.abs().max())
jump("jump-x-for-x0", "sqrt(A_s) multiplies x_t.", "It multiplies the estimate of x_0.", x0=lambda x0, x: x)
jump("jump-dtype", "Your result is float64 whatever x_t was.", "Cast back to the dtype of x_t.",
     finish=lambda result, x: result.double())
jump("jump-in-place", "You write into x_t, which was passed in.",
     "Make a new tensor; whoever called you still needs the old one.", finish=lambda result, x: x.copy_(result))
jump("jump-returns-pair", "You return more than x_s.", "One tensor is expected.", finish=lambda result, x: (result, result))
jump("jump-eta-one", "Without eta your step is stochastic.", "eta is 0 where nothing is said.", default=1.0)
jump("jump-noise-at-zero", "At eta = 0 noise that is passed in still changes the result.", "Its factor sigma is 0 then.",
     draws=lambda v, eta: True, scale=lambda v, eta: v**0.5 or 0.05,
     draw=lambda x, noise, generator: torch.zeros_like(x) if noise is None else noise)
asked_wrongly("ddim-step-deterministic", DDIMSampler, "ddim_step", "jump", ["one-t", "previous", "next", "twice"])


@MISTAKES.mistake("ddim-step-deterministic", "jump-asks-s", "The model is asked at s.",
                  "x_t is noisy to level t, and that is what the network must be told.")
class _(DDIMSampler):
    def ddim_step(self, x_t, t, s, *args, **kwargs):
        moved = DDIMSampler(Asked(self.model, lambda model, x, t: model(x, torch.full((len(x),), max(s, 0)))), self.schedule)
        return moved.ddim_step(x_t, t, s, *args, **kwargs)


@MISTAKES.mistake("ddim-step-deterministic", "jump-eps-of-x0", "The network is asked a second time, about x_0.",
                  "The direction term reuses the one prediction.")
class _(DDIMSampler):
    @torch.no_grad()
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        A_s = float(self.schedule.alphas_cumprod[s]) if s >= 0 else 1.0
        x0 = self.predict_x0_from_eps(x_t, self.model(x_t, torch.full((len(x_t),), t)), t)
        return A_s**0.5 * x0 + (1 - A_s) ** 0.5 * self.model(x0, torch.full((len(x_t),), max(s, 0)))


@MISTAKES.mistake("ddim-step-deterministic", "jump-gradients", "Gradients are recorded through the network.",
                  "Sampling needs none: `torch.no_grad()`, or memory grows with every step.")
class _(DDIMSampler):
    ddim_step = DDIMSampler.ddim_step.__wrapped__


eta_jump("eta-not-squared", "sigma^2 has eta in place of eta^2.", "Right at 0 and 1 only; try 0.5.",
         sigma2=lambda eta, A_t, A_s: right_sigma2(eta**0.5, A_t, A_s))
eta_jump("eta-to-the-fourth", "sigma^2 has eta^4.", "eta multiplies sigma once: sigma^2 has eta^2.",
         sigma2=lambda eta, A_t, A_s: right_sigma2(eta**2, A_t, A_s))
eta_jump("eta-ignored", "eta makes no difference: the jump stays deterministic.", "sigma grows with eta.",
         sigma2=lambda eta, A_t, A_s: 0.0)
eta_jump("eta-all-or-nothing", "Every eta above 0 acts like 1.", "eta is a dial, not a switch.",
         sigma2=lambda eta, A_t, A_s: right_sigma2(float(eta > 0), A_t, A_s))
eta_jump("sigma-squared-times-noise", "The noise is multiplied by sigma^2.", "By sigma, its standard deviation.",
         scale=lambda v, eta: v)
eta_jump("sigma-not-taken-out", "Fresh noise comes on top of the full direction term.",
         "Take sigma^2 out of it: sqrt(1 - A_s - sigma^2), or the noise of x_s grows.",
         direction=lambda A_t, A_s, v: (1 - A_s) ** 0.5)
eta_jump("sigma-as-direction", "The predicted noise is multiplied by sigma.",
         "That is the fresh noise's factor; the direction's is sqrt(1 - A_s - sigma^2).",
         direction=lambda A_t, A_s, v: v**0.5)
eta_jump("sigma-taken-out-of-A_t", "You take sigma^2 out of 1 - A_t.",
         "x_s holds 1 - A_s; a clamp would only hide the difference.",
         direction=lambda A_t, A_s, v: max(1 - A_t - v, 0) ** 0.5)
eta_jump("sigma-for-sigma-squared", "You take sigma out, not sigma^2.",
         "Variances add and subtract, standard deviations do not.",
         direction=lambda A_t, A_s, v: max(1 - A_s - v**0.5, 0) ** 0.5)
eta_jump("sigma-after-root", "You subtract sigma from sqrt(1 - A_s).", "Take sigma^2 away under the root.",
         direction=lambda A_t, A_s, v: (1 - A_s) ** 0.5 - v**0.5)
eta_jump("sigma-added", "You add sigma^2 under the direction's root.",
         "Fresh noise takes the place of predicted noise: subtract.", direction=lambda A_t, A_s, v: (1 - A_s + v) ** 0.5)
eta_jump("sigma-taken-out-twice", "You take sigma^2 out twice.", "Once is enough to keep the variance of x_s at 1 - A_s.",
         direction=lambda A_t, A_s, v: max(1 - A_s - 2 * v, 0) ** 0.5)
eta_jump("sigma-no-share", "sigma^2 lacks the factor (1 - A_s) / (1 - A_t).",
         "That factor makes it the posterior's variance; at s = -1 it is 0.",
         sigma2=lambda eta, A_t, A_s: eta**2 * (1 - A_t / A_s) * (A_s < 1))
eta_jump("sigma-no-beta", "sigma^2 lacks the factor 1 - A_t / A_s.", "It is the beta of the jump from s to t.",
         sigma2=lambda eta, A_t, A_s: min(eta**2 * (1 - A_s) / (1 - A_t), 1 - A_s))
eta_jump("sigma-share-inverted", "In sigma^2 the share (1 - A_s) / (1 - A_t) is upside down.",
         "It is below 1: s is less noisy than t.",
         sigma2=lambda eta, A_t, A_s: min(eta**2 * (1 - A_t) / max(1 - A_s, 1e-12) * (1 - A_t / A_s), 1 - A_s))
eta_jump("sigma-plain-difference", "sigma^2 has A_s - A_t in place of 1 - A_t / A_s.",
         "The beta of a jump is one minus a quotient.",
         sigma2=lambda eta, A_t, A_s: eta**2 * (1 - A_s) / (1 - A_t) * (A_s - A_t))
eta_jump("sigma-no-one-minus", "sigma^2 has A_s / A_t in place of (1 - A_s) / (1 - A_t).",
         "The share compares amounts of noise.",
         sigma2=lambda eta, A_t, A_s: min(eta**2 * A_s / A_t * (1 - A_t / A_s), 1 - A_s))
eta_jump("sigma-is-root", "sigma^2 is under a root once too often.",
         "sqrt of the formula is sigma; under the direction's root stands sigma^2.",
         sigma2=lambda eta, A_t, A_s: min(right_sigma2(eta, A_t, A_s) ** 0.5, 1 - A_s))
eta_jump("sigma-at-the-end", "The last jump, to s = -1, adds noise.", "Clean data holds none: with A_s = 1, sigma is 0.",
         sigma2=lambda eta, A_t, A_s: right_sigma2(eta, A_t, A_s) if A_s < 1 else eta**2 * (1 - A_t),
         direction=right_direction)
eta_jump("sigma-z-minus", "The noise that is passed in is subtracted.", "x_s is a sum: plus sigma z.",
         scale=lambda v, eta: -(v**0.5))
eta_jump("sigma-z-twice", "The noise is added twice.", "Once, times sigma.", scale=lambda v, eta: 2 * v**0.5)
eta_jump("sigma-z-times-eta", "The noise is multiplied by eta, not by sigma.", "eta is only the dial in sigma.",
         draws=lambda v, eta: eta > 0, scale=lambda v, eta: eta)
eta_jump("sigma-z-missing", "The predicted noise is cut down, but no fresh noise comes in its place.",
         "The third term is sigma z.", scale=lambda v, eta: 0.0)
eta_jump("sigma-ignores-noise", "The noise that is passed in is not used.", "Draw only where `noise` is None.",
         draw=lambda x, noise, generator: randn(x.shape, generator=generator))
eta_jump("sigma-one-noise", "All samples of the batch get the same noise.", "Draw it with the shape of the whole batch.",
         draw=lambda x, noise, generator: randn(1, *x.shape[1:], generator=generator) if noise is None else noise)
eta_jump("sigma-uniform-noise", "The noise you draw is uniform.", "It is standard normal: `torch.randn`, not `torch.rand`.",
         draw=lambda x, noise, generator: torch.rand(x.shape, generator=generator) if noise is None else noise)
eta_jump("sigma-no-generator", "The same seed gives different noise: the generator is not used.",
         "Pass `generator` on to where you draw.",
         draw=lambda x, noise, generator: torch.randn_like(x) if noise is None else noise)
eta_jump("sigma-fixed-noise", "Your noise is the same at every call.",
         "No seed inside a step: it would repeat the same noise all the way.",
         draw=lambda x, noise, generator: randn(x.shape,
                                                generator=torch.Generator().manual_seed(0)) if noise is None else noise)
@MISTAKES.mistake("ddim-step-eta", "sigma-noise-in-place", "You write into the noise that was passed in.",
                  "`noise *= sigma` changes what belongs to the caller.")
class _(DDIMSampler):
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        result = super().ddim_step(x_t, t, s, eta, noise=noise, generator=generator)
        if noise is not None:
            noise *= eta
        return result


eta_jump("sigma-floor", "Near clean data your noise is too strong.", "A floor under sigma^2 shows where sigma is small.",
         sigma2=lambda eta, A_t, A_s: min(max(right_sigma2(eta, A_t, A_s), 1e-3), 1 - A_s) if eta else 0.0)

# ---------------------------------------------------------------------------------------------- schedules


def schedule(id, symptom, hint, **kinds):
    """Register a wrong way of making one kind of schedule, given T and n; the other kinds stay right."""
    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        right = DDIMSampler.create_timestep_schedule(self, num_steps, schedule_type)
        wrong = kinds.get(schedule_type, kinds.get("every"))
        return wrong(self.schedule.num_timesteps, num_steps, right) if wrong else right
    MISTAKES.mistake("ddim-schedule", id, symptom,
                     hint)(variant(DDIMSampler, "create_timestep_schedule", create_timestep_schedule))


def linspace(start, end, n):
    return torch.linspace(start, end, n, dtype=torch.float64).round().long()


def powers(T, n, power):
    return torch.tensor([round((T - 1) * (i / max(n - 1, 1)) ** power) for i in range(n)])


def squares(T, n):
    return powers(T, n, 2)


def without_repeats(rising):
    return torch.maximum(torch.arange(len(rising)), rising)


for id, symptom, hint, kinds in [
    ("schedule-rising", "Your timesteps rise.", "Sampling goes from noise to data: they fall.",
     dict(every=lambda T, n, right: right.flip(0))),
    ("schedule-lists-end", "You list s = -1 as well.", "The final jump is implied: n timesteps, all in 0..T-1.",
     dict(every=lambda T, n, right: torch.cat([right, torch.tensor([-1])]))),
    ("schedule-floats", "Your timesteps are floating-point numbers.", "A LongTensor is expected: round, then `.long()`.",
     dict(every=lambda T, n, right: right.double())),
    ("schedule-always-fifty", "You always make 50 timesteps.", "num_steps says how many.",
     dict(every=lambda T, n, right: linspace(T - 1, 0, 50))),
    ("schedule-one-too-few", "You make n - 1 timesteps.", "n of them: a range leaves out its end.",
     dict(every=lambda T, n, right: right[:-1])),
    ("schedule-starts-at-T", "Your timesteps are too high by one, and begin at T.", "They run over 0..T-1.",
     dict(every=lambda T, n, right: right + 1)),
    ("schedule-starts-low", "Your first timestep is below T - 1.", "x_T is noise of level T - 1, the last row of the table.",
     dict(every=lambda T, n, right: torch.cat([right[:1] - 1, right[1:]]) if n < T else right)),
    ("schedule-one-step-at-zero", "A single step lies at t = 0.", "It must start where the noise is: at T - 1.",
     dict(every=lambda T, n, right: right if n > 1 else torch.tensor([0]))),
    ("schedule-type-ignored", "Every type gives the uniform schedule.", "`schedule_type` chooses between three.",
     dict(every=lambda T, n, right: linspace(T - 1, 0, n))),
    ("schedule-shuffled", "Your timesteps are in no order.", "Strictly falling.",
     dict(every=lambda T, n, right: torch.cat([right[::2], right[1::2]]))),
    ("uniform-n-plus-one", "Your uniform schedule drops its end: it does not reach t = 0.",
     "linspace with n + 1 points has n intervals; ask for n points.",
     dict(uniform=lambda T, n, right: linspace(T - 1, 0, n + 1)[:n])),
    ("uniform-and-zero", "Your uniform schedule has one entry too many.", "n points, not n intervals.",
     dict(uniform=lambda T, n, right: linspace(T - 1, 0, n + 1))),
    ("uniform-leading", "Your uniform schedule is counted up from 0 by T // n and never reaches T - 1.",
     "Both ends belong to it; let linspace do the division.",
     dict(uniform=lambda T, n, right: (torch.arange(n) * (T // n)).flip(0))),
    ("uniform-stride", "Your uniform schedule is counted down by T // n and does not end at 0.",
     "T // n forgets the remainder; let linspace do the division.",
     dict(uniform=lambda T, n, right: T - 1 - torch.arange(n) * (T // n))),
    ("uniform-range", "Your uniform schedule has the wrong number of entries where n does not divide T.",
     "A range with a whole stride forgets the remainder.",
     dict(uniform=lambda T, n, right: torch.arange(T - 1, -1, -(T // n)))),
    ("trailing-is-uniform", "Your trailing schedule is the uniform one.",
     "It is counted down from T by T/n, less 1, and its last entry is about T/n.",
     dict(trailing=lambda T, n, right: linspace(T - 1, 0, n))),
    ("trailing-not-minus-one", "Your trailing schedule begins at T.", "Subtract 1 after rounding: timesteps end at T - 1.",
     dict(trailing=lambda T, n, right: right + 1)),
    ("trailing-minus-two", "Your trailing schedule is too low by one.", "Subtract 1 once.",
     dict(trailing=lambda T, n, right: right - 1)),
    ("trailing-leading", "Your trailing schedule is counted up from 0.", "It is counted down from T.",
     dict(trailing=lambda T, n, right: right - right[-1])),
    ("trailing-stride", "Your trailing schedule steps by T // n and drifts off where n does not divide T.",
     "Multiply i by T / n, then round.", dict(trailing=lambda T, n, right: T - 1 - torch.arange(n) * (T // n))),
    ("trailing-range", "Your trailing schedule has the wrong number of entries where n does not divide T.",
     "n entries: compute each from its i.", dict(trailing=lambda T, n, right: torch.arange(T, 0, -(T // n)) - 1)),
    ("trailing-dense-high", "Your trailing schedule is dense at high t.",
     "It is evenly spaced; only its ends differ from uniform.",
     dict(trailing=lambda T, n, right: (T - 1 - squares(T, n)).clamp(min=0))),
    ("quadratic-reversed", "Your quadratic schedule is dense at high t.",
     "Square the rising fraction, then turn the list around.", dict(quadratic=lambda T, n, right: T - 1 - right.flip(0))),
    ("quadratic-from-T", "Your quadratic schedule is T (1 - (i/n)^2): it begins at T and is dense at high t.",
     "Square the rising fraction i / (n-1), times T - 1.",
     dict(quadratic=lambda T, n, right: torch.tensor([round(T * (1 - (i / n) ** 2)) for i in range(n)]))),
    ("quadratic-repeats", "Your quadratic schedule repeats timesteps near 0.",
     "Rounded squares coincide there: the i-th entry is at least i.",
     dict(quadratic=lambda T, n, right: squares(T, n).flip(0) if n > 1 else right)),
    ("quadratic-unique", "Your quadratic schedule has fewer than n entries.",
     "Dropping repeats loses steps: the i-th entry is at least i.",
     dict(quadratic=lambda T, n, right: squares(T, n).unique().flip(0) if n > 1 else right)),
    ("quadratic-tops-at-80", "Your quadratic schedule ends at 0.8 T.", "Sampling starts from pure noise, T - 1.",
     dict(quadratic=lambda T, n, right: (right * 0.8).round().long() if n < T else right)),
    ("quadratic-n", "Your quadratic schedule divides by n and does not reach T - 1.", "n points have n - 1 intervals.",
     dict(quadratic=lambda T, n, right: without_repeats(powers(T, n + 1, 2)[:n]).flip(0) if n > 1 else right)),
    ("quadratic-cubic", "Your quadratic schedule uses the third power.", "The second.",
     dict(quadratic=lambda T, n, right: without_repeats(powers(T, n, 3)).flip(0) if n > 1 else right)),
    ("quadratic-root", "Your quadratic schedule takes a root instead of a square.",
     "The square of the fraction is dense near 0.",
     dict(quadratic=lambda T, n, right: powers(T, n, 0.5).flip(0) if n > 1 else right)),
    ("quadratic-is-uniform", "Your quadratic schedule is the uniform one.", "Square the fraction.",
     dict(quadratic=lambda T, n, right: linspace(T - 1, 0, n))),
]:
    schedule(id, symptom, hint, **kinds)


def ddim_sample(id, symptom, hint, *, steps=lambda self, timesteps: timesteps, final=-1, start=lambda x: x,
                after=lambda x: x, default=0.0,
                step=lambda self, x, t, s, eta, z, generator, i: self.ddim_step(x, t, s, eta, generator=generator),
                finish=lambda x: x,
                pairs=lambda steps, final: list(zip(steps, [*steps[1:], final])), given=lambda x_T: x_T, some=50,
                stages=lambda x_T, later: [x_T, *later], generators=lambda generator: (generator, generator)):
    """Register a mistake in one part of the loop over a schedule."""
    @torch.no_grad()
    def sample(self, shape, timesteps=None, eta=default, return_trajectory=False, *, x_T=None, generator=None):
        first, later = generators(generator)
        timesteps = some if timesteps is None else steps(self, timesteps)
        timesteps = self.create_timestep_schedule(timesteps) if isinstance(timesteps, int) else timesteps
        x_T = given(x_T)
        x_T = x = start(randn(*shape, generator=first) if x_T is None else x_T)
        z, trajectory = randn(*shape, generator=later), []
        for i, (t, s) in enumerate(pairs([int(t) for t in timesteps], final)):
            x = after(step(self, x, t, s, eta, z, later, i))
            trajectory.append(x)
        x = finish(x)
        return (x, torch.stack(stages(x_T, trajectory))) if return_trajectory else x
    MISTAKES.mistake("ddim-sample", id, symptom, hint)(variant(DDIMSampler, "sample", sample))


@MISTAKES.mistake("ddim-sample", "sampling-generator-for-start", "Where x_T is given, the steps do not draw from the generator.",
                  "`generator` is the source of every draw, not of x_T alone.")
class _(DDIMSampler):
    def sample(self, shape, timesteps=50, eta=0.0, return_trajectory=False, *, x_T=None, generator=None):
        return super().sample(shape, timesteps, eta, return_trajectory, x_T=x_T, generator=generator if x_T is None else None)


def falls_by(stride):
    return lambda steps, final: [(t, max(t - stride(steps), -1)) for t in steps]


ddim_sample("sample-stops-early", "Your loop stops at the lowest timestep listed.",
            "One more jump, to s = -1, reaches clean data.", pairs=lambda steps, final: list(zip(steps, steps[1:])))
ddim_sample("sample-fixed-stride", "You go from t to t - T // n.",
            "Where n does not divide T, or the schedule is another, that is not its next entry: read s from the schedule.",
            pairs=falls_by(lambda steps: 1000 // len(steps)))
ddim_sample("sample-neighbours", "You go from each t to t - 1.", "The next timestep is the schedule's next entry.",
            pairs=falls_by(lambda steps: 1))
ddim_sample("sample-straight-down", "You go from each t straight to clean data.",
            "Each jump leads to the schedule's next entry.", pairs=falls_by(lambda steps: 1000))
ddim_sample("sample-index-to-model", "The loop's index takes the timestep's place.",
            "Index i counts the steps; the schedule's entry is the timestep.",
            pairs=lambda steps, final: [(i, i - 1) for i in reversed(range(len(steps)))])
ddim_sample("sample-misses-first", "Your loop leaves out the first timestep.",
            "Sampling starts at the schedule's first entry.",
            pairs=lambda steps, final: list(zip(steps, [*steps[1:], final]))[1:])
ddim_sample("sample-rising", "Your loop climbs through the schedule.", "From noise to data, in the order listed.",
            pairs=lambda steps, final: list(zip([*steps[:0:-1], steps[0]], [-1] * len(steps))))
ddim_sample("sample-list-ignored", "Of an explicit schedule only the length is used.",
            "A list or tensor holds the timesteps themselves.",
            steps=lambda self, timesteps: timesteps if isinstance(timesteps, int) else len(timesteps))
ddim_sample("sample-list-respaced", "Of an explicit schedule only the ends are used.", "Take each of its entries.",
            steps=lambda self, timesteps: timesteps if isinstance(timesteps, int) else linspace(int(timesteps[0]),
                                                                                                int(timesteps[-1]),
                                                                                                len(timesteps)))
ddim_sample("sample-list-from-T", "You put T - 1 before an explicit schedule.", "Take it as it is given.",
            steps=lambda self, timesteps: timesteps if isinstance(timesteps, int) else [999, *[int(t) for t in timesteps]])
ddim_sample("sample-no-lists", "An explicit schedule raises an error.",
            "timesteps may be None, a number, or the timesteps themselves.",
            steps=lambda self, timesteps: timesteps if isinstance(timesteps, int) else timesteps / 1)
ddim_sample("sample-no-tensors", "A tensor of timesteps raises an error.",
            "A list and a tensor are both explicit schedules.",
            steps=lambda self, timesteps: timesteps if isinstance(timesteps, (int, list)) else [*timesteps, None])
ddim_sample("sample-a-hundred", "Without timesteps you make 100 steps.", "50 uniform ones are asked for.", some=100)
ddim_sample("sample-all-thousand", "Without timesteps you make all T steps.", "50 uniform ones are asked for.", some=1000)
ddim_sample("sample-one-less", "You make one step fewer than asked for.",
            "n steps: n timesteps, the last one leading to s = -1.",
            steps=lambda self, timesteps: timesteps - 1 if isinstance(timesteps, int) else timesteps)
ddim_sample("sample-trailing", "You use another spacing than the uniform one.", "A number of steps means uniform ones.",
            steps=lambda self, timesteps: (self.create_timestep_schedule(timesteps, "trailing") if isinstance(timesteps, int)
                                           else timesteps))
ddim_sample("sample-from-zeros", "You start from zeros.", "From noise, N(0, I), or from x_T.", start=torch.zeros_like)
ddim_sample("sample-x_T-ignored", "The x_T that is passed in is not used.", "Draw only where x_T is None.",
            given=lambda x_T: None)
ddim_sample("sample-eta-ignored", "eta does not reach the steps.", "Pass it on.",
            step=lambda self, x, t, s, eta, z, generator, i: self.ddim_step(x, t, s, generator=generator))
ddim_sample("sample-eta-one", "Without eta your samples are stochastic.", "eta is 0 where nothing is said.", default=1.0)
ddim_sample("sample-same-noise", "The same noise is added at every step.",
            "Each step needs a fresh draw; let the step draw its own.",
            step=lambda self, x, t, s, eta, z, generator, i: self.ddim_step(x, t, s, eta, noise=z))
ddim_sample("sample-eta-first-only", "Only the first step is stochastic.", "eta goes to every step.",
            step=lambda self, x, t, s, eta, z, generator, i: self.ddim_step(x, t, s, 0.0 if i else eta, generator=generator))
ddim_sample("sample-no-seed", "The same seed gives other samples.",
            "The generator must reach every draw: x_T and each step.", generators=lambda generator: (generator, None))
ddim_sample("sample-noise-on-top", "Noise is added a second time, after the step.",
            "The step adds all the noise there is to add.",
            after=lambda x: x + 0.05 * randn(x.shape, generator=torch.Generator().manual_seed(2)))
ddim_sample("sample-clipped", "Every step is clipped to [-1, 1].",
            "x_s is noisy and may lie outside; the loop has no clamp.", after=lambda x: x.clamp(-1, 1))
ddim_sample("sample-clipped-end", "The finished sample is clipped.", "Clip for the picture, not in the sampler.",
            finish=lambda x: x.clamp(-0.5, 0.5))
ddim_sample("sample-rescaled", "The finished sample is brought to [0, 1].",
            "Pixels are in [-1, 1] here; rescale for the picture only.", finish=lambda x: (x + 1) / 2)
ddim_sample("sample-half", "Your result is float16.", "The dtype of x_T is kept.", finish=lambda x: x.half())
ddim_sample("sample-no-start", "The trajectory lacks x_T.", "One entry more than steps: the start and every step.",
            stages=lambda x_T, later: later)
ddim_sample("sample-no-end", "The trajectory lacks the finished sample.", "Record after each step, the last one too.",
            stages=lambda x_T, later: [x_T, *later[:-1]])
ddim_sample("sample-trajectory-reversed", "The trajectory runs from data to noise.", "x_T first, x last.",
            stages=lambda x_T, later: [x_T, *later][::-1])
ddim_sample("sample-one-tensor", "Every entry of the trajectory is the finished sample.",
            "You keep one tensor and overwrite it; store a copy.", stages=lambda x_T, later: [later[-1]] * (len(later) + 1))


@MISTAKES.mistake("ddim-sample", "sample-own-seed", "Without a generator, every call gives the same samples.",
                  "No generator means torch's global one: pass the None on, and make none with a seed of your own.")
class _(DDIMSampler):
    def sample(self, *args, generator=None, **kwargs):
        return super().sample(*args, generator=generator or torch.Generator().manual_seed(42), **kwargs)


@MISTAKES.mistake("ddim-sample", "sample-by-way-of-zero", "You append t = 0 to a list of timesteps that does not end there.",
                  "The list is what the model is asked; from its last entry the step goes to s = -1 at once.")
class _(DDIMSampler):
    def sample(self, shape, timesteps=None, *args, **kwargs):
        if isinstance(timesteps, (list, tuple, torch.Tensor)) and int(timesteps[-1]) > 0:
            timesteps = [*map(int, timesteps), 0]
        return super().sample(shape, timesteps, *args, **kwargs)


@MISTAKES.mistake("ddim-sample", "sample-in-place", "You write into the x_T that was passed in.", "Begin with a copy.")
class _(DDIMSampler):
    def sample(self, *args, x_T=None, **kwargs):
        result = super().sample(*args, x_T=x_T, **kwargs)
        if x_T is not None:
            x_T.copy_(result[0] if isinstance(result, tuple) else result)
        return result


@MISTAKES.mistake("ddim-sample", "sample-always-pairs", "You return a pair even where no trajectory is asked for.",
                  "Look at `return_trajectory`.")
class _(DDIMSampler):
    def sample(self, shape, timesteps=None, eta=0.0, return_trajectory=False, **kwargs):
        return super().sample(shape, timesteps, eta, True, **kwargs)


@MISTAKES.mistake("ddim-sample", "sample-trajectory-list", "The trajectory is a list.",
                  "One tensor, [steps + 1, B, ...]: `torch.stack`.")
class _(DDIMSampler):
    def sample(self, *args, **kwargs):
        result = super().sample(*args, **kwargs)
        return (result[0], list(result[1])) if isinstance(result, tuple) else result


@MISTAKES.mistake("ddim-sample", "sample-training-mode", "The model is in training mode.",
                  "Dropout and the like would disturb the prediction: `model.eval()`.")
class _(DDIMSampler):
    def sample(self, *args, **kwargs):
        self.model.train()
        return super().sample(*args, **kwargs)


# ---------------------------------------------------------------------------------------------- eta


def eta_variance(id, symptom, hint, wrong=right_sigma2, *,
                 read_s=lambda A, s, t: A[s] if s >= 0 else torch.ones((), dtype=torch.float64),
                 finish=lambda v: v):
    """Register a mistake in sigma^2 itself, in how A_s is read, or in what becomes of the result."""
    def compute_stochastic_variance(self, t, s, eta):
        A = self.ddim_sampler.schedule.alphas_cumprod
        return finish(wrong(eta, A[t], read_s(A, s, t)))
    MISTAKES.mistake("eta-variance", id, symptom, hint)(
        variant(StochasticityController, "compute_stochastic_variance", compute_stochastic_variance))


for id, symptom, hint, wrong in [
    ("sigma2-eta", "You multiply by eta.", "By eta^2: right at 0 and 1 only; try 0.5.",
     lambda eta, A_t, A_s: eta * right_sigma2(1, A_t, A_s)),
    ("sigma2-eta-fourth", "You multiply by eta^4.", "By eta^2.", lambda eta, A_t, A_s: eta**4 * right_sigma2(1, A_t, A_s)),
    ("sigma2-no-eta", "eta makes no difference.", "sigma^2 is proportional to eta^2.",
     lambda eta, A_t, A_s: right_sigma2(1, A_t, A_s)),
    ("sigma2-root", "You return sigma.", "The variance is its square.",
     lambda eta, A_t, A_s: right_sigma2(eta, A_t, A_s) ** 0.5),
    ("sigma2-inverted", "The share (1 - A_s) / (1 - A_t) is upside down.", "It is below 1: s is less noisy than t.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_t) / (1 - A_s) * (1 - A_t / A_s)),
    ("sigma2-beta-inverted", "You use 1 - A_s / A_t, which is negative.", "A falls with t: A_t / A_s is below 1.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_s / A_t)),
    ("sigma2-no-share", "The factor (1 - A_s) / (1 - A_t) is missing.", "It makes the variance 0 at s = -1.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_t / A_s)),
    ("sigma2-no-beta", "The factor 1 - A_t / A_s is missing.", "It is the beta of the jump.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_s) / (1 - A_t)),
    ("sigma2-no-denominator", "The division by 1 - A_t is missing.", "The share is a quotient of two amounts of noise.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_s) * (1 - A_t / A_s)),
    ("sigma2-quotient", "You use A_t / A_s in place of 1 - A_t / A_s.",
     "The quotient is the alpha of the jump; its beta is asked for.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_s) / (1 - A_t) * A_t / A_s),
    ("sigma2-difference", "You use A_s - A_t in place of 1 - A_t / A_s.", "The beta of a jump is one minus a quotient.",
     lambda eta, A_t, A_s: eta**2 * (1 - A_s) / (1 - A_t) * (A_s - A_t)),
    ("sigma2-no-one-minus", "You use A_s / A_t in place of (1 - A_s) / (1 - A_t).", "The share compares amounts of noise.",
     lambda eta, A_t, A_s: eta**2 * A_s / A_t * (1 - A_t / A_s)),
    ("sigma2-eta-on-share", "eta is squared together with the share.", "Only eta is squared.",
     lambda eta, A_t, A_s: (eta * (1 - A_s) / (1 - A_t)) ** 2 * (1 - A_t / A_s)),
    ("sigma2-t-and-s", "t and s have changed places.", "t is the noisier of the two.",
     lambda eta, A_t, A_s: right_sigma2(eta, A_s, A_t)),
]:
    eta_variance(id, symptom, hint, wrong)

eta_variance("sigma2-wraps", "At s = -1 your A_s is the *last* row of the table.",
             "Index -1 wraps around; clean data has A = 1.", read_s=lambda A, s, t: A[s])
eta_variance("sigma2-final-row", "At s = -1 your A_s is A_0.", "Clean data has A = 1, so the last jump adds nothing.",
             read_s=lambda A, s, t: A[max(s, 0)])
eta_variance("sigma2-neighbour", "You use t - 1 whatever s is.", "The jump leads to s: read A there.",
             read_s=lambda A, s, t: A[t - 1] if s >= 0 else torch.ones((), dtype=torch.float64))
eta_variance("sigma2-float32", "Your variance is float32.", "Keep the float64 of the tables.", finish=lambda v: v.float())
eta_variance("sigma2-extra-axis", "Your variance has shape [1].", "A 0-d tensor, one number.", finish=lambda v: v.reshape(1))


def eta_study(id, symptom, hint, *, change=lambda result: result, generators=lambda generator: (generator, generator),
              etas=lambda etas: etas,
              steps=lambda n: n, share=True, step=lambda sampler, x, t, s, eta, z: sampler.ddim_step(x, t, s, eta, noise=z),
              source=lambda generator: generator):
    """Register a mistake in one part of the study: what is shared, what is sampled, or what is reported."""
    @torch.no_grad()
    def analyze_eta_effects(self, shape, eta_values, num_steps, *, generator=None):
        generator = source(generator)
        sampler, samples = self.ddim_sampler, []
        t = sampler.create_timestep_schedule(steps(num_steps)).tolist()
        x_T, noises = randn(*shape, generator=generator), randn(len(t), *shape, generator=generator)
        for eta in etas(eta_values):
            x = x_T if share != "noise" else randn(*shape, generator=generator)
            for t_now, s, z in zip(t, [*t[1:], -1], noises):
                z = z if share is True or share == "noise" else noises[0] if share == "steps" else randn(*shape,
                                                                                                         generator=generator)
                x = step(sampler, x, t_now, s, eta, z)
            samples.append(x)
        sigma = [[float(self.compute_stochastic_variance(*pair, eta)) ** 0.5 for pair in zip(t,
                                                                                             [*t[1:],
                                                                                              -1])] for eta in eta_values]
        return change({"eta_values": list(eta_values), "samples": torch.stack(samples),
                       "sigma": torch.tensor(sigma, dtype=torch.float64),
                       "diversity": torch.tensor([right_diversity(x) for x in samples], dtype=torch.float64)})
    MISTAKES.mistake("eta-effects", id, symptom,
                     hint)(variant(StochasticityController, "analyze_eta_effects", analyze_eta_effects))


eta_study("study-no-generator", "The study does not draw from the generator given.",
          "Pass it on to every draw, or nobody can repeat the study.", source=lambda generator: None)


def changed(key, function):
    return lambda result: {**result, key: function(result[key])}


def mixed(result):
    """Sample b of set e takes the eta of the other order: as if the sets lay sample by sample."""
    samples = result["samples"]
    E, B = samples.shape[:2]
    e, b = torch.meshgrid(torch.arange(E), torch.arange(B), indexing="ij")
    samples = samples[(e * B + b) % E, b]
    return {**result, "samples": samples, "diversity": torch.tensor([right_diversity(x) for x in samples], dtype=torch.float64)}


eta_study("study-mixed-sets", "Each set of samples mixes several eta: the two lie in different orders.",
          "`repeat` puts sets one after the other, `repeat_interleave` equal entries side by side.",
          change=mixed)


eta_study("study-own-x_T", "Every eta starts from its own x_T.",
          "Only if all else is shared does eta alone make the difference.", share="noise")
eta_study("study-own-noise", "Every eta gets its own fresh noise.", "Draw the noise of each step once, for all eta.",
          share="x_T")
eta_study("study-one-noise", "The same noise is added at every step.", "Shared by the eta values, but fresh for each step.",
          share="steps")
eta_study("study-all-deterministic", "All eta give the deterministic samples.", "Pass each eta to its steps.",
          step=lambda sampler, x, t, s, eta, z: sampler.ddim_step(x, t, s, 0.0, noise=z))
eta_study("study-all-ddpm", "All eta give the samples of eta = 1.", "Pass each eta to its steps.",
          step=lambda sampler, x, t, s, eta, z: sampler.ddim_step(x, t, s, 1.0, noise=z))
eta_study("study-last-eta", "All samples are those of the last eta.", "Look at what your loop keeps.",
          etas=lambda etas: [etas[-1]] * len(etas))
eta_study("study-order", "The samples are in another order than eta_values.", "Entry e belongs to eta_values[e].",
          change=changed("samples", lambda x: x.flip(0)))
eta_study("study-batch-first", "samples is [B, E, ...].", "The eta values come first: [E, B, ...].",
          change=changed("samples", lambda x: x.transpose(0, 1)))
eta_study("study-fifty-steps", "num_steps is not used.", "It sets the uniform schedule.", steps=lambda n: 50)
eta_study("study-stops-early", "The last jump is missing: the samples stay noisy.", "On to s = -1, clean data.",
          step=lambda sampler, x, t, s, eta, z: x if s < 0 else sampler.ddim_step(x, t, s, eta, noise=z))
eta_study("study-variance", "sigma holds variances.", "Standard deviations: the root.",
          change=changed("sigma", lambda v: v**2))
eta_study("study-sigma-transposed", "sigma is [num_steps, E].", "A row for each eta: [E, num_steps].",
          change=changed("sigma", lambda v: v.T))
eta_study("study-sigma-short", "sigma lacks the last jump.", "There the standard deviation is 0, and it is listed.",
          change=changed("sigma", lambda v: v[:, :-1]))
eta_study("study-sigma-averaged", "sigma is one number for each eta.", "One for each step as well: [E, num_steps].",
          change=changed("sigma", lambda v: v.mean(1)))
eta_study("study-sigma-reversed", "sigma runs from data to noise.",
          "In the order of the steps: the first one leads down from T - 1.", change=changed("sigma", lambda v: v.flip(1)))
eta_study("study-diversity-of-all", "diversity is one number for all eta.",
          "One for each: how different are the samples of a single eta?", change=changed("diversity", lambda d: d.mean()))
eta_study("study-diversity-squared", "diversity holds squared distances.", "Use `sample_diversity` for each eta's samples.",
          change=changed("diversity", lambda d: d**2))
eta_study("study-diversity-std", "diversity holds standard deviations.",
          "The mean distance of pairs is asked for: use `sample_diversity`.",
          change=lambda result: {**result, "diversity": result["samples"].flatten(1).std(1).double()})
eta_study("study-no-eta-values", "eta_values is missing from the result.",
          "Four entries: eta_values, samples, diversity, sigma.",
          change=lambda result: {k: v for k, v in result.items() if k != "eta_values"})
eta_study("study-pairs", "The result is not a dict.", "Four entries with names: eta_values, samples, diversity, sigma.",
          change=lambda result: tuple(result.values()))

# ---------------------------------------------------------------------------------------------- analyzer-quality


def analysis(id, symptom, hint, *, change=lambda result: result, true=lambda noise, x: noise, asked=lambda x_t, x: x_t,
             told=lambda t, k: t, anew=False,
             implied=lambda x_t, eps, noise, A: (x_t - (1 - A) ** 0.5 * eps) / A**0.5,
             compare=lambda eps, noise, x_t: (eps, noise),
             target=lambda x, x_t: x, score=lambda a, b: (a - b).double().square().mean(), source=lambda generator: generator):
    """Register a mistake in the measurement: the noise, what the model is asked, x_0, or what is compared and how."""
    @torch.no_grad()
    def analyze_noise_prediction_quality(self, x_clean, timesteps, *, noise=None, generator=None):
        generator = source(generator)
        rows, one = [], randn(x_clean.shape, generator=generator) if noise is None else noise
        for k, t in enumerate(timesteps):
            z = true(randn(x_clean.shape, generator=generator) if anew and noise is None else one, x_clean)
            x_t, A = self.forward_process.add_noise(x_clean, t, z), float(self.schedule.alphas_cumprod[t])
            eps = self.model(asked(x_t, x_clean), torch.full((len(x_t),), told(t, k)))
            rows.append([score(*compare(eps, z, x_t)), score(implied(x_t, eps, z, A), target(x_clean, x_t)), A / (1 - A)])
        eps_mse, x0_mse, snr = torch.tensor(rows, dtype=torch.float64).T
        return change({"timesteps": list(timesteps), "eps_mse": eps_mse, "x0_mse": x0_mse, "snr": snr})
    MISTAKES.mistake("analyzer-quality", id, symptom, hint)(
        variant(TrainedModelAnalyzer, "analyze_noise_prediction_quality", analyze_noise_prediction_quality))


analysis("quality-absolute", "Your errors are mean absolute ones.", "Mean *squared* errors are asked for.",
         score=lambda a, b: (a - b).abs().mean())
analysis("quality-root", "Your errors are under a root.", "Mean squared errors, without it.",
         score=lambda a, b: (a - b).square().mean() ** 0.5)
analysis("quality-sum", "Your errors are sums.", "Average over all values.", score=lambda a, b: (a - b).square().sum())
analysis("quality-by-sample", "Your errors are summed within each sample.", "Average over all values, pixels too.",
         score=lambda a, b: (a - b).square().sum() / len(a))
analysis("quality-signed", "Your errors are not squared, so that signs cancel.", "Square first, then average.",
         score=lambda a, b: (a - b).mean())
analysis("quality-eps-against-x", "You compare the predicted noise with x_t.", "With the true noise that made x_t.",
         compare=lambda eps, noise, x_t: (eps, x_t))
analysis("quality-scaled-noise", "The predicted noise is compared with the noise as scaled in x_t.",
         "The network predicts the unscaled noise, N(0, I).",
         compare=lambda eps, noise, x_t: (eps, 0.5 * noise))
analysis("quality-own-noise", "The noise that is passed in is not used.", "Draw only where `noise` is None.",
         true=lambda noise, x: torch.randn_like(x))
analysis("quality-noise-anew", "Every timestep gets a noise of its own.",
         "Draw once, before the loop: then the levels differ in nothing but t.", anew=True)
analysis("quality-no-generator", "The noise is not drawn from the generator given.",
         "Pass `generator` on, or the measurement cannot be repeated.", source=lambda generator: None)
analysis("quality-asks-clean", "The model is shown the clean image.", "It predicts the noise in x_t.",
         asked=lambda x_t, x: x)
analysis("quality-asks-index", "The model is told the index in the list.", "It needs the timestep itself.",
         told=lambda t, k: k)
analysis("quality-asks-zero", "The model is told t = 0 every time.", "It needs the level of the noise in x_t.",
         told=lambda t, k: 0)
analysis("quality-true-x0", "x0_mse is computed from the true noise.", "Use the prediction: what clean image does it imply?",
         implied=lambda x_t, eps, noise, A: (x_t - (1 - A) ** 0.5 * noise) / A**0.5)
analysis("quality-x0-not-divided", "Your x_0 is not divided by sqrt(A_t).", "x_t holds a faded image.",
         implied=lambda x_t, eps, noise, A: x_t - (1 - A) ** 0.5 * eps)
analysis("quality-x0-no-root", "Your x_0 subtracts (1 - A_t) eps.", "Its factor is sqrt(1 - A_t).",
         implied=lambda x_t, eps, noise, A: (x_t - (1 - A) * eps) / A**0.5)
analysis("quality-x0-no-signal-root", "Your x_0 is divided by A_t.", "By sqrt(A_t).",
         implied=lambda x_t, eps, noise, A: (x_t - (1 - A) ** 0.5 * eps) / A)
analysis("quality-x0-plain", "Your x_0 is x_t - eps.", "Both have factors in x_t: sqrt(1 - A_t) and sqrt(A_t).",
         implied=lambda x_t, eps, noise, A: x_t - eps)
analysis("quality-x0-clipped", "Your x_0 is clipped to [-1, 1].", "Measure the prediction as it is.",
         implied=lambda x_t, eps, noise, A: ((x_t - (1 - A) ** 0.5 * eps) / A**0.5).clamp(-1, 1))
analysis("quality-x0-against-noisy", "You compare x_0 with the noisy image.", "With the clean one.",
         target=lambda x, x_t: x_t)
analysis("quality-snr-inverted", "Your signal-to-noise ratio is upside down.", "Signal above: A / (1 - A).",
         change=changed("snr", lambda r: 1 / r))
analysis("quality-snr-root", "Your signal-to-noise ratio is one of standard deviations.", "Of variances: no root.",
         change=changed("snr", lambda r: r**0.5))
analysis("quality-snr-log", "Your signal-to-noise ratio is a logarithm.", "Report the ratio itself.",
         change=changed("snr", torch.log))
analysis("quality-snr-signal", "Your signal-to-noise ratio is A_t alone.", "Divide by the noise, 1 - A_t.",
         change=changed("snr", lambda r: r / (1 + r)))
analysis("quality-swapped", "eps_mse and x0_mse have changed places.", "eps_mse is the error of the noise.",
         change=lambda result: {**result, "eps_mse": result["x0_mse"], "x0_mse": result["eps_mse"]})
analysis("quality-float32", "Your errors are float32.", "float64 tensors are asked for.",
         change=lambda result: {k: v.float() if k.endswith("mse") else v for k, v in result.items()})
analysis("quality-averaged", "Your errors are averaged over the timesteps.", "One entry for each: [K].",
         change=lambda result: {k: v.mean() if k.endswith("mse") else v for k, v in result.items()})
analysis("quality-sorted", "The entries are in another order than the timesteps.", "Entry k belongs to timesteps[k].",
         change=lambda result: {k: v.flip(0) if k.endswith("mse") else v for k, v in result.items()})
analysis("quality-no-timesteps", "timesteps is missing from the result.", "Four entries: timesteps, eps_mse, x0_mse, snr.",
         change=lambda result: {k: v for k, v in result.items() if k != "timesteps"})


@MISTAKES.mistake("analyzer-quality", "quality-gradients", "Gradients are recorded through the network.",
                  "Measuring needs none: `torch.no_grad()`.")
class _(TrainedModelAnalyzer):
    analyze_noise_prediction_quality = TrainedModelAnalyzer.analyze_noise_prediction_quality.__wrapped__


# ---------------------------------------------------------------------------------------------- measuring samplers


def benchmark(id, symptom, hint, change=lambda record, shape, before: record, *, finish=lambda records: records):
    """Register a mistake in one entry of the records, given the shape and the records before, or in their list."""
    def benchmark_samplers(samplers, shape):
        records = []
        for record in right_benchmark(samplers, shape):
            records.append({**record, **change(record, shape, records)})
        return finish(records)
    MISTAKES.mistake("benchmark", id, symptom, hint)(benchmark_samplers)


benchmark("bench-nfe-by-sample", "nfe counts every sample of the batch.",
          "One network call is one evaluation, whatever the batch.", lambda r, shape, before: {"nfe": r["nfe"] * shape[0]})
benchmark("bench-nfe-is-steps", "nfe is the number of steps.",
          "A sampler may call the network more than once in a step: count calls.",
          lambda r, shape, before: {"nfe": r["num_steps"]})
benchmark("bench-steps-is-nfe", "num_steps is the number of calls.", "Count the different timesteps.",
          lambda r, shape, before: {"num_steps": r["nfe"], "seconds_per_step": r["seconds"] / r["nfe"]})
benchmark("bench-per-call", "seconds_per_step is divided by the calls.", "By the steps.",
          lambda r, shape, before: {"seconds_per_step": r["seconds"] / r["nfe"]})
benchmark("bench-counts-pile-up", "Calls of one sampler are counted for the next one too.",
          "Open a new `count_calls` for each.", lambda r, shape, before: {"nfe": r["nfe"] + sum(b["nfe"] for b in before)})
benchmark("bench-milliseconds", "seconds holds milliseconds.", "Seconds.",
          lambda r, shape, before: {"seconds": 1000 * r["seconds"], "seconds_per_step": 1000 * r["seconds_per_step"]})
benchmark("bench-steps-per-second", "seconds_per_step is upside down.", "Seconds divided by steps.",
          lambda r, shape, before: {"seconds_per_step": 1 / r["seconds_per_step"]})
benchmark("bench-total-per-step", "seconds_per_step is the whole time.", "Divide it by the steps.",
          lambda r, shape, before: {"seconds_per_step": r["seconds"]})
benchmark("bench-sorted", "The records are sorted.", "Keep the order in which the samplers were given.",
          finish=lambda records: records[::-1])
benchmark("bench-fastest-first", "The records are sorted by their time.", "Keep the order in which the samplers were given.",
          finish=lambda records: sorted(records, key=lambda r: r["seconds"]))
benchmark("bench-guessed", "The seconds are worked out from the number of calls.", "Read a clock before and after.",
          lambda r, shape, before: {"seconds": 0.004 * r["nfe"], "seconds_per_step": 0.004 * r["nfe"] / r["num_steps"]})
benchmark("bench-first-only", "Only the first sampler is measured.", "Return after the loop.",
          finish=lambda records: records[:1])
benchmark("bench-dict", "You return a dict.", "A list of dicts, one for each sampler.",
          finish=lambda records: {r["name"]: r for r in records})
benchmark("bench-no-names", "The records have no names.", "`name` is the key in `samplers`.",
          finish=lambda records: [{k: v for k, v in r.items() if k != "name"} for r in records])


@MISTAKES.mistake("benchmark", "bench-cpu-time", "You measure processor time, not wall time.",
                  "A wait is time as well: `time.perf_counter()`.")
def benchmark_samplers(samplers, shape):
    records = right_benchmark(samplers, shape)
    for record, sampler in zip(records, samplers.values()):
        start = time.process_time()
        sampler(shape)
        record["seconds"] = time.process_time() - start
        record["seconds_per_step"] = record["seconds"] / record["num_steps"]
    return records


def diversity(id, symptom, hint, wrong):
    """Register a wrong way of measuring the diversity of samples [B, D]."""
    def sample_diversity(samples):
        return float(wrong(samples.double().flatten(1)))
    MISTAKES.mistake("benchmark", id, symptom, hint)(sample_diversity)


def distances(x):
    return torch.pdist(x) / x.shape[1] ** 0.5


for id, symptom, hint, wrong in [
    ("diversity-with-itself", "Each sample is compared with itself too.",
     "Only pairs of different samples count: B (B - 1) / 2 of them.", lambda x: 2 * distances(x).sum() / len(x) ** 2),
    ("diversity-squared", "You average squared distances.", "Take the root of each distance, then the mean.",
     lambda x: (distances(x) ** 2).mean()),
    ("diversity-root-of-mean", "You take the root of the mean of all squared distances.",
     "First each distance, then their mean.", lambda x: (distances(x) ** 2).mean() ** 0.5),
    ("diversity-euclidean", "Your distances grow with the number of pixels.",
     "Root-*mean*-square: divide by the number of values under the root.", lambda x: torch.pdist(x).mean()),
    ("diversity-divided-by-pixels", "Your distances are divided by the number of pixels.",
     "The mean is taken under the root.", lambda x: torch.pdist(x).mean() / x.shape[1]),
    ("diversity-absolute", "You average absolute differences.", "Root-mean-square distances are asked for.",
     lambda x: torch.pdist(x, p=1).mean() / x.shape[1]),
    ("diversity-sum", "You sum over the pairs.", "The mean is asked for.", lambda x: distances(x).sum()),
    ("diversity-ordered-pairs", "Every pair is counted twice.", "Sum over ordered pairs means division by B (B - 1), too.",
     lambda x: 2 * distances(x).mean()),
    ("diversity-std", "You measure the spread around the mean.", "Compare the samples with each other, pair by pair.",
     lambda x: x.std(0).mean()),
    ("diversity-neighbours", "Only neighbours in the batch are compared.", "All pairs.",
     lambda x: (x[1:] - x[:-1]).square().mean(1).sqrt().mean()),
    ("diversity-from-first", "Only the first sample is compared with the others.", "All pairs.",
     lambda x: (x[1:] - x[0]).square().mean(1).sqrt().mean()),
    ("diversity-from-mean", "Samples are compared with the batch's mean.", "With each other, pair by pair.",
     lambda x: (x - x.mean(0)).square().mean(1).sqrt().mean()),
    ("diversity-largest", "You take the largest distance.", "The mean is asked for.", lambda x: distances(x).max()),
]:
    diversity(id, symptom, hint, wrong)

# ---------------------------------------------------------------------------------------------- production


def cached(id, symptom, hint, *, key=lambda sampler, n, eta: (sampler.schedule, n, eta), value=lambda x, x_T: x,
           eta_used=lambda eta: eta, given=lambda x_T: x_T,
           end=lambda A: 1.0, sigma2=right_sigma2, direction=right_direction, model=lambda model: model,
           row=lambda A, s: A[s], x0=lambda sampler, x, eps, t, A_t: (x - (1 - A_t)**0.5 * eps) / A_t**0.5, whose=lambda self, sampler: sampler,
           scale=lambda v: v**0.5, results=False, steps=lambda n: n,
           draw=lambda x, generator: randn(x.shape, generator=generator)):
    """Register a mistake in one part of cached sampling: the key, the coefficients, the noise, or what is kept."""
    @torch.no_grad()
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        sampler, eta, x_T = whose(self, ddim_sampler), eta_used(eta), given(x_T)
        name = key(sampler, num_steps, eta)
        if name not in self.cache:
            t, A = sampler.create_timestep_schedule(steps(num_steps)).tolist(), sampler.schedule.alphas_cumprod.tolist()
            table = [(now, A[now], row(A, s)) for now, s in zip(t, t[1:])] + [(t[-1], A[t[-1]], end(A))]
            self.cache[name] = [(now, A_t, A_s, sigma2(eta, A_t, A_s)) for now, A_t, A_s in table]
        if results and ("result", name) in self.cache:
            return self.cache["result", name]
        x = randn(*shape, generator=generator) if x_T is None else x_T
        for t, A_t, A_s, v in self.cache[name]:
            eps = model(sampler.model)(x, torch.full((len(x),), t))
            x = A_s**0.5 * x0(sampler, x, eps, t, A_t) + direction(A_t, A_s, v) * eps
            x = x + scale(v) * draw(x, generator) if v > 0 else x
        self.cache["result", name] = value(x, x_T)
        return self.cache["result", name]
    MISTAKES.mistake("optimizer-cached", id, symptom, hint)(
        variant(SamplingOptimizer, "cached_noise_schedule_sampling", cached_noise_schedule_sampling))


cached("cache-own-model", "The network asked is the optimizer's own, not that of the sampler passed in.",
       "`ddim_sampler` says whose model and whose schedule are used.",
       whose=lambda self, sampler: DDIMSampler(self.ddim_sampler.model, sampler.schedule))


@MISTAKES.mistake("optimizer-cached", "cache-generator-for-start", "Where x_T is given, the steps do not draw from the generator.",
                  "`generator` is the source of every draw, not of x_T alone.")
class _(SamplingOptimizer):
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        return super().cached_noise_schedule_sampling(ddim_sampler, shape, num_steps, eta=eta, x_T=x_T,
                                                      generator=generator if x_T is None else None)


@MISTAKES.mistake("optimizer-cached", "cache-nothing", "The samples are right, but every call works all of its coefficients out anew.",
                  "Keep them in `self.cache`; a second call with the same settings only looks them up.")
class _(SamplingOptimizer):
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        return ddim_sampler.sample(shape, num_steps, eta, x_T=x_T, generator=generator)


def asks_twice(model):
    return lambda x, t: (model(x, t), model(x, t))[1]


cached("cache-key-eta", "Another eta is answered with the first one's coefficients.",
       "Everything that the coefficients depend on belongs in the key.", key=lambda sampler, n, eta: (sampler.schedule, n))
cached("cache-key-steps", "Another number of steps is answered with the first one's coefficients.",
       "Everything that the coefficients depend on belongs in the key.", key=lambda sampler, n, eta: (sampler.schedule, eta))
cached("cache-key-schedule", "Another noise schedule is answered with the first one's coefficients.",
       "Everything that the coefficients depend on belongs in the key.", key=lambda sampler, n, eta: (n, eta))
cached("cache-key-none", "Only the first call ever computes coefficients.",
       "Another eta, number of steps or schedule needs its own.", key=lambda sampler, n, eta: ())
cached("cache-key-rounded", "An eta near another one is answered with that one's coefficients.",
       "eta goes into the key as it is, not rounded to a few digits.", key=lambda sampler, n, eta: (sampler.schedule, n, round(eta, 1)))
cached("cache-x0-anew", "At each step of a second call the schedule's table is looked up again.",
       "`predict_x0_from_eps` works its two roots out anew; put them into what you keep.",
       x0=lambda sampler, x, eps, t, A_t: sampler.predict_x0_from_eps(x, eps, t))
cached("cache-results", "You keep finished samples: another x_T gets the old ones.",
       "Keep the coefficients, which do not depend on x.", results=True)
cached("cache-own-sampler", "You use the optimizer's own sampler, not the one that is passed in.",
       "Model and schedule are those of the argument.", whose=lambda self, sampler: self.ddim_sampler)
cached("cache-zero-is-clean", "At s = 0 your A_s is 1, as if it were clean data.",
       "s = 0 is a timestep like others, with A_0 < 1; only s = -1 is clean.", row=lambda A, s: A[s] if s > 0 else 1.0)
cached("cache-final-row", "Your last jump goes to A_0.", "To clean data, where A = 1.", end=lambda A: A[0])
cached("cache-wraps", "Your last jump goes back to pure noise.", "Clean data has A = 1, not the table's last row.",
       end=lambda A: A[-1])
cached("cache-asks-twice", "The network is called twice in each step.", "Keep its answer: it is what takes the time.",
       model=asks_twice)
cached("cache-eta-ignored", "eta makes no difference.", "sigma is one of the coefficients.", eta_used=lambda eta: 0.0)
cached("cache-eta-not-squared", "sigma^2 has eta in place of eta^2.", "Right at 0 and 1 only.",
       sigma2=lambda eta, A_t, A_s: right_sigma2(eta**0.5, A_t, A_s))
cached("cache-sigma-not-taken-out", "Fresh noise comes on top of the full direction term.", "Take sigma^2 out of it.",
       direction=lambda A_t, A_s, v: (1 - A_s) ** 0.5)
cached("cache-direction-A_t", "The predicted noise is multiplied by sqrt(1 - A_t).", "x_s holds sqrt(1 - A_s).",
       direction=lambda A_t, A_s, v: (1 - A_t) ** 0.5)
cached("cache-variance-times-noise", "The noise is multiplied by sigma^2.", "By sigma.", scale=lambda v: v)
cached("cache-no-noise", "No fresh noise comes in.", "The third coefficient is sigma.", scale=lambda v: 0.0)
cached("cache-fixed-noise", "The same noise is added at every step: you keep it with the coefficients.",
       "Only numbers repeat; noise is drawn afresh.",
       draw=lambda x, generator: randn(x.shape, generator=torch.Generator().manual_seed(3)))
cached("cache-x_T-ignored", "The x_T that is passed in is not used.", "Draw only where x_T is None.", given=lambda x_T: None)
cached("cache-one-step-more", "You make one step more than asked for.",
       "n steps: n timesteps, the last one leading to s = -1.", steps=lambda n: n + 1)
cached("cache-float64", "Your result is float64 whatever x_T was.", "Cast back to its dtype.",
       value=lambda x, x_T: x.double())
cached("cache-in-place", "You write into the x_T that was passed in.", "Begin with a copy.",
       value=lambda x, x_T: x if x_T is None else x_T.copy_(x))
cached("cache-clipped", "Your result is clipped.", "The plain sampler's is not, and both must agree.",
       value=lambda x, x_T: x.clamp(-0.5, 0.5))


@MISTAKES.mistake("optimizer-cached", "cache-iterator", "The second call with the same settings takes no step at all.",
                  "A `zip` or generator is used up after one loop: keep a list.")
class _(SamplingOptimizer):
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        key = ("met", ddim_sampler.schedule, num_steps, eta)
        if self.cache.setdefault(key, self) is not self:
            return randn(*shape, generator=generator) if x_T is None else x_T.clone()
        self.cache[key] = None
        return super().cached_noise_schedule_sampling(ddim_sampler, shape, num_steps, eta=eta, x_T=x_T, generator=generator)


@MISTAKES.mistake("optimizer-cached", "cache-gradients", "Gradients are recorded through the network.",
                  "Sampling needs none: `torch.no_grad()`, or memory grows with every step.")
class _(SamplingOptimizer):
    cached_noise_schedule_sampling = SamplingOptimizer.cached_noise_schedule_sampling.__wrapped__


def cut(total, size):
    return [size] * (total // size) + [total % size] * (total % size > 0)


def batches(id, symptom, hint, *, sizes=cut, steps=lambda n: n, eta_used=lambda eta: eta,
            shape_of=lambda self, shape: self.ddim_sampler.model.sample_shape if shape is None else shape,
            finish=lambda parts, total: torch.cat(parts)[:total], start=lambda x_T, generator: x_T,
            passed=lambda generator: generator):
    """Register a mistake in the batches' sizes, in what each is asked for, or in how they are put together."""
    def batch_sampling_with_memory_management(self, total_samples, batch_size, *, sample_shape=None, num_steps=50, eta=0.0,
                                              generator=None):
        shape, cuts = shape_of(self, sample_shape), sizes(total_samples, batch_size)
        noise = randn(sum(cuts), *shape, generator=generator).split(cuts)
        return finish([self.ddim_sampler.sample(x_T.shape, steps(num_steps), eta_used(eta), x_T=start(x_T, generator),
                                                generator=passed(generator)) for x_T in noise], total_samples)
    MISTAKES.mistake("optimizer-batches", id, symptom, hint)(
        variant(SamplingOptimizer, "batch_sampling_with_memory_management", batch_sampling_with_memory_management))


batches("batches-no-remainder", "The remainder is dropped.", "7 samples in batches of 3 are 3 + 3 + 1.",
        sizes=lambda total, size: [size] * (total // size))
batches("batches-too-many", "You return full batches only: too many samples.", "The last batch may be smaller.",
        sizes=lambda total, size: [size] * -(-total // size), finish=lambda parts, total: torch.cat(parts))
batches("batches-all-at-once", "All samples are made in one batch.", "Never more than batch_size at a time.",
        sizes=lambda total, size: [total])
batches("batches-remainder-first-batch", "The remainder is put into a batch that is too large.",
        "Never more than batch_size at a time: one more, smaller batch.",
        sizes=lambda total, size: [size] * (total // size - 1) + [size + total % size] if total > size else [total])
batches("batches-count-for-size", "batch_size is taken for the number of batches.",
        "It is how many samples one batch holds.",
        sizes=lambda total, size: cut(total, -(-total // size)))
batches("batches-one-only", "Only one batch is returned.", "Collect them all.", finish=lambda parts, total: parts[0])
batches("batches-last-only", "Only the last batch is returned.", "Collect them all.", finish=lambda parts, total: parts[-1])
batches("batches-list", "You return a list of batches.", "One tensor: `torch.cat`.", finish=lambda parts, total: parts)
batches("batches-stacked", "Batches are stacked along a new axis.", "`torch.cat` along the batch axis.",
        finish=lambda parts, total: torch.stack([parts[0]] * len(parts)))
batches("batches-reseeded", "Every batch holds the same samples.",
        "Each needs its own noise: do not seed again for each batch.",
        start=lambda x_T, generator: randn(*x_T.shape, generator=torch.Generator().manual_seed(0)))
batches("batches-own-draws", "Each batch draws its own x_T, so another batch_size gives other samples.",
        "Draw the noise for all samples at once, and take slices of it.", start=lambda x_T, generator: None)
batches("batches-generator-for-starts", "The generator draws the starts only; the steps draw from another source.",
        "`generator` is the source of every draw: pass it on.", passed=lambda generator: None)
batches("batches-shape-required", "Without sample_shape an error is raised.", "It defaults to the model's `sample_shape`.",
        shape_of=lambda self, shape: tuple(shape))
batches("batches-shape-ignored", "sample_shape is not used.", "The model's is only the default.",
        shape_of=lambda self, shape: self.ddim_sampler.model.sample_shape)
batches("batches-shape-mnist", "Without sample_shape you make 28x28 images.", "It defaults to the model's `sample_shape`.",
        shape_of=lambda self, shape: (1, 28, 28) if shape is None else shape)
batches("batches-steps-ignored", "num_steps is not used.", "Pass it on to the sampler.", steps=lambda n: 2)
batches("batches-eta-ignored", "eta is not used.", "Pass it on to the sampler.", eta_used=lambda eta: 0.0)
batches("batches-eta-one", "eta is always 1.", "Pass it on to the sampler.", eta_used=lambda eta: 1.0)

# ---------------------------------------------------------------------------------------------- bad input

MEND = "Refuse it with ValueError and one clear sentence."


def accepts(id, symptom, base, method, function):
    """Register a method that makes do with bad input."""
    MISTAKES.mistake("bad-input", id, symptom, MEND)(variant(base, method, function))


def create(self, *args):
    return DDIMSampler.create_timestep_schedule(self, *args)


for id, symptom, function in [
    ("accepts-zero-steps", "num_steps = 0 is answered with an empty schedule.",
     lambda self, n, kind="uniform": create(self, n, kind) if n else torch.zeros(0).long()),
    ("accepts-few-steps", "num_steps below 1 is taken for 1.",
     lambda self, n, kind="uniform": create(self, max(n, 1), kind)),
    ("accepts-negative-steps", "The sign of num_steps is dropped.",
     lambda self, n, kind="uniform": create(self, abs(n), kind)),
    ("accepts-many-steps", "num_steps above T is cut down to T.",
     lambda self, n, kind="uniform": create(self, min(n, 1000), kind)),
    ("accepts-half-steps", "num_steps = 2.5 is rounded.", lambda self, n, kind="uniform": create(self, int(n), kind)),
    ("accepts-any-type", "An unknown schedule type is taken for uniform.",
     lambda self, n, kind="uniform": create(self, n, kind if kind in ("trailing", "quadratic") else "uniform")),
    ("accepts-any-schedule", "Any num_steps and any type is answered.",
     lambda self, n, kind="uniform": torch.arange(int(n))),
    ("refuses-all-schedules", "Every schedule is refused, good ones too.", lambda self, n, kind="uniform": create(self, 0)),
]:
    accepts(id, symptom, DDIMSampler, "create_timestep_schedule", function)


def step(self, *args, **kwargs):
    return DDIMSampler.ddim_step(self, *args, **kwargs)


accepts("accepts-negative-eta", "A negative eta is taken for 0.", DDIMSampler, "ddim_step",
        lambda self, x, t, s, eta=0.0, **kw: step(self, x, t, s, max(eta, 0.0), **kw))
accepts("accepts-standing-still", "A step from t to t returns x_t.", DDIMSampler, "ddim_step",
        lambda self, x, t, s, eta=0.0, **kw: x if s == t else step(self, x, t, s, eta, **kw))
accepts("accepts-any-eta", "eta = NaN gives a variance of NaN.", StochasticityController, "compute_stochastic_variance",
        lambda self, t, s, eta: right_sigma2(eta, self.ddim_sampler.schedule.alphas_cumprod[t],
                                             self.ddim_sampler.schedule.alphas_cumprod[s]))


def sample(self, shape, timesteps=None, *args, **kwargs):
    return DDIMSampler.sample(self, shape, timesteps, *args, **kwargs)


for id, symptom, mend in [
    ("accepts-empty-schedule", "An empty schedule is taken for the default.", lambda steps: steps or None),
    ("accepts-rising-schedule", "A rising schedule is sorted.",
     lambda steps: sorted(steps, reverse=True) if isinstance(steps, list) else steps),
    ("accepts-schedule-beyond", "A schedule out of range is pulled into it.",
     lambda steps: [min(t, 999) for t in steps] if isinstance(steps, list) else steps),
]:
    accepts(id, symptom, DDIMSampler, "sample",
            lambda self, shape, steps=None, *args, mend=mend, **kw: sample(self, shape, mend(steps), *args, **kw))


@MISTAKES.mistake("bad-input", "accepts-nan", "NaN from the model is passed on.",
                  "Look at the finished sample once. " + MEND)
class _(DDIMSampler):
    @torch.no_grad()
    def sample(self, shape, timesteps=None, eta=0.0, return_trajectory=False, *, x_T=None, generator=None):
        x = randn(*shape, generator=generator) if x_T is None else x_T
        if isinstance(timesteps, list):
            return super().sample(shape, timesteps, eta, x_T=x_T)
        for t in self.create_timestep_schedule(timesteps).tolist():
            x = self.ddim_step(x, t, t - 1)
        return x


@MISTAKES.mistake("bad-input", "accepts-infinity", "Infinity from the model is passed on.",
                  "`torch.isfinite` sees it, `isnan` does not. " + MEND)
class _(DDPMSampler):
    @torch.no_grad()
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        if x_T is not None:
            return super().sample(shape, x_T=x_T)
        x = randn(*shape)
        for t in range(self.schedule.num_timesteps - 1, -1, -1):
            x = self.ddpm_step(x, t)
        return x


accepts("accepts-timestep-below-zero", "A negative timestep is taken for 0.", DDPMSampler, "compute_posterior_variance",
        lambda self, t: DDPMSampler.compute_posterior_variance(self, max(t, 0)))
accepts("accepts-boundless-eta", "The study takes an eta that leaves no room for the predicted noise.", StochasticityController,
        "analyze_eta_effects", lambda self, shape, etas, n: StochasticityController.analyze_eta_effects(
            self, shape, [min(eta, 1.0) for eta in etas], n))


@MISTAKES.mistake("bad-input", "accepts-nan-cached", "Cached sampling passes on NaN from the model.",
                  "Look at the finished sample once, here too. " + MEND)
class _(SamplingOptimizer):
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, **kwargs):
        x, steps = randn(*shape), ddim_sampler.create_timestep_schedule(num_steps).tolist()
        for t, s in zip(steps, [*steps[1:], -1]):
            x = ddim_sampler.ddim_step(x, t, s)
        return x


accepts("accepts-other-shapes", "x_t and noise of other shapes are broadcast or cut.", DDPMSampler, "compute_posterior_mean",
        lambda self, x, t, eps: x - 0 * t)
accepts("accepts-integers", "Integer images are converted.", ForwardProcessImpl, "add_noise",
        lambda self, x, t, noise=None: ForwardProcessImpl.add_noise(self, x.float(), t, noise))
accepts("integers-break-inside", "Integer images break something deep inside torch.", ForwardProcessImpl, "add_noise",
        lambda self, x, t, noise=None: FORMULAS["forward-add-noise"][2](
            x, torch.randn_like(x) if noise is None else noise, None, coefficient(self.schedule.alphas_cumprod, t, x)).to(x.dtype))
accepts("accepts-any-x_T", "An x_T of another shape is used all the same.", DDPMSampler, "sample",
        lambda self, shape, *args, x_T=None, **kw: DDPMSampler.sample(self, x_T.shape, *args, x_T=x_T, **kw))


def other_error(error_type):
    def method(self, *args):
        try:
            return DDIMSampler.create_timestep_schedule(self, *args)
        except ValueError as error:
            raise error_type(str(error)) from error
    return method


MISTAKES.mistake("bad-input", "asserts", "Bad input is answered with AssertionError.",
                 "An assert vanishes under `python -O`: raise ValueError.")(
    variant(DDIMSampler, "create_timestep_schedule", other_error(AssertionError)))
MISTAKES.mistake("bad-input", "raises-exception", "Bad input is answered with a bare Exception.",
                 "Nobody can catch that one alone: raise ValueError.")(
    variant(DDIMSampler, "create_timestep_schedule", other_error(Exception)))
MISTAKES.mistake("bad-input", "raises-type-error", "Bad input is answered with TypeError.",
                 "A wrong value is a ValueError.")(
    variant(DDIMSampler, "create_timestep_schedule", other_error(TypeError)))

# ---------------------------------------------------------------------------------------------- what no question notices

NOTHING_ADDED = "it only says whether noise with the factor 0 is drawn and added"
DRAWN = "noise that is drawn has no sign"
LAST_NOISE = "on the way to s = 0 the noise is a hundredth of the pixels' range, too little for the samples' moments; the step's own question sees it"
NOT_ASKED = "what becomes of input that makes no sense is asked about the samplers alone"

BLIND_SPOTS = {
    "DDPMSampler.ddpm_step: -1, was 0": NOTHING_ADDED,
    "DDIMSampler.ddim_step: sigma2 >= 0, was sigma2 > 0": NOTHING_ADDED,
    "DDIMSampler.ddim_step: -1, was 0": NOTHING_ADDED,
    "DDIMSampler.create_timestep_schedule: -1, was 0": "it is the axis to flip, and there is only one",
    "StochasticityController.analyze_eta_effects: s > 0, was s >= 0": LAST_NOISE,
    "StochasticityController.analyze_eta_effects: 1, was 0": LAST_NOISE,
    "StochasticityController.analyze_eta_effects: -1, was 0": NOTHING_ADDED,
    "StochasticityController.analyze_eta_effects: x - to_noise[i] * standard_normal_like(x_T, generator).repeat(E, *ones), "
    "was x + to_noise[i] * standard_normal_like(x_T, generator).repeat(E, *ones)": DRAWN,
    "StochasticityController.analyze_eta_effects: 1, was 2": "`sample_diversity` refuses one sample, too, only later",
    "SamplingOptimizer.cached_noise_schedule_sampling: sigma >= 0, was sigma > 0": NOTHING_ADDED,
    "SamplingOptimizer.cached_noise_schedule_sampling: -1, was 0": NOTHING_ADDED,
    "SamplingOptimizer.cached_noise_schedule_sampling: x - sigma * standard_normal_like(x, generator), "
    "was x + sigma * standard_normal_like(x, generator)": DRAWN,
    "benchmark_samplers: 1, was 0": NOT_ASKED,
    "benchmark_samplers: -1, was 0": NOT_ASKED,
    "sample_diversity: 1, was 2": NOT_ASKED,
}
"""Mutants of the reference that get all points, and why: they equal it on all valid input, or the difference is not asked about."""
