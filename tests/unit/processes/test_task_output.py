"""Reading the logs of workers."""

from __future__ import annotations

from pathlib import Path

from resilient_scoop.processes.task_output import TaskLogs


def test_the_output_of_tasks_of_all_hosts_is_sorted_by_time(tmp_path: Path) -> None:
    logs = TaskLogs.start(tmp_path)
    mark = "2026-11-29T17:11:0{}.123Z [{} 0.3[17] evaluate] {}\n"
    (tmp_path / "w1.log").write_text(mark.format(2, "w1", "second") + "by a child\n")
    (tmp_path / "node-1.lab:w1.log").write_text(
        mark.format(1, "node-1.lab:w1", "first") + mark.format(3, "node-1.lab:w1", "third")
    )
    (tmp_path / "broker.log").write_text("not of a task\n")
    (tmp_path / "places.log").write_text("neither\n")
    assert [line.short.decode() for line in logs.new()] == [
        "[node-1.lab:w1 0.3[17] evaluate] first\n",
        "[w1 0.3[17] evaluate] second\n",
        "[w1] by a child\n",
        "[node-1.lab:w1 0.3[17] evaluate] third\n",
    ]
    assert logs.new() == []
