"""What the tests of Lab 6 share."""

import pytest
import torch

from diffusionlab import NoiseSchedule, analytic


@pytest.fixture(scope="session")
def schedule():
    return NoiseSchedule.linear()


@pytest.fixture
def gaussian(schedule):
    """An exact model whose solution is known in closed form."""
    std = torch.tensor([0.5, 0.7], dtype=torch.float64)
    return analytic.GaussianModel(schedule, torch.tensor([0.3, -0.5], dtype=torch.float64), std, sample_shape=(2,))


@pytest.fixture
def ring(schedule):
    """An exact model that is not linear in x."""
    return analytic.GaussianMixture.ring(schedule, components=4, std=0.2)


@pytest.fixture
def x():
    return torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
