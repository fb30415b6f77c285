"""The journal of a run: LMDB and the files beside it."""
