"""Data sets by name, in memory or as files.

Here: the table of names, and what is read, downloaded, divided, augmented and dealt out. Not here:
anything that knows of a net.
"""
