"""Bridges to other libraries; each module needs its library, which is not a dependency.

Libraries that take a map, an executor or a pool need no bridge: `docs/plugins.md` has a recipe for each.
"""
