"""One run: from a config to a finished run folder.

Here: the loop, its optimizer, checkpoints, evaluation and report. Not here: what several runs make
together, which is :mod:`dslbi_torch.training.experiments`.
"""
