"""Our solvers against diffusers' schedulers, elementwise in float64, in the configurations where theirs is right."""

from functools import partial

import pytest
import torch

from diffusionlab import NoiseSchedule
from diffusionlab.levels import Denoiser, levels_at
from diffusionlab.schedulers import PipelineUNet, make_scheduler, scheduler_steps, solve_with_scheduler
from solutions.lab6_solvers import (create_timesteps, library_timesteps, solve_ddim, solve_dpm1, solve_dpmpp_2m, solve_heun,
                                    solve_unipc)

PAIRS = [
    ("DDIMScheduler", {"clip_sample": False}, "trailing", solve_ddim),
    ("DDIMScheduler", {"clip_sample": False}, "leading", solve_ddim),
    ("HeunDiscreteScheduler", {}, "trailing", solve_heun),
    ("HeunDiscreteScheduler", {}, "leading", solve_heun),
    *(("DPMSolverMultistepScheduler", {"solver_order": 1}, spacing, solve_dpm1) for spacing in ("linspace", "trailing")),
    *(("DPMSolverMultistepScheduler", {"solver_order": 2}, spacing, solve_dpmpp_2m)
      for spacing in ("linspace", "leading", "trailing")),
    ("DPMSolverMultistepScheduler", {"solver_order": 2, "lower_order_final": False}, "trailing",
     partial(solve_dpmpp_2m, lower_order_final=False)),
    *(("UniPCMultistepScheduler", {"solver_order": p}, spacing, partial(solve_unipc, order=p))
      for p in (1, 2, 3) for spacing in ("linspace", "trailing")),
    # With bh1 theirs is NaN at clean data; see below.
    *(("UniPCMultistepScheduler", {"solver_order": p, "solver_type": variant, "final_sigmas_type": "sigma_min"}, "trailing",
       partial(solve_unipc, order=p, variant=variant)) for p in (1, 2, 3) for variant in ("bh1", "bh2")),
    *(("UniPCMultistepScheduler", {"solver_order": p, "disable_corrector": list(range(50))}, "trailing",
       partial(solve_unipc, order=p, corrector=False)) for p in (2, 3)),
]

# diffusers and numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.mark.parametrize("num_steps", [5, 10, 20])
@pytest.mark.parametrize("name, options, spacing, solver", PAIRS,
                         ids=lambda value: getattr(value, "__name__", str(getattr(value, "keywords", value)))[:60])
@pytest.mark.parametrize("model", ["gaussian", "ring"])
def test_theirs_and_ours_agree(request, schedule, model, x, name, options, spacing, solver, num_steps):
    denoise = Denoiser(request.getfixturevalue(model), schedule)
    scheduler = make_scheduler(name, schedule, timestep_spacing=spacing, **options)
    theirs = solve_with_scheduler(scheduler, schedule, denoise, x, num_steps)
    end = 0 if options.get("final_sigmas_type") == "sigma_min" else -1
    ours = solver(denoise, x, levels_at(schedule, scheduler_steps(scheduler, num_steps), end))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_their_bh1_breaks_at_clean_data_and_ours_does_not(gaussian, schedule, x):
    denoise = Denoiser(gaussian, schedule)
    scheduler = make_scheduler("UniPCMultistepScheduler", schedule, timestep_spacing="trailing", solver_type="bh1")
    assert solve_with_scheduler(scheduler, schedule, denoise, x, 10).isnan().all()
    ours = solve_unipc(denoise, x, levels_at(schedule, create_timesteps(schedule, 10, "trailing")), variant="bh1")
    assert ours.isfinite().all()


@pytest.mark.parametrize("options, end", [({"set_alpha_to_one": True}, -1), ({"set_alpha_to_one": False}, 0)])
def test_set_alpha_to_one_decides_whether_ddim_ends_at_clean_data(gaussian, schedule, x, options, end):
    denoise = Denoiser(gaussian, schedule)
    scheduler = make_scheduler("DDIMScheduler", schedule, timestep_spacing="trailing", clip_sample=False, **options)
    levels = levels_at(schedule, create_timesteps(schedule, 10, "trailing"), end)
    torch.testing.assert_close(solve_with_scheduler(scheduler, schedule, denoise, x, 10), solve_ddim(denoise, x, levels),
                               rtol=0, atol=1e-9)


def test_theirs_is_wrong_where_T_is_not_divisible(gaussian, schedule, x):
    # Its step recomputes the next timestep as t - T // n, whatever the spacing.
    denoise = Denoiser(gaussian, schedule)
    scheduler = make_scheduler("DDIMScheduler", schedule, timestep_spacing="linspace", clip_sample=False)
    ours = solve_ddim(denoise, x, levels_at(schedule, create_timesteps(schedule, 10, "uniform")))
    assert float((solve_with_scheduler(scheduler, schedule, denoise, x, 10) - ours).abs().max()) > 0.01


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("num_steps, offset", [(5, 0), (7, 1), (50, 1), (333, 0), (1000, 0)])
def test_the_timesteps_are_those_of_ddim_there(schedule, spacing, num_steps, offset):
    scheduler = make_scheduler("DDIMScheduler", schedule, timestep_spacing=spacing, steps_offset=offset)
    assert library_timesteps(1000, num_steps, spacing, offset).tolist() == scheduler_steps(scheduler, num_steps)


def test_their_schedulers_call_back_and_stop_like_ours(gaussian, schedule, x):
    denoise, seen = Denoiser(gaussian, schedule), []
    scheduler = make_scheduler("DPMSolverMultistepScheduler", schedule, timestep_spacing="trailing")
    solve_dpmpp_2m(denoise, x, levels_at(schedule, create_timesteps(schedule, 10, "trailing")),
                   callback=lambda *each: seen.append(each))
    ours = list(seen)
    seen.clear()
    solve_with_scheduler(scheduler, schedule, denoise, x, 10, callback=lambda *each: seen.append(each))
    for (i, lam, x_i, x0), (i_, lam_, x_i_, x0_) in zip(ours, seen, strict=True):
        assert (i, lam) == (i_, lam_)
        torch.testing.assert_close((x_i, x0), (x_i_, x0_), rtol=0, atol=1e-5)
    stopped = solve_with_scheduler(scheduler, schedule, denoise, x, 10, callback=lambda i, *_: i == 3)
    torch.testing.assert_close(stopped, ours[3][3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, options, message", [
    ("EulerScheduler", {}, "must be one of"), ("DDIMScheduler", {"spacing": "trailing"}, "no option 'spacing'")])
def test_unknown_schedulers_and_options_are_refused(schedule, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_scheduler(name, schedule, **options)


def test_a_scheduler_for_another_prediction_is_refused(gaussian, schedule, x):
    scheduler = make_scheduler("DDIMScheduler", schedule, prediction_type="v_prediction")
    with pytest.raises(ValueError, match="epsilon"):
        solve_with_scheduler(scheduler, schedule, Denoiser(gaussian, schedule), x, 10)


def test_our_unet_works_in_their_pipeline():
    from diffusers import DDIMPipeline

    from diffusionlab import UNet

    schedule = NoiseSchedule.linear()
    torch.manual_seed(0)
    unet = UNet(schedule, (1, 8, 8), widths=(32,), blocks=1).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.02)
    scheduler = make_scheduler("DDIMScheduler", schedule, timestep_spacing="trailing", clip_sample=False)
    pipeline = DDIMPipeline(PipelineUNet(unet), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(3, torch.Generator().manual_seed(1), num_inference_steps=10, output_type="pt", return_dict=False)[0]
    x_T = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ours = solve_ddim(Denoiser(unet, schedule), x_T, levels_at(schedule, create_timesteps(schedule, 10, "trailing")))
    torch.testing.assert_close(made, (ours / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)
