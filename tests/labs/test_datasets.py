import numpy as np
import pytest
import torch

from diffusionlab import datasets


@pytest.mark.parametrize(("split", "size"), [("train", 60_000), ("test", 10_000)])
def test_mnist_is_complete_and_within_plus_minus_one(split, size):
    x, labels = datasets.mnist(split)
    assert x.shape == (size, 1, 28, 28) and x.dtype == torch.float32
    assert float(x.min()) == -1 and float(x.max()) == 1
    assert labels.shape == (size,) and labels.dtype == torch.int64
    assert sorted(labels.unique().tolist()) == list(range(10)) and int(labels.bincount().min()) > 0.08 * size


def test_the_first_images_are_the_first_images():
    x, labels = datasets.mnist("test", 7)
    whole = datasets.mnist("test")
    assert len(x) == 7 and torch.equal(x, whole[0][:7]) and torch.equal(labels, whole[1][:7])
    assert labels.tolist() == [7, 2, 1, 0, 4, 1, 4]  # the data set's well-known beginning


@pytest.mark.parametrize(("split", "size"), [("valid", None), ("test", 0), ("test", -1), ("test", 10_001)])
def test_images_that_are_not_there_are_refused(split, size):
    with pytest.raises(ValueError, match="must be"):
        datasets.mnist(split, size)


def test_grey_and_colour_images_become_channels_first():
    grey = np.array([[[0, 255], [127, 128]]], dtype=np.uint8)
    assert datasets.to_pixels(grey).shape == (1, 1, 2, 2)
    assert datasets.to_pixels(grey).flatten().tolist() == pytest.approx([-1, 1, -1 / 255, 1 / 255], abs=1e-6)
    colour = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    x = datasets.to_pixels(colour)
    assert x.shape == (2, 3, 3, 4)
    assert float(x[1, 2, 0, 3]) == pytest.approx(colour[1, 0, 3, 2] / 127.5 - 1)
