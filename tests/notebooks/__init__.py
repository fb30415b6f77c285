"""Notebooks, executed as Jupyter executes them; needs the dependency group `notebooks`."""
