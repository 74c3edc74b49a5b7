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

from diffusionlab.levels import Denoiser, levels_at
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained
from diffusionlab.runtime import standard_normal
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import judge, samples

from .dpm import solve_dpmpp_2m
from .euler import solve_ddim
from .heun import solve_heun
from .spacing import create_timesteps
from .unipc import solve_unipc

SOLVERS = {"ddim": solve_ddim, "heun": solve_heun, "dpmpp-2m": solve_dpmpp_2m, "unipc-2": solve_unipc,
           "unipc-3": partial(solve_unipc, order=3)}


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
CONTENDERS = [Cell(solver, spacing, 10) for solver in ("dpmpp-2m", "unipc-2", "unipc-3")
              for spacing in ("uniform", "log-snr")]
OTHERS = [Cell("ddim", "uniform", 10), Cell("ddim", "log-snr", 10), Cell("heun", "uniform", 5), Cell("heun", "log-snr", 5),
          *(Cell(solver, spacing, steps) for steps in (5, 20) for solver in ("ddim", "dpmpp-2m", "unipc-2")
            for spacing in ("uniform", "log-snr"))]


def measure(cell: Cell, model: NoiseModel, schedule: NoiseSchedule, n: int, seed: int) -> dict:
    """Make a cell's samples, or take those that are there, and judge them."""
    levels = levels_at(schedule, create_timesteps(schedule, cell.steps, cell.spacing))

    def make(labels, generator):
        x_T = standard_normal((len(labels), *model.sample_shape), device=model.device, generator=generator)
        return SOLVERS[cell.solver](Denoiser(model.condition(labels), schedule), x_T, levels)
    return judge(samples(cell.name, n, seed, make))


def verdict(cells: dict[Cell, dict]) -> str:
    """The comparison that the lab is about, in one sentence."""
    base, _ = cells[BASELINE]["frechet_to_real"]
    best = min((cell for cell in cells if cell in CONTENDERS), key=lambda cell: cells[cell]["frechet_to_real"][0],
               default=None)
    if best is None:
        return "no solver of order 2 with 10 calls was measured"
    reached, _ = cells[best]["frechet_to_real"]
    says = "no worse than" if reached <= base else "worse than"
    return (f"{best.name} ({best.nfe} calls): {reached:.2f}, {says} {BASELINE.name} ({BASELINE.nfe} calls): {base:.2f}; "
            f"floor {cells[BASELINE]['frechet_floor_real_to_real'][0]:.2f}, n = {cells[BASELINE]['n']}")


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
    found: dict[Cell, dict] = {}
    for cell in [*CONTENDERS, BASELINE, *([] if args.quick else OTHERS)]:
        found[cell] = measure(cell, model, schedule, args.samples, args.seed)
        print(f"{cell.name}: {found[cell]}", flush=True)
    table = Table(title=f"Frechet distance to real digits, n = {args.samples}", caption=verdict(found))
    for head in ("solver", "spacing", "calls", "Frechet distance", "judged as asked"):
        table.add_column(head, justify="left" if head in ("solver", "spacing") else "right")
    for cell in sorted(found, key=lambda cell: (cell.nfe, found[cell]["frechet_to_real"][0])):
        distance, spread = found[cell]["frechet_to_real"]
        table.add_row(cell.solver, cell.spacing, str(cell.nfe), f"{distance:.2f} +- {spread:.2f}",
                      f"{found[cell]['judged_as_asked']:.1%}")
    floor, spread = next(iter(found.values()))["frechet_floor_real_to_real"]
    table.add_row("real against real", "", "", f"{floor:.2f} +- {spread:.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
