"""A worker: imports the script and runs tasks."""
