# SPDX-License-Identifier: Apache-2.0
"""The enforcer's answers to the agent: what a container may have, how often, and no nonsense."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest.attest import channel, service
from parma_guest.attest.channel import KeyQuestion, ReportQuestion
from parma_guest.attest.keys import container_key
from parma_guest.attest.service import Access, Answerer
from parma_policy.attestation import NAMES
from parma_wire.errors import Malformed
from tests.guest.attest_fakes import DATA, HASHED, HOST_DATA, IDENTITY, KEY, REPORT, FakeTee, answerer


def test_an_agent_gets_what_its_container_may_have() -> None:
    assert answerer("/dev/sev-guest").answer(ReportQuestion(DATA, 2)) == b"\0" + REPORT
    assert answerer("/attest/raw").answer(ReportQuestion(HASHED, 0)) == b"\0" + REPORT
    key = container_key(KEY, HOST_DATA, IDENTITY, b"c")
    assert answerer("/key/derive").answer(KeyQuestion(b"c")) == b"\0" + key


@pytest.mark.parametrize("name", ["/key/derive", "/key/release", "/aa/token", "UVM_SECURITY_CONTEXT_DIR"])
def test_reports_need_something_that_gives_reports(name: str) -> None:
    tee = FakeTee()
    assert answerer(name, tee=tee).answer(ReportQuestion(HASHED, 0))[:1] == b"\1"
    assert tee.reports == []


@pytest.mark.parametrize("name", ["/attest/raw", "/attest/combined"])
def test_an_agent_that_was_taken_over_still_cannot_choose_all_of_report_data(name: str) -> None:
    tee = FakeTee()
    target = answerer(name, tee=tee)
    assert b"REPORT_DATA" in target.answer(ReportQuestion(DATA, 0))
    assert b"REPORT_DATA" in target.answer(ReportQuestion(bytes(63) + b"x", 0))
    assert tee.reports == []


def test_keys_need_to_be_allowed() -> None:
    others = [name for name in NAMES if name != "/key/derive"]
    assert answerer(*others).answer(KeyQuestion(b""))[:1] == b"\1"


def test_a_vm_without_a_processor_says_so() -> None:
    target = answerer(*NAMES, tee=FakeTee("none"))
    assert b"no secure processor" in target.answer(ReportQuestion(DATA, 0))
    assert b"no secure processor" in target.answer(KeyQuestion(b""))


def test_questions_beyond_the_burst_have_to_wait() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    target = Answerer(FakeTee(), Access(frozenset(NAMES), IDENTITY), HOST_DATA, clock=lambda: now[0], sleep=sleep)
    for _ in range(service.BURST + 40):
        target._pace()
    assert now[0] == pytest.approx(40 / service.QUESTIONS_PER_SECOND)
    now[0] += 1000
    slept.clear()
    for _ in range(service.BURST):
        target._pace()
    assert slept == []


@given(st.binary(max_size=80))
def test_other_questions_are_malformed(message: bytes) -> None:
    try:
        question = channel.parse_question(message)
    except Malformed:
        return
    assert question.pack() == message


@pytest.mark.parametrize("message", [b"X", b"R", b"K" + bytes(65), b"R\4" + DATA, b"R\0" + DATA + b"more" * 100])
def test_an_agent_that_asks_nonsense_is_heard_no_more(
    pair: tuple[socket.socket, socket.socket], message: bytes
) -> None:
    ours, theirs = pair
    thread = threading.Thread(target=answerer(*NAMES).serve, args=(ours,))
    thread.start()
    theirs.send(message)
    assert theirs.recv(100) == b""
    thread.join(60)
    assert not thread.is_alive()
