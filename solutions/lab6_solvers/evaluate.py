"""Measure quality against network calls for every solver, on the network that the course ships.

`python -m solutions.lab6_solvers.evaluate` makes the samples of every cell (a solver, a spacing, a number of calls), judges
them, and prints a table with its verdict: does a solver of order 2 with 10 calls come as near to real digits as DDIM with
50? Samples are kept in runs/ as they are made, apart for each network: started again, it goes on from there.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffusionlab import datasets, metrics
from diffusionlab.levels import Denoiser, levels_at
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained
from diffusionlab.runtime import standard_normal
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import judge, samples, seeded

from .dpm import solve_dpmpp_2m
from .euler import solve_ddim
from .heun import solve_heun
from .spacing import create_timesteps
from .unipc import solve_unipc

SOLVERS = {"ddim": solve_ddim, "heun": solve_heun, "dpmpp-2m": solve_dpmpp_2m, "unipc-2": solve_unipc,
           "unipc-3": partial(solve_unipc, order=3)}
RESAMPLINGS = 50


class Cell(NamedTuple):
    """What is measured: a solver, a spacing, and how many steps."""

    solver: str
    spacing: str
    steps: int

    @property
    def nfe(self) -> int:
        """Network calls for one sample."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps

    @property
    def name(self) -> str:
        return f"{self.solver}-{self.spacing}-{self.steps}"


BASELINE = Cell("ddim", "uniform", 50)
CONTENDERS = [Cell(solver, spacing, 10) for solver in ("dpmpp-2m", "unipc-2")
              for spacing in ("log-snr", "quadratic", "karras", "uniform")]
OTHERS = [Cell("unipc-3", "log-snr", 10), *(Cell("ddim", spacing, 10) for spacing in ("uniform", "log-snr")),
          *(Cell("heun", spacing, 5) for spacing in ("uniform", "log-snr")),
          *(Cell(solver, spacing, steps) for steps in (5, 20) for solver in ("ddim", "dpmpp-2m", "unipc-2")
            for spacing in ("uniform", "log-snr"))]


def sampled(cell: Cell, model: NoiseModel, schedule: NoiseSchedule, n: int, seed: int) -> Tensor:
    """Make a cell's samples, or take those that are there."""
    levels = levels_at(schedule, create_timesteps(schedule, cell.steps, cell.spacing))

    def make(labels, generator):
        x_T = standard_normal((len(labels), *model.sample_shape), device=model.device, generator=generator)
        return SOLVERS[cell.solver](Denoiser(model.condition(labels), schedule), x_T, levels)
    return samples(cell.name, n, seed, make)


def gap(x: Tensor, baseline: Tensor) -> tuple[float, float]:
    """How much farther from real digits x is than the baseline: the Frechet distances' difference, and how uncertain it is.

    Samples of one number share starting noise and label, so both sides are resampled alike.
    """
    ours, theirs, generator = metrics.features(x), metrics.features(baseline), seeded(0)
    real = metrics.reference_features("real")[metrics.balanced_order(datasets.mnist("test")[1], generator)[:len(x)]]

    def difference(pick: Tensor) -> float:
        return metrics.frechet_distance(ours[pick], real) - metrics.frechet_distance(theirs[pick], real)
    drawn = [difference(torch.randint(len(x), (len(x),), generator=generator)) for _ in range(RESAMPLINGS)]
    return difference(torch.arange(len(x))), float(torch.tensor(drawn).std())


def verdict(found: dict[Cell, dict], gaps: dict[Cell, tuple[float, float]]) -> str:
    """The comparison that the lab is about, in one sentence."""
    best = min(CONTENDERS, key=lambda cell: found[cell]["frechet_to_real"][0])
    beyond, spread = gaps[best]
    says = "better than" if beyond < -2 * spread else "worse than" if beyond > 2 * spread else "not to be told from"
    floor, n = found[BASELINE]["frechet_floor_real_to_real"][0], found[BASELINE]["n"]
    return (f"{best.name} ({best.nfe} calls) is {says} {BASELINE.name} ({BASELINE.nfe} calls): "
            f"{beyond:+.2f} +- {spread:.2f}; floor {floor:.2f}, n = {n}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab6_solvers.evaluate",
                                     description=__doc__.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="samples for each cell, with balanced labels")
    parser.add_argument("--seed", type=int, default=0, help="of the starting noise, which all cells share")
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="only what the verdict needs")
    args = parser.parse_args()
    if args.samples < 10:
        parser.error("--samples must be at least 10")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    try:
        model, schedule = load_pretrained("mnist", args.device), NoiseSchedule.linear()
    except ValueError as error:
        parser.error(str(error))
    baseline, found, gaps = sampled(BASELINE, model, schedule, args.samples, args.seed), {}, {}
    for cell in [BASELINE, *CONTENDERS, *([] if args.quick else OTHERS)]:
        x = sampled(cell, model, schedule, args.samples, args.seed)
        found[cell], gaps[cell] = judge(x), gap(x, baseline)
        print(f"{cell.name}: {found[cell]}, beyond the baseline: {gaps[cell][0]:+.2f} +- {gaps[cell][1]:.2f}", flush=True)
    table = Table(title=f"Frechet distance to real digits, n = {args.samples}", caption=verdict(found, gaps))
    for head in ("solver", "spacing", "calls", "Frechet distance", f"beyond {BASELINE.name}", "judged as asked"):
        table.add_column(head, justify="left" if head in ("solver", "spacing") else "right")
    for cell in sorted(found, key=lambda cell: (cell.nfe, found[cell]["frechet_to_real"][0])):
        distance, spread = found[cell]["frechet_to_real"]
        beyond = "" if cell == BASELINE else f"{gaps[cell][0]:+.2f} +- {gaps[cell][1]:.2f}"
        table.add_row(cell.solver, cell.spacing, str(cell.nfe), f"{distance:.2f} +- {spread:.2f}", beyond,
                      f"{found[cell]['judged_as_asked']:.1%}")
    floor, spread = found[BASELINE]["frechet_floor_real_to_real"]
    table.add_row("real against real", "", "", f"{floor:.2f} +- {spread:.2f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
