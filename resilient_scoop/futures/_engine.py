"""Turn a call by user code into a batch of the running parent.

Everything here happens in the main thread of the origin or a worker, in the order of the statements
of user code: this order determines the identity of futures.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from types import MethodType
from typing import TYPE_CHECKING, Any

import msgspec

from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.core.parent.severed import sever
from resilient_scoop.errors import ScriptGuardError, UsageError
from resilient_scoop.futures import _shared_files
from resilient_scoop.futures._options import PLAIN
from resilient_scoop.hashing import blake2b
from resilient_scoop.identity import imported_values, process_settings, script_changes
from resilient_scoop.identity.change_guard import Guard
from resilient_scoop.identity.digest import (
    SMALL_BYTES,
    Changed,
    digest,
    digest_many,
    digest_scalars,
    digest_value,
    forget_known,
    has_met,
    take_met,
)
from resilient_scoop.identity.meaning import Meaning
from resilient_scoop.identity.purity import draws_nothing
from resilient_scoop.payload import payload as codec
from resilient_scoop.payload.files import size_of
from resilient_scoop.processes import imported_files, program_end, user_signals
from resilient_scoop.processes.here import Process
from resilient_scoop.task_state import overlay
from resilient_scoop.values.user_code import describe
from resilient_scoop.wire.messages import Define, Options
from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from resilient_scoop.core.parent.call import Call
    from resilient_scoop.core.parent.history import Question
    from resilient_scoop.core.parent.parent import Parent
    from resilient_scoop.processes.connection import Connection, Context
    from resilient_scoop.wire.callables import Setting

ONE, STAR, KEYWORDS = 0, 1, 2
OUTSTANDING_BYTES_MAX = 32 << 20
FILE_BYTES_MAX = 64 << 20
FILES_PER_WORKER = 4
"""If both are exceeded, the parent waits: some items are computed, some are in transit, one is
being made."""
STEP_BYTES = 4 << 20
_SEND_S = 0.001
_SEND_ITEMS = 64
_DEFINITIONS_MAX = 512
SLOW_S = 0.3
"""If checking for changes takes longer than this, the user is told."""
IN_THREAD = (
    "futures were used in a thread of your own ({}): only the main thread, which made this, can wait "
    "for it; pass its result to the thread, or, in the script, make the call in the thread that waits"
)
_CALL_IN_THREAD = (
    "futures were used in a thread of your own (a call): a task makes calls in its main thread only, "
    "since a replay repeats them in their order; make the call there, and pass its result to the thread"
)
_NUMBERS = frozenset({int, float, bool, type(None), complex})
_STRINGS = frozenset({str, bytes})
_SCALARS = _NUMBERS | _STRINGS
_SHORT = 1 << 12
"""Length of a string whose pickle is not large, whatever its characters."""

_definitions: dict[tuple[Any, ...], tuple[object, Define, Guard]] = {}
_bringing: dict[bytes, Define] = {}
program_end.caches += [_definitions.clear, _bringing.clear, forget_known, imported_values.forget]


def is_in_thread() -> bool:
    """Return whether this is a thread of user code, not the main one."""
    return threading.current_thread() is not threading.main_thread()


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread."""
    if "asyncio.events" not in sys.modules:
        return None
    try:
        found: asyncio.AbstractEventLoop = sys.modules["asyncio.events"].get_running_loop()
    except RuntimeError:
        return None
    return found


class InThreadError(RuntimeError):
    """A thread that is not the main one has made a call."""


class Here:
    """The place of the running code: its session, context and parent machine."""

    __slots__ = ("context", "parent", "session")

    def __init__(self, session: Connection, context: Context, parent: Parent) -> None:
        self.session = session
        self.context = context
        self.parent = parent


def here() -> Here | None:
    """Return the place of the running code, or None in a process that `rscoop` did not start.

    Raises:
        ScriptGuardError: the script makes calls while a worker imports it. RuntimeError: called in
        a thread of user code.
    """
    session = session_here(_CALL_IN_THREAD, Process.refusal)
    if session is None:
        return None
    context = session.context
    parent = context.parent
    if parent is None:
        assert Process.make_parent is not None, "a started process can make parents"
        parent = Process.make_parent()
    if parent.judge.refusal is not None:
        raise parent.judge.refusal.with_traceback(None)
    return Here(session, context, parent)


def session_here(in_thread: str, refusal: str | None = None) -> Connection | None:
    """Return the session of this process, or None in a process that `rscoop` did not start.

    Raises:
        ScriptGuardError: a worker is importing the script. RuntimeError: there is a `refusal`, or
        this is a thread of user code (`in_thread` is the text).
    """
    if Process.importing is not None:
        raise ScriptGuardError(Process.importing)
    session = Process.session
    if session is None:
        return None
    if refusal is not None:
        raise RuntimeError(refusal)
    if is_in_thread():
        raise InThreadError(in_thread)
    if session.context.fenced:
        raise GreenletExit
    return session


def enter(at: Here, kind: str, name: str = "") -> None:
    """Return only if the running code is in that parent and may wait there.

    Raises:
        RuntimeError: the named object belongs to another parent, or this is a thread of user code.
    """
    _refuse(Process.refusal)
    if is_in_thread():
        raise RuntimeError(IN_THREAD.format(f"{kind} {name}".rstrip()))
    context = at.session.context
    if context is not at.context:
        what = f"{kind} {name}".rstrip()
        raise RuntimeError(
            f"{what} belongs to another parent, {at.context.path}, and not to {context.path}, which "
            f"uses it: only the script or task that made a future can wait for it; pass its result, "
            f"`.result()`, or make the call in {context.path}"
        )
    if context.fenced:
        raise GreenletExit


def _refuse(refusal: str | None) -> None:
    if refusal is not None:
        raise RuntimeError(refusal)


def definition(function: Callable[..., Any], style: int, options: Options) -> Define:
    """Return the present definition of a callable; the last one, if nothing has changed since."""
    # Options are part of the key; hashing them takes as long as everything else.
    key = (id(function), style) if options is PLAIN else (id(function), style, options)
    found = _definitions.get(key)
    changes = script_changes.changes()
    if found is not None and found[0] is function and found[2].holds():
        define = found[1]
        if define.setting is changes or define.setting == changes:
            return define
    if not callable(function):
        raise TypeError(f"{function!r} ({type(function).__name__}) is not callable")
    began = time.monotonic()
    meaning = Meaning(function, by_position=style != KEYWORDS)
    if time.monotonic() - began > SLOW_S:
        _advise(function, meaning, time.monotonic() - began)
    define = _define(function, style, options, meaning, changes)
    if type(function) is MethodType:
        return define  # each `obj.method` is a new object, which would only keep `obj` alive
    if len(_definitions) >= _DEFINITIONS_MAX:
        _definitions.clear()
    _definitions[key] = (function, define, meaning.guard)
    return define


_advised: set[str] = set()


def _advise(function: Callable[..., Any], meaning: Meaning, took_s: float) -> None:
    """Report, once per function, that comparing what it refers to is slow."""
    name = describe(function).rpartition(":")[2]
    if name in _advised:
        return
    _advised.add(name)
    sizes = {
        home: overlay.shallow_bytes(value)
        for home, value in meaning.objects.items()
        if not callable(value)
    }
    largest = max(sizes, key=lambda home: sizes[home], default="")
    what = f" (most of it {largest.partition(':')[2]})" if largest else ""
    Process.tell_user(
        f"checking what {name} refers to for changes takes {took_s:.1f} s before each call{what}; to "
        f"avoid that, share large data with shared.setConst, or pass it as an argument"
    )


def _define(
    function: Callable[..., Any],
    style: int,
    options: Options,
    meaning: Meaning,
    changes: Setting | None,
) -> Define:
    name = describe(function)
    body = codec.dumps(function, f"callable {name}", name)
    imported_files.script_is_imported()
    _shared_files.share(name, meaning.objects)
    values = overlay.values_of(meaning.references, meaning.objects)
    mark = blake2b(body, digest_size=16)
    mark.update(meaning.fingerprint + bytes([style]) + msgspec.msgpack.encode(options))
    mark.update(b"".join([each.value for each in meaning.references]))
    if changes is not None:
        mark.update(msgspec.msgpack.encode(changes))
    pure = draws_nothing(function)
    if pure and changes is not None and changes.more:
        pure = process_settings.leaves_pure(changes.more)
    return Define(
        mark.digest(), meaning.fingerprint, name, body, options, pure, style,
        meaning.references, values, changes,
    )  # fmt: skip


def bringing(define: Define, met: Changed) -> Define:
    """Return a definition together with the script's changes in objects to which the arguments refer.

    The fingerprint stays: the digests of the arguments cover what they refer to.
    """
    known = {each.home for each in define.references}
    new = {home: met[home] for home in sorted(met) if home not in known}
    if not new:
        return define
    references = [each for each, _ in new.values()]
    mark = blake2b(define.fn, digest_size=16)
    mark.update(b"".join([each.home.encode() + b"\0" + each.value for each in references]))
    found = _bringing.get(mark.digest())
    if found is None:
        values = overlay.values_of(references, {home: value for home, (_, value) in new.items()})
        found = msgspec.structs.replace(
            define, fn=mark.digest(), brought=references, brought_values=values
        )
        if len(_bringing) >= _DEFINITIONS_MAX:
            _bringing.clear()
        _bringing[found.fn] = found
    return found


class Taken:
    """An item whose arguments are pickled already: code of the user may change them afterwards."""

    __slots__ = ("digest", "payload", "size")

    def __init__(self, payload: bytes, digest: bytes) -> None:
        self.payload = payload
        self.digest = digest
        self.size = size_of(payload) if payload[:1] == FILE else len(payload)


def take(at: Here, define: Define, arg: Any) -> Taken:
    """Pickle an item's arguments."""
    payload = codec.dumps_large(arg, at.session.store, what=_argument_of(define), root="arg")
    if not define.options.idempotent:
        _check_comparable(define, [arg])
    return Taken(payload, digest(arg, payload))


def discard(at: Here, args: Sequence[Any]) -> None:
    """Remove the files of items that are not submitted."""
    for each in args:
        if type(each) is Taken and each.payload[:1] == FILE:
            at.session.store.remove(each.payload[1:])


def is_constant(arg: Any) -> bool:
    """Return whether nothing can change an item's arguments before they are pickled."""
    kind = type(arg)
    return kind in _SCALARS or (kind is tuple and _SCALARS.issuperset(map(type, arg)))


def _argument_of(define: Define) -> str:
    return f"argument of {define.name}"


def encode(
    at: Here, define: Define, args: Sequence[Any]
) -> tuple[bytes, list[bytes], dict[int, int]]:
    """Return (digests, payloads, sizes of files by place) of the first items, one at least.

    The payloads are snapshots, independent of later changes. Large ones are returned a few at a
    time: they are files, and a parent may make only a limited number before some are done.
    """
    if (quick := encode_scalars(args)) is not None:
        return digest_scalars(quick), quick, {}
    store, what = at.session.store, _argument_of(define)
    payloads: list[bytes] = []
    files: dict[int, int] = {}
    left = STEP_BYTES
    for arg in args:
        if type(arg) in _SCALARS:
            payload = pickle.dumps(arg, 5)
            if len(payload) <= codec.LARGE_BYTES:
                payloads.append(payload)
                continue
        try:
            payload = (
                arg.payload
                if type(arg) is Taken
                else codec.dumps_large(arg, store, what=what, root="arg")
            )
        except BaseException:  # user code runs during pickling
            for place in files:
                store.remove(payloads[place][1:])
            raise
        payloads.append(payload)
        left -= len(payload)
        if payload[:1] == FILE:
            files[len(payloads) - 1] = size = size_of(payload)
            left -= size
        if left <= 0:
            break
    args = args[: len(payloads)]
    if not define.options.idempotent:
        _check_comparable(define, [arg for arg in args if type(arg) is not Taken])
    return _digests(args, payloads), payloads, files


def _digests(args: Sequence[Any], payloads: list[bytes]) -> bytes:
    if not any(type(arg) is Taken for arg in args):
        return digest_many(args, payloads)
    found = [
        arg.digest if type(arg) is Taken else digest(arg, payload)
        for arg, payload in zip(args, payloads, strict=True)
    ]
    return b"".join(found)


def encode_scalars(args: Sequence[Any]) -> list[bytes] | None:
    """Return the payloads of items if all are numbers or short strings; else None.

    Most items are. No user code runs then, and each can be compared between runs.
    """
    kinds = set(map(type, args))
    if not _NUMBERS.issuperset(kinds) and not (
        _STRINGS.issuperset(kinds) and max(map(len, args)) <= _SHORT
    ):
        return None
    dumps = pickle.dumps
    payloads = [dumps(arg, 5) for arg in args]
    return payloads if max(map(len, payloads), default=0) <= SMALL_BYTES else None


def _check_comparable(define: Define, args: Sequence[Any]) -> None:
    """Refuse a call that must not be started twice, if a replay could not recognize it.

    Raises:
        UsageError: the text names the function.
    """
    for arg in args:
        if digest_value(arg) is None:
            raise UsageError(
                f"an argument of {define.name} ({type(arg).__name__}) cannot be compared between "
                "a run and its resume, and the call is idempotent=False: a resume could not tell "
                "that it was started. Pass values that can be compared (numbers, strings, "
                "containers, arrays)"
            )


def encode_scalar(arg: Any) -> bytes | None:
    """Return the payload of a number or a short string; of anything else None."""
    kind = type(arg)
    if kind not in _NUMBERS and not (kind in _STRINGS and len(arg) <= _SHORT):
        return None
    payload = pickle.dumps(arg, 5)
    return payload if len(payload) <= SMALL_BYTES else None


def submit_scalar(at: Here, define: Define, arg: Any) -> Call | None:
    """Make a call whose one argument is a number or a short string; otherwise return None."""
    payload = encode_scalar(arg)
    if payload is None or has_met():
        return None
    payloads = [payload]
    digests = digest_scalars(payloads)
    session, parent = at.session, at.parent
    with session.turn():
        call = open_call(at, define)
        parent.add(call, digests, payloads, last=True)
        if session.is_cut:
            sever(parent)
    nudge(at)
    if has_enough(at):
        block(at, lambda: not has_enough(at))
    return call


def open_call(at: Here, define: Define) -> Call:
    """Start a batch of the running parent."""
    at.session.machine.define(define)
    return at.parent.begin(define.fn, define.fingerprint)


def add(at: Here, call: Call, define: Define, args: Sequence[Any], *, last: bool) -> None:
    """Add items to a batch, waiting while too many are in progress."""
    parent, session = at.parent, at.session
    while True:
        digests, payloads, files = encode(at, define, args) if args else (b"", [], {})
        brought = bringing(define, take_met()) if has_met() else define
        if files:
            refs = {call.count + place: payloads[place][1:] for place in files}
            session.keep_files(parent.path, call.number, refs)
        args = args[len(payloads) :]
        with session.turn():
            if brought.fn != call.fn:
                session.machine.define(brought)
                call.use(brought.fn)
            parent.add(call, digests, payloads, last=last and not args, files=files)
            if session.is_cut:
                sever(parent)
        nudge(at)
        if has_enough(at):
            block(at, lambda: not has_enough(at))
        if not args:
            return


def has_enough(at: Here) -> bool:
    """Return whether enough items are in progress to keep the workers busy."""
    under_way = at.parent.calls.under_way
    if under_way.in_messages > OUTSTANDING_BYTES_MAX:
        return True
    if under_way.in_files <= FILE_BYTES_MAX:
        return False
    return under_way.files >= FILES_PER_WORKER * at.session.settings.options.workers


def nudge(at: Here) -> None:
    """Send what is queued, unless something was sent just now and more may follow.

    In a replay there is usually nothing to send, but a page of history to request in advance.
    """
    user_signals.deliver_due()
    session, parent = at.session, at.parent
    now = time.monotonic()
    if (
        parent.history.replaying
        and not session.ask_early(parent)
        and now - session.pumped_at <= _SEND_S
    ):
        return
    if now - session.flushed_at > _SEND_S or parent.queued >= _SEND_ITEMS:
        with session.turn():
            session.pump()


def block(at: Here, ready: Callable[[], bool], until: float | None = None) -> bool:
    """Wait until `ready()` is true (return True) or until the time `until` (return False).

    Raises:
        ReplayDivergedError: the replay is strict and differs: the awaited result may never arrive.
    """
    _refuse(Process.refusal)
    assert at.session.waiter is not None, "a started process can wait"
    parent = at.parent
    held = at.session.waiter.wait(lambda: parent.judge.refusal is not None or ready(), until)
    user_signals.deliver_due()
    if parent.judge.refusal is not None:
        raise parent.judge.refusal.with_traceback(None)
    return held


def refuse_cut(at: Here, what: str) -> None:
    """Refuse an operation that cannot be recorded, because the script has been interrupted."""
    if at.session.is_cut:
        from concurrent.futures import CancelledError  # loading it takes each process 3 ms

        raise CancelledError(f"{what}: the run was interrupted")


class Limit:
    """The time limit of a wait; the time in which a replay reads its history does not count."""

    __slots__ = ("until",)

    def __init__(self, timeout: float) -> None:
        self.until = time.monotonic() + timeout

    @classmethod
    def of(cls, timeout: float | None) -> Limit | None:
        """Return the limit of a wait that may have none."""
        return None if timeout is None else cls(timeout)


def observe(
    at: Here, question: Question, live: Callable[[], bytes], limit: Limit | None = None
) -> bytes:
    """Return an answer for the parent: the recorded one on replay, else that of `live`, recorded now."""
    _refuse(Process.refusal)
    parent, began = at.parent, time.monotonic()
    if parent.history.needs_page():
        block(at, lambda: not parent.history.needs_page())
    with at.session.turn():
        answer = parent.recall(question)
    if answer is None and parent.history.replaying:
        block(at, lambda: not parent.history.replaying)
        with at.session.turn():
            answer = parent.recall(question)
    if answer is None:
        if limit is not None:
            limit.until += time.monotonic() - began
        answer = live()
        with at.session.turn():
            parent.answer_anew(question, answer)
    return answer


def in_vain(at: Here) -> None:
    """Note that what the last answer was about was not there in time (`core.parent.history`, P2a)."""
    with at.session.turn():
        at.parent.history.in_vain(at.parent.calls.next)


def decode(at: Here, payload: bytes, *, failed: bool, what: str) -> Any:
    """Return an item's value, or raise its error."""
    value = codec.loads(payload, at.session.store, what)
    if failed:
        raise value
    return value
