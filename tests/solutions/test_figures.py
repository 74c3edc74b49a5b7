import json

import pytest
import torch

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import NoiseModel
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import DDIMSampler, bench, figures, quality
from solutions.lab5_sampling.figures import CELLS, LONG, PUBLISHED, Cell, trends

SCHEDULE = NoiseSchedule.linear()


def judged(n, value) -> dict:
    return {"n": n, "judged_as_asked": 0.9, "frechet_to_real": [value, 0.01], "frechet_floor_real_to_real": [1000 / n, 0.1]}


def found_as(value) -> dict:
    """Results for all cells with distances `value(steps, eta)`, known to within 0.01; larger where n is smaller, as such distances are."""
    fewer = {cell: judged(500, value(cell.steps, cell.eta) + 50) for cell in [*CELLS, *LONG]}
    return fewer | {cell: judged(1000, value(cell.steps, cell.eta)) | {"fewer": fewer[cell]} for cell in CELLS}


def result_as(value) -> dict:
    return {"machine": "a CPU with 2 cores", "network": "0123456789ab", "cells": [cell._asdict() | each for cell, each in found_as(value).items()]}


def test_the_published_table_is_complete():
    assert len(PUBLISHED) == 20 and PUBLISHED[10, 1.0] == 41.07 and PUBLISHED[1000, 0.0] == 4.04


def test_results_in_the_published_order_agree_and_in_the_opposite_one_do_not():
    # The cells of 1000 steps have fewer samples: beside the full cells all of them would look worse.
    published = found_as(lambda steps, eta: PUBLISHED.get((steps, eta), 0.0))
    same, opposite, silent = trends(published)
    assert same > 40 and not opposite and silent == 0
    turned = found_as(lambda steps, eta: -PUBLISHED.get((steps, eta), 0.0))
    assert trends(turned)[0] == 0 and len(trends(turned)[1]) == same
    assert trends(found_as(lambda steps, eta: 5.0)) == (0, [], same)
    # Without samples of one size on both sides nothing is said.
    alone = {cell: {key: value for key, value in each.items() if key != "fewer"} for cell, each in published.items()}
    assert 0 < trends(alone)[0] < same


def test_the_page_says_what_was_measured_and_draws_it(tmp_path):
    page = figures.record(tmp_path, "quality", "mnist", result_as(lambda steps, eta: 100 / steps + eta))
    text = page.read_text(encoding="utf-8")
    for name in ("eta", "schedule"):
        assert f"(images/quality-mnist-{name}.png)" in text
        assert (tmp_path / "images" / f"quality-mnist-{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "| 0.5 | 20.5 ± 0.0, 90.0% |" in text and "2.0 ± 0.1 at n = 500, 1.0 ± 0.1 at n = 1000" in text
    assert text.count("| 41.07 |") == 1 and "a CPU with 2 cores" in text and "bfloat16" not in text
    halved = result_as(lambda steps, eta: 1.0) | {"bf16": True}
    assert "in bfloat16" in figures.record(tmp_path, "quality", "mnist", halved).read_text(encoding="utf-8")


def test_what_was_not_measured_is_said_and_what_was_stays(tmp_path):
    figures.record(tmp_path, "quality", "mnist", result_as(lambda steps, eta: 1.0))
    speed = {"machine": "a CPU with 2 cores", "data": "mnist", "batch": 8, "heads": ["sampler", "ms"], "rows": [["DDIM-50", "12.3"]], "by_batch": [
        {"batch": batch, "milliseconds": {"bare loop": 2.0 * batch, "DDIM": 2.1 * batch}, "relative": {"bare loop": 1.0, "DDIM": 1.05}}
        for batch in (1, 4)]}
    speed["by_batch"][1]["milliseconds"]["diffusers"], speed["by_batch"][1]["relative"]["diffusers"] = 21.0, 2.625
    text = figures.record(tmp_path, "speed", "cpu", speed).read_text(encoding="utf-8")
    assert "| DDIM-50 | 12.3 |" in text and "| 1 | 2.00 (1.000) | 2.10 (1.050) |  |" in text
    assert "| 4 | 8.00 (1.000; 2.62 x) | 8.40 (1.050; 2.50 x) | 21.00 (2.625; 1.00 x) |" in text and "41.07" in text
    assert text.count("Not measured yet") == 2 and "--data cifar10" in text and "--device cuda" in text
    assert set(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))) == {"quality", "speed"}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("cell", [Cell("uniform", 5, 0.5), Cell("quadratic", 5, 0.0), Cell("trailing", 10, 0.0)])
def test_a_cell_is_sampled_with_its_schedule_eta_and_precision(cell, bf16, monkeypatch):
    class Asked(NoiseModel):
        sample_shape, num_timesteps = (2,), 1000

        def __init__(self):
            super().__init__()
            self.inner, self.asked = GaussianModel(SCHEDULE, sample_shape=(2,)), []

        def condition(self, labels):
            return self

        def forward(self, x, t):
            self.asked.append(int(t[0]))
            assert torch.is_autocast_enabled("cpu") is bf16
            return self.inner(x, t)
    model, names = Asked(), []
    monkeypatch.setattr(quality, "samples", lambda name, n, seed, make, data, device: (names.append(name), make(
        torch.arange(n) % 10, torch.Generator().manual_seed(seed)))[1])
    assert quality.sampled(cell, model, SCHEDULE, 20, 0, "mnist", bf16).shape == (20, 2)
    assert ("bf16" in names[0]) is bf16  # samples in one precision are not taken for those in another
    expected = DDIMSampler(model, SCHEDULE).create_timestep_schedule(cell.steps, cell.schedule_type)
    assert model.asked == expected.tolist()


def test_ddim_is_timed_by_batch_beside_the_bare_loop_and_diffusers():
    model = GaussianModel(NoiseSchedule.linear(20), sample_shape=(1, 4, 4))
    found = bench.by_batch(model, NoiseSchedule.linear(20), (1, 8), steps=5, repeats=2)
    assert [each["batch"] for each in found] == [1, 8]
    for each in found:
        assert list(each["milliseconds"]) == ["bare loop", "DDIM", "diffusers"] and min(each["milliseconds"].values()) > 0
        assert each["relative"]["bare loop"] == 1 and each["relative"]["DDIM"] > 1


@pytest.mark.gpu
def test_on_a_gpu_recorded_loops_are_timed_too_each_beside_the_bare_loop_of_its_kind():
    model = GaussianModel(NoiseSchedule.linear(20), sample_shape=(1, 4, 4)).to("cuda")
    each, = bench.by_batch(model, NoiseSchedule.linear(20), (4,), steps=5, repeats=2)
    assert list(each["milliseconds"]) == ["bare loop", "DDIM", "diffusers", "bare loop, recorded", "DDIM, recorded"]
    assert each["relative"]["bare loop, recorded"] == 1 and each["relative"]["DDIM, recorded"] > 0
