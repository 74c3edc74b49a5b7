"""What the tests of the reference share: exact models, and a look at a sampler's chain that needs no random numbers."""

from __future__ import annotations

import pytest
import torch

from autograder.course import ROOT, Lab, lab_names
from diffusionlab.analytic import GaussianModel
from diffusionlab.noise_model import NoiseModel
from diffusionlab.schedule import NoiseSchedule


class Broken(NoiseModel):
    """A model whose prediction turns into NaN at one timestep; counts its calls."""

    sample_shape, num_timesteps, calls = (2,), 12, 0

    def __init__(self, at: int = 7):
        super().__init__()
        self.at = at

    def forward(self, x, t):
        self.calls += 1
        return torch.where(t[:, None] == self.at, torch.nan, x)


class Strict(NoiseModel):
    """The exact Gaussian's prediction, for whoever asks properly: x of the right kind, t a LongTensor [B], no gradients."""

    def __init__(self, schedule: NoiseSchedule, sample_shape, dtype=torch.float32):
        super().__init__()
        self.inner, self.sample_shape, self.dtype = GaussianModel(schedule, 0.3, 0.5,
                                                                  sample_shape), tuple(sample_shape), dtype
        self.asked: list[int] = []

    def forward(self, x, t):
        assert x.shape[1:] == self.sample_shape and x.dtype == self.dtype
        assert t.dtype == torch.int64 and t.shape == x.shape[:1] and bool((t == t[0]).all())
        assert not torch.is_grad_enabled() and not self.training
        self.asked.append(int(t[0]))
        return self.inner(x, t)


def impulses(num_noises: int):
    """Starting points and noises whose chains, each a row, show a linear chain's coefficients one by one.

    Row 0 starts at 0 and gets no noise; row 1 starts at 1; row k + 2 gets a unit of noise at step k.
    """
    x_T = torch.zeros(num_noises + 2, 1, dtype=torch.float64)
    x_T[1] = 1
    noises = torch.zeros(num_noises, num_noises + 2, 1, dtype=torch.float64)
    for k in range(num_noises):
        noises[k, k + 2] = 1
    return x_T, noises


def moments(x: torch.Tensor) -> tuple[float, float]:
    """Mean and variance at the end of a chain started at N(0, 1), from its answers to the impulses."""
    offset = float(x[0])
    return offset, float((x[1:] - offset).square().sum())


@pytest.fixture(scope="session")
def chain():
    """The tools above."""
    class Tools:
        pass
    Tools.Broken, Tools.Strict, Tools.impulses, Tools.moments = Broken, Strict, staticmethod(impulses), staticmethod(moments)
    return Tools


@pytest.fixture
def refuses():
    """`refuses(function, *args, **kwargs)`: it raises ValueError with one short line."""
    def refuses(function, *args, **kwargs):
        with pytest.raises(ValueError) as refusal:
            function(*args, **kwargs)
        message = str(refusal.value)
        assert 20 < len(message) < 200 and "\n" not in message, message
        return message
    return refuses


LABS = [Lab(ROOT, name) for name in lab_names(ROOT)]


def pytest_generate_tests(metafunc):
    """A test that takes `lab` is run for every lab of the course; with `question`, `mistake` or `alternative` for each of the lab's."""
    def given(name, items, label):
        if name in metafunc.fixturenames:
            cases = [pytest.param(lab, item, id=f"{lab.name}: {label(item)}") for lab in LABS for item in items(lab)]
            metafunc.parametrize(("lab", name), cases)
            return True
    if "lab" in metafunc.fixturenames and not (
            given("question", judged, lambda each: each.id)
            or given("mistake", lambda lab: lab.module("mistakes").MISTAKES, lambda each: each.id)
            or given("alternative", lambda lab: lab.module("alternatives").ALTERNATIVES, lambda each: f"{each.target}: {each.style}")):
        metafunc.parametrize("lab", LABS, ids=lambda lab: lab.name)


def judged(lab: Lab) -> list:
    """The questions that are not left to a person."""
    return [question for question in lab.module("exam").QUESTIONS if not question.manual]
