"""What makes the reference's algorithms fast, one file each.

Here: active sets, Newton steps on them, linear systems, reduced iterations, projections, starts,
gradients along a path, matrices too large to be copied and paths too long to be filled. Not here:
the algorithms themselves, which are read beside the paper and stand one folder above.
"""
