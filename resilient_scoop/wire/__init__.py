"""Messages between processes, and records of the journal."""
