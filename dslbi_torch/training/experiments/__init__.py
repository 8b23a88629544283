"""What is made of several runs, or after one: sweeps, tickets, growing, pruning and cutting.

Here: one file a command. Not here: the run itself, which is :mod:`dslbi_torch.training.run`.
"""
