import pytest
import torch

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import count_calls
from diffusionlab.schedule import NoiseSchedule
from solutions import evaluation
from solutions.lab5_sampling import DDIMSampler, bench

SCHEDULE = NoiseSchedule.linear()
MODEL = GaussianModel(SCHEDULE)


@pytest.fixture(scope="module")
def cycles():
    return bench.interleave(bench.contenders(MODEL, SCHEDULE), (4, 1), 2, "test")


def test_every_contender_is_timed_in_every_cycle_and_ddpm_in_each_repeat(cycles):
    names = ["DDPM-1000", "DDIM-100", "DDIM-50", "DDIM-20", "DDIM-10", "DDIM-50, cached", bench.BARE, bench.DIFFUSERS]
    assert list(cycles[0]) == names and list(cycles[1]) == names[1:]
    assert [bench.DDPM in cycle for cycle in cycles] == [True, False, False] * 2


def test_all_make_the_network_calls_that_their_names_say(cycles):
    calls = {name: each["nfe"] for name, each in cycles[0].items()}
    assert list(calls.values()) == [1000, 100, 50, 20, 10, 50, 50, 50]
    assert all(each["num_steps"] == each["nfe"] for each in cycles[0].values())


def test_the_contenders_visit_the_same_timesteps():
    seen = {}
    for name in ("DDIM-50", "DDIM-50, cached", bench.BARE, bench.DIFFUSERS):
        with count_calls() as calls:
            bench.contenders(MODEL, SCHEDULE)[name]((4, 1))
        assert all(t.shape == (4,) and t.dtype == torch.int64 for t in calls.t)
        seen[name] = [int(t[0]) for t in calls.t]
    assert set(map(tuple, seen.values())) == {tuple(DDIMSampler(MODEL, SCHEDULE).create_timestep_schedule(50).tolist())}


def test_overhead_is_the_median_beyond_the_bare_loop_of_the_same_cycle():
    def cycle(step, bare):
        return {"a": {"seconds_per_step": step}, bench.BARE: {"seconds_per_step": bare}}
    assert bench.overhead([cycle(0.011, 0.010), cycle(0.032, 0.030), cycle(0.5, 0.1),
                           {bench.BARE: {"seconds_per_step": 9}}], "a") == pytest.approx(2)


def test_samples_of_an_evaluation_are_made_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "read_card", lambda name: {"sha256": "0123456789abcdef"})
    made = []

    def make(labels, generator):
        made.append(labels.tolist())
        if len(made) == 2:
            raise KeyboardInterrupt  # stopped in the middle
        return torch.randn(len(labels), 2, generator=generator)
    with pytest.raises(KeyboardInterrupt):
        evaluation.samples("cell", 300, 0, make)
    x = evaluation.samples("cell", 300, 0, make)
    assert [len(labels) for labels in made] == [125, 125, 125, 50]
    assert sum(made[:1] + made[2:], []) == [i % 10 for i in range(300)]
    assert x.shape == (300, 2) and len(x.unique()) == 600  # no batch repeats another
    assert torch.equal(x, evaluation.samples("cell", 300, 0, make)) and len(made) == 4
