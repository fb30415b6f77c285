"""Loops for other libraries; each module needs its library, which is not a dependency."""
