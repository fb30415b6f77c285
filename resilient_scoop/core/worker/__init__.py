"""What a worker holds and owes."""
