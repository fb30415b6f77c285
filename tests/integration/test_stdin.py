"""The script's standard input: each byte is read once in the life of a run, whichever process dies."""

from __future__ import annotations

import hashlib
import os
import pty
import random
import signal
import subprocess
import termios
import time
from typing import Final

import pytest

from tests.integration.runs import RSCOOP, Place, finish, wait_until

pytestmark = pytest.mark.real


def fed(place: Place, stdin: bytes, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Run `rscoop ARGS` with bytes on its standard input."""
    done = subprocess.run(
        [*RSCOOP, *args], input=stdin, cwd=place.folder, env=place.env(), capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    place.assert_nothing_left()
    return done


DYING: Final = """
import os, sys
from resilient_scoop import futures
def double(x): return 2 * x
if __name__ == "__main__":
    for number, line in enumerate(iter(sys.stdin.buffer.raw.readline, b"")):
        mark = f"died{number}"
        if number % 2 and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), 9)
        print(number, futures.submit(double, int(line)).result())
"""


def test_no_input_line_is_lost_or_repeated_when_the_script_dies_after_reading_it(
    place: Place,
) -> None:
    place.write(DYING)
    done = fed(place, b"".join(b"%d\n" % x for x in range(10)), "run", "-q", "-n", "1", "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [f"{x} {2 * x}" for x in range(10)]
    assert len(list(place.folder.glob("died*"))) == 5


def test_a_resumed_script_reads_its_earlier_input_and_then_the_present_input(place: Place) -> None:
    place.write("""
        import os, sys
        if __name__ == "__main__":
            print("hello", input("who? "))
            first = [sys.stdin.readline() for _ in range(3)]
            if not os.path.exists("go"): raise SystemExit(5)
            print(first, sys.stdin.readlines())
            try: input()
            except EOFError as error: print(error)
    """)
    done = fed(place, b"Ada\n1\n2\n3\nahead\n", "run", "-q", "-n", "1", "script.py")
    assert done.returncode == 5, done.stderr
    assert done.stdout == b"who? hello Ada\n"
    (place.folder / "go").touch()
    done = fed(place, "grüße\n".encode(), "resume", "-q", "last")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "['1\\n', '2\\n', '3\\n'] ['ahead\\n', 'grüße\\n']",
        "EOF when reading a line",
    ]


def test_an_end_of_file_is_repeated_after_a_resume(place: Place) -> None:
    place.write("""
        import os, sys
        if __name__ == "__main__":
            print(repr(sys.stdin.read()))
            if not os.path.exists("go"): raise SystemExit(5)
            print(repr(sys.stdin.read()))
    """)
    assert fed(place, b"abc", "run", "-q", "-n", "1", "script.py").returncode == 5
    (place.folder / "go").touch()
    assert fed(place, b"more", "resume", "-q", "last").stdout == b"'more'\n"
    assert fed(place, b"", "logs", "last").stdout == b"'abc'\n'more'\n"


def test_megabytes_of_binary_input_arrive_complete_despite_deaths_of_script_and_broker(
    place: Place,
) -> None:
    place.write("""
        import hashlib, os, signal, sys
        from resilient_scoop import futures
        def brokers():
            run = os.environ["RSCOOP_RUN_ID"].encode() + b"-"
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try: words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
                except OSError: continue
                if b"broker" in words and any(word.startswith(run) for word in words): yield int(pid)
        if __name__ == "__main__":
            found, count = hashlib.sha256(), 0
            while data := sys.stdin.buffer.read(100_000):
                found.update(data)
                count += 1
                mark = f"mark{count}"
                if count in (3, 11, 30) and not os.path.exists(mark):
                    open(mark, "w").close()
                    (pid,) = brokers() if count == 11 else [os.getpid()]
                    os.kill(pid, 9)
            print(found.hexdigest())
    """)
    data = random.Random(1).randbytes(5_000_000)
    done = fed(place, data, "run", "-q", "-n", "1", "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == hashlib.sha256(data).hexdigest() + "\n"
    assert {path.name for path in place.folder.glob("mark*")} == {"mark3", "mark11", "mark30"}


@pytest.mark.parametrize(
    ("redirection", "says"),
    [
        ("< data", "'1\\n2\\n'"),
        ("< /dev/null", "''"),
        ("<&-", "''"),
        ("<<< word", "'word\\n'"),
    ],
)
def test_standard_input_of_any_kind_behaves_as_with_python(
    place: Place, redirection: str, says: str
) -> None:
    (place.folder / "data").write_text("1\n2\n")
    place.write("""
        import sys
        if __name__ == "__main__":
            print(repr(sys.stdin.read()))
    """)
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "-", *RSCOOP, "run", "-q", "-n", "1", "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    place.assert_nothing_left()
    assert (done.returncode, done.stdout) == (0, f"{says}\n"), done.stderr


def test_unread_input_is_left_to_other_processes(place: Place) -> None:
    place.write("print('not reading')")
    done = subprocess.run(
        ["bash", "-c", '"$@"; cat', "-", *RSCOOP, "run", "-q", "-n", "1", "script.py"],
        cwd=place.folder, env=place.env(), input="rest\n", capture_output=True, text=True,
        timeout=40, check=False,
    )  # fmt: skip
    assert done.stdout == "not reading\nrest\n", done.stderr


def test_a_detached_run_has_no_input(place: Place) -> None:
    place.write("""
        try: input("who? ")
        except EOFError: print("no one")
    """)
    done = place.rscoop("run", "-q", "-n", "1", "--detach", "script.py", stdin="Ada\n")
    done.expect()
    wait_until(lambda: place.status()["state"] == "finished")
    assert place.rscoop("logs", "last").expect() == "who? no one\n"
    place.assert_nothing_left()


def test_a_script_that_continues_from_a_checkpoint_reads_the_next_line(place: Place) -> None:
    place.write("""
        import os, sys
        from resilient_scoop import checkpoint, futures
        def square(x): return x * x
        if __name__ == "__main__":
            count = int(input())
            with checkpoint.durable(done=[], total=0) as state:
                while len(state.done) < count:
                    line = sys.stdin.readline()
                    state.total += sum(futures.map(square, map(int, line.split())))
                    state.done.append(line.strip())
                    state.commit()
                    for stop in (3, 5):
                        if len(state.done) == stop and not os.path.exists(f"go{stop}"):
                            open(f"go{stop}", "w").close()
                            if stop == 3: os.kill(os.getpid(), 9)
                            raise SystemExit(5)
            print(state.done, state.total, repr(sys.stdin.read()))
    """)
    lines = [f"{x} {x + 1}" for x in range(8)]
    stdin = "\n".join(["8", *lines, "rest", ""]).encode()
    done = fed(place, stdin, "run", "-q", "-n", "1", "script.py")
    assert done.returncode == 5, done.stderr
    done = fed(place, b"", "resume", "-q", "last")
    assert done.returncode == 0, done.stderr
    total = sum(x * x + (x + 1) ** 2 for x in range(8))
    assert done.stdout.decode() == f"{lines} {total} 'rest\\n'\n"


def test_a_replay_without_workers_gets_the_input_that_the_script_read(place: Place) -> None:
    place.write("""
        import os, sys
        from resilient_scoop import futures
        if __name__ == "__main__":
            for line in sys.stdin: print(futures.submit(len, line).result())
            if not os.path.exists("go"): raise SystemExit(5)
            print(input("more? "))
    """)
    assert fed(place, b"a\nbb\n", "run", "-q", "-n", "1", "script.py").returncode == 5
    assert fed(place, b"", "replay", "last").returncode == 0
    (place.folder / "go").touch()
    assert fed(place, b"unheard", "replay", "last").returncode == 1  # it requests more than before
    assert fed(place, b"yes\n", "resume", "-q", "last").stdout == b"more? yes\n"
    assert fed(place, b"", "replay", "last").returncode == 0


class Terminal:
    """A run on a separate terminal."""

    def __init__(self, place: Place, *args: str) -> None:
        self.fd, theirs = pty.openpty()
        settings = termios.tcgetattr(theirs)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        self.seen = self.output = b""
        self.process = subprocess.Popen(
            [*RSCOOP, *args], stdin=theirs, stdout=theirs, stderr=theirs, cwd=place.folder,
            env=place.env(), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self.fd, False)

    def wait_for(self, text: str) -> None:
        """Read until the terminal shows a text."""

        def shown() -> bool:
            try:
                new = os.read(self.fd, 1 << 16)
                self.seen, self.output = self.seen + new, self.output + new
            except BlockingIOError:
                pass
            except OSError:  # the other end is closed: this is all
                time.sleep(0.05)
            return text.encode() in self.seen

        wait_until(shown, 20, lambda: f"no {text!r} in {self.seen!r}")
        self.seen = self.seen.partition(text.encode())[2]

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.fd, text.encode())

    def ends(self) -> int:
        """Return the exit code."""
        code = self.process.wait(20)
        os.close(self.fd)
        return code


ASKING: Final = """
import sys
if __name__ == "__main__":
    assert sys.stdin.isatty()
    name = input("name? ")
    age = input(f"age of {name}? ")
    print(f"{name} is {age}")
    print(sys.stdin.read().upper(), "end")
"""


def test_questions_answered_at_a_terminal_are_not_asked_again(place: Place) -> None:
    place.write(ASKING)
    terminal = Terminal(place, "run", "-q", "-n", "1", "script.py")
    terminal.wait_for("name? ")
    terminal.type("Ada\n")
    terminal.wait_for("age of Ada? ")
    os.kill(terminal.process.pid, signal.SIGKILL)
    terminal.ends()
    wait_until(lambda: not place.processes())

    terminal = Terminal(place, "resume", "-q", "last")
    terminal.wait_for("the script continues to read from this terminal (age of Ada?)")
    terminal.type("36\n")
    terminal.wait_for("Ada is 36")
    assert b"name?" not in terminal.output
    terminal.type("x\ny\n\x04")
    terminal.wait_for("X\r\nY\r\n end")
    assert terminal.ends() == 0
    place.assert_nothing_left()


def test_a_run_that_waits_for_an_answer_can_be_stopped(place: Place) -> None:
    place.write(ASKING)
    terminal = Terminal(place, "run", "-q", "-n", "1", "script.py")
    terminal.wait_for("name? ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("rscoop resume")
    assert terminal.ends() == 130
    place.assert_nothing_left()
    process = place.start("resume", "-q", "last", stdin=subprocess.PIPE)
    assert "AssertionError" in finish(process).err  # no terminal this time


def test_a_fork_reads_the_recorded_input_of_its_source_and_then_its_own(place: Place) -> None:
    place.write("""
        import sys
        from resilient_scoop import futures
        def double(x): return 2 * x
        if __name__ == "__main__":
            for number in range(3):
                print(number, futures.submit(double, int(sys.stdin.readline() or -1)).result())
    """)
    done = place.rscoop("run", "-q", "script.py", stdin="1\n2\n3\n")
    assert done.expect().split() == ["0", "2", "1", "4", "2", "6"]
    place.rscoop("fork", "last", "--at", "0.1", "--name", "side").expect()
    text = (place.folder / "script.py").read_text()
    (place.folder / "script.py").write_text(text.replace("range(3)", "range(4)"))
    forked = place.rscoop("resume", "side", "-q", stdin="7\n")
    assert forked.expect().split() == ["0", "2", "1", "4", "2", "6", "3", "14"]
