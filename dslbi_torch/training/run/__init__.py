"""One run: from a config to a finished run folder.

Here: how a run is set up, its optimizer, loop, processes, checkpoints, evaluation, report and
folder. Not here: what several runs make together, which is
:mod:`dslbi_torch.training.experiments`.
"""
