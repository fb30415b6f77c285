"""Messages and journal records: what processes say to one another and to the disk."""
