"""Journals of earlier versions, which every later one opens and resumes (see `make`)."""
