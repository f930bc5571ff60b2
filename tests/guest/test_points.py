# SPDX-License-Identifier: Apache-2.0
"""Every request has a row in the table, and nothing gets past it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from parma_guest import documents, forwarding, group, points, storage
from parma_guest.points import Kind
from parma_guest.service import GuestService, StreamService, guarded
from parma_policy.points import OWN_POINTS, POINTS
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition
from tests.guest.fakes import Rig

SERVICES = pb.DESCRIPTOR.services_by_name
METHODS = [method.name for name in ("Guest", "Streams") for method in SERVICES[name].methods]


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_has_a_row_with_points_or_a_reason(method: str) -> None:
    row = points.TABLE[method]
    assert bool(row.points) != bool(row.reason)


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_is_implemented(method: str) -> None:
    assert hasattr(GuestService, method) or hasattr(StreamService, method)


def test_no_row_is_left_over() -> None:
    assert set(points.TABLE) == set(METHODS)


def test_a_request_without_a_row_cannot_be_written() -> None:
    def Reveal(_self: object, _request: object, _context: object) -> None:  # noqa: N802
        raise AssertionError

    with pytest.raises(TypeError, match="Reveal has no enforcement point"):
        guarded(Reveal)


def test_every_point_exists_in_the_framework() -> None:
    assert {point for row in points.TABLE.values() for point in row.points} <= {*POINTS, *OWN_POINTS}


def test_only_rows_of_the_right_kind_are_named() -> None:
    named = set()
    nodes = (
        node
        for module in (group, storage, forwarding, documents)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
    )
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("change", "read"):
            method = cast("ast.Constant", node.args[0]).value
            kind = Kind.CHANGE if node.func.attr == "change" else Kind.READ
            assert points.TABLE[str(method)].kind is kind
            named.add(method)
    needing = {name for name, row in points.TABLE.items() if row.kind in (Kind.CHANGE, Kind.READ)}
    assert named | {"Evidence", "Recording"} == needing


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def call(service: GuestService, method: str) -> Any:
    descriptor = SERVICES["Guest"].methods_by_name[method]
    request = getattr(pb, descriptor.input_type.name)()
    context = SimpleNamespace(on_cancel=lambda _: None, after_reply=lambda _: None)
    return getattr(service, method)(request, context)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("Stream", "Forward")])
def test_nothing_but_bootstrap_requests_is_answered_before_a_policy(rig: Rig, method: str) -> None:
    service = GuestService(rig.enforcer, rig.group, (), lambda: None)
    kind = points.TABLE[method].kind
    if kind in (Kind.BOOTSTRAP, Kind.STOP):
        return
    with pytest.raises(Exception) as raised:  # malformed for empty fields, or no policy: never an answer
        call(service, method)
    assert getattr(raised.value, "code", 0) in (3, 9)
    assert rig.engine.requests == []


def test_a_method_without_a_row_is_denied(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    service = GuestService(rig.enforcer, rig.group, (), lambda: None)
    without = {name: row for name, row in points.TABLE.items() if name != "Hello"}
    monkeypatch.setattr(points, "TABLE", without)
    with pytest.raises(Denied):
        call(service, "Hello")


def test_a_change_that_asks_too_little_or_something_else_is_denied(rig: Rig) -> None:
    rig.set_policy()
    with pytest.raises(Denied, match="was not asked about scratch_mount"), rig.enforcer.change("MountScratch") as asker:
        asker.ask("rw_mount_device", {})
    with pytest.raises(Denied, match="not an enforcement point"), rig.enforcer.change("MountDevice") as asker:
        asker.ask("get_properties", {})
    assert rig.state == ()


def test_evidence_needs_a_policy(rig: Rig) -> None:
    with pytest.raises(FailedPrecondition):
        rig.enforcer.evidence(bytes(64))
    rig.set_policy()
    assert rig.enforcer.evidence(bytes(64)) == b""
