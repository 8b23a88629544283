"""The figures of the theory chapters: a file for each chapter, with its curves and what draws them.

Curves are computed by the reference, apart from drawing, so that a test can hold them to the
chapter's formulas.
"""
