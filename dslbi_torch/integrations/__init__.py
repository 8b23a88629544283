"""The record of a path beside the checkpoints of Hugging Face, Lightning and Accelerate.

Here: one module for each, a few lines, which imports the package that it is for; nothing in the
library imports them. Not here: what steers a run. That is in the optimizer's parameter groups, and
comes back with whatever checkpoint keeps the optimizer.
"""
