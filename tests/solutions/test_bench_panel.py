import pytest

from diffusionlab.noise_model import NoiseModel
from solutions.lab5_sampling import bench_panel


class FreeModel(NoiseModel):
    """A conditional network that costs nothing, so that only the panel's own work is left."""

    sample_shape, num_timesteps, num_classes = (1, 28, 28), 1000, 10

    def condition(self, labels, guidance=0.0):
        return self

    def forward(self, x, t):
        return 0.9 * x


@pytest.mark.slow
def test_every_move_shows_something_new(monkeypatch, capsys):
    # Four rounds: eta comes back to where it was, and the next move must still lead elsewhere.
    monkeypatch.setattr(bench_panel, "load_pretrained", lambda *args: FreeModel())
    monkeypatch.setattr("sys.argv", ["bench_panel", "--moves", "4", "--device", "cpu"])
    bench_panel.main()
    said = capsys.readouterr().out
    assert "eta moved back" in said and "sweep / runs" in said and "4 rounds" in " ".join(said.split())


def test_a_panel_that_shows_nothing_new_is_not_waited_for_in_vain(monkeypatch):
    class Silent:
        class samples:
            observe = unobserve_all = staticmethod(lambda *args: None)
    monkeypatch.setattr(bench_panel.threading.Event, "wait", lambda self, timeout: False)
    with pytest.raises(TimeoutError):
        bench_panel.until_shown(Silent(), lambda: None)
