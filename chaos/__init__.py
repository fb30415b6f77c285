"""Proof with real processes: runs are killed at drawn moments, resumed, and checked.

Everything here sees a run as its user does: the command line, standard output, exit codes, the run
folder, `/proc`. `workloads/` holds plain scripts that use only the public API; `nemesis` draws and
carries out kills; `rounds` starts, kills, resumes; `checker` says whether the guarantees held;
`cost` measures what a death costs.
"""
