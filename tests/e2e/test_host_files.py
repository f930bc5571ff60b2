# SPDX-License-Identifier: Apache-2.0
"""Files of the host in a container: copied, parsed, pinned, changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.host import Host

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def mount(source: str, destination: str, options: str) -> list[str]:
    return ["--mount", f"type=bind,src={source},dst={destination},options={options}"]


def test_resolv_conf_is_parsed_and_other_files_are_copied(host_21: Host, name: str, tmp_path: Path) -> None:
    resolv, settings = tmp_path / "resolv.conf", tmp_path / "settings"
    resolv.write_text("# of the host\nnameserver 10.0.0.10\noptions ndots:5\n")
    settings.mkdir()
    (settings / "..1").mkdir()
    (settings / "..1/a").write_text("setting\n")
    (settings / "..data").symlink_to("..1")
    (settings / "a").symlink_to("..data/a")
    command = ("/bin/sh", "-c", "cat /etc/resolv.conf /settings/a; touch /settings/b || echo read-only")
    place = f"sandbox:///host{settings}".replace(".", "\\.")
    policy = host_21.policy(command, extra=mount(place, "/settings", "rbind:ro"))
    flags = [*mount(str(settings), "/settings", "rbind:ro"), *mount(str(resolv), "/etc/resolv.conf", "bind:rprivate")]
    done = host_21.run(name, command, "--rm", *flags, policy=_with_resolv_conf(host_21, policy))
    assert done.stdout == "nameserver 10.0.0.10\noptions ndots:5\nsetting\nread-only\n", done.stderr


def test_hostile_contents_and_places_are_refused(host_21: Host, name: str, tmp_path: Path) -> None:
    command = ("/bin/true",)
    policy = _with_resolv_conf(host_21, host_21.policy(command))
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 10.0.0.10\nsortlist 10.0.0.0\n")
    bad = host_21.run(name, command, *mount(str(resolv), "/etc/resolv.conf", "bind:rprivate"), policy=policy)
    assert "resolv.conf is not understood" in bad.stderr
    elsewhere = host_21.run(f"{name}-2", command, *mount(str(resolv), "/etc/passwd", "bind:rprivate"), policy=policy)
    assert "provide_files denied" in elsewhere.stderr
    for container in (name, f"{name}-2"):
        host_21.daemon.ctr("container", "delete", container)


def test_a_pinned_file_is_that_file_and_no_other(host_21: Host, name: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("right\n")
    command = ("/bin/cat", "/key")
    place = f"sandbox:///host{file}".replace(".", "\\.")
    policy = host_21.policy(command, extra=[*mount(place, "/key", "rbind:ro"), "--pin", f"/key={file}"])
    flags = mount(str(file), "/key", "rbind:ro")
    assert host_21.run(name, command, "--rm", *flags, policy=policy).stdout == "right\n"
    file.write_text("wrong\n")
    done = host_21.run(f"{name}-2", command, *flags, policy=policy)
    assert "are not those that the policy knows" in done.stderr
    host_21.daemon.ctr("container", "delete", f"{name}-2")


def _with_resolv_conf(host: Host, policy: Path) -> Path:
    """The policy with the mount that the platform of ``nerdctl`` makes."""
    rule = (
        '{"destination": "/etc/resolv.conf", "source": "sandbox:///etc/resolv\\\\.conf", "type": "bind", '
        '"options": ["bind", "rprivate"]}'
    )
    text = policy.read_text()
    if '"mounts": []' in text:
        text = text.replace('"mounts": []', f'"mounts": [{rule}]')
    else:
        text = text.replace('"mounts": [', f'"mounts": [{rule},', 1)
    changed = policy.with_name(f"{policy.stem}-resolv.rego")
    changed.write_text(text)
    return changed
