"""Quality by number of steps, eta and schedule, beside the published table: `python -m solutions.lab5_sampling.figures`.

Makes the samples of every cell, judges them, and writes docs/figures.md with its plots. Samples are kept in runs/ as they are made: started
again, it goes on from there. On two CPU cores the whole table takes more than an hour, on a GPU minutes.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch

from diffusionlab import plots
from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained, read_card
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import judge, machine_in_words, markdown_table, samples

from .ddim import DDIMSampler


class Cell(NamedTuple):
    """What is measured: a schedule, a number of steps, eta."""

    schedule_type: str
    steps: int
    eta: float

    @property
    def name(self) -> str:
        return f"ddim-{self.schedule_type}-{self.steps}-eta-{self.eta:g}"


STEPS, ETAS, SCHEDULES = (5, 10, 20, 50, 100), (0.0, 0.2, 0.5, 1.0), ("uniform", "quadratic", "trailing")
CELLS = [*(Cell("uniform", steps, eta) for eta in ETAS for steps in STEPS),
         *(Cell(schedule, steps, 0.0) for schedule in SCHEDULES[1:] for steps in STEPS)]
LONG = [Cell("uniform", 1000, eta) for eta in (0.0, 1.0)]

# FID on CIFAR-10 with 50,000 samples and quadratic spacing (Song et al. 2021, table 1).
PUBLISHED = {(steps, eta): value for eta, row in {
    0.0: (13.36, 6.84, 4.67, 4.16, 4.04), 0.2: (14.04, 7.11, 4.77, 4.25, 4.09), 0.5: (16.66, 8.35, 5.25, 4.46, 4.29),
    1.0: (41.07, 18.36, 8.01, 5.78, 4.73)}.items() for steps, value in zip((10, 20, 50, 100, 1000), row)}


def measure(cell: Cell, model: NoiseModel, schedule: NoiseSchedule, n: int, seed: int) -> dict:
    """Make a cell's samples, or take those that are there, and judge them."""
    def make(labels, generator):
        sampler = DDIMSampler(model.condition(labels), schedule)
        timesteps = sampler.create_timestep_schedule(cell.steps, cell.schedule_type)
        return sampler.sample((len(labels), *model.sample_shape), timesteps, cell.eta, generator=generator)
    return judge(samples(cell.name, n, seed, make))


def trends(found: dict[Cell, dict]) -> tuple[int, list[str], int]:
    """Pairs of cells that differ in the steps alone or in eta alone, and are in the published table too.

    Returns:
        How many are in the same order as published; those in the opposite one, in words; and how many differ by less than two standard
        deviations here or are equal there, so that they say nothing.
    """
    ours = {(cell.steps, cell.eta): each["frechet_to_real"] for cell, each in found.items() if cell.schedule_type == "uniform"}
    same, opposite, silent = 0, [], 0
    for a, b in combinations([key for key in PUBLISHED if key in ours], 2):
        if (a[0] == b[0]) == (a[1] == b[1]):
            continue
        (mean_a, spread_a), (mean_b, spread_b) = ours[a], ours[b]
        if abs(mean_a - mean_b) < 2 * (spread_a**2 + spread_b**2) ** 0.5:
            silent += 1
        elif (mean_a < mean_b) == (PUBLISHED[a] < PUBLISHED[b]):
            same += 1
        else:
            opposite.append(f"{a[0]} steps at eta {a[1]:g} ({mean_a:.1f}) and {b[0]} steps at eta {b[1]:g} ({mean_b:.1f})")
    return same, opposite, silent


def entry(found: dict[Cell, dict], cell: Cell) -> str:
    """A cell of the table: distance and spread, and how often the digit asked for is seen."""
    if cell not in found:
        return ""
    mean, spread = found[cell]["frechet_to_real"]
    return f"{mean:.1f} ± {spread:.1f}, {found[cell]['judged_as_asked']:.1%}"


def page(found: dict[Cell, dict], machine: str, picture: Path) -> str:
    """The results as a page; draws the plot beside it."""
    by_n = {each["n"]: each["frechet_floor_real_to_real"] for each in found.values()}
    floors = ", ".join(f"{mean:.1f} ± {spread:.1f} at n = {n}" for n, (mean, spread) in sorted(by_n.items()))
    steps = sorted({cell.steps for cell in found})
    card = read_card("mnist-unet")
    lines = [
        "# Quality by steps, eta and schedule", "",
        f"Measured on {date.today().isoformat()}, {machine}, torch {torch.__version__}, by `make bench-quality`: the UNet for MNIST "
        f"(`{card['sha256'][:12]}`), balanced labels, no guidance. Each cell: the Fréchet distance to as many real digits, by the course's own "
        f"feature network (mean and standard deviation over random choices of these), and how often the classifier sees the digit asked for. "
        f"n = {found[CELLS[0]]['n']}" + (f", at 1000 steps {found[LONG[0]]['n']}" if LONG[0] in found else "") + ". "
        f"Real digits against real digits, the noise floor: {floors}. Distances of different n do not compare.", "",
        "## eta, uniform steps", "",
        *markdown_table(["eta", *map(str, steps)], [[f"{eta:g}", *(entry(found, Cell("uniform", n, eta)) for n in steps)] for eta in ETAS]), "",
        f"![Fréchet distance by steps for each eta](images/{picture.name})", "",
        "## Schedules, eta = 0", "",
        *markdown_table(["schedule", *map(str, STEPS)], [[each, *(entry(found, Cell(each, n, 0.0)) for n in STEPS)] for each in SCHEDULES]), "",
        "## Beside the published table", "",
        "Song et al. 2021, table 1: FID on CIFAR-10, 50,000 samples. Other data, another feature network, another spacing: only the order of "
        "the cells can be compared.", ""]
    published_steps = sorted({steps for steps, _ in PUBLISHED})
    lines += markdown_table(["eta", *map(str, published_steps)], [[f"{eta:g}", *(f"{PUBLISHED[n, eta]:g}" for n in published_steps)] for eta in ETAS])
    same, opposite, silent = trends(found)
    lines += ["", f"Of the pairs of cells that differ in steps alone or in eta alone, {same} are in the published order, {len(opposite)} in the "
              f"opposite one, and {silent} too near to each other to tell."]
    lines += ["", *(f"- opposite: {each}" for each in opposite), ""] if opposite else [""]
    floor = by_n[found[CELLS[0]]["n"]]
    curves = {f"eta = {eta:g}": ([n for n in STEPS], [found[Cell("uniform", n, eta)]["frechet_to_real"][0] for n in STEPS]) for eta in ETAS}
    figure = plots.curves(curves, "steps", f"Fréchet distance (n = {found[CELLS[0]]['n']})", logx=True, logy=True, floor=tuple(floor))
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(plots.to_png(figure))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.figures", description=__doc__.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="samples for each cell, with balanced labels")
    parser.add_argument("--long", type=int, default=500, help="samples for each cell of 1000 steps; 0 leaves these out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="the folder that gets figures.md, .json and .png")
    args = parser.parse_args()
    if args.samples < 10 or args.long < 0 or 0 < args.long < 10:
        parser.error("--samples and --long must be at least 10 (--long also 0)")
    try:
        model, schedule = load_pretrained("mnist", args.device), NoiseSchedule.linear()
    except ValueError as error:
        parser.error(str(error))
    sizes = {cell: args.samples for cell in CELLS} | ({cell: args.long for cell in LONG} if args.long else {})
    found = {}
    for number, (cell, n) in enumerate(sizes.items(), 1):
        found[cell] = measure(cell, model, schedule, n, args.seed)
        print(f"{number}/{len(sizes)} {cell.name}: {found[cell]}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "figures.json").write_text(json.dumps([cell._asdict() | each for cell, each in found.items()], indent=1) + "\n")
    (args.out / "figures.md").write_text(page(found, machine_in_words(args.device), args.out / "images" / "figures.png"), encoding="utf-8")
    print(args.out / "figures.md")


if __name__ == "__main__":
    main()
