"""Panels to play with: move a slider, and your own sampler answers.

Each function takes your classes, as you wrote them, and gives a panel of controls and pictures. Every right step in a panel is
taken by your code; what is still a stub is named, and what raises is quoted.

    explore.forward(ForwardProcessImpl)                       one image from clean to noise
    explore.eta(DDIMSampler, StochasticityController)         the dial between DDIM and DDPM
    explore.paths(DDIMSampler, DDPMSampler)                   points on their way, where the truth is known
    explore.solvers({"Heun": walk, "theirs": another})        the same, led by solvers, yours and a library's
    explore.schedules(DDIMSampler)                            where the steps fall, and a schedule of your own
    explore.speed_quality(points)                             what you measured, and the samples behind each point
"""

from .eta_dial import eta
from .forward_slider import forward
from .point_paths import paths, solvers
from .speed_quality import speed_quality
from .step_schedules import schedules

__all__ = ["eta", "forward", "paths", "schedules", "solvers", "speed_quality"]
