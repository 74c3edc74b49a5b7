"""The page of measured figures: what `make bench-quality` and `make bench` found goes into docs/figures.json, and from there into docs/figures.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch

from diffusionlab import plots
from solutions.evaluation import markdown_table


class Cell(NamedTuple):
    """What quality is measured of: a schedule, a number of steps, eta."""

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

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cpu": "On a CPU", "cuda": "On a GPU"}
COMMANDS = {"mnist": "make bench-quality", "cifar10": 'make bench-quality ARGS="--data cifar10"',
            "cpu": 'make bench ARGS="--device cpu --out docs"', "cuda": 'make bench ARGS="--device cuda --out docs"'}


REMARKS = {
    "mnist": """\
How to read it. In both tables few steps cost most at eta = 1: its fresh noise grows with the length of a step, and after the last long
steps few are left to restore what it washed out. In the published table eta = 1 stays behind with 50 and 100 steps, too; here it does not. Near the noise
floor n samples cannot tell one cell from another: a difference of less than twice its spread shows nothing.""",
    "cifar10": """\
How to read it. From 20 steps on most of a distance is the network's own, above all while it is [a preview](../data/checkpoints/cifar10-unet.md): no
number of steps takes that away. What the sampler adds shows the published order more clearly than digits do. With few steps eta = 1 is far behind, and
what one sees is not noise: its pictures are paler and smoother, for the last steps are too few to put details back. With 100 steps no difference is
left that so few samples could show."""}


def distance(each: dict, n: int | None = None) -> tuple[float, float] | None:
    """A cell's Frechet distance and its spread, for n samples (None: for all that it has); None where n was not measured."""
    found = each if n in (None, each["n"]) else each.get("fewer")
    return tuple(found["frechet_to_real"]) if found and n in (None, found["n"]) else None


def trends(found: dict[Cell, dict]) -> tuple[int, list[str], int]:
    """Pairs of cells that differ in the steps alone or in eta alone, and are in the published table too.

    Returns:
        How many are in the same order as published; those in the opposite one, in words; and how many differ by less than two standard
        deviations here or are equal there, so that they say nothing.
    """
    ours = {(cell.steps, cell.eta): each for cell, each in found.items() if cell.schedule_type == "uniform"}
    same, opposite, silent = 0, [], 0
    for a, b in combinations([key for key in PUBLISHED if key in ours], 2):
        if (a[0] == b[0]) == (a[1] == b[1]):
            continue
        n = min(ours[a]["n"], ours[b]["n"])  # only distances of one n compare
        if (of_a := distance(ours[a], n)) is None or (of_b := distance(ours[b], n)) is None:
            continue
        (mean_a, spread_a), (mean_b, spread_b) = of_a, of_b
        if PUBLISHED[a] == PUBLISHED[b] or abs(mean_a - mean_b) < 2 * (spread_a**2 + spread_b**2) ** 0.5:
            silent += 1
        elif (mean_a < mean_b) == (PUBLISHED[a] < PUBLISHED[b]):
            same += 1
        else:
            opposite.append(f"{a[0]} steps at eta {a[1]:g} ({mean_a:.1f}) and {b[0]} steps at eta {b[1]:g} ({mean_b:.1f})")
    return same, opposite, silent


def entry(found: dict[Cell, dict], cell: Cell) -> str:
    """A cell of the table: distance and spread, and how often the class asked for is seen."""
    if cell not in found:
        return ""
    mean, spread = distance(found[cell])
    return f"{mean:.1f} ± {spread:.1f}, {found[cell]['judged_as_asked']:.1%}"


def measured(key: str, result: dict) -> str:
    """When, where and by which command."""
    return f"Measured on {result['date']}, {result['machine']}, torch {result['torch']}, by `{result.get('command', COMMANDS[key])}`"


def quality_section(data: str, result: dict, images: Path) -> list[str]:
    """What `quality` found for one data set; draws the plots beside it."""
    found = {Cell(each["schedule_type"], each["steps"], each["eta"]): each for each in result["cells"]}
    n, steps = found[CELLS[0]]["n"], sorted({cell.steps for cell in found})
    everything = [*found.values(), *(each["fewer"] for each in found.values() if "fewer" in each)]
    floors = {each.get("floor_n", each["n"]): each["frechet_floor_real_to_real"] for each in everything}
    in_words = ", ".join(f"{mean:.1f} ± {spread:.1f} at n = {n}" for n, (mean, spread) in sorted(floors.items()))
    lines = [
        f"{measured(data, result)}: the shipped UNet (`{result['network']}`){', in bfloat16' if result.get('bf16') else ''}, balanced labels, no "
        "guidance. Each cell: the Fréchet distance to as many real images, by the course's own feature network (mean and standard deviation over random choices of these), and how often the "
        f"classifier sees the class asked for. n = {n}" + "".join(f", at 1000 steps {found[cell]['n']}" for cell in LONG[:1] if cell in found) + ". "
        f"Real images against real images, the noise floor: {in_words}. Distances of different n do not compare.", "",
        *markdown_table(["eta, uniform steps", *map(str, steps)],
                        [[f"{eta:g}", *(entry(found, Cell("uniform", n, eta)) for n in steps)] for eta in ETAS]), "",
        *markdown_table(["schedule, eta = 0", *map(str, STEPS)],
                        [[each, *(entry(found, Cell(each, n, 0.0)) for n in STEPS)] for each in SCHEDULES]), "",
        f"![Fréchet distance by steps for each eta](images/quality-{data}-eta.png)", "",
        f"![Fréchet distance by steps for each schedule](images/quality-{data}-schedule.png)", "",
        "Beside the published table (Song et al. 2021, table 1: FID on CIFAR-10, 50,000 samples, quadratic steps). It has other samples, another "
        "feature network and another spacing, so only the order of the cells can be compared:", ""]
    published_steps = sorted({steps for steps, _ in PUBLISHED})
    lines += markdown_table(["eta, published", *map(str, published_steps)],
                            [[f"{eta:g}", *(f"{PUBLISHED[n, eta]:g}" for n in published_steps)] for eta in ETAS])
    same, opposite, silent = trends(found)
    lines += ["", f"Of the pairs of cells that differ in steps alone or in eta alone, {same} are in the published order, {len(opposite)} in the "
              f"opposite one, and {silent} too near to each other to tell." +
              (" Pairs with 1000 steps are compared at the smaller n." if any(cell in found for cell in LONG) else ""), ""]
    lines += [*(f"- opposite: {each}" for each in opposite), ""] if opposite else []
    lines += [REMARKS[data], ""] if data in REMARKS else []

    floor = tuple(found[CELLS[0]]["frechet_floor_real_to_real"])

    def draw(name: str, cells: dict[str, list[Cell]]) -> None:
        curves = {label: (list(STEPS), [distance(found[cell])[0] for cell in row]) for label, row in cells.items()}
        figure = plots.curves(curves, "steps", f"Fréchet distance (n = {n})", logx=True, logy=True, floor=floor)
        (images / f"quality-{data}-{name}.png").write_bytes(plots.to_png(figure))
    draw("eta", {f"eta = {eta:g}": [Cell("uniform", n, eta) for n in STEPS] for eta in ETAS})
    draw("schedule", {each: [Cell(each, n, 0.0) for n in STEPS] for each in SCHEDULES})
    return lines


def table_by_batch(found: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what `bench.by_batch` found; a cell is empty where a batch was not measured so."""
    names = list(dict.fromkeys(name for each in found for name in each["milliseconds"]))

    def cell(each: dict, name: str) -> str:
        if name not in each["milliseconds"]:
            return ""
        milliseconds, theirs = each["milliseconds"][name], each["milliseconds"].get("diffusers")
        return f"{milliseconds:.2f} ({each['relative'][name]:.3f}" + (f"; {theirs / milliseconds:.2f} x)" if theirs else ")")
    return ["batch", *names], [[str(each["batch"]), *(cell(each, name) for name in names)] for each in found]


def speed_section(device: str, result: dict, images: Path) -> list[str]:
    """What `bench` found on one kind of machine; draws milliseconds a step and image by batch."""
    named: dict[str, tuple[list, list]] = {}
    for each in result["by_batch"]:
        for name, milliseconds in each["milliseconds"].items():
            batches, taken = named.setdefault(name, ([], []))
            batches.append(each["batch"])
            taken.append(milliseconds / each["batch"])
    figure = plots.curves(named, "batch", "milliseconds a step and image", logx=True, logy=True)
    (images / f"speed-{device}.png").write_bytes(plots.to_png(figure))
    return [f"{measured(device, result)}: the UNet for {TITLES[result['data']]}, all contenders in turn, each number taken within a cycle. "
            f"Batch {result['batch']}. Overhead: beyond the bare loop, with the UNet and with a network that costs nothing; medians of what each cycle "
            "gives, so columns need not subtract exactly. Peak memory: above what was in use before.", "", *markdown_table(result["heads"], result["rows"]), "",
            "Milliseconds a step by batch; in brackets, each relative to the bare loop of its kind, the network's calls alone, and how many "
            "times as fast as diffusers it is:", "", *markdown_table(*table_by_batch(result["by_batch"])), "",
            f"![Milliseconds a step and image by batch](images/speed-{device}.png)", ""]


INCEPTION = """\
## By Inception's features

The distances above are of this course's own small feature networks, so that they can be had without a download. For figures on the scale of
papers use [torch-fidelity](https://github.com/toshas/torch-fidelity), which fetches Inception's weights and CIFAR-10 by itself; it wants
images as files:

```python
from torchvision.utils import save_image              # pip install torch-fidelity torchvision
for i, x in enumerate(samples):                       # [N, 3, 32, 32], pixels in [-1, 1]; 50,000 of them, as papers do
    save_image(x / 2 + 0.5, f"samples/{i:05d}.png")
```

```sh
fidelity --gpu 0 --fid --input1 samples --input2 cifar10-train
```
"""


def page(results: dict, images: Path) -> str:
    """All results as a page; draws the plots into `images`. What was not measured is said, with the command that would."""
    images.mkdir(parents=True, exist_ok=True)
    lines = ["# Figures", "", "Written by the commands that it names; nothing is entered by hand.", ""]
    for part, title, keys, section in (("quality", "Quality by steps, eta and schedule", ("mnist", "cifar10"), quality_section),
                                       ("speed", "Speed", ("cpu", "cuda"), speed_section)):
        lines += [f"## {title}", ""]
        for key in keys:
            result = results.get(part, {}).get(key)
            lines += [f"### {TITLES[key]}", "", *(section(key, result, images) if result else [f"Not measured yet: `{COMMANDS[key]}`.", ""])]
    return "\n".join([*lines, INCEPTION])


def read_figures(out: Path) -> dict:
    """What a folder's figures.json holds; nothing where there is none."""
    file = out / "figures.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def record(out: Path, part: str, key: str, result: dict) -> Path:
    """Put a result into figures.json, in the place of an older one of its kind, and write the page anew; returns the page's path.

    Args:
        out: the folder of both.
        part: "quality" or "speed".
        key: the data set, or the device that speed was measured on.
        result: plain data, with the `machine`; a `date` or a `torch` of its own goes before today's.
    """
    out.mkdir(parents=True, exist_ok=True)
    file, results = out / "figures.json", read_figures(out)
    stamped = {"date": date.today().isoformat(), "torch": torch.__version__} | result
    results.setdefault(part, {})[key] = stamped
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "figures.md").write_text(page(results, out / "images"), encoding="utf-8")
    return out / "figures.md"
