"""The rules of the operations that combine no channels; what has none keeps all it is given."""

import torch

from . import moving_rules as moving
from . import plain_rules as plain

aten = torch.ops.aten

RULES = {
    aten.view.default: moving.viewed,
    aten._unsafe_view.default: moving.viewed,
    aten._reshape_alias.default: moving.viewed,
    aten.reshape.default: moving.viewed,
    aten.permute.default: moving.permuted,
    aten.transpose.int: moving.transposed,
    aten.t.default: moving.transposed,
    aten.unsqueeze.default: moving.unsqueezed,
    aten.squeeze.default: moving.squeezed,
    aten.squeeze.dim: moving.squeezed,
    aten.squeeze.dims: moving.squeezed,
    aten.expand.default: moving.expanded,
    aten.select.int: moving.selected,
    aten.unbind.int: moving.unbound,
    aten.slice.Tensor: moving.sliced,
    aten.split.Tensor: moving.parted,
    aten.split_with_sizes.default: moving.parted,
    aten.cat.default: moving.concatenated,
    aten.constant_pad_nd.default: moving.padded,
    aten.roll.default: moving.rolled,
    aten.flip.default: moving.flipped,
    aten.repeat.default: moving.repeated,
    aten.index.Tensor: moving.indexed,
    aten.embedding.default: moving.embedded,
    aten.linalg_vector_norm.default: plain.norm_of,
    aten.native_channel_shuffle.default: moving.shuffled,
    aten.channel_shuffle.default: moving.shuffled,
    aten.pixel_shuffle.default: moving.unshuffled,
    aten.copy_.default: moving.copied,
    aten.as_strided_.default: moving.strided,
    **dict.fromkeys((aten._prelu_kernel.default, aten.prelu.default), plain.pointwise),
    **{
        op: plain.reduced
        for op in (
            *(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default),
            *(aten.var.correction, aten.std.correction, aten.var_mean.correction),
            *(aten.max.dim, aten.min.dim, aten.logsumexp.default, aten.any.dim, aten.all.dim),
        )
    },
    **dict.fromkeys(
        (aten._softmax.default, aten._log_softmax.default, aten.cumsum.default), plain.along
    ),
    **{
        op: plain.same
        for op in (
            *(aten._to_copy.default, aten.detach.default, aten.alias.default),
            *(aten.lift_fresh.default, aten.fill_.Scalar, aten.zero_.default),
            *(aten.hardswish.default, aten.hardswish_.default, aten.native_dropout.default),
            *(aten.hardtanh.default, aten.hardtanh_.default, aten.fill.Scalar),
        )
    },
    **{
        op: plain.free
        for op in (
            *(aten.empty.memory_format, aten.zeros.default, aten.ones.default, aten.full.default),
            *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default),
            *(aten.new_empty.default, aten.scalar_tensor.default),
        )
    },
    **{
        op: plain.pooled(2)
        for op in (
            *(aten.max_pool2d_with_indices.default, aten.avg_pool2d.default),
            *(aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default),
            *(aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec),
            *(aten.upsample_bilinear2d.default, aten.upsample_bilinear2d.vec),
            *(aten.upsample_bicubic2d.default, aten.upsample_bicubic2d.vec),
            *(aten._upsample_nearest_exact2d.default, aten._upsample_bilinear2d_aa.default),
            *(aten.reflection_pad2d.default, aten.replication_pad2d.default),
        )
    },
    **{
        op: plain.pooled(1)
        for op in (
            *(aten.reflection_pad1d.default, aten.replication_pad1d.default),
            *(aten.upsample_nearest1d.default, aten.upsample_linear1d.default),
        )
    },
    **{
        op: plain.pooled(3)
        for op in (
            *(aten.max_pool3d_with_indices.default, aten.avg_pool3d.default),
            *(aten._adaptive_avg_pool3d.default, aten.reflection_pad3d.default),
            *(aten.replication_pad3d.default, aten.upsample_nearest3d.default),
        )
    },
}
