import math

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.analytic import GaussianModel
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import DDIMSampler, DDPMSampler

SCHEDULE = NoiseSchedule.linear()
A = SCHEDULE.alphas_cumprod
SHORT = NoiseSchedule.linear(12, 0.02, 0.4)
ETAS = [0, 0.3, 0.5, 1]
TYPES = ["uniform", "trailing", "quadratic"]

jumps = st.integers(0, 999).flatmap(lambda t: st.tuples(st.just(t), st.integers(-1, t - 1)))


def alpha_bar(s, schedule=SCHEDULE):
    return 1.0 if s == -1 else float(schedule.alphas_cumprod[s])


def normal(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def zero(x, t):
    return torch.zeros_like(x)


def knowing(x0):
    """A sampler whose model knows x_0, so that its noise prediction is the true noise."""
    return DDIMSampler(GaussianModel(SCHEDULE, x0, 0, tuple(x0.shape)), SCHEDULE)


# --- predict_x0_from_eps ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(t=st.integers(0, 999), seed=st.integers(0, 10**6))
def test_the_clean_image_is_recovered_from_the_true_noise(t, seed):
    x0, eps = normal((2, 3), seed), normal((2, 3), seed + 1)
    x_t = A[t].sqrt() * x0 + (1 - A[t]).sqrt() * eps
    assert torch.allclose(DDIMSampler(zero, SCHEDULE).predict_x0_from_eps(x_t, eps, t), x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2), (4, 1, 4, 4), (4, 2, 3, 4), (2, 1, 5, 7), (5, 8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_clean_image_takes_one_timestep_each_or_one_for_all(shape, dtype):
    sampler, x, eps, t = DDIMSampler(zero, SCHEDULE), normal(shape, 0, dtype), normal(shape, 1,
                                                                                      dtype), torch.arange(shape[0]) * 199
    together = sampler.predict_x0_from_eps(x, eps, t)
    alone = torch.cat([sampler.predict_x0_from_eps(x[i:i + 1], eps[i:i + 1], int(t[i])) for i in range(shape[0])])
    assert together.shape == shape and together.dtype == dtype
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)


# --- ddim_step -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(jump=jumps, seed=st.integers(0, 10**6))
def test_with_exact_eps_a_deterministic_step_stays_on_the_forward_trajectory(jump, seed):
    (t, s), x0, eps = jump, normal((2, 3), seed), normal((4, 2, 3), seed + 1)
    x_t = A[t].sqrt() * x0 + (1 - A[t]).sqrt() * eps
    expected = alpha_bar(s) ** 0.5 * x0 + (1 - alpha_bar(s)) ** 0.5 * eps
    assert torch.allclose(knowing(x0).ddim_step(x_t, t, s), expected, rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=30)
@given(stops=st.sets(st.integers(-1, 999), min_size=3, max_size=3).map(lambda s: sorted(s, reverse=True)))
def test_with_exact_eps_two_steps_lead_where_one_does(stops):
    t, r, s = stops
    sampler, x = knowing(normal((2, 3))), normal((4, 2, 3), 1)
    twice = sampler.ddim_step(sampler.ddim_step(x, t, r), r, s)
    assert torch.allclose(twice, sampler.ddim_step(x, t, s), rtol=1e-11, atol=1e-10)


def test_a_step_that_goes_nowhere_is_refused_and_one_that_hardly_goes_hardly_moves(refuses):
    refuses(DDIMSampler(zero, SCHEDULE).ddim_step, torch.zeros(2, 3), 5, 5)
    tiny = NoiseSchedule.from_betas([0.3, 1e-12])
    x, sampler = normal((4, 3)), DDIMSampler(lambda x, t: torch.sin(x), tiny)
    assert torch.allclose(sampler.ddim_step(x, 1, 0), x, rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=80)
@given(jump=jumps, eta=st.sampled_from(ETAS), x0=st.floats(-1, 1))
def test_with_the_true_noise_any_eta_keeps_the_forward_marginals(jump, eta, x0):
    # x_s is linear in eps and z: its answers to (0, 0), (1, 0) and (0, 1) give its mean and its variance's two parts.
    t, s = jump
    eps, z = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64), torch.tensor([[0.0], [0.0], [1.0]],
                                                                                    dtype=torch.float64)
    x_t = A[t].sqrt() * x0 + (1 - A[t]).sqrt() * eps
    mean, by_eps, by_z = knowing(torch.tensor([x0], dtype=torch.float64)).ddim_step(x_t, t, s, eta,
                                                                                    noise=z).flatten().tolist()
    assert mean == pytest.approx(alpha_bar(s) ** 0.5 * x0, rel=1e-12, abs=1e-13)
    assert (by_eps - mean) ** 2 + (by_z - mean) ** 2 == pytest.approx(1 - alpha_bar(s), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(jump=jumps, seed=st.integers(0, 10**6))
def test_eta_1_is_ddpm_on_the_subsequence_over_any_jump(jump, seed):
    (t, s), x, eps, noise = jump, normal((5, 3), seed), normal((5, 3), seed + 1), normal((5, 3), seed + 2)
    # The subsequence's betas: one from s to t, and one from clean data to s.
    betas = [1 - alpha_bar(t)] if s == -1 else [1 - alpha_bar(s), 1 - alpha_bar(t) / alpha_bar(s)]
    ddpm = DDPMSampler(lambda x, t: eps, NoiseSchedule.from_betas(betas)).ddpm_step(x, len(betas) - 1, noise=noise)
    ddim = DDIMSampler(lambda x, t: eps, SCHEDULE).ddim_step(x, t, s, 1.0, noise=noise)
    assert float((ddim - ddpm).norm() / ddpm.norm()) < 1e-12


@pytest.mark.parametrize(("steps", "kind"), [(7, "uniform"), (50, "uniform"), (33, "trailing"), (20, "quadratic")])
def test_eta_1_is_ddpm_on_the_subsequence_over_a_whole_chain(steps, kind):
    model = GaussianModel(SCHEDULE, 0.3, 0.5)
    ddim = DDIMSampler(model, SCHEDULE)
    visited = ddim.create_timestep_schedule(steps, kind)
    A_rising = A[visited.flip(0)]
    rederived = NoiseSchedule.from_betas(1 - A_rising / torch.cat([torch.ones(1, dtype=torch.float64), A_rising[:-1]]))
    ddpm = DDPMSampler(lambda x, i: model(x, visited.flip(0)[i]), rederived)
    x = y = normal((6, 1), 3)
    for i, (t, s) in enumerate(zip(visited.tolist(), [*visited.tolist()[1:], -1])):
        noise = normal((6, 1), 10 + i)
        x, y = ddim.ddim_step(x, t, s, 1.0, noise=noise), ddpm.ddpm_step(y, steps - 1 - i, noise=noise)
        assert torch.allclose(x, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(("std", "steps"), [(0.4, 5), (1.0, 12), (0.0, 7)])
def test_with_the_exact_gaussian_the_chain_follows_the_closed_form_recursion(chain, eta, std, steps):
    mean, sampler = 0.7, DDIMSampler(GaussianModel(SHORT, 0.7, std), SHORT)
    visited = sampler.create_timestep_schedule(steps).tolist()
    jumps = list(zip(visited, [*visited[1:], -1]))
    x, noises = chain.impulses(steps)
    for noise, (t, s) in zip(noises, jumps):
        x = sampler.ddim_step(x, t, s, eta, noise=noise)
    # E[x_0 | x_t] = mean + g (x_t - r mean) with r = sqrt(A_t); eps is what x_t holds beside r x_0, in units of
    # u = sqrt(1 - A_t).
    m, v = 0.0, 1.0
    for t, s in jumps:
        A_t, A_s = alpha_bar(t, SHORT), alpha_bar(s, SHORT)
        r, u = math.sqrt(A_t), math.sqrt(1 - A_t)
        g = r * std**2 / (r * r * std**2 + u * u)
        fresh = eta**2 * (1 - A_s) / (1 - A_t) * (1 - A_t / A_s)
        kept = math.sqrt(1 - A_s - fresh) / u
        slope = math.sqrt(A_s) * g + kept * (1 - r * g)
        m = math.sqrt(A_s) * mean + slope * (m - r * mean)
        v = slope**2 * v + fresh
    assert chain.moments(x) == pytest.approx((m, v), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_the_datas_moments_are_reached_only_as_steps_grow(chain, eta):
    sampler, errors = DDIMSampler(GaussianModel(SCHEDULE, 0.7, 0.4), SCHEDULE), []
    for steps in (5, 50, 1000):
        visited = sampler.create_timestep_schedule(steps).tolist()
        x, noises = chain.impulses(steps)
        for noise, (t, s) in zip(noises, zip(visited, [*visited[1:], -1])):
            x = sampler.ddim_step(x, t, s, eta, noise=noise)
        errors.append(abs(chain.moments(x)[1] - 0.4**2))
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 0.005


def test_samples_have_the_moments_that_the_chain_predicts(chain):
    sampler = DDIMSampler(GaussianModel(SCHEDULE, 0.7, 0.4), SCHEDULE)
    visited = sampler.create_timestep_schedule(20).tolist()
    x, noises = chain.impulses(20)
    for noise, (t, s) in zip(noises, zip(visited, [*visited[1:], -1])):
        x = sampler.ddim_step(x, t, s, 0.5, noise=noise)
    mean, variance = chain.moments(x)
    samples = sampler.sample((40_000, 1), 20, 0.5, generator=torch.Generator().manual_seed(0))
    assert float(samples.mean()) == pytest.approx(mean, abs=5 * (variance / 40_000) ** 0.5)
    assert float(samples.var()) == pytest.approx(variance, rel=5 * (2 / 40_000) ** 0.5)


@pytest.mark.parametrize("eta", [0.3, 0.5, 1])
def test_fresh_noise_has_the_published_variance(eta):
    sampler, z = DDIMSampler(zero, SCHEDULE), torch.ones(1, 1, dtype=torch.float64)
    for (t, s), variance in {(420, 400): 0.147720, (980, 960): 0.324605, (487, 486): 0.00979, (999, 998): 0.02}.items():
        sigma = sampler.ddim_step(z, t, s, eta, noise=z) - sampler.ddim_step(z, t, s, eta, noise=0 * z)
        assert float(sigma) ** 2 == pytest.approx(eta**2 * variance, rel=5e-3)


def test_at_eta_0_and_on_the_last_step_noise_changes_nothing():
    sampler, x = DDIMSampler(lambda x, t: torch.sin(x), SCHEDULE), normal((4, 3))
    for t, s, eta in ((500, 400, 0.0), (0, -1, 1.0), (999, -1, 1.0)):
        state = torch.random.get_rng_state()
        steps = [sampler.ddim_step(x, t, s, eta, noise=noise) for noise in (None, normal((4, 3), 1), normal((4, 3), 2))]
        assert torch.equal(steps[0], steps[1]) and torch.equal(steps[0], steps[2])
        assert torch.equal(state, torch.random.get_rng_state())  # and none is drawn


def test_a_step_leaves_its_inputs_alone_and_keeps_the_dtype_of_x():
    sampler, x, noise = DDIMSampler(lambda x, t: x.double(), SCHEDULE), normal((3, 2), 0, torch.float32), normal((3, 2), 1)
    before = x.clone(), noise.clone()
    assert sampler.ddim_step(x, 500, 300, 0.5, noise=noise).dtype == torch.float32
    assert torch.equal(x, before[0]) and torch.equal(noise, before[1])


def test_an_eta_above_1_works_as_long_as_there_is_noise_to_take(refuses):
    sampler, x = DDIMSampler(zero, SCHEDULE), normal((3, 2))
    assert bool(torch.isfinite(sampler.ddim_step(x, 500, 499, 1.5)).all())
    assert "eta is too large" in refuses(sampler.ddim_step, x, 900, 100, 1.5)


# --- create_timestep_schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("T", [1, 2, 3, 7, 50, 200, 1000])
def test_every_schedule_is_distinct_falling_and_in_range_for_every_length(kind, T):
    sampler = DDIMSampler(zero, NoiseSchedule.linear(T))
    for n in range(1, T + 1):
        steps = sampler.create_timestep_schedule(n, kind)
        assert steps.dtype == torch.int64 and steps.shape == (n,)
        assert bool((steps.diff() < 0).all()) and int(steps[0]) == T - 1 and int(steps[-1]) >= 0
        if kind != "trailing" and n > 1:
            assert int(steps[-1]) == 0


def test_schedules_lie_where_they_should():
    create = DDIMSampler(zero, SCHEDULE).create_timestep_schedule
    assert create(5).tolist() == [999, 749, 500, 250, 0]
    assert create(4, "trailing").tolist() == [999, 749, 499, 249]
    assert create(3, "trailing").tolist() == [999, 666, 332]
    assert create(5, "quadratic").tolist() == [999, 562, 250, 62, 0]
    assert [create(1, kind).tolist() for kind in TYPES] == [[999]] * 3
    assert all(create(1000, kind).tolist() == list(range(999, -1, -1)) for kind in TYPES)


def test_quadratic_is_dense_near_clean_data_and_the_others_are_even():
    create = DDIMSampler(zero, SCHEDULE).create_timestep_schedule
    gaps = {kind: -create(50, kind).diff() for kind in TYPES}
    assert int((create(50, "quadratic") < 250).sum()) == 25
    assert bool((gaps["quadratic"].diff() <= 1).all()) and int(gaps["quadratic"][0]) > 30
    for kind in ("uniform", "trailing"):
        assert int(gaps[kind].max() - gaps[kind].min()) <= 1


@pytest.mark.parametrize(("steps", "kind"), [(0, "uniform"), (-1, "uniform"), (1001, "trailing"), (2.5, "uniform"),
                                             (50.0, "uniform"),
                                             (None, "uniform"), ("50", "uniform"), (True, "uniform"), (50, "cosine"),
                                             (50, None), (50, "Uniform")])
def test_impossible_schedules_are_refused(refuses, steps, kind):
    refuses(DDIMSampler(zero, SCHEDULE).create_timestep_schedule, steps, kind)


# --- sample ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 2), (4, 1, 3, 4), (4, 2, 5, 4), (2, 8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eta", [0, 0.5])
def test_sampling_asks_the_model_once_a_step_at_the_listed_timesteps(chain, shape, dtype, eta):
    model = chain.Strict(SHORT, shape[1:], dtype).train()
    x_T = normal(shape, 3, dtype)
    before = x_T.clone()
    x, trajectory = DDIMSampler(model, SHORT).sample(shape, [11, 6, 2], eta, True, x_T=x_T)
    assert model.asked == [11, 6, 2]
    assert x.shape == shape and x.dtype == dtype and not x.requires_grad
    assert trajectory.shape == (4, *shape) and torch.equal(trajectory[0], before) and torch.equal(trajectory[-1], x)
    assert torch.equal(x_T, before)


@pytest.mark.parametrize(("timesteps", "asked"), [
    (None, [999, 979, 958]), (3, [999, 500, 0]), (1, [999]), ([700, 30], [700, 30]), ((5,), [5]),
    (range(9, -1, -3), [9, 6, 3]),
    (torch.tensor([700, 30]), [700, 30]), (torch.tensor([8, 0], dtype=torch.int32), [8, 0]), (torch.tensor(2), [999, 0])])
def test_timesteps_may_be_none_or_a_number_or_a_list_or_a_tensor(chain, timesteps, asked):
    model = chain.Strict(SCHEDULE, (2,))
    DDIMSampler(model, SCHEDULE).sample((3, 2), timesteps)
    assert model.asked[:3] == asked and (timesteps is not None or len(model.asked) == 50)


def test_by_default_a_short_schedule_is_walked_whole(chain):
    model = chain.Strict(SHORT, (2,))
    DDIMSampler(model, SHORT).sample((3, 2))
    assert model.asked == list(range(11, -1, -1))


def test_a_chain_is_its_steps_one_after_the_other_and_ends_at_clean_data():
    sampler, x_T = DDIMSampler(GaussianModel(SCHEDULE, 0.3, 0.5), SCHEDULE), normal((4, 1))
    by_hand = sampler.ddim_step(sampler.ddim_step(x_T, 999, 400), 400, -1)
    assert torch.equal(sampler.sample((4, 1), [999, 400], x_T=x_T), by_hand)


def test_a_known_x0_is_reached_exactly():
    x0 = normal((2, 3))
    x = knowing(x0).sample((4, 2, 3), 10, x_T=normal((4, 2, 3), 1))
    assert torch.allclose(x, x0.expand(4, 2, 3), rtol=0, atol=1e-11)  # no residual noise from a chain that stops at t = 0


def test_a_trajectory_is_a_copy_of_its_own():
    x_T = normal((3, 2), 1)
    x, trajectory = DDIMSampler(zero, SHORT).sample((3, 2), 5, 0.0, True, x_T=x_T)
    kept = trajectory.clone()
    x.zero_(), x_T.zero_(), trajectory[3].zero_()
    assert torch.equal(trajectory[[0, 2, 4, -1]], kept[[0, 2, 4, -1]])


def test_the_same_generator_gives_the_same_samples_and_another_does_not():
    sampler = DDIMSampler(GaussianModel(SHORT), SHORT)
    a, b, c = (sampler.sample((4, 1), 5, 1.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c)
    assert len(a.unique()) == 4


def test_at_eta_0_the_starting_noise_decides_and_above_it_does_not():
    sampler, x_T = DDIMSampler(GaussianModel(SHORT), SHORT), normal((4, 1))
    assert torch.equal(*(sampler.sample((4, 1), 5, 0.0, x_T=x_T) for _ in range(2)))
    assert not torch.allclose(*(sampler.sample((4, 1), 5, 0.5, x_T=x_T) for _ in range(2)))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "timesteps"), [("trailing", None), ("leading", list(range(980, -1, -20)))])
def test_it_agrees_with_diffusers_where_its_previous_timestep_is_right(eta, spacing, timesteps):
    # Their step goes from t to t - T // S, whatever the list says: right for these two spacings where S divides T.
    model = GaussianModel(SCHEDULE, 0.3, 0.5, (1, 4, 4))
    theirs = DDIMScheduler(1000, beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True,
                           timestep_spacing=spacing)
    theirs.set_timesteps(50)
    ours = DDIMSampler(model, SCHEDULE)
    timesteps = timesteps or ours.create_timestep_schedule(50, "trailing").tolist()
    assert theirs.timesteps.tolist() == timesteps
    x = y = normal((3, 1, 4, 4), 0)
    for i, (t, s) in enumerate(zip(timesteps, [*timesteps[1:], -1])):
        noise = normal((3, 1, 4, 4), 100 + i)
        x = ours.ddim_step(x, t, s, eta, noise=noise)
        y = theirs.step(model(y, torch.full((3,), t)), t, y, eta=eta, variance_noise=noise).prev_sample
        assert torch.allclose(x, y, atol=2e-3)


def test_nan_from_the_model_is_found_at_the_end_and_not_before(chain, refuses):
    model = chain.Broken()
    assert "NaN" in refuses(DDIMSampler(model, SHORT).sample, (3, 2), 12)
    assert model.calls == 12


@pytest.mark.parametrize("timesteps", [[], [5, 5], [3, 8], [12], [4, -1], [4.0, 2.0], torch.tensor([4.5, 2.0]),
                                       torch.tensor([[4, 2]]),
                                       torch.tensor([], dtype=torch.long), 0, 13, -5, 2.5, True, "uniform", {}])
def test_bad_timesteps_are_refused(refuses, timesteps):
    refuses(DDIMSampler(zero, SHORT).sample, (3, 2), timesteps)


@pytest.mark.parametrize("eta", [-0.1, math.nan, math.inf, "1", None])
def test_bad_etas_are_refused(refuses, eta):
    sampler = DDIMSampler(zero, SHORT)
    refuses(sampler.sample, (3, 2), 5, eta)
    refuses(sampler.ddim_step, torch.zeros(3, 2), 5, 3, eta)


@pytest.mark.parametrize(("t", "s"), [(5, 6), (5, -2), (12, 3), (-1, -1), (5.0, 3), (5, 3.0), (5, None)])
def test_bad_jumps_are_refused(refuses, t, s):
    refuses(DDIMSampler(zero, SHORT).ddim_step, torch.zeros(3, 2), t, s)


def test_shapes_and_kinds_that_disagree_are_refused(refuses):
    sampler = DDIMSampler(zero, SHORT)
    refuses(sampler.ddim_step, torch.zeros(2, 3), 5, 3, 1.0, noise=torch.zeros(2, 1))
    refuses(sampler.ddim_step, torch.zeros(2, 3, dtype=torch.uint8), 5, 3)
    refuses(sampler.predict_x0_from_eps, torch.zeros(2, 3), torch.zeros(2, 1), 5)
    refuses(sampler.predict_x0_from_eps, torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3), 5)
    refuses(sampler.predict_x0_from_eps, torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1, 12]))
    refuses(sampler.sample, (2, 3), x_T=torch.zeros(3, 2))
    refuses(sampler.sample, (2, 3), x_T=torch.zeros(2, 3, dtype=torch.int64))
    refuses(sampler.sample, (2, 0))
    refuses(DDIMSampler(lambda x, t: x[:, :1], SHORT).sample, (2, 3))
