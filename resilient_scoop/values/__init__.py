"""The parts of Python values and of user code: attributes, names, files and source text."""
