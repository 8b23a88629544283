"""Pictures of paths, sliders over pictures, and the style of the book's figures.

Here: what draws. Not here: anything that computes what is drawn.
"""
