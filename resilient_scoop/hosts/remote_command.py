"""Commands for the shell of another host, whatever shell the user has there.

sshd gives a command to the login shell of the user: bash, zsh, tcsh, fish. So each command is
`exec sh -c '…'`, and the text between the quotes has no character that one of these shells treats in a
way of its own (a quote, a backslash, `!`, a line's end). A text that needs one is written in octal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.hosts.door import Done
from resilient_scoop.hosts.hostfile import Host

PYTHON_PREFIX: Final = "rscoop-python: "
PROLOG_PREFIX: Final = "rscoop-prolog: "
PYTHON_MIN: Final = (3, 11)
_MODULE: Final = "resilient_scoop.processes.entry"
_PLAIN_WORD: Final = re.compile(r"[\w./:@%+=,-]+", re.ASCII)
_SAFE_TEXT: Final = re.compile(r"[^'\\!\x00-\x1f\x7f-\U0010ffff]*")
_FAILS: Final = "does not start: it ends before it says which Python it is"
_SHOWN_CHARS: Final = 200
_VENVS: Final = (".venv/bin/python", "venv/bin/python")

_PROBE: Final = r"""
import json, os, sys
found = {"path": sys.executable, "python": "%d.%d.%d" % sys.version_info[:3], "rscoop": None}
try:
    from resilient_scoop._version import __version__
    found["rscoop"] = __version__
except ImportError:
    pass
except Exception:
    found["why"] = repr(sys.exc_info()[1])[:200]
sys.stdout.write("\nrscoop-python: " + json.dumps(found) + "\n")
"""


class RemoteSettings(msgspec.Struct, frozen=True):
    """The user's settings for the other hosts of a run."""

    python: str = ""  # the interpreter of all hosts without their own `python=`
    script_folder: str = ""  # the folder in which a virtual environment is searched
    launcher_python: str = sys.executable  # tried there too: a shared file system
    prolog: str = ""
    path: str = ""  # the working directory of agents
    nice: int = 0


class FoundPython(msgspec.Struct, frozen=True):
    """One Python of a host, as it describes itself."""

    path: str
    python: str = ""  # "3.11.7"; empty: it could not be started
    rscoop: str | None = None  # the version of our package there
    why: str = ""

    @property
    def version(self) -> tuple[int, ...]:
        """Its version in numbers; empty if it could not be started."""
        return tuple(int(part) for part in re.findall(r"\d+", self.python)[:3])

    @property
    def text(self) -> str:
        """One clause for a message: what it is, and what it lacks."""
        if not self.python:
            return f"{self.path} {self.why or 'is not there'}"
        if self.version < PYTHON_MIN:
            return f"{self.path} is Python {self.python}"
        if self.rscoop is None:
            missing = (
                f"cannot import resilient_scoop ({self.why})"
                if self.why
                else "lacks resilient_scoop"
            )
            return f"{self.path} (Python {self.python}) {missing}"
        return f"{self.path} (Python {self.python}) has resilient_scoop {self.rscoop}"


def candidates(host: Host, settings: RemoteSettings) -> list[str]:
    """Return the Pythons that are searched on a host, the preferred one first.

    If the user has named a Python, it is the only candidate.
    """
    named = host.python or settings.python
    if named:
        return [named]
    folder = settings.script_folder.rstrip("/")
    beside = [f"{folder}/{venv}" for venv in _VENVS] if folder else []
    return list(dict.fromkeys([*beside, settings.launcher_python, "python3"]))


def search_script(host: Host, settings: RemoteSettings) -> str:
    """Return a script for the standard input of `sh` that describes each candidate."""
    prolog = host.prolog or settings.prolog
    lines = []
    if prolog:
        mark = f"printf '\\n{PROLOG_PREFIX}%s\\n' $?"
        lines += [f"trap {_word(mark)} EXIT", *_prolog(prolog)]
        lines += [
            "rscoop_status=$?",
            "test $rscoop_status -eq 0 || exit $rscoop_status",
            "trap - EXIT",
        ]
    for path in candidates(host, settings):
        word = _word(path)
        fails, missing = (f"echo; echo {_word(_not_found(path, why))}" for why in (_FAILS, ""))
        lines += [
            f"if command -v {word} >/dev/null 2>&1",
            f"then {word} -c {_word(_PROBE)} </dev/null || {{ {fails}; }}",
            f"else {missing}",
            "fi",
        ]
    return "\n".join(lines) + "\n"


def search_command(host: Host, settings: RemoteSettings) -> str:
    """Return the command that runs `search_script`."""
    return "exec sh -l" if host.prolog or settings.prolog else "exec sh"


def failed_search(done: Done, host: Host, settings: RemoteSettings) -> str:
    """Return one sentence about a search that named no Python: the prolog or the login shell failed."""
    prolog = host.prolog or settings.prolog
    marks = [line for line in done.lines if line.startswith(PROLOG_PREFIX)]
    rest = " ".join(line for line in done.lines if line not in marks)
    output = " ".join(rest.split())[-_SHOWN_CHARS:].rstrip(".") or "none"
    if not prolog:
        return (
            f"the login shell runs no commands: {_ended(done)}; its output: {output}. Give the account a "
            "shell such as /bin/sh, or correct what its start-up file (.bashrc, .zshenv, config.fish) runs"
        )
    ended = f"the login shell did not come to the end of the prolog `{prolog}`"
    if marks:
        status = marks[-1].removeprefix(PROLOG_PREFIX)
        ended = f"the prolog `{prolog}` ended with exit status {status}"
    return (
        f"{ended}; its output: {output}. Correct it (--prolog, or prolog= in the "
        "hostfile); if its exit status does not matter, append `|| true`"
    )


def _ended(done: Done) -> str:
    if done.status is None:
        return "it was killed by a signal"
    return f"it ended with exit status {done.status}"


def _prolog(text: str) -> list[str]:
    """Return the lines of a prolog, which must not read what is on the standard input for us."""
    if re.fullmatch(r"[\w ./:@%+=,-]+", text, re.ASCII):
        return [f"{{ {text}; }} </dev/null"]
    return ["{", text, "} </dev/null"]


def read_found(lines: Iterable[str]) -> list[FoundPython]:
    """Return the Pythons that a search printed; other lines are noise."""
    found = []
    for line in lines:
        _, prefix, text = line.partition(PYTHON_PREFIX)
        if prefix:
            try:
                found.append(msgspec.json.decode(text, type=FoundPython))
            except (msgspec.MsgspecError, UnicodeError):
                continue
    return found


def usable(found: Sequence[FoundPython]) -> FoundPython | None:
    """Return the first Python that can run an agent, preferably one of our own version."""
    good = [each for each in found if each.rscoop is not None and each.version >= PYTHON_MIN]
    ours = [
        each
        for each in good
        if each.rscoop == __version__ and each.version[:2] == sys.version_info[:2]
    ]
    return next(iter([*ours, *good]), None)


def agent_command(
    python: str, arguments: Sequence[str], host: Host, settings: RemoteSettings
) -> str:
    """Return the command that replaces the shell by our program."""
    prolog = host.prolog or settings.prolog
    words = [python, "-m", _MODULE, "host", *arguments]
    if settings.nice:
        words = ["nice", "-n", str(settings.nice), *words]
    steps = _prolog(prolog) if prolog else []
    if settings.path:
        steps.append(f"cd {_word(settings.path)} || exit 1")
    steps.append("exec " + " ".join(map(_word, words)))
    return shell_command(_joined(steps), is_login=bool(prolog))


def program_command(python: str, host: Host, settings: RemoteSettings) -> str:
    """Return the command that runs a program, which it reads from its standard input."""
    prolog = host.prolog or settings.prolog
    steps = _prolog(prolog) if prolog else []
    return shell_command(_joined([*steps, f"exec {_word(python)} -"]), is_login=bool(prolog))


def _joined(steps: Sequence[str]) -> str:
    """Return the steps in one line, unless one of them has lines of its own."""
    return ("\n" if "{" in steps else "; ").join(steps)


def shell_command(script: str, *, is_login: bool = False) -> str:
    """Return a command that runs a script with `sh`, for any login shell."""
    sh = "exec sh -lc" if is_login else "exec sh -c"
    if _SAFE_TEXT.fullmatch(script):
        return f"{sh} '{script}'"
    octal = "".join(f"\\0{byte:03o}" for byte in script.encode())
    return f"""{sh} 'eval "$(printf %b "{octal}")"'"""


def _word(text: str) -> str:
    """Quote one word for `sh`; a leading `~/` is the home folder, as the user means it."""
    if text.startswith("~/"):
        return f'"$HOME"/{_word(text[2:])}'
    if _PLAIN_WORD.fullmatch(text):
        return text
    if re.fullmatch(r"[^\"$`\\!\n']+", text):
        return f'"{text}"'
    return "'" + text.replace("'", "'\\''") + "'"


def _not_found(path: str, why: str = "") -> str:
    return PYTHON_PREFIX + msgspec.json.encode(FoundPython(path, why=why)).decode()
