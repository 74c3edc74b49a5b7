"""What a sampler needs around it: noise, progress, a time budget, a memory limit, a health check. No formula of the lab."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import length_hint
from unittest.mock import patch

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .guards import NOT_FINITE, check_count, check_images, check_same_shape, check_shape
from .noise_model import count_calls

Sampler = Callable[..., Tensor]


def standard_normal(shape, *, device=None, dtype=None, generator: torch.Generator | None = None) -> Tensor:
    """Draw from N(0, I). The draw is made where the generator lives, so a CPU generator gives every device the same noise."""
    where = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=where, dtype=dtype).to(device or where)


def standard_normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise with x's shape, dtype and device."""
    return standard_normal(x.shape, device=x.device, dtype=x.dtype, generator=generator)


def starting_noise(shape, x_T: Tensor | None, model, generator: torch.Generator | None = None) -> Tensor:
    """The x_T that sampling starts from: the one given (its shape checked against `shape`), or a fresh draw.

    Args:
        shape: (B, ...), a tuple or list.
        x_T: noise to start from, or None.
        model: where its `device` is, the samples will be; a model without one is taken to be on the CPU.
        generator: source of the draw, None for torch's global one.

    Raises:
        ValueError: a shape that is not whole positive numbers, integer x_T, or an x_T of another shape.
    """
    check_shape(shape)
    device = getattr(model, "device", torch.device("cpu"))
    if x_T is None:
        return standard_normal(shape, device=device, generator=generator)
    check_images(x_T, "x_T")
    if tuple(x_T.shape) != tuple(shape):
        raise ValueError(f"x_T has shape {list(x_T.shape)}, but the shape asked for is {list(shape)}")
    return x_T.to(device)


def progress(steps: Iterable, description: str) -> Iterator:
    """The steps one by one, with a progress bar as soon as they have taken two seconds."""
    # nbgrader's Validate counts every line on stderr as a failure.
    # In another thread the work belongs to a panel, which shows progress of its own.
    if threading.current_thread() is not threading.main_thread() or "NBGRADER_VALIDATING" in os.environ:
        yield from steps
        return
    start, steps_left = time.monotonic(), iter(steps)
    for done, step in enumerate(steps_left, 1):
        yield step
        if time.monotonic() - start > 2:
            break
    else:
        return
    # Made no sooner, though tqdm can wait with showing it: in a notebook a bar sends a dozen messages when it is made, and one for each of a
    # hundred short runs costs more than the runs.
    yield from tqdm(steps_left, desc=description, total=length_hint(steps) or None, initial=done, leave=False)


def synchronize() -> None:
    """Wait until the GPU has done what it was asked to; call it before reading a clock. Nothing to do on a CPU."""
    if torch.cuda.is_initialized():  # a process that has not used the GPU need not begin now
        torch.cuda.synchronize()


def wall_time(call: Callable[[], object]) -> float:
    """How many seconds a call takes, with what it asked a GPU to do."""
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def steps_for_budget(sampler: Sampler, shape, seconds: float, max_steps: int = 1000, trial_steps: int = 3) -> int:
    """How many steps fit into a time budget on this machine, measured with a short trial.

    Args:
        sampler: called as `sampler(shape, num_steps)`.
        shape: (B, ...), as it will be used.
        seconds: the budget.
        max_steps: no more than this.
        trial_steps: steps of the trial; a first, unmeasured one warms up.

    Returns:
        A whole number in 1..max_steps.
    """
    if not seconds > 0:
        raise ValueError(f"the budget must be a positive number of seconds, not {seconds}")
    sampler(shape, 1)
    per_step = wall_time(lambda: sampler(shape, trial_steps)) / trial_steps
    return int(min(max(seconds / per_step, 1), max_steps))


def with_memory_backoff(sampler: Callable[[int], Tensor], batch_size: int) -> tuple[Tensor, int]:
    """Call `sampler(batch_size)`; each time memory runs out, halve the batch and try again.

    Returns:
        The samples and the batch size that worked.

    Raises:
        ValueError: a batch size that is not a whole number, 1 or larger.
        MemoryError: not even one sample fits.
    """
    check_count(batch_size, "batch_size")
    while batch_size >= 1:
        try:
            return sampler(batch_size), batch_size
        except (torch.OutOfMemoryError, MemoryError):
            batch_size //= 2
        except RuntimeError as error:  # torch has no type of its own for this on a CPU, nor for what CUDA's libraries ran out of
            if not any(words in str(error) for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED", "unable to find an engine")):
                raise
            batch_size //= 2
        # Outside the except clause: while it is handled, the error's traceback keeps the tensors alive.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MemoryError("memory ran out even for a single sample; use a smaller model or another device")


def in_mixed_precision(sampler: Sampler, dtype: torch.dtype = torch.bfloat16) -> Sampler:
    """The same sampler, for calls that return samples alone, with its network in half precision where that is safe (torch.autocast)
    and results in float32.

    Safe means that nothing overflows. Whether the rounding shows is for you to measure: photographs hide it, the flat paper around a
    digit does not.
    """
    def sample(*args, **kwargs) -> Tensor:
        with mixed_precision(dtype):
            return sampler(*args, **kwargs).float()
    return sample


@contextmanager
def mixed_precision(dtype: torch.dtype = torch.bfloat16):
    """Networks that are called within compute in half precision where that is safe (torch.autocast), on whatever device they are."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(device, dtype))
        yield


def captured(sampler: Sampler, shape, device) -> Callable[..., Tensor]:
    """A sampler's whole loop recorded once and replayed at each call: no Python and no launches between its steps.

    Recorded is a CUDA graph, for this one shape. On a CPU, and for a sampler that looks at its values on the way (which
    cannot be recorded), what comes back calls the sampler itself, after a warning in the latter case.

    Args:
        sampler: called as `sampler(shape, x_T=x_T)`; its other settings are fixed beforehand (`functools.partial`). Its fresh
            noise must come from torch's global generator: then every replay draws anew.
        shape: (B, ...).
        device: where the model is.

    Returns:
        A callable `sample(x_T=None) -> x`; without x_T it draws one.
    """
    def plain(x_T: Tensor | None = None) -> Tensor:
        return sampler(shape, x_T=standard_normal(shape, device=device) if x_T is None else x_T)

    if torch.device(device).type != "cuda":
        return plain
    with torch.cuda.device(device):
        start, graph, side, before = standard_normal(shape, device=device), torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
        # The first call chooses kernels and allocates workspaces, which may not be recorded.
        side.wait_stream(before)
        with torch.cuda.stream(side):
            plain(start)
        try:
            with torch.cuda.stream(side), waiting_refused():
                plain(start)
            before.wait_stream(side)
            with torch.cuda.graph(graph, stream=side):  # torch's own stream for this is one for all GPUs
                x = plain(start)
                finite = torch.isfinite(x).all()
        except torch.OutOfMemoryError:  # nothing that the sampler did: whoever called may try a smaller batch
            torch.cuda.set_stream(before)
            raise
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # a recording that breaks off leaves its own
            torch.cuda.synchronize()
            warnings.warn(f"the sampler cannot be recorded and runs as it is: {str(error).splitlines()[0]}", stacklevel=2)
            return plain

    def replay(x_T: Tensor | None = None) -> Tensor:
        if x_T is not None:
            check_same_shape(x_T, start, "x_T and what was recorded")
        with torch.cuda.device(device):
            start.normal_() if x_T is None else start.copy_(x_T)
            graph.replay()
            samples = x.clone()  # asked for before the one wait, which `bool` is
            if not bool(finite):
                raise ValueError(NOT_FINITE)
            return samples

    return replay


@contextmanager
def waiting_refused():
    """On a GPU: whatever waits for a value raises RuntimeError. Found out only while recording, it would leave torch's memory in disorder."""
    def refuse(*_):
        raise RuntimeError("it waits for the GPU with torch.cuda.synchronize")

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        with patch("torch.cuda.synchronize", refuse):  # which that mode does not see
            yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@dataclass(frozen=True)
class Compiled:
    """What `compile_if_faster` measured: seconds a call before and after (infinite where it cannot be compiled), seconds that
    compiling took, and whether the compiled form was kept."""

    before: float
    after: float
    compiling: float
    kept: bool


def compile_if_faster(model: nn.Module, batch: int, calls: int = 20) -> Compiled:
    """Compile a network in place (torch.compile) where that makes its calls faster on this machine, for every sampler.

    Args:
        model: as `load_pretrained` gives it. Measured is its conditioned form, where it has one; that runs the compiled network.
        batch: images a call, as it will be used; another batch is compiled anew, which takes its time again.
        calls: how many calls to measure of each form; the shortest counts.

    Returns:
        A Compiled. Compiling needs a C++ compiler on a CPU; where there is none, the network stays as it was. The compiled one's
        answers differ from the plain one's by rounding: on a CPU about 1e-6 in float32.
    """
    check_count(batch, "batch")
    check_count(calls, "calls")
    x, t = torch.randn(batch, *model.sample_shape, device=model.device), torch.zeros(batch, dtype=torch.long, device=model.device)
    ask = model.condition(0) if hasattr(model, "condition") else model

    @torch.no_grad()
    def seconds() -> float:
        return wall_time(lambda: ask(x, t))

    vars(model).pop("forward", None)  # asked again, all is measured again, from the plain network on
    seconds()
    before = min(seconds() for _ in range(calls))
    model.forward = torch.compile(model.forward)
    try:
        compiling = seconds()
        after = min(seconds() for _ in range(calls))
    except Exception as error:  # no compiler, or a network that it does not understand
        warnings.warn(f"the network cannot be compiled and stays as it is: {str(error).splitlines()[0]}", stacklevel=2)
        compiling, after = 0.0, math.inf
    if after >= before:
        del model.forward  # the class's own is behind it
    return Compiled(before, after, compiling, after < before)


@dataclass(frozen=True)
class Health:
    """The answer of `health_check`: `ok`, and a sentence for each thing found wrong."""

    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return "healthy" if self.ok else "\n".join(f"- {problem}" for problem in self.problems)


def health_check(sampler: Sampler, shape, *, expected_calls: int | None = None, expected_range: float = 1.5) -> Health:
    """A quick look at whether a sampler is fit for use.

    Args:
        sampler: called as `sampler(shape)`.
        shape: (B, ...), B at least 2.
        expected_calls: how many network calls it should make, None to leave that unchecked.
        expected_range: nearly all pixels should lie within plus and minus this.

    Returns:
        A Health: an exception, NaN, a wrong shape or number of calls, values out of range, or samples that are all alike.
    """
    problems = []
    try:
        with count_calls() as calls:
            x = sampler(shape)
        check_images(x, "the sample")
        if tuple(x.shape) != tuple(shape):
            raise ValueError(f"the sample has the shape {list(x.shape)}, not the same shape as asked for, {list(shape)}")
    except Exception as error:  # whatever goes wrong is the finding
        return Health((f"it raised {type(error).__name__}: {error}",))
    if not bool(torch.isfinite(x).all()):
        problems.append("some values are NaN or infinite")
    else:
        inside = float((x.abs() <= expected_range).double().mean())
        if inside < 0.99:
            problems.append(f"only {inside:.0%} of the values lie within +-{expected_range}")
        if len(x) > 1 and float(x.std(dim=0).mean()) < 1e-3:
            problems.append("all samples of the batch are alike")
    if expected_calls is not None and calls.nfe != expected_calls:
        problems.append(f"it made {calls.nfe} network calls instead of {expected_calls}")
    return Health(tuple(problems))


def bare_loop(model, timesteps: Iterable[int]) -> Sampler:
    """A "sampler" that only calls the network, once at each timestep: what any sampler costs at the least.

    Args:
        model: `model(x, t) -> eps`.
        timesteps: the timesteps to call it at.

    Returns:
        A callable of a shape (B, ...) and, if wanted, an x_T, which returns the network's last answer.
    """
    steps = [int(t) for t in timesteps]

    @torch.no_grad()
    def sample(shape, x_T: Tensor | None = None) -> Tensor:
        x = starting_noise(shape, x_T, model)
        eps = x
        for t in [torch.full((len(x),), t, device=x.device) for t in steps]:  # nothing else between the calls
            eps = model(x, t)
        return eps

    return sample
