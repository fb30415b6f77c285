"""Exceptions between processes: they arrive as themselves, with their original frames.

Two codecs: `X`, an exception raised by user code, and `E`, an error made by the broker, which
pickles nothing. An `X` holds plain data (msgpack) in which only the exceptions themselves are
pickles, so that the type, text and traceback of one that cannot be loaded can still be read.

Each exception is tested in the process that raised it: pickled and loaded again. One whose
`__init__` needs other arguments than it passed to its base is rebuilt without calling it. One that
still does not come back unchanged becomes an UnpicklableExceptionError. Causes, contexts, notes and
the members of groups are sent too.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from resilient_scoop import errors
from resilient_scoop.payload import codec
from resilient_scoop.wire import payload_tags as tags
from resilient_scoop.wire.text import writable

_CALLERS: Final = frozenset({__name__.partition(".")[0], "tenacity", "concurrent"})
"""Modules whose frames are above user code in a worker: they say nothing about the error."""
_KINDS: Final = {
    "crashed": "WorkerCrashedError",
    "lost": "WorkerLostError",
    "timeout": "TaskTimeoutError",
    "cancelled": "CancelledError",
}
"""Their names in `wire.broker_errors`."""
_FRAMES_MAX: Final = 200
_LINKS_MAX: Final = 40
_MEMBERS_MAX: Final = 500
"""No object has this id: it makes the set of a group's members differ from that of its top."""
_TEXT_MAX: Final = 20_000


class RemoteTracebackError(Exception):
    """Shown as the cause of an exception whose frames could not be rebuilt: their text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    file: str
    name: str
    line: int
    module: str = ""


class _Node(msgspec.Struct, frozen=True, array_like=True):
    """One exception of a chain; `pickled` is empty if it cannot be pickled.

    Causes, contexts and members that occur once more are numbers: each is one object again.
    """

    type_name: str
    text: str
    pickled: bytes
    frames: list[_Frame]
    cause: _Node | int | None
    context: _Node | int | None
    suppress: bool
    members: list[_Node | int]
    no: int = 0


class _SentException(msgspec.Struct, frozen=True, array_like=True):
    where: str
    text: str
    node: _Node


class _BrokerError(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    fields: list[Any]


def dumps_exception(error: BaseException, remote_where: str) -> bytes:
    """Return the payload of `error`; never fails. `remote_where` is the heading of its frames."""
    formatted = traceback.TracebackException.from_exception(error)
    links = list(_links(error.__traceback__))
    above = len(links) - len(_users_part(links))
    formatted.stack = traceback.StackSummary.from_list(formatted.stack[above:])
    text = "".join(formatted.format())[-_TEXT_MAX:]
    received = _SentException(remote_where, text, _Teller().tell(error))
    return tags.EXCEPTION + _encode(received)


class Failure(NamedTuple):
    """An exception as text; nothing of it was unpickled."""

    type_name: str
    text: str
    where: str
    traceback_text: str


def describe_failure(payload: bytes) -> Failure:
    """Return the text of an exception's payload, for display: safe in any process."""
    if payload[0] == tags.BROKER_ERROR[0]:
        kind = msgspec.msgpack.decode(payload[1:], type=_BrokerError).kind
        error = loads_exception(payload)
        return Failure(_KINDS.get(kind, kind), str(error), "the broker", "")
    received = msgspec.msgpack.decode(payload[1:], type=_SentException)
    return Failure(received.node.type_name, received.node.text, received.where, received.text)


def loads_exception(payload: bytes | memoryview) -> BaseException:
    """Return the exception of a payload, with its frames and chain, which are shown when it is raised."""
    if payload[0] == tags.BROKER_ERROR[0]:
        return _from_broker(msgspec.msgpack.decode(payload[1:], type=_BrokerError))
    received = msgspec.msgpack.decode(payload[1:], type=_SentException)
    error = _revive(received.node, received, {})
    if received.node.frames and error.__traceback__ is None and error.__cause__ is None:
        error.__cause__ = RemoteTracebackError(received.text)
    return error


def dumps_broker_error(kind: str, fields: list[Any]) -> bytes:
    """Return the payload of the error class `kind` of `errors` with these arguments."""
    return tags.BROKER_ERROR + _encode(_BrokerError(kind, fields))


def rebuild(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """Return an exception of `cls` with these `args` and attributes, without calling its `__init__`."""
    error = cls.__new__(cls, *args)
    native = next(base for base in cls.__mro__ if base.__module__ == builtins.__name__)
    native.__init__(error, *args)  # type: ignore[misc]  # fills fields such as OSError.errno
    error.args = args
    error.__dict__.update(state)
    return error


def _encode(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except UnicodeEncodeError:  # a file name in it is not UTF-8
        return msgspec.msgpack.encode(writable(value))


class _Teller:
    """Makes the nodes of one exception and of all to which it is linked, each once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # by identity
        self._links_left = _LINKS_MAX

    def tell(self, error: BaseException) -> _Node:
        """Return the node of an exception that has none yet."""
        self._numbers[id(error)] = no = len(self._numbers)
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        known = self._numbers
        told = [
            known[id(member)] if id(member) in known else self.tell(member)
            for member in members[:_MEMBERS_MAX]
        ]
        kind = type(error)
        return _Node(
            type_name=f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            text=_text(error),
            pickled=_pickle(error),
            frames=_frames(error.__traceback__),
            cause=self._link(error.__cause__),
            context=self._link(error.__context__),
            suppress=error.__suppress_context__,
            members=told,
            no=no,
        )

    def _link(self, other: BaseException | None) -> _Node | int | None:
        if other is None or id(other) in self._numbers:
            return None if other is None else self._numbers[id(other)]
        self._links_left -= 1
        return self.tell(other) if self._links_left > 0 else None


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failed:  # noqa: BLE001 - user code
        text = f"<its __str__ raised {type(failed).__name__}>"
    return text.encode(errors="backslashreplace").decode()[:_TEXT_MAX]


def _pickle(error: BaseException) -> bytes:
    if isinstance(error, BaseExceptionGroup):
        return _pickle_group(error)
    for make in (codec.dumps, _without_init):
        try:
            payload = make(error)
            back = codec.loads(payload)
            if _same(error, back, with_args=make is codec.dumps):
                return payload
        except Exception:  # noqa: BLE001, S112 - user code; the next way, or none
            continue
    return b""


def _pickle_group(group: BaseExceptionGroup[BaseException]) -> bytes:
    """Return the group's class, message and attributes; the members are sent as nodes."""
    try:
        return codec.dumps((type(group), group.message, dict(group.__dict__)))
    except errors.PicklingFailedError:
        return codec.dumps((BaseExceptionGroup, group.message, {}))


class _Rebuilt:
    """Pickles as a call of `rebuild`."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        return rebuild, (type(error), error.args, dict(error.__dict__))


def _without_init(error: BaseException) -> bytes:
    return codec.dumps(_Rebuilt(error))


def _same(error: BaseException, back: object, *, with_args: bool) -> bool:
    if not isinstance(back, BaseException) or back.__dict__.keys() != error.__dict__.keys():
        return False
    if type(back) is not type(error) and type(back).__qualname__ != type(error).__qualname__:
        return False
    return not with_args or codec.dumps(back.args) == codec.dumps(error.args)


def _users_part(links: list[TracebackType]) -> list[TracebackType]:
    """Return the frames from the first of user code on; all, if there is none."""
    for at, link in enumerate(links):
        name = link.tb_frame.f_globals.get("__name__")
        if not isinstance(name, str) or name.partition(".")[0] not in _CALLERS:
            return links[at:]
    return links


def _frames(tb: TracebackType | None) -> list[_Frame]:
    found: list[_Frame] = []
    for link in _users_part(list(_links(tb))):
        code = link.tb_frame.f_code
        module = link.tb_frame.f_globals.get("__name__")
        name = module if isinstance(module, str) else ""
        found.append(_Frame(code.co_filename, code.co_name, link.tb_lineno or 0, name))
    half = _FRAMES_MAX // 2
    if len(found) > _FRAMES_MAX:
        gap = _Frame(f"<{len(found) - 2 * half} more frames>", "...", 1)
        return [*found[:half], gap, *found[-half:]]
    return found


def _revive(
    node: _Node, received: _SentException, known: dict[int, BaseException]
) -> BaseException:
    """Return the exception of a node; `known` are those before it, by number."""

    def linked(other: _Node | int | None) -> BaseException | None:
        if other is None or isinstance(other, int):
            return None if other is None else known.get(other)
        return _revive(other, received, known)

    members = [each for member in node.members if (each := linked(member)) is not None]
    error = known[node.no] = _load(node, received, members)
    if node.frames:
        heading = _Frame(f"<{received.where}>", "remote", 1)
        error.__traceback__ = _make_traceback([heading, *node.frames])
    error.__cause__, error.__context__ = linked(node.cause), linked(node.context)
    error.__suppress_context__ = node.suppress
    return error


def _load(node: _Node, received: _SentException, members: list[BaseException]) -> BaseException:
    if node.pickled:
        try:
            error = codec.loads(node.pickled)
            if members:
                error = _group(error, members)
        except Exception:  # noqa: BLE001 - user code, and classes that are not here
            error = None
        if isinstance(error, BaseException):
            return error
    return errors.UnpicklableExceptionError(node.type_name, node.text, received.text)


def _group(parts: tuple[Any, ...], members: list[BaseException]) -> BaseException:
    cls, message, state = parts
    group: BaseException = BaseExceptionGroup.__new__(cls, message, members)
    group.__dict__.update(state)
    return group


def _make_traceback(frames: list[_Frame]) -> TracebackType | None:
    from tblib import Traceback

    tb: SimpleNamespace | None = None
    for frame in reversed(frames):
        code = SimpleNamespace(co_filename=frame.file, co_name=frame.name)
        of = SimpleNamespace(
            f_code=code, f_globals={"__name__": frame.module}, f_locals={}, f_lineno=frame.line
        )
        tb = SimpleNamespace(tb_frame=of, tb_lineno=frame.line, tb_next=tb)
    try:
        return _without_columns(Traceback(tb).as_traceback())
    except (AttributeError, TypeError, ValueError, SyntaxError):
        return None  # a Python that tblib does not know yet: the text is shown


def _without_columns(tb: TracebackType | None) -> TracebackType | None:
    """Return the frames without instruction offsets: with tblib's stub, carets would be wrong."""
    links = list(_links(tb))
    made = None
    for link in reversed(links):
        made = TracebackType(made, link.tb_frame, -1, link.tb_lineno)
    return made


def _links(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _from_broker(error: _BrokerError) -> BaseException:
    fields = _tuples(error.fields)
    if error.kind == "timeout":
        fields = (fields[0], fields[-1])  # its name is left out
    kind = _KINDS.get(error.kind, error.kind)
    cls = getattr(errors, kind, None) or _foreign(kind)
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            return cls(*fields)
        except TypeError:
            pass  # fields of another version
    return errors.TaskError(f"{error.kind}: {', '.join(map(str, fields))}")


def _foreign(kind: str) -> type[Exception] | None:
    if kind == "CancelledError":
        from concurrent.futures import CancelledError

        return CancelledError
    return TimeoutError if kind == "TimeoutError" else None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
