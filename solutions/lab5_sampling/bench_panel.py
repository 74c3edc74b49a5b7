"""How long a panel keeps you waiting: `python -m solutions.lab5_sampling.bench_panel`."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable
from statistics import quantiles

import torch
from rich.console import Console
from rich.table import Table

from diffusionlab import explore
from diffusionlab.explore.eta_dial import SWEEP, EtaDial
from diffusionlab.pretrained import default_device, load_pretrained
from diffusionlab.runtime import bare_loop, progress, wall_time
from diffusionlab.schedule import NoiseSchedule

from .ddim import DDIMSampler
from .measure import sample_diversity
from .stochasticity import StochasticityController

STEPS, GRID, SWEPT = 20, 16, 4


def until_shown(panel: EtaDial, move: Callable[[], None]) -> float:
    """Seconds from a move of a control until the grid of samples on the page is a new one."""
    shown = threading.Event()
    # A glimpse of long work on its way is no answer yet.
    panel.samples.observe(lambda change: "on the way" in change["new"] or shown.set(), "value")
    try:
        taken = wall_time(lambda: (move(), shown.wait(60)))
        if not shown.is_set():
            raise TimeoutError("nothing new was shown within a minute")
        return taken
    finally:
        panel.samples.unobserve_all("value")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.bench_panel", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--moves", type=int, default=20, help="moves of eta of each kind")
    args = parser.parse_args()
    if args.moves < 2:
        parser.error("--moves must be at least 2")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    model, schedule = load_pretrained("mnist", args.device), NoiseSchedule.linear()
    sevens = model.condition(7)
    sampler = DDIMSampler(sevens, schedule)
    controller, shape = StochasticityController(sampler), (SWEPT, *model.sample_shape)
    bare = bare_loop(sevens, sampler.create_timestep_schedule(STEPS).tolist())
    panel = explore.eta(DDIMSampler, StochasticityController, sample_diversity, model=model, schedule=schedule)
    panel.refresh()
    panel.wait()

    def five_runs() -> None:
        for eta in SWEEP:
            sampler.sample(shape, STEPS, eta)

    times: dict[str, list[float]] = {name: [] for name in (
        f"the bare network, {STEPS} calls of {GRID}", "eta moved, panel at rest", "eta moved while the sweep runs",
        "eta moved back", f"sweep of {len(SWEEP)} as one batch", f"{len(SWEEP)} runs of {SWEPT}", "sweep / runs")}
    network, at_rest, in_sweep, back, batch, runs, ratio = times.values()
    # In turn, so that a busy moment of the machine hits all alike. Each round has a seed of its own: nothing is known before.
    for round_ in progress(range(args.moves), "moves"):
        panel.seed.value = 100 + round_
        panel.wait()
        network.append(wall_time(lambda: bare((GRID, *model.sample_shape))))
        before = panel.eta.value
        at_rest.append(until_shown(panel, lambda: setattr(panel.eta, "value", 0.35 if before < 0.5 else 0.3)))
        panel.wait()
        back.append(until_shown(panel, lambda: setattr(panel.eta, "value", before)))
        panel.memory.forget(lambda key: key[0] == "sweep")
        panel.refresh()  # the sweep is made once more, and not finished when eta moves
        in_sweep.append(until_shown(panel, lambda: setattr(panel.eta, "value", 0.8 if before == 0.75 else 0.75)))
        panel.wait()
        batch.append(wall_time(lambda: controller.analyze_eta_effects(shape, list(SWEEP), STEPS)))
        runs.append(wall_time(five_runs))
        ratio.append(batch[-1] / runs[-1])

    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()}"
    table = Table(title=f"Seconds until {GRID} samples of {STEPS} steps are shown, on {where}, torch {torch.__version__}",
                  caption=f"{args.moves} rounds, everything in turn. Strip and curves follow after that.")
    for head in ("what", "least", "10 %", "median", "90 %", "most"):
        table.add_column(head, justify="left" if head == "what" else "right")
    for name, values in times.items():
        deciles = quantiles(values, n=10, method="inclusive")
        table.add_row(name, *(f"{each:.3f}" for each in (min(values), deciles[0], deciles[4], deciles[8], max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
