# SPDX-License-Identifier: Apache-2.0
"""Findings about files that the host provides: what it could do with them where nothing fixes their content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from parma_policy.lint.finding import Finding, Severity, Sheet
from parma_policy.model import Container, MountRule

_SANDBOX: Final = "sandbox://"
_FROM_THE_HOST: Final = (
    *("/volumes/configmap/", "/volumes/secret/", "/volumes/projected/", "/volumes/downward-api/", "/volume-subpaths/"),
    *("/configs/", "/secrets/", "/host/", "/etc/", "/tmp/atlas/resolvconf/", "/tmp/atlas/secretsVolume/"),  # noqa: S108
)
"""Places below ``sandbox://`` that the host may fill. Those for termination messages it cannot."""

_OTHERS: Final = ("/volumes/empty-dir/", "/volumes/nerdctl/", "/volumes/image/", "/tmp/atlas/emptydir/")  # noqa: S108
"""Places that containers fill."""

_PROBES: Final = (*(f"{place}probe" for place in _FROM_THE_HOST if place != "/etc/"), "/etc/hosts", "/etc/hostname")
_SECRETS: Final = ("/volumes/secret/", "/secrets/", "/tmp/atlas/secretsVolume/")  # noqa: S108

_CODE: Final = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/libexec"),
    *("/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/opt", "/etc/ld.so.preload", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/profile", "/etc/profile.d", "/etc/cron.d", "/etc/init.d", "/etc/systemd"),
)
_TRUST: Final = (
    *("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/sudoers.d", "/etc/pam.d", "/etc/ssh"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
    *("/root/.ssh", "/etc/nsswitch.conf"),
)
_NAMES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
_DIGITS_AND_LETTERS: Final = re.compile(r"\\([^A-Za-z0-9])")


def provided_findings(sheet: Sheet, container: Container) -> Iterator[Finding]:
    """About one container's mounts."""
    everybody = [other.mounts for other in sheet.policy.containers.containers]
    for number, mount in enumerate(container.mounts):
        path = f"{container.place}.mounts[{number}]"
        yield from _wide(sheet, path, mount)
        if mount.type == "bind" and _is_from_the_host(mount):
            yield from _content(sheet, path, mount)
            yield from _contradictions(sheet, path, mount, [other for mounts in everybody for other in mounts])


def _content(sheet: Sheet, path: str, mount: MountRule) -> Iterator[Finding]:
    if mount.pins is not None:
        return
    at = mount.destination
    if _concerns(at, _CODE):
        message = f"the host decides what is at {at}, and so what code runs; sha256 would fix it"
        yield sheet.finding("host-code", Severity.WARNING, path, message)
    elif _concerns(at, _TRUST):
        message = f"the host decides what is at {at}, and so who is trusted; sha256 would fix it"
        yield sheet.finding("host-trust", Severity.WARNING, path, message)
    elif _tail(mount).startswith(_SECRETS):
        message = "a secret from the host, which knows it and may give another; fetch secrets after attestation"
        yield sheet.finding("host-secret", Severity.INFO, path, message)
    if mount.updates and at in _NAMES:
        message = f"the host may change {at} at any time, and so whom a name means"
        yield sheet.finding("host-updates", Severity.WARNING, f"{path}.updates", message)
    elif mount.updates and (_concerns(at, _CODE) or _concerns(at, _TRUST)):
        yield sheet.finding(
            "host-updates", Severity.WARNING, f"{path}.updates", f"the host may change {at} at any time"
        )


def _contradictions(sheet: Sheet, path: str, mount: MountRule, others: list[MountRule]) -> Iterator[Finding]:
    same = [other for other in others if other.type == "bind" and _same_source(mount, other)]
    if mount.updates and any(not other.updates for other in same):
        pinned = any(other.pins is not None for other in same)
        why = "another mount of this source fixes what is there" if pinned else "not all mounts of this source allow it"
        message = f"never allowed: {why}, and a source is one thing for all containers"
        yield sheet.finding("dead-rule", Severity.WARNING, f"{path}.updates", message)
    if mount.pins is not None and any(other.pins not in (None, mount.pins) for other in same):
        message = "another mount fixes other content for this source: the host can provide neither"
        yield sheet.finding("dead-rule", Severity.WARNING, f"{path}.sha256", message)


def _wide(sheet: Sheet, path: str, mount: MountRule) -> Iterator[Finding]:
    """Expressions for more than one kind of thing. One for everything has its own finding."""
    if mount.source_tail is None or not mount.source.startswith(_SANDBOX):
        return
    probes = [*_PROBES, *(f"{place}probe" for place in _OTHERS)]
    kinds = [probe.rpartition("/")[0] for probe in probes if mount.source_tail.matches(probe)]
    everything = len(kinds) == len(probes)
    if not everything and len(set(kinds)) > 1:
        message = f"accepts sources of several kinds: {', '.join(sorted(set(kinds)))}"
        yield sheet.finding("mount-wide-source", Severity.WARNING, f"{path}.source", message)
    elif not everything and mount.source_tail.matches("/host/probe") and mount.source_tail.matches("/host/an/other"):
        message = "accepts any file of the host that may be provided at all"
        yield sheet.finding("mount-wide-source", Severity.WARNING, f"{path}.source", message)


def _is_from_the_host(mount: MountRule) -> bool:
    if not mount.source.startswith(_SANDBOX):
        return False
    wide = mount.source_tail is not None and any(map(mount.source_tail.matches, _PROBES))
    return wide or _tail(mount).startswith(_FROM_THE_HOST)


def _tail(mount: MountRule) -> str:
    """What follows ``sandbox://``, with escaped characters as they are."""
    return _DIGITS_AND_LETTERS.sub(r"\1", mount.source.removeprefix(_SANDBOX))


def _same_source(first: MountRule, second: MountRule) -> bool:
    """Whether there is a source that both accept, as far as their texts tell."""
    if first.source == second.source:
        return True
    if not second.source.startswith(_SANDBOX) or first.source_tail is None or second.source_tail is None:
        return False
    return first.source_tail.matches(_tail(second)) or second.source_tail.matches(_tail(first))


def _concerns(destination: str, places: tuple[str, ...]) -> bool:
    """Whether a mount there is one of these places, in one, or around one."""
    inside = destination.rstrip("/") + "/"
    return any(f"{place}/".startswith(inside) or inside.startswith(f"{place}/") for place in places)
