# SPDX-License-Identifier: Apache-2.0
"""Files of the host on their way into the guest: what is recognised, what is read, and when it is read again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from parma_shim import host_tree
from parma_shim.host_mounts import HostMount, Names, host_mount, host_mounts
from parma_shim.host_tree import HostFile, read, stamp
from parma_shim.provided import HostFiles
from parma_wire.errors import Denied, NotFound, ParmaError, Unavailable, Unsupported
from tests.shim.support import Log, eventually

POD = "/var/lib/kubelet/pods/0a1b"
NAMES = Names()


def bind(source: str, destination: str = "/x") -> dict[str, Any]:
    return {"source": source, "destination": destination, "type": "bind", "options": ["rbind", "ro"]}


@pytest.mark.parametrize(
    ("source", "destination", "place"),
    [
        (f"{POD}/volumes/kubernetes.io~configmap/settings", "/x", "/volumes/configmap/settings"),
        (
            f"{POD}/volumes/kubernetes.io~projected/kube-api-access-abcde",
            "/x",
            "/volumes/projected/kube-api-access-abcde",
        ),
        (f"{POD}/volume-subpaths/settings/web/0", "/x", "/volume-subpaths/settings/web/0"),
        (f"{POD}/etc-hosts", "/etc/hosts", "/etc/hosts"),
        ("/run/containerd/sandboxes/1/resolv.conf", "/etc/resolv.conf", "/etc/resolv.conf"),
        ("/var/lib/nerdctl/1935db59/containers/default/1/hostname", "/etc/hostname", "/etc/hostname"),
        ("/srv/app/config.toml", "/x", "/host/srv/app/config.toml"),
        ("/srv/app/", "/x", "/host/srv/app"),
    ],
)
def test_a_source_on_the_host_has_a_place_in_the_guest(source: str, destination: str, place: str) -> None:
    found = host_mount(bind(source, destination), NAMES)
    assert found == HostMount(source, place, is_copied=True, is_empty=False)


def test_what_is_empty_in_the_guest_is_not_copied() -> None:
    log = host_mount(bind(f"{POD}/containers/web/0123abcd", "/dev/termination-log"), NAMES)
    assert log is not None
    assert (log.place, log.is_empty) == ("/termination-log/web", True)
    volume = host_mount(bind("/var/lib/nerdctl/1935db59/volumes/default/data/_data"), NAMES)
    assert volume is not None
    assert (volume.place, volume.is_copied) == ("/volumes/nerdctl/data", False)
    assert host_mounts([bind("/var/lib/nerdctl/1935db59/volumes/default/data/_data")], NAMES) == []


@pytest.mark.parametrize("place", ["/volumes/empty-dir/scratch", "/tmp/atlas/emptydir/scratch"])
def test_an_empty_directory_by_the_guests_own_name_is_not_looked_for_on_the_host(place: str) -> None:
    found = host_mount(bind(f"/run/gcs/c/{'a' * 64}/sandboxMounts{place}"), NAMES)
    assert found is not None
    assert (found.place, found.is_copied) == (place, False)


def test_only_empty_directories_are_known_by_the_guests_name() -> None:
    for place in ("/etc/hosts", "/volumes/secret/x", "/volumes/empty-dir/../x", "/volumes/empty-dir/a/b"):
        found = host_mount(bind(f"/run/gcs/c/{'a' * 64}/sandboxMounts{place}"), NAMES)
        assert found is not None
        assert (found.place.startswith("/host/"), found.is_copied) == (True, True)


def test_other_mounts_are_none_of_the_hosts() -> None:
    assert host_mount({"type": "tmpfs", "source": "tmpfs", "destination": "/x", "options": []}, NAMES) is None
    assert host_mount(bind("relative"), NAMES) is None


def test_a_policy_of_the_cloud_has_its_own_names() -> None:
    names = Names.of(b'"sandbox:///tmp/atlas/resolvconf/.+" "sandbox:///tmp/atlas/secretsVolume/.+"')
    found = host_mount(bind("/a/resolv.conf", "/etc/resolv.conf"), names)
    assert found is not None
    assert found.place.startswith("/tmp/atlas/resolvconf/")
    secret = host_mount(bind(f"{POD}/volumes/kubernetes.io~secret/tls"), names)
    assert secret is not None
    assert secret.place == "/tmp/atlas/secretsVolume/tls"
    assert Names.of(b"") == Names()


# -- reading -----------------------------------------------------------------------------------------------------


def kubelet_volume(directory: Path, **files: str) -> None:
    """As kubelet's atomic writer does it; a second time, the link leads somewhere else."""
    directory.mkdir(exist_ok=True)
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    for name, text in files.items():
        (version / name).write_text(text)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    (directory / "..next").symlink_to(version.name)
    (directory / "..next").rename(directory / "..data")


def test_links_of_a_volume_are_followed_here(tmp_path: Path) -> None:
    kubelet_volume(tmp_path / "v", a="1", b="2")
    assert [(file.path, file.data) for file in read(str(tmp_path / "v"))] == [("a", b"1"), ("b", b"2")]


def test_a_file_and_a_tree(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/f").write_bytes(b"x")
    (tmp_path / "dir/f").chmod(0o600)
    assert read(str(tmp_path / "dir/f")) == [HostFile("", 0o600, os.geteuid(), os.getegid(), b"x")]
    assert [file.path for file in read(str(tmp_path))] == ["dir/f"]


def test_what_cannot_be_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        read(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unsupported, match="only regular files"):
        read(str(tmp_path / "fifo"))
    with (tmp_path / "large").open("wb") as large:
        large.truncate((1 << 20) + 1)
    with pytest.raises(Unsupported, match="too large"):
        read(str(tmp_path / "large"))
    monkeypatch.setattr(host_tree, "MAX_FILES", 1)
    many = tmp_path / "many"
    many.mkdir()
    (many / "a").touch()
    (many / "b").touch()
    with pytest.raises(Unsupported, match="too many"):
        read(str(many))


def test_a_device_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = os.open

    def note(path: str, flags: int, *rest: int) -> int:
        opened.append(flags)
        return real(path, flags, *rest)

    (tmp_path / "v").mkdir()
    (tmp_path / "v/a").symlink_to("/dev/zero")
    monkeypatch.setattr(os, "open", note)
    for source in ("/dev/zero", str(tmp_path / "v")):
        with pytest.raises(Unsupported):
            read(source)
    assert opened
    assert all(flags & os.O_PATH for flags in opened)


@pytest.mark.parametrize("where", ["file", "directory", "..data"])
def test_a_link_that_leads_out_is_not_followed(tmp_path: Path, where: str) -> None:
    outside, volume = tmp_path / "outside", tmp_path / "v"
    outside.mkdir()
    (outside / "shadow").write_bytes(b"of the host")
    volume.mkdir()
    if where == "file":
        (volume / "a").symlink_to("../outside/shadow")
    elif where == "directory":
        (volume / "a").symlink_to(outside)
    else:
        (volume / "..data").symlink_to(outside)
    with pytest.raises(Unsupported, match="leads out"):
        read(str(volume))


def test_a_neighbour_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v2").write_bytes(b"x")
    (tmp_path / "v/a").symlink_to("../v2")
    with pytest.raises(Unsupported, match="leads out"):
        read(str(tmp_path / "v"))


def test_a_directory_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tree, "_MAX_ENTRIES", 4)
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(Unsupported, match=r"too many|too deep"):
        read(str(tmp_path))
    with pytest.raises(Unsupported, match=r"too many|too deep"):
        stamp(str(tmp_path))


def test_a_volume_is_read_from_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced between its first file and its second."""
    volume = tmp_path / "v"
    kubelet_volume(volume, a="1", b="1")
    real = host_tree._file

    def swapping(*arguments: str) -> HostFile:
        found = real(*arguments)
        if found.data == b"1":
            kubelet_volume(volume, a="2", b="2")
        return found

    monkeypatch.setattr(host_tree, "_file", swapping)
    assert len({file.data for file in read(str(volume))}) == 1


def test_a_version_that_is_gone_before_it_is_read_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "v"
    kubelet_volume(volume, a="1")
    real = host_tree._file

    def removing(*arguments: str) -> HostFile:
        version = (volume / "..data").readlink()
        if version.name == "..0":
            kubelet_volume(volume, a="2")
            (volume / version / "a").unlink()
        return real(*arguments)

    monkeypatch.setattr(host_tree, "_file", removing)
    assert [file.data for file in read(str(volume))] == [b"2"]


def test_a_stamp_is_of_everything_that_may_change(tmp_path: Path) -> None:
    volume, single = tmp_path / "v", tmp_path / "f"
    kubelet_volume(volume, a="1")
    single.write_bytes(b"1")
    stamps = [stamp(str(volume)), stamp(str(single)), stamp(str(tmp_path))]
    assert stamps == [stamp(str(volume)), stamp(str(single)), stamp(str(tmp_path))]
    kubelet_volume(volume, a="2")
    single.write_bytes(b"22")
    for before, source in zip(stamps, (volume, single, tmp_path), strict=True):
        assert stamp(str(source)) != before
    with pytest.raises(NotFound):
        stamp(str(tmp_path / "none"))


# -- handing over ------------------------------------------------------------------------------------------------


class Guest:
    """Remembers what it was given, and fails when told to."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, bytes], bool]] = []
        self.failure: ParmaError | None = None

    def provide_files(
        self, container_id: str, source: str, files: Iterable[HostFile], *, update: bool, deadline: float | None = None
    ) -> None:
        assert container_id in {"c", "d"}
        assert deadline in {None, 1.0}
        if self.failure is not None:
            raise self.failure
        self.given.append((source, {file.path: file.data for file in files}, update))


PLACE = "/volumes/configmap/v"
DENIED = Denied("the files cannot be changed")


class Given:
    """A volume that the guest has."""

    def __init__(self, directory: Path, *, interval: float = 0) -> None:
        self.guest, self.log = Guest(), Log()
        self.volume = directory / "v"
        kubelet_volume(self.volume, a="1")
        self.mount = HostMount(str(self.volume), PLACE, is_copied=True, is_empty=False)
        self.files = HostFiles(self.guest, interval=interval, log=self.log)
        self.provide("c")

    def provide(self, container: str) -> None:
        self.files.provide([self.mount], container, deadline=1.0)

    def change(self, text: str) -> None:
        kubelet_volume(self.volume, a=text)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_changes_are_handed_over(given: Given) -> None:
    given.provide("d")
    given.files.look()
    assert given.guest.given == [(PLACE, {"a": b"1"}, False)]
    given.change("2")
    given.files.look()
    given.files.look()
    assert given.guest.given[1:] == [(PLACE, {"a": b"2"}, True)]
    assert given.log.lines == []


def test_nothing_is_read_while_nothing_changes(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parma_shim.provided.read", None)
    given.files.look()


def test_a_refusal_is_logged_once_for_each_change(given: Given) -> None:
    given.guest.failure = DENIED
    for text in ("2", "3"):
        given.change(text)
        given.files.look()
        given.files.look()
    assert given.log.lines == ["denied: change of files: the files cannot be changed"] * 2
    assert given.log.fields[0] == {"method": "ProvideFiles", "source": str(given.volume)}
    given.guest.failure = None
    given.change("1")  # as it was
    given.files.look()
    assert given.guest.given[1:] == [(PLACE, {"a": b"1"}, True)]


def test_a_container_that_is_restarted_gets_what_the_vm_has(given: Given) -> None:
    given.change("2")
    given.guest.failure = DENIED
    given.provide("d")
    assert len(given.log.lines) == 1
    given.provide("d")
    assert len(given.log.lines) == 1


def test_a_container_that_is_restarted_is_not_kept_from_it_by_what_cannot_be_copied_any_more(given: Given) -> None:
    os.mkfifo(given.volume / "..data/pipe")
    given.provide("d")
    given.volume.rename(given.volume.with_name("elsewhere"))
    given.provide("d")
    assert len(given.guest.given) == 1
    given.guest.failure = Unavailable("busy")
    given.volume.with_name("elsewhere").rename(given.volume)
    given.change("2")
    with pytest.raises(Unavailable):
        given.provide("d")


def test_another_file_for_the_same_place_is_not_taken_for_a_change(given: Given, tmp_path: Path) -> None:
    kubelet_volume(tmp_path / "other", a="2")
    given.guest.failure = DENIED
    given.mount = given.mount._replace(source=str(tmp_path / "other"))
    with pytest.raises(Denied):
        given.provide("d")


def test_what_is_denied_from_the_start_is_a_failure(tmp_path: Path) -> None:
    guest = Guest()
    guest.failure = DENIED
    (tmp_path / "f").touch()
    mount = HostMount(str(tmp_path / "f"), "/host/f", is_copied=True, is_empty=False)
    with pytest.raises(Denied):
        HostFiles(guest, interval=0, log=Log()).provide([mount], "c", deadline=1.0)


def test_a_guest_that_cannot_take_it_now_is_asked_again(given: Given) -> None:
    given.guest.failure = Unavailable("no memory")
    given.change("2")
    given.files.look()
    given.files.look()
    assert given.log.lines == ["not possible: change of files: no memory"]
    given.guest.failure = None
    given.files.look()
    assert given.guest.given[1:] == [(PLACE, {"a": b"2"}, True)]


@pytest.mark.parametrize("hostile", ["link", "large", "device", "many"])
def test_hostile_changes_are_not_handed_over(given: Given, hostile: str) -> None:
    given.change("2")
    version = given.volume / "..data"
    match hostile:
        case "link":
            (version / "a").unlink()
            (version / "a").symlink_to("/etc/hostname")
        case "large":
            os.truncate(version / "a", (1 << 20) + 1)
        case "device":
            (version / "a").unlink()
            os.mkfifo(version / "a")
        case "many":
            for number in range(257):
                (version / str(number)).touch()
    given.files.look()
    given.files.look()
    assert given.guest.given == [(PLACE, {"a": b"1"}, False)]
    assert len(given.log.lines) == 1
    assert given.log.lines[0].startswith("not possible: change of files: ")
    given.change("3")
    given.files.look()
    assert given.guest.given[1:] == [(PLACE, {"a": b"3"}, True)]


def test_a_volume_that_is_gone_stays_as_it_was(given: Given) -> None:
    (given.volume / "..data").unlink()
    given.volume.rename(given.volume.with_name("elsewhere"))
    given.files.look()
    assert (len(given.guest.given), given.log.lines) == (1, [])


def test_somebody_looks_until_it_is_closed(tmp_path: Path) -> None:
    given = Given(tmp_path, interval=0.001)
    given.change("2")
    eventually(lambda: len(given.guest.given) == 2, "the change")
    given.files.close()


def test_names_of_other_containers_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parma_shim.provided._SOON", 0.001)
    given = Given(tmp_path, interval=3600)
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.2 web\n")
    given.files.provide([HostMount(str(hosts), "/etc/hosts", is_copied=True, is_empty=False)], "c", deadline=1.0)
    given.change("2")
    hosts.write_text("10.0.0.2 web\n10.0.0.3 db\n")
    change = ("/etc/hosts", {"": b"10.0.0.2 web\n10.0.0.3 db\n"}, True)
    eventually(lambda: given.guest.given[-1] == change, "the change")  # perhaps after the moment in which it was empty
    given.files.close()
    assert {place for place, _, update in given.guest.given if update} == {"/etc/hosts"}


def test_a_termination_log_is_empty_whatever_the_host_has(tmp_path: Path) -> None:
    guest = Guest()
    (tmp_path / "log").write_bytes(b"host's")
    mount = HostMount(str(tmp_path / "log"), "/termination-log/web", is_copied=True, is_empty=True)
    files = HostFiles(guest, interval=0, log=Log())
    files.provide([mount], "c", deadline=1.0)
    files.look()
    assert guest.given == [("/termination-log/web", {"": b""}, False)]
