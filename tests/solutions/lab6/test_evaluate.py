"""The measurement of quality against network calls: its arithmetic, on features that are made up."""

import pytest
import torch

from diffusionlab import datasets, metrics
from diffusionlab.levels import levels_at, log_snr
from diffusionlab.noise_model import count_calls
from solutions.lab6_solvers import evaluate
from solutions.lab6_solvers.evaluate import BASELINE, CONTENDERS, OTHERS, Cell, gap, page, rows, sampled, verdict
from solutions.lab6_solvers.spacing import create_timesteps


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Features that are the samples themselves, and normal ones as the real."""
    real = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).double()
    monkeypatch.setattr(metrics, "features", lambda x: x.double())
    monkeypatch.setattr(datasets, "mnist", lambda split: (real, torch.arange(2000) % 10))


@pytest.mark.parametrize("cell", [BASELINE, CONTENDERS[0], Cell("heun", "log-snr", 5), Cell("unipc-3", "karras", 4)])
def test_a_cell_costs_the_calls_that_it_names_and_keeps_its_samples(cell, ring, schedule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ring, "condition", lambda labels: ring, raising=False)
    with count_calls() as calls:
        x = sampled(cell, ring, schedule, 20, 0)
    assert calls.nfe == cell.nfe and x.shape == (20, 2)
    with count_calls() as calls:
        assert torch.equal(sampled(cell, ring, schedule, 20, 0), x)
    assert calls.nfe == 0


def test_the_comparison_is_made_at_ten_calls_against_fifty():
    assert {cell.nfe for cell in CONTENDERS} == {10} and BASELINE.nfe == 50
    assert len({cell.name for cell in [BASELINE, *CONTENDERS, *OTHERS]}) == 1 + len(CONTENDERS) + len(OTHERS)


def test_the_gap_is_that_of_the_distances_and_paired():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    assert gap(x, x) == (0.0, 0.0)
    beyond, spread = gap(x + 1.0, x)
    assert beyond == pytest.approx(4, abs=0.6) and 0 < spread < 0.6


@pytest.mark.parametrize("beyond, says", [(-1.0, "nearer than"), (0.1, "not to be told from"), (1.0, "farther than")])
def test_the_verdict_looks_at_the_spread(beyond, says):
    judged = {"frechet_to_real": [5.0, 1.0], "frechet_floor_real_to_real": [2.0, 0.1], "n": 1000}
    assert says in verdict(CONTENDERS[0], judged, beyond, 0.2)
    assert evaluate.RESAMPLINGS >= 20


def test_the_last_call_is_where_it_is_asked_for_and_the_steps_are_even(schedule):
    levels = Cell("unipc-2", "log-snr", 10, 40).levels(schedule)
    assert levels[-1] == float("inf") and len(levels) == 11
    assert float(levels[0]) == log_snr(schedule, 999) and float(levels[-2]) == log_snr(schedule, 40)
    steps = levels[:-1].diff()
    assert float(steps.max() - steps.min()) < 0.05 * float(steps.mean())  # t is whole
    assert torch.equal(Cell("ddim", "uniform", 50).levels(schedule), levels_at(schedule, create_timesteps(schedule, 50)))


def test_the_page_has_every_row_and_the_floor():
    judged = {"frechet_to_real": [5.0, 1.0], "frechet_floor_real_to_real": [2.0, 0.1], "judged_as_asked": 0.5, "n": 1000}
    cells = [BASELINE, *CONTENDERS]
    made = rows(dict.fromkeys(cells, judged), dict.fromkeys(cells, (1.0, 0.2)))
    assert [row[0] for row in made] == [cell.solver for cell in CONTENDERS] + ["ddim", "real digits"]
    text = page(made, "so it is", "a CPU with 2 cores", 1000, 3, "python -m it --quick")
    assert "| unipc-2 | log-snr, last call at t = 40 | 10 | 5.00 ± 1.00 | +1.00 ± 0.20 | 50.0% |" in text
    assert "| real digits |  |  | 2.00 ± 0.10 |  |  |" in text and "seed 4" in text and "so it is" in text
    assert "by `python -m it --quick`" in text
