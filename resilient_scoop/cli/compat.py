"""`python -m resilient_scoop`: every `rscoop` command, and SCOOP's command line.

`python -m scoop [options] script.py args` becomes `rscoop run [options] script.py args`. All
options of SCOOP are known: each is translated, ignored with a note, or refused with advice, so that
no job script goes wrong silently.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from resilient_scoop.cli.base import note
from resilient_scoop.cli.main import ALIASES, COMMANDS, main
from resilient_scoop.errors import UsageError

_LOCAL: Final = {"127.0.0.1", "localhost", "::1"}
_NEEDLESS: Final = {
    "-b": 1, "--backend": 1, "--debug": 0, "-v": 0, "-vv": 0, "-vvv": 0, "--verbose": 0,
}  # fmt: skip
"""Options without effect, with the number of their values."""
_REFUSED: Final = {
    "--pythonpath": "set PYTHONPATH before the command instead",
    "--profile": "profile in the script, with cProfile",
}
_SAME: Final = {
    "--hostfile": "--hostfile", "--external-hostname": "--external-address",
    "--python-interpreter": "--python",
}  # fmt: skip
"""Options of SCOOP with another name here, or the same, and one value."""
_RSH: Final = {"--rsh", "--ssh-executable"}
_HOSTS: Final = {"--host", "--hosts"}
_GROUP_OPTIONS: Final = {"-h", "--help", "--version", "--state-dir"}
_JOINED: Final = re.compile(r"(-[nbp])([^=].*)")
"""`-n4`, as in getopt."""


@dataclass(slots=True)
class _Translation:
    options: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    workers: str | None = None
    folder: str | None = None
    niceness: int = 0
    prolog: str | None = None
    grid: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)


def entry(args: Sequence[str]) -> NoReturn:
    """Run `python -m resilient_scoop ARGS`."""
    first = args[0] if args else "--help"
    if first in COMMANDS or first in ALIASES or first in _GROUP_OPTIONS:
        main(args or ["--help"])
    try:
        translated = translate(args)
    except UsageError as error:
        note(str(error))
        raise SystemExit(error.exit_code) from error
    main(translated)


def translate(args: Sequence[str]) -> list[str]:
    """Return the `rscoop run` command line of a SCOOP one; --path and --nice take effect here.

    Raises:
        UsageError: an option without counterpart; the text says what to do instead.
    """
    words = list(args)
    found = _Translation()
    while words and words[0].startswith("-") and words[0] != "--":
        _take(words, found)
    if words and words[0] == "--":
        del words[0]
    workers = [*_workers(found), *_grid(found)]
    if not words:
        raise UsageError("no script is named: python -m resilient_scoop [-n N] script.py [ARGS]...")
    if found.needless:
        note(f"{', '.join(found.needless)}: not needed here, ignored")
    if found.folder is not None:
        os.chdir(Path(found.folder).expanduser())
    if found.niceness:
        os.nice(found.niceness)
    return ["run", *workers, *found.options, *words]


def _take(words: list[str], found: _Translation) -> None:  # noqa: C901, PLR0912 - a case an option
    word = words.pop(0)
    short = _JOINED.fullmatch(word)
    option, joined, value = (short[1], "=", short[2]) if short else word.partition("=")
    values = iter([value] if joined else [])
    match option:
        case "-n":
            found.workers = _value(option, values, words)
        case "-q" | "--quiet":
            found.options.append("--quiet")
        case "-p" | "--path":
            found.folder = _value(option, values, words)
        case "--nice":
            found.niceness = _number(option, _value(option, values, words))
        case "--tunnel":
            found.grid.append("--tunnel")
        case "--prolog":
            found.prolog = _value(option, values, words)
        case _ if option in _RSH:
            _value(option, values, words)
            found.grid += ["--ssh", "system"]
        case _ if option in _SAME:
            found.grid += [_SAME[option], _value(option, values, words)]
        case _ if option in _HOSTS:
            found.hosts += list(values) or _until_option(words)
        case _ if option in _NEEDLESS:
            found.needless.append(option)
            for _ in range(_NEEDLESS[option]):
                _value(option, values, words)
        case _ if option in _REFUSED:
            _refuse(option)
        case _:
            found.options += [option] if not joined else [f"{option}={value}"]


def _value(option: str, values: Iterator[str], words: list[str]) -> str:
    given = next(values, None)
    if given is not None:
        return given
    if not words:
        raise UsageError(f"{option} needs a value")
    return words.pop(0)


def _number(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{option} needs a number, not {text!r}") from error


def _until_option(words: list[str]) -> list[str]:
    """Take words up to the next option, as SCOOP did: a script must follow an option or `--`."""
    taken = []
    while words and not words[0].startswith("-"):
        taken.append(words.pop(0))
    return taken


def _has_others(found: _Translation) -> bool:
    """Return whether other hosts are named."""
    return bool(set(found.hosts) - _LOCAL) or "--hostfile" in found.grid


def _workers(found: _Translation) -> list[str]:
    """Return the number of workers: SCOOP counted each mention of a host as one."""
    if found.workers is not None:
        return ["-n", found.workers]
    if found.hosts and not _has_others(found):
        return ["-n", str(len(found.hosts))]
    return []


def _grid(found: _Translation) -> list[str]:
    """Return the options for other hosts; without any they have no effect, as in SCOOP."""
    if not _has_others(found):
        if found.prolog is not None:
            raise UsageError(
                "--prolog is for other hosts; source the file before the command instead"
            )
        return []
    options = list(found.grid)
    for host, count in Counter(found.hosts).items():
        options += ["--host", host if ":" in host else f"{host}:{count}"]
    if found.prolog is not None:
        options += ["--prolog", f". {shlex.quote(found.prolog)}"]
    if found.niceness:
        options += ["--nice", str(found.niceness)]
    return options


def _refuse(option: str) -> NoReturn:
    raise UsageError(f"{option} is an option of SCOOP that does not exist here; {_REFUSED[option]}")
