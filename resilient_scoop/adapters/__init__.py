"""Adapters to other libraries and system calls, one file each."""
