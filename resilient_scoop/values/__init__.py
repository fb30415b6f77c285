"""What Python values and the user's code are made of: their parts, names, files and source text."""
