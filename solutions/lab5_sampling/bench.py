"""Time the samplers side by side on this machine: `python -m solutions.lab5_sampling.bench`."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median

import torch
from rich.console import Console
from rich.table import Table

from diffusionlab.metrics import peak_memory
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained
from diffusionlab.runtime import bare_loop, captured, compile_if_faster, progress, standard_normal, wall_time
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import machine_in_words

from .ddim import DDIMSampler
from .ddpm import DDPMSampler
from .figures import TITLES, record, table_by_batch
from .measure import benchmark_samplers
from .optimizer import SamplingOptimizer

STEPS = (100, 50, 20, 10)
BATCHES = {"cpu": (1, 4, 16, 64), "cuda": (1, 4, 16, 64, 256)}
DDPM, BARE, DIFFUSERS = "DDPM-1000", "bare loop, 50 calls", "diffusers DDIM-50"


class FreeModel(NoiseModel):
    """A network that costs nothing: what a loop over it takes is the sampler's own time."""

    def __init__(self, sample_shape, num_timesteps: int, device):
        super().__init__()
        self.sample_shape, self.num_timesteps = sample_shape, num_timesteps
        self.register_buffer("where", torch.zeros(0, device=device))

    def forward(self, x, t):
        return x


def diffusers_ddim(model: NoiseModel, schedule: NoiseSchedule, num_steps: int) -> Callable:
    """diffusers' DDIMScheduler over the same uniform timesteps, in the quickest loop around it that its manual allows."""
    from diffusers import DDIMScheduler
    scheduler = DDIMScheduler(schedule.num_timesteps, trained_betas=schedule.betas.numpy(), clip_sample=False,
                              timestep_spacing="linspace")
    scheduler.set_timesteps(num_steps)
    # The scheduler looks its timesteps up in tables on the CPU: with those of the manual's loop, on the GPU, every step would wait for it.
    timesteps = list(zip(scheduler.timesteps, scheduler.timesteps.to(model.device)))

    @torch.no_grad()
    def run(shape, x_T=None):
        x = standard_normal(shape, device=model.device) if x_T is None else x_T
        for t, on_device in timesteps:
            x = scheduler.step(model(x, on_device.expand(len(x))), t, x).prev_sample
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


def loops(model: NoiseModel, schedule: NoiseSchedule, steps: int) -> dict[str, Callable]:
    """DDIM and its limit, the bare loop over the same timesteps."""
    ddim = DDIMSampler(model, schedule)
    return {"bare loop": bare_loop(model, ddim.create_timestep_schedule(steps).tolist()), "DDIM": partial(ddim.sample, timesteps=steps)}


def recorded(model: NoiseModel, schedule: NoiseSchedule, steps: int, shape, x_T) -> dict[str, Callable]:
    """Both loops as recorded ones; a loop that cannot be recorded must not pass for one that was, and raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the sampler cannot be recorded")
        return {name: partial(captured(loop, shape, model.device), x_T) for name, loop in loops(model, schedule, steps).items()}


def by_batch(model: NoiseModel, schedule: NoiseSchedule, batches, steps: int, repeats: int, copy: NoiseModel | None = None) -> list[dict]:
    """Milliseconds a step of DDIM, of the bare loop and of diffusers for each batch; on a GPU also of the first two as recorded loops.

    Args:
        copy: on a GPU, the same network once more, to be compiled before both loops are recorded again.

    Returns:
        A dict for each batch: `batch`; `milliseconds` by name, the median over the cycles; `relative` by name, to the bare loop of its
        kind, the median of what each cycle gives.
    """
    samplers, found = loops(model, schedule, steps), []
    if find_spec("diffusers"):
        samplers["diffusers"] = diffusers_ddim(model, schedule, steps)
    for batch in progress(batches, "batches"):
        shape = (batch, *model.sample_shape)
        x_T = standard_normal(shape, device=model.device)
        runs = {name: partial(sampler, shape, x_T=x_T) for name, sampler in samplers.items()}
        if model.device.type == "cuda":
            runs |= {f"{name}, recorded": run for name, run in recorded(model, schedule, steps, shape, x_T).items()}
        if model.device.type == "cuda" and copy is not None and compile_if_faster(copy, batch).kept:
            runs |= {f"{name}, compiled and recorded": run for name, run in recorded(copy, schedule, steps, shape, x_T).items()}

        def cycle() -> dict[str, float]:
            """There and back again: a machine that grows slower on the way hits all alike."""
            there = [wall_time(run) for run in runs.values()]
            back = [wall_time(run) for run in reversed(runs.values())]
            return {name: 500 * (a + b) / steps for name, a, b in zip(runs, there, reversed(back))}
        cycle()  # warms up
        cycles = [cycle() for _ in range(repeats)]
        limit = {name: "bare loop" + "".join(name.partition(",")[1:]) for name in runs}
        found.append({"batch": batch, "milliseconds": {name: round(median(cycle[name] for cycle in cycles), 3) for name in runs},
                      "relative": {name: round(median(cycle[name] / cycle[limit[name]] for cycle in cycles), 4) for name in runs}})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.bench", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", choices=["mnist", "cifar10"], default="mnist", help="whose network to run")
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=8, help="images a run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of DDPM-1000; the others run twice as often")
    parser.add_argument("--out", type=Path, help="write the figures into this folder's figures.md; for the project's own page: docs")
    args = parser.parse_args()
    if args.batch < 1 or args.repeats < 1:
        parser.error("--batch and --repeats must be at least 1")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    if torch.device(args.device).index is not None:  # one of several GPUs
        torch.cuda.set_device(args.device)
    try:
        model, schedule = load_pretrained(args.data, args.device), NoiseSchedule.linear()
    except ValueError as error:
        parser.error(str(error))
    shape = (args.batch, *model.sample_shape)

    named = contenders(model, schedule)
    benchmark_samplers({name: run for name, run in named.items() if name != DDPM}, shape)  # warms up
    memory = {name: peak_memory(lambda run=run: run(shape)) for name, run in progress(named.items(), "peak memory")}
    real = interleave(named, shape, args.repeats, "pretrained UNet")
    free_model = FreeModel(model.sample_shape, schedule.num_timesteps, args.device)
    free = interleave(contenders(free_model, schedule), shape, 10, "network that costs nothing")

    taken = within(real, "seconds", lambda own, _: own)
    speed_up = within(real, "seconds", lambda own, others: others[DDPM] / own)
    per_step = within(real, "seconds_per_step", lambda own, _: 1000 * own)
    relative = within(real, "seconds_per_step", lambda own, others: own / others.get(DIFFUSERS, float("nan")))
    beyond, beyond_free = overhead(real), overhead(free)
    heads = ("sampler", "network calls", "seconds", "speed-up", "ms a step", "overhead, ms a step, UNet",
             "overhead, ms a step, free network", "a step, relative to diffusers", "peak MiB")
    rows = []
    for name in named:
        beside = ["", "", ""] if name == BARE else [f"{speed_up[name]:.1f} x", f"{beyond[name]:+.3f}", f"{beyond_free[name]:+.3f}"]
        rows.append([name, str(real[0][name][0]["nfe"]), f"{taken[name]:.3f}", beside[0], f"{per_step[name]:.2f}", *beside[1:],
                     f"{relative[name]:.3f}" if DIFFUSERS in named else "-", f"{memory[name] / 2**20:.1f}"])
    table = Table(title=f"Sampling {args.batch} images of {TITLES[args.data]} on {machine_in_words(args.device)}, torch {torch.__version__}",
                  caption=f"Medians of one interleaved run: {args.repeats} of {DDPM}, {2 * args.repeats} of each other, each "
                  "number taken within a cycle. Overhead: beyond the bare loop, with the UNet and with a network that costs nothing. "
                  "Peak memory: above what was in use before.")
    for head in heads:
        table.add_column(head, justify="left" if head == "sampler" else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    kind = torch.device(args.device).type
    batches = by_batch(model, schedule, BATCHES[kind], 20, args.repeats, load_pretrained(args.data, args.device) if kind == "cuda" else None)
    heads_by_batch, rows_by_batch = table_by_batch(batches)
    table = Table(*heads_by_batch, title="Milliseconds a step, 20 steps (relative to the bare loop of its kind; times as fast as diffusers)")
    for row in rows_by_batch:
        table.add_row(*row)
    console.print(table)
    if DIFFUSERS not in named:
        console.print("diffusers is not installed here, so its rows are missing; `make bench` installs it.")
    if args.out:
        result = {"machine": machine_in_words(args.device), "data": args.data, "batch": args.batch, "heads": heads, "rows": rows,
                  "by_batch": batches}
        console.print(record(args.out, "speed", kind, result))


if __name__ == "__main__":
    main()
