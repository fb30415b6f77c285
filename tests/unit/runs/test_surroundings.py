"""The environment of a run: what is stored, what a resume restores, and what is reported."""

from __future__ import annotations

import os
import resource

import pytest

from resilient_scoop.errors import UsageError
from resilient_scoop.runs.surroundings import (
    Surroundings,
    differences,
    is_of_shell,
    is_secret,
    look,
    parse,
    restored,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x"), ("GITHUB_TOKEN", "x"), ("db_password", "x"),
        ("MY_PASSPHRASE", "x"), ("OPENAI_API_KEY", "x"), ("DATABASE_URL", "postgres://me:it@host/db"),
    ],
)  # fmt: skip
def test_a_secret_is_not_stored(name: str, value: str) -> None:
    assert is_secret(name, value)
    found = look({name: value, "DATA": "d"})
    assert (found.environ, found.withheld) == ({"DATA": "d"}, [name])


@pytest.mark.parametrize(
    "name", ["PATH", "PYTHONPATH", "LANG", "HOME", "OMP_NUM_THREADS", "PWD", "PYTHONHASHSEED"]
)
def test_variables_that_affect_results_are_stored(name: str) -> None:
    assert not is_of_shell(name)
    assert not is_secret(name, "http://host/path@1")
    assert look({name: "v"}).environ == {name: "v"}


@pytest.mark.parametrize(
    "name", ["TERM", "SSH_TTY", "DISPLAY", "COLUMNS", "LS_COLORS", "_", "TMPDIR"]
)
def test_variables_of_a_shell_are_not_stored(name: str) -> None:
    assert is_of_shell(name)
    assert look({name: "v"}) == look({})


def test_umask_and_limits_are_stored() -> None:
    before = os.umask(0o031)
    try:
        found = look({})
    finally:
        os.umask(before)
    assert found.umask == 0o031
    assert found.limits["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_resume_has_the_variables_of_the_run_those_of_the_shell_and_given_ones() -> None:
    then = Surroundings(environ={"A": "1", "B": "2"}, withheld=["MY_KEY"])
    here = {"A": "9", "C": "3", "TERM": "dumb", "MY_KEY": "k"}
    now = restored(then, here, {"B": "given"})
    assert now == {"A": "1", "B": "given", "TERM": "dumb", "MY_KEY": "k"}
    (text,) = differences(then, here, {"B": "given"})
    assert "A='1' (here '9'), C=not set (here '3'); --env" in text


def test_many_differences_are_one_sentence_and_a_missing_secret_another() -> None:
    then = Surroundings(environ={f"V{n}": "1" for n in range(9)}, withheld=["MY_KEY"])
    many, missing = differences(then, {}, {})
    assert "V5='1' (here not set) and 3 more;" in many
    assert missing.startswith("MY_KEY was set when the run began")
    assert differences(then, {**then.environ, "MY_KEY": ""}, {}) == []


def test_env_accepts_a_value_or_the_name_of_a_variable_of_the_shell() -> None:
    assert parse(["A=1", "B=", "C"], {"C": "c=d"}) == {"A": "1", "B": "", "C": "c=d"}
    for wrong in ("=1", "D"):
        with pytest.raises(UsageError, match="--env"):
            parse([wrong], {})


def test_an_invalid_hash_seed_is_refused() -> None:
    for right in ("0", "4294967295", "random", ""):
        assert parse([f"PYTHONHASHSEED={right}"], {}) == {"PYTHONHASHSEED": right}
    for wrong in ("-1", "4294967296", "x"):
        with pytest.raises(UsageError, match="a number from 0 to 4294967295, or random"):
            parse([f"PYTHONHASHSEED={wrong}"], {})
