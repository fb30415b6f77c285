"""The child of `code_survey`: find what journaled callables refer to now, and what has changed.

The script is imported here as in a worker. What it had set after its imports comes from the definitions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path
from types import FunctionType
from typing import Final

import msgspec

from resilient_scoop import ids
from resilient_scoop.identity import fingerprint_v1, script_changes
from resilient_scoop.identity.meaning import Meaning, fingerprint_of
from resilient_scoop.payload import payload
from resilient_scoop.payload.files import LargeStore
from resilient_scoop.processes import random_streams, user_script
from resilient_scoop.processes.code_survey import NOT_IMPORTED, ChangedReference, Comparison
from resilient_scoop.processes.connection import Context
from resilient_scoop.processes.here import Process
from resilient_scoop.processes.starting import take_settings
from resilient_scoop.task_state import overlay
from resilient_scoop.values.user_code import is_user_module
from resilient_scoop.values.user_modules import loaded
from resilient_scoop.wire.callables import AS_IMPORTED, Define, Reference

_KEYWORDS: Final = 2  # of `Define.style`: arguments are given by name
_ENUM_TABLES: Final = frozenset({"_member_map_", "_member_names_"})
_Keyed = dict[tuple[str, str, int], Reference]


def main() -> int:
    """Run the child."""
    settings = take_settings()
    sys.dont_write_bytecode = True  # a survey leaves no trace
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Define])
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)  # the script's input and output are not ours
    Process.importing = settings.script.script or settings.script.module
    context = Context(ids.ROOT, None)
    random_streams.install(settings.streams, settings.seed, lambda: context, tasks=False)
    try:
        user_script.prepare(settings.script)
        user_script.import_for_workers(settings.script, survey=True)
        whole = True
    except BaseException:  # user code: what was defined before the error is compared
        whole = False
    store = LargeStore(Path(settings.run_dir) / "payloads")
    found = compare(asked, store, whole=whole)
    with os.fdopen(answer, "wb") as stream_out:
        stream_out.write(msgspec.msgpack.encode(found))
    os._exit(0 if whole else NOT_IMPORTED)


def compare(defines: list[Define], store: LargeStore, *, whole: bool) -> list[Comparison]:
    """Return what was found about each definition; `whole`: the script could be imported."""
    known: dict[bytes, str] = {}
    answers = []
    for define in defines:
        try:
            with script_changes.searching(define.setting):
                answers.append(_compare(define, store))
        except Exception:  # user code: unpickling runs it
            if whole and not known:
                known = _fingerprints()
            renamed = define.fingerprint in known
            found = Comparison(define.fingerprint) if renamed else Comparison(missing=True)
            answers.append(found if whole else Comparison())
        finally:
            overlay.activate(None)
    return answers


def _compare(define: Define, store: LargeStore) -> Comparison:
    what = f"function {define.name}"
    if not define.references:
        function = payload.loads(define.payload, store, what)
        now = Meaning(function, by_position=define.style != _KEYWORDS).fingerprint
        same = fingerprint_v1.fingerprint(function) == define.fingerprint
        return Comparison(now, is_old=same)
    set_since = {each.home for each in define.references if not each.flags & AS_IMPORTED}
    with contextlib.suppress(Exception):  # user code: an edit may have removed what values need
        overlay.activate(overlay.of(define, set_since))
    meaning = Meaning(
        payload.loads(define.payload, store, what),
        lambda: define.setting,
        by_position=define.style != _KEYWORDS,
    )
    then, now_refs = _keyed(define.references), _keyed(meaning.references)
    predicted = [
        then[key] if key in then and not then[key].flags & AS_IMPORTED else each
        for key, each in now_refs.items()
    ]
    return Comparison(fingerprint_of(predicted), _differences(then, now_refs))


def _keyed(references: list[Reference]) -> _Keyed:
    """Return references by home, label and number of earlier occurrences."""
    seen: Counter[tuple[str, str]] = Counter()
    found: _Keyed = {}
    for each in references:
        key = (each.home, each.label)
        found[(*key, seen[key])] = each
        seen[key] += 1
    return found


def _differences(then: _Keyed, now: _Keyed) -> list[ChangedReference]:
    found = []
    for key, before in then.items():
        after = now.get(key)
        if not before.flags & AS_IMPORTED or (after and after.digest == before.digest):
            continue
        if after is None:
            now_text = "cannot be imported" if _is_missing_module(before) else "not used"
            found.append(ChangedReference(before.label, before.text, now_text, before.at))
        elif (before.text, after.text) == ("", "") or before.text != after.text:
            found.append(ChangedReference(before.label, before.text, after.text, after.at))
        else:
            found.append(ChangedReference(before.label, "", "", after.at))
    found += [
        ChangedReference(each.label, "not used", each.text or "used", each.at)
        for key, each in now.items()
        if key not in then
    ]
    return _without_tables(found)


def _is_missing_module(reference: Reference) -> bool:
    """Return whether a reference is a module that a function imports itself, and that is missing."""
    name = reference.label.partition(".")[0]
    if reference.home or reference.text or name in sys.modules:
        return False
    return importlib.util.find_spec(name) is None


def _without_tables(found: list[ChangedReference]) -> list[ChangedReference]:
    """Drop the tables that an enum keeps of its members, where a member is named itself."""
    members = {
        each.label.rpartition(".")[0]
        for each in found
        if each.label.rpartition(".")[2] not in _ENUM_TABLES
    }
    return [
        each
        for each in found
        if each.label.rpartition(".")[2] not in _ENUM_TABLES
        or each.label.rpartition(".")[0] not in members
    ]


def _fingerprints() -> dict[bytes, str]:
    """Return the names of the user's functions by fingerprint, to find one that was renamed."""
    found: dict[bytes, str] = {}
    for name, module in loaded():
        if not is_user_module(name):
            continue
        for value in list(vars(module).values()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                for by_position in (False, True):
                    mark = Meaning(value, by_position=by_position).fingerprint
                    found[mark] = value.__qualname__
    return found
