import pytest
import torch
from matplotlib.figure import Figure

from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import Recorder
from diffusionlab.schedule import NoiseSchedule
from solutions.lab5_sampling import TrainedModelAnalyzer

SCHEDULE = NoiseSchedule.linear()
A = SCHEDULE.alphas_cumprod
LEVELS = [0, 50, 400, 999]


def normal(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def zero(x, t):
    return torch.zeros_like(x)


def test_the_true_noise_leaves_no_error():
    x0 = normal((1, 2, 3))
    found = TrainedModelAnalyzer(GaussianModel(SCHEDULE, x0[0], 0, (2, 3)), SCHEDULE).analyze_noise_prediction_quality(
        x0.expand(4, 2, 3), LEVELS)
    assert float(found["eps_mse"].max()) < 1e-20 and float(found["x0_mse"].max()) < 1e-15


def test_an_error_in_the_noise_is_an_error_in_x0_divided_by_the_snr():
    noise = normal((4, 1, 5, 7), 1)
    found = TrainedModelAnalyzer(zero, SCHEDULE).analyze_noise_prediction_quality(normal((4, 1, 5, 7)), LEVELS, noise=noise)
    assert found["timesteps"] == LEVELS and all(type(t) is int for t in found["timesteps"])
    assert found["eps_mse"].tolist() == pytest.approx([float(noise.square().mean())] * 4)
    assert found["snr"].tolist() == pytest.approx([float(A[t] / (1 - A[t])) for t in LEVELS], rel=1e-12)
    assert torch.allclose(found["x0_mse"], found["eps_mse"] / found["snr"], rtol=1e-6)
    for key in ("eps_mse", "x0_mse", "snr"):
        assert found[key].dtype == torch.float64 and found[key].shape == (4,)


def test_even_the_best_prediction_errs_by_what_is_not_knowable():
    # For data N(0, std^2) the best guess leaves A std^2 / (A std^2 + 1 - A) of the noise's variance.
    std = 0.5
    found = TrainedModelAnalyzer(GaussianModel(SCHEDULE, 0, std), SCHEDULE).analyze_noise_prediction_quality(
        std * normal((40_000, 1)), LEVELS, noise=normal((40_000, 1), 1))
    left = [float(A[t] * std**2 / (A[t] * std**2 + 1 - A[t])) for t in LEVELS]
    assert found["eps_mse"].tolist() == pytest.approx(left, rel=0.05)


def test_it_asks_once_a_level_without_gradients_in_evaluation_mode():
    model = Recorder(GaussianModel(SCHEDULE)).train()
    TrainedModelAnalyzer(model, SCHEDULE).analyze_noise_prediction_quality(normal((3, 1)), (9, 500))
    seen = model.observed()
    assert seen["t"].tolist() == [9, 500] and not seen["grad"].any() and not seen["training"].any()


def test_the_same_generator_finds_the_same():
    def find(seed):
        return TrainedModelAnalyzer(zero, SCHEDULE).analyze_noise_prediction_quality(
            normal((3, 2)), [500], generator=torch.Generator().manual_seed(seed))["eps_mse"]
    assert torch.equal(find(3), find(3)) and not torch.equal(find(3), find(4))


def test_inputs_are_left_alone():
    x, noise = normal((3, 2)), normal((3, 2), 1)
    before = x.clone(), noise.clone()
    TrainedModelAnalyzer(zero, SCHEDULE).analyze_noise_prediction_quality(x, LEVELS, noise=noise)
    assert torch.equal(x, before[0]) and torch.equal(noise, before[1])


@pytest.mark.parametrize(("x", "timesteps", "noise"), [
    (torch.zeros(2, 3, dtype=torch.uint8), [5], None), (torch.zeros(2, 3), [], None), (torch.zeros(2, 3), [1000], None),
    (torch.zeros(2, 3), [-1], None), (torch.zeros(2, 3), [1.5], None), (torch.zeros(2, 3), [5], torch.zeros(2, 1))])
def test_bad_input_is_refused(refuses, x, timesteps, noise):
    refuses(TrainedModelAnalyzer(zero, SCHEDULE).analyze_noise_prediction_quality, x, timesteps, noise=noise)


def test_a_picture_of_no_levels_is_refused(refuses):
    refuses(TrainedModelAnalyzer(zero, SCHEDULE).visualize_noise_predictions, torch.zeros(1, 1, 8, 8), [])


def test_a_prediction_of_another_shape_is_refused(refuses):
    refuses(TrainedModelAnalyzer(lambda x, t: x[:, :1], SCHEDULE).analyze_noise_prediction_quality, torch.zeros(2, 3), [5])


def test_the_pictures_have_a_row_for_each_level():
    figure = TrainedModelAnalyzer(zero, SCHEDULE).visualize_noise_predictions(normal((2, 1, 8, 8), dtype=torch.float32),
                                                                              LEVELS)
    assert isinstance(figure, Figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"t = {t}" for t in LEVELS]
