"""Do samplers run where their network is? On the meta device, which every machine has, tensors of two devices do not mix either, and nothing
can be read: a sampler that passes there neither leaves a tensor behind on the CPU nor waits for the device between its steps."""

import pytest
import torch

from diffusionlab import guards, levels, runtime
from diffusionlab.analytic import GaussianModel
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.unet import UNet
from solutions.lab5_sampling import (DDIMSampler, DDPMSampler, ForwardProcessImpl, SamplingOptimizer, StochasticityController, ddim, ddpm,
                                     optimizer, stochasticity)
from solutions.lab6_solvers import create_timesteps, dpm, euler, heun, solve_ddim, solve_dpm1, solve_dpmpp_2m, solve_heun, solve_unipc, unipc

SCHEDULE, SHAPE = NoiseSchedule.linear(20), (4, 1, 8, 8)
DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.gpu)]
SAMPLERS = {
    "DDPM": lambda model: DDPMSampler(model, SCHEDULE).sample(SHAPE),
    "DDPM, its whole path": lambda model: DDPMSampler(model, SCHEDULE).sample(SHAPE, return_trajectory=True)[1],
    "DDIM": lambda model: DDIMSampler(model, SCHEDULE).sample(SHAPE, 5),
    "between": lambda model: DDIMSampler(model, SCHEDULE).sample(SHAPE, 5, 0.5),
    "cached": lambda model: SamplingOptimizer(None).cached_noise_schedule_sampling(DDIMSampler(model, SCHEDULE), SHAPE, 5, eta=0.5),
    "eta study": lambda model: StochasticityController(DDIMSampler(model, SCHEDULE)).analyze_eta_effects(SHAPE, [0.0, 1.0], 5)["samples"],
    "bare loop": lambda model: runtime.bare_loop(model, range(5))(SHAPE)}
SOLVERS = {"Euler": solve_ddim, "DPM-Solver-1": solve_dpm1, "Heun": solve_heun, "DPM-Solver++(2M)": solve_dpmpp_2m, "UniPC": solve_unipc}


@pytest.fixture(autouse=True)
def nothing_is_looked_at_in_the_end(monkeypatch):
    """The one look at the values, and the number that sums up the samples, come when the loop is over."""
    for module in (ddpm, ddim, optimizer, stochasticity, euler, heun, dpm, unipc):
        if hasattr(module, "check_finite"):
            monkeypatch.setattr(module, "check_finite", lambda x: None)
    monkeypatch.setattr(stochasticity, "sample_diversity", lambda samples: 0.0)


def network(device) -> torch.nn.Module:
    unet = UNet(SCHEDULE, SHAPE[1:], 10, widths=(32,), blocks=1).eval().requires_grad_(False)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)  # 0 before training: no step would depend on what the network sees
    return unet.condition(torch.arange(4)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_sampler_works_where_its_network_is(sampler, device):
    assert sampler(network(device)).device.type == device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
def test_a_solver_works_where_its_network_is(solve, device):
    to_visit = levels.levels_at(SCHEDULE, create_timesteps(SCHEDULE, 5, "uniform"))
    x = solve(levels.Denoiser(network(device), SCHEDULE), torch.randn(SHAPE, device=device), to_visit)
    assert x.device.type == device and x.shape == SHAPE


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_added_where_the_images_are(device):
    x = torch.ones(SHAPE, device=device)
    for t in (7, torch.arange(4)):
        assert ForwardProcessImpl(SCHEDULE).add_noise(x, t).device.type == device


def test_a_tensor_left_behind_is_noticed():
    class Forgetful(DDIMSampler):
        def predict_x0_from_eps(self, x_t, eps, t):
            return super().predict_x0_from_eps(x_t, eps, t) * torch.ones(4, 1, 1, 1)

    class Waiting(DDIMSampler):
        def predict_x0_from_eps(self, x_t, eps, t):
            return super().predict_x0_from_eps(x_t, eps, t) * (1 if bool((x_t > 0).all()) else 2)
    for wrong in (Forgetful, Waiting):
        with pytest.raises(RuntimeError, match="meta"):
            wrong(network("meta"), SCHEDULE).sample(SHAPE, 5)


@pytest.mark.gpu
def test_the_reference_can_be_recorded_and_its_recording_gives_the_same_samples():
    model = network("cuda")
    sampler, x_T = DDIMSampler(model, SCHEDULE), torch.randn(SHAPE, device="cuda")
    recorded = runtime.captured(lambda shape, x_T: sampler.sample(shape, 5, x_T=x_T), SHAPE, "cuda")
    assert torch.allclose(recorded(x_T), sampler.sample(SHAPE, 5, x_T=x_T), atol=1e-2)  # TF32
    stochastic = runtime.captured(lambda shape, x_T: sampler.sample(shape, 5, 1.0, x_T=x_T), SHAPE, "cuda")
    assert not torch.equal(stochastic(x_T), stochastic(x_T))
