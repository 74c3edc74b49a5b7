import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffusionlab.noise_model import count_calls
from diffusionlab.runtime import synchronize


def benchmark_samplers(samplers: dict[str, Callable], shape) -> list[dict]:
    """Time samplers side by side, and count what they ask of the network.

    Args:
        samplers: a name for each callable; `callable(shape)` makes samples.
        shape: (B, ...), the same for all.

    Returns:
        A dict for each, in the order given: `name`; `num_steps`, the different timesteps asked for; `nfe`, the network calls;
        `seconds` of wall time; `seconds_per_step` = seconds / num_steps.

    Raises:
        ValueError: no samplers, or one that makes no network call.
    """
    # `with count_calls() as calls:` counts; then `calls.nfe` and `calls.num_steps`. Before reading a clock, `synchronize()`.
    ### BEGIN SOLUTION
    if not samplers:
        raise ValueError("there is nothing to measure; give at least one sampler")
    records = []
    for name, sampler in samplers.items():
        synchronize()
        start = time.perf_counter()
        with count_calls() as calls:
            sampler(shape)
        synchronize()
        seconds = time.perf_counter() - start
        if calls.nfe == 0:
            raise ValueError(f"the sampler {name!r} made no call of a network")
        records.append({"name": name, "num_steps": calls.num_steps, "nfe": calls.nfe, "seconds": seconds,
                        "seconds_per_step": seconds / calls.num_steps})
    return records
    ### END SOLUTION


def sample_diversity(samples: Tensor) -> float:
    """How different the samples of a batch are: the mean over all pairs of their root-mean-square distance.

    Args:
        samples: [B, ...], B at least 2.

    Returns:
        A float: 0 if all are alike, sqrt(2) on average for independent standard normal values.

    Raises:
        ValueError: fewer than two samples.
    """
    ### BEGIN SOLUTION
    if len(samples) < 2:
        raise ValueError("diversity needs at least two samples to compare")
    flat = samples.double().flatten(1)
    return float(torch.pdist(flat).mean() / flat.shape[1] ** 0.5)
    ### END SOLUTION
