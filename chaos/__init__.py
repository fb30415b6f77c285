"""Tests with real processes: runs are killed at random moments, resumed, and checked.

Everything here sees a run as its user does: the command line, standard output, exit codes, the run
folder, `/proc`. `workloads/` holds plain scripts that use only the public API; `nemesis` chooses
kills at random and carries them out; `rounds` starts, kills, resumes; `checker` decides whether the
guarantees held; `cost` measures what a death costs.
"""
