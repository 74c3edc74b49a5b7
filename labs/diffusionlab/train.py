"""Train the networks that the course ships: `python -m diffusionlab.train unet` and `... classifier`.

Each run keeps its state in runs/<name>/ and goes on from there when it is started again. At the end the weights and a
model card are written to data/checkpoints/; with --go-on a machine without runs/ goes on from these. Options that are not
given are the network's own; see RECIPES.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import datasets
from .classifier import Classifier
from .pretrained import read_card, read_checkpoint, save_checkpoint
from .schedule import NoiseSchedule
from .unet import UNet

LOADERS = {"mnist": lambda split, folder: datasets.mnist(split),
           "cifar10": lambda split, folder: datasets.cifar10(split, folder=folder)}

RECIPES = {
    "mnist": {
        "unet": dict(steps=12_000, batch=128, lr=1e-3, ema=0.999, flip=False, widths=[64, 96], blocks=1, dropout=0.0, focus=0.0),
        "classifier": dict(steps=1500, batch=128, lr=2e-3, ema=0.99, flip=False, width=32, stages=2)},
    "cifar10": {
        # Meant for a GPU. For a preview on a CPU: --batch 128 --lr 1e-3 --ema 0.999 --dropout 0 --compile --minutes 90
        "unet": dict(steps=60_000, batch=256, lr=6e-4, ema=0.9995, flip=True, widths=[96, 160], blocks=2, dropout=0.1, focus=0.75),
        "classifier": dict(steps=6000, batch=128, lr=2e-3, ema=0.99, flip=True, width=48, stages=3)}}
"""By data set and network: what gave the networks that the course ships, or is meant to."""


def timestep_density(schedule: NoiseSchedule, focus: float) -> Tensor:
    """How often each timestep is trained on: float64 [T], sums to 1.

    A share `focus` in 0..1 goes to the noise levels at which an image takes shape: there ln sigma, sigma = sqrt((1 - A) / A), is
    normal with mean -0.8 and deviation 1.6. The rest is spread evenly over all t: a linear schedule spends half of its timesteps
    where next to nothing of the image is left to be learned from.

    Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", P_mean and P_std for ImageNet-64.
    """
    A = schedule.alphas_cumprod
    log_sigma = ((1 - A) / A).log() / 2
    density = torch.exp(-(((log_sigma + 0.8) / 1.6) ** 2) / 2) * torch.gradient(log_sigma)[0]
    return focus * density / density.sum() + (1 - focus) / len(A)


def unet_loss(model: nn.Module, alphas_cumprod: Tensor, density: Tensor, x0: Tensor, labels: Tensor, none: int, drop_label: float) -> Tensor:
    """Mean squared error of the v-prediction.

    Args:
        model: called as `model(x_t, t, labels)`; gives v.
        alphas_cumprod, density: [T], where the images are: the schedule, and how often each timestep is trained on.
        x0, labels: images [B, C, H, W] and their classes [B].
        none: the label that stands for no label; a share `drop_label` of the labels become it.
    """
    B, where = len(x0), {"dtype": torch.float64, "device": x0.device}
    # One timestep from each of B strata of equal weight: every batch covers all noise levels, so the loss is less noisy.
    u = (torch.arange(B, **where) + torch.rand(B, **where)) / B
    t = torch.searchsorted(density.cumsum(0), u, right=True).clamp(max=len(density) - 1)
    A = alphas_cumprod[t].float()[:, None, None, None]
    eps = torch.randn_like(x0)
    labels = torch.where(torch.rand(B, device=x0.device) < drop_label, none, labels)
    v = model(A.sqrt() * x0 + (1 - A).sqrt() * eps, t, labels)
    return F.mse_loss(v.float(), A.sqrt() * eps - (1 - A).sqrt() * x0)


def half_mirrored(x: Tensor) -> Tensor:
    """Images [B, C, H, W], about half of them mirrored left to right."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def classifier_loss(model: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on images shifted by up to two pixels."""
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    return F.cross_entropy(model(torch.roll(x0, (dy, dx), (2, 3))), labels, label_smoothing=0.05)


def learning_rate(progress: float, peak: float) -> float:
    """A short warm-up, then a half cosine down to zero; progress in [0, 1]."""
    return peak * min(progress / 0.02, 1.0) * 0.5 * (1 + math.cos(math.pi * progress))


def train(args: argparse.Namespace) -> Path:
    """Train until `--steps` or `--minutes` is reached, whichever comes first; returns the checkpoint's path."""
    torch.manual_seed(args.seed)
    images, labels = LOADERS[args.data]("train", args.images)
    images, labels = images.to(args.device), labels.to(args.device)
    schedule = NoiseSchedule.linear()
    sample_shape, num_classes = tuple(images.shape[1:]), int(labels.max()) + 1
    if args.what == "unet":
        model = UNet(schedule, sample_shape, num_classes, widths=args.widths, blocks=args.blocks, dropout=args.dropout)
        network = model.predict_v
        A, density = (table.to(args.device) for table in (schedule.alphas_cumprod, timestep_density(schedule, args.focus)))
    else:
        network = model = Classifier(sample_shape, num_classes, args.width, stages=args.stages)
    model.to(args.device, memory_format=torch.channels_last)
    # Running statistics of batch normalisation are averaged with the weights.
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)

    state_file = Path("runs") / f"{args.data}-{args.what}" / "state.pt"
    state_file.parent.mkdir(parents=True, exist_ok=True)
    step, seconds, curve, stretches = 0, 0.0, [], []
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)  # each part moves what must move
        try:
            model.load_state_dict(state["model"])
        except RuntimeError:
            raise ValueError(f"{state_file} is of another network than asked for; ask for that one, or delete the file") from None
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, curve, stretches = (state[key] for key in ("step", "seconds", "curve", "stretches"))
    elif args.go_on:
        card, (config, weights) = read_card(f"{args.data}-{args.what}"), read_checkpoint(f"{args.data}-{args.what}")
        try:
            model.load_state_dict(weights)
        except RuntimeError:
            raise ValueError(f"the shipped network is another one than asked for: {config}") from None
        ema.module.load_state_dict(weights)
        step, seconds, curve, stretches = card["steps"], 60 * card["minutes"], card["loss_curve"], card.get("stretches", [])
        if step >= args.steps:
            raise ValueError(f"there is nothing to do: the shipped network has had {step} steps; ask for more with --steps")
    torch.manual_seed(args.seed + step)  # other batches than those already seen

    def save_state() -> None:
        torch.save(dict(model=model.state_dict(), ema=ema.state_dict(), optimizer=optimizer.state_dict(),
                        step=step, seconds=seconds, curve=curve, stretches=stretches), state_file.with_suffix(".tmp"))
        state_file.with_suffix(".tmp").replace(state_file)

    # A finished run can be trained on, with more steps or minutes: a new stretch, whose learning rate rises and falls anew.
    # A run that was stopped goes on with the stretch it was in.
    asked = {"to_step": args.steps, "to_minutes": args.minutes, "peak_learning_rate": args.lr, "batch": args.batch, "device": args.device}
    if not stretches or asked != {key: stretches[-1].get(key) for key in asked}:
        stretches.append(asked | {"from_step": step, "from_minutes": round(seconds / 60, 1), "bf16": args.bf16})
    first_step, first_second = stretches[-1]["from_step"], 60 * stretches[-1]["from_minutes"]

    def progress() -> float:
        by_steps = (step - first_step) / (args.steps - first_step) if args.steps > first_step else 1.0
        by_minutes = (seconds - first_second) / max(60 * args.minutes - first_second, 1) if args.minutes else 0.0
        return max(by_steps, by_minutes)

    if args.compile:
        network = torch.compile(network)
    model.train()
    bar = tqdm(total=args.steps, initial=step, desc=f"{args.data}-{args.what}", smoothing=0.02, mininterval=10)
    since_report, saved, tick = [], time.monotonic(), time.monotonic()
    while progress() < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress(), args.lr)
        pick = torch.randint(len(images), (args.batch,), device=args.device)
        x0 = half_mirrored(images[pick]) if args.flip else images[pick]
        x0 = x0.contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16):
            loss = (unet_loss(network, A, density, x0, labels[pick], num_classes, args.drop_label) if args.what == "unet"
                    else classifier_loss(network, x0, labels[pick]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update_parameters(model)
        step += 1
        since_report.append(loss.detach())
        bar.update()
        seconds, tick = seconds + time.monotonic() - tick, time.monotonic()
        if step % 100 == 0:
            mean = torch.stack(since_report).mean().item()
            if not math.isfinite(mean):
                raise SystemExit(f"the loss is not finite at step {step}; start again with a smaller --lr")
            curve.append([step, round(mean, 5)])
            bar.set_postfix(loss=f"{mean:.4f}")
            since_report.clear()
        if time.monotonic() - saved > 120:
            save_state()
            saved = time.monotonic()
    bar.close()
    save_state()

    card = dict(
        name=f"{args.data}-{args.what}", data=args.data, images=len(images), image_files=datasets.image_files(args.data, args.images),
        parameters=sum(p.numel() for p in model.parameters()), steps=step, batch=args.batch, minutes=round(seconds / 60, 1),
        device=args.device, bf16=args.bf16, seed=args.seed, stretches=stretches, ema=args.ema, torch=torch.__version__, loss_curve=curve)
    return save_checkpoint(ema.module, card, dtype=torch.float16 if args.half else torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diffusionlab.train", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("what", choices=["unet", "classifier"], help="which network to train")
    parser.add_argument("--data", choices=sorted(RECIPES), default="mnist", help="the images to train on")
    parser.add_argument("--images", type=Path, help="folder of images that the course does not bring (CIFAR-10); data/ if not given")
    parser.add_argument("--steps", type=int, default=argparse.SUPPRESS, help="optimizer steps in all, those of earlier runs included")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so much training time in all, 0 for no limit; "
                        "the learning rate falls to zero by then")
    parser.add_argument("--batch", type=int, default=argparse.SUPPRESS, help="images a step")
    parser.add_argument("--lr", type=float, default=argparse.SUPPRESS, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=argparse.SUPPRESS, help="decay of the moving average of the weights")
    parser.add_argument("--drop-label", type=float, default=0.1, help="share of labels replaced by none")
    parser.add_argument("--widths", type=int, default=argparse.SUPPRESS, nargs="+", help="the UNet's channels by resolution")
    parser.add_argument("--blocks", type=int, default=argparse.SUPPRESS, help="the UNet's residual blocks by resolution")
    parser.add_argument("--dropout", type=float, default=argparse.SUPPRESS, help="share of the UNet's features dropped")
    parser.add_argument("--width", type=int, default=argparse.SUPPRESS, help="the classifier's channels in its first stage")
    parser.add_argument("--stages", type=int, default=argparse.SUPPRESS, help="the classifier's stages, each at half the resolution")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help="mirror half of the images")
    parser.add_argument("--focus", type=float, default=argparse.SUPPRESS, help="share of the UNet's timesteps drawn where images take shape")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    parser.add_argument("--go-on", action="store_true", help="where there is no earlier run in runs/, begin with the shipped weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="compute in bfloat16 where that is safe; "
                        "unless said otherwise, on GPUs and on CPUs with matrix units for it (AMX)")
    parser.add_argument("--compile", action="store_true", help="compile the network (a minute at the start; needs a C++ compiler)")
    args = parser.parse_args()
    args = argparse.Namespace(**RECIPES[args.data][args.what] | vars(args))
    if args.bf16 is None:  # without such units it is slower than float32
        args.bf16 = args.device != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    try:
        print(train(args))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
