import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

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


# --- CIFAR-10, which is not bundled: tiny folders of the same form --------------------------------------------------------

SQUARES = np.arange(6)[:, None, None, None] * np.ones((6, 32, 32, 3)) * 40


def test_cifar_in_its_original_form(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    planes = SQUARES.transpose(0, 3, 1, 2).astype(np.uint8)
    planes[:, 1:] = 7  # what follows the red plane is green and blue
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps({b"data": planes.reshape(6, -1), b"labels": [i] * 6}))
    assert datasets.image_files("cifar10", tmp_path) == datasets.ORIGINAL == datasets.image_files("mnist")
    x, labels = datasets.cifar10("train", folder=tmp_path)
    assert x.shape == (30, 3, 32, 32) and labels.tolist() == [i for i in range(1, 6) for _ in range(6)]
    assert float(x[2, 0].min()) == float(x[2, 0].max()) == pytest.approx(80 / 127.5 - 1)
    assert float(x[2, 1].max()) == pytest.approx(7 / 127.5 - 1)


def test_cifar_as_an_archive_of_pictures_with_the_classes_taking_turns(tmp_path):
    def jpeg(pixels):
        file = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg", quality=95)
        return file.getvalue()
    whole = [jpeg(pixels) for pixels in SQUARES]
    head = next(i for i, column in enumerate(zip(*whole)) if len(set(column)) > 1)
    bodies = [file[head:] for file in whole]
    np.savez(tmp_path / "cifar10_test.npz", header=np.frombuffer(whole[0][:head], np.uint8),
             body=np.frombuffer(b"".join(bodies), np.uint8), labels=np.array([0, 0, 0, 1, 1, 2], np.uint8),
             offsets=np.cumsum([0, *map(len, bodies)]).astype(np.int32))
    assert "JPEG" in datasets.image_files("cifar10", tmp_path)
    x, labels = datasets.cifar10("test", folder=tmp_path)
    assert labels.tolist() == [0, 1, 2, 0, 1, 0]
    assert ((x[:, 0, 5, 5] + 1) * 127.5).round().tolist() == pytest.approx([0, 120, 200, 40, 160, 80], abs=1)
    assert len(datasets.cifar10("test", 2, tmp_path)[0]) == 2


def test_cifar_that_is_not_there_is_refused_with_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="torchvision"):
        datasets.cifar10("test", folder=tmp_path)
    with pytest.raises(ValueError, match="split must be"):
        datasets.cifar10("valid", folder=tmp_path)
