"""Models that change their shape: cut, widened, folded, and checked to compute the same.

Here: what makes new layers out of old ones, which layers must change together, what it costs and
saves, and the files of cut models. Not here: masks, which leave shapes alone, in
:mod:`dslbi_torch.masks`.
"""
