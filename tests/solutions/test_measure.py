import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import NoiseModel
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import DDIMSampler, DDPMSampler, benchmark_samplers, sample_diversity

SHORT = NoiseSchedule.linear(12, 0.02, 0.4)
MODEL = GaussianModel(SHORT)


class Slow(NoiseModel):
    sample_shape, num_timesteps = (1,), 12

    def forward(self, x, t):
        time.sleep(0.01)
        return x


def test_a_benchmark_counts_steps_and_calls_of_each_sampler():
    ddim = DDIMSampler(MODEL, SHORT)

    def twice(shape):  # two calls a step, as Heun's method makes them
        for t in (11, 5, 0):
            for _ in range(2):
                MODEL(torch.zeros(shape), torch.full(shape[:1], t))
    found = benchmark_samplers({"DDPM": DDPMSampler(MODEL, SHORT).sample, "DDIM-5": lambda shape: ddim.sample(shape, 5),
                                "twice": twice}, (4, 1))
    assert [(each["name"], each["num_steps"], each["nfe"]) for each in found] == [("DDPM", 12, 12), ("DDIM-5", 5, 5),
                                                                                  ("twice", 3, 6)]
    for each in found:
        assert set(each) == {"name", "num_steps", "nfe", "seconds", "seconds_per_step"}
        assert each["seconds"] > 0 and each["seconds_per_step"] == pytest.approx(each["seconds"] / each["num_steps"])


def test_a_benchmark_measures_wall_time():
    ddim = DDIMSampler(Slow(), SHORT)
    few, many = benchmark_samplers({"3": lambda shape: ddim.sample(shape, 3), "12": lambda shape: ddim.sample(shape, 12)},
                                   (2, 1))
    assert 0.03 <= few["seconds"] < many["seconds"] and many["seconds"] >= 0.12


def test_every_sampler_gets_the_shape():
    shapes = []
    benchmark_samplers({"a": lambda shape: shapes.append(shape) or MODEL(torch.zeros(shape),
                                                                         torch.zeros(3, dtype=torch.long))}, (3, 1))
    assert shapes == [(3, 1)]


def test_nothing_to_measure_is_refused(refuses):
    refuses(benchmark_samplers, {}, (4, 1))
    assert "no call" in refuses(benchmark_samplers, {"idle": lambda shape: torch.zeros(shape)}, (4, 1))


@settings(deadline=None, max_examples=30)
@given(B=st.integers(2, 8), shape=st.sampled_from([(1,), (3,), (1, 2, 5), (4, 3)]), seed=st.integers(0, 10**6))
def test_diversity_is_the_mean_rms_distance_over_all_pairs(B, shape, seed):
    x = torch.randn(B, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    pairs = [(i, j) for i in range(B) for j in range(i)]
    expected = sum(float((x[i] - x[j]).square().mean().sqrt()) for i, j in pairs) / len(pairs)
    diversity = sample_diversity(x)
    assert isinstance(diversity, float) and diversity == pytest.approx(expected, rel=1e-10)
    assert sample_diversity(x.flip(0)) == pytest.approx(expected, rel=1e-10)
    assert sample_diversity(3 * x + 1) == pytest.approx(3 * expected)


def test_copies_have_no_diversity_and_independent_noise_has_sqrt_2():
    assert sample_diversity(torch.ones(5, 1, 4, 4)) == 0
    assert sample_diversity(torch.randn(50, 4000, generator=torch.Generator().manual_seed(0))) == pytest.approx(2**0.5,
        rel=0.01)


def test_one_sample_has_no_diversity_to_measure(refuses):
    refuses(sample_diversity, torch.zeros(1, 3))
