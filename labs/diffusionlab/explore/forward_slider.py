"""One image from clean to noise, by the student's own forward process, on three schedules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .. import datasets
from ..schedule import NoiseSchedule
from .paint import BLUE, GREEN, VERMILION, Drawing, axes, curve, sheet
from .panel import Panel, Stage, View, menu, slider, whole

_STYLES = {"linear": (BLUE, "-"), "scaled linear": (GREEN, "-."), "cosine": (VERMILION, "--")}
_SNR = (1e-6, 1e5)


def forward(ForwardProcessImpl, *, images: Tensor | None = None, labels: Sequence[int] | Tensor | None = None) -> ForwardSlider:
    """A panel that drowns one image in one draw of noise, on three schedules at once.

    Args:
        ForwardProcessImpl: your class.
        images: clean images [N, C, H, W] in [-1, 1]; None for MNIST's test images.
        labels: what each image is, for the menu; None to number them.
    """
    if images is None:
        images, labels = datasets.mnist("test", size=200)
    return ForwardSlider(ForwardProcessImpl, images, [int(label) for label in (range(len(images)) if labels is None else labels)])


class ForwardSlider(Panel):
    """The panel of `forward`; its controls are attributes, so that a cell can move them, too."""

    def __init__(self, process, images: Tensor, labels: Sequence[int]):
        self.process, self.images = process, images
        self.schedules = {"linear": NoiseSchedule.linear(), "scaled linear": NoiseSchedule.scaled_linear(),
                          "cosine": NoiseSchedule.cosine()}
        first = {label: labels.index(label) for label in sorted(set(labels))}
        self.t = slider("t", 250, -1, 999, 1, "the noise level; -1 is the clean image")
        self.digit = menu("image", [(str(label), index) for label, index in first.items()], next(iter(first.values())), "which image")
        self.seed = whole("seed", 1, 0, 9999, "another seed, another draw of noise")
        self.pictures, self.curves = View(), View()
        super().__init__("From clean to noise", [self.t, self.digit, self.seed], [[(self.pictures, 2.2)], [(self.curves, 2.2)]])

    def stages(self) -> list[Stage]:
        """The image at level t on each schedule, and t's place on the curves."""
        t, index, seed = self.t.value, self.digit.value, self.seed.value
        return [Stage((t, index, seed), lambda run: self._make(t, index, seed), self._show, f"t = {t}")]

    def _make(self, t: int, index: int, seed: int) -> dict:
        clean = self.images[index:index + 1]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        noisy = [clean if t < 0 else self.process(schedule).add_noise(clean, t, noise) for schedule in self.schedules.values()]
        level = {name: 1.0 if t < 0 else float(schedule.alphas_cumprod[t]) for name, schedule in self.schedules.items()}
        numbers = {f"√A, {name}": f"{A**0.5:.4f}" for name, A in level.items()}
        numbers |= {f"SNR, {name}": "∞" if A == 1 else f"{A / (1 - A):.3g}" for name, A in level.items()}
        pictures = sheet([[image[0] for image in (clean, *noisy)]], f"A clean image and the same at t = {t} on three schedules.",
                         f"The same image, the same noise, t = {t}", ["clean", *self.schedules])
        alt = f"Share of the image left, and signal-to-noise ratio, over t on three schedules; t = {t} is marked."
        self._drawing.clear()
        self._drawing.mark(0, t, 0, 1.05)
        self._drawing.mark(1, t, *_SNR)
        return {"pictures": pictures, "numbers": numbers, "curves": self._drawing.picture(alt)}

    def _show(self, result: dict) -> None:
        self.pictures.show(result["pictures"])
        self.curves.show(result["curves"])
        self.show_numbers(result["numbers"])

    @cached_property
    def _drawing(self) -> Drawing:
        # Drawn once; for each t only the mark is put in, which keeps up with a slider.
        figure, ((left, right),) = axes(7.0, 2.6, columns=2)
        for name, schedule in self.schedules.items():
            A, (color, line) = schedule.alphas_cumprod.numpy(), _STYLES[name]
            curve(left, np.arange(len(A)), np.sqrt(A), name, color, line)
            curve(right, np.arange(len(A)), A / (1 - A), name, color, line)
        left.set_title("share of the image left, √A", fontsize=9)
        right.set_title("signal-to-noise ratio, A / (1 - A)", fontsize=9)
        right.axhline(1, color="0.6", linewidth=0.8)
        right.set_yscale("log")
        right.set_ylim(*_SNR)
        right.text(1000, 1.8, "as much signal as noise", fontsize=7.5, color="0.35", ha="right")
        for ax in (left, right):
            ax.set_xlabel("t", fontsize=8)
            ax.set_xlim(-20, 1000)
        left.legend(fontsize=8, frameon=False)
        return Drawing(figure, "The three schedules, and where t is")
