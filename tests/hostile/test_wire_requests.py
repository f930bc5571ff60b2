# SPDX-License-Identifier: Apache-2.0
"""Rows about what the host asks for: ids, paths, mounts, the OCI specification, environments, secrets."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import parma_guest
from parma_guest import oci, reaper
from parma_image import contents
from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, Denied, Malformed, ParmaError, Unsupported
from tests.guest import vm_harness as vm
from tests.hostile.wire import LAYERS, SLEEP, HostileHost, container, hostile_host

ID = "ab" * 32
SOURCE = f"/run/gcs/c/{ID}/sandboxMounts/tmp/atlas/emptydir/v"
LISTED = {
    "source": "sandbox:///tmp/atlas/emptydir/v",
    "destination": "/data",
    "type": "bind",
    "options": ["rbind", "ro"],
}
METHODS = pb.DESCRIPTOR.services_by_name["Guest"].methods
SECRET = "hunter2-correct-horse"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostileHost]:
    """Its policy: one container with a mount, with each kind of rule for variables, and one that may be elevated."""
    rules = [
        {"pattern": vm.PATH_VARIABLE, "strategy": "string", "required": False},
        {"pattern": "MODE=(a|b)", "strategy": "re2", "required": False},
        {"pattern": "TOKEN=.+", "strategy": "re2", "required": False},
    ]
    listed = container(mounts=[LISTED], env_rules=rules, user=exact_user())
    with hostile_host(tmp_path, listed, container(["/bin/elevated"], allow_elevated=True)) as host:
        host.make_rootfs(ID)
        yield host


def exact_user() -> dict[str, object]:
    """User 1000, groups 1000 and 2000."""
    return {
        "user_idname": {"pattern": "1000", "strategy": "id"},
        "group_idnames": [{"pattern": str(gid), "strategy": "id"} for gid in (1000, 2000)],
        "umask": "0022",
    }


USER = pb.User(uid=1000, gid=1000, additional_gids=[2000])
MOUNT = pb.Mount(destination="/data", type="bind", source=SOURCE, options=["rbind", "ro"])


def refused(host: HostileHost, error: type[ParmaError] | tuple[type[ParmaError], ...], **changes: Any) -> None:
    """The creation with these changes is, and the one that is listed still possible."""
    fields: dict[str, Any] = {"user": USER, "mounts": [MOUNT], **changes}
    answer = host.answer("CreateContainer", host.creation(ID, **fields))
    assert isinstance(answer, error), (changes, answer)
    assert host.specs == {}


def good(host: HostileHost, **changes: Any) -> dict[str, Any]:
    """The creation as the policy lists it; what crun was given."""
    fields: dict[str, Any] = {"user": USER, "mounts": [MOUNT], **changes}
    host.call("CreateContainer", host.creation(ID, **fields))
    return host.specs[ID]


def test_R02_every_part_of_a_mount_counts_and_none_matches_everything(host: HostileHost) -> None:
    def mount(**changes: Any) -> pb.Mount:
        fields = {"destination": "/data", "type": "bind", "source": SOURCE, "options": ["rbind", "ro"]}
        return pb.Mount(**{**fields, **changes})

    changes: tuple[dict[str, Any], ...] = (
        {"source": f"{SOURCE}/sub"},
        {"source": SOURCE[:-1] + "w"},
        {"destination": "/etc"},
        {"destination": "/data/x"},
        {"options": ["rbind", "rw"]},
        {"options": ["rbind"]},
        {"options": []},
        {"options": ["rbind", "ro", "exec"]},
        {"type": "tmpfs", "source": "tmpfs", "options": []},
    )
    for change in changes:
        refused(host, Denied, mounts=[mount(**change)])
    for change in ({"source": ""}, {"destination": ""}, {"type": ""}, {"source": "", "type": "tmpfs"}):
        refused(host, (Malformed, Unsupported), mounts=[mount(**change)])
    refused(host, Denied, mounts=[mount(), mount(destination="/etc/resolv.conf")])
    good(host, mounts=[mount()])


BAD_IDS = ("", "..", "../../etc", "/", "a/b", ID.upper(), ID[:-1], ID + "0", f"{ID}\n", f"{ID[:-1]}\0", "%s%n" * 16)


def messages_with(name: str) -> list[tuple[str, str]]:
    """Every request of the service that has the field, with the field's name."""
    found = [(method.name, method.input_type) for method in METHODS]
    return [(method, field.name) for method, kind in found for field in kind.fields if field.name in (name,)]


def test_R03_no_request_takes_an_id_of_another_form(host: HostileHost) -> None:
    asked = 0
    for method, field in messages_with("container_id") + messages_with("sandbox_id"):
        kind = getattr(pb, f"{method}Request")
        for bad in BAD_IDS:
            fields: dict[str, Any] = {field: bad}
            if "process" in kind.DESCRIPTOR.fields_by_name:
                fields["process"] = vm.process(SLEEP)
            if "signal" in kind.DESCRIPTOR.fields_by_name:
                fields["signal"] = 9
            for optional in ("memory_bytes", "exec_id"):
                if optional in kind.DESCRIPTOR.fields_by_name:
                    fields[optional] = (
                        1 << 24 if optional == "memory_bytes" else ("e" if method == "ExecProcess" else "")
                    )
            answer = host.answer(method, kind(**fields))
            assert isinstance(answer, Malformed), (method, bad, answer)
            asked += 1
    assert asked >= 15 * len(BAD_IDS)
    for bad in ("../x", "a/b", "x" * 77, "a b", "é", "a\n", "%n/"):
        request = pb.ExecProcessRequest(container_id=ID, exec_id=bad, process=vm.process(SLEEP))
        assert isinstance(host.answer("ExecProcess", request), Malformed)


TAKES_MESSAGES = {"provided.py", "requests.py", "service.py", "streams.py"}
"""Modules of the enforcer that see what the host wrote."""


def test_R04_ids_of_a_message_only_ever_become_typed_ids() -> None:
    typed = {
        "container_id": "ContainerId",
        "sandbox_id": "ContainerId",
        "pid_namespace_of": "ContainerId",
        "exec_id": "ExecId",
    }
    seen = set()
    for path in Path(parma_guest.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path.name not in TAKES_MESSAGES:
            used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert "container_id" not in used, path.name
            continue
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in typed:
                use = parents[node]
                if isinstance(use, ast.Assign):  # joined = message.pid_namespace_of; ContainerId(joined) if joined
                    continue
                assert isinstance(use, ast.Call), f"{path.name}:{node.lineno}"
                assert ast.unparse(use.func) == typed[node.attr], f"{path.name}:{node.lineno}"
                seen.add(node.attr)
    assert {"container_id", "exec_id"} <= seen


OPTIONS = (
    *(
        "dev",
        "lowerdir=/",
        "upperdir=/run",
        "workdir=/x",
        "context=system_u",
        "idmap",
        "ridmap",
        "tmpcopyup",
        "remount",
    ),
    *("move", "dax", "data=journal", "loop", "offset=0", "size=1,exec", "ro,rw", "", "RO", "nosuid\n", "uid=0,gid=0"),
)


def test_R05_no_other_option_or_type_of_a_mount_is_passed_on(host: HostileHost) -> None:
    for option in OPTIONS:
        refused(host, Malformed, mounts=[pb.Mount(destination="/data", type="bind", source=SOURCE, options=[option])])
        tmpfs = pb.Mount(destination="/data", type="tmpfs", source="tmpfs", options=[option])
        refused(host, (Malformed, Denied), mounts=[tmpfs])
    for kind in ("overlay", "ext4", "xfs", "9p", "virtiofs", "proc", "sysfs", "cgroup", "devpts", "mqueue", "none"):
        refused(host, Unsupported, mounts=[pb.Mount(destination="/data", type=kind, source=SOURCE)])
    # What was mounted for the root file system has options of the enforcer's own only.
    assert {kind: data.partition(",lower")[0][:8] for _, _, kind, _, data in host.rig.kernel.mounts} == {
        "ext4": "noload",
        "tmpfs": "size=167",
        "overlay": "lowerdir",
    }


def test_R06_a_path_has_one_spelling(host: HostileHost) -> None:
    spellings = (
        "/data/",
        "//data",
        "/./data",
        "/data/.",
        "/x/../data",
        "data",
        "/data\0",
        "/da\nta",
        f"/{'d' * 256}",
        "",
    )
    for spelling in spellings:
        refused(host, Malformed, mounts=[pb.Mount(destination=spelling, type="bind", source=SOURCE)])
        source = SOURCE.replace("/v", spelling if spelling.startswith("/") else f"/{spelling}/..")
        if source != SOURCE.replace("/v", "/data"):
            refused(host, (Malformed, Denied), mounts=[pb.Mount(destination="/data", type="bind", source=source)])
    for target in (
        "/run/mounts/scsi/m01",
        "/run/mounts/scsi/../scsi/m1",
        "/run/mounts/scsi/m1/",
        "/run/mounts//scsi/m1",
    ):
        request = pb.MountDeviceRequest(lun=9, target=target, device_hash=LAYERS[0], data_blocks=8)
        assert isinstance(host.answer("MountDevice", request), Malformed)


def test_R11_nothing_is_mounted_over_proc_sys_or_dev(host: HostileHost) -> None:
    for place in ("/proc", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/", "/proc/../data"):
        refused(host, Malformed, mounts=[pb.Mount(destination=place, type="tmpfs", source="tmpfs")])
    linux = good(host)["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (list(oci.MASKED_PATHS), list(oci.READONLY_PATHS))


def descriptors(top: Any) -> Iterator[tuple[str, ...]]:
    """Paths of fields to every message inside ``top``, itself included."""
    yield ()
    for field in top.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            for rest in descriptors(field.message_type):
                yield (field.name, *rest)


def with_unknown(message: Message, path: tuple[str, ...], unknown: bytes) -> Message:
    """The message with an unknown field in the part that ``path`` leads to."""
    copy = type(message)()
    copy.CopyFrom(message)
    part = copy
    for name in path:
        part = getattr(part, name)
        if not isinstance(part, Message):
            part = part.add()
    part.MergeFromString(unknown)
    return copy


UNKNOWN = (b"\xf2\x07\x05hooks", b"\xf8\x07\x01", b"\xf1\x07" + bytes(8))
"""Field 126 as bytes, field 127 as a number, field 126 as eight bytes."""


def test_R27_a_field_that_the_enforcer_does_not_know_is_refused_wherever_it_is(host: HostileHost) -> None:
    creation = host.creation(ID, user=USER, mounts=[MOUNT])
    places = list(descriptors(creation.DESCRIPTOR))
    assert len(places) >= 7
    for path, unknown in itertools.product(places, UNKNOWN):
        answer = host.answer("CreateContainer", with_unknown(creation, path, unknown))
        assert isinstance(answer, Malformed), (path, unknown)
    assert host.specs == {}
    good(host)


SPEC = {"ociVersion", "root", "hostname", "process", "mounts", "linux"}
LINUX = {"namespaces", "cgroupsPath", "resources", "maskedPaths", "readonlyPaths", "devices", "sysctl", "seccomp"}
PROCESS = {
    *("terminal", "args", "env", "cwd", "user", "capabilities", "noNewPrivileges", "rlimits", "consoleSize"),
    "oomScoreAdj",
}


def test_R27_nothing_but_the_listed_members_ever_reaches_crun(host: HostileHost) -> None:
    spec = good(host, hostname="box", readonly_rootfs=True, resources=pb.Resources(memory_limit=1 << 30))
    assert set(spec) <= SPEC
    assert set(spec["linux"]) <= LINUX
    assert set(spec["process"]) <= PROCESS


def test_R28_devices_come_from_the_policy_alone(host: HostileHost) -> None:
    names = {
        field.name for kind in (pb.CreateContainerRequest, pb.Process, pb.Resources) for field in kind.DESCRIPTOR.fields
    }
    assert not [name for name in names if "device" in name]
    linux = good(host)["linux"]
    assert "devices" not in linux
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_R28_an_elevated_container_gets_no_device_either(host: HostileHost) -> None:
    host.call("CreateContainer", host.creation(ID, ["/bin/elevated"], privileged=True))
    assert host.specs[ID]["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_R29_there_is_no_field_for_annotations_hooks_or_arguments_of_anything() -> None:
    words = (
        "annotation",
        "hook",
        "kernel",
        "cmdline",
        "path",
        "binary",
        "config",
        "runtime",
        "label",
        "debug",
        "console_url",
    )
    fields = {
        f"{message.name}.{field.name}"
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    assert not [name for name in fields for word in words if word in name.partition(".")[2]]


BAD_ENVIRONMENTS = (
    ["MODE=c"],
    ["MODE=a", "MODE=b"],
    ["MODE=a\nLD_PRELOAD=/x"],
    ["MODE=a\0"],
    ["MODE"],
    ["=x"],
    ["XMODE=a"],
    ["MODE=aa"],
    ["LD_PRELOAD=/evil.so"],
    ["LD_AUDIT=/evil.so"],
    ["LD_LIBRARY_PATH=/evil"],
    ["PYTHONSTARTUP=/evil.py"],
    ["BASH_ENV=/evil"],
    ["path=/evil"],
    ["PATH=/evil"],
)


def test_R30_programs_of_the_guest_get_a_constant_environment_and_nobody_elses_files() -> None:
    """One function starts programs; no variable and no working directory of a container or the host gets there."""
    starting = {
        "posix_spawn",
        "posix_spawnp",
        "execv",
        "execve",
        "execvp",
        "system",
        "popen",
        "Popen",
        "fork",
        "spawnv",
    }
    found = []
    for path in Path(parma_guest.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in (a.name for a in node.names)
        }
        assert not names & {"subprocess", "multiprocessing", "pty"}, path.name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in starting:
                found.append((path.name, [ast.unparse(argument) for argument in node.args]))
    assert found == [("reaper.py", ["arguments[0]", "list(arguments)", "ENVIRONMENT"])]
    assert set(reaper.ENVIRONMENT) == {"PATH", "LC_ALL"}
    first = contents.init_script().splitlines()[0]
    assert first.endswith(" -ISB")  # isolated: no environment, no user's files, no site module, no working directory


def test_R31_only_listed_variables_get_in_and_none_twice(host: HostileHost) -> None:
    for env in BAD_ENVIRONMENTS:
        refused(host, (Malformed, Denied), env=env)
    assert good(host, env=["MODE=a"])["process"]["env"] == ["MODE=a", "HOME=/"]


def test_R31_an_expression_for_any_variable_lets_none_in_that_loads_code(tmp_path: Path) -> None:
    anything = {"pattern": "(?s).+", "strategy": "re2", "required": False}
    listed = {"pattern": "LD_LIBRARY_PATH=/opt/.+", "strategy": "re2", "required": False}
    with hostile_host(tmp_path, container(env_rules=[anything, listed])) as host:
        host.make_rootfs(ID)
        for variable in (
            "LD_PRELOAD=/x.so",
            "LD_LIBRARY_PATH=x",
            "PYTHONSTARTUP=/x",
            "BASH_ENV=/x",
            "A=\nLD_PRELOAD=/x",
        ):
            answer = host.answer("CreateContainer", host.creation(ID, env=["A=1", variable]))
            assert isinstance(answer, Malformed | Denied), (variable, answer)
        host.call("CreateContainer", host.creation(ID, env=["A=1", "LD_LIBRARY_PATH=/opt/lib"]))


def test_R33_no_line_can_be_smuggled_into_a_host_name_or_a_kernel_setting(host: HostileHost) -> None:
    for name in ("a\n10.0.0.1 bank", "a b", "a\0", "-a", "a..b", "a/b", "é", "x" * 64, "a.", "$(id)"):
        refused(host, Malformed, hostname=name)
    for key, value in (
        ("kernel.core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced", "1\n2"),
        ("net.ipv4.tcp_syncookies/../x", "1"),
        ("kernel.modprobe", "/evil"),
        ("net.ipv4.tcp_syncookies", "|/evil"),
    ):
        refused(host, (Malformed, Unsupported), sysctls={key: value})


def test_R35_user_and_every_group_are_exact(host: HostileHost) -> None:
    for user in (
        pb.User(uid=0, gid=1000, additional_gids=[2000]),
        pb.User(uid=1000, gid=0, additional_gids=[2000]),
        pb.User(uid=1000, gid=1000, additional_gids=[2000, 0]),
        pb.User(uid=1000, gid=1000, additional_gids=[2000, 27]),
        pb.User(uid=1000, gid=1000, additional_gids=[2000], umask=0),
    ):
        refused(host, Denied, user=user)
    for user in (pb.User(uid=2**32 - 1), pb.User(uid=1000, gid=2**31), pb.User(additional_gids=[1] * 300)):
        refused(host, Malformed, user=user)
    assert good(host)["process"]["user"] == {"uid": 1000, "gid": 1000, "umask": 0o22, "additionalGids": [2000]}


def test_R36_an_id_is_used_once_in_the_life_of_the_vm(host: HostileHost) -> None:
    good(host)
    host.rig.runtime.children[-1].finish(0)
    for method in ("DeleteContainer", "UnmountOverlay", "UnmountScratch"):
        host.call(method, getattr(pb, f"{method}Request")(container_id=ID))
    host.call("MountScratch", pb.MountScratchRequest(container_id=ID, memory_bytes=16 << 20))
    targets = [f"/run/mounts/scsi/m{number}" for number in (2, 1, 0)]
    host.answer("MountOverlay", pb.MountOverlayRequest(container_id=ID, layer_targets=targets))
    assert isinstance(host.answer("CreateContainer", host.creation(ID, user=USER, mounts=[MOUNT])), AlreadyExists)


def test_R38_capabilities_are_those_of_the_policy_set_by_set(host: HostileHost) -> None:
    listed = vm.CAPABILITIES
    for change in (
        {"bounding": [*listed, "CAP_SYS_ADMIN"], "effective": listed, "permitted": listed},
        {"bounding": listed, "effective": [*listed, "CAP_BPF"], "permitted": listed},
        {"bounding": listed, "effective": listed, "permitted": listed, "ambient": ["CAP_CHOWN"]},
        {"bounding": listed, "effective": listed, "permitted": listed, "inheritable": ["CAP_CHOWN"]},
        {"bounding": [*listed[:-1], "CAP_SYS_PTRACE"], "effective": listed, "permitted": listed},
    ):
        refused(host, Denied, capabilities=pb.Capabilities(**change))
    for name in ("CAP_ALL", "ALL", "cap_chown", "CAP_CHOWN\n", "CAP_*"):
        caps = pb.Capabilities(bounding=[*listed, name], effective=listed, permitted=listed)
        refused(host, (Malformed, Denied), capabilities=caps)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=TEXTS,
    after=TEXTS,
    name=st.sampled_from(["TOKEN", "PATH", "NOTHING", "MODE", "X" * 300, ""]),
    where=st.integers(0, 2),
)
def test_R52_no_value_of_a_variable_and_no_argument_is_in_any_answer(
    host: HostileHost, before: str, after: str, name: str, where: int
) -> None:
    value = f"{before}{SECRET}{after}"
    changes: dict[str, Any] = {"env": [f"{name}={value}", f"OTHER={value}"]}
    if where == 1:
        changes = {"args": ["/bin/sleep", value]}
    if where == 2:
        changes = {"env": [vm.PATH_VARIABLE], "cwd": "/nowhere", "user": pb.User(uid=4)}
        changes["args"] = ["/bin/sh", "-c", value, "x" * 3000]
    args = changes.pop("args", SLEEP)
    creation = host.creation(ID, args, mounts=[MOUNT], **{"user": USER, **changes})
    process = vm.process(args, **changes)
    for method, request in (
        ("CreateContainer", creation),
        ("ExecProcess", pb.ExecProcessRequest(container_id=ID, exec_id="e", process=process)),
        ("CreateContainer", with_unknown(creation, ("process",), UNKNOWN[0])),
    ):
        answer = host.answer(method, request)
        assert answer is not None
        assert SECRET not in str(answer)
        assert SECRET[:8] not in repr(answer)


def test_R52_what_holds_a_secret_does_not_print_it(host: HostileHost) -> None:
    from parma_guest import requests

    creation = requests.create_container(host.creation(ID, env=[f"TOKEN={SECRET}"]))
    execution = requests.exec_process(
        pb.ExecProcessRequest(container_id=ID, exec_id="e", process=vm.process(SLEEP, env=[f"TOKEN={SECRET}"]))
    )
    for value in (creation, execution, creation.process):
        assert SECRET not in repr(value)
        assert SECRET not in f"{value}"
    assert creation.process.env == (f"TOKEN={SECRET}",)  # hiding it changes nothing
