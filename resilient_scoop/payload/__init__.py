"""Values, functions and exceptions as bytes, and the large ones as files."""
