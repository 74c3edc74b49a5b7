import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from diffusionlab import datasets, metrics
from diffusionlab.classifier import Classifier


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_moments(n, mean, covariance, seed=0):
    """n samples whose mean and covariance are exactly those asked for."""
    x = normal(n, len(mean), seed=seed)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def spd(d, seed):
    root = normal(d, d, seed=seed)
    return root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)


# --- frechet_distance ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(d=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_the_distance_of_two_gaussians_is_the_closed_form(d, seed):
    mean_a, mean_b, C_a, C_b = normal(d, seed=seed), normal(d, seed=seed + 1), spd(d, seed + 2), spd(d, seed + 3)
    root = torch.as_tensor(sqrtm((C_a @ C_b).numpy()).real)
    expected = float((mean_a - mean_b).square().sum() + torch.trace(C_a + C_b - 2 * root))
    got = metrics.frechet_distance(with_moments(40, mean_a, C_a, seed), with_moments(25, mean_b, C_b, seed + 1))
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_in_one_dimension_it_is_the_squared_gap_of_mean_and_of_std():
    a, b = with_moments(10, torch.tensor([1.0]), torch.tensor([[4.0]]).double()), with_moments(10, torch.tensor([4.0]),
        torch.tensor([[0.25]]).double(), 1)
    assert metrics.frechet_distance(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 0.5) ** 2, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 30), m=st.integers(2, 30), d=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_it_is_a_distance_also_with_fewer_samples_than_features(n, m, d, seed):
    a, b = normal(n, d, seed=seed), 2 * normal(m, d, seed=seed + 1) + 1
    turn = torch.linalg.qr(normal(d, d, seed=seed + 2)).Q
    distance = metrics.frechet_distance(a, b)
    assert distance >= 0 and distance == pytest.approx(metrics.frechet_distance(b, a), rel=1e-9, abs=1e-9)
    assert metrics.frechet_distance(a @ turn + 3, b @ turn + 3) == pytest.approx(distance, rel=1e-6, abs=1e-8)
    assert metrics.frechet_distance(2 * a, 2 * b) == pytest.approx(4 * distance, rel=1e-9, abs=1e-9)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [
    (torch.zeros(1, 3), torch.zeros(5, 3)), (torch.zeros(5, 3), torch.zeros(0, 3)), (torch.zeros(5, 3), torch.zeros(5, 4)),
    (torch.zeros(5), torch.zeros(5)), (torch.zeros(5, 1, 3), torch.zeros(5, 1, 3)),
    (torch.full((5, 3), math.nan), torch.zeros(5, 3))])
def test_too_few_or_unlike_features_are_refused(a, b):
    with pytest.raises(ValueError) as refusal:
        metrics.frechet_distance(a, b)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200


# --- noise_floor -----------------------------------------------------------------------------------------------------


def test_the_floor_falls_with_n_and_is_never_zero():
    x = normal(4000, 8)
    floors = [metrics.noise_floor(x, n, generator=torch.Generator().manual_seed(1)) for n in (50, 200, 2000)]
    assert floors[0][0] > 2 * floors[1][0] > 4 * floors[2][0] > 0
    assert all(0 < spread < mean for mean, spread in floors)
    # To first order both sides' errors add up: d / n each way for the means, about as much for the covariances.
    assert floors[1][0] == pytest.approx(metrics.frechet_distance(normal(200, 8, seed=5), normal(200, 8, seed=6)), rel=0.5)


def test_the_two_sides_of_a_split_are_random_and_disjoint():
    # Sorted data: first against second half would be far apart, and a side drawn with replacement would not use each once.
    x = torch.arange(400, dtype=torch.float64)[:, None]
    halves = metrics.frechet_distance(x[:200], x[200:])
    mean, _ = metrics.noise_floor(x, 200, splits=20, generator=torch.Generator().manual_seed(0))
    assert mean < halves / 50
    two = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
    possible = {round(metrics.frechet_distance(two[list(a)], two[list(b)]), 9) for a,
                b in (((0, 1), (2, 3)), ((0, 2), (1, 3)))}
    for seed in range(10):
        floor = metrics.noise_floor(two, 2, splits=1, generator=torch.Generator().manual_seed(seed))
        assert round(floor[0], 9) in possible and floor[1] == 0


def test_the_same_generator_gives_the_same_floor():
    x = normal(100, 3)
    a, b, c = (metrics.noise_floor(x, 30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert a == b != c


def test_in_a_balanced_order_the_classes_take_turns_at_random():
    labels = torch.tensor([3] * 50 + [7] * 50 + [1] * 20)
    order = metrics.balanced_order(labels, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort().values, torch.arange(120))
    for start in range(0, 60, 3):
        assert sorted(labels[order[start:start + 3]].tolist()) == [1, 3, 7]
    assert set(labels[order[60:]].tolist()) == {3, 7}
    assert len({tuple(metrics.balanced_order(labels, torch.Generator().manual_seed(seed))[:3].tolist()) for seed in range(9)}) > 5


def test_the_floor_of_balanced_sides_leaves_out_what_the_class_counts_do():
    labels = torch.arange(2000) % 10
    x = normal(2000, 2) * 0.01 + labels[:, None]  # what class it is, is nearly all there is to see
    at_random, balanced = (metrics.noise_floor(x, 100, generator=torch.Generator().manual_seed(0), labels=each)
                           for each in (None, labels))
    assert balanced[0] < at_random[0] / 100


@pytest.mark.parametrize(("n", "splits"), [(51, 3), (1, 3), (0, 3), (-5, 3), (2.5, 3), (20, 0)])
def test_a_floor_that_cannot_be_measured_is_refused(n, splits):
    with pytest.raises(ValueError):
        metrics.noise_floor(normal(100, 3), n, splits)


# --- the classifier's view -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return datasets.mnist("test", 600)


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return Classifier((1, 8, 8), num_classes=3, width=8, num_features=5).eval()


def test_features_are_those_of_each_image_whatever_its_batch(untrained):
    x = normal(2 * metrics._BATCH + 3, 1, 8, 8).float()
    found = metrics.features(x, untrained)
    assert found.shape == (len(x), 5) and found.dtype == torch.float64 and not found.requires_grad
    assert torch.allclose(found[[0, -1]], metrics.features(x[[0, -1]], untrained), atol=1e-5)
    assert torch.allclose(found, metrics.features(x.double(), untrained), atol=1e-5)


def test_accuracy_is_the_share_judged_as_asked(untrained):
    x = normal(40, 1, 8, 8).float()
    with torch.no_grad():
        judged = untrained(x).argmax(1)
    assert metrics.conditional_accuracy(x, judged, untrained) == 1
    wrong = judged.clone()
    wrong[:10] = (wrong[:10] + 1) % 3
    assert metrics.conditional_accuracy(x, wrong, untrained) == 0.75
    assert metrics.conditional_accuracy(x, 1, untrained) == pytest.approx(float((judged == 1).double().mean()))


def test_labels_and_images_that_do_not_fit_are_refused(untrained):
    with pytest.raises(ValueError, match="need 4 labels"):
        metrics.conditional_accuracy(torch.zeros(4, 1, 8, 8), torch.zeros(3, dtype=torch.long), untrained)
    with pytest.raises(ValueError, match="uint8"):
        metrics.features(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), untrained)


def test_the_shipped_classifier_knows_its_digits(digits):
    assert metrics.conditional_accuracy(*digits) > 0.98
    assert metrics.conditional_accuracy(digits[0], (digits[1] + 1) % 10) < 0.02


def test_the_distance_sees_what_the_eye_sees(digits):
    # Other digits of the same kind are near; blurred, noisy and one-sided ones are far, and the more the worse.
    x, labels = digits
    here, there = metrics.features(x[:300]), metrics.features(x[300:])
    noisy = [metrics.features((x[300:] + level * normal(300, 1, 28, 28).float()).clamp(-1, 1)) for level in (0.3, 0.6)]
    alike, a_little, a_lot = (metrics.frechet_distance(here, other) for other in (there, *noisy))
    assert alike < a_little < a_lot
    assert metrics.frechet_distance(here, there[labels[300:] < 3]) > 2 * alike


@pytest.mark.slow
def test_the_halves_of_the_test_set_are_no_noise_floor():
    real = metrics.reference_features("real")
    assert real.shape == (10_000, 128) and real.dtype == torch.float64
    mean, spread = metrics.noise_floor(real, 5000, 4, torch.Generator().manual_seed(0))
    assert metrics.frechet_distance(real[:5000], real[5000:]) > mean + 10 * spread


def test_the_shipped_features_of_ddpm_samples_are_near_real_ones(digits):
    shipped = metrics.reference_features("ddpm-1000")
    assert len(shipped) >= 400 and shipped.shape[1] == 128 and shipped.dtype == torch.float64
    real = metrics.features(digits[0])
    noise = metrics.features(normal(200, 1, 28, 28).float())
    assert metrics.frechet_distance(shipped[:200], real[:200]) < 0.2 * metrics.frechet_distance(noise, real[:200])


def test_unknown_reference_features_are_refused():
    with pytest.raises(ValueError, match="ddpm-1000"):
        metrics.reference_features("fake")


# --- peak_memory -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, its memory is watched")
def test_peak_memory_is_what_a_call_needs_at_once():
    def hold(megabytes):
        return lambda: torch.ones(megabytes * 2**18).sum()
    # Below 32 MiB the C library may serve a call from what this process freed before, and nothing grows.
    small, large = metrics.peak_memory(hold(40)), metrics.peak_memory(hold(120))
    assert 35 * 2**20 < small < 60 * 2**20 and 110 * 2**20 < large < 145 * 2**20


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, its memory is watched")
def test_memory_used_one_after_the_other_does_not_add_up():
    def in_turn():
        for _ in range(30):
            torch.ones(20 * 2**18).sum()  # 20 MiB, let go at once
    assert metrics.peak_memory(in_turn) < 300 * 2**20


def test_a_failing_call_fails_and_leaves_no_watcher_behind():
    import threading
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        metrics.peak_memory(lambda: 1 / 0)
    assert threading.active_count() == before
