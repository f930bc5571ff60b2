# SPDX-License-Identifier: Apache-2.0
"""Files that the host provides: hostile names and contents, written through this machine's own openat2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import generated, paths, provided
from parma_guest.files import File
from parma_guest.host import GuestHost
from parma_guest.provided import HostFiles, Provided, Staging, checked, parse
from parma_guest.syscalls import Kernel
from parma_guest.values import ContainerId
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed, ParmaError
from parma_wire.limits import MAX_FILE_BYTES, MAX_FILES, POLICY_CHUNK
from tests.guest.fakes import Rig

POD, APP = ContainerId("a1" * 32), ContainerId("b2" * 32)


def file(path: str = "", data: bytes = b"x", mode: int = 0o640) -> File:
    return File(path, mode, os.geteuid(), os.getegid(), data)


# -- resolv.conf, hosts, hostname --------------------------------------------------------------------------------


def test_resolv_conf_is_written_anew() -> None:
    data = b"# comment\nnameserver 10.0.0.10 ; me\n\nsearch a.svc\tb.c\r\noptions ndots:5 edns0\nnameserver fd00::a\n"
    made = generated.resolv_conf(data)
    assert made == b"search a.svc b.c\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n"
    assert generated.resolv_conf(made) == made


@pytest.mark.parametrize(
    "data",
    [
        b"nameserver 10.0.0.1 10.0.0.2\n",
        b"nameserver localhost\n",
        b"nameserver fe80::1%eth0\n",
        b"nameserver 224.0.0.1\n",
        b"sortlist 10.0.0.0\n",
        b"options inet6\n",
        b"options debug\n",
        b"search a\x00b\n",
        b"search a/b\n",
        b"search " + b"a" * 254 + b"\n",
        b"nameserver 10.0.0.1\x0bnameserver 10.0.0.2\n",
        b"nameserver 10.0.0.1\n" * 9,
        "search café\n".encode(),
        b"#" * 70_000,
    ],
)
def test_what_is_no_resolv_conf_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        generated.resolv_conf(data)


def test_hosts_is_written_anew_and_localhost_stays_here() -> None:
    data = b"127.0.0.1 localhost\n::1\tlocalhost ip6-localhost\n10.1.2.3  web-0.svc web_0 # comment\n"
    made = generated.hosts(data)
    assert made == b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n10.1.2.3\tweb-0.svc web_0\n"
    assert generated.hosts(made) == made
    for hostile in (b"10.1.2.3 localhost\n", b"10.1.2.3 LocalHost.\n", b"10.1.2.3 db.localhost\n", b"10.1.2.3\n"):
        with pytest.raises(Malformed):
            generated.hosts(hostile)


def test_hostname_is_one_name() -> None:
    assert generated.hostname(b"web-0\n") == b"web-0\n"
    for hostile in (b"", b"a b\n", b"a\nb\n", b"-a\n", b"a\rb", b"a" * 64):
        with pytest.raises(Malformed):
            generated.hostname(hostile)


@given(st.sampled_from(list(generated.GENERATED.values())), st.binary(max_size=200))
def test_whatever_is_generated_reads_the_same_again(make: Any, data: bytes) -> None:
    try:
        made = make(data)
    except Malformed:
        return
    assert make(made) == made


# -- requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "/etc/hosts/x",
        "/volumes/empty-dir/cache",
        "/volumes/nerdctl/data",
        "/volumes/configmap/../empty-dir/x",
        "/volumes/configmap/..data",
        "/volumes/configmap/a/b",
        "/tmp/atlas/emptydir/x",
        "/",
        "etc/hosts",
        "",
    ],
)
def test_the_host_may_provide_nothing_elsewhere(source: str) -> None:
    with pytest.raises(Malformed):
        parse(pb.ProvideFilesRequest(container_id=POD, source=source))


def put(staging: Staging, path: str, data: bytes, offset: int = 0, **more: int) -> None:
    staging.put(pb.PutFileRequest(name=path, data=data, offset=offset, **more))


def test_pieces_become_files_without_special_bits() -> None:
    staging = Staging()
    put(staging, "a", b"12", mode=0o4755, uid=5, gid=6)
    put(staging, "a", b"3", 2)
    put(staging, "dir/b", b"")
    assert staging.take() == (File("a", 0o755, 5, 6, b"123"), File("dir/b", 0, 0, 0, b""))
    assert staging.take() == ()


@pytest.mark.parametrize(
    "path", ["../a", "a/../b", "/a", "a//b", "a/", ".", "a\nb", "a\0", "x" * 256, "/".join("a" * 20)]
)
def test_names_that_lead_elsewhere_are_malformed(path: str) -> None:
    with pytest.raises(Malformed):
        put(Staging(), path, b"x")


def test_pieces_are_in_order_and_bounded() -> None:
    staging = Staging()
    with pytest.raises(Malformed, match="out of order"):
        put(staging, "a", b"x", 1)
    put(staging, "a", b"x")
    with pytest.raises(Malformed, match="out of order"):
        put(staging, "b", b"x", 1)
    with pytest.raises(Malformed, match="bad size"):
        put(staging, "a", bytes(POLICY_CHUNK + 1), 1)
    for offset in range(1, MAX_FILE_BYTES - POLICY_CHUNK, POLICY_CHUNK):
        put(staging, "a", bytes(POLICY_CHUNK), offset)
    with pytest.raises(Malformed, match="too large"):
        put(staging, "a", bytes(POLICY_CHUNK), offset + POLICY_CHUNK)
    for number in range(MAX_FILES):
        put(staging, f"f{number}", b"x")
    with pytest.raises(Malformed, match="too many"):
        put(staging, "more", b"x")
    assert staging.take() == ()


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("", "a")])
def test_a_file_cannot_be_two_things(names: tuple[str, str]) -> None:
    staging = Staging()
    for name in names:
        put(staging, name, b"x")
    with pytest.raises(Malformed):
        staging.take()


# -- writing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the sandbox `POD`."""
    monkeypatch.setattr(paths, "CONTAINERS", str(tmp_path))
    return Path(paths.sandbox_mounts(POD))


@pytest.fixture
def files() -> Provided:
    return Provided(GuestHost(Kernel()))


def test_files_are_written_with_their_modes_and_replaced_as_a_whole(base: Path, files: Provided) -> None:
    source = "/host/srv/settings"
    files.write(POD, source, [file("a", b"1"), file("dir/b", b"2", 0o444)])
    place = base / "host/srv/settings"
    assert (place / "a").read_bytes() == b"1"
    assert (place / "dir/b").stat().st_mode & 0o7777 == 0o444
    opened = (place / "a").open("rb")
    files.write(POD, source, [file("a", b"new")])
    with opened:
        assert opened.read() == b"1"
    assert (place / "a").read_bytes() == b"new"
    assert sorted(path.name for path in place.rglob("*")) == ["a", "dir"]


VOLUME = "/volumes/configmap/settings"


def seen(place: Path) -> dict[str, bytes]:
    """What a container finds by the names that it knows."""
    return {entry.name: entry.read_bytes() for entry in place.iterdir() if entry.is_file()}


def test_all_files_of_a_volume_change_at_once(base: Path, files: Provided) -> None:
    place = base / VOLUME.lstrip("/")
    files.write(POD, VOLUME, [file("a", b"1"), file("dir/b", b"1", 0o444)])
    before = os.open(place / "..data", os.O_RDONLY | os.O_DIRECTORY)
    opened = (place / "..data/a").open("rb")
    assert (place / "a").readlink() == Path("..data/a")
    assert (place / "dir/b").stat().st_mode & 0o7777 == 0o444
    files.write(POD, VOLUME, [file("a", b"2"), file("c", b"2")])
    with opened:
        assert opened.read() == b"1"  # who has it open reads it to its end
    assert os.listdir(before) == []  # noqa: PTH208 - by descriptor: the old version, in place until nobody has it
    os.close(before)
    assert seen(place) == {"a": b"2", "c": b"2"}
    assert sorted(entry.name for entry in place.iterdir()) == sorted(
        ["..data", (place / "..data").readlink().name, "a", "c"]
    )


@pytest.mark.parametrize("sabotage", ["..data", "c"])
def test_an_update_that_fails_leaves_all_as_it_was(base: Path, files: Provided, sabotage: str) -> None:
    place = base / VOLUME.lstrip("/")
    files.write(POD, VOLUME, [file("a", b"1")])
    before = (place / "..data").readlink()
    names = sorted(entry.name for entry in place.iterdir())
    if sabotage == "..data":  # a container with a writable mount
        (place / "..data").unlink()
        (place / "..data").mkdir()
    else:
        (place / "c").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(POD, VOLUME, [file("a", b"2"), file("b", b"2"), file("c", b"2")])
    assert (place / before / "a").read_bytes() == b"1"
    assert sorted(entry.name for entry in place.iterdir()) == sorted({*names, sabotage})
    (place / sabotage).rmdir()
    files.write(POD, VOLUME, [file("a", b"3"), file("c", b"3")])
    assert seen(place) == {"a": b"3", "c": b"3"}


def test_names_of_the_layout_are_not_the_hosts(base: Path, files: Provided) -> None:
    for name in ("..data", "..data/a", "..parma-1/a"):
        with pytest.raises(Malformed):
            files.write(POD, VOLUME, [file(name)])
    assert not (base / "volumes").exists()


def test_what_a_container_adds_to_an_old_version_stays_its_own(base: Path, files: Provided, tmp_path: Path) -> None:
    place = base / VOLUME.lstrip("/")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"untouched")
    files.write(POD, VOLUME, [file("a", b"1"), file("dir/b", b"1")])
    version = place / (place / "..data").readlink()
    (version / "dir/b").unlink()
    (version / "dir").rmdir()
    (version / "dir").symlink_to(outside)
    files.write(POD, VOLUME, [file("a", b"2")])
    assert (outside / "b").read_bytes() == b"untouched"
    assert seen(place) == {"a": b"2"}


def test_a_single_file_stays_the_same_file(base: Path, files: Provided) -> None:
    files.write(POD, "/etc/hosts", [file(data=b"127.0.0.1\tlocalhost\n")])
    before = (base / "etc/hosts").stat().st_ino
    files.write(POD, "/etc/hosts", [file(data=b"::1\tx\n")])
    assert (base / "etc/hosts").stat().st_ino == before
    assert (base / "etc/hosts").read_bytes() == b"::1\tx\n"


@pytest.mark.parametrize("at", ["volumes", "volumes/secret", "volumes/secret/s", "volumes/secret/s/a"])
def test_no_link_is_followed_wherever_a_container_puts_one(
    base: Path, files: Provided, tmp_path: Path, at: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"untouched")
    link = base / at
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "a" if at.endswith("/a") else outside)
    try:
        files.write(POD, "/volumes/secret/s", [file("a", b"secret")])
    except (OSError, ParmaError):
        pass
    else:
        assert at.endswith("/a")  # the link itself was replaced
        assert link.readlink() == Path("..data/a")
    assert (outside / "a").read_bytes() == b"untouched"
    assert [path.name for path in outside.iterdir()] == ["a"]


def test_an_update_of_a_single_file_follows_no_link_either(base: Path, files: Provided, tmp_path: Path) -> None:
    files.write(POD, "/etc/hosts", [file(data=b"1")])
    (tmp_path / "outside").write_bytes(b"untouched")
    (base / "etc/hosts").unlink()
    (base / "etc/hosts").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        files.write(POD, "/etc/hosts", [file(data=b"2")])
    assert (tmp_path / "outside").read_bytes() == b"untouched"


def test_all_together_is_bounded(files: Provided, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provided, "MAX_ALL_BYTES", 10)
    with pytest.raises(FailedPrecondition):
        files.require_room(POD, "/etc/hosts", [file(data=b"12345678901")])


def test_what_is_replaced_does_not_count_any_more(base: Path, files: Provided, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provided, "MAX_ALL_BYTES", 10)
    monkeypatch.setattr(provided, "MAX_SOURCES", 1)
    files.write(POD, "/host/a", [file(data=b"1234567890")])
    files.require_room(POD, "/host/a", [file(data=b"0987654321")])
    with pytest.raises(FailedPrecondition):
        files.require_room(POD, "/host/b", [file(data=b"")])
    assert (base / "host/a").read_bytes() == b"1234567890"


# -- the gate ----------------------------------------------------------------------------------------------------


class Asked:
    """A policy that notes and allows, or denies."""

    def __init__(self, *, deny: bool = False) -> None:
        self.deny = deny
        self.requests: list[Any] = []

    def ask(self, point: str, request: Any) -> object:
        self.requests.append((point, request))
        if self.deny:
            raise Denied("no")
        return None


def test_the_policy_sees_what_will_be_in_the_files(base: Path) -> None:
    host_files = HostFiles(GuestHost(Kernel()))
    put(host_files.staging, "", b"# x\nnameserver 10.0.0.1\n")
    asked = Asked()
    request = pb.ProvideFilesRequest(container_id=APP, source="/etc/resolv.conf")
    made = checked("/etc/resolv.conf", [file(data=b"nameserver 10.0.0.1\n")])[0]
    host_files.provide(request, asked, POD)
    assert asked.requests == [
        (
            "provide_files",
            {
                "containerID": APP,
                "sandboxDir": str(base),
                "source": f"{base}/etc/resolv.conf",
                "files": [{"path": "", "sha256": made.sha256}],
                "update": False,
            },
        )
    ]
    assert (base / "etc/resolv.conf").read_bytes() == b"nameserver 10.0.0.1\n"


def test_nothing_is_written_that_is_denied(base: Path) -> None:
    host_files = HostFiles(GuestHost(Kernel()))
    put(host_files.staging, "a", b"x")
    with pytest.raises(Denied):
        host_files.provide(pb.ProvideFilesRequest(container_id=APP, source="/volumes/secret/s"), Asked(deny=True), POD)
    assert not base.exists()
    assert host_files.staging.take() == ()


def test_the_files_of_the_platform_have_no_other_source(base: Path) -> None:
    host_files = HostFiles(GuestHost(Kernel()))
    for source, data in (("/volumes/configmap/c", b"x"), ("/tmp/atlas/resolvconf/1", b"nameserver 10.0.0.1\n")):
        put(host_files.staging, "", data)
        host_files.provide(pb.ProvideFilesRequest(container_id=APP, source=source), Asked(), POD)
    host_files.provided.check_mount(POD, "/etc/resolv.conf", f"{base}/tmp/atlas/resolvconf/1")
    host_files.provided.check_mount(POD, "/settings", f"{base}/volumes/configmap/c")
    for destination, source in (
        ("/etc/hosts", "/volumes/configmap/c"),
        ("/etc/resolv.conf", "/etc/hosts"),
        ("/etc/hostname", "/etc/hostname"),
    ):
        with pytest.raises(Denied):
            host_files.provided.check_mount(POD, destination, f"{base}{source}")


def test_the_group_asks_for_each(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.set_policy()
    rig.engine.deny.add("provide_files")
    rig.group.put_file(pb.PutFileRequest(name="a", data=b"x"))
    with pytest.raises(Denied):
        rig.group.provide_files(pb.ProvideFilesRequest(container_id=APP, source="/volumes/secret/s"))
