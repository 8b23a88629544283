"""A LayerNorm that counts the channels that were cut from it."""

import torch
from torch import Tensor, nn


class WholeLayerNorm(nn.LayerNorm):
    """Normalise channels by the mean and the variance of a width of which some were cut.

    A channel that is always zero still counts: of a width D with the channels S left,
    ``mean = sum_S x / D`` and ``var = (sum_S (x - mean)^2 + sum_gone (c - mean)^2) / D``, where c
    is the constant that a channel was. A LayerNorm of what is left would have others.

    Parameters
    ----------
    left : int
        Channels that are left.
    whole : int
        Channels that the net was trained with.
    gone, squares : float
        Sum of the constants that the cut channels were, and of their squares.
    axis : int
        Along which the channels lie: -1, or 1.
    """

    def __init__(self, left, whole, gone=0.0, squares=0.0, axis=-1, eps=1e-5, bias=True):
        super().__init__(left, eps=eps, bias=bias)
        self.whole, self.gone, self.squares, self.axis = whole, gone, squares, axis

    @classmethod
    def of(cls, norm: nn.LayerNorm, whole: int, values, axis: int):
        """Return the norm that takes the place of one that was cut, given the constants."""
        known = float(values.sum()), float((values**2).sum())
        new = cls(len(norm.weight), whole, *known, axis, norm.eps, norm.bias is not None)
        new.weight, new.bias, new.training = norm.weight, norm.bias, norm.training
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels, normalised, scaled and shifted."""
        x = x.movedim(self.axis, -1)
        mean = (x.sum(-1, keepdim=True) + self.gone) / self.whole
        rest = self.squares - 2 * mean * self.gone + (self.whole - x.shape[-1]) * mean**2
        x = x - mean
        var = ((x**2).sum(-1, keepdim=True) + rest) / self.whole
        x = x * torch.rsqrt(var + self.eps) * self.weight
        return (x if self.bias is None else x + self.bias).movedim(-1, self.axis)

    def extra_repr(self):
        """Return the sizes as text."""
        return f"{super().extra_repr()}, whole={self.whole}, axis={self.axis}"
