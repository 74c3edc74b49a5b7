"""Time the samplers side by side on this machine: `python -m solutions.lab5_sampling.bench`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import mean, median

import torch
from rich.console import Console
from rich.table import Table

from diffusionlab.metrics import peak_memory
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained
from diffusionlab.runtime import progress, standard_normal
from diffusionlab.schedule import NoiseSchedule

from .ddim import DDIMSampler
from .ddpm import DDPMSampler
from .measure import benchmark_samplers
from .optimizer import SamplingOptimizer

STEPS = (100, 50, 20, 10)
DDPM, BARE, DIFFUSERS = "DDPM-1000", "bare loop, 50 calls", "diffusers DDIM-50"


class FreeModel(NoiseModel):
    """A network that costs nothing: what a loop over it takes is the sampler's own time."""

    def __init__(self, sample_shape, num_timesteps: int, device):
        super().__init__()
        self.sample_shape, self.num_timesteps = sample_shape, num_timesteps
        self.register_buffer("where", torch.zeros(0, device=device))

    def forward(self, x, t):
        return x


def bare_loop(model: NoiseModel, timesteps: list[int]) -> Callable:
    """The limit of every sampler: the same number of calls of the same network, and nothing else."""
    @torch.no_grad()
    def run(shape):
        x = standard_normal(shape, device=model.device)
        for t in [torch.full((len(x),), t, device=x.device) for t in timesteps]:
            model(x, t)
    return run


def diffusers_ddim(model: NoiseModel, schedule: NoiseSchedule, num_steps: int) -> Callable:
    """diffusers' DDIMScheduler in the loop of its manual, over the same uniform timesteps."""
    from diffusers import DDIMScheduler
    scheduler = DDIMScheduler(schedule.num_timesteps, trained_betas=schedule.betas.numpy(), clip_sample=False,
                              timestep_spacing="linspace")
    scheduler.set_timesteps(num_steps, device=model.device)

    @torch.no_grad()
    def run(shape):
        x = standard_normal(shape, device=model.device)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t.expand(len(x))), t, x).prev_sample
        return x
    return run


def contenders(model: NoiseModel, schedule: NoiseSchedule) -> dict[str, Callable]:
    """Everything that is timed, by name; each takes the shape."""
    ddim = DDIMSampler(model, schedule)
    optimizer = SamplingOptimizer(ddim)
    named = {DDPM: DDPMSampler(model, schedule).sample}
    named |= {f"DDIM-{n}": partial(ddim.sample, timesteps=n) for n in STEPS}
    named["DDIM-50, cached"] = lambda shape: optimizer.cached_noise_schedule_sampling(ddim, shape, 50)
    named[BARE] = bare_loop(model, ddim.create_timestep_schedule(50).tolist())
    if find_spec("diffusers"):
        named[DIFFUSERS] = diffusers_ddim(model, schedule, 50)
    return named


def interleave(named: dict[str, Callable], shape, repeats: int, description: str) -> list[dict[str, list[dict]]]:
    """Run all in turn, again and again: for each cycle the records by name.

    The short samplers run before and after the long DDPM, and each number is taken within one cycle: a machine that grows slower
    on the way hits all alike.
    """
    short = {name: run for name, run in named.items() if name != DDPM}
    cycles = []
    for _ in progress(range(repeats), description):
        records = [each for some in (short, {DDPM: named[DDPM]}, short) for each in benchmark_samplers(some, shape)]
        cycles.append({name: [each for each in records if each["name"] == name] for name in named})
    return cycles


def within(cycles: list[dict[str, list[dict]]], key: str, combine: Callable) -> dict[str, float]:
    """For each sampler the median over the cycles of what `combine(its own, all by name)` makes of a cycle's means."""
    means = [{name: mean(each[key] for each in records) for name, records in cycle.items()} for cycle in cycles]
    return {name: median(combine(each[name], each) for each in means) for name in cycles[0]}


def overhead(cycles: list[dict[str, list[dict]]]) -> dict[str, float]:
    """Milliseconds a step beyond the bare loop."""
    return within(cycles, "seconds_per_step", lambda own, others: 1000 * (own - others[BARE]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.bench", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=8, help="images a run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of DDPM-1000; the others run twice as often")
    args = parser.parse_args()
    if args.batch < 1 or args.repeats < 1:
        parser.error("--batch and --repeats must be at least 1")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    try:
        model, schedule = load_pretrained("mnist", args.device), NoiseSchedule.linear()
    except ValueError as error:
        parser.error(str(error))
    shape = (args.batch, *model.sample_shape)

    named = contenders(model, schedule)
    benchmark_samplers({name: run for name, run in named.items() if name != DDPM}, shape)  # warms up
    memory = {name: peak_memory(lambda run=run: run(shape)) for name, run in progress(named.items(), "peak memory")}
    real = interleave(named, shape, args.repeats, "pretrained UNet")
    free_model = FreeModel(model.sample_shape, schedule.num_timesteps, args.device)
    free = interleave(contenders(free_model, schedule), shape, 10, "network that costs nothing")

    seconds = within(real, "seconds", lambda own, _: own)
    speed_up = within(real, "seconds", lambda own, others: others[DDPM] / own)
    per_step = within(real, "seconds_per_step", lambda own, _: 1000 * own)
    relative = within(real, "seconds_per_step", lambda own, others: own / others.get(DIFFUSERS, float("nan")))
    beyond, beyond_free = overhead(real), overhead(free)
    where = (torch.cuda.get_device_name() if args.device.startswith("cuda")
             else f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()}")
    table = Table(title=f"Sampling {args.batch} images on {where}, torch {torch.__version__}",
                  caption=f"Medians of one interleaved run: {args.repeats} of {DDPM}, {2 * args.repeats} of each other, each "
                  "number taken within a cycle. Overhead: beyond the bare loop, with the UNet and with a network that costs nothing. "
                  "Peak memory: above what was in use before.")
    for head in ("sampler", "network\ncalls", "seconds", "speed-up", "ms a\nstep", "overhead, ms a step\nUNet",
                 "overhead, ms a step\nfree network", "a step, relative\nto diffusers", "peak\nMiB"):
        table.add_column(head, justify="left" if head == "sampler" else "right")
    for name in named:
        beside = ["", "", ""] if name == BARE else [f"{speed_up[name]:.1f} x", f"{beyond[name]:+.3f}", f"{beyond_free[name]:+.3f}"]
        table.add_row(name, str(real[0][name][0]["nfe"]), f"{seconds[name]:.3f}", beside[0], f"{per_step[name]:.2f}", *beside[1:],
                      f"{relative[name]:.3f}" if DIFFUSERS in named else "-", f"{memory[name] / 2**20:.1f}")
    console = Console()
    console.print(table)
    if DIFFUSERS not in named:
        console.print("diffusers is not installed here, so its row is missing; `make bench` installs it.")


if __name__ == "__main__":
    main()
