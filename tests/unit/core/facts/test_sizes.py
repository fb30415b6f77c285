"""The sizes of finished calls are correct for any order of changes, and need little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient_scoop.core.facts.sizes import Sizes

CALLS = st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), CALLS, st.integers(0, 3)),
        st.tuples(st.just("forget"), CALLS, st.just(0)),
        st.tuples(st.just("span"), CALLS, st.integers(0, 9)),
    )
)


@given(STEPS)
def test_sizes_behave_like_a_map_with_a_default(steps: list[tuple[str, int, int]]) -> None:
    sizes, expected = Sizes(), dict[int, int]()
    for what, call, size in steps:
        if what == "set":
            sizes[call] = size
            expected[call] = size
        elif what == "forget":
            sizes.forget(call)
            expected.pop(call, None)
        else:
            sizes.forget_span(call, call + size)
            gone = range(call, call + size)
            expected = {key: value for key, value in expected.items() if key not in gone}
            runs_within = [(a, b) for a, b, _ in sizes.runs(call - 3, call + 3)]
            assert [each for a, b in runs_within for each in range(a, b)] == [
                each for each in range(call - 3, call + 3) if expected.get(each, 1) != 1
            ]
        assert [sizes[each] for each in range(32)] == [expected.get(each, 1) for each in range(32)]
        filled = [(key, expected[key]) for key in sorted(expected) if expected[key] != 1]
        runs = sum(
            1
            for at, (key, value) in enumerate(filled)
            if not at or filled[at - 1] != (key - 1, value)
        )
        assert len(sizes) == runs


def test_calls_of_the_default_size_need_no_memory() -> None:
    sizes = Sizes()
    for call in range(0, 100_000, 2):
        sizes[call] = 50
    for call in range(1, 100_000, 2):
        sizes[call] = 50
    assert len(sizes) == 1
