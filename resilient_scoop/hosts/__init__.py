"""Places: where agents of a run are started on other hosts (SSH, hostfiles), and checks of hosts."""
