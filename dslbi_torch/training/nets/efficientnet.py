"""EfficientNet-Lite0: the mobile net of which weights trained on ImageNet can be installed."""

import torch.nn.functional as F
from torch import Tensor, nn

# Width of a stage, its blocks, the stride of the first, kernel, and expansion (Tan and Le 2019)
STAGES = (
    *((16, 1, 1, 3, 1), (24, 2, 2, 3, 6), (40, 2, 2, 5, 6), (80, 3, 2, 3, 6)),
    *((112, 3, 1, 5, 6), (192, 4, 2, 5, 6), (320, 1, 1, 3, 6)),
)


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return pictures with as many zeros around them as TensorFlow's padding "same" adds: the odd
    row and column come last."""
    least = [max(kernel - 1 - (n - 1) % stride, 0) for n in x.shape[:-3:-1]]
    return F.pad(x, [side for n in least for side in (n // 2, n - n // 2)])


class Separable(nn.Module):
    """A depthwise convolution and a 1x1 convolution that mixes its channels."""

    def __init__(self, before, width, stride, kernel):
        super().__init__()
        self.kernel, self.stride, self.adds = kernel, stride, stride == 1 and before == width
        self.conv_dw = _depthwise(before, stride, kernel)
        self.bn1 = _norm(before)
        self.conv_pw = nn.Conv2d(before, width, 1, bias=False)
        self.bn2 = _norm(width)

    def forward(self, x):
        y = F.relu6(self.bn1(self.conv_dw(pad_same(x, self.kernel, self.stride))))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.adds else y


class InvertedResidual(nn.Module):
    """A wide depthwise convolution between two 1x1 convolutions, around it a shortcut where the
    shape stays."""

    def __init__(self, before, width, stride, kernel, expansion):
        super().__init__()
        inner = expansion * before
        self.kernel, self.stride, self.adds = kernel, stride, stride == 1 and before == width
        self.conv_pw = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = _norm(inner)
        self.conv_dw = _depthwise(inner, stride, kernel)
        self.bn2 = _norm(inner)
        self.conv_pwl = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = _norm(width)

    def forward(self, x):
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = F.relu6(self.bn2(self.conv_dw(pad_same(y, self.kernel, self.stride))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 without squeeze-and-excitation and with ReLU6: 4,652,008 parameters.

    Its weights have the names of timm's ``tf_efficientnet_lite0``, the same function; only the
    running statistics follow faster (momentum 0.1 for 0.01), because what begins with trained
    weights is trained for few steps.
    """

    def __init__(self, n_classes=1000, in_channels=3):
        super().__init__()
        self.conv_stem = nn.Conv2d(in_channels, 32, 3, 2, bias=False)
        self.bn1 = _norm(32)
        stages, before = [], 32
        for width, count, stride, kernel, expansion in STAGES:
            blocks = []
            for k in range(count):
                shape = before, width, stride if k == 0 else 1, kernel
                wide = expansion > 1
                blocks.append(InvertedResidual(*shape, expansion) if wide else Separable(*shape))
                before = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(before, 1280, 1, bias=False)
        self.bn2 = _norm(1280)
        self.classifier = nn.Linear(1280, n_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, x):
        x = F.relu6(self.bn1(self.conv_stem(pad_same(x, 3, 2))))
        x = F.relu6(self.bn2(self.conv_head(self.blocks(x))))
        return self.classifier(x.mean((2, 3)))


def _depthwise(width, stride, kernel):
    return nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)


def _norm(width):
    return nn.BatchNorm2d(width, eps=1e-3)
