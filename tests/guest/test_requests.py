# SPDX-License-Identifier: Apache-2.0
"""What the host sends becomes typed values, or Malformed; never anything else."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import requests
from parma_guest.values import ContainerId, ExecId, GuestPath, Hostname, LayerTarget, RootHash, WorkingDirectory
from parma_policy import seccomp
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, ParmaError, Unsupported

ID = "0123456789abcdef" * 4


def create(**fields: Any) -> requests.CreateContainer:
    process = {"args": ["/x"], **fields.pop("process", {})}
    return requests.create_container(
        pb.CreateContainerRequest(container_id=ID, process=pb.Process(**process), **fields)
    )


@pytest.mark.parametrize(
    "text", ["", ID[:-1], ID + "0", ID.upper(), ID[:-1] + "g", ID[:-1] + "\n", "../" + ID, ID[:-1] + "٣"]
)
def test_container_ids_are_exact(text: str) -> None:
    assert ContainerId(ID) == ID
    with pytest.raises(Malformed):
        ContainerId(text)
    with pytest.raises(Malformed):
        RootHash(text)


@pytest.mark.parametrize("text", ["a/b", "a b", "a\n", "x" * 77, "é", "\0"])
def test_exec_ids_have_their_own_characters(text: str) -> None:
    assert ExecId("a.B_9-").is_init is False
    assert ExecId("").is_init
    with pytest.raises(Malformed):
        ExecId(text)


@pytest.mark.parametrize(
    "text",
    ["", "m1", "/run/mounts/scsi/m", "/run/mounts/scsi/m01", "/run/mounts/scsi/m1/", "/run/mounts/scsi/../m1",
     "/run/mounts/scsi/m99999", "/run/mounts/scsi/m1\n", "//run/mounts/scsi/m1"],
)  # fmt: skip
def test_layer_targets_have_one_spelling(text: str) -> None:
    assert LayerTarget("/run/mounts/scsi/m65535").number == 65535
    with pytest.raises(Malformed):
        LayerTarget(text)


@given(st.text(alphabet="/.ab\0\n", max_size=12))
def test_a_guest_path_is_canonical_or_refused(text: str) -> None:
    try:
        path = GuestPath(text)
    except Malformed:
        return
    assert path == text
    assert text == "/" or all(part not in ("", ".", "..") for part in text.split("/")[1:])
    assert "\n" not in text
    assert "\0" not in text


def test_a_working_directory_keeps_its_text_but_never_goes_up() -> None:
    assert WorkingDirectory("/app/") == "/app/"
    for text in ("app", "", "/a/../b", "/..", "/a\0"):
        with pytest.raises(Malformed):
            WorkingDirectory(text)


@pytest.mark.parametrize("text", ["a\n127.0.0.1 evil", "-a", "a-", "a..b", "a_b", "x" * 64, "a b", "."])
def test_hostnames_are_rfc_1123(text: str) -> None:
    assert Hostname("web-1.example") == "web-1.example"
    with pytest.raises(Malformed):
        Hostname(text)


MESSAGES = [getattr(pb, method.input_type.name) for method in pb.DESCRIPTOR.services_by_name["Guest"].methods]


@pytest.mark.parametrize("message", MESSAGES)
def test_an_unknown_field_is_refused_in_every_request(message: Any) -> None:
    requests.refuse_unknown_fields(message())
    with pytest.raises(Malformed, match="does not know"):
        requests.refuse_unknown_fields(message.FromString(b"\xf2\x07\x01x"))


def test_an_unknown_field_is_refused_however_deep() -> None:
    inner = pb.User().SerializeToString() + b"\xf8\x07\x01"
    process = b"\x22" + bytes([len(inner)]) + inner
    request = pb.CreateContainerRequest.FromString(b"\x12" + bytes([len(process)]) + process)
    with pytest.raises(Malformed, match="does not know"):
        requests.refuse_unknown_fields(request)


PARSERS: dict[Any, Callable[[Any], object]] = {
    pb.PutPolicyRequest: requests.put_policy,
    pb.EvidenceRequest: requests.nonce,
    pb.MountDeviceRequest: requests.mount_device,
    pb.MountScratchRequest: requests.mount_scratch,
    pb.MountOverlayRequest: requests.mount_overlay,
    pb.CreateContainerRequest: requests.create_container,
    pb.ExecProcessRequest: requests.exec_process,
    pb.SignalProcessRequest: requests.signal_process,
}


@pytest.mark.parametrize("message", PARSERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_one_of_our_errors(message: Any, data: bytes) -> None:
    try:
        request = message.FromString(data)
    except DecodeError:
        return
    try:
        requests.refuse_unknown_fields(request)
        PARSERS[message](request)
    except ParmaError:
        return


@given(
    env=st.lists(st.text(max_size=8), max_size=4),
    args=st.lists(st.text(max_size=8), max_size=4),
    cwd=st.text(max_size=8),
    umask=st.integers(0, 2**32 - 1),
    uid=st.integers(0, 2**32 - 1),
    caps=st.lists(st.sampled_from(["CAP_KILL", "cap_kill", "CAP_", "CAP_KILL\n", "", "CAP_SYS_ADMIN"]), max_size=3),
)
def test_a_process_that_is_accepted_is_well_formed(
    env: list[str], args: list[str], cwd: str, umask: int, uid: int, caps: list[str]
) -> None:
    message = pb.Process(
        args=args, env=env, cwd=cwd, user=pb.User(uid=uid, umask=umask), capabilities=pb.Capabilities(bounding=caps)
    )
    try:
        process = requests.process(message)
    except ParmaError:
        return
    assert process.args[0]
    assert all("\0" not in text for text in (*process.args, *process.env))
    names = [variable.partition("=")[0] for variable in process.env]
    assert len(set(names)) == len(names)
    assert all(names)
    assert not any("\n" in variable for variable in process.env)
    assert process.user.umask <= 0o777
    assert process.user.uid < 2**31
    assert set(process.capabilities.bounding) <= {"CAP_KILL", "CAP_SYS_ADMIN"}


@pytest.mark.parametrize(
    "process",
    [
        {"args": []},
        {"args": [""]},
        {"args": ["/x"] * 1025},
        {"args": ["/x", "a" * (128 * 1024)]},
        {"env": ["A=1", "A=2"]},
        {"env": ["A"]},
        {"env": ["=1"]},
        {"env": ["A=1\n2"]},
        {"env": [f"A{i}=" + "x" * 120_000 for i in range(5)]},
        {"cwd": "relative"},
        {"user": pb.User(uid=2**32 - 1)},
        {"user": pb.User(additional_gids=range(257))},
        {"user": pb.User(umask=0o1000)},
        {"capabilities": pb.Capabilities(ambient=["CAP_KILL"] * 65)},
        {"rlimits": [pb.Rlimit(type="RLIMIT_NOFILE", soft=2, hard=1)]},
        {"rlimits": [pb.Rlimit(type="NOFILE", soft=1, hard=1)]},
        {"rlimits": [pb.Rlimit(type="RLIMIT_NOFILE", soft=1, hard=1)] * 2},
        {"oom_score_adj": -1000},
        {"console_width": 70_000},
    ],
)
def test_malformed_processes_are_refused(process: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        create(process=process)


def test_errors_about_the_environment_never_quote_it() -> None:
    for env in (["SECRET"], ["A=hunter2\n"], ["A=hunter2", "A=hunter2"]):
        with pytest.raises(Malformed) as raised:
            create(process={"env": env})
        assert "SECRET" not in str(raised.value)
        assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(create(process={"env": ["A=hunter2"]}))


@pytest.mark.parametrize(
    "destination",
    ["/proc", "/proc/self", "/sys", "/sys/fs/cgroup", "/dev", "/dev/null", "/dev/shm/x", "/", "/a/../proc", "//proc"],
)
def test_mounts_over_the_system_directories_are_refused(destination: str) -> None:
    with pytest.raises(Malformed):
        create(mounts=[pb.Mount(destination=destination, type="tmpfs", source="tmpfs")])


def test_a_destination_that_only_looks_like_one_is_accepted() -> None:
    assert create(mounts=[pb.Mount(destination="/process", type="tmpfs", source="tmpfs")]).mounts


@pytest.mark.parametrize(
    "mount",
    [
        {"type": "overlay", "source": "overlay"},
        {"type": "proc", "source": "proc"},
        {"type": "", "source": ""},
        {"type": "bind", "source": "/run/../etc"},
        {"type": "bind", "source": ""},
        {"type": "tmpfs", "source": "/dev/sda"},
        {"type": "tmpfs", "source": "tmpfs", "options": ["data=x"]},
        {"type": "tmpfs", "source": "tmpfs", "options": ["size=1m,mode=777"]},
        {"type": "bind", "source": "/a", "options": ["size=1m"]},
        {"type": "tmpfs", "source": "tmpfs", "options": ["ro"] * 17},
    ],
)
def test_other_mounts_are_refused(mount: dict[str, Any]) -> None:
    with pytest.raises((Malformed, Unsupported)):
        create(mounts=[pb.Mount(destination="/data", **mount)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/bin/sh"),
        ("kernel.panic", "1"),
        ("vm.overcommit_memory", "1"),
        ("fs.mqueue", "1"),
        ("net.core", "1"),
        ("net.ipv4..tcp_syncookies", "1"),
        ("net/ipv4/tcp_syncookies", "1"),
        ("net.ipv4.tcp_syncookies", "1\n"),
        ("net.ipv4.tcp_syncookies", ""),
    ],
)
def test_sysctls_outside_the_list_are_refused(name: str, value: str) -> None:
    assert create(sysctls={"net.ipv4.ping_group_range": "0 2147483647"}).sysctls
    with pytest.raises((Malformed, Unsupported)):
        create(sysctls={name: value})


@pytest.mark.parametrize("name", ["fs.mqueue.msg_max", "kernel.shmmax", "net.ipv4.ip_forward", "net.core.somaxconn"])
def test_other_sysctls_of_a_containers_namespaces_are_told_apart_from_the_safe_ones(name: str) -> None:
    found = create(sysctls={"net.ipv4.tcp_syncookies": "1", name: "1"}).sysctls
    assert requests.unsafe_sysctl(found) == name
    assert requests.unsafe_sysctl({"net.ipv4.tcp_syncookies": "1"}) == ""


@pytest.mark.parametrize("field", ["masked_in_image", "readonly_in_image"])
def test_only_paths_of_the_image_can_be_hidden(field: str) -> None:
    assert getattr(create(**{field: ["/bin/ls", "/tmp"]}), field) == ("/bin/ls", "/tmp")
    for bad in (["/"], ["/proc/self"], ["/sys"], ["bin"], ["/bin/../etc"], [f"/{number}" for number in range(65)]):
        with pytest.raises(Malformed):
            create(**{field: bad})


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_limit": -2}, {"cpu_period": 1}, {"cpu_shares": 1}, {"blkio_weight": 5000}, {"pids_limit": 2**40},
        {"cpuset_cpus": "0-"}, {"cpuset_cpus": "0\n"}, {"cpuset_cpus": "a"},
    ],
)  # fmt: skip
def test_resources_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    assert requests.resources(pb.Resources(cpuset_cpus="0-2,4", cpu_quota=-1)).cpuset_cpus == "0-2,4"
    with pytest.raises(Malformed):
        requests.resources(pb.Resources(**fields))


def test_signals_and_luns_and_blocks_have_ranges() -> None:
    for signal in (0, 65, 2**32 - 1):
        with pytest.raises(Malformed):
            requests.signal_process(pb.SignalProcessRequest(container_id=ID, signal=signal))
    with pytest.raises(Malformed):
        requests.signal_process(pb.SignalProcessRequest(container_id=ID, exec_id="a", signal=9, all=True))
    good: dict[str, Any] = {"lun": 0, "target": "/run/mounts/scsi/m0", "device_hash": ID, "data_blocks": 1}
    requests.mount_device(pb.MountDeviceRequest(**good))
    for change in ({"lun": 256}, {"data_blocks": 0}, {"data_blocks": 2**25 + 1}, {"device_hash": "x"}, {"target": "/"}):
        with pytest.raises(Malformed):
            requests.mount_device(pb.MountDeviceRequest(**{**good, **change}))


def test_scratch_has_exactly_one_backing_and_overlays_no_layer_twice() -> None:
    for message in (
        pb.MountScratchRequest(container_id=ID),
        pb.MountScratchRequest(container_id=ID, memory_bytes=1),
        pb.MountScratchRequest(container_id=ID, memory_bytes=2**63),
        pb.MountScratchRequest(container_id=ID, lun=999),
    ):
        with pytest.raises(Malformed):
            requests.mount_scratch(message)
    with pytest.raises(Malformed):
        requests.mount_overlay(pb.MountOverlayRequest(container_id=ID, layer_targets=["/run/mounts/scsi/m1"] * 2))


def test_an_overlay_may_be_for_a_user_namespace() -> None:
    plain = pb.MountOverlayRequest(container_id=ID)
    assert requests.mount_overlay(plain).user_namespace is None
    mapping = pb.IdMapping(inside=0, outside=1000, size=10)
    mapped = pb.MountOverlayRequest(container_id=ID, uid_mappings=[mapping], gid_mappings=[mapping])
    assert requests.mount_overlay(mapped).user_namespace == (((0, 1000, 10),), ((0, 1000, 10),))
    for half in (
        pb.MountOverlayRequest(container_id=ID, uid_mappings=[mapping]),
        pb.MountOverlayRequest(container_id=ID, gid_mappings=[mapping]),
    ):
        with pytest.raises(Malformed):
            requests.mount_overlay(half)


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 8, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
            ],
        },
    ],
}  # fmt: skip
ENCODED = (
    b'{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"syscalls":'
    b'[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},{"names":["personality"],"action":"SCMP_ACT_ALLOW",'
    b'"args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":1,"value":8,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}'
)


def test_a_seccomp_profile_is_hashed_as_go_would_write_it_whatever_its_text() -> None:
    for text in (json.dumps(PROFILE), json.dumps(PROFILE, indent=3, sort_keys=True)):
        profile = seccomp.parse(text.encode())
        assert profile is not None
        assert profile.sha256() == hashlib.sha256(ENCODED).hexdigest()
        assert profile.as_document() == json.loads(ENCODED)
    assert seccomp.go_json("<a&b>\u2028") == b'"\\u003ca\\u0026b\\u003e\\u2028"'
    assert seccomp.parse(b"") is None


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "null", '"x"', "NaN", "[" * 100_000,
        '{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_KILL"}',
        '{"defaultAction":"SCMP_ACT_NOTIFY"}',
        '{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}',
        '{"defaultAction":"SCMP_ACT_ALLOW","hooks":[]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1.0}',
        '{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1}',
        '{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":true}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a\\n"],"action":"SCMP_ACT_ALLOW"}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}',
    ],
)  # fmt: skip
def test_other_seccomp_profiles_are_refused(text: str) -> None:
    with pytest.raises((Malformed, Unsupported)):
        seccomp.parse(text.encode())


JSON_KEYS = ["defaultAction", "syscalls", "names", "action", "args", "x"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(JSON_KEYS), inner),
        max_leaves=8,
    )
)
def test_any_json_gives_a_profile_or_one_of_our_errors(document: Any) -> None:
    try:
        seccomp.parse(json.dumps(document).encode())
    except ParmaError:
        return
