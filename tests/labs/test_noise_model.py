import pytest
import torch

from diffusionlab.noise_model import NoiseModel, Recorder, count_calls


class Half(NoiseModel):
    sample_shape, num_timesteps = (3,), 10

    def forward(self, x, t):
        return x / 2


X = torch.ones(4, 3)


def at(t):
    return torch.full((4,), t)


def test_calls_are_counted_while_the_count_is_open():
    model = Half()
    model(X, at(1))
    with count_calls() as calls:
        for t in (9, 9, 5):
            model(X, at(t))
    model(X, at(0))
    assert calls.nfe == 3 and calls.num_steps == 2
    assert [int(t[0]) for t in calls.t] == [9, 9, 5]


def test_counts_may_be_nested():
    model = Half()
    with count_calls() as outer:
        model(X, at(3))
        with count_calls() as inner:
            model(X, at(3))
        model(X, at(2))
    assert (outer.nfe, inner.nfe) == (3, 1)


def test_a_count_closes_when_the_sampler_fails():
    with pytest.raises(RuntimeError), count_calls() as calls:
        raise RuntimeError
    Half()(X, at(1))
    assert calls.nfe == 0


def test_a_model_without_tensors_is_on_the_cpu():
    assert Half().device.type == "cpu"


def test_a_recorder_answers_like_its_model_and_says_how_it_was_asked():
    recorder = Recorder(Half()).eval()
    with torch.no_grad():
        assert torch.equal(recorder(X, at(7)), X / 2)
    recorder.train()
    recorder(X[:2], torch.tensor([3, 4]))
    recorder(X, torch.tensor(5))
    seen = recorder.observed()
    assert seen["t"].tolist() == [7, -1, -1]
    assert seen["batch"].tolist() == [4, 2, 4]
    assert seen["grad"].tolist() == [False, True, True] and seen["training"].tolist() == [False, True, True]
    assert recorder.sample_shape == (3,) and recorder.num_timesteps == 10


def test_a_recorded_call_is_one_call():
    # Both the recorder and the model in it are noise models; a call of the outer is what a sampler pays for.
    recorder = Recorder(Half())
    with count_calls() as calls:
        recorder(X, at(1))
    assert calls.nfe == 1
