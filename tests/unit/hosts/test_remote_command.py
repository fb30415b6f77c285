"""Commands for the shell of another host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_scoop._version import __version__
from resilient_scoop.hosts.door import Done
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.remote_command import (
    FoundPython,
    RemoteSettings,
    agent_command,
    candidates,
    failed_search,
    program_command,
    read_found,
    search_command,
    search_script,
    shell_command,
    usable,
)

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "tcsh", "fish") if shutil.which(shell)]
TEXTS = [
    "plain",
    'it\'s "quoted" `twice` $HOME',
    "back\\slash \\n \\\\ \\'",
    "bang! !! !$ 100 % %d %s",
    "two\nlines\tand ümlaut ✓",
    "a; b & c | d > e < f # g ~ * ? [x] {y,z} (p) ^",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_login_shell_runs_a_script_like_sh(shell: str, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    command = shell_command(f"printf %s {quoted}")
    done = subprocess.run([shell, "-c", command], capture_output=True, check=True)
    assert done.stdout.decode() == text


def test_a_plain_command_is_readable() -> None:
    command = agent_command(
        "/opt/bin/python3", ["run1", "t1", "--find"], Host("a"), RemoteSettings()
    )
    expected = (
        "exec sh -c 'exec /opt/bin/python3 -m resilient_scoop.processes.entry host run1 t1 --find'"
    )
    assert command == expected


def test_prolog_path_and_nice_come_before_the_command() -> None:
    settings = RemoteSettings(prolog="module load python", path="~/my work", nice=5)
    command = agent_command("python3", ["r", "t"], Host("a"), settings)
    assert command == (
        'exec sh -lc \'{ module load python; } </dev/null; cd "$HOME"/"my work" || exit 1; '
        "exec nice -n 5 python3 -m resilient_scoop.processes.entry host r t'"
    )


def searched(prolog: str) -> tuple[list[FoundPython], str]:
    """Run a search with a prolog; return what was found, or why nothing was."""
    host, settings = Host("a", prolog=prolog), RemoteSettings(launcher_python=sys.executable)
    done = subprocess.run(
        ["sh", "-c", search_command(host, settings)], input=search_script(host, settings),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    found = read_found(done.stdout.splitlines())
    return found, failed_search(Done(done.returncode, done.stdout), host, settings)


@pytest.mark.parametrize(
    ("prolog", "status", "output"),
    [
        ("exit 3", 3, "none"),
        ("false", 1, "none"),
        ("printf 'no such module' >&2; (exit 4)", 4, "no such module"),
        ("set -e; false; true", 1, "none"),
        ("if then", 2, "unexpected"),
    ],
)
def test_a_prolog_that_fails_is_named_with_its_exit_status(
    prolog: str, status: int, output: str
) -> None:
    found, why = searched(prolog)
    assert found == []
    assert f"`{prolog}` ended with exit status {status}; its output: " in why
    assert output in why
    assert "|| true" in why


@pytest.mark.parametrize(
    "prolog", ["X=1 # comment", "X=1;", "sleep 0 &", "cat", "false || true", "set -u", "X='a b'"]
)
def test_a_prolog_may_end_as_any_line_of_a_shell_and_reads_nothing_of_ours(prolog: str) -> None:
    found, _ = searched(prolog)
    assert usable(found) is not None
    settings = RemoteSettings(prolog=prolog)
    command = program_command("cat", Host("a"), settings).replace("exec cat -", "exec cat")
    done = subprocess.run(
        ["sh", "-c", command], input="ticket", capture_output=True, text=True, check=True
    )
    assert done.stdout == "ticket"


def test_a_start_up_file_that_ends_the_login_shell_is_named_with_its_exit_status() -> None:
    why = failed_search(Done(7, ""), Host("a"), RemoteSettings())
    assert "ended with exit status 7; its output: none" in why
    assert "start-up file" in why


def test_an_account_that_ends_before_its_prolog_is_named() -> None:
    host, settings = Host("a", prolog="module load x"), RemoteSettings()
    why = failed_search(Done(1, "This account is currently not available.\n"), host, settings)
    assert "did not come to the end of the prolog `module load x`" in why
    assert "not available" in why


def test_the_prolog_of_a_host_replaces_that_of_the_run() -> None:
    host = Host("a", prolog="echo own", python="/own/python")
    settings = RemoteSettings(prolog="echo common", python="/common/python")
    assert "echo own" in search_script(host, settings)
    assert "common" not in search_script(host, settings)
    assert search_command(host, settings) == "exec sh -l"
    assert search_command(Host("a"), RemoteSettings()) == "exec sh"


def test_pythons_are_searched_beside_the_script_then_at_the_path_of_the_launcher_s_own() -> None:
    settings = RemoteSettings(script_folder="/home/ann/ea", launcher_python="/usr/bin/python3.11")
    assert candidates(Host("a"), settings) == [
        "/home/ann/ea/.venv/bin/python", "/home/ann/ea/venv/bin/python", "/usr/bin/python3.11", "python3",
    ]  # fmt: skip


def test_a_named_python_is_the_only_candidate() -> None:
    settings = RemoteSettings(python="/common/python", script_folder="/x")
    assert candidates(Host("a"), settings) == ["/common/python"]
    assert candidates(Host("a", python="~/own"), settings) == ["~/own"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_search_finds_this_python_and_names_missing_ones(shell: str) -> None:
    settings = RemoteSettings(script_folder="/no where/it's", launcher_python=sys.executable)
    done = subprocess.run(
        [shell, "-c", search_command(Host("a"), settings)],
        input=search_script(Host("a"), settings), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = read_found(done.stdout.splitlines())
    assert [each.path for each in found[:2]] == [
        "/no where/it's/.venv/bin/python", "/no where/it's/venv/bin/python",
    ]  # fmt: skip
    assert found[0].text.endswith("is not there")
    best = usable(found)
    assert best is not None
    assert best.rscoop == __version__
    assert best.version == sys.version_info[:3]


def test_a_python_that_reads_its_input_does_not_consume_the_search(tmp_path: Path) -> None:
    greedy = tmp_path / "greedy"
    greedy.write_text(f'#!/bin/sh\ncat >/dev/null\nexec {sys.executable} "$@"\n')
    greedy.chmod(0o755)
    settings = RemoteSettings(script_folder="/nowhere", launcher_python=str(greedy))
    done = subprocess.run(
        ["sh", "-c", search_command(Host("a"), settings)],
        input=search_script(Host("a"), settings), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(read_found(done.stdout.splitlines())) == len(candidates(Host("a"), settings))


def test_a_python_that_fails_is_reported_as_such(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n")
    broken.chmod(0o755)
    host = Host("a", python=str(broken))
    done = subprocess.run(
        ["sh", "-c", search_command(host, RemoteSettings())],
        input=search_script(host, RemoteSettings()), capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = read_found(done.stdout.splitlines())
    assert found.text == f"{broken} does not start: it ends before it says which Python it is"
    assert usable([found]) is None


def test_noise_around_an_answer_is_ignored() -> None:
    lines = ["Welcome", 'noise rscoop-python: {"path": "/p"}', "rscoop-python: nonsense", ""]
    assert read_found(lines) == [FoundPython("/p")]


def test_a_python_of_our_own_version_is_preferred() -> None:
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}.9"
    old, bare, other, same = (
        FoundPython("old", "3.9.1", __version__),
        FoundPython("bare", minor, None),
        FoundPython("other", "3.99.0", __version__),
        FoundPython("same", minor, __version__),
    )
    assert usable([old, bare, other, same]) == same
    assert usable([old, bare, other]) == other
    assert usable([old, bare]) is None


def test_a_package_that_cannot_be_imported_is_reported_with_the_reason() -> None:
    found = FoundPython("/p", "3.11.2", None, "SyntaxError('bad')")
    assert found.text == "/p (Python 3.11.2) cannot import resilient_scoop (SyntaxError('bad'))"
