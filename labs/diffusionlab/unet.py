"""A small class-conditional UNet that predicts the noise in x_t, quick enough for a laptop's CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .noise_model import NoiseModel
from .schedule import NoiseSchedule


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of t at `width // 2` wavelengths from 2 pi on, towards 20,000 pi, [B, width] (Vaswani et al. 2017)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t.float()[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a skip; the embedding of (t, label) scales and shifts the middle."""

    def __init__(self, width_in: int, width_out: int, width_emb: int, dropout: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.film = nn.Linear(width_emb, 2 * width_out)
        self.norm2 = nn.GroupNorm(8, width_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class Attention(nn.Module):
    """Self-attention over the positions of a small feature map."""

    def __init__(self, width: int, head_width: int = 32):
        super().__init__()
        self.heads = width // head_width
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W).transpose(3, 4).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(2, 3).reshape(B, C, H, W))


class UNet(NoiseModel):
    """Noise prediction: `model(x_t, t)` or `model(x_t, t, labels)` gives eps, shaped like x_t.

    Pixels are unshuffled to half the resolution first, so that most of the work is done on small maps. Inside, the network
    predicts v = sqrt(A_t) eps - sqrt(1 - A_t) x_0 (Salimans and Ho 2022) and turns it into
    eps = sqrt(A_t) v + sqrt(1 - A_t) x_t: near t = T-1 the noise is nearly x_t itself, and what little is left of
    x_0 would drown in the rounding of a direct prediction.

    Args:
        schedule: the noise schedule that the model is trained on.
        sample_shape: (channels, height, width); height and width divisible by 2 ** len(widths).
        num_classes: labels are 0..num_classes-1; the label `num_classes` means "none".
        widths: channels at each resolution, finest first; multiples of 32.
        blocks: residual blocks at each resolution.
        dropout: share of features dropped in training.

    Attributes:
        class_names: what the labels stand for; their numbers, unless set.
    """

    def __init__(self, schedule: NoiseSchedule, sample_shape=(1, 28, 28), num_classes: int = 10,
                 widths=(64, 128), blocks: int = 2, dropout: float = 0.0):
        super().__init__()
        self.config = dict(sample_shape=list(sample_shape), num_classes=num_classes, widths=list(widths),
                           blocks=blocks, dropout=dropout)
        self.sample_shape = tuple(sample_shape)
        self.num_classes = num_classes
        self.class_names = tuple(map(str, range(num_classes)))
        self.num_timesteps = schedule.num_timesteps
        # Float32 is enough here: the samplers' own coefficients come from the float64 tables.
        self.register_buffer("sqrt_A", schedule.alphas_cumprod.sqrt().float(), persistent=False)
        self.register_buffer("sqrt_one_minus_A", (1 - schedule.alphas_cumprod).sqrt().float(), persistent=False)

        self.width_t = widths[0]
        width_emb = 4 * widths[0]
        self.embed_t = nn.Sequential(nn.Linear(self.width_t, width_emb), nn.SiLU(), nn.Linear(width_emb, width_emb))
        self.embed_label = nn.Embedding(num_classes + 1, width_emb)

        channels = 4 * sample_shape[0]
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, skips, width = nn.ModuleList(), [widths[0]], widths[0]
        for level, w in enumerate(widths):
            for _ in range(blocks):
                self.down.append(ResBlock(width, w, width_emb, dropout))
                width = w
                skips.append(w)
            if level + 1 < len(widths):
                self.down.append(nn.Conv2d(w, w, 3, stride=2, padding=1))
                skips.append(w)
        self.middle = nn.ModuleList([ResBlock(width, width, width_emb, dropout), Attention(width),
                                     ResBlock(width, width, width_emb, dropout)])
        self.up = nn.ModuleList()
        for level, w in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(ResBlock(width + skips.pop(), w, width_emb, dropout))
                width = w
            if level > 0:
                self.up.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.norm_out = nn.GroupNorm(8, width)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict the noise in x.

        Args:
            x: noisy images [B, C, H, W].
            t: timesteps in 0..T-1, LongTensor [B].
            labels: LongTensor [B] in 0..num_classes, where num_classes means "none"; None means none for all.
        """
        # The network has its own precision; the sum and the result have the caller's.
        v = self.predict_v(x.to(self.conv_in.weight.dtype), t, labels)
        eps = self.sqrt_A[t][:, None, None, None] * v + self.sqrt_one_minus_A[t][:, None, None, None] * x
        return eps.to(x.dtype)

    def predict_v(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's own output, v = sqrt(A_t) eps - sqrt(1 - A_t) x_0; arguments as for `forward`."""
        if labels is None:
            labels = torch.full_like(t, self.num_classes)
        emb = F.silu(self.embed_t(timestep_embedding(t, self.width_t)) + self.embed_label(labels))
        h = self.conv_in(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        stack = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
            stack.append(h)
        for layer in self.middle:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
        for layer in self.up:
            h = layer(torch.cat([h, stack.pop()], dim=1), emb) if isinstance(layer, ResBlock) else layer(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), 2)

    def condition(self, labels: int | Tensor, guidance: float = 1.0) -> Conditioned:
        """A two-argument model for the given label(s): one int for all samples, or a LongTensor [B].

        guidance: 1 is plain conditioning; above 1 pushes away from the unconditional prediction
        (Ho and Salimans 2022), eps = eps_none + guidance (eps_label - eps_none).
        """
        return Conditioned(self, labels, guidance)


class Conditioned(NoiseModel):
    """A UNet with its labels fixed, called like any noise predictor: `model(x_t, t) -> eps`.

    A batch that is a multiple of the number of labels repeats them in order, as several sweeps over one set of labels do.
    """

    def __init__(self, unet: UNet, labels: int | Tensor, guidance: float = 1.0):
        super().__init__()
        labels = torch.as_tensor(labels, device=unet.device)
        if labels.is_floating_point() or labels.ndim > 1 or not labels.numel() or not bool(((labels >= 0) & (labels <= unet.num_classes)).all()):
            raise ValueError(f"labels must be one whole number or a LongTensor [B], each in 0..{unet.num_classes} "
                             f"({unet.num_classes} means none)")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, not {guidance}")
        self.unet, self.guidance = unet, float(guidance)
        self.register_buffer("labels", labels.long())
        self.sample_shape, self.num_timesteps = unet.sample_shape, unet.num_timesteps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in x [B, C, H, W] at timesteps t [B] for the fixed labels."""
        if len(x) % self.labels.numel():
            raise ValueError(f"the model was given {len(self.labels)} labels, but the batch holds {len(x)} samples")
        labels = self.labels.reshape(-1).repeat(len(x) // self.labels.numel())
        # The UNet's forward, not its call: what is counted as a network call is the call of this model.
        if self.guidance == 1:
            return self.unet.forward(x, t, labels)
        # One call of twice the batch costs less than two calls.
        none = torch.full_like(labels, self.unet.num_classes)
        eps, eps_none = self.unet.forward(x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([labels, none])).chunk(2)
        return eps_none + self.guidance * (eps - eps_none)
