"""Pictures of paths, sliders over pictures, widgets, and the style of the book's figures.

Here: what draws. Not here: anything that computes what is drawn, but the scripts of the widgets,
which compute in the page and are held to the reference.
"""
