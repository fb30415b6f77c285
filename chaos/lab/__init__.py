"""A grid in one machine: workstations made of namespaces, a real sshd in each, provable faults.

    with Lab(hosts=3) as lab:
        lab.run("desk", ["rscoop", "run", "--host", "alice", "--host", "bob", str(lab.shared / "ea.py")])
        lab.power_off("bob")

A workstation has its own network, processes, mounts and name: its /tmp, /run and /dev/shm are its own, its
home folder and /var/tmp survive a reboot. Everything else is the machine's, as with a shared file system.
The desk is the host that the launcher runs on: it has an address and a home folder of its own, and the
processes and /tmp of the machine. Nothing of a lab is visible in the machine's own network.

`python -m chaos clean` removes what a lab left whose program was killed.
"""

from chaos.lab.lab import DESK, Lab
from chaos.lab.needs import LabError, missing_needs
from chaos.lab.undo import clean

__all__ = ["DESK", "Lab", "LabError", "clean", "missing_needs"]
