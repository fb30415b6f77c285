"""The script's own process: its input, output and end."""
