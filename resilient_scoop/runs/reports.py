"""Reports of the broker to the launcher: JSON lines over a pipe that may be full or broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.broker.handover import Stage
from resilient_scoop.core.facts.progress import SCRIPT
from resilient_scoop.core.facts.recovery import doubts
from resilient_scoop.counts import counted
from resilient_scoop.runs.display import duration, steps

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.core.facts.progress import ItemProgress, ProgressTable
    from resilient_scoop.core.facts.state import DurableState

REPLAY_PER_S: Final = 50_000
"""Journaled items with small values that a replay reads per second; measured by `benchmarks`."""
_DOUBTS_NAMED_MAX: Final = 3
_MINUTE_S: Final = 60


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The progress of the run; `note` is for the user, `fatal` the exit code of a final report."""

    note: str = ""
    fatal: int = 0
    epoch: int = 0
    done: int = 0
    known: int = 0
    raised: int = 0  # of those done, how many are exceptions
    computed_s: float = 0.0  # seconds of computing, all workers together
    open: bool = False  # more items will follow
    running: int = 0
    workers: int = 0
    crashes: int = 0
    resubmitted: int = 0
    retried: int = 0  # second tries under `retries=`
    recovered: int = 0  # results that the broker found at its start
    reused: int = 0  # how many of them still count
    found_open: int = 0  # items that were not done and not in doubt at the start of the broker
    doubts: int = 0  # idempotent=False items in doubt at that time: they end as WorkerLostError
    doubted: list[str] = []  # the first of them
    covered: int = 0  # of those, items that checkpoints cover: they are not replayed
    output_bytes: int = 0
    batch: str = ""  # the script's last batch that is not done
    batch_done: int = 0
    batch_total: int = -1  # -1: more items may follow
    label: str = ""  # progress of the script, from `futures.progress`
    share: float = -1.0  # total, from the script; -1: unknown
    items: str = ""  # progress of the running items, from `futures.progress`
    ask: int = 0  # the last request for checkpoints that was received
    all_named: bool = False  # all parents with an open block are known
    asked_over: bool = False  # no parent is waited for any more, and what was saved is durable
    named: int = 0  # parents that were asked
    saved: int = 0  # how many of them have saved
    left: int = 0  # how many are waited for, or were late
    whole: bool = False  # it is over, and no process was left out
    agent_quiet_s: int = 0  # seconds of silence of the local agent; 0: it reports
    hosts: dict[str, str] = {}  # the state of each other host (`core.broker.host_life.State`)
    renewals: int = 0  # how often the keys of the run were renewed
    full: str = ""  # processes that wait for disk space
    at_limit: bool = False  # they wait for a higher limit of the file size
    ended: bool = False
    code: int = 0
    failed: bool = False
    message: str = ""


class JournalFindings(msgspec.Struct, frozen=True):
    """What a broker found in the journal at its start."""

    results: int
    in_flight: int
    doubts: list[str]  # items in doubt, each with its function's name

    @classmethod
    def begin(cls, state: DurableState, *, adopt: bool) -> Self:
        """Count the items of a freshly loaded state.

        With workers to adopt, nothing is in doubt, and the last broker has died.
        """
        if adopt:
            state.tally.died()
        doubted = [] if adopt else [f"{path} ({name})" for path, name in doubts(state)]
        in_flight = state.items_known - state.items_done - len(doubted)
        return cls(state.items_done, in_flight, doubted)


def _batch(state: DurableState, path: str, batch: Batch) -> str:
    """Return, for display, the path of a batch and the name of its function."""
    define = state.defines.get(batch.pieces[-1].fn) if batch.pieces else None
    if define is None:
        return ids.batch_path(path, batch.call)
    name = define.options.name or define.name.rpartition(":")[2]
    return f"{ids.batch_path(path, batch.call)} {name}"


def _items(batch: Batch) -> int:
    return batch.done.count() + batch.undone.count()


def script_text(word: ItemProgress) -> str:
    """Return the script's progress, with its own label."""
    return f"{word.label or 'script'} {steps(word.done, word.total)}"


def items_text(table: ProgressTable) -> str:
    """Return the progress of the running items as a short text; empty if unknown."""
    texts = []
    running = [
        (place, i, k) for place, b in table.batches.items() if place != SCRIPT for i, k in b.items()
    ]
    if len(running) == 1:
        (path, call), index, only = running[0]
        texts.append(f"{ids.item_path(path, call, index)} {steps(only.done, only.total)}")
    elif running:
        shares = [k.done / k.total for _, _, k in running if k.total]
        mean = f" at {100 * sum(shares) / len(shares):.0f} %" if shares else ""
        texts.append(f"{len(running)} items{mean}")
    return ", ".join(texts)


def broker_report(
    broker: Broker,
    found: JournalFindings,
    output_bytes: int,
    *,
    ask: int,
    asked_over: bool,
    agent_quiet_s: int = 0,
) -> Report:
    """Return a report; `output_bytes` of the script's output are on disk."""
    state, ended, handover = broker.state, broker.ended, broker.handover
    root = state.parents.get("0")
    batches = [] if root is None else list(root.batches.values())
    workers, tally = broker.scheduler.workers, state.tally.counts
    last = batches[-1] if batches else None
    items = items_text(state.progress)
    if len(batches) > 1 and batches[-1].last and _items(batches[-1]) == 1:
        # Batches of one item each: the progress of the last one says nothing about the others.
        last, items = None, ", ".join([f"{len(batches)} batches open", *filter(None, [items])])
    script = next(iter(state.progress.batches.get(SCRIPT, {}).values()), None)
    work = [*tally.functions.values()]
    work += [each for parent in state.parents.values() for each in parent.work.values()]
    return Report(
        epoch=broker.epoch,
        done=state.items_done,
        known=state.items_known,
        open=any(not batch.last for batch in batches),
        running=sum(peer.items for peer in workers.values()),
        workers=len(workers),
        raised=sum(each.failed for each in work),
        computed_s=sum(each.spent_s for each in work),
        crashes=tally.crashes,
        resubmitted=tally.resubmitted,
        retried=tally.retried,
        recovered=found.results,
        reused=broker.ledger.reused.count,
        found_open=found.in_flight,
        doubts=len(found.doubts),
        doubted=found.doubts[:_DOUBTS_NAMED_MAX],
        covered=tally.gone + sum(each.dropped_items for each in state.parents.values()),
        output_bytes=output_bytes,
        batch=_batch(state, ids.ROOT, last) if last else "",
        batch_done=last.done.count() if last else 0,
        batch_total=_items(last) if last and last.last else -1,
        label="" if script is None else script_text(script),
        share=script.done / script.total if script is not None and script.total else -1.0,
        items=items,
        ask=ask,
        all_named=handover.stage in (Stage.WAITING, Stage.OVER),
        asked_over=asked_over,
        named=handover.named,
        saved=handover.saved,
        left=handover.left,
        whole=handover.is_whole,
        agent_quiet_s=agent_quiet_s,
        ended=ended is not None,
        code=0 if ended is None else ended.code,
        failed=ended is not None and ended.failed,
        message="" if ended is None else ended.message,
    )


def resuming(run_id: str, report: Report) -> list[str]:
    """Return the first message of a resume, from its broker's first report: what it found."""
    took = duration(max(0, report.recovered - report.covered) / REPLAY_PER_S + 0.5)
    found = (
        f"resuming run {run_id}: {counted(report.recovered, 'result')} recovered, "
        f"{report.found_open} in flight; "
        f"the replay takes about {took}, and the time of the script's own code"
    )
    if not report.doubts:
        return [found]
    first, more = report.doubted[0].partition(" ")[0], report.doubts - len(report.doubted)
    named = ", ".join(report.doubted) + (f" and {more} more" if more else "")
    are, ends = ("It is", "ends") if report.doubts == 1 else ("They are", "end")
    doubt = (
        f"{report.doubts} in doubt, started and without an outcome: {named}. {are} idempotent=False, so "
        f"not started again, and {ends} with WorkerLostError. If you know what happened to one, stop the "
        "run and record it: "
        f"rscoop resolve {run_id} '{first}' --again | --done JSON"
    )
    return [found, doubt]


def started(run_id: str, title: str, workers: int, hosts: int = 0) -> str:
    """Return the first line of a run whose progress is not drawn; `workers` 0: not known yet."""
    who = [counted(workers, "worker")] if workers else ["all cores"]
    who += [f"of {counted(hosts, 'host')}"] if hosts else []
    return (
        f"run {run_id}: {title} on {' '.join(who)}; to watch it elsewhere: rscoop attach {run_id}"
    )


def finished(
    run_id: str,
    report: Report,
    took_s: float,
    workers: int = 0,
    computed_s: float = 0.0,
    ran_s: float | None = None,
) -> str:
    """Return the last line of a run whose script has ended.

    `took_s` and `computed_s` are for this launcher, `ran_s` is for all launchers of the run.
    """
    took = f"{took_s:.1f} s" if took_s < _MINUTE_S else duration(took_s)
    if ran_s is not None and ran_s >= took_s + 1:
        took += f" ({duration(ran_s)} in all)"
    parts = [counted(report.done, "result")]
    if report.raised:
        parts.append(f"{report.raised} of them failed")
    if report.reused:
        parts.append(f"{report.reused} from the journal")
    if report.retried:
        parts.append(counted(report.retried, "retry", "retries"))
    if report.crashes:
        crashes = counted(report.crashes, "crash", "crashes")
        parts.append(f"{report.resubmitted or 'nothing'} resubmitted after {crashes}")
    if workers and computed_s > 0 and took_s >= 1:
        share = round(min(100.0, 100 * computed_s / (workers * took_s)))
        if share:
            parts.append(f"{counted(workers, 'worker')} {share} % busy")
    text = ", ".join(parts)
    if report.failed:
        again = " (--retry-failed: compute failed calls again)" if report.raised else ""
        return (
            f"run {run_id} failed after {took}: {report.message}; {text}; to run the script again with "
            f"its results: rscoop resume {run_id}{again}"
        )
    ended = f"ended with exit code {report.code} after" if report.code else "finished in"
    more = f"rscoop failures {run_id}" if report.raised else f"rscoop status {run_id}"
    return f"run {run_id} {ended} {took}: {text}; more: {more}"
