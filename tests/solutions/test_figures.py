import pytest
import torch

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import NoiseModel
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import figures
from solutions.lab5_sampling.figures import CELLS, LONG, PUBLISHED, Cell, trends

SCHEDULE = NoiseSchedule.linear()


def found_as(value) -> dict:
    """Results for all cells with distances `value(steps, eta)`, known to within 0.01."""
    return {cell: {"n": 1000, "judged_as_asked": 0.9, "frechet_to_real": [value(cell.steps, cell.eta), 0.01],
                   "frechet_floor_real_to_real": [1.0, 0.1]} for cell in [*CELLS, *LONG]}


def test_the_published_table_is_complete():
    assert len(PUBLISHED) == 20 and PUBLISHED[10, 1.0] == 41.07 and PUBLISHED[1000, 0.0] == 4.04


def test_results_in_the_published_order_agree_and_in_the_opposite_one_do_not():
    published = found_as(lambda steps, eta: PUBLISHED.get((steps, eta), 0.0))
    same, opposite, silent = trends(published)
    assert same > 40 and not opposite and silent == 0
    turned = found_as(lambda steps, eta: -PUBLISHED.get((steps, eta), 0.0))
    assert trends(turned)[0] == 0 and len(trends(turned)[1]) == same
    assert trends(found_as(lambda steps, eta: 5.0)) == (0, [], same)


def test_the_page_says_what_was_measured_and_draws_it(tmp_path):
    picture = tmp_path / "images" / "figures.png"
    text = figures.page(found_as(lambda steps, eta: 100 / steps + eta), "a CPU with 2 cores", picture)
    assert picture.read_bytes().startswith(b"\x89PNG") and "![Fréchet distance by steps for each eta](images/figures.png)" in text
    assert "| 0.5 | 20.5 ± 0.0, 90.0% |" in text and "1.0 ± 0.1 at n = 1000" in text and "a CPU with 2 cores" in text
    assert text.count("| 41.07 |") == 1


@pytest.mark.parametrize("cell", [Cell("uniform", 5, 0.5), Cell("quadratic", 5, 0.0), Cell("trailing", 10, 0.0)])
def test_a_cell_is_sampled_with_its_schedule_and_eta(cell, monkeypatch):
    class Asked(NoiseModel):
        sample_shape, num_timesteps = (2,), 1000

        def __init__(self):
            super().__init__()
            self.inner, self.asked = GaussianModel(SCHEDULE, sample_shape=(2,)), []

        def condition(self, labels):
            return self

        def forward(self, x, t):
            self.asked.append(int(t[0]))
            return self.inner(x, t)
    model = Asked()
    monkeypatch.setattr(figures, "samples", lambda name, n, seed, make: make(torch.arange(n) % 10, torch.Generator().manual_seed(seed)))
    monkeypatch.setattr(figures, "judge", lambda x: {"n": len(x)})
    assert figures.measure(cell, model, SCHEDULE, 20, 0) == {"n": 20}
    expected = figures.DDIMSampler(model, SCHEDULE).create_timestep_schedule(cell.steps, cell.schedule_type)
    assert model.asked == expected.tolist()
