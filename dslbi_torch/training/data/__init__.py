"""Data sets by name, in memory or as files.

Here: what is read, divided, augmented and dealt out. Not here: anything that knows of a net.
"""
