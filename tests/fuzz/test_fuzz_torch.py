"""Wrong calls of every public function of the library: see :mod:`fuzz.mutate`."""

import os

import pytest
from fuzz import calls_torch
from fuzz.calls_torch import CALLS
from fuzz.mutate import check_valid, fuzz, public
from fuzz.small_net import OTHERS

COUNT = -(-int(os.environ.get("FUZZ_CALLS", 700)) // len(CALLS))


def test_every_public_function_has_a_valid_call():
    assert set(public("dslbi_torch", calls_torch.INNER)) == {*CALLS, *calls_torch.INNER_NAMES}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CALLS)
def test_valid_calls_pass_their_check(name):
    check_valid(CALLS[name])


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls(name):
    assert fuzz(name, CALLS[name], COUNT, {"dslbi_torch"}, OTHERS) == {}
