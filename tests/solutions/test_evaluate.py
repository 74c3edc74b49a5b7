import json

import pytest
import torch

from diffusionlab import datasets, metrics, pretrained
from diffusionlab.classifier import Classifier
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.unet import UNet
from solutions.lab5_sampling import evaluate, quality


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A data folder with tiny networks for photographs, as training leaves them, and a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "data_dir", lambda: tmp_path / "data")
    (tmp_path / "data").mkdir()
    torch.manual_seed(0)
    curve = [[100, 0.5], [200, 0.4]]
    unet, classifier = UNet(NoiseSchedule.linear(), (3, 8, 8), 10, widths=(32,), blocks=1), Classifier((3, 8, 8), 10, 4, 6)
    for name, model in {"unet": unet, "classifier": classifier}.items():
        pretrained.save_checkpoint(model, {"name": f"cifar10-{name}", "data": "cifar10", "steps": 200, "batch": 5000, "device": "cpu",
                                           "loss_curve": curve})
    images = torch.rand(60, 3, 8, 8) * 2 - 1
    monkeypatch.setattr(datasets, "cifar10", lambda split, size=None, folder=None: (images, torch.arange(60) % 10))
    metrics.real_features.cache_clear()
    yield tmp_path
    metrics.real_features.cache_clear()


def run(program, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
    program.main()


def test_more_samples_than_there_are_real_images_are_refused(colours, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="only 60 real images to compare 100 samples with"):
        patched.setattr(metrics, "real_features", lambda data: (torch.zeros(60, 6), torch.arange(60) % 10))
        evaluate.judge(torch.zeros(100, 3, 8, 8), "cifar10")


def test_networks_for_photographs_are_measured_by_the_same_commands_as_those_for_digits(colours, monkeypatch, capsys):
    class InNoTime(evaluate.DDPMSampler):
        def sample(self, shape, *, x_T, generator):
            return x_T
    monkeypatch.setattr(evaluate, "DDPMSampler", InNoTime)
    run(evaluate, monkeypatch, "cifar10", "--samples", 20, "--device", "cpu")
    checkpoints = colours / "data" / "checkpoints"
    card = json.loads((checkpoints / "cifar10-unet.json").read_text())["evaluation"]
    assert card["eta_0"]["n"] == 20 and 0 <= card["eta_1"]["judged_as_asked"] <= 1 and card["network_call_on_cpu"]["milliseconds"] > 0
    assert {"eta_0_guidance_3", "eta_1_guidance_3"} <= set(card)
    real, labels = metrics.real_features("cifar10")
    assert real.shape == (60, 6) and labels.tolist() == [i % 10 for i in range(60)]
    page = (checkpoints / "cifar10-unet.md").read_text()
    assert "photographs" in page and "Krizhevsky" in page and "MNIST" not in page and (checkpoints / "cifar10-unet-loss.png").exists()
    assert "A preview" in page and "1.0 million images" in page
    pretrained.write_card(pretrained.read_card("cifar10-unet") | {"device": "cuda"})
    assert "preview" not in evaluate.markdown_card("cifar10-unet") and "preview" not in (checkpoints / "cifar10-classifier.md").read_text()
    assert (colours / "docs" / "images" / "colours.png").exists() and not (checkpoints / "mnist-unet.md").exists()

    monkeypatch.setattr(quality, "CELLS", quality.CELLS[:2])
    written, compiled = [], []
    monkeypatch.setattr(quality, "compile_if_faster", lambda model, batch: compiled.append((batch, torch.is_autocast_enabled("cpu"))))
    monkeypatch.setattr(quality, "record", lambda *arguments: written.append(arguments) or "page")
    table = ("--data", "cifar10", "--samples", 20, "--long", 0, "--bf16", "--compile", "--device", "cpu")
    run(quality, monkeypatch, *table)
    *_, (_, part, data, result) = written
    assert (part, data, len(result["cells"])) == ("quality", "cifar10", 2) and len(result["network"]) == 12
    assert result["bf16"] and result["command"].endswith('--compile --device cpu"') and compiled == [(125, True)]

    # What the page has of the same network, judge, device, precision and seed is not made again.
    (colours / "docs" / "figures.json").write_text(json.dumps({"quality": {"cifar10": result}}))
    monkeypatch.setattr(quality, "sampled", lambda *arguments: pytest.fail("made again"))
    run(quality, monkeypatch, *table)
    assert written[-1][-1]["cells"] == result["cells"] and written[-1][-1]["date"] == result["cells"][0]["date"]
    for other in ({"network": "another"}, {"judge": "another"}, {"machine": "another"}, {"torch": "1.0"}, {"bf16": False}, {"seed": 1},
                  {"cells": [result["cells"][0] | {"n": 10}, result["cells"][1]]}, {"cells": result["cells"][:1]}):
        (colours / "docs" / "figures.json").write_text(json.dumps({"quality": {"cifar10": result | other}}))
        with pytest.raises(pytest.fail.Exception, match="made again"):
            run(quality, monkeypatch, *table)


def test_a_network_that_is_not_there_is_named(colours, monkeypatch, capsys):
    (colours / "data" / "checkpoints" / "cifar10-unet.json").unlink()
    with pytest.raises(SystemExit):
        run(quality, monkeypatch, "--data", "cifar10")
    assert "there is no checkpoint 'cifar10-unet'; there are: cifar10-classifier" in " ".join(capsys.readouterr().err.split())
