"""Small nets of the families that people use, with random weights: what is cut in them."""

import torch
import torchvision.models as tv
from settled import settle
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import Bottleneck


class RepBlock(nn.Module):
    """Three branches that are added: 3x3, 1x1, and a norm of what comes in."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.wide, self.narrow = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(inputs, outputs, 1),
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs else None

    def forward(self, x):
        y = self.norms[0](self.wide(x)) + self.norms[1](self.narrow(x))
        return F.relu(y if self.identity is None else y + self.identity(x))


class Mixer(nn.Module):
    """Tokens are mixed, and channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norms = (
            nn.Conv2d(3, 12, 8, 8),
            nn.ModuleList(nn.LayerNorm(12) for _ in "123"),
        )
        self.tokens = nn.Sequential(nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 16))
        self.channels = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


class Attention(nn.Module):
    """Heads from one matrix, as timm has them; the code knows their number."""

    def __init__(self, dim, heads):
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(x.transpose(1, 2).reshape(n, t, -1))


class ViT(nn.Module):
    """A class token, positions, layer scales."""

    def __init__(self, dim=24, heads=4):
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, dim, 8, 8), nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 17, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in "123")
        self.attention, self.scale = Attention(dim, heads), nn.Parameter(torch.randn(dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 40), nn.GELU(), nn.Linear(40, dim))
        self.head = nn.Linear(dim, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.scale * self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x)[:, 0])


class RMSNorm(nn.Module):
    """As LLaMA has it."""

    def __init__(self, dim):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(dim) + 0.5), 1e-2

    def forward(self, x):
        return (
            self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        )


class Llama(nn.Module):
    """Grouped queries, rotary positions, a gated linear unit, token ids."""

    def __init__(self, dim=16, heads=4, kv=2):
        super().__init__()
        self.head_dim = dim // heads
        self.embed = nn.Embedding(30, dim)
        self.q, self.k, self.v = (
            nn.Linear(dim, n * self.head_dim, bias=False) for n in (heads, kv, kv)
        )
        self.o = nn.Linear(dim, dim, bias=False)
        self.gate, self.up, self.down = (
            nn.Linear(*n, bias=False) for n in [(dim, 24)] * 2 + [(24, dim)]
        )
        self.norms = nn.ModuleList(RMSNorm(dim) for _ in "123")
        self.head = nn.Linear(dim, 30, bias=False)
        self.register_buffer("frequencies", 0.5 ** torch.arange(self.head_dim // 2).float())

    def _rotated(self, x):
        angles = torch.arange(x.shape[-2])[:, None] * self.frequencies
        angles = torch.cat([angles, angles], -1)
        half = x.shape[-1] // 2
        return x * angles.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angles.sin()

    def forward(self, input_ids):
        x = self.embed(input_ids)
        y, shape = self.norms[0](x), (*input_ids.shape, -1, self.head_dim)
        q, k, v = (layer(y).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(
            self._rotated(q), self._rotated(k), v, is_causal=True, enable_gqa=True
        )
        x = x + self.o(y.transpose(1, 2).reshape(*input_ids.shape, -1))
        y = self.norms[1](x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return {"logits": self.head(self.norms[2](x))}


class Conv1D(nn.Module):
    """As Hugging Face has it: a linear layer, its inputs first."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.nf, self.nx = outputs, inputs
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs) / 4),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(
            *x.shape[:-1], self.nf
        )


class GPT(nn.Module):
    """Embeddings that are tied to the head, and layers whose inputs come first."""

    def __init__(self, dim=16):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, dim), nn.Embedding(12, dim)
        self.split_size, self.head_dim = dim, 4
        self.attend, self.project = Conv1D(3 * dim, dim), Conv1D(dim, dim)
        self.widen, self.narrow = Conv1D(24, dim), Conv1D(dim, 24)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in "123")
        self.head = nn.Linear(dim, 30, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask=None):
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        parts = self.attend(self.norms[0](x)).split(self.split_size, dim=2)
        q, k, v = (y.view(*y.shape[:2], -1, self.head_dim).transpose(1, 2) for y in parts)
        weights = (q @ k.transpose(-1, -2) / self.head_dim**0.5).softmax(-1)
        x = x + self.project((weights @ v).transpose(1, 2).flatten(2))
        x = x + self.narrow(F.gelu(self.widen(self.norms[1](x))))
        return self.head(self.norms[2](x))


def resnext(groups=4, width=4):
    return tv.ResNet(Bottleneck, [1, 1, 1, 1], 5, groups=groups, width_per_group=width)


def regnet(se_ratio):
    widths = dict(w_0=16, w_a=16.0, w_m=2.0, group_width=8)
    return tv.regnet.RegNet(
        BlockParams.from_init_params(depth=3, se_ratio=se_ratio, **widths), 5, stem_width=8
    )


def mobilenet():
    own = [
        (8, 3, 16, 8, True, "RE", 2, 1),
        (8, 5, 24, 12, True, "HS", 2, 1),
        (12, 5, 30, 12, True, "HS", 1, 1),
    ]
    return tv.MobileNetV3([InvertedResidualConfig(*row, 1.0) for row in own], 32, 5)


def efficientnet():
    own = [MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), MBConvConfig(4, 3, 2, 8, 12, 2, 1.0, 1.0)]
    return tv.EfficientNet(own, 0.1, num_classes=5, last_channel=32)


def convnext():
    own = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return tv.ConvNeXt(own, num_classes=5, layer_scale=1.0)


def swin():
    return tv.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [2, 2], num_classes=5)


FAMILIES = {
    "resnet": lambda: tv.ResNet(Bottleneck, [2, 1, 1, 1], 5, width_per_group=16),
    "resnext": resnext,
    "regnet x": lambda: regnet(None),
    "regnet y": lambda: regnet(0.25),
    "densenet": lambda: tv.DenseNet(4, (2, 2), 8, num_classes=5),
    "efficientnet": efficientnet,
    "mobilenet v3": mobilenet,
    "convnext": convnext,
    "repvgg": lambda: nn.Sequential(
        RepBlock(3, 8), RepBlock(8, 8), RepBlock(8, 8), nn.Flatten(), nn.Linear(8192, 4)
    ),
    "shufflenet v2": lambda: tv.ShuffleNetV2([2, 2, 1], [8, 16, 24, 32, 32], 5),
    "vit": ViT,
    "vit of torchvision": lambda: tv.VisionTransformer(32, 8, 2, 4, 24, 40, num_classes=5),
    "swin": swin,
    "mixer": Mixer,
    "llama": Llama,
    "gpt": GPT,
}
IDS = ("llama", "gpt")


def make_family(name):
    """Return a net of a family as after a training, in float64, and an example."""
    torch.manual_seed(0)
    net = settle(FAMILIES[name]())
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():  # heads that begin at zero
                p.normal_(0, 0.1)
    if name in IDS:
        return net, {"input_ids": torch.randint(0, 30, (2, 7))}
    return net, torch.randn(2, 3, 32, 32, dtype=torch.float64)


def half_of(coupling, model, seed):
    """Masks that leave half of the units of every family, rounded down, and one at least."""
    generator, masks = torch.Generator().manual_seed(seed), {}
    for family in coupling.families:
        order = torch.randperm(family.units, generator=generator)
        alive = torch.zeros(family.units, dtype=torch.bool)
        alive[order[: max(1, family.units // 2)]] = True
        for name in family.names:
            W = model.get_parameter(name)
            shape = [-1 if d == family.group_dim else 1 for d in range(W.ndim)]
            each = alive.repeat_interleave(
                W.shape[family.group_dim] // (family.parts * family.units)
            )
            masks[name] = each.repeat(family.parts).view(shape).expand(W.shape).clone()
    return masks
