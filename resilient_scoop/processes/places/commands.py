"""Commands of the launcher to the places: JSON lines on standard input.

    {"agent": HOST, "is": "came" | "lost" | "left"}   what the broker sees of the agent of a host
    {"host": HOST, "is": "drained" | "revoked"}       a host that is not to be used again
    {"renew": true}                                   keys were renewed: agents need new tickets
    {"stop": SECONDS}                                 the run ends

"came" is repeated for each linked agent when the places are started again, and "lost" only if no agent
of the host is linked any more. End of file means that the launcher has ended.
"""

from __future__ import annotations

import msgspec

from resilient_scoop.core import places


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line; exactly one of `agent`, `host`, `renew`, `stop` is given."""

    agent: str = ""
    host: str = ""
    what: str = msgspec.field(default="", name="is")
    renew: bool = False
    stop: float | None = None


def event_of(line: bytes, jitter: float) -> places.Event | None:  # noqa: PLR0911 - a command each
    """Return the event that a line means; None for `renew`, which does not concern the machine.

    Raises: msgspec.MsgspecError: it is not a command.
    """
    command = msgspec.json.decode(line, type=Command)
    match command.what:
        case "" if command.renew:
            return None
        case "" if command.stop is not None:
            return places.EndUnits(command.stop)
        case "came" if command.agent:
            return places.AgentCame(command.agent)
        case "lost" if command.agent:
            return places.AgentLost(command.agent, jitter)
        case "left" if command.agent:
            return places.AgentLeft(command.agent, jitter)
        case "drained" if command.host:
            return places.HostDrained(command.host)
        case "revoked" if command.host:
            return places.HostRevoked(command.host)
    raise msgspec.ValidationError(f"no command: {line!r}")
