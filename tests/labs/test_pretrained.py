import json

import pytest
import torch

from diffusionlab import datasets, pretrained
from diffusionlab.analytic import GaussianModel
from diffusionlab.classifier import Classifier
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.unet import UNet


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty data folder to write to."""
    monkeypatch.setattr(pretrained, "data_dir", lambda: tmp_path)
    return tmp_path


def small_unet():
    torch.manual_seed(0)
    unet = UNet(NoiseSchedule.linear(), (1, 8, 8), widths=(32, 32), blocks=1)
    for parameter in unet.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return unet


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float16, 2e-2)])
def test_what_is_saved_is_what_is_loaded(elsewhere, dtype, atol):
    unet = small_unet().to(memory_format=torch.channels_last)
    path = pretrained.save_checkpoint(unet, {"name": "toy-unet", "steps": 5}, dtype)
    assert path == elsewhere / "checkpoints" / "toy-unet.safetensors"
    assert json.loads(path.with_suffix(".json").read_text())["steps"] == 5
    again = pretrained.load_pretrained("toy", "cpu")
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    assert again.config == unet.config and next(again.parameters()).dtype == torch.float32
    assert torch.allclose(again(x, t), unet.eval()(x, t).detach(), atol=atol)


def test_a_classifier_keeps_its_running_statistics(elsewhere):
    classifier = Classifier((1, 8, 8), 3, width=8, num_features=5)
    classifier(torch.randn(64, 1, 8, 8) + 2)
    pretrained.save_checkpoint(classifier, {"name": "toy-classifier"})
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(pretrained.load_classifier("toy", "cpu")(x), classifier.eval()(x).detach(), atol=1e-6)


def test_a_loaded_network_is_ready_for_sampling(elsewhere):
    pretrained.save_checkpoint(small_unet(), {"name": "toy-unet"})
    unet = pretrained.load_pretrained("toy", "cpu")
    assert not unet.training and not any(parameter.requires_grad for parameter in unet.parameters())


def test_a_changed_file_is_refused(elsewhere):
    path = pretrained.save_checkpoint(small_unet(), {"name": "toy-unet"})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        pretrained.load_pretrained("toy")
    path.unlink()
    with pytest.raises(ValueError, match="missing"):
        pretrained.load_pretrained("toy")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="mnist-classifier") as refusal:
        pretrained.load_pretrained("imagenet")
    assert "\n" not in str(refusal.value)


def test_tensors_and_card_of_any_kind_are_kept(elsewhere):
    features = torch.randn(5, 3)
    pretrained.write_checkpoint({"features": features.T}, {"n": 5}, {"name": "toy-features", "seed": 1})
    config, tensors = pretrained.read_checkpoint("toy-features")
    assert config == {"n": 5} and torch.equal(tensors["features"], features.T)
    assert pretrained.read_card("toy-features")["seed"] == 1


def test_a_card_can_be_rewritten_without_touching_the_checksum(elsewhere):
    pretrained.save_checkpoint(small_unet(), {"name": "toy-unet"})
    pretrained.write_card(pretrained.read_card("toy-unet") | {"evaluation": {"seen": True}})
    assert pretrained.read_card("toy-unet")["evaluation"] == {"seen": True}
    assert pretrained.load_pretrained("toy", "cpu").num_classes == 10


# --- what the course ships -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist_unet():
    return pretrained.load_pretrained("mnist", "cpu")


def test_the_shipped_unet_is_small_and_conditional(mnist_unet):
    assert sum(parameter.numel() for parameter in mnist_unet.parameters()) <= 2_500_000
    assert (mnist_unet.sample_shape, mnist_unet.num_classes, mnist_unet.num_timesteps) == ((1, 28, 28), 10, 1000)


@pytest.mark.parametrize("t", [20, 200, 500, 800])
def test_the_shipped_unet_predicts_noise_better_than_a_gaussian_could(mnist_unet, t):
    # The best that knows only every pixel's mean and spread is the bar: what is beyond it, the network knows about digits.
    images, _ = datasets.mnist("train", 2000)
    x0, labels = datasets.mnist("test", 64)
    schedule = NoiseSchedule.linear()
    A = float(schedule.alphas_cumprod[t])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x_t, ts = A**0.5 * x0 + (1 - A) ** 0.5 * eps, torch.full((64,), t)
    gaussian = GaussianModel(schedule, images.mean(0), images.std(0) + 0.01, (1, 28, 28))
    bar = float((gaussian(x_t, ts) - eps).square().mean())
    error = float((mnist_unet(x_t, ts, labels) - eps).square().mean())
    assert error < 0.8 * bar


def test_the_right_label_helps_and_a_wrong_one_does_not(mnist_unet):
    x0, labels = datasets.mnist("test", 64)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    A, ts = NoiseSchedule.linear().alphas_cumprod[700], torch.full((64,), 700)
    x_t = A.sqrt().float() * x0 + (1 - A).sqrt().float() * eps
    right, none, wrong = (float((mnist_unet(x_t, ts, each) - eps).square().mean())
                          for each in (labels, torch.full((64,), 10), (labels + 1) % 10))
    assert right < none < wrong


@pytest.mark.parametrize("name", ["mnist-unet", "mnist-classifier"])
def test_a_model_card_says_how_the_network_was_made(name):
    card = pretrained.read_card(name)
    assert {"data", "images", "parameters", "steps", "batch", "minutes", "device", "seed", "loss_curve", "sha256",
            "evaluation"} <= set(card)
    first, last = card["loss_curve"][0][1], card["loss_curve"][-1][1]
    assert last < first
    text = pretrained.checkpoint_path(name).with_suffix(".md").read_text()
    assert card["sha256"] in text and f"{name}-loss.png" in text
    assert pretrained.checkpoint_path(name).with_name(f"{name}-loss.png").stat().st_size < 60_000


def test_the_shipped_features_belong_to_the_shipped_networks():
    card = pretrained.read_card("mnist-features-ddpm-1000")
    assert card["model_sha256"] == pretrained.read_card("mnist-unet")["sha256"]
    assert card["classifier_sha256"] == pretrained.read_card("mnist-classifier")["sha256"]
    assert {"samples", "seed", "labels", "command"} <= set(card)


def test_the_shipped_unet_was_measured_and_draws_what_it_is_asked_for():
    found = pretrained.read_card("mnist-unet")["evaluation"]
    assert found["eta_1"]["n"] == found["eta_0"]["n"] == 1000
    for eta, least in (("eta_1", 0.97), ("eta_0", 0.95)):
        assert found[eta]["judged_as_asked"] >= least
        floor, spread = found[eta]["frechet_floor_real_to_real"]
        assert found[eta]["frechet_to_real"][0] < floor + 10 * spread
