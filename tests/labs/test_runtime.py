import math
import shutil
import sysconfig
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from diffusionlab import runtime
from diffusionlab.noise_model import NoiseModel


class Shrink(NoiseModel):
    sample_shape, num_timesteps = (2,), 10

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.seen = []

    def forward(self, x, t):
        eps = self.linear(x)
        self.seen.append(eps.dtype)
        return eps


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_noise():
    a, b = (runtime.standard_normal((3, 4), generator=seeded(5)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, runtime.standard_normal((3, 4), generator=seeded(6)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_like_x_has_its_shape_and_dtype(dtype):
    z = runtime.standard_normal_like(torch.zeros(20, 500, dtype=dtype), seeded())
    assert z.shape == (20, 500) and z.dtype == dtype
    assert abs(float(z.mean())) < 0.05 and float(z.std()) == pytest.approx(1, abs=0.03)


def test_starting_noise_is_the_one_given_or_a_fresh_draw():
    model, x_T = Shrink(), torch.randn(3, 2)
    assert torch.equal(runtime.starting_noise((3, 2), x_T, model), x_T)
    assert torch.equal(runtime.starting_noise([3, 2], None, model, seeded(1)), torch.randn(3, 2, generator=seeded(1)))


@pytest.mark.parametrize(("shape", "x_T", "says"), [
    ((3, 3), torch.zeros(3, 2), "shape"), ((3, 2), torch.zeros(3, 2, dtype=torch.uint8), "uint8"), (3, None, "shape"),
    ((3,), None, "shape"),
    ((3, 0), None, "shape"), ((-3, 2), None, "shape"), ((3, 2.5), None, "shape")])
def test_starting_noise_of_a_wrong_shape_or_kind_is_refused(shape, x_T, says):
    with pytest.raises(ValueError, match=says):
        runtime.starting_noise(shape, x_T, Shrink())


@pytest.fixture
def bars(monkeypatch):
    """The progress bars that were made, on a clock that goes a second each time it is read."""
    made, now = [], iter(range(1000))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(now))

    def bar(steps, **options):
        made.append(options)
        return steps
    monkeypatch.setattr(runtime, "tqdm", bar)
    return made


def test_progress_yields_everything_and_makes_a_bar_for_long_work_alone(bars):
    assert list(runtime.progress(range(2), "steps")) == [0, 1] and not bars  # over before the third second
    assert list(runtime.progress(range(5), "steps")) == [0, 1, 2, 3, 4]
    assert [(each["desc"], each["initial"], each["total"]) for each in bars] == [("steps", 3, 5)]
    assert list(runtime.progress(iter("abcde"), "letters")) == list("abcde") and bars[1]["initial"] == 3
    assert list(runtime.progress([], "nothing")) == [] and len(bars) == 2


def test_progress_is_silent_while_nbgrader_validates_and_in_a_panel_s_thread(bars, monkeypatch):
    found = []
    thread = threading.Thread(target=lambda: found.extend(runtime.progress(range(5), "steps")))
    thread.start()
    thread.join()
    monkeypatch.setenv("NBGRADER_VALIDATING", "1")
    assert list(runtime.progress(range(5), "steps")) == found == [0, 1, 2, 3, 4] and not bars


@pytest.fixture
def clock(monkeypatch):
    """A clock that only stands where it is put."""
    now = [0.0]
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 50), (0.5, 25), (1e-6, 1), (1e9, 1000)])
def test_a_time_budget_is_filled_with_steps(clock, seconds, steps):
    asked = []

    def sampler(shape, num_steps):
        asked.append(num_steps)
        clock[0] += 0.02 * num_steps + (5.0 if len(asked) == 1 else 0)  # the first call warms up
    assert runtime.steps_for_budget(sampler, (2, 2), seconds) == pytest.approx(steps, abs=1)
    assert asked == [1, 3]


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_budget_of_no_time_is_refused(seconds):
    with pytest.raises(ValueError, match="budget"):
        runtime.steps_for_budget(lambda shape, n: None, (2, 2), seconds)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, lambda words: RuntimeError(f"CUDA error: {words}"),
                                   lambda words: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")])
def test_when_memory_runs_out_the_batch_is_halved(error):
    tried = []

    def sampler(batch_size):
        tried.append(batch_size)
        if batch_size > 3:
            raise error("out of memory")
        return torch.zeros(batch_size, 2)
    x, batch_size = runtime.with_memory_backoff(sampler, 25)
    assert tried == [25, 12, 6, 3] and batch_size == 3 and len(x) == 3


def test_what_torch_raises_on_a_cpu_without_memory_is_understood():
    def sampler(batch_size):
        return torch.empty(batch_size, 2**44) if batch_size > 1 else torch.zeros(1)
    assert runtime.with_memory_backoff(sampler, 4)[1] == 1


def test_not_even_one_sample_fits():
    def sampler(batch_size):
        raise MemoryError
    with pytest.raises(MemoryError, match="single sample"):
        runtime.with_memory_backoff(sampler, 8)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_of_nothing_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        runtime.with_memory_backoff(lambda n: torch.zeros(n), batch_size)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def sampler(batch_size):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        runtime.with_memory_backoff(sampler, 8)


def test_mixed_precision_is_for_the_network_and_not_for_the_result():
    model = Shrink()
    sample = runtime.in_mixed_precision(lambda shape: model(torch.ones(shape), torch.zeros(shape[0], dtype=torch.long)))
    x = sample((4, 2))
    assert model.seen == [torch.bfloat16] and x.dtype == torch.float32


def test_mixed_precision_reaches_a_network_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "autocast", lambda device, dtype: nullcontext(entered.append(device)))
    runtime.in_mixed_precision(torch.ones)(2)
    assert entered == ["cpu", "cuda"]


class Scaled:
    """A sampler of three steps with fresh noise in the last."""

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def __call__(self, shape, x_T):
        for t in (2, 1, 0):
            x_T = x_T - 0.1 * self.model(x_T, torch.full(shape[:1], t, device=x_T.device))
        return x_T + torch.randn_like(x_T)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_captured_sampler_gives_what_the_sampler_gives_with_fresh_noise_at_each_call(device):
    sampler, x_T = Scaled(Shrink().to(device)), torch.ones(2000, 2, device=device)
    sample = runtime.captured(sampler, (2000, 2), device)
    one, other = sample(x_T), sample(x_T)
    torch.manual_seed(0)
    expected = sampler((2000, 2), x_T)
    assert one.shape == (2000, 2) and not torch.equal(one, other)
    assert one.mean(0).tolist() == pytest.approx(expected.mean(0).tolist(), abs=0.2) and one.std(0).tolist() == pytest.approx([1, 1], abs=0.1)
    assert not torch.equal(sample(), sample()) and torch.equal(x_T, torch.ones_like(x_T))


@pytest.mark.gpu
def test_a_sampler_that_looks_at_its_values_is_not_captured_but_runs():
    def sampler(shape, x_T):
        return x_T * (2 if bool((x_T > 0).all()) else 1)
    with pytest.warns(UserWarning, match="cannot be recorded"):
        sample = runtime.captured(sampler, (4, 2), "cuda")
    assert torch.equal(sample(torch.ones(4, 2, device="cuda")), 2 * torch.ones(4, 2, device="cuda"))


@pytest.mark.parametrize("seconds, kept", [(0.1, True), (0.3, False)])
def test_a_network_is_compiled_where_that_is_faster_and_left_alone_where_not(clock, monkeypatch, seconds, kept):
    model, compiled_calls = Shrink(), []

    def compiled(forward):
        first = len(compiled_calls)

        def call(x, t):
            clock[0] += (seconds if len(compiled_calls) > first else 5.0) - 0.2  # the first call compiles; the plain one within takes 0.2
            compiled_calls.append(len(x))
            return forward(x, t)
        return call
    plain = Shrink.forward
    monkeypatch.setattr(Shrink, "forward", lambda self, x, t: (clock.__setitem__(0, clock[0] + 0.2), plain(self, x, t))[1])
    monkeypatch.setattr(torch, "compile", compiled)
    found = runtime.compile_if_faster(model, 3, calls=4)
    assert (found.before, found.after, found.kept) == (pytest.approx(0.2), pytest.approx(seconds), kept)
    assert found.compiling == pytest.approx(5.0) and compiled_calls == [3] * 5
    model(torch.ones(2, 2), torch.zeros(2, dtype=torch.long))
    assert (compiled_calls[-1] == 2) is kept
    again = runtime.compile_if_faster(model, 3, calls=4)
    assert (again.before, again.after, again.kept) == (pytest.approx(0.2), pytest.approx(seconds), kept)
    model(torch.ones(7, 2), torch.zeros(7, dtype=torch.long))
    assert (compiled_calls[-1] == 7) is kept


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").is_file()), reason="no C++ compiler, or no Python.h")
def test_a_compiled_network_answers_like_the_plain_one():
    model, x, t = Shrink().requires_grad_(False), torch.randn(3, 2), torch.zeros(3, dtype=torch.long)
    plain = model(x, t)
    found = runtime.compile_if_faster(model, 3, calls=2)
    assert found.compiling > found.before and math.isfinite(found.after)
    model.forward = torch.compile(model.forward)
    assert torch.allclose(model(x, t), plain, atol=1e-6)


def test_a_network_that_cannot_be_compiled_stays_as_it_is(monkeypatch):
    def compiled(forward):
        raise_ = RuntimeError("no C++ compiler\nis here")
        return lambda x, t: (_ for _ in ()).throw(raise_)
    monkeypatch.setattr(torch, "compile", compiled)
    model = Shrink()
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler$"):
        assert not runtime.compile_if_faster(model, 2, calls=1).kept
    assert model(torch.ones(2, 2), torch.zeros(2, dtype=torch.long)).shape == (2, 2)


def healthy(shape):
    model = Shrink()
    for t in range(3):
        model(torch.zeros(shape), torch.full(shape[:1], t))
    return 0.3 * torch.randn(shape, generator=seeded())


@pytest.mark.parametrize(("sampler", "says"), [
    (lambda shape: healthy(shape) / 0, "NaN or infinite"),
    (lambda shape: 10 * healthy(shape), "within"),
    (lambda shape: healthy(shape)[:1].expand(shape), "alike"),
    (lambda shape: healthy(shape)[:2], "same shape"),
    (lambda shape: healthy(shape).long(), "floating-point"),
    (lambda shape: 1 / 0, "ZeroDivisionError"),
    (lambda shape: 0.3 * torch.randn(shape), "0 network calls instead of 3"),
    (lambda shape: healthy(shape) + 0 * healthy(shape), "6 network calls instead of 3"),
])
def test_the_health_check_says_what_is_wrong(sampler, says):
    health = runtime.health_check(sampler, (64, 2), expected_calls=3)
    assert not health.ok and says in str(health)


def test_the_health_check_passes_what_is_right():
    health = runtime.health_check(healthy, (64, 2), expected_calls=3)
    assert health.ok and str(health) == "healthy" and health.problems == ()
