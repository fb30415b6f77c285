"""The broker's process: its loop, its disk, and its door for agents of other hosts."""
