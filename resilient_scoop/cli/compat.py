"""`python -m resilient_scoop`: every `rscoop` command, and SCOOP's command line.

`python -m scoop [options] script.py args` becomes `rscoop run [options] script.py args`. All
options of SCOOP are known: each is translated, ignored with a note, or refused with advice, so that
no job script goes wrong silently.
"""

from __future__ import annotations

import os
import re
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
    "--external-hostname": 1,
}  # fmt: skip
"""Options without effect, with the number of their values."""
_REFUSED: Final = {
    "--hostfile": "remote hosts",
    "--rsh": "remote hosts",
    "--ssh-executable": "remote hosts",
    "--tunnel": "remote hosts",
    "--pythonpath": "set PYTHONPATH before the command instead",
    "--prolog": "source the file before the command instead",
    "--python-interpreter": "start with that interpreter: PYTHON -m resilient_scoop ...",
    "--profile": "profile in the script, with cProfile",
}
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
    workers = _workers(found)
    if not words:
        raise UsageError("no script is named: python -m resilient_scoop [-n N] script.py [ARGS]...")
    if found.needless:
        note(f"{', '.join(found.needless)}: not needed here, ignored")
    if found.folder is not None:
        os.chdir(Path(found.folder).expanduser())
    if found.niceness:
        os.nice(found.niceness)
    return ["run", *workers, *found.options, *words]


def _take(words: list[str], found: _Translation) -> None:
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


def _workers(found: _Translation) -> list[str]:
    remote = sorted(set(found.hosts) - _LOCAL)
    if remote:
        _refuse(f"--host {' '.join(remote)}")
    if found.workers is not None:
        return ["-n", found.workers]
    return ["-n", str(len(found.hosts))] if found.hosts else []


def _refuse(option: str) -> NoReturn:
    advice = _REFUSED.get(option.partition(" ")[0], "remote hosts")
    if advice == "remote hosts":
        raise UsageError(f"{option}: this version runs on one host; start it there with -n N")
    raise UsageError(f"{option} is an option of SCOOP that does not exist here; {advice}")
