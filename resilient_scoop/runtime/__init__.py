"""The loops that hold a machine and its adapters together."""
