"""What makes the reference's algorithms fast, one file each.

Here: active sets, linear systems, reduced iterations, projections. Not here: the algorithms
themselves, which are read beside the paper and stand one folder above.
"""
