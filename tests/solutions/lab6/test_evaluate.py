"""The measurement of quality against network calls: its arithmetic, on features that are made up."""

import pytest
import torch

from diffusionlab import datasets, metrics
from diffusionlab.noise_model import count_calls
from solutions.lab6_solvers import evaluate
from solutions.lab6_solvers.evaluate import BASELINE, CONTENDERS, OTHERS, Cell, gap, sampled, verdict


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Features that are the samples themselves, and normal ones as the real."""
    real = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).double()
    monkeypatch.setattr(metrics, "features", lambda x: x.double())
    monkeypatch.setattr(metrics, "reference_features", lambda name: real)
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


@pytest.mark.parametrize("beyond, says", [(-1.0, "better than"), (0.1, "not to be told from"), (1.0, "worse than")])
def test_the_verdict_looks_at_the_spread(beyond, says):
    judged = {"frechet_to_real": [5.0, 1.0], "frechet_floor_real_to_real": [2.0, 0.1], "n": 1000}
    found = dict.fromkeys([BASELINE, *CONTENDERS], judged)
    assert says in verdict(found, {cell: (beyond, 0.2) for cell in CONTENDERS})
    assert evaluate.RESAMPLINGS >= 20
