# SPDX-License-Identifier: Apache-2.0
"""Hooks of an OCI specification (runtime-spec, config.md "POSIX-platform Hooks"): where and when each kind runs.

All run on the host, in the network namespace that the specification names. Without one ``createContainer`` runs in that
of the virtual machine, whose process id is the ``pid`` that hooks are told, and all others run where the shim does:
nerdctl's make a bridge there, and the container's end of it in ``/proc/<pid>/ns/net``. None ever runs in the guest; one
that would have to (``startContainer``) is refused.

::

    machine runs, container not created in the guest  prestart, createRuntime, createContainer    failure: Create fails
    started                                          poststart                                   failure: logged
    deleted, or Create failed after hooks had run    poststop                                    failure: logged
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from parma_wire.errors import Malformed, ParmaError, Unsupported

if TYPE_CHECKING:
    from parma_shim.task.environment import Environment

AT_CREATION: Final = ("prestart", "createRuntime", "createContainer")
AFTER_START: Final = ("poststart",)
AFTER_END: Final = ("poststop",)
KINDS: Final = (*AT_CREATION, *AFTER_START, *AFTER_END)
_IN_NAMESPACE: Final = "createContainer"
_IN_GUEST: Final = "startContainer"

LIMIT: Final = 60.0
"""Seconds for all hooks of one moment together, whatever their own time-outs are."""


class Hook(NamedTuple):
    """One program; its standard input is the container's state."""

    path: str
    args: tuple[str, ...]
    """The first is the program's name; empty for the path."""

    env: tuple[str, ...]
    timeout: float | None
    """Seconds."""


class Hooks(NamedTuple):
    """Of one container. Made by :func:`parse`."""

    by_kind: Mapping[str, Sequence[Hook]]
    network_namespace: str
    """A path; empty when the specification names none."""

    state: Mapping[str, Any]
    """What hooks are told, without ``status`` and ``pid``."""


def parse(spec: Mapping[str, Any], container_id: str, bundle: str) -> Hooks | None:
    """The hooks of a ``config.json``, or None.

    Raises:
        Malformed: it says something else than the specification's schema.
        Unsupported: a hook that would have to run in the guest.
    """
    hooks = spec.get("hooks") or {}
    if not isinstance(hooks, dict):
        raise Malformed("hooks of the specification is not an object")
    used = {kind: entries for kind, entries in hooks.items() if entries}
    if _IN_GUEST in used:
        raise Unsupported(f"{_IN_GUEST} hooks are not supported", hint="they would run in the container, unmeasured")
    unknown = sorted(set(used) - set(KINDS))
    if unknown:
        raise Malformed(f"unknown kind of hook {unknown[0]}", expected=", ".join(KINDS))
    if not used:
        return None
    return Hooks(
        by_kind={kind: _hooks(entries, kind) for kind, entries in used.items()},
        network_namespace=_network_namespace(spec),
        state={
            "ociVersion": str(spec.get("ociVersion") or ""),
            "id": container_id,
            "bundle": bundle,
            "annotations": spec.get("annotations") or {},
        },
    )


def run(
    env: Environment, hooks: Hooks | None, kinds: Sequence[str], status: str, pid: int, *, deadline: float | None = None
) -> bool:
    """Runs the hooks of these kinds one after the other; whether there were any.

    Args:
        status: of the container, as the runtime specification calls it.
        pid: the virtual machine's process id; 0 when it has ended.

    Raises:
        ParmaError: the first that fails; those after it do not run.
    """
    if hooks is None:
        return False
    state = {**hooks.state, "status": status, **({"pid": pid} if pid else {})}
    end = time.monotonic() + LIMIT
    end = end if deadline is None else min(end, deadline)
    inside = [kind for kind in kinds if kind == _IN_NAMESPACE]
    ran = False
    for some in ([kind for kind in kinds if kind not in inside], inside):
        wanted = [hook for kind in some for hook in hooks.by_kind.get(kind, ())]
        if wanted:
            machines = f"/proc/{pid}/ns/net" if pid and some is inside else ""
            env.group.run_hooks(wanted, state, hooks.network_namespace or machines, deadline=end)
            ran = True
    return ran


def run_and_log(env: Environment, hooks: Hooks | None, kinds: Sequence[str], status: str, pid: int) -> None:
    """The same for hooks whose failure changes nothing any more."""
    try:
        run(env, hooks, kinds, status, pid)
    except ParmaError as error:
        env.log.warning(f"{error}")


def _hooks(entries: object, kind: str) -> list[Hook]:
    if not isinstance(entries, list):
        raise Malformed(f"hooks.{kind} is not a list")
    return [_hook(entry, f"hooks.{kind}") for entry in entries]


def _hook(entry: object, where: str) -> Hook:
    if not isinstance(entry, dict):
        raise Malformed(f"{where} has an entry that is not an object")
    path, timeout = entry.get("path"), entry.get("timeout")
    if not isinstance(path, str) or not path.startswith("/"):
        raise Malformed(f"{where} has a hook without a path", expected="an absolute path")
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0):
        raise Malformed(f"the time-out of the hook {path} makes no sense", expected="seconds, more than 0")
    return Hook(path, _texts(entry, "args", path), _texts(entry, "env", path), timeout)


def _texts(entry: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    value = entry.get(name) or []
    if not isinstance(value, list) or not all(isinstance(text, str) and "\0" not in text for text in value):
        raise Malformed(f"{name} of the hook {path} is not a list of texts")
    return tuple(value)


def _network_namespace(spec: Mapping[str, Any]) -> str:
    namespaces = (spec.get("linux") or {}).get("namespaces") or []
    found = [item for item in namespaces if isinstance(item, dict) and item.get("type") == "network"]
    return str(found[0].get("path") or "") if found else ""
