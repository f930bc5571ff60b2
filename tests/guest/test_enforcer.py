# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  (what must raise is the end of a context, or the last of several steps)
"""The gate: one policy, checked against HOST_DATA; all-or-nothing changes; poison."""

from __future__ import annotations

import hashlib
import threading

import pytest

from parma_guest.decisions import Verdict
from parma_guest.enforcer import Enforcer
from parma_guest.tee import NoTee
from parma_guest.undo import CleanupFailed, Undo
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unavailable, Unsupported
from parma_wire.limits import MAX_POLICY_BYTES
from tests.guest.fakes import FakeEngine, Rig

POLICY = b"package policy"


class Tee:
    """Reports with a given HOST_DATA."""

    name = "snp"

    def __init__(self, host_data: bytes | None, *, broken: bool = False) -> None:
        self._host_data = host_data
        self._broken = broken

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        assert vmpl == 0
        return b"report over " + report_data

    def derived_key(self) -> bytes:
        pytest.fail("the host cannot ask for a key")

    def host_data(self) -> bytes | None:
        if self._broken:
            raise Unavailable("the secure processor gives no report")
        return self._host_data


def enforcer(host_data: bytes | None = hashlib.sha256(POLICY).digest(), *, broken: bool = False) -> Enforcer:
    return Enforcer(Tee(host_data, broken=broken), FakeEngine)


def give(target: Enforcer, policy: bytes = POLICY) -> bytes:
    target.put_policy(0, policy)
    return target.set_policy(len(policy))


def test_the_policy_of_host_data_is_accepted_once() -> None:
    target = enforcer()
    assert not target.has_policy
    assert give(target) == hashlib.sha256(POLICY).digest()
    assert target.has_policy
    assert target.tee == "snp"
    for attempt in (lambda: target.put_policy(0, b"x"), lambda: target.set_policy(1)):
        with pytest.raises(FailedPrecondition, match="already"):
            attempt()


def test_report_data_is_bound_to_the_nonce_and_not_chosen_by_the_host() -> None:
    target = enforcer()
    give(target)
    nonce = hashlib.sha512(b"a key of the host's").digest()
    bound = hashlib.sha512(b"parma.evidence.v1\0" + nonce).digest()
    assert target.evidence(nonce) == b"report over " + bound


@pytest.mark.parametrize("policy", [POLICY + b"\n", b"\xef\xbb\xbf" + POLICY, POLICY[:-1], POLICY.upper()])
def test_any_other_bytes_are_refused_and_the_right_ones_still_accepted(policy: bytes) -> None:
    target = enforcer()
    with pytest.raises(Denied, match="launched for"):
        give(target, policy)
    assert not target.has_policy
    give(target)


def test_an_empty_policy_opens_the_door_where_there_is_no_tee() -> None:
    target = Enforcer(NoTee(), FakeEngine)
    assert target.set_policy(0) == hashlib.sha256(b"").digest()
    assert not target.wants_endorsements
    with target.read("Stats") as policy:
        assert policy.ask("get_properties", {}).allowed
        policy.require_open_door("anything")
    with pytest.raises(FailedPrecondition, match="already"):
        target.put_policy(0, POLICY)


@pytest.mark.parametrize("tee", ["snp", "emulated"])
def test_no_tee_gives_an_open_door_even_when_host_data_is_that_of_nothing(tee: str) -> None:
    provider = Tee(hashlib.sha256(b"").digest())
    provider.name = tee
    target = Enforcer(provider, FakeEngine)
    with pytest.raises(Denied, match="empty"):
        target.set_policy(0)
    assert not target.has_policy


def test_a_tee_whose_report_names_no_host_data_gives_no_open_door() -> None:
    with pytest.raises(Denied, match="empty"):
        enforcer(None).set_policy(0)


def test_without_a_tee_any_policy_is_accepted() -> None:
    assert give(enforcer(None)) == hashlib.sha256(POLICY).digest()


def test_no_report_means_no_policy() -> None:
    target = enforcer(broken=True)
    with pytest.raises(Unavailable):
        give(target)
    assert not target.has_policy


def test_a_policy_that_cannot_be_read_is_not_set() -> None:
    def refuse(_policy: bytes) -> FakeEngine:
        raise Malformed("not a policy", expected="one", hint="write one")

    target = Enforcer(Tee(None), refuse)
    with pytest.raises(Denied, match=r"not a policy; expected one .*write one"):
        give(target)
    assert not target.has_policy


def test_pieces_must_be_in_order_and_within_the_limit() -> None:
    target = enforcer(None)
    target.put_policy(0, b"ab")
    for offset in (0, 1, 3):
        with pytest.raises(Malformed, match="order"):
            target.put_policy(offset, b"c")
    target.put_policy(2, bytes(MAX_POLICY_BYTES - 2))
    with pytest.raises(Malformed, match="too large"):
        target.put_policy(MAX_POLICY_BYTES, b"x")
    with pytest.raises(Malformed, match="incomplete"):
        target.set_policy(MAX_POLICY_BYTES + 1)


def change(rig: Rig, error: BaseException | None = None) -> None:
    with rig.enforcer.change("MountDevice") as asker:
        asker.ask("mount_device", {})
        if error is not None:
            raise error


def test_state_is_kept_only_when_the_side_effect_succeeds(rig: Rig) -> None:
    change(rig)
    assert rig.state == ("mount_device",)
    for error in (Unavailable("no"), OSError(5, "Input/output error")):
        with pytest.raises(Unavailable):
            change(rig, error)
    rig.engine.deny.add("mount_device")
    with pytest.raises(Denied, match="because"):
        change(rig)
    assert rig.state == ("mount_device",)
    assert rig.enforcer.poisoned == ""


def test_what_rules_of_the_policy_record_stays_when_they_deny_and_when_they_are_only_asked(rig: Rig) -> None:
    rig.engine.records = True
    rig.engine.deny.add("mount_device")
    with pytest.raises(Denied, match="because"):
        change(rig)
    assert list(rig.state) == ["not mount_device"]
    with rig.enforcer.read("Stats") as asker:
        asker.ask("get_properties", {})
    assert list(rig.state) == ["not mount_device", "get_properties"]
    rig.engine.deny.add("get_properties")
    with pytest.raises(Denied), rig.enforcer.read("Stats") as asker:
        asker.ask("get_properties", {})
    assert list(rig.state) == ["not mount_device", "get_properties", "not get_properties"]


def test_a_side_effect_that_fails_takes_back_what_was_recorded(rig: Rig) -> None:
    rig.engine.records = True
    with pytest.raises(Unavailable):
        change(rig, Unavailable("no"))
    assert rig.state == ()


@pytest.mark.parametrize("error", [CleanupFailed("still mounted"), ZeroDivisionError("secret"), AssertionError()])
def test_a_failed_undo_and_a_bug_poison_the_group(rig: Rig, error: Exception) -> None:
    with pytest.raises(Unavailable) as raised:
        change(rig, error)
    assert "secret" not in str(raised.value)
    with pytest.raises(FailedPrecondition, match="no more changes"):
        change(rig)
    with rig.enforcer.read("Stats") as asker:
        asker.ask("get_properties", {})
    assert rig.state == ()


def test_changes_happen_one_at_a_time(rig: Rig) -> None:
    inside = threading.Semaphore(0)
    finish = threading.Event()
    order: list[str] = []

    def slow() -> None:
        with rig.enforcer.change("StartContainer"):
            inside.release()
            assert finish.wait(60)
            order.append("slow")

    def fast() -> None:
        with rig.enforcer.change("StartContainer"):
            order.append("fast")

    first, second = threading.Thread(target=slow), threading.Thread(target=fast)
    first.start()
    assert inside.acquire(timeout=60)
    second.start()
    with rig.enforcer.read("WaitProcess"):  # a read waits for nobody
        finish.set()
    first.join(60)
    second.join(60)
    assert order == ["slow", "fast"]


def test_a_read_takes_its_turn_where_rules_of_the_policy_may_record_it(rig: Rig) -> None:
    rig.engine.records = True
    order: list[str] = []
    inside = threading.Event()

    def reading() -> None:
        inside.set()
        with rig.enforcer.read("WaitProcess"):
            order.append("read")

    reader = threading.Thread(target=reading)
    with rig.enforcer.change("StartContainer"):
        reader.start()
        assert inside.wait(60)
        reader.join(0.2)
        assert order == []
    reader.join(60)
    assert order == ["read"]


def test_a_read_that_asks_too_little_or_something_else_is_denied_and_records_nothing(rig: Rig) -> None:
    with pytest.raises(Denied, match="was not asked about get_properties"), rig.enforcer.read("Stats"):
        pass
    with pytest.raises(Denied, match="not an enforcement point"), rig.enforcer.read("Stats") as asker:
        asker.ask("mount_device", {})
    with rig.enforcer.read("Stats") as asker:
        assert asker.ask("get_properties", {}).allowed
    assert rig.state == ()


@pytest.mark.parametrize("method", ["MountDevice", "Hello", "Unlisted"])
def test_nothing_is_read_for_a_request_of_another_kind(rig: Rig, method: str) -> None:
    with pytest.raises(Denied, match=f"{method} has no enforcement point"), rig.enforcer.read(method):
        pytest.fail("it must not be looked at")


@pytest.mark.parametrize("method", ["Stats", "Hello", "PowerOff", "Unlisted"])
def test_nothing_is_changed_for_a_request_of_another_kind(rig: Rig, method: str) -> None:
    with pytest.raises(Denied, match=f"{method} has no enforcement point"), rig.enforcer.change(method):
        pytest.fail("it must not be looked at")


def test_every_question_of_a_request_is_asked_in_the_state_after_the_one_before(rig: Rig) -> None:
    with rig.enforcer.change("MountScratch") as asker:
        asker.ask("rw_mount_device", {"target": "a"})
        assert asker.state == ("rw_mount_device",)
        asker.ask("scratch_mount", {"target": "b"})
    assert rig.state == ("rw_mount_device", "scratch_mount")
    assert rig.engine.requests == [("rw_mount_device", {"target": "a"}), ("scratch_mount", {"target": "b"})]


def test_what_a_policy_cannot_have_allowed_needs_an_open_door(rig: Rig) -> None:
    with pytest.raises(Unsupported, match="a spaceship is not supported"), rig.enforcer.change("MountDevice") as asker:
        asker.require_open_door("a spaceship")
    rig.engine.open_door = True
    with rig.enforcer.change("MountDevice") as asker:
        asker.require_open_door("a spaceship")
        asker.ask("mount_device", {})


def test_a_denial_without_words_names_the_point(rig: Rig) -> None:
    rig.engine.verdict = Verdict(allowed=False)
    with pytest.raises(Denied, match=r"^mount_device denied: the policy does not allow it"):
        change(rig)


def test_what_the_kernel_refuses_is_told_with_its_words_and_changes_nothing(rig: Rig) -> None:
    with pytest.raises(Unavailable, match="the guest's kernel refused: Input/output error"):
        change(rig, OSError(5, "Input/output error", "/secret"))
    assert rig.state == ()
    change(rig)


def test_a_poisoned_group_says_why(rig: Rig) -> None:
    assert rig.enforcer.poisoned == ""
    with pytest.raises(Unavailable, match=r"^internal error \(ZeroDivisionError\)"):
        change(rig, ZeroDivisionError("secret"))
    assert rig.enforcer.poisoned == "internal error (ZeroDivisionError)"
    with pytest.raises(FailedPrecondition, match=r"no more changes: internal error \(ZeroDivisionError\)"):
        change(rig)


def test_endorsements_are_wanted_only_where_the_policy_and_a_tee_make_use_of_them() -> None:
    target = enforcer()
    with pytest.raises(FailedPrecondition, match="no execution policy"):
        assert target.wants_endorsements
    give(target)
    assert target.wants_endorsements

    class Indifferent(FakeEngine):
        def wants_endorsements(self) -> bool:
            return False

    other = Enforcer(Tee(hashlib.sha256(POLICY).digest()), Indifferent)
    give(other)
    assert not other.wants_endorsements


def test_only_a_permissive_policy_is_recorded(rig: Rig) -> None:
    with pytest.raises(FailedPrecondition, match="nothing is recorded"):
        rig.enforcer.recording(0)
    assert rig.engine.requests == [("runtime_logging", {})]
    rig.engine.deny.add("runtime_logging")
    with pytest.raises(Denied):
        rig.enforcer.recording(0)


def test_pieces_are_forgotten_with_the_attempt() -> None:
    target = enforcer()
    with pytest.raises(Denied):
        give(target, b"another")
    target.put_policy(0, POLICY)  # from the start again
    with pytest.raises(Malformed, match="incomplete"):
        target.set_policy(len(POLICY) - 1)
    give(target)


def test_undo_runs_backwards_and_reports_what_it_could_not_take_back() -> None:
    order: list[int] = []
    with pytest.raises(Unavailable, match="first"), Undo() as undo:
        undo.add(lambda: order.append(1))
        undo.add(lambda: order.append(2))
        raise Unavailable("first")
    assert order == [2, 1]

    def stuck() -> None:
        raise OSError(16, "busy")

    with pytest.raises(CleanupFailed, match=r"first.*busy"), Undo() as undo:
        undo.add(lambda: order.append(3))
        undo.add(stuck)
        raise Unavailable("first")
    assert order == [2, 1, 3]


def test_the_policy_is_kept_as_it_was_accepted_and_says_what_it_wants() -> None:
    target = enforcer()
    assert target.policy_bytes == b""
    give(target)
    assert target.policy_bytes == POLICY
    assert target.wants_endorsements
    without = Enforcer(NoTee(), FakeEngine)
    give(without)
    assert not without.wants_endorsements
