"""What is made of several runs, or after one: sweeps, tickets, growing, pruning and cutting.

Here: one file for each command, and beside it what only this command needs. Not here: the run
itself, which is :mod:`dslbi_torch.training.run`.
"""
