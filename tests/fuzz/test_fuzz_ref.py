"""Wrong calls of every public function of the reference: see :mod:`fuzz.mutate`."""

import os

import pytest
from fuzz import calls_ref
from fuzz.calls_ref import CALLS
from fuzz.mutate import check_valid, fuzz, public

from dslbi_ref import mirror_descent, path

COUNT = -(-int(os.environ.get("FUZZ_CALLS", 2000)) // len(CALLS))


def test_every_public_function_has_a_valid_call():
    assert set(public("dslbi_ref", calls_ref.INNER)) == {*CALLS, *calls_ref.INNER_NAMES}


@pytest.mark.parametrize("name", CALLS)
def test_valid_calls_pass_their_check(name):
    check_valid(CALLS[name])


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls(name, monkeypatch):
    monkeypatch.setattr(path, "MAX_STEPS", 10_000)
    monkeypatch.setattr(mirror_descent, "MAX_GRADIENTS", 10_000)
    assert fuzz(name, CALLS[name], COUNT, {"dslbi_ref"}) == {}
