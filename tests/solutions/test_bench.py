import json
from functools import partial

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


def test_every_contender_is_timed_before_and_after_ddpm_in_every_cycle(cycles):
    names = ["DDPM-1000", "DDIM-100", "DDIM-50", "DDIM-20", "DDIM-10", "DDIM-50, cached", bench.BARE, bench.DIFFUSERS]
    assert len(cycles) == 2
    assert [{name: len(records) for name, records in cycle.items()} for cycle in cycles] == [dict(zip(names, [1] + [2] * 7))] * 2


def test_all_make_the_network_calls_that_their_names_say(cycles):
    assert [records[0]["nfe"] for records in cycles[0].values()] == [1000, 100, 50, 20, 10, 50, 50, 50]
    assert all(each["num_steps"] == each["nfe"] for records in cycles[0].values() for each in records)


def test_a_timestep_tensor_that_is_filled_anew_for_each_call_is_counted_as_it_was():
    t = torch.zeros(4, dtype=torch.int64)
    with count_calls() as calls:
        for step in (9, 5, 1):
            MODEL(torch.zeros(4, 1), t.fill_(step))
    assert calls.num_steps == 3 and [int(each[0]) for each in calls.t] == [9, 5, 1]


def test_the_contenders_visit_the_same_timesteps():
    seen = {}
    for name in ("DDIM-50", "DDIM-50, cached", bench.BARE, bench.DIFFUSERS):
        with count_calls() as calls:
            bench.contenders(MODEL, SCHEDULE)[name]((4, 1))
        assert all(t.shape == (4,) and t.dtype == torch.int64 for t in calls.t)
        seen[name] = [int(t[0]) for t in calls.t]
    assert set(map(tuple, seen.values())) == {tuple(DDIMSampler(MODEL, SCHEDULE).create_timestep_schedule(50).tolist())}


def test_numbers_are_taken_within_a_cycle_and_their_median_counts():
    def cycle(scale):  # the same samplers while the machine is slower by a factor
        return {"a": [{"seconds": 0.5 * scale}, {"seconds": 1.5 * scale}], "b": [{"seconds": 4 * scale}]}
    assert bench.within([cycle(1), cycle(3), cycle(10)], "seconds", lambda own, others: others["b"] / own) == {"a": 4, "b": 1}
    assert bench.within([cycle(1), cycle(3), cycle(10)], "seconds", lambda own, others: own) == {"a": 3, "b": 12}


def test_overhead_is_the_time_beyond_the_bare_loop():
    def cycle(step, bare):
        return {"a": [{"seconds_per_step": step}], bench.BARE: [{"seconds_per_step": bare}]}
    assert bench.overhead([cycle(0.011, 0.010), cycle(0.032, 0.030), cycle(0.5, 0.1)]) == pytest.approx({"a": 2, bench.BARE: 0})


def test_the_command_prints_its_figures_and_writes_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "load_pretrained", lambda data, device: MODEL)
    monkeypatch.setattr(bench, "BATCHES", {"cpu": (1, 3)})
    monkeypatch.setattr(bench, "interleave", partial(lambda run, *args: run(*args[:2], 1, args[3]), bench.interleave))
    monkeypatch.setattr("sys.argv", ["bench", "--device", "cpu", "--batch", "2", "--repeats", "1", "--out", f"{tmp_path}"])
    bench.main()
    said, found = capsys.readouterr().out, json.loads((tmp_path / "figures.json").read_text())["speed"]["cpu"]
    assert "DDPM-1000" in said and "figures.md" in said.replace("\n", "")  # a console breaks long lines
    assert found["batch"] == 2 and [row[:2] for row in found["rows"]][::6] == [["DDPM-1000", "1000"], [bench.BARE, "50"]]
    assert [each["batch"] for each in found["by_batch"]] == [1, 3]
    assert all(set(each["milliseconds"]) == {"bare loop", "DDIM", "diffusers"} for each in found["by_batch"])
    assert "Batch 2." in (tmp_path / "figures.md").read_text() and (tmp_path / "images/speed-cpu.png").stat().st_size


@pytest.mark.parametrize("argument", ["--batch=0", "--repeats=0", "--device=cuda"])
def test_a_command_that_makes_no_sense_is_refused_in_a_line(argument, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench", argument])
    with pytest.raises(SystemExit):
        bench.main()
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


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
        evaluation.samples("cell", 300, 0, make, "mnist", "cpu")
    x = evaluation.samples("cell", 300, 0, make, "mnist", "cpu")
    assert [len(labels) for labels in made] == [125, 125, 125, 50]
    assert sum(made[:1] + made[2:], []) == [i % 10 for i in range(300)]
    assert x.shape == (300, 2) and len(x.unique()) == 600  # no batch repeats another
    assert torch.equal(x, evaluation.samples("cell", 300, 0, make, "mnist", "cpu")) and len(made) == 4
    assert torch.equal(x[:250], evaluation.samples("cell", 250, 0, make, "mnist", "cpu")) and len(made) == 4
    evaluation.samples("cell", 300, 0, make, "mnist", "cuda")  # what a CPU made is not a GPU's
    assert len(made) == 7
