"""Sparse weights and Gamma in place of the dense weights, within a block."""

import pytest
import torch
from on_path import trained_filters
from one_tensor import group_gamma, split_tensors

from dslbi_torch import gamma_weights, sparse_weights, support_masks


def test_sparse_and_gamma_weights_swap_and_restore():
    net, optimizer, _, _ = trained_filters()
    masks = support_masks(optimizer)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    with sparse_weights(optimizer):
        for name, p in net.named_parameters():
            expected = before[name] * masks[name] if name in masks else before[name]
            torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)
    with gamma_weights(optimizer):
        for _, W, V, group in split_tensors(optimizer):
            torch.testing.assert_close(W.detach(), group_gamma(V, group), rtol=0, atol=0)
    for context in (sparse_weights, gamma_weights):
        with pytest.raises(KeyError, match="stop"), context(optimizer):
            raise KeyError("stop")
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), before[name], rtol=0, atol=0)
