# SPDX-License-Identifier: Apache-2.0
"""What an OCI specification may not ask for, found before a virtual machine is started. Pure.

This is not security: the guest builds its own specification and asks the policy about every part of it
(:mod:`parma_shim.guest_request` is the translation). But a container that quietly runs with less than its
specification says is a trap, so what cannot be had is refused. Left out without a word is only what a container in a
machine of its own cannot notice: device cgroup rules, cgroup paths, AppArmor and SELinux profiles of the host's
kernel, and in a pod the paths of namespaces, as its containers share the guest's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from parma_shim import pod_volumes
from parma_wire.errors import Malformed, Unsupported

if TYPE_CHECKING:
    from parma_shim.api import types_pb2

SANDBOX_ID: Final = "io.kubernetes.cri.sandbox-id"

OUR_PREFIX: Final = "io.parma."
ANNOTATIONS: Final = frozenset(
    {
        "io.parma.policy",
        "io.parma.policy-file",
        "io.parma.fragments",
        "io.parma.fragment-files",
        "io.parma.volume-limits",
    }
)
"""All that an annotation can say. None can choose a program, a path on the host, the command line of the guest's
kernel, or the TEE: these are the configuration's."""

Json = Mapping[str, Any]

_UNSUPPORTED_LINUX: Final = ("timeOffsets", "intelRdt", "personality", "netDevices")
_UNSUPPORTED_PROCESS: Final = ("scheduler", "ioPriority", "execCPUAffinity")
_SHARED_PROPAGATION: Final = frozenset({"shared", "rshared"})
_IDMAP_OPTIONS: Final = ("uidmap=", "gidmap=", "idmap")
_LIMITS: Final = frozenset({"memory", "cpu", "pids", "blockIO", "devices"})


def parse(data: bytes, what: str) -> dict[str, Any]:
    """JSON text that must be an object.

    Raises:
        Malformed
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def check_container(spec: Json) -> None:
    """A container's ``config.json``.

    Raises:
        Malformed: a part has the wrong type.
        Unsupported: something is asked for that the guest cannot give.
    """
    linux = _object(spec, "linux")
    annotations = _object(spec, "annotations")
    check_annotations(annotations)
    in_pod = SANDBOX_ID in annotations
    check_process(_object(spec, "process"))
    _refuse(linux, _UNSUPPORTED_LINUX, "linux")
    _check_namespaces(linux, in_pod=in_pod)
    for mount in _objects(spec, "mounts"):
        _check_mount(mount)
    check_limits(_object(linux, "resources"))
    if linux.get("rootfsPropagation") in _SHARED_PROPAGATION:
        raise Unsupported("a shared root file system is not supported", expected="private or slave propagation")
    if _list(linux, "devices") and linux.get("maskedPaths"):  # with nothing masked it is a privileged container
        raise Unsupported("devices of the host are not supported", hint="run it without --device")


def check_process(process: Json) -> None:
    """The process of a container or of an exec.

    Raises: as :func:`check_container`.
    """
    if not _list(process, "args"):
        raise Malformed("the process has no arguments", expected="at least the name of a program")
    _refuse(process, _UNSUPPORTED_PROCESS, "process")


def check_limits(resources: Json) -> None:
    """``linux.resources``, of a container or of an Update.

    Raises:
        Unsupported: a kind of limit that the guest does not know.
    """
    unknown = sorted(kind for kind, limits in resources.items() if limits and kind not in _LIMITS)
    if unknown:
        raise Unsupported(f"resource limits of kind {unknown[0]} are not supported", expected="cpu, memory or pids")


def check_annotations(annotations: Json) -> None:
    """Ours are an allow-list: one that is misspelt must not be one that has no effect.

    Raises:
        Malformed
    """
    if not all(isinstance(value, str) for value in annotations.values()):
        raise Malformed("an annotation is not a text")
    pod_volumes.limits(annotations)
    for name in annotations:
        if name.startswith(OUR_PREFIX) and name not in ANNOTATIONS:
            import difflib

            endings = sorted(known.removeprefix(OUR_PREFIX) for known in ANNOTATIONS)
            close = difflib.get_close_matches(name.removeprefix(OUR_PREFIX), endings, 1)
            hint = f"did you mean {OUR_PREFIX}{close[0]}?" if close else "known: " + ", ".join(sorted(ANNOTATIONS))
            raise Malformed(f"unknown annotation {name}", hint=hint)


def check_rootfs(mounts: Iterable[types_pb2.Mount]) -> None:
    """The mounts of a Create, of which nothing else is looked at: the root file system is made of the image's layers.

    Raises:
        Unsupported: their owners would have to be mapped by the host's kernel.
    """
    for mount in mounts:
        if any(option.startswith(_IDMAP_OPTIONS) for option in mount.options):
            raise Unsupported(
                "an idmapped root file system is not supported: the guest makes its own from the image's layers",
                hint="let the client chown a snapshot instead of labelling it containerd.io/snapshot/uidmapping",
            )


def _check_mount(mount: Json) -> None:
    texts = [mount.get(name) or "" for name in ("destination", "type", "source")]
    if not all(isinstance(text, str) for text in (*texts, *_list(mount, "options"))) or not texts[0]:
        raise Malformed("a mount of the specification makes no sense", expected="a destination, and texts")
    if mount.get("uidMappings") or mount.get("gidMappings"):
        raise Unsupported("idmapped mounts are not supported")


def _check_namespaces(linux: Json, *, in_pod: bool) -> None:
    paths = {str(item.get("type")): item.get("path") for item in _objects(linux, "namespaces")}
    mapped = bool(_list(linux, "uidMappings")), bool(_list(linux, "gidMappings"))
    if "user" in paths and in_pod:
        raise Unsupported("user namespaces of pods are not supported")
    if "user" in paths and not all(mapped):
        raise Malformed("a user namespace without mappings", expected="uidMappings and gidMappings")
    if "user" not in paths and any(mapped):
        raise Malformed("uidMappings or gidMappings without a user namespace")
    if "network" not in paths:
        what, hint = ("pod", "without hostNetwork") if in_pod else ("container", "run it without --net-host")
        raise Unsupported(f"a confidential {what} cannot share the host's network", hint=hint)
    if in_pod:
        for kind, name in (("pid", "hostPID"), ("ipc", "hostIPC")):
            if kind not in paths:
                raise Unsupported(
                    f"a confidential pod cannot share the host's {kind} namespace", hint=f"without {name}"
                )
        return
    joined = sorted(kind for kind, path in paths.items() if path and kind != "network")
    if joined:
        raise Unsupported(f"an existing {joined[0]} namespace of the host cannot be joined")


def _refuse(spec: Json, names: Sequence[str], where: str) -> None:
    for name in names:
        if spec.get(name):
            raise Unsupported(f"{where}.{name} of the specification is not supported")


def _object(spec: Json, name: str) -> Json:
    value = spec.get(name) or {}
    if not isinstance(value, dict):
        raise Malformed(f"{name} of the specification is not an object")
    return value


def _list(spec: Json, name: str) -> list[Any]:
    value = spec.get(name) or []
    if not isinstance(value, list):
        raise Malformed(f"{name} of the specification is not a list")
    return value


def _objects(spec: Json, name: str) -> list[Json]:
    items = _list(spec, name)
    if not all(isinstance(item, dict) for item in items):
        raise Malformed(f"{name} of the specification has an item that is not an object")
    return items
