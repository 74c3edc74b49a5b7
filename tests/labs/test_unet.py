import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionlab.noise_model import count_calls
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.unet import UNet, timestep_embedding

SCHEDULE = NoiseSchedule.linear()


@pytest.fixture(scope="module")
def unet():
    """A small network with random weights everywhere, also where training would start from zero."""
    torch.manual_seed(0)
    model = UNet(SCHEDULE, widths=(32, 32), blocks=1).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(n, shape=(1, 28, 28), seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=g), torch.randint(1000, (n,), generator=g)


def test_a_new_network_predicts_the_noise_that_a_zero_v_stands_for():
    x, t = batch(4)
    with torch.no_grad():
        eps = UNet(SCHEDULE, widths=(32, 32), blocks=1)(x, t)
    expected = (1 - SCHEDULE.alphas_cumprod[t]).sqrt()[:, None, None, None] * x
    assert torch.allclose(eps.double(), expected, atol=1e-6)


def test_the_right_v_becomes_the_right_noise(unet, monkeypatch):
    x0, t = batch(5)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2))
    A = SCHEDULE.alphas_cumprod[t][:, None, None, None]
    v = A.sqrt() * eps - (1 - A).sqrt() * x0
    monkeypatch.setattr(unet, "predict_v", lambda x, t, labels: v)
    assert torch.allclose(unet((A.sqrt() * x0 + (1 - A).sqrt() * eps).double(), t), eps.double(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_predictions_keep_shape_and_dtype(unet, dtype):
    x, t = batch(3)
    out = unet(x.to(dtype), t)
    assert out.shape == x.shape and out.dtype == dtype


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 28, 20), (2, 8, 8)])
def test_images_need_not_be_square_nor_grey(shape):
    x, t = batch(2, shape)
    assert UNet(SCHEDULE, shape, widths=(32, 32), blocks=2)(x, t).shape == x.shape


def test_samples_of_a_batch_do_not_see_each_other(unet):
    x, t = batch(28)  # as many as pixels in a row
    together = unet(x, t, t % 10)
    alone = torch.cat([unet(x[i:i + 1], t[i:i + 1], t[i:i + 1] % 10) for i in (0, 13, 27)])
    assert torch.allclose(together[[0, 13, 27]], alone, atol=1e-5)


def test_no_label_means_the_label_none(unet):
    x, t = batch(3)
    none = torch.full((3,), 10)
    assert torch.equal(unet(x, t), unet(x, t, none))
    assert torch.equal(unet(x, t), unet.condition(10)(x, t))
    assert not torch.allclose(unet(x, t), unet(x, t, none - 1), atol=1e-4)


def test_one_label_serves_all_samples_and_a_tensor_each_its_own(unet):
    x, t = batch(4)
    assert torch.equal(unet.condition(3)(x, t), unet(x, t, torch.full((4,), 3)))
    labels = torch.tensor([3, 1, 4, 1])
    assert torch.equal(unet.condition(labels)(x, t), unet(x, t, labels))


def test_sets_that_lie_one_after_the_other_repeat_the_labels(unet):
    x, t = batch(6)
    assert torch.equal(unet.condition(torch.tensor([5, 6]))(x, t), unet(x, t, torch.tensor([5, 6, 5, 6, 5, 6])))


@settings(deadline=None, max_examples=10)
@given(w=st.floats(0, 8))
def test_guidance_extrapolates_from_none_to_the_label(unet, w):
    x, t = batch(2)
    labels = torch.tensor([7, 2])
    none, label = unet(x, t), unet(x, t, labels)
    assert torch.allclose(unet.condition(labels, guidance=w)(x, t), none + w * (label - none), atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_conditioned_call_is_one_network_call(unet, guidance):
    x, t = batch(2)
    with count_calls() as calls:
        unet.condition(3, guidance)(x, t)
    assert calls.nfe == 1


def test_a_conditioned_model_is_a_model(unet):
    model = unet.condition(3)
    assert (model.sample_shape, model.num_timesteps, model.device.type) == ((1, 28, 28), 1000, "cpu")


@pytest.mark.parametrize("labels", [-1, 11, 2.5, torch.tensor([0.0, 1.0]), torch.tensor([3, 11]), torch.tensor([[1, 2]]),
                                    torch.tensor([], dtype=torch.long)])
def test_labels_that_do_not_exist_are_refused(unet, labels):
    with pytest.raises(ValueError, match="labels must be"):
        unet.condition(labels)


def test_labels_that_do_not_fit_the_batch_are_refused(unet):
    x, t = batch(3)
    with pytest.raises(ValueError, match="2 labels, but the batch holds 3"):
        unet.condition(torch.tensor([1, 2]))(x, t)
    with pytest.raises(ValueError, match="guidance"):
        unet.condition(1, guidance=float("nan"))


def test_the_largest_network_of_the_course_is_small():
    assert sum(p.numel() for p in UNet(SCHEDULE, widths=(64, 96), blocks=1).parameters()) <= 2_500_000


def test_neighbouring_timesteps_have_neighbouring_but_different_embeddings():
    emb = timestep_embedding(torch.arange(1000), 64)
    assert emb.shape == (1000, 64)
    assert float(emb.diff(dim=0).norm(dim=1).max()) < float((emb[0] - emb[500]).norm())
    assert float(torch.pdist(emb).min()) > 1e-2
