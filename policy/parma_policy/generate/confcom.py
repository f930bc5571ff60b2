# SPDX-License-Identifier: Apache-2.0
"""The JSON that ``az confcom acipolicygen --input`` takes, version 1.0, in both of its forms.

The newer form is that of an ARM template's containers: ``{"name", "properties": {"image", "command",
"environmentVariables", "volumeMounts", "execProcesses", "securityContext"}}``. The older one has ``containerImage``,
``workingDir``, ``mounts`` and ``allow_elevated`` beside each other, and names that differ in case only are the same
there; here they are expected as documented.

Stricter than confcom: the user is the image's where none is given (confcom: any), and a variable that is given must be
there unless it says ``"required": false``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from parma_policy.generate import capabilities, documents, seccomp_profiles
from parma_policy.generate.assemble import Seccomp, Variable, Wanted
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import Text
from parma_policy.generate.policy import Exec, Fragment, Mount
from parma_policy.generate.problems import Problems
from parma_policy.generate.source import OptionsOf, SourceContainer, Unit
from parma_policy.patterns import compile_anchored
from parma_wire.errors import ParmaError

_SOURCES: Final = {
    "azureFile": "sandbox:///tmp/atlas/azureFileVolume/.+",
    "secret": "sandbox:///tmp/atlas/secretsVolume/.+",
    "emptyDir": "sandbox:///tmp/atlas/emptydir/.+",
    "gitRepo": "sandbox:///tmp/atlas/gitRepoVolume/.+",
}
_MAX_ID: Final = 2**31 - 1
_MAX_SIGNAL: Final = 64
_PROBES: Final = ("readinessProbe", "livenessProbe")


def read(path: Path, problems: Problems, options: OptionsOf) -> list[Unit]:
    """All containers of the file, which run in one group. Raises Malformed for what is not JSON."""
    text = documents.decoded(documents.read_file(path, "input"), str(path))
    with documents.json_document(text, problems).fields() as top:
        if "$schema" in dict(top) or "resources" in dict(top):
            top.node.problem("an ARM template", hint="give the JSON that confcom takes with --input")
        if top.needed_text("version") != "1.0":
            top.node.problem("only version 1.0 is known")
        top.refuse("scenario", "only ACI's is supported", hint="use --kubernetes for manifests", harmless=("aci",))
        fragments = tuple(_fragment(node) for node in top.items("fragments"))
        containers = [_container(node, options) for node in top.items("containers")]
        if not containers and not fragments:
            top.node.problem("neither containers nor fragments")
    return [Unit(name=path.stem, title=path.name, read=lambda: containers, fragments=fragments)]


def _fragment(node: Node) -> Fragment:
    with node.fields() as fields:
        return Fragment(
            fields.needed_text("issuer"),
            fields.needed_text("feed"),
            fields.needed_text("minimum_svn"),
            fields.texts("includes"),
        )


def _container(node: Node, options: OptionsOf) -> SourceContainer:
    with node.fields() as fields:
        name = fields.text("name")
        properties = fields.child("properties")
        if properties is not None:
            with properties:
                return _made(node, name, properties.needed_text("image"), properties, "volumeMounts", options)
        image = fields.needed_text("containerImage")
        fields.ignore("id")
        return _made(node, name or fields.text("id"), image, fields, "mounts", options)


def _made(node: Node, name: str, image: str, fields: Fields, mounts: str, options: OptionsOf) -> SourceContainer:
    secured = _security(fields.child("securityContext"))
    elevated = fields.flag("allow_elevated")
    chosen = options(name)
    # An empty command means the image's.
    command = fields.texts("command") or None
    wanted = Wanted(
        name=name or image,
        entrypoint=command,
        env=tuple(_variable(item) for item in fields.items("environmentVariables")),
        user=None if secured.user is None else str(secured.user),
        run_as_group=secured.group,
        non_root=secured.non_root,
        add=secured.add,
        drop=secured.drop,
        privileged=secured.privileged or elevated,
        no_new_privileges=secured.no_new_privileges,
        seccomp=secured.seccomp,
        read_only=secured.read_only,
        working_dir=fields.maybe_text("workingDir") or None,
        mounts=tuple(mount for item in fields.items(mounts) if (mount := _mount(item)) is not None),
        execs=(*map(_exec, fields.items("execProcesses")), *_probes(fields)),
        stdio=fields.flag("allowStdioAccess", default=True),
    )
    return SourceContainer(node, name, image, f"confcom {node.path}", wanted, chosen)


def _variable(node: Node) -> Variable:
    with node.fields() as fields:
        name, value, secure = fields.needed_text("name"), fields.text("value"), fields.text("secureValue")
        regex = fields.flag("regex")
        strategy = fields.text("strategy", "re2" if regex else "string")
        required = fields.flag("required", default=True)
    if value and secure:
        node.problem("both value and secureValue are given")
    value = value or secure
    if strategy not in ("string", "re2"):
        node.problem(f"strategy {strategy} is not known")
    if strategy == "re2" and compile_anchored(value) is None:
        node.problem("RE2 refuses this expression")
    text = Text.matching(value) if strategy == "re2" else Text.of(value)
    note = "environmentVariables" + (", a secret: who reads the policy reads it" if secure else "")
    return Variable(name, text, note, required=required)


def _mount(node: Node) -> Mount | None:
    with node.fields() as fields:
        fields.ignore("name", "mountName")
        kind, path = fields.needed_text("mountType"), fields.needed_text("mountPath")
        read_only = fields.flag("readOnly") or fields.flag("readonly")
    if kind not in _SOURCES:
        node.problem(f"mountType {kind} is not supported", hint=f"there are {', '.join(_SOURCES)}")
        return None
    return Mount(path, _SOURCES[kind], "bind", ("rbind", "rshared", "ro" if read_only else "rw"), kind)


def _exec(node: Node) -> Exec:
    with node.fields() as fields:
        signals = tuple(item.integer(1, _MAX_SIGNAL) for item in fields.items("signals"))
        return Exec(_command(fields), "execProcesses", signals)


def _command(fields: Fields) -> tuple[str, ...]:
    words = fields.texts("command")
    if not words:
        fields.node.problem("no command")
    return words


def _probes(fields: Fields) -> Iterator[Exec]:
    for name in _PROBES:
        probe = fields.child(name)
        if probe is None:
            continue
        with probe:
            # How often, and what is asked over the network, is the host's side.
            probe.ignore("httpGet", "initialDelaySeconds", "periodSeconds", "failureThreshold")
            probe.ignore("successThreshold", "timeoutSeconds")
            action = probe.child("exec")
        if action is not None:
            with action:
                yield Exec(_command(action), name)


class _Security:
    """``securityContext``."""

    def __init__(self) -> None:
        self.user: int | None = None
        self.group: int | None = None
        self.non_root = False
        self.privileged = False
        self.read_only = False
        self.no_new_privileges: bool | None = None
        self.seccomp: Seccomp | None = None
        self.add: tuple[str, ...] = ()
        self.drop: tuple[str, ...] = ()


def _security(fields: Fields | None) -> _Security:
    found = _Security()
    if fields is None:
        return found
    with fields:
        found.privileged = fields.flag("privileged")
        found.user = fields.maybe_integer("runAsUser", 0, _MAX_ID)
        found.group = fields.maybe_integer("runAsGroup", 0, _MAX_ID)
        found.non_root = fields.flag("runAsNonRoot")
        found.read_only = fields.flag("readOnlyRootFilesystem")
        escalation = fields.maybe_flag("allowPrivilegeEscalation")
        found.no_new_privileges = None if escalation is None else not escalation
        profile = fields.get("seccompProfile")
        if profile is not None:
            found.seccomp = _seccomp(profile)
        inner = fields.child("capabilities")
    if inner is not None:
        with inner:
            found.add = capabilities.read(inner.items("add"))
            found.drop = capabilities.read(inner.items("drop"))
    return found


def _seccomp(node: Node) -> Seccomp | None:
    """The profile is written in base64; an empty one is none."""
    text = node.text()
    if not text:
        return None
    try:
        return Seccomp("file", seccomp_profiles.of_text(base64.b64decode(text, validate=True), "the profile"))
    except binascii.Error:
        node.problem("not base64")
    except ParmaError as error:
        node.problem(str(error))
    return None
