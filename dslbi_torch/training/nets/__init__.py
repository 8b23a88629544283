"""The nets by name.

Here: layers, and the table of names. Not here: optimizers, data, or what is split.
"""
