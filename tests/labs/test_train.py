import argparse

import pytest
import torch

from diffusionlab import train as training
from diffusionlab.schedule import NoiseSchedule

EVENLY = torch.full((1000,), 1 / 1000, dtype=torch.float64)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run("unet", steps=3)`: a tiny training in a folder of its own; returns the (model, card) it would ship."""
    monkeypatch.chdir(tmp_path)
    g = torch.Generator().manual_seed(0)
    images, labels = torch.rand(40, 1, 8, 8, generator=g) * 2 - 1, torch.arange(40) % 10
    monkeypatch.setattr(training, "LOADERS", {"toy": lambda split, folder: (images, labels)})
    monkeypatch.setattr(training, "save_checkpoint", lambda model, card, dtype: (model, card))

    def run(what, steps, **options):
        defaults = dict(what=what, data="toy", steps=steps, minutes=0, batch=4, lr=1e-3, ema=0.9, drop_label=0.1,
                        widths=[32, 32], blocks=1, dropout=0.0, flip=False, images=None, half=False, seed=0, device="cpu", compile=False, go_on=False, focus=0.5, width=8, stages=2, bf16=False)
        return training.train(argparse.Namespace(**(defaults | options)))
    return run


@pytest.mark.parametrize("what", ["unet", "classifier"])
def test_a_training_goes_on_where_it_was_stopped(run, what):
    weights = {}
    for steps in (2, 5, 5):
        model, card = run(what, steps)
        assert card["steps"] == steps and card["name"] == f"toy-{what}"
        weights[steps, len(weights)] = torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()
    two, five, again = weights.values()
    assert not torch.equal(two, five) and torch.equal(five, again)  # the last run had nothing left to do


def test_the_card_keeps_the_loss_curve_across_a_stop(run):
    run("classifier", 100, batch=2)
    _, card = run("classifier", 200, batch=2)
    assert [step for step, _ in card["loss_curve"]] == [100, 200]
    assert card["minutes"] >= 0 and card["parameters"] > 0 and card["images"] == 40


def test_a_run_that_is_trained_on_starts_a_new_stretch_and_one_that_was_stopped_does_not(run):
    run("classifier", 3)
    _, card = run("classifier", 3)
    assert len(card["stretches"]) == 1
    _, card = run("classifier", 5, lr=1e-2)
    assert [(each["from_step"], each["to_step"], each["peak_learning_rate"]) for each in card["stretches"]] == \
        [(0, 3, 1e-3), (3, 5, 1e-2)]
    assert {each["device"] for each in card["stretches"]} == {"cpu"}
    _, card = run("classifier", 4, lr=1e-3)
    assert card["steps"] == 5


def test_a_machine_without_the_run_goes_on_from_what_was_shipped(run, tmp_path, monkeypatch):
    model, card = run("unet", 100, batch=2)
    monkeypatch.setattr(training, "read_card", lambda name: card)
    monkeypatch.setattr(training, "read_checkpoint", lambda name: (model.config, model.state_dict()))
    (tmp_path / "runs/toy-unet/state.pt").unlink()
    with pytest.raises(ValueError, match="nothing to do.*100 steps"):
        run("unet", 100, batch=2, go_on=True)
    with monkeypatch.context() as patched:
        patched.setattr(training, "learning_rate", lambda progress, peak: 0.0)
        same, _ = run("unet", 101, batch=2, go_on=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters()))  # it began with the shipped weights
    (tmp_path / "runs/toy-unet/state.pt").unlink()
    del card["stretches"]  # cards of early networks have none
    trained, further = run("unet", 200, batch=2, go_on=True)
    assert further["steps"] == 200 and [step for step, _ in further["loss_curve"]] == [100, 200]
    assert [(each["from_step"], each["to_step"]) for each in further["stretches"]] == [(100, 200)]
    assert not torch.equal(next(model.parameters()), next(trained.parameters()))
    (tmp_path / "runs/toy-unet/state.pt").unlink()
    with pytest.raises(ValueError, match="another one than asked for"):
        run("unet", 200, widths=[32], go_on=True)
    run("unet", 100, batch=2)
    with pytest.raises(ValueError, match="of another network than asked for"):
        run("unet", 200, widths=[32], batch=2)


def test_a_loss_that_is_not_finite_stops_the_training(run):
    with pytest.raises(SystemExit, match="smaller --lr"):
        run("classifier", 100, batch=2, lr=float("inf"))


def test_a_network_that_knows_v_has_no_loss_and_one_that_does_not_has_some():
    x0, labels, A = torch.zeros(64, 1, 4, 4), torch.zeros(64, dtype=torch.long), NoiseSchedule.linear().alphas_cumprod

    def knowing(x_t, t, labels):  # x_0 = 0: x_t is sqrt(1 - A) eps, and v is sqrt(A) eps
        return (A[t] / (1 - A[t])).sqrt()[:, None, None, None] * x_t
    assert float(training.unet_loss(knowing, A, EVENLY, x0, labels, 10, 0.1)) < 1e-6
    assert float(training.unet_loss(lambda x, t, labels: x, A, EVENLY, x0, labels, 10, 0.1)) > 0.1


def test_every_batch_covers_all_noise_levels_and_some_labels_are_dropped():
    seen = {}

    def spy(x_t, t, labels):
        seen.update(t=t, labels=labels)
        return x_t
    training.unet_loss(spy, NoiseSchedule.linear().alphas_cumprod, EVENLY, torch.zeros(500, 1, 2, 2), torch.full((500,), 3), 10, 0.2)
    assert torch.equal(seen["t"] // 2, torch.arange(500))
    assert set(seen["labels"].tolist()) == {3, 10} and 50 < int((seen["labels"] == 10).sum()) < 160


def test_a_batch_follows_the_density_of_timesteps_and_the_focus_lies_where_images_take_shape():
    schedule, seen = NoiseSchedule.linear(), []
    density = training.timestep_density(schedule, 0.75)
    assert density.shape == (1000,) and float(density.sum()) == pytest.approx(1) and float(density.min()) >= 0.25 / 1000
    training.unet_loss(lambda x, t, labels: seen.append(t) or x, schedule.alphas_cumprod, density, torch.zeros(8000, 1, 1, 1),
                       torch.zeros(8000).long(), 10, 0.1)
    drawn = torch.bincount(seen[0], minlength=1000).double() / 8000
    assert float((drawn.cumsum(0) - density.cumsum(0)).abs().max()) < 1 / 4000
    log_sigma = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).log() / 2
    focused = training.timestep_density(schedule, 1.0)
    median = float(log_sigma[int((focused.cumsum(0) < 0.5).sum())])
    # The schedule ends at ln sigma = -4.6 and cuts a little off below.
    assert median == pytest.approx(-0.8, abs=0.05)
    assert float(focused[log_sigma < 0.8].sum()) == pytest.approx(0.841, abs=0.01)
    assert torch.equal(training.timestep_density(schedule, 0.0), EVENLY)


@pytest.mark.parametrize(("device", "units", "bf16"), [("cpu", True, True), ("cpu", False, False), ("cuda", False, True)])
def test_half_precision_is_used_where_the_machine_has_units_for_it(monkeypatch, device, units, bf16):
    seen = []
    monkeypatch.setattr(training, "train", seen.append)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units})
    for options in ([], ["--no-bf16"]):
        monkeypatch.setattr("sys.argv", ["train", "unet", "--device", device, *options])
        training.main()
    assert [each.bf16 for each in seen] == [bf16, False]


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [training.learning_rate(i / 1000, 2.0) for i in range(1001)]
    assert rates[0] == 0 and max(rates) == pytest.approx(2.0, rel=0.01) and rates.index(max(rates)) == 20
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(rates[20:], rates[21:]))


def test_about_half_of_the_images_are_mirrored_and_none_is_otherwise_changed():
    x = torch.arange(200 * 6.0).reshape(200, 1, 2, 3)
    seen = training.half_mirrored(x)
    mirrored = (seen == x.flip(3)).all(dim=(1, 2, 3))
    assert bool((mirrored | (seen == x).all(dim=(1, 2, 3))).all()) and 60 < int(mirrored.sum()) < 140


def test_digits_are_not_mirrored_and_every_recipe_is_whole():
    assert not any(recipe["flip"] for recipe in training.RECIPES["mnist"].values())
    assert set(training.RECIPES) == set(training.LOADERS)
    for what in ("unet", "classifier"):
        assert len({frozenset(recipes[what]) for recipes in training.RECIPES.values()}) == 1


def test_what_is_not_given_is_the_data_set_s_own(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "train", seen.append)
    for options in ([], ["--data", "cifar10"], ["--data", "cifar10", "--steps", "7", "--no-flip"]):
        monkeypatch.setattr("sys.argv", ["train", "unet", *options])
        training.main()
    mnist, cifar10, own = map(vars, seen)
    for data, asked in (("mnist", mnist), ("cifar10", cifar10)):
        assert asked.items() >= training.RECIPES[data]["unet"].items()
    assert own == cifar10 | {"steps": 7, "flip": False}


def test_images_that_are_not_there_are_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["train", "unet", "--data", "cifar10", "--images", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        training.main()
    assert "torchvision" in capsys.readouterr().err.splitlines()[-1]
