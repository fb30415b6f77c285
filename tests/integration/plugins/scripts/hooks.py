"""The common part of the scripts in this folder: their map, pool and executor, and a mark per call.

With `PLUGIN_WAY=builtin` a script gets Python's own map and calls everything in this process. Every
other way must give the same answer.
"""

import builtins
import concurrent.futures
import os
import time
from pathlib import Path

import resilient_scoop

BUILTIN = os.environ.get("PLUGIN_WAY") == "builtin"


def mark():
    """Record which process runs a call, and whether it is the script's; then take some time."""
    if BUILTIN:
        return
    with Path(os.environ["PLUGIN_LEDGER"]).open("a") as ledger:
        is_script = resilient_scoop.IS_ORIGIN or not resilient_scoop.IS_RUNNING
        ledger.write(f"{os.getpid()} {is_script}\n")
    time.sleep(float(os.environ.get("PLUGIN_PAUSE_S", "0")))


def mapper():
    """Return a map."""
    if BUILTIN:
        return builtins.map
    from resilient_scoop import futures

    return futures.map


def pool(processes=2):
    """Return a pool."""
    if BUILTIN:
        return SerialPool(processes)
    from resilient_scoop import Pool

    return Pool(processes)


def executor():
    """Return an executor."""
    if BUILTIN:
        return SerialExecutor()
    from resilient_scoop import Executor

    return Executor(max_workers=2)


def joblib_backend():
    """Return the name of a backend of joblib."""
    if BUILTIN:
        return "sequential"
    from resilient_scoop.contrib import joblib

    joblib.register()
    return "rscoop"


class SerialPool:
    """The part of a pool that libraries use, in this process."""

    def __init__(self, processes):
        self.size = self._processes = processes

    def map(self, function, values, callback=None, chunksize=None):
        results = list(builtins.map(function, values))
        if callback is not None:
            list(builtins.map(callback, results))
        return results

    def imap(self, function, values, chunksize=1):
        return builtins.map(function, values)

    imap_unordered = imap

    def starmap(self, function, rows, chunksize=None):
        return [function(*row) for row in rows]

    def close(self):
        pass

    join = terminate = close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class SerialExecutor(concurrent.futures.Executor):
    """An executor that calls at once, in this process."""

    _max_workers = 2

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future
