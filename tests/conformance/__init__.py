"""Tests of other projects over our interfaces, imported from where they are installed."""
