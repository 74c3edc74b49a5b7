"""Quality by number of steps, eta and schedule, beside the published table: `python -m solutions.lab5_sampling.quality`.

Makes the samples of every cell, judges them, and writes docs/figures.md with its plots. Samples are kept in runs/ as they are made, and cells in
figures.json as they are judged: started again, it goes on from there. On two CPU cores the whole table takes more than an hour, on a GPU minutes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from diffusionlab.noise_model import NoiseModel
from diffusionlab.pretrained import default_device, load_pretrained, read_card
from diffusionlab.runtime import compile_if_faster, in_mixed_precision, mixed_precision
from diffusionlab.schedule import NoiseSchedule
from solutions.evaluation import BATCH, REAL_IMAGES, judge, machine_in_words, samples

from .ddim import DDIMSampler
from .figures import CELLS, LONG, Cell, read_figures, record


def sampled(cell: Cell, model: NoiseModel, schedule: NoiseSchedule, n: int, seed: int, data: str, bf16: bool) -> Tensor:
    """Make a cell's samples, or take those that are there."""
    def make(labels, generator):
        sampler = DDIMSampler(model.condition(labels), schedule)
        timesteps = sampler.create_timestep_schedule(cell.steps, cell.schedule_type)
        sample = in_mixed_precision(sampler.sample) if bf16 else sampler.sample
        return sample((len(labels), *model.sample_shape), timesteps, cell.eta, generator=generator)
    return samples(cell.name + ("-bf16" if bf16 else ""), n, seed, make, data, model.device)


def measured_cells(out: Path, data: str, made_with: dict) -> dict[Cell, dict]:
    """The cells that figures.json has of the same network, judge, machine, precision and seed: they need not be made again."""
    result = read_figures(out).get("quality", {}).get(data, {})
    same = all(result.get(key) == value for key, value in made_with.items())
    return {Cell(each["schedule_type"], each["steps"], each["eta"]): each for each in result.get("cells", ()) if same}


def days(cells: list[dict]) -> str:
    """When cells were made: a day, or the first and the last."""
    return " to ".join(sorted({min(each["date"] for each in cells), max(each["date"] for each in cells)}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.quality", description=__doc__.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", choices=["mnist", "cifar10"], default="mnist", help="whose network to measure")
    parser.add_argument("--samples", type=int, default=1000, help="samples for each cell, with balanced labels")
    parser.add_argument("--long", type=int, default=500, help="samples for each cell of 1000 steps; 0 leaves these out")
    parser.add_argument("--bf16", action="store_true", help="run the network in bfloat16 where that is safe: quicker on CPUs with AMX; elsewhere, measure first")
    parser.add_argument("--compile", action="store_true", help="compile the network first, where that makes it quicker (half a minute)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="the folder that gets figures.md, figures.json and the plots")
    args = parser.parse_args()
    if not 10 <= args.samples <= REAL_IMAGES or args.long < 0 or 0 < args.long < 10:
        parser.error(f"--samples and --long must be at least 10 (--long also 0), and there are {REAL_IMAGES} real images to compare with")
    if args.long > args.samples:
        parser.error("--long must not be more than --samples: cells are compared at the smaller of the two")
    try:
        model, schedule = load_pretrained(args.data, args.device), NoiseSchedule.linear()
    except ValueError as error:
        parser.error(str(error))
    if args.compile:
        with mixed_precision() if args.bf16 else nullcontext():
            print(compile_if_faster(model, BATCH), flush=True)
    sizes = {cell: args.samples for cell in CELLS} | ({cell: args.long for cell in LONG} if args.long else {})
    made_with = {"network": read_card(f"{args.data}-unet")["sha256"][:12], "judge": read_card(f"{args.data}-classifier")["sha256"][:12],
                 "machine": machine_in_words(args.device), "torch": torch.__version__, "bf16": args.bf16, "seed": args.seed}
    found = {cell: each for cell, each in measured_cells(args.out, args.data, made_with).items() if each["n"] == sizes.get(cell, each["n"])}
    command = "make bench-quality" + (f' ARGS="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else "")

    def write_page() -> Path | None:
        """The page, as soon as it has what it must show."""
        cells = [found[each] for each in [*CELLS, *LONG] if each in found]
        return record(args.out, "quality", args.data, made_with | {"date": days(cells), "command": command, "cells": cells}) \
            if set(found) >= set(CELLS) else None

    for number, (cell, n) in enumerate(sizes.items(), 1):
        if cell not in found:
            x = sampled(cell, model, schedule, n, args.seed, args.data, args.bf16)
            found[cell] = cell._asdict() | judge(x, args.data) | {"date": date.today().isoformat()}
            write_page()
        print(f"{number}/{len(sizes)} {cell.name}: {found[cell]}", flush=True)
    for cell, n in sizes.items():  # to be compared with the cells of 1000 steps
        if 0 < args.long < n and cell.schedule_type == "uniform" and found[cell].get("fewer", {}).get("n") != args.long:
            found[cell]["fewer"] = judge(sampled(cell, model, schedule, args.long, args.seed, args.data, args.bf16), args.data)
            print(f"{cell.name}, the first {args.long}: {found[cell]['fewer']}", flush=True)
    print(write_page())


if __name__ == "__main__":
    main()
