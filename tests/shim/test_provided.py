# SPDX-License-Identifier: Apache-2.0
"""Files of the host on their way into the guest: what is recognised, what is read, and when it is read again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from parma_shim import provided
from parma_shim.host_mounts import HostMount, Names, host_mount, host_mounts
from parma_shim.provided import HostFile, HostFiles, read
from parma_wire.errors import Denied, NotFound, Unsupported

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
    monkeypatch.setattr(provided, "MAX_FILES", 1)
    many = tmp_path / "many"
    many.mkdir()
    (many / "a").touch()
    (many / "b").touch()
    with pytest.raises(Unsupported, match="too many"):
        read(str(many))


# -- handing over ------------------------------------------------------------------------------------------------


class Guest:
    """Remembers what it was given, and refuses when told to."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, bytes], bool]] = []
        self.refuse = False

    def provide_files(
        self, container_id: str, source: str, files: Iterable[HostFile], *, update: bool, deadline: float | None = None
    ) -> None:
        assert (container_id, deadline is None) in {("c", True), ("c", False), ("d", False)}
        if self.refuse:
            raise Denied("the files cannot be changed")
        self.given.append((source, {file.path: file.data for file in files}, update))


def test_changes_are_handed_over_and_a_refusal_is_logged_once(tmp_path: Path) -> None:
    guest, log = Guest(), list[str]()
    volume = tmp_path / "v"
    kubelet_volume(volume, a="1")
    mount = HostMount(str(volume), "/volumes/configmap/v", is_copied=True, is_empty=False)
    files = HostFiles(guest, interval=0, log=log.append)
    files.provide([mount], "c", deadline=1.0)
    files.provide([mount], "d", deadline=1.0)
    files.look()
    assert guest.given == [("/volumes/configmap/v", {"a": b"1"}, False)]
    kubelet_volume(volume, a="2")
    files.look()
    assert guest.given[1:] == [("/volumes/configmap/v", {"a": b"2"}, True)]
    guest.refuse = True
    kubelet_volume(volume, a="3")
    files.look()
    files.look()
    assert len(log) == 1
    assert "cannot be changed" in log[0]
    files.close()


def test_a_termination_log_is_empty_whatever_the_host_has(tmp_path: Path) -> None:
    guest = Guest()
    (tmp_path / "log").write_bytes(b"host's")
    mount = HostMount(str(tmp_path / "log"), "/termination-log/web", is_copied=True, is_empty=True)
    HostFiles(guest, interval=0, log=print).provide([mount], "c", deadline=1.0)
    assert guest.given == [("/termination-log/web", {"": b""}, False)]
