# SPDX-License-Identifier: Apache-2.0
"""Rows R1 to R14 in a booted guest: paths, symbolic links and mounts."""

from __future__ import annotations

import hashlib

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, ParmaError
from tests.guest import vm_harness as vm
from tests.hostile.stage import QUIET, SHARED, SLEEP, WHERE, Stage, script

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GUESTS_OWN = {"c", "empty", "nothing", "pins"}
"""What is in the enforcer's private directory."""

IN_TIME = 40.0
"""Seconds; what hangs is given up by the guest itself after 60."""


def shared(sandbox: str, name: str, destination: str = "/shared") -> pb.Mount:
    """A bind mount of a directory that the group's containers share."""
    source = f"/run/gcs/c/{sandbox}/sandboxMounts{SHARED}/{name}"
    return pb.Mount(destination=destination, type="bind", source=source, options=["rbind", "rw"])


@pytest.fixture(scope="module")
def sandbox(shared_stage: Stage) -> str:
    """A container that shares the directory ``v`` and puts symbolic links into it; the group's sandbox for good."""
    name = shared_stage.new_id()
    shared_stage.make_rootfs(name, "base")
    mounts = [shared(name, "v"), shared(name, "v", "/data/in")]
    shared_stage.guest.create(SLEEP, name, sandbox_container=True, mounts=mounts)
    shared_stage.guest.start(name)
    assert shared_stage.run(name, "shared-link") == ["made"]
    return name


def test_R01_a_bind_mount_never_follows_a_link_that_a_container_made(stage: Stage, sandbox: str) -> None:
    other = stage.new_id()
    stage.make_rootfs(other, "base")
    for name in ("v/link", "v/root", "v/link/c", "v/root/run/parma", "v/dir/../link", "v/./dir", "v//dir"):
        with pytest.raises(ParmaError):
            stage.guest.create(SLEEP, other, mounts=[shared(sandbox, name)])
    stage.guest.create(SLEEP, other, mounts=[shared(sandbox, "v/dir")])  # the refusal cost nothing
    stage.remove(other)


def test_R01_a_directory_exchanged_for_a_link_while_it_is_mounted_gives_nothing_away(
    stage: Stage, sandbox: str
) -> None:
    spinner = stage.start_exec(sandbox, "spin-links")
    for _ in range(12):
        other = stage.new_id()
        stage.make_rootfs(other, "base")
        try:
            stage.guest.create(SLEEP, other, mounts=[shared(sandbox, "v/a")])
        except ParmaError:  # it was a link at the wrong moment
            stage.remove_rootfs(other)
            continue
        stage.guest.start(other)
        assert not GUESTS_OWN & set(stage.run(other, "list-shared"))
        stage.end(other)
    stage.signal(sandbox, exec_id=spinner)
    stage.guest.wait(sandbox, spinner)


def test_R07_cleaning_up_after_a_hostile_root_touches_nothing_else(stage: Stage) -> None:
    with stage.container() as witness:
        with stage.container() as name:
            assert stage.run(name, "root-links")[-1:] == ["made"]
        # Its overlay and scratch are gone; the layer below both, and the other's root, are as they were.
        assert stage.run(witness, "write-layer") == ["changed"]


def test_R09_what_a_container_writes_never_reaches_the_layer_below(stage: Stage) -> None:
    before = hashlib.sha256(stage.disk("base").read_bytes()).digest()
    with stage.container() as name:
        assert stage.run(name, "write-layer") == ["changed"]
    with stage.container() as name:
        options = [line.split(" ") for line in stage.run(name, "mounts")]
    assert next(words for words in options if words[4] == "/")[8] == "overlay"
    assert hashlib.sha256(stage.disk("base").read_bytes()).digest() == before


def test_R10_a_working_directory_that_is_a_link_out_of_the_root_stays_inside(stage: Stage) -> None:
    name = stage.new_id()
    stage.make_rootfs(name, "base")
    with pytest.raises(Malformed, match="working directory"):
        stage.guest.create(WHERE, name, cwd="/up/..")
    stage.guest.create(WHERE, name, cwd="/up")  # in the image a link to ../../../../../../..
    stage.guest.start(name)
    assert stage.guest.read_all(name) == b"/\n/layer\nend\n"
    assert stage.guest.wait(name) == 0
    stage.remove(name)


def test_R11_masks_hold_whatever_is_mounted_through_a_link_of_the_image(stage: Stage, sandbox: str) -> None:
    mounts = stage.run(sandbox, "mounts")
    assert any(line.split(" ")[4] == "/run/in" for line in mounts)  # /data is a link to /run in the image
    assert stage.run(sandbox, "masked") == ["0", "0", "0", "0"]


def test_R13_a_container_that_makes_its_user_files_pipes_holds_nobody_up(stage: Stage) -> None:
    with stage.container() as name:
        assert stage.run(name, "passwd-fifo") == ["made"]
        request = pb.ExecProcessRequest(container_id=name, exec_id="after", process=vm.process(script("hello")))
        stage.guest.call("ExecProcess", request, timeout=IN_TIME)
        assert stage.guest.read_all(name, exec_id="after") == b"hello\n"


def test_R13_a_container_that_exchanges_its_devices_for_pipes_holds_nobody_up(stage: Stage) -> None:
    for args in (SLEEP, QUIET):  # with stdio, and with /dev/null in its place
        with stage.container(args) as name:
            made = stage.start_exec(name, "null-fifo")
            assert stage.guest.wait(name, made) == 0
            request = pb.ExecProcessRequest(container_id=name, exec_id="after", process=vm.process(script("hello")))
            stage.guest.call("ExecProcess", request, timeout=IN_TIME)
            assert stage.guest.wait(name, "after") == 0


def test_R13_a_container_that_stops_what_enters_it_holds_nobody_up(stage: Stage) -> None:
    def enter_until_refused(name: str) -> None:
        for number in range(100):  # some are past what stops them
            process = vm.process(script("hello"))
            request = pb.ExecProcessRequest(container_id=name, exec_id=f"after-{number}", process=process)
            stage.guest.call("ExecProcess", request, timeout=IN_TIME)

    with stage.container() as name:
        stage.start_exec(name, "stop-others")
        with pytest.raises(ParmaError, match="stopped by others on its way"):
            enter_until_refused(name)


def test_R14_a_container_sees_no_process_but_its_own(stage: Stage) -> None:
    with stage.container() as name, stage.container() as other:
        for one in (name, other):
            rows = stage.guest.call("ListProcesses", pb.ListProcessesRequest(container_id=one)).processes
            assert len(rows) == 1
        seen = stage.run(name, "processes")
        assert seen[:2] == ["sleep", "sh"]
        assert set(seen) <= {"sleep", "sh", "grep"}  # when it looks, the last one may not have come yet
