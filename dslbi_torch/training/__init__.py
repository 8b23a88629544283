"""The training laboratory: nets and data of the paper, recipes, and the loop that runs them.

Here: what a run is (``config``, ``recipes``), the command line, and the folders ``run`` (one run),
``data``, ``nets`` and ``experiments`` (several runs, or what comes after one). Not here: anything
that a training loop of one's own needs; that is the library above, which imports nothing from here.
"""
