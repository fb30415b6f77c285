"""Texts of the places' messages to the user."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, assert_never

from resilient_scoop.core import places
from resilient_scoop.counts import counted
from resilient_scoop.runs.display import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED_MAX: Final = 5
_LOG_LINES: Final = 5


def text_of(note: places.Note, run_id: str) -> str:  # noqa: PLR0911 - one text each
    """Return the text of a note."""
    match note:
        case places.NeverCame() | places.UnitEnded():
            return _ended(note)
        case places.CannotTell(host=host, why=why):
            return f"host {host} cannot be reached: {reason_of(host, why)}; it is tried again"
        case places.Came(host=host):
            return f"host {host} is connected"
        case places.Quarantined():
            return (
                f"host {note.host} was lost {counted(note.times, 'time')} within "
                f"{duration(places.FLAP_S)}: no agent is started there for {duration(note.seconds)}. "
                "Nothing is lost: other hosts take over its items"
            )
        case places.Unreached(host=host, has_come=True):
            return (
                f"the agent of host {host} is running, but the broker has had no message from it for "
                f"{duration(places.REACH_S)}: the network between them is cut, or the agent is stopped. "
                "Nothing is lost: other hosts take over its items; the host continues when it is connected"
            )
        case places.Unreached(host=host):
            return (
                f"the agent of host {host} has been running for {duration(places.REACH_S)} and has not "
                f"reached the broker: a firewall between {host} and this host is likely; name an address "
                "that it can reach with --external-address, or send all traffic through SSH with --tunnel"
            )
        case places.TooFew():
            return (
                f"{note.have} of at least {counted(note.wanted, 'host')} (--min-hosts) connected; missing: "
                f"{named(note.missing)}; the run stops in {duration(note.rest_s)}"
            )
        case places.Unnamed(host=host):
            return (
                f"host {host} is no longer one of the run's hosts; an agent of this run that is still "
                "there ends by itself"
            )
        case places.NotStopped(hosts=hosts):
            return (
                f"it is not known whether the agents of {named(hosts)} have ended; those that still run "
                f"end by themselves. To see them: rscoop hosts {run_id}"
            )
        case _:
            assert_never(note)


_UNSAID: Final = "the reason is not known"


def _ended(note: places.NeverCame | places.UnitEnded) -> str:
    what = "could not be started" if isinstance(note, places.NeverCame) else "has lost its agent"
    text = f"host {note.host} {what}: {reason_of(note.host, note.why)}"
    if note.again_s < inf:
        again = f"in {duration(note.again_s)}" if note.again_s >= 1.0 else "at once"
        text += f"; it is tried again {again}"
    lines = [line for line in note.log.splitlines() if line.strip()][-_LOG_LINES:]
    return "\n".join([text, *(f"    {line}" for line in lines)])


def reason_of(host: str, why: str) -> str:
    """Return the reason that a place reports for a host; the text follows the host's name."""
    return why.removeprefix(f"{host}: ") or _UNSAID


def given_up(action: places.GiveUp, run_id: str) -> str:
    """Return the text for a run that too few hosts have joined."""
    return (
        f"the run stops: {action.have} of at least {counted(action.wanted, 'host')} (--min-hosts) "
        f"connected; missing: {named(action.missing)}. Nothing is lost: correct the cause (`rscoop hosts "
        f"{run_id}` shows it), or lower --min-hosts, then `rscoop resume {run_id}`"
    )


def named(hosts: Sequence[str]) -> str:
    """Return names for a sentence, the first few of many."""
    more = len(hosts) - _NAMED_MAX
    return ", ".join(hosts[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
