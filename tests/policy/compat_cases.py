# SPDX-License-Identifier: Apache-2.0
"""The cases of ``tests/vectors/policy-compat``: policies of every version, questions, and what has to be allowed.

``python -m tests.policy.compat_cases`` writes the files that do not exist yet. What has to be allowed is said here by
hand, from what the versions mean; the rest of an answer is recorded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parma_policy.conversation import Conversation, Step
from parma_policy.framework.view import UNPRIVILEGED_CAPABILITIES
from parma_policy.loaded import DataPolicy
from parma_policy.model import CAPABILITY_SETS
from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_policy.simulate import Outcome, simulate
from parma_policy.versions import Version, version
from tests.policy.builders import ID, SANDBOX, Json, capabilities, creation, disk, execution, rootfs

FOLDER: Final = Path(__file__).resolve().parents[1] / "vectors" / "policy-compat"

FRAMEWORKS: Final = ("0.1.0", "0.2.0", "0.2.1", "0.2.2", "0.2.3", "0.3.0", "0.4.0", "0.4.1", "0.5.0")
"""Every framework version from which on something is different, and some between."""
APIS: Final = ("0.0.9", *sorted({str(point.introduced) for point in POINTS.values()}, key=version))

LAYERS: Final = ("4" * 64, "5" * 64)
PROFILE: Final = "a1" * 32
OTHER_PROFILE: Final = "b2" * 32


@dataclass(frozen=True)
class Question:
    """A request and whether it has to be allowed; asked in a transaction of its own unless ``kept``."""

    note: str
    call: str
    input: Json
    allowed: bool
    kept: bool = False


@dataclass
class Case:
    """A policy and its questions."""

    name: str
    rego: str
    questions: list[Question] = field(default_factory=list)


def setting_up() -> list[Question]:
    """Layers and overlay."""
    steps = [
        Question("a layer", "mount_device", {"target": disk(n), "deviceHash": layer}, allowed=True, kept=True)
        for n, layer in enumerate(LAYERS)
    ]
    overlay = {"containerID": ID, "layerPaths": [disk(1), disk(0)], "target": rootfs()}
    swapped = {**overlay, "layerPaths": [disk(0), disk(1)]}
    return [
        *steps,
        Question("a layer that is not listed", "mount_device", {"target": disk(9), "deviceHash": "9" * 64}, False),
        Question("the layers in another order", "mount_overlay", swapped, allowed=False),
        Question("the overlay", "mount_overlay", overlay, allowed=True, kept=True),
    ]


# -- framework versions ------------------------------------------------------------------------------------------


def framework_container(since: Version) -> Json:
    """A container with the members that its version knows."""
    members: Json = {
        "command": ["/bin/app", "--serve"],
        "env_rules": [
            {"pattern": "PATH=/bin", "strategy": "string", "required": True},
            {"pattern": "ZONE=[a-c]", "strategy": "re2", "required": False},
        ],
        "layers": list(LAYERS),
        "mounts": [
            {"destination": "/d", "source": "sandbox:///tmp/v/.+", "type": "bind", "options": ["rbind", "rw"]},
        ],
        "exec_processes": [{"command": ["/bin/probe"], "signals": [10]}],
        "signals": [1],
        "allow_elevated": False,
        "working_dir": "/srv",
        "allow_stdio_access": True,
    }
    later: list[tuple[str, str, Any]] = [
        ("0.2.0", "no_new_privileges", True),
        (
            "0.2.1",
            "user",
            {
                "user_idname": {"pattern": "1000", "strategy": "id"},
                "group_idnames": [{"pattern": "app", "strategy": "name"}],
                "umask": "0027",
            },
        ),
        ("0.2.2", "capabilities", capabilities(["CAP_KILL", "CAP_CHOWN"])),
        ("0.2.3", "seccomp_profile_sha256", PROFILE),
    ]
    return members | {name: value for introduced, name, value in later if since >= version(introduced)}


def framework_case(text: str) -> Case:
    """What a framework version makes of the same container."""
    own = version(text)

    def since(introduced: str) -> bool:
        return own >= version(introduced)

    caps = capabilities(["CAP_KILL", "CAP_CHOWN"] if since("0.2.2") else UNPRIVILEGED_CAPABILITIES)
    good = {
        "argList": ["/bin/app", "--serve"],
        "envList": ["PATH=/bin"],
        "umask": "0027" if since("0.2.1") else "0022",
        "capabilities": caps,
        "seccompProfileSHA256": PROFILE if since("0.2.3") else "",
    }

    def asked(**changes: Any) -> Json:
        return creation(**{**good, **changes})

    mount = {"destination": "/d", "source": f"{SANDBOX}/tmp/v/1", "type": "bind", "options": ["rw", "rbind"]}
    fewer = {**caps, "bounding": caps["bounding"][:1]}
    questions = [
        *setting_up(),
        Question("as listed", "create_container", asked(), allowed=True),
        Question("another command", "create_container", asked(argList=["/bin/app"]), allowed=False),
        Question("an optional variable", "create_container", asked(envList=["PATH=/bin", "ZONE=b"]), allowed=True),
        Question("another value", "create_container", asked(envList=["PATH=/bin", "ZONE=d"]), allowed=False),
        Question("a required variable less", "create_container", asked(envList=[]), allowed=False),
        Question("a listed mount", "create_container", asked(mounts=[mount]), allowed=True),
        Question(
            "a mount elsewhere", "create_container", asked(mounts=[{**mount, "destination": "/e"}]), allowed=False
        ),
        Question("privileged", "create_container", asked(privileged=True), allowed=False),
        Question(
            "new privileges: demanded since 0.2.0",
            "create_container",
            asked(noNewPrivileges=False),
            allowed=not since("0.2.0"),
        ),
        Question(
            "another user: any before 0.2.1",
            "create_container",
            asked(user={"id": "7", "name": "x"}),
            allowed=not since("0.2.1"),
        ),
        Question(
            "another group: any before 0.2.1",
            "create_container",
            asked(groups=[{"id": "8", "name": "x"}]),
            allowed=not since("0.2.1"),
        ),
        Question("umask 0022: the only one before 0.2.1", "create_container", asked(umask="0022"), not since("0.2.1")),
        Question("umask 0027: since 0.2.1", "create_container", asked(umask="0027"), allowed=since("0.2.1")),
        Question(
            "the default capabilities: before 0.2.2",
            "create_container",
            asked(capabilities=capabilities(UNPRIVILEGED_CAPABILITIES)),
            allowed=not since("0.2.2"),
        ),
        Question("fewer capabilities", "create_container", asked(capabilities=fewer), allowed=False),
        Question(
            "no seccomp profile: the only one before 0.2.3",
            "create_container",
            asked(seccompProfileSHA256=""),
            allowed=not since("0.2.3"),
        ),
        Question(
            "another seccomp profile", "create_container", asked(seccompProfileSHA256=OTHER_PROFILE), allowed=False
        ),
        Question("the container", "create_container", asked(), allowed=True, kept=True),
        Question("an exec that is listed", "exec_in_container", run(good, ["/bin/probe"]), allowed=True),
        Question("an exec that is not", "exec_in_container", run(good, ["/bin/sh"]), allowed=False),
        Question("the listed signal", *signal(1), allowed=True),
        Question("SIGKILL: not listed, but allowed before 0.4.1", *signal(9), allowed=not since("0.4.1")),
        Question("SIGTERM: not listed, but allowed before 0.4.1", *signal(15), allowed=not since("0.4.1")),
        Question("SIGKILL to the exec: never was", *signal(9, ["/bin/probe"]), allowed=False),
        Question("the exec's own signal", *signal(10, ["/bin/probe"]), allowed=True),
    ]
    rego = policy_text("0.12.0", text, [framework_container(own)])
    return Case(f"framework-{text}", rego, questions)


def dropping_case(text: str) -> Case:
    """Capability dropping, and the platform's rules, by framework version."""
    own = version(text)
    drops, platform = own >= version("0.2.2"), own >= version("0.5.0")
    # Before 0.2.2 the container's capabilities are the defaults and nothing is dropped.
    more = capabilities([*UNPRIVILEGED_CAPABILITIES, "CAP_SYS_ADMIN"])
    good = {
        "argList": ["/bin/app", "--serve"],
        "envList": ["PATH=/bin"],
        "umask": "0027" if own >= version("0.2.1") else "0022",
        "seccompProfileSHA256": PROFILE if own >= version("0.2.3") else "",
    }
    rule = {"env_rules": [{"pattern": "CLOUD=x", "strategy": "string", "required": False}], "mounts": []}
    rego = policy_text(
        "0.12.0",
        text,
        [framework_container(own)],
        allow_capability_dropping=True,
        allow_environment_variable_dropping=False,
        platform_rules=[rule],
    )
    asked = creation(**{**good, "capabilities": more})
    listed = capabilities(["CAP_KILL", "CAP_CHOWN"] if drops else UNPRIVILEGED_CAPABILITIES)
    cloud = creation(**{**good, "capabilities": listed, "envList": ["PATH=/bin", "CLOUD=x"]})
    return Case(
        f"dropping-{text}",
        rego,
        [
            *setting_up(),
            Question("more capabilities: dropped since 0.2.2", "create_container", asked, allowed=drops),
            Question("a variable of the platform: since 0.5.0", "create_container", cloud, allowed=platform),
        ],
    )


def unusable_case(name: str, claim: object) -> Case:
    """A framework version that makes the policy's lists unusable; its flags count all the same."""
    rego = policy_text("0.12.0", claim, [framework_container(version("0.5.0"))], allow_properties_access=True)
    mount = {"target": disk(0), "deviceHash": LAYERS[0]}
    return Case(
        f"unusable-{name}",
        rego,
        [
            Question("a layer", "mount_device", mount, allowed=False),
            Question("a flag", "get_properties", {}, allowed=True),
        ],
    )


# -- API versions ------------------------------------------------------------------------------------------------

_INPUTS: Final[dict[str, Json]] = {
    "mount_device": {"target": disk(0), "deviceHash": "9" * 64},
    "unmount_device": {"unmountTarget": disk(0)},
    "rw_mount_device": {
        "target": f"/run/gcs/c/{ID}",
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "ext4",
    },
    "rw_unmount_device": {"unmountTarget": f"/run/gcs/c/{ID}"},
    "mount_blockdev": {"target": "/x"},
    "unmount_blockdev": {"unmountTarget": "/x"},
    "mount_overlay": {"containerID": ID, "layerPaths": [disk(0)], "target": rootfs()},
    "unmount_overlay": {"unmountTarget": rootfs()},
    "create_container": creation(),
    "exec_in_container": execution(),
    "exec_external": {"argList": ["x"], "envList": ["A=1"], "workingDir": "/"},
    "shutdown_container": {"containerID": ID},
    "signal_container_process": {"containerID": ID, "signal": 9, "isInitProcess": True, "argList": []},
    "plan9_mount": {"target": "/x"},
    "plan9_unmount": {"unmountTarget": "/x"},
    "get_properties": {},
    "dump_stacks": {},
    "runtime_logging": {},
    "load_fragment": {"issuer": "i", "feed": "f", "header_svn": None, "rego": "package p\n", "receipts": []},
    "scratch_mount": {"target": "/x", "encrypted": False},
    "scratch_unmount": {"unmountTarget": "/x"},
    "log_provider": {"providers": ["p"]},
    "load_transparency_trust_list": {"issuer": "i", "subject": "s", "svn": 1, "ledgers": ["l"]},
    "host_network": {},
    "mount_cims": {},
    "registry_changes": {},
}
_OLD_DEFAULTS: Final = {
    "unmount_device",
    "exec_in_container",
    "exec_external",
    "shutdown_container",
    "signal_container_process",
    "unmount_overlay",
    "plan9_mount",
    "plan9_unmount",
    "get_properties",
    "dump_stacks",
    "runtime_logging",
    "scratch_mount",
    "scratch_unmount",
    "log_provider",
    "rw_mount_device",  # decided by the framework, which has nothing against it
}
"""Allowed where a policy without a rule is older than the point."""


def api_case(text: str, *, rules: bool) -> Case:
    """Each point asked of a policy that allows nothing by itself: with its rules, or with none at all."""
    own = version(text)
    known = [name for name, point in POINTS.items() if own >= point.introduced and point.linux]
    rego = policy_text(text, "0.5.0", [], rules=known if rules else [])
    questions = [
        Question(
            f"{'known' if own >= POINTS[name].introduced else 'newer than the policy'}",
            name,
            given,
            # Of what has a rule, only encrypted scratch needs nothing in the policy's lists.
            allowed=(rules and name == "rw_mount_device" and name in known)
            or (own < POINTS[name].introduced and name in _OLD_DEFAULTS),
        )
        for name, given in _INPUTS.items()
    ]
    return Case(f"api-{text}-{'rules' if rules else 'no-rules'}", rego, questions)


# -- shapes of text ----------------------------------------------------------------------------------------------


def policy_text(
    api: object,
    framework: object,
    containers: Sequence[Json],
    *,
    rules: Sequence[str] | None = None,
    old_names: bool = False,
    **definitions: object,
) -> str:
    """A policy in the plainest form."""
    names = ("api_svn", "framework_svn") if old_names else ("api_version", "framework_version")
    values = {names[0]: api, names[1]: framework, "containers": list(containers), **definitions}
    known = [name for name, point in POINTS.items() if point.linux] if rules is None else rules
    lines = [f"{name} := {json.dumps(value)}" for name, value in values.items()]
    lines += [f"{name} := data.framework.{name}" for name in known]
    return "\n".join(["package policy", "", *lines, 'reason := {"errors": data.framework.errors}', ""])


def confcom_text(container: Json, *, pretty: bool, crlf: bool = False) -> str:
    """As ``az confcom`` lays policies out: imports, one line or indented, its own choice of rules."""
    listed = json.dumps([container], indent=4 if pretty else None, separators=None if pretty else (",", ":"))
    flags = ("properties_access", "dump_stacks", "runtime_logging", "environment_variable_dropping")
    rules = [
        *("mount_device", "unmount_device", "mount_overlay", "unmount_overlay", "create_container"),
        *("exec_in_container", "exec_external", "shutdown_container", "signal_container_process"),
        *("plan9_mount", "plan9_unmount", "get_properties", "dump_stacks", "runtime_logging", "load_fragment"),
        *("scratch_mount", "scratch_unmount", "rw_mount_device"),
    ]
    lines = [
        *("package policy", "", "import future.keywords.every", "import future.keywords.in", ""),
        *('api_version := "0.10.0"', 'framework_version := "0.2.3"', "", "fragments := []", ""),
        *(f"containers := {listed}", ""),
        *(f"allow_{name} := {json.dumps(name == 'properties_access')}" for name in flags),
        *("allow_unencrypted_scratch := false", "allow_capability_dropping := true", ""),
        *(f"{name} := data.framework.{name}" for name in rules),
        *("", 'reason := {"errors": data.framework.errors}', ""),
    ]
    return ("\r\n" if crlf else "\n").join(lines)


def marshalled_text(container: Json) -> str:
    """As hcsshim's tools lay policies out: tabs or spaces, trailing commas, all rules, ``reason`` with objects."""
    members = "".join(f"        {json.dumps(name)}: {json.dumps(value)},\n" for name, value in container.items())
    rules = "".join(f"{name} := data.framework.{name}\n" for name in POINTS)
    reason = '{"errors": data.framework.errors, "error_objects": data.framework.error_objects}'
    return (
        'package policy\n\nimport rego.v1\n\napi_version := "0.12.0"\nframework_version := "0.5.0"\n\n'
        f"containers := [\n    {{\n{members}    }},\n]\n\nallow_properties_access := true\n\n\n{rules}"
        f"reason := {reason}\n"
    )


def shape_cases() -> Iterator[Case]:
    """The same container in every shape of text."""
    container = framework_container(version("0.5.0"))
    labelled = {"id": "registry/app:1", "name": "app", **container}
    good = {
        "argList": ["/bin/app", "--serve"],
        "envList": ["PATH=/bin"],
        "umask": "0027",
        "capabilities": capabilities(["CAP_KILL", "CAP_CHOWN"]),
        "seccompProfileSHA256": PROFILE,
    }
    questions = [
        *setting_up(),
        Question("another command", "create_container", creation(**{**good, "argList": ["/bin/sh"]}), allowed=False),
        Question("the container", "create_container", creation(**good), allowed=True, kept=True),
        Question("statistics", "get_properties", {}, allowed=True),
        Question("the enforcer's stacks", "dump_stacks", {}, allowed=False),
        Question("an exec that is not listed", "exec_in_container", run(good, ["/bin/sh"]), allowed=False),
    ]
    old = policy_text("0.10.0", "0.2.3", [container], old_names=True, allow_properties_access=True)
    yield Case("shape-confcom-one-line", confcom_text(labelled, pretty=False), questions)
    yield Case("shape-confcom-pretty", confcom_text(labelled, pretty=True), questions)
    yield Case("shape-confcom-crlf", confcom_text(labelled, pretty=True, crlf=True), questions)
    yield Case("shape-hcsshim", marshalled_text(container), questions)
    yield Case("shape-old-names", old, questions)


# -- files -------------------------------------------------------------------------------------------------------


def cases() -> list[Case]:
    """All of them."""
    unusable = {"newer": "0.6.0", "short": "0.5", "number": 5, "null": None}
    return [
        *map(framework_case, FRAMEWORKS),
        *(dropping_case(text) for text in ("0.2.1", "0.2.2", "0.4.1", "0.5.0")),
        *(unusable_case(name, claim) for name, claim in unusable.items()),
        *(api_case(text, rules=rules) for text in APIS for rules in (True, False)),
        *shape_cases(),
    ]


def run(good: Json, command: list[str]) -> Json:
    """An exec like the container's own process."""
    return execution(**{name: good[name] for name in ("envList", "umask", "capabilities")}, argList=command)


def signal(number: int, command: list[str] | None = None) -> tuple[str, Json]:
    """A signal to the first process, or to an exec."""
    asked = {"containerID": ID, "signal": number, "isInitProcess": command is None, "argList": command or []}
    return "signal_container_process", asked


def steps_of(case: Case) -> list[Json]:
    """The conversation, without answers."""
    steps: list[Json] = []
    for question in case.questions:
        step = {"call": question.call, "input": question.input, "note": question.note}
        begin, back = ({"call": f"transaction_{what}", "input": {}} for what in ("begin", "rollback"))
        steps += [step] if question.kept else [begin, step, back]
    return steps


def answers(case: Case) -> list[Outcome]:
    """What the framework answers today."""
    steps = tuple(Step(number, step["call"], step["input"]) for number, step in enumerate(steps_of(case), 1))
    return list(simulate(DataPolicy(load(case.rego.encode())), Conversation(steps)))


def document(case: Case) -> Json:
    """The file: policy, steps, recorded answers. Fails where an answer is not the one said here by hand."""
    wanted = iter(case.questions)
    steps = steps_of(case)
    for step, outcome in zip(steps, answers(case), strict=True):
        decision = outcome.decision
        if decision is None:
            continue
        question = next(wanted)
        assert decision.allowed == question.allowed, f"{case.name}: {question.note}: {decision.message() or 'allowed'}"
        expect: Json = {"allowed": decision.allowed}
        if decision.allowed:
            if decision.env_list is not None:
                expect["env"] = sorted(set(decision.env_list))
            if decision.caps is not None:
                expect["caps"] = {name: sorted(set(getattr(decision.caps, name))) for name in CAPABILITY_SETS}
            expect["allow_stdio_access"] = decision.allow_stdio_access
        else:
            expect |= {"error_kind": decision.kind.value, "code": decision.reasons[0].code}
        step["expect"] = expect
    return {"name": case.name, "os": "linux", "policy_rego": case.rego, "steps": steps}


def main() -> int:
    """Writes the files that do not exist."""
    for case in cases():
        path = FOLDER / f"{case.name}.json"
        if not path.exists():
            path.write_text(json.dumps(document(case), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
