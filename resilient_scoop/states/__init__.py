"""A checkpoint's state as bytes, and as a newer script's state."""
