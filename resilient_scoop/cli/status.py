"""`rscoop status`: show the state of one run, from its journal, live or not."""

from __future__ import annotations

import time
from typing import Final, assert_never

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    run_argument,
    size,
    utc,
)
from resilient_scoop.cli.tables import GAP, Column, fit, folded, width_here
from resilient_scoop.counts import counted
from resilient_scoop.runs import decisions
from resilient_scoop.runs.audit_findings import Finding, read_findings
from resilient_scoop.runs.counting import ReplayStatus
from resilient_scoop.runs.display import duration, steps
from resilient_scoop.runs.executing import processes
from resilient_scoop.runs.folder import LauncherInfo, RunDir, RunInfo
from resilient_scoop.runs.hosts import HostRow, host_rows, read_hosts, read_live_hosts
from resilient_scoop.runs.json_text import one_line
from resilient_scoop.runs.lifetimes import ran_s
from resilient_scoop.runs.status import (
    BatchStatus,
    FunctionStatus,
    ItemStatus,
    RunState,
    RunStatus,
    read_status,
    state_of,
)
from resilient_scoop.runs.troubles import troubles


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of the user about results of changed code."""

    function: str
    keep: bool
    results: int  # 0 if the replay found them
    decided_at: str


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Durations in seconds, instants in RFC 3339, sizes in bytes."""

    schema: int
    id: str
    name: str | None
    state: RunState
    exit_code: int | None
    message: str | None
    script: str | None
    module: str | None
    in_process: bool  # a session of a program
    argv: list[str]
    cwd: str
    created_at: str
    seed: int
    workers: int
    launcher: LauncherInfo | None
    done: int
    total_known: int
    in_flight: int
    failed: int
    batches: list[BatchStatus]
    items: list[ItemStatus]
    functions: list[FunctionStatus]
    batches_done: int
    crashes: int
    resubmitted: int
    retried: int
    computed_s: float
    ran_s: float | None  # how long the run has been running, all resumes together
    output_bytes: int
    journal_bytes: int
    audit: list[Finding]
    folder: str
    replays: list[ReplayStatus]
    decisions: list[DecisionReport]  # on results of changed code; the last one of each change
    troubles: list[str]  # what blocks a live run
    hosts: list[HostRow]  # all but the run's own


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop status                          the newest run
    watch -n 2 rscoop status k3x0q7am
    rscoop status --json | jq .state
""",
)
@run_argument
@json_option
def command(*, run: RunDir, as_json: bool) -> None:
    """Show the figures of RUN, and what to do next.

    The command only reads: it does not slow the run down, and also works on runs that have ended.
    """
    info = run.load()
    status = read_status(run, info)
    report = report_of(run, info, status)
    if as_json:
        print_json(report)
    else:
        age = duration(time.time() - info.created_at)  # noqa: TID251 - for display
        click.echo("\n".join(folded("\n".join(_lines(report, info, age)))))


def report_of(run: RunDir, info: RunInfo, status: RunStatus) -> StatusReport:
    """Return the report of a run."""
    ended = status.ended
    state = state_of(run, ended)
    over = (
        ended if state is not RunState.RUNNING else None
    )  # otherwise it belongs to an earlier launcher
    return StatusReport(
        schema=SCHEMA,
        id=run.id,
        name=info.name,
        state=state,
        exit_code=over.code if over else None,
        message=over.message or None if over else None,
        script=info.script,
        module=info.module,
        in_process=info.in_process,
        argv=info.argv,
        cwd=info.cwd,
        created_at=utc(info.created_at),
        seed=info.seed,
        workers=info.workers,
        launcher=run.holder(),
        done=status.done,
        total_known=status.total_known,
        in_flight=status.in_flight,
        failed=status.failed,
        batches=list(status.batches),
        items=list(status.items),
        functions=list(status.functions),
        batches_done=status.batches_done,
        crashes=status.crashes,
        resubmitted=status.resubmitted,
        retried=status.retried,
        computed_s=status.computed_s,
        ran_s=ran_s(run.path, time.time() if state is RunState.RUNNING else None),  # noqa: TID251 - ages are for display
        output_bytes=status.output_bytes,
        journal_bytes=status.journal_bytes,
        audit=read_findings(run.logs),
        folder=str(run.path),
        replays=list(status.replays),
        decisions=[
            DecisionReport(
                function=each.title, keep=each.keep, results=each.results,
                decided_at=utc(each.decided_at),
            )
            for each in decisions.load(run.path).values()
        ],
        troubles=troubles(run, processes(run.key(info))) if state is RunState.RUNNING else [],
        hosts=host_rows(read_hosts(run.path), read_live_hosts(run.path), time.time()),  # noqa: TID251 - ages are for display
    )  # fmt: skip


def _lines(report: StatusReport, info: RunInfo, age: str) -> list[str]:
    name = f" ({report.name})" if report.name else ""
    failed = f" ({report.failed} failed)" if report.failed else ""
    counts = f"{report.done}/{report.total_known} done{failed}, {report.in_flight} not yet"
    ran = "" if report.ran_s is None else f" in {duration(report.ran_s)}"
    lines = [
        f"run {report.id}{name}: {_state(report)}",
        f"  script    {info.command}",
        f"  started   {report.created_at} ({age} ago) on {info.host} in {one_line(report.cwd)}",
        f"  items     {counts}; {counted(report.batches_done, 'batch', 'batches')} complete",
        f"  workers   {_workers(report)}",
        f"  computed  {duration(report.computed_s)} of work{ran}",
        f"  journal   {size(report.journal_bytes)} in {one_line(report.folder)}",
    ]
    if report.crashes:
        lines.append(
            f"  crashes   {report.crashes}, {counted(report.resubmitted, 'item')} resubmitted"
        )
    if report.retried:
        lines.append(f"  retries   {report.retried}")
    lines += [_host_line(each) for each in report.hosts if report.state is RunState.RUNNING]
    lines += [f"  waits     {each}" for each in report.troubles]
    lines += _function_lines(report.functions)
    lines += [f"  {each.text}" for each in report.audit]
    lines += [_batch_line(batch) for batch in report.batches]
    lines += [_item_line(item) for item in report.items]
    lines += [_replay_line(each) for each in report.replays if report.state != RunState.FINISHED]
    lines += [_decision_line(each) for each in report.decisions]
    return [*lines, f"  next      {_advice(report)}"]


_THERE: Final = frozenset({"up", "draining"})


def _workers(report: StatusReport) -> str:
    """Return the number of workers, here and on other hosts."""
    if not report.hosts:
        return str(report.workers)
    return f"{report.workers} here, {_elsewhere(report.hosts, is_live=report.launcher is not None)}"


def _elsewhere(hosts: list[HostRow], *, is_live: bool) -> str:
    """Return the workers of other hosts; while the run is live, only of connected hosts."""
    there = [
        each.workers for each in hosts if each.workers and (not is_live or each.state in _THERE)
    ]
    named = counted(len(hosts), "other host")
    which = named if len(there) == len(hosts) else f"{len(there)} of {named}"
    return f"{sum(there)} on {which}"


def _host_line(host: HostRow) -> str:
    """Return the known values of a host."""
    parts = [one_line(host.state)]
    if host.workers is not None:
        parts.append(f"{counted(host.workers, 'worker')}, {host.busy} busy")
    if host.rate:
        parts.append(f"{host.rate:.1f}/s")
    if host.rtt_ms is not None:
        parts.append(f"{host.rtt_ms:.1f} ms away")
    if host.heard_s is not None:
        parts.append(f"heard {duration(host.heard_s)} ago")
    if host.slack_s:
        parts.append(f"lost in {duration(host.slack_s)}")
    if host.lost_items:
        parts.append(f"{counted(host.lost_items, 'item')} taken over")
    if host.at_risk_s:
        parts.append(f"{duration(host.at_risk_s)} of work at risk")
    if host.why:
        parts.append(one_line(host.why))
    return f"  host      {one_line(host.name)}: {', '.join(parts)}"


_COLUMNS: Final = (
    Column("function", is_cut=True),
    Column("done", is_right=True),
    Column("failed", is_right=True),
    Column("mean", is_right=True, rank=1),
    Column("total", is_right=True, rank=2),
)
_FUNCTIONS_SHOWN_MAX: Final = 20


def _function_lines(functions: list[FunctionStatus]) -> list[str]:
    """Return the table of functions; times are those of measured calls, without parents."""
    if not functions:
        return []
    cells = [
        (each.name, str(each.done), str(each.failed), _mean(each), _time(each.spent_s))
        for each in functions[:_FUNCTIONS_SHOWN_MAX]
    ]
    width = width_here()
    _, lines = fit(_COLUMNS, cells, None if width is None else width - 2)
    more = len(functions) - _FUNCTIONS_SHOWN_MAX
    rest = [f"  and {counted(more, 'more function')}: --json"] if more > 0 else []
    return [f"  {GAP.join(line).rstrip()}" for line in lines] + rest


def _mean(each: FunctionStatus) -> str:
    count = each.done + each.failed
    return _time(each.spent_s / count) if count else "-"


def _time(seconds: float) -> str:
    if seconds >= 100 or not seconds:  # noqa: PLR2004 - three digits are enough
        return duration(seconds) if seconds else "-"
    for unit, size_s in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size_s:
            return f"{seconds / size_s:.3g}{unit}"
    return "0s"


def _batch_line(batch: BatchStatus) -> str:
    total = batch.total if batch.whole else f"{batch.total}+"
    return f"  batch     {batch.path} {batch.name}: {batch.done}/{total}"


def _item_line(item: ItemStatus) -> str:
    label = f"{item.label} " if item.label else ""
    keeps = ", continues from there" if item.keeps else ""
    return f"  item      {item.path} {item.name}: {label}{steps(item.done, item.total)}{keeps}"


def _replay_line(replay: ReplayStatus) -> str:
    return (
        f"  replay    {replay.path} has {counted(replay.results, 'result')} to replay when it starts again "
        f"({size(replay.size_bytes)}): a block of checkpoint.durable would keep that short"
    )


def _decision_line(each: DecisionReport) -> str:
    count = counted(each.results, "result") if each.results else "results"
    be = "is" if each.results == 1 else "are"
    what = "kept" if each.keep else "computed again"
    return f"  decided   {each.function}: {count} of changed code {be} {what} ({each.decided_at})"


def _state(report: StatusReport) -> str:
    if report.launcher is not None:
        return f"{report.state} (launcher {report.launcher.pid} on {report.launcher.host})"
    if report.exit_code is None:
        return str(report.state)
    message = f": {report.message}" if report.message else ""
    return f"{report.state}, exit code {report.exit_code}{message}"


def _advice(report: StatusReport) -> str:
    match report.state:
        case RunState.RUNNING:
            return f"rscoop attach {report.id}   (rscoop cancel {report.id} stops it)"
        case RunState.FINISHED:
            return f"rscoop logs {report.id}   shows its output"
        case RunState.FAILED:
            return f"rscoop failures {report.id}; then rscoop resume --retry-failed {report.id}"
        case RunState.STOPPED if report.in_process:
            again = "; with retry_failed=True, it computes failed calls again"
            return (
                f"run the program again: it opens the session {report.name} by its name"
                f"{again if report.failed else ''}"
            )
        case RunState.STOPPED:
            return f"rscoop resume {report.id}"
        case RunState.DAMAGED | RunState.NEWER:
            return f"rscoop journal verify {report.id}"
        case _:
            assert_never(report.state)
