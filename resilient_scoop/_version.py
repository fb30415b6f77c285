"""The version, read by the build and by `rscoop version`."""

from __future__ import annotations

__version__ = "0.1.0"
