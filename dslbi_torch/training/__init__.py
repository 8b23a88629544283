"""The training laboratory: nets and data of the paper, recipes, and the loop that runs them.

Here: what a run is (``config``, ``recipes``), the command line (``flags``, ``commands``), and the
folders ``run`` (one run), ``experiments`` (several runs, or what comes after one), ``nets`` and
``data``. Not here: anything that a training loop of one's own needs; that is the library above,
which imports nothing from here.
"""
