"""Measure quality against network calls for every solver, on the network that the course ships.

`python -m solutions.lab6_solvers.evaluate` makes the samples of every cell (a solver, a spacing, a number of calls), judges
them, and writes docs/solvers.md with its verdict: does a solver of order 2 with 10 calls come as near to real digits as DDIM
with 50? Samples are kept in runs/ as they are made, apart for each network: started again, it goes on from there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import date
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffusionlab import metrics
from diffusionlab.levels import Denoiser, levels_at, log_snr, timesteps_near
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained, read_card
from diffusionlab.runtime import standard_normal
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import REAL_IMAGES, SPLITS, judge, machine_in_words, markdown_table, samples, seeded

from .dpm import solve_dpmpp_2m
from .euler import solve_ddim
from .heun import solve_heun
from .spacing import create_timesteps
from .unipc import solve_unipc

SOLVERS = {"ddim": solve_ddim, "heun": solve_heun, "dpmpp-2m": solve_dpmpp_2m, "unipc-2": solve_unipc,
           "unipc-3": partial(solve_unipc, order=3)}
RESAMPLINGS = 50


class Cell(NamedTuple):
    """What is measured: a solver, a spacing, how many steps, and the timestep of the last call.

    A last call above 0 goes with "log-snr" alone: nearer to clean data there is little left for the network to say, and of ten
    calls the usual spacing spends three below t = 40.
    """

    solver: str
    spacing: str
    steps: int
    last: int = 0

    @property
    def nfe(self) -> int:
        """Network calls for one sample."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps

    @property
    def name(self) -> str:
        return f"{self.solver}-{self.spacing}-{self.steps}" + (f"-to-{self.last}" if self.last else "")

    def levels(self, schedule: NoiseSchedule) -> Tensor:
        """The log-SNRs to visit, clean data last."""
        if not self.last:
            return levels_at(schedule, create_timesteps(schedule, self.steps, self.spacing))
        ends = log_snr(schedule, schedule.num_timesteps - 1), log_snr(schedule, self.last)
        return levels_at(schedule, timesteps_near(schedule, torch.linspace(*ends, self.steps, dtype=torch.float64)))


BASELINE = Cell("ddim", "uniform", 50)
CONTENDERS = [Cell(solver, spacing, 10) for solver in ("dpmpp-2m", "unipc-2")
              for spacing in ("log-snr", "quadratic", "karras", "uniform")]
CONTENDERS += [Cell(solver, "log-snr", 10, last) for solver in ("dpmpp-2m", "unipc-2") for last in (20, 40)]
OTHERS = [Cell("unipc-3", "log-snr", 10), *(Cell("ddim", "log-snr", steps, 40) for steps in (10, 50)),
          *(Cell("ddim", spacing, 10) for spacing in ("uniform", "log-snr")),
          *(Cell("heun", spacing, 5) for spacing in ("uniform", "log-snr")),
          *(Cell(solver, spacing, steps) for steps in (5, 20) for solver in ("ddim", "dpmpp-2m", "unipc-2")
            for spacing in ("uniform", "log-snr"))]


def sampled(cell: Cell, model: NoiseModel, schedule: NoiseSchedule, n: int, seed: int) -> Tensor:
    """Make a cell's samples, or take those that are there."""
    levels = cell.levels(schedule)

    def make(labels, generator):
        x_T = standard_normal((len(labels), *model.sample_shape), device=model.device, generator=generator)
        return SOLVERS[cell.solver](Denoiser(model.condition(labels), schedule), x_T, levels)
    return samples(cell.name, n, seed, make, "mnist", model.device)


def gap(x: Tensor, baseline: Tensor) -> tuple[float, float]:
    """How much farther from real digits x is than the baseline: the Frechet distances' difference, and how uncertain it is.

    The difference is the mean over the choices of real digits that `judge` makes. Samples of one number share starting noise and
    label, so both sides are resampled alike, each time beside another choice of real digits.
    """
    (real, classes), ours, theirs, generator = metrics.real_features(), metrics.features(x), metrics.features(baseline), seeded(0)
    everything = torch.arange(len(x))

    def difference(pick: Tensor) -> float:
        digits = real[metrics.balanced_order(classes, generator)[:len(x)]]
        return metrics.frechet_distance(ours[pick], digits) - metrics.frechet_distance(theirs[pick], digits)
    beyond = mean(difference(everything) for _ in range(SPLITS))
    return beyond, stdev(difference(torch.randint(len(x), (len(x),), generator=generator)) for _ in range(RESAMPLINGS))


def verdict(best: Cell, found: dict, beyond: float, spread: float) -> str:
    """The comparison that the lab is about, in one sentence.

    Args:
        best: the cell chosen among the contenders, by samples other than these.
        found: what `judge` says of the baseline's samples.
        beyond, spread: the `gap` of the chosen cell.
    """
    says = "nearer than" if beyond < -2 * spread else "farther than" if beyond > 2 * spread else "not to be told from"
    return (f"{best.name} ({best.nfe} calls) is {says} {BASELINE.name} ({BASELINE.nfe} calls): {beyond:+.2f} ± {spread:.2f}, "
            f"where real digits are {found['frechet_floor_real_to_real'][0]:.2f} from other real digits; n = {found['n']}")


HEADS = ("solver", "steps by", "calls", "Fréchet distance", "beyond DDIM-50", "judged as asked")


def rows(found: dict[Cell, dict], gaps: dict[Cell, tuple[float, float]]) -> list[list[str]]:
    """The table's rows, few calls first; the noise floor last."""
    made = []
    for cell in sorted(found, key=lambda cell: (cell.nfe, found[cell]["frechet_to_real"][0])):
        distance, spread = found[cell]["frechet_to_real"]
        made.append([cell.solver, cell.spacing + (f", last call at t = {cell.last}" if cell.last else ""), str(cell.nfe),
                     f"{distance:.2f} ± {spread:.2f}", "" if cell == BASELINE else "{:+.2f} ± {:.2f}".format(*gaps[cell]),
                     f"{found[cell]['judged_as_asked']:.1%}"])
    floor, spread = found[BASELINE]["frechet_floor_real_to_real"]
    return [*made, ["real digits", "", "", f"{floor:.2f} ± {spread:.2f}", "", ""]]


def page(table: list[list[str]], said: str, machine: str, n: int, seed: int, command: str) -> str:
    """The results as a page."""
    lines = [
        "# Solvers, spacings and network calls", "",
        f"Measured on {date.today().isoformat()}, {machine}, torch {torch.__version__}, by `{command}`: "
        f"the UNet for MNIST (`{read_card('mnist-unet')['sha256'][:12]}`), balanced labels, no guidance, n = {n}, seed {seed}; all cells share "
        "starting noise and labels. Fréchet distance to as many real digits, by the course's own feature network, with its standard deviation "
        "over random choices of these; beyond DDIM-50: the difference of the two distances, with its standard deviation over resampled pairs and "
        "choices.", "",
        *markdown_table(HEADS, table), "",
        f"**Chosen by this table, and measured again with the fresh samples of seed {seed + 1}:** {said}.", "",
        "A row's *last call* says where the network is asked for the last time; from there one step leads to clean data. Where none is named it "
        "is t = 0.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab6_solvers.evaluate",
                                     description=__doc__.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="samples for each cell, with balanced labels")
    parser.add_argument("--seed", type=int, default=0, help="of the starting noise, which all cells share")
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="only what the verdict needs")
    parser.add_argument("--out", type=Path, default=Path("docs/solvers.md"), help="the page to write")
    args = parser.parse_args()
    if not 10 <= args.samples <= REAL_IMAGES:
        parser.error(f"--samples must be at least 10, and there are {REAL_IMAGES} real digits to compare with")
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
    # The best of many looks better than it is: it has to show itself on samples that it was not chosen by.
    best = min(CONTENDERS, key=lambda cell: found[cell]["frechet_to_real"][0])
    baseline, x = (sampled(cell, model, schedule, args.samples, args.seed + 1) for cell in (BASELINE, best))
    said, made = verdict(best, judge(baseline), *gap(x, baseline)), rows(found, gaps)
    command = shlex.join(["python", "-m", "solutions.lab6_solvers.evaluate", *sys.argv[1:]])
    table = Table(title=f"Fréchet distance to real digits, n = {args.samples}", caption=said)
    for i, head in enumerate(HEADS):
        table.add_column(head, justify="right" if i > 1 else "left")
    for row in made:
        table.add_row(*row)
    Console().print(table)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page(made, said, machine_in_words(args.device), args.samples, args.seed, command), encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
