import math

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import Recorder, count_calls
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.unet import UNet
from solutions.lab5_sampling import DDIMSampler, DDPMSampler, StochasticityController, sample_diversity

SCHEDULE = NoiseSchedule.linear()
A = SCHEDULE.alphas_cumprod
SHORT = NoiseSchedule.linear(12, 0.02, 0.4)


def controller(model=None, schedule=SCHEDULE):
    return StochasticityController(DDIMSampler(model or GaussianModel(schedule, 0.3, 0.5), schedule))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- compute_stochastic_variance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "s", "variance"), [(420, 400, 0.147720), (980, 960, 0.324605), (487, 486, 0.00979),
                                                  (999, 998, 0.02)])
def test_eta_1_gives_the_published_variances(t, s, variance):
    got = controller().compute_stochastic_variance(t, s, 1.0)
    assert got.shape == () and got.dtype == torch.float64
    assert float(got) == pytest.approx(variance, abs=5e-6 if t - s == 20 else 5e-5)


@settings(deadline=None, max_examples=50)
@given(t=st.integers(1, 999))
def test_on_neighbours_eta_1_gives_the_ddpm_posterior_variance(t):
    expected = float(DDPMSampler(None, SCHEDULE).compute_posterior_variance(t))
    assert float(controller().compute_stochastic_variance(t, t - 1, 1.0)) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None, max_examples=50)
@given(jump=st.integers(1, 999).flatmap(lambda t: st.tuples(st.just(t), st.integers(0, t - 1))), eta=st.floats(0, 1))
def test_the_variance_grows_with_the_square_of_eta_and_fits_into_x_s(jump, eta):
    (t, s), compute = jump, controller().compute_stochastic_variance
    assert float(compute(t, s, eta)) == pytest.approx(eta**2 * float(compute(t, s, 1)), rel=1e-12, abs=1e-300)
    assert 0 < float(compute(t, s, 1)) < 1 - float(A[s])


@pytest.mark.parametrize("t", [0, 500, 999])
def test_the_jump_to_clean_data_is_never_noisy(t):
    assert float(controller().compute_stochastic_variance(t, -1, 1.0)) == 0


@pytest.mark.parametrize(("t", "s"), [(980, 960), (20, 0), (999, 0)])
def test_it_agrees_with_diffusers(t, s):
    theirs = DDIMScheduler(1000, beta_start=1e-4, beta_end=0.02)._get_variance(t, s)
    assert float(controller().compute_stochastic_variance(t, s, 1)) == pytest.approx(float(theirs), rel=5e-4)


@pytest.mark.parametrize(("t", "s", "eta"), [(5, 5, 1.0), (5, 6, 1.0), (1000, 5, 1.0), (5, -2, 1.0), (-1, -1, 1.0),
                                             (5.0, 3, 1.0), (5, 3, -1.0),
                                             (5, 3, math.nan), (5, 3, math.inf), (5, 3, None)])
def test_bad_input_is_refused(refuses, t, s, eta):
    refuses(controller().compute_stochastic_variance, t, s, eta)


# --- analyze_eta_effects ---------------------------------------------------------------------------------------------


def test_the_study_reports_each_etas_samples_diversity_and_sigma():
    study = controller().analyze_eta_effects((6, 1), [0.0, 0.3, 1.0], 7, generator=seeded())
    assert study["eta_values"] == [0.0, 0.3, 1.0]
    assert study["samples"].shape == (3, 6, 1) and not study["samples"].requires_grad
    assert study["diversity"].dtype == torch.float64
    assert study["diversity"].tolist() == pytest.approx([sample_diversity(each) for each in study["samples"]])
    steps = DDIMSampler(None, SCHEDULE).create_timestep_schedule(7).tolist()
    sigma = [[float(controller().compute_stochastic_variance(t, s, eta)) ** 0.5 for t, s in zip(steps, [*steps[1:], -1])]
             for eta in study["eta_values"]]
    assert study["sigma"].dtype == torch.float64 and torch.allclose(study["sigma"],
                                                                    torch.tensor(sigma, dtype=torch.float64), rtol=1e-12)


def test_all_etas_share_starting_noise_and_fresh_noise():
    study = controller().analyze_eta_effects((6, 1), [0.7, 0.0, 0.7, 0.7001], 10, generator=seeded())["samples"]
    assert torch.equal(study[0], study[2]) and torch.allclose(study[0], study[3], atol=1e-3)
    assert not torch.allclose(study[0], study[1], atol=1e-2)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_set_of_the_study_is_what_the_sampler_makes_of_the_same_draws(eta):
    # Both draw x_T first and then one z a step, for one set of B samples.
    sampler = DDIMSampler(GaussianModel(SCHEDULE, 0.3, 0.5, (1, 3, 4)), SCHEDULE)
    study = StochasticityController(sampler).analyze_eta_effects((4, 1, 3, 4), [0.2, eta], 9,
                                                                 generator=seeded(3))["samples"][1]
    assert torch.allclose(study, sampler.sample((4, 1, 3, 4), 9, eta, generator=seeded(3)), atol=2e-5)


def test_the_whole_study_costs_one_network_call_a_step():
    model = Recorder(GaussianModel(SHORT))
    with count_calls() as calls:
        controller(model, SHORT).analyze_eta_effects((5, 1), [0, 0.5, 1], 4)
    seen = model.observed()
    assert calls.nfe == 4 and seen["batch"].tolist() == [15] * 4 and seen["t"].tolist() == [11, 7, 4,
        0] and not seen["grad"].any()


def test_every_set_has_the_labels_of_the_batch():
    torch.manual_seed(0)
    unet = UNet(SHORT, (1, 8, 8), widths=(32, 32), blocks=1)
    for parameter in unet.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    labels = torch.tensor([3, 7, 1])
    study = controller(unet.condition(labels), SHORT).analyze_eta_effects((3, 1, 8, 8), [0.0, 0.0], 3,
                                                                          generator=seeded())["samples"]
    alone = DDIMSampler(unet.condition(labels), SHORT).sample((3, 1, 8, 8), 3, generator=seeded())
    assert torch.allclose(study[0], alone, atol=1e-4) and torch.allclose(study[1], alone, atol=1e-4)
    assert not torch.allclose(alone, DDIMSampler(unet.condition(3), SHORT).sample((3, 1, 8, 8), 3, generator=seeded()),
                              atol=1e-3)


@pytest.mark.parametrize(("shape", "etas", "steps"), [
    ((4, 1), [], 5), ((4, 1), [0.0, -0.5], 5), ((4, 1), [math.nan], 5), ((4, 1), [math.inf], 5), ((4, 1), [5.0], 5),
    ((4, 1), [0.5], 0),
    ((4, 1), [0.5], 13), ((4, 1), [0.5], 2.5), ((1, 1), [0.5], 5), ((4, 0), [0.5], 5), (4, [0.5], 5)])
def test_a_bad_study_is_refused(refuses, shape, etas, steps):
    refuses(controller(schedule=SHORT).analyze_eta_effects, shape, etas, steps)


def test_one_sample_is_refused_before_the_network_is_asked(refuses):
    model = Recorder(GaussianModel(SHORT))
    refuses(controller(model, SHORT).analyze_eta_effects, (1, 1), [0.5], 5)
    assert not model.calls


def test_with_few_steps_fresh_noise_takes_spread_away():
    # No noise is left over: what the guess at the data leaves out, the old noise still carried.
    study = controller(GaussianModel(SCHEDULE, 0.0, 0.5)).analyze_eta_effects((20_000, 1), [0.0, 1.0], 10, generator=seeded())
    deterministic, stochastic = study["samples"].std(dim=1).flatten().tolist()
    assert stochastic < 0.95 * deterministic < 0.95 * 0.5


def test_nan_from_the_model_is_found_at_the_end_and_not_before(chain, refuses):
    model = chain.Broken()
    assert "NaN" in refuses(controller(model, SHORT).analyze_eta_effects, (3, 2), [0.0, 1.0], 12)
    assert model.calls == 12
