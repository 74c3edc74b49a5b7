import math
import weakref

import pytest
import torch

from diffusionlab.analytic import GaussianMixture, GaussianModel
from diffusionlab.noise_model import NoiseModel, Recorder
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import DDIMSampler, SamplingOptimizer

SCHEDULE = NoiseSchedule.linear()
SHORT = NoiseSchedule.linear(12, 0.02, 0.4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ring(schedule=SCHEDULE):
    return DDIMSampler(GaussianMixture.ring(schedule), schedule)


# --- cached_noise_schedule_sampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_caching_changes_nothing_in_the_result(eta, steps):
    sampler, x_T = ring(), torch.randn(16, 2, dtype=torch.float64, generator=seeded(1))
    cached = SamplingOptimizer(sampler).cached_noise_schedule_sampling(sampler, (16, 2), steps, eta=eta, x_T=x_T,
                                                                       generator=seeded(2))
    plain = sampler.sample((16, 2), steps, eta, x_T=x_T, generator=seeded(2))
    assert cached.dtype == torch.float64 and torch.allclose(cached, plain, rtol=1e-8, atol=1e-9)


def test_what_is_cached_belongs_to_its_steps_its_eta_and_its_schedule():
    optimizer, x_T = SamplingOptimizer(ring()), torch.randn(8, 2, dtype=torch.float64, generator=seeded(1))
    for sampler in (ring(), ring(NoiseSchedule.cosine(1000)), ring()):
        for steps, eta in ((5, 0.0), (5, 1.0), (6, 0.0), (5, 0.0)):
            cached = optimizer.cached_noise_schedule_sampling(sampler, (8, 2), steps, eta=eta, x_T=x_T, generator=seeded(2))
            assert torch.allclose(cached, sampler.sample((8, 2), steps, eta, x_T=x_T, generator=seeded(2)), rtol=1e-7,
                                  atol=1e-8)


def test_coefficients_are_computed_once(monkeypatch):
    sampler, made = ring(), []
    create = sampler.create_timestep_schedule
    monkeypatch.setattr(sampler, "create_timestep_schedule", lambda n: made.append(n) or create(n))
    optimizer = SamplingOptimizer(sampler)
    for _ in range(3):
        optimizer.cached_noise_schedule_sampling(sampler, (2, 2), 5)
    assert made == [5]


def test_cached_sampling_asks_the_model_as_plain_sampling_does():
    model = Recorder(GaussianModel(SHORT, sample_shape=(1, 3, 4))).train()
    sampler, x_T = DDIMSampler(model, SHORT), torch.randn(3, 1, 3, 4)
    before = x_T.clone()
    x = SamplingOptimizer(sampler).cached_noise_schedule_sampling(sampler, (3, 1, 3, 4), 4, x_T=x_T)
    seen = model.observed()
    assert seen["t"].tolist() == [11, 7, 4, 0] and not seen["grad"].any() and not seen["training"].any()
    assert x.shape == (3, 1, 3, 4) and torch.equal(x_T, before)


@pytest.mark.parametrize(("shape", "steps", "options"), [
    ((4, 2), 0, {}), ((4, 2), 13, {}), ((4, 2), -1, {}), ((4, 2), 2.5, {}), ((4, 2), 5.0, {}), ((4, 2), [5], {}),
    ((4, 2), 5, {"eta": -1.0}),
    ((4, 2), 5, {"eta": math.nan}), ((4, 2), 5, {"eta": math.inf}), ((4, 2), 5, {"eta": 5.0}), ((4, 0), 5, {}), (4, 5, {}),
    ((4, 2), 5, {"x_T": torch.zeros(2, 4)}), ((4, 2), 5, {"x_T": torch.zeros(4, 2, dtype=torch.uint8)})])
def test_bad_input_is_refused_also_once_a_good_one_is_cached(refuses, shape, steps, options):
    sampler = ring(SHORT)
    optimizer = SamplingOptimizer(sampler)
    optimizer.cached_noise_schedule_sampling(sampler, (4, 2), 5)
    refuses(optimizer.cached_noise_schedule_sampling, sampler, shape, steps, **options)


def test_a_broken_model_is_refused(chain, refuses):
    broken = DDIMSampler(chain.Broken(), SHORT)
    assert "NaN" in refuses(SamplingOptimizer(broken).cached_noise_schedule_sampling, broken, (4, 2), 12)
    narrow = DDIMSampler(lambda x, t: x[:, :1], SHORT)
    refuses(SamplingOptimizer(narrow).cached_noise_schedule_sampling, narrow, (4, 2), 12)


# --- batch_sampling_with_memory_management ---------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "batch"), [(10, 4), (8, 4), (3, 8), (1, 1), (7, 1)])
def test_the_remainder_is_kept(total, batch):
    model = Recorder(GaussianMixture.ring(SHORT))
    samples = SamplingOptimizer(DDIMSampler(model, SHORT)).batch_sampling_with_memory_management(total, batch, num_steps=3,
        eta=0.5)
    assert samples.shape == (total, 2) and samples.device.type == "cpu" and bool(torch.isfinite(samples).all())
    sizes = model.observed()["batch"].tolist()[::3]
    assert sizes == [batch] * (total // batch) + ([total % batch] if total % batch else [])


def test_at_eta_0_the_samples_do_not_depend_on_the_batch_size():
    optimizer = SamplingOptimizer(ring())
    made = [optimizer.batch_sampling_with_memory_management(11, batch, num_steps=6, generator=seeded(4)) for batch in (1, 4,
        11, 50)]
    assert all(torch.allclose(each, made[0], atol=1e-6) for each in made)
    assert float(torch.pdist(made[0]).min()) > 0  # and no batch repeats another


def test_above_eta_0_every_batch_has_noise_of_its_own():
    x = SamplingOptimizer(ring(SHORT)).batch_sampling_with_memory_management(9, 3, num_steps=4, eta=1.0, generator=seeded())
    assert float(torch.pdist(x).min()) > 0


class Counting(NoiseModel):
    """Remembers how many samples were alive in the tensors that it has seen or made, at worst."""

    sample_shape, num_timesteps = (50,), 12

    def __init__(self):
        super().__init__()
        self.tensors, self.most = weakref.WeakSet(), 0

    def forward(self, x, t):
        eps = x / 2
        self.tensors.add(x), self.tensors.add(eps)
        storages = {each.untyped_storage().data_ptr(): len(each) for each in self.tensors}
        self.most = max(self.most, sum(storages.values()))
        return eps


def test_the_device_never_holds_more_than_one_batch():
    def most(total, batch):
        model = Counting()
        SamplingOptimizer(DDIMSampler(model, SHORT)).batch_sampling_with_memory_management(total, batch, num_steps=5)
        return model.most
    # What the network is given and what it gives back, the batch before it not being alive any more.
    assert most(4, 4) == most(40, 4) == most(400, 4) <= 3 * 4


def test_the_shape_of_a_sample_is_the_models_unless_given():
    optimizer = SamplingOptimizer(DDIMSampler(GaussianModel(SHORT, sample_shape=(1, 3, 5)), SHORT))
    assert optimizer.batch_sampling_with_memory_management(3, 2, num_steps=2).shape == (3, 1, 3, 5)
    assert optimizer.batch_sampling_with_memory_management(3, 2, sample_shape=[7], num_steps=2).shape == (3, 7)


def test_the_same_generator_gives_the_same_samples():
    optimizer = SamplingOptimizer(ring(SHORT))
    a, b, c = (optimizer.batch_sampling_with_memory_management(7, 3, num_steps=4, eta=1.0,
                                                               generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c)


@pytest.mark.parametrize(("total", "batch", "options"), [
    (0, 4, {}), (-1, 4, {}), (2.5, 4, {}), (8, 0, {}), (8, -2, {}), (8, 2.0, {}), (8, None, {}), (8, 4, {"num_steps": 0}),
    (8, 4, {"num_steps": 13}),
    (8, 4, {"eta": -1.0}), (8, 4, {"eta": math.nan}), (8, 4, {"sample_shape": (0,)}), (8, 4, {"sample_shape": (-1,)}),
    (8, 4, {"sample_shape": ()})])
def test_bad_batches_are_refused(refuses, total, batch, options):
    refuses(SamplingOptimizer(ring(SHORT)).batch_sampling_with_memory_management, total, batch,
            **({"num_steps": 3} | options))


def test_without_a_shape_from_anywhere_it_asks_for_one(refuses):
    optimizer = SamplingOptimizer(DDIMSampler(lambda x, t: x, SHORT))
    assert "sample_shape" in refuses(optimizer.batch_sampling_with_memory_management, 4, 2, num_steps=3)
    assert optimizer.batch_sampling_with_memory_management(4, 2, sample_shape=(2,), num_steps=3).shape == (4, 2)
