"""Measure the networks that the course ships, and write what was found into their model cards.

`python -m solutions.lab5_sampling.evaluate mnist` does all of it; `... mnist quality`, `... mnist features`,
`... mnist cards` and `... mnist picture` do a part. Samples are kept in runs/ as they are made: started again, it goes on from there.
For CIFAR-10, whose images the course does not bring, begin with `... cifar10 features --images FOLDER`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from diffusionlab import datasets, metrics, plots
from diffusionlab.pretrained import (checkpoint_path, default_device, load_classifier, load_pretrained, read_card,
                                     write_card, write_checkpoint)
from diffusionlab.runtime import progress, standard_normal, wall_time
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.train import RECIPES
from solutions.evaluation import REAL_IMAGES, balanced, judge, samples, seeded

from .ddim import DDIMSampler
from .ddpm import DDPMSampler

STEPS = 50
GUIDANCE = {"mnist": 1.0, "cifar10": 3.0}
"""By data set: what its pictures are made with. Photographs want to be pushed towards their class."""


def call_time(data: str, batch: int = 8, calls: int = 200) -> dict:
    """The time of one network call on the CPU: the median of many."""
    model = load_pretrained(data, "cpu")
    x, t = torch.randn(batch, *model.sample_shape, generator=seeded(0)), torch.full((batch,), 500)
    with torch.no_grad():
        taken = [wall_time(lambda: model(x, t)) for _ in progress(range(20 + calls), "network calls")]
    return {"batch": batch, "milliseconds": round(1000 * median(taken[20:]), 2), "calls": calls,
            "threads": torch.get_num_threads(), "cpus": os.cpu_count()}


def evaluate_quality(data: str, n: int, seed: int, device: str) -> None:
    """Judge n samples each of eta = 1 and eta = 0, with guidance too where pictures are made so, and time a call; into the UNet's card."""
    model, schedule = load_pretrained(data, device), NoiseSchedule.linear()
    found = {"guidance": "1, unless said otherwise", "steps": STEPS, "schedule": "uniform", "labels": "balanced", "seed": seed}
    for eta, guidance in dict.fromkeys(product((1.0, 0.0), (1.0, GUIDANCE[data]))):
        def make(labels, generator, eta=eta, guidance=guidance):
            shape = (len(labels), *model.sample_shape)
            return DDIMSampler(model.condition(labels, guidance), schedule).sample(shape, STEPS, eta, generator=generator)
        key = f"eta_{eta:g}" + (f"_guidance_{guidance:g}" if guidance != 1 else "")
        found[key] = judge(samples(f"ddim-{STEPS}-{key}", n, seed, make, data, device), data)
        print(f"eta = {eta:g}, guidance {guidance:g}, {STEPS} steps: {found[key]}", flush=True)
    found["network_call_on_cpu"] = call_time(data)
    print(f"one network call: {found['network_call_on_cpu']}", flush=True)
    card = read_card(f"{data}-unet")
    write_card(card | {"evaluation": card.get("evaluation", {}) | found})


def measure_classifier(data: str, x: Tensor, labels: Tensor, device: str) -> None:
    """Test the classifier on images that it has not seen; into its card."""
    accuracy = round(metrics.conditional_accuracy(x, labels, load_classifier(data, device)), 4)
    print(f"the classifier on {len(x)} test images: {accuracy}", flush=True)
    write_card(read_card(f"{data}-classifier") | {"evaluation": {"test_images": len(x), "test_accuracy": accuracy}})


def make_features(n: int, seed: int, device: str) -> None:
    """Sample digits with DDPM in all its steps, and ship the samples' features for comparison in class."""
    measure_classifier("mnist", *datasets.mnist("test"), device)
    model, schedule = load_pretrained("mnist", device), NoiseSchedule.linear()

    def make(labels, generator):
        return DDPMSampler(model.condition(labels), schedule).sample((len(labels), *model.sample_shape), generator=generator)
    x = samples("ddpm-1000", n, seed, make, "mnist", device)
    card = {"name": "mnist-features-ddpm-1000", "samples": n, "sampler": "DDPM, all 1000 steps, posterior variance",
            "guidance": 1.0, "labels": "balanced: 0, 1, ..., 9, 0, 1, ...", "seed": seed, "torch": torch.__version__,
            "model_sha256": read_card("mnist-unet")["sha256"], "classifier_sha256": read_card("mnist-classifier")["sha256"],
            "command": "python -m solutions.lab5_sampling.evaluate mnist features", "evaluation": judge(x)}
    print(f"DDPM-1000: {card['evaluation']}", flush=True)
    write_checkpoint({"features": metrics.features(x).float()}, {}, card)


def ship_real_features(folder: Path | None, device: str) -> None:
    """Ship what the classifier sees in CIFAR-10's test images: samples can then be judged without the images."""
    x, labels = datasets.cifar10("test", folder=folder)
    classifier = load_classifier("cifar10", device)
    measure_classifier("cifar10", x, labels, device)
    card = {"name": "cifar10-features-real", "images": len(x), "image_files": datasets.image_files("cifar10", folder),
            "torch": torch.__version__,
            "classifier_sha256": read_card("cifar10-classifier")["sha256"],
            "command": "python -m solutions.lab5_sampling.evaluate cifar10 features --images FOLDER"}
    write_checkpoint({"features": metrics.features(x, classifier).half(), "labels": labels.to(torch.uint8)}, {}, card)


LIMITS = {
    "mnist-unet": """\
Draws single digits of 28 x 28 grey pixels and nothing else. Its timesteps are those of `NoiseSchedule.linear()` with
T = 1000; with another schedule its predictions mean nothing. It learned from one data set of handwriting and repeats that
set's habits. The judge of the samples is a small classifier trained on the same data, so the figures below compare
samplers of this course, not papers.""",
    "mnist-classifier": """\
Made to measure samples: its features serve for Frechet distances within this course only. Distances by other feature
networks, such as Inception's FID, are on another scale.""",
    "mnist-features-ddpm-1000": """\
Features of generated images, by this course's classifier; they belong to the two checksums named here and to no other
networks. A noise floor needs two disjoint sets, so distances with a floor can use half as many samples a side.""",
    "cifar10-unet": """\
Draws photographs of 32 x 32 pixels in ten classes, and nothing else: airplane, automobile, bird, cat, deer, dog, frog,
horse, ship, truck, in this order. Its timesteps are those of `NoiseSchedule.linear()` with T = 1000. The judge of the samples
is a small classifier trained on the same images, so the figures below compare samplers of this course, not papers.""",
    "cifar10-classifier": """\
Made to measure samples: its features serve for Frechet distances within this course only. Distances by other feature
networks, such as Inception's FID, are on another scale.""",
    "cifar10-features-real": """\
Features of CIFAR-10's 10,000 test images, with their labels, by this course's classifier; they belong to its checksum, named
here, and to no other network. The images themselves do not come with the course.""",
}
PREVIEW = """\
**A preview.** This network was trained on a CPU and has seen {millions:.1f} million images, repeats included; that of Ho et al. (2020) saw 102
million (800,000 steps of 128). How often its pictures are taken for what was asked stands below; look at them before you rely on it.
`python -m diffusionlab.train unet --data cifar10 --images FOLDER --half`, meant for a GPU, shows one {recipe:.0f} million."""
SOURCES = {
    "mnist": "Images: MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0. Features and weights are derived from them.",
    "cifar10": "Images: CIFAR-10 (Krizhevsky 2009, \"Learning Multiple Layers of Features from Tiny Images\"); not part of the course."}


def in_words(value) -> str:
    """A card's entry in a table's cell: pairs are mean and spread, and the parts of a dict follow each other."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')}: {in_words(each)}" for key, each in value.items())
    return f"{value[0]} +- {value[1]}" if isinstance(value, list) else str(value)


def is_preview(card: Mapping) -> bool:
    """Whether a card's network is one for photographs that no GPU has trained."""
    return card["name"] == "cifar10-unet" and all(each.get("device", card["device"]) == "cpu" for each in card.get("stretches") or [card])


def images_seen(card: Mapping) -> int:
    """How many images a network has been trained on, repeats included."""
    stretches = card.get("stretches") or [{"from_step": 0}]
    ends = [*(each["from_step"] for each in stretches[1:]), card["steps"]]
    return sum((end - each["from_step"]) * each.get("batch", card["batch"]) for each, end in zip(stretches, ends))


def markdown_card(name: str) -> str:
    """The model card as Markdown, from its JSON; draws the loss curve beside it."""
    card = read_card(name)
    recipe = RECIPES["cifar10"]["unet"]
    preview = [PREVIEW.format(millions=images_seen(card) / 1e6, recipe=recipe["steps"] * recipe["batch"] / 1e6), ""] if is_preview(card) else []
    lines = [f"# {name}", "", *preview, LIMITS[name], "", "| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {f'`{value}`' if key in ('command', 'sha256') else value} |"
              for key, value in card.items() if not isinstance(value, (list, Mapping)) and key != "name"]
    lines += [f"| measured: {key.replace('_', ' ')} | {in_words(value)} |" for key, value in card.get("evaluation", {}).items()]
    if "loss_curve" in card:
        steps, losses = zip(*card["loss_curve"])
        picture = checkpoint_path(name).with_name(f"{name}-loss.png")
        picture.write_bytes(plots.to_png(plots.curves({"training loss": (steps, losses)}, "step", "loss", logy=True),
                                         colors=16))
        lines += ["", f"Training loss, the mean over 100 steps each; at the end {losses[-1]}.", "",
                  f"![Training loss by step]({picture.name})"]
    lines += ["", SOURCES[name.partition("-")[0]], ""]
    return "\n".join(lines)


PICTURES = {"mnist": Path("docs/images/digits.png"), "cifar10": Path("docs/images/colours.png")}


def draw_picture(data: str, seed: int, device: str) -> Path:
    """The README's picture: one starting point for each class, by DDPM in 1000 steps and by DDIM in 20."""
    path, schedule = PICTURES[data], NoiseSchedule.linear()
    model = load_pretrained(data, device).condition(balanced(10), GUIDANCE[data])
    shape = (10, *model.sample_shape)
    x_T = standard_normal(shape, generator=seeded(seed))
    made = [DDPMSampler(model, schedule).sample(shape, x_T=x_T, generator=seeded(seed + 1)),
            DDIMSampler(model, schedule).sample(shape, 20, x_T=x_T)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plots.to_png(plots.image_grid(torch.cat(made), columns=10, rows=["DDPM", "DDIM"])))
    return path


def write_cards(data: str) -> None:
    """Write <name>.md beside each checkpoint of a data set."""
    for name in (each for each in LIMITS if each.startswith(data)):
        path = checkpoint_path(name).with_suffix(".md")
        path.write_text(markdown_card(name))
        print(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m solutions.lab5_sampling.evaluate", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", choices=["mnist", "cifar10"], help="whose networks to measure")
    parser.add_argument("part", nargs="?", default="all", choices=["all", "quality", "features", "cards", "picture"],
                        help="what to do")
    parser.add_argument("--samples", type=int, default=1000, help="samples to judge, for each eta")
    parser.add_argument("--features", type=int, default=400, help="DDPM samples of digits whose features are shipped")
    parser.add_argument("--images", type=Path, help="folder of CIFAR-10's images; data/ if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=default_device().type, help="cpu or cuda")
    args = parser.parse_args()
    if args.samples > REAL_IMAGES or args.features > REAL_IMAGES:
        parser.error(f"there are {REAL_IMAGES} real images to compare samples with")
    try:
        if args.part in ("all", "features") and args.data == "cifar10":
            ship_real_features(args.images, args.device)
        if args.part in ("all", "quality"):
            evaluate_quality(args.data, args.samples, args.seed, args.device)
        if args.part in ("all", "features") and args.data == "mnist":
            make_features(args.features, args.seed, args.device)
        if args.part in ("all", "cards"):
            write_cards(args.data)
        if args.part in ("all", "picture"):
            print(draw_picture(args.data, args.seed, args.device))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
