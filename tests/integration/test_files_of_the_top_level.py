"""Files that the script's top level opens, makes and removes: a worker's import leaves them whole."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.integration.killed import kill_all
from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

DIES = """
    import os, time
    def die_once():
        if not os.path.exists("died"):
            open("died", "w").close()
            time.sleep(0.1)
            os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("mode", ["w", "a", "x", "w+"])
def test_lines_of_script_and_tasks_are_all_in_the_file(place: Place, mode: str) -> None:
    place.write(DIES, "dies.py")
    done = place.run(f"""
        import dies
        from resilient_scoop import futures
        OUT = open("results.txt", "{mode}")
        OUT.write("top\\n")
        def work(x):
            if x == 3:
                dies.die_once()
            OUT.write(f"task {{x}}\\n")
            return x
        if __name__ == "__main__":
            for i in range(3):
                OUT.write("header\\n")
                OUT.flush()
            for x in futures.map(work, range(6)):
                OUT.write(f"script {{x}}\\n")
            OUT.close()
    """)
    done.expect()
    found = sorted((place.folder / "results.txt").read_text().splitlines(keepends=True))
    tasks = [each for each in found if each.startswith("task")]
    assert sorted(set(tasks)) == [f"task {x}\n" for x in range(6)], "some of them ran twice"
    own = sorted([*(f"script {x}\n" for x in range(6)), *["header\n"] * 3, "top\n"])
    assert [each for each in found if each not in tasks] == own


def test_rows_of_a_csv_writer_are_all_in_the_file(place: Place) -> None:
    done = place.run("""
        import csv
        from resilient_scoop import futures
        FILE = open("rows.csv", "w", newline="")
        ROWS = csv.writer(FILE)
        ROWS.writerow(["x", "task"])
        def work(x):
            ROWS.writerow([x, x * x])
            return x
        if __name__ == "__main__":
            for x in futures.map(work, range(5)):
                ROWS.writerow([x, "script"])
            FILE.close()
            print(sorted(open("rows.csv").read().split()))
    """)
    rows = [f"{x},{what}" for x in range(5) for what in ("script", x * x)]
    assert done.expect().strip() == str(sorted(["x,task", *rows]))


def test_functions_that_code_keeps_during_the_import_mean_the_built_in_ones(place: Place) -> None:
    done = place.run("""
        import os
        from io import open as io_open
        from resilient_scoop import futures
        def work(x, opener=open, remove=os.remove, kill=os.kill, write=os.write):
            with opener(f"file{x}", "w") as file:
                file.write("text")
            with io_open(f"file{x}", "w") as file:
                file.write("other")
            remove(f"file{x}")
            return x
        class Held:
            opener, make, kill = open, os.mkdir, os.kill
            def work(self, x):
                with Held.opener(f"held{x}", "w") as file:
                    file.write("text")
                return x
        TABLE = {"open": open, "kill": os.kill, "run": os.posix_spawn}
        def by_table(x):
            TABLE["open"](f"table{x}", "w").close()
            return x
        if __name__ == "__main__":
            print([list(futures.map(each, range(3))) for each in (work, Held().work, by_table)])
            print(sorted(each for each in os.listdir(".") if each[-1] in "012"))
    """)
    assert done.expect().splitlines() == [
        "[[0, 1, 2], [0, 1, 2], [0, 1, 2]]",
        "['held0', 'held1', 'held2', 'table0', 'table1', 'table2']",
    ]


def test_a_log_file_of_the_script_has_the_records_of_all_processes_once(place: Place) -> None:
    place.write(DIES, "dies.py")
    place.run("""
        import logging
        import dies
        from resilient_scoop import futures
        logging.basicConfig(filename="run.log", filemode="w", level=logging.INFO, format="%(message)s")
        logging.getLogger("late").addHandler(logging.FileHandler("late.log", "w", delay=True))
        logging.info("top")
        def work(x):
            if x == 3:
                dies.die_once()
            logging.info("task %d", x)
            logging.getLogger("late").info("late %d", x)
            return x
        if __name__ == "__main__":
            logging.info("begin")
            list(futures.map(work, range(6)))
            logging.info("end")
    """).expect()
    whole = (place.folder / "run.log").read_text().splitlines()
    late = [f"late {x}" for x in range(6)]
    assert set(whole) == {"begin", "end", "top", *late, *(f"task {x}" for x in range(6))}
    assert [each for each in whole if each[:4] not in ("task", "late")] == ["top", "begin", "end"]
    assert set((place.folder / "late.log").read_text().splitlines()) == set(late)


def test_what_the_top_level_removes_and_makes_is_removed_and_made_once(place: Place) -> None:
    place.write(DIES, "dies.py")
    done = place.run("""
        import json, os, pathlib, shutil, tempfile, time
        import dies
        from resilient_scoop import futures
        shutil.rmtree("out", ignore_errors=True)
        os.mkdir("out")
        pathlib.Path("old").unlink(missing_ok=True)
        with open("params.json", "w") as file:
            json.dump({"pid": os.getpid(), "at": time.time()}, file)
        with open("draft", "w") as file:
            file.write(str(os.getpid()))
        os.replace("draft", "final")
        with open("starts", "a") as file:
            file.write("started\\n")
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "a").write_text("x")
        LEFT = os.path.exists(folder)
        def work(x):
            if x == 3:
                dies.die_once()
            pathlib.Path("out", str(x)).write_text("done")
            return LEFT
        if __name__ == "__main__":
            pathlib.Path("old").write_text("made by the script")
            print(any(futures.map(work, range(6))), sorted(os.listdir("out")), os.path.exists("old"))
            print(json.load(open("params.json"))["pid"] == os.getpid() == int(open("final").read()))
            print(open("starts").read().split())
    """)
    assert done.expect().splitlines() == [
        "False ['0', '1', '2', '3', '4', '5'] True",
        "True",
        "['started']",
    ]


@pytest.mark.parametrize("times", range(3))
def test_a_folder_that_the_top_level_makes_is_made_by_the_script_first(
    place: Place, times: int
) -> None:
    done = place.run("""
        import os
        import numpy
        from resilient_scoop import futures
        os.mkdir("out")
        open("out/first", "x").close()
        if __name__ == "__main__":
            print(sum(futures.map(abs, range(5))))
    """)
    assert done.expect() == "10\n"


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError(3)"])
def test_workers_do_not_wait_for_a_script_that_ends_in_its_top_level(
    place: Place, end: str
) -> None:
    path = place.write(f"""
        import os, sys
        os.mkdir(f"own-{{os.getpid()}}")
        {end}
    """)
    began = time.monotonic()
    place.rscoop("run", "-q", "-n", "2", path.name).expect(3 if "exit" in end else 1)
    assert time.monotonic() - began < 8, "an agent waits 10 s for a worker that does not end"


def test_a_script_without_a_guard_is_refused_at_once_although_it_makes_a_folder(
    place: Place,
) -> None:
    done = place.run("""
        import os
        from resilient_scoop import futures
        os.makedirs("out", exist_ok=True)
        open("made", "w").close()
        print(sum(futures.map(abs, range(5))))
    """)
    assert "add the guard" in done.err


def test_a_memory_map_of_numpy_is_shared_and_is_not_emptied(place: Place) -> None:
    place.write(DIES, "dies.py")
    done = place.run("""
        import numpy as np
        import dies
        from resilient_scoop import futures
        DATA = np.memmap("data", dtype=float, mode="w+", shape=6)
        def work(x):
            if x == 3:
                dies.die_once()
            DATA[x] = max(DATA[x], x + 1.5)
            return x
        if __name__ == "__main__":
            DATA[5] = 10.0
            DATA.flush()
            list(futures.map(work, range(6)))
            print(np.fromfile("data").tolist())
    """)
    assert done.expect() == "[1.5, 2.5, 3.5, 4.5, 5.5, 10.0]\n"


def test_records_at_chosen_places_of_a_binary_file_are_all_there(place: Place) -> None:
    done = place.run("""
        import struct
        from resilient_scoop import futures
        OUT = open("records", "wb")
        def work(x):
            OUT.seek(8 * x)
            OUT.write(struct.pack("d", x + 0.5))
        if __name__ == "__main__":
            list(futures.map(work, range(6)))
            OUT.close()
            print(struct.unpack("6d", open("records", "rb").read()))
    """)
    assert done.expect() == "(0.5, 1.5, 2.5, 3.5, 4.5, 5.5)\n"


def test_a_lock_of_a_file_that_the_top_level_opens_holds_between_workers(place: Place) -> None:
    done = place.run("""
        import fcntl, os, time
        from resilient_scoop import futures
        LOCK = open("lock", "w")
        def work(x):
            fcntl.flock(LOCK, fcntl.LOCK_EX)
            number = int(open("count").read())
            time.sleep(0.002)
            with open("count", "w") as file:
                file.write(str(number + 1))
            fcntl.flock(LOCK, fcntl.LOCK_UN)
            return os.getpid()
        if __name__ == "__main__":
            with open("count", "w") as file:
                file.write("0")
            pids = set(futures.map(work, range(100)))
            print(len(pids), open("count").read())
    """, workers=3)  # fmt: skip
    assert done.expect() == "3 100\n"


def test_an_archive_of_the_script_is_whole_and_tasks_are_refused(place: Place) -> None:
    place.write(DIES, "dies.py")
    done = place.run("""
        import bz2, gzip, tarfile, zipfile
        import dies
        from resilient_scoop import futures
        Z = zipfile.ZipFile("o.zip", "w")
        G = gzip.open("o.gz", "wt")
        B = bz2.open("o.bz2", "wb")
        T = tarfile.open("o.tar", "w")
        def work(x):
            if x == 3:
                dies.die_once()
            return x
        def zipped(x):
            Z.writestr("a", "b")
        def zip_text(x):
            G.write("b")
        if __name__ == "__main__":
            Z.writestr("first", "1"); G.write("1"); B.write(b"1"); T.add("dies.py")
            print(sum(futures.map(work, range(6))))
            for function in (zipped, zip_text):
                try:
                    futures.submit(function, 1).result()
                except Exception as error:
                    print(type(error).__name__, "a task cannot write to it" in str(error))
            for each in (Z, G, B, T):
                each.close()
            print(zipfile.ZipFile("o.zip").namelist(), gzip.open("o.gz").read(), bz2.open("o.bz2").read())
            print(tarfile.open("o.tar").getnames())
    """)
    assert done.expect().splitlines() == [
        "15",
        "MeaningError True",
        "MeaningError True",
        "['first'] b'1' b'1'",
        "['dies.py']",
    ]


def test_an_open_file_is_where_the_script_is_in_it(place: Place) -> None:
    (place.folder / "data").write_text("a,b\n1,2\n3,4\n5,6\n")
    done = place.run("""
        import csv, io, tempfile
        from resilient_scoop import futures
        TEXT, BYTES, BOTH = open("data"), open("data", "rb"), open("both", "w+")
        READER, ROWS = csv.reader(open("data")), csv.DictReader(open("data"))
        OWN, CLOSED = tempfile.TemporaryFile(), open("data")
        def text(x): return TEXT.readline()
        def bytes_(x): return BYTES.read(3)
        def both(x): return BOTH.read(4)
        def reader(x): return next(READER)
        def rows(x): return next(ROWS)
        def own(x): return OWN.read()
        def closed(x): return CLOSED.read()
        def show(*functions):
            for each in functions:
                try:
                    print(each.__name__, futures.submit(each, 0).result())
                except Exception as error:
                    print(each.__name__, type(error).__name__)
        if __name__ == "__main__":
            show(text, bytes_, reader, rows, closed)
            TEXT.seek(0); BYTES.seek(0)
            TEXT.readline(), TEXT.readline(), BYTES.read(4)
            for each in (READER, ROWS):
                next(each), next(each), next(each)
            BOTH.write("both of it"); BOTH.seek(5)
            OWN.write(b"own"); OWN.seek(0)
            CLOSED.close()
            show(text, bytes_, both, reader, rows, own, closed)
    """)
    assert done.expect().splitlines() == [
        "text a,b", "", "bytes_ b'a,b'", "reader ['a', 'b']", "rows {'a': '1', 'b': '2'}",
        "closed a,b", "1,2", "3,4", "5,6", "",
        "text 3,4", "", "bytes_ b'1,2'", "both of i", "reader MeaningError", "rows MeaningError",
        "own MeaningError", "closed MeaningError",
    ]  # fmt: skip


def test_looking_at_a_run_leaves_its_files_whole(place: Place) -> None:
    path = place.write("""
        import os, time
        from resilient_scoop import futures
        OUT = open("results.txt", "w")
        def work(x):
            while x == 4:
                time.sleep(0.1)
            return x
        if __name__ == "__main__":
            OUT.write("header\\n")
            OUT.flush()
            list(futures.map(work, range(6)))
    """)
    process = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: bool(place.runs()) and place.status().get("done") == 5)
    kill_all(place)
    finish(process)
    path.write_text(path.read_text().replace("return x", "return x + 1"))
    for command in (["resume", "--dry-run"], ["resume"], ["replay", "0.0[1]"]):
        place.rscoop(*command)
        assert (place.folder / "results.txt").read_text() == "header\n", command


def test_sessions_leave_files_whole(place: Place) -> None:
    place.write("""
        import os, time
        from resilient_scoop import Executor
        OUT = open("results.txt", "w")
        def work(x):
            OUT.write(f"task {x}\\n")
            return x
        if __name__ == "__main__":
            OUT.write("header\\n")
            OUT.flush()
            with Executor(max_workers=2) as executor:
                list(executor.map(work, range(4)))
            OUT.write("end\\n")
            OUT.close()
    """)
    subprocess.run(
        [sys.executable, "script.py"], cwd=place.folder, env=place.env(), timeout=60, check=True
    )
    found = sorted((place.folder / "results.txt").read_text().split("\n"))
    assert found == ["", "end", "header", *(f"task {x}" for x in range(4))]
