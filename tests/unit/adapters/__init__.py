"""Tests of `resilient_scoop.adapters`."""
