# SPDX-License-Identifier: Apache-2.0
"""Where reports come from, and that nothing falls back to anything."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_guest import boot, tee
from parma_guest.sevguest import SNP_GET_DERIVED_KEY, SNP_GET_REPORT, SevGuest, pack_report_response
from parma_guest.tee import EmulatedTee, NoTee, SnpTee
from parma_snp.emulated import EmulatedAuthority, ensure_authority
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, ParmaError, Unavailable, Unverified
from tests.guest.test_sevguest import FakeSevGuestDevice
from ttrpc import Server

DATA = bytes(range(64))
HOST_DATA = b"h" * 32


def refuse(_port: int) -> socket.socket:
    pytest.fail("nothing should listen")


def test_the_command_line_alone_chooses_and_the_machine_must_fit(tmp_path: Path) -> None:
    there, absent = (tmp_path,), (tmp_path / "no",)
    assert tee.provider("none", refuse, lambda _: True, snp_marks=absent).name == "none"
    assert tee.provider("snp", refuse, lambda _: True, snp_marks=there).name == "snp"
    with socket.socket() as listener:
        emulated = tee.provider("emulated", lambda _: listener, lambda _: True, snp_marks=absent)
        assert emulated.name == "emulated"
    for name, marks in (("snp", absent), ("none", there), ("emulated", there)):
        with pytest.raises(Unverified):
            tee.provider(name, refuse, lambda _: True, snp_marks=marks)
    with pytest.raises(Malformed):
        tee.provider("tdx", refuse, lambda _: True, snp_marks=absent)


def test_none_has_no_report_and_says_so() -> None:
    assert NoTee().report(DATA) == b""
    assert NoTee().host_data() is None


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> EmulatedAuthority:
    return ensure_authority(tmp_path_factory.mktemp("authority"))


def report(authority: EmulatedAuthority, report_data: bytes, vmpl: int = 0) -> bytes:
    return authority.sign_report(
        report_data=report_data, host_data=HOST_DATA, measurement=bytes(48), report_id=bytes(32), vmpl=vmpl
    )


class Host:
    """The host's side of the emulated secure processor."""

    def __init__(self, authority: EmulatedAuthority, path: str) -> None:
        self.authority = authority
        self._path = path
        self.key = b"k" * 32
        self.answer: Any = lambda data: report(authority, data)
        self.calls = 0

    def GetReport(self, request: pb.GetReportRequest, _context: Any) -> pb.GetReportResponse:  # noqa: N802
        self.calls += 1
        return pb.GetReportResponse(report=self.answer(request.report_data))

    def GetDerivedKey(  # noqa: N802
        self, request: pb.GetDerivedKeyRequest, _context: Any
    ) -> pb.GetDerivedKeyResponse:
        assert request.guest_field_select == 0b1001
        return pb.GetDerivedKeyResponse(key=self.key)

    def dial(self) -> tuple[socket.socket, threading.Thread]:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        server = Server()
        server.register(pb.DESCRIPTOR.services_by_name["EmulatedSecureProcessor"], self)
        thread = threading.Thread(target=server.serve_connection, args=(sock,), daemon=True)
        thread.start()
        return sock, thread


@pytest.fixture
def emulated(authority: EmulatedAuthority, tmp_path: Path) -> Iterator[tuple[EmulatedTee, Host]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "port"))
        listener.listen()
        host = Host(authority, str(tmp_path / "port"))
        target = EmulatedTee(listener, lambda _: True)
        yield target, host
        if target._client is not None:
            target._client.close()


def test_an_emulated_report_comes_from_the_host_that_dialled_in(emulated: tuple[EmulatedTee, Host]) -> None:
    target, host = emulated
    host.dial()
    assert target.report(DATA)[0x50:0x90] == DATA
    assert target.host_data() == HOST_DATA
    assert host.calls == 2


def test_a_lost_connection_is_replaced_by_the_next_one(emulated: tuple[EmulatedTee, Host]) -> None:
    target, host = emulated
    sock, thread = host.dial()
    target.report(DATA)
    sock.shutdown(socket.SHUT_RDWR)
    thread.join(60)
    host.dial()
    for _ in range(2):  # the first call may still find the old connection
        try:
            target.report(DATA)
            break
        except Unavailable:
            continue
    else:
        pytest.fail("no report")


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"",
        lambda good: good[:-1],
        lambda good: good + b"\0",
        lambda _: bytes(1184),
        lambda good: good[:0x50] + bytes(64) + good[0x90:],
    ],
)
def test_a_report_that_is_none_or_another_one_is_refused(emulated: tuple[EmulatedTee, Host], answer: Any) -> None:
    target, host = emulated
    honest = host.answer
    host.answer = lambda data: answer(honest(data))
    host.dial()
    with pytest.raises(ParmaError):
        target.report(DATA)
    with pytest.raises(ParmaError):
        target.host_data()


def test_a_stranger_is_turned_away(
    authority: EmulatedAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tee, "_DIAL_TIMEOUT", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "port"))
        listener.listen()
        Host(authority, str(tmp_path / "port")).dial()
        with pytest.raises(Unavailable, match="did not call"):
            EmulatedTee(listener, lambda _: False).report(DATA)


class Entry:
    """configfs-tsm's answer for one request: a directory whose files appear with mkdir."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **files: bytes) -> None:
        self.written: dict[str, bytes] = {}
        original_mkdir, original_rmdir = Path.mkdir, Path.rmdir
        contents = {"provider": b"sev_guest\n", "outblob": b"", "privlevel": b"", "inblob": b"", **files}
        reads = iter((b"5\n", contents.pop("generation_after", b"7\n")))

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            original_mkdir(path, *args, **kwargs)
            for name, data in contents.items():
                (path / name).write_bytes(data)

        def rmdir(path: Path) -> None:
            for name in contents:
                self.written[name] = (path / name).read_bytes()
                (path / name).unlink()
            original_rmdir(path)

        original_read = Path.read_text
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)
        monkeypatch.setattr(
            Path,
            "read_text",
            lambda path: next(reads).decode() if path.name == "generation" else original_read(path),
        )


def test_a_real_report_is_read_through_configfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: EmulatedAuthority
) -> None:
    good = report(authority, DATA)
    entry = Entry(monkeypatch, outblob=good)
    assert SnpTee(tmp_path).report(DATA) == good
    assert entry.written["inblob"] == DATA
    assert entry.written["privlevel"] == b"0"
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("files", [{"provider": b"tdx_guest\n"}, {"generation_after": b"8\n"}, {"outblob": b"short"}])
def test_anything_odd_about_a_real_report_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: EmulatedAuthority, files: dict[str, bytes]
) -> None:
    Entry(monkeypatch, **{"outblob": report(authority, DATA), **files})
    with pytest.raises(Unverified):
        SnpTee(tmp_path).report(DATA)


def test_without_configfs_and_device_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SnpTee(tmp_path / "absent", SevGuest(tmp_path / "sev-guest")).host_data()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENXIO])
def test_where_configfs_serves_no_reports_the_same_processor_is_asked_by_ioctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: EmulatedAuthority, number: int
) -> None:
    def refuse_to_make(path: Path, *_args: Any, **_kwargs: Any) -> None:
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse_to_make)
    good = report(authority, DATA)
    device = FakeSevGuestDevice(pack_report_response(good))
    assert SnpTee(tmp_path, device.client()).report(DATA) == good
    ((request, _),) = device.calls
    assert request == SNP_GET_REPORT


def test_any_other_error_of_configfs_stays_one(tmp_path: Path) -> None:
    device = FakeSevGuestDevice()
    (tmp_path / "parma").mkdir()  # somebody else's request
    with pytest.raises(Unavailable):
        SnpTee(tmp_path, device.client()).report(DATA)
    assert device.calls == []


def test_a_real_key_is_derived_from_policy_and_measurement() -> None:
    device = FakeSevGuestDevice(bytes(32) + b"k" * 32)
    assert SnpTee(device=device.client()).derived_key() == b"k" * 32
    ((request, message),) = device.calls
    assert request == SNP_GET_DERIVED_KEY
    assert message[8:16] == (0b1001).to_bytes(8, "little")


def test_an_emulated_key_comes_from_the_host_and_has_one_size(emulated: tuple[EmulatedTee, Host]) -> None:
    target, host = emulated
    host.dial()
    assert target.derived_key() == b"k" * 32
    host.key = b"short"
    with pytest.raises(Unverified):
        target.derived_key()
    with pytest.raises(Unavailable):
        NoTee().derived_key()


def test_a_report_of_another_vmpl_is_not_the_one_that_was_asked_for(emulated: tuple[EmulatedTee, Host]) -> None:
    target, host = emulated
    host.dial()
    with pytest.raises(Unverified):
        target.report(DATA, 2)  # this host ignores it
    host.answer = lambda data: report(host.authority, data, vmpl=2)
    assert target.report(DATA, 2)[0x30] == 2


def test_report_data_has_one_size() -> None:
    with pytest.raises(Malformed):
        SnpTee().report(b"x")


def test_the_time_of_the_kernel_comes_from_its_log() -> None:
    log = "6,1,100,-;Linux version\n6,399,123456,-;Run /init as init process\n SUBSYSTEM=x\n7,400,123999,-;other\n"
    assert boot.kernel_ready_us(log) == 123456
    assert boot.kernel_ready_us("") == 0


def test_kernel_switches_that_exist_are_set_and_others_ignored(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/modprobe").write_text("/sbin/modprobe")
    (tmp_path / "kernel/modules_disabled").write_text("0")
    boot.lock_down(tmp_path)
    assert (tmp_path / "kernel/modprobe").read_text().strip() == ""
    assert (tmp_path / "kernel/modules_disabled").read_text() == "1"
    assert not (tmp_path / "kernel/kexec_load_disabled").exists()


def test_controllers_that_exist_are_enabled(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory rdma\n")
    boot.enable_controllers(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tmp_path / "parma/cgroup.subtree_control").read_text() == "+cpu +memory"
