# SPDX-License-Identifier: Apache-2.0
"""Every limit on what the host may send, from both sides; and each field arrives where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from parma_guest import requests
from parma_guest.values import Capabilities, MountSpec, Resources, Rlimit, User
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, Unsupported
from parma_wire.limits import DOCUMENT_CHUNK, MAX_DOCUMENT_BYTES, MAX_POLICY_BYTES, POLICY_CHUNK

ID = "0123456789abcdef" * 4
KIB = 1024
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
RLIMITS = (
    *("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS"),
    *("RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
)
SYSCTLS = (
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time"),
    "net.ipv4.tcp_syncookies",
)


def process(**fields: Any) -> object:
    return requests.process(pb.Process(**{"args": ["/x"], **fields}))


def user(**fields: Any) -> object:
    return process(user=pb.User(**fields))


def resources(**fields: Any) -> object:
    return requests.resources(pb.Resources(**fields))


def mounts(count: int) -> object:
    mount = pb.Mount(destination="/data", type="tmpfs", source="tmpfs")
    return requests.create_container(
        pb.CreateContainerRequest(container_id=ID, process=pb.Process(args=["/x"]), mounts=[mount] * count)
    )


def hidden(kind: str) -> Callable[[list[str]], object]:
    def send(paths: list[str]) -> object:
        fields: dict[str, Any] = {kind: paths}
        return requests.create_container(
            pb.CreateContainerRequest(container_id=ID, process=pb.Process(args=["/x"]), **fields)
        )

    return send


def mount(**fields: Any) -> MountSpec:
    message = pb.Mount(**{"destination": "/data", "type": "tmpfs", "source": "tmpfs", **fields})
    request = pb.CreateContainerRequest(container_id=ID, process=pb.Process(args=["/x"]), mounts=[message])
    (found,) = requests.create_container(request).mounts
    return found


def layers(count: int) -> object:
    targets = [f"/run/mounts/scsi/m{number}" for number in range(count)]
    return requests.mount_overlay(pb.MountOverlayRequest(container_id=ID, layer_targets=targets))


def scratch(**fields: Any) -> object:
    return requests.mount_scratch(pb.MountScratchRequest(container_id=ID, **fields))


def device(**fields: Any) -> object:
    good: dict[str, Any] = {"lun": 0, "target": "/run/mounts/scsi/m0", "device_hash": ID, "data_blocks": 1}
    return requests.mount_device(pb.MountDeviceRequest(**{**good, **fields}))


def capabilities(name: str) -> Callable[[int], object]:
    return lambda count: process(capabilities=pb.Capabilities(**{name: ["CAP_KILL"] * count}))


def sized(prefix: str, size: int) -> str:
    return prefix + "x" * (size - len(prefix))


class Limit(NamedTuple):
    """``send`` with any of ``good`` is accepted, with any of ``bad`` refused."""

    send: Callable[[Any], object]
    good: tuple[Any, ...]
    bad: tuple[Any, ...]


LIMITS = {
    "piece of the policy": Limit(
        lambda size: requests.put_policy(pb.PutPolicyRequest(data=bytes(size))),
        (1, POLICY_CHUNK),
        (0, POLICY_CHUNK + 1),
    ),
    "offset in the policy": Limit(
        lambda offset: requests.put_policy(pb.PutPolicyRequest(offset=offset, data=b"x")),
        (0, MAX_POLICY_BYTES),
        (MAX_POLICY_BYTES + 1,),
    ),
    "piece of a document": Limit(
        lambda size: requests.put_document(pb.PutDocumentRequest(data=bytes(size))),
        (1, DOCUMENT_CHUNK),
        (0, DOCUMENT_CHUNK + 1),
    ),
    "offset in a document": Limit(
        lambda offset: requests.put_document(pb.PutDocumentRequest(offset=offset, data=b"x")),
        (0, MAX_DOCUMENT_BYTES),
        (MAX_DOCUMENT_BYTES + 1,),
    ),
    "nonce": Limit(lambda size: requests.nonce(pb.EvidenceRequest(nonce=bytes(size))), (64,), (0, 32, 63, 65)),
    "blocks of a layer": Limit(lambda blocks: device(data_blocks=blocks), (1, 2**25), (0, 2**25 + 1)),
    "LUN of a layer": Limit(lambda lun: device(lun=lun), (0, 255), (256,)),
    "LUN of scratch": Limit(lambda lun: scratch(lun=lun), (0, 255), (256,)),
    "scratch in memory": Limit(lambda size: scratch(memory_bytes=size), (2**20, 2**40), (0, 2**20 - 1, 2**40 + 1)),
    "layers": Limit(layers, (0, 1, 128), (129,)),
    "mounts": Limit(mounts, (0, 64), (65,)),
    "mount options": Limit(lambda count: mount(options=["ro"] * count), (0, 16), (17,)),
    **{
        f"paths {kind}": Limit(
            hidden(kind),
            ([], ["/opt/x"], ["/opt/x"] * 64),
            (["/opt/x"] * 65, ["/"], ["/proc/x"], ["/sys"], ["opt"], ["/opt/../x"]),
        )
        for kind in ("masked_in_image", "readonly_in_image")
    },
    "arguments": Limit(lambda count: process(args=["/x"] * count), (1, 1024), (0, 1025)),
    "bytes of an argument": Limit(
        lambda size: process(args=["/x", "x" * size]), (0, 128 * KIB - 1), (128 * KIB,)
    ),
    "bytes of all arguments": Limit(
        lambda last: process(args=["x" * (127 * KIB)] * 4 + ["x" * last]), (4 * KIB,), (4 * KIB + 1,)
    ),
    "bytes, not characters, of arguments": Limit(
        lambda last: process(args=["é" * (63 * KIB)] * 4 + ["é" * last]), (4 * KIB,), (4 * KIB + 1,)
    ),
    "variables": Limit(lambda count: process(env=[f"A{n}=" for n in range(count)]), (0, 2048), (2049,)),
    "bytes of a variable": Limit(lambda size: process(env=[sized("A=", size)]), (2, 128 * KIB - 1), (128 * KIB,)),
    "bytes of all variables": Limit(
        lambda last: process(env=[sized(f"{n}=", 127 * KIB) for n in "abcd"] + [sized("e=", last)]),
        (4 * KIB,),
        (4 * KIB + 1,),
    ),
    "bytes, not characters, of variables": Limit(
        lambda last: process(env=[f"{n}=" + "é" * (63 * KIB) for n in "abcd"] + [sized("e=", last)]),
        (8 * KIB - 8,),
        (8 * KIB - 7,),
    ),
    "groups": Limit(lambda count: user(additional_gids=range(count)), (0, 256), (257,)),
    "umask": Limit(lambda umask: user(umask=umask), (0, 0o777), (0o1000,)),
    "uid": Limit(lambda uid: user(uid=uid), (0, 2**31 - 1), (2**31, 2**32 - 1)),
    "gid": Limit(lambda gid: user(gid=gid), (0, 2**31 - 1), (2**31, 2**32 - 1)),
    "additional gid": Limit(lambda gid: user(additional_gids=[1, gid]), (2**31 - 1,), (2**31, 2**32 - 1)),
    **{f"{name} capabilities": Limit(capabilities(name), (0, 64), (65,)) for name in CAPABILITY_SETS},
    "name of a capability": Limit(
        lambda name: process(capabilities=pb.Capabilities(ambient=["CAP_KILL", name])),
        ("CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
        ("CAP_", "CAP_X", "cap_kill", "CAP_KILL\n", "KILL", "", "CAP_" + "X" * 25),
    ),
    "signal": Limit(
        lambda signal: requests.signal_process(pb.SignalProcessRequest(container_id=ID, signal=signal)),
        (1, 64),
        (0, 65),
    ),
    "width of a console": Limit(lambda width: process(console_width=width), (0, 65_535), (65_536,)),
    "height of a console": Limit(lambda height: process(console_height=height), (0, 65_535), (65_536,)),
    "oom_score_adj": Limit(lambda score: process(oom_score_adj=score), (-999, 0, 1000), (-1000, 1001)),
    "memory_limit": Limit(lambda value: resources(memory_limit=value), (-1, 0, 2**62), (-2, 2**62 + 1)),
    "memory_swap": Limit(lambda value: resources(memory_swap=value), (-1, 0, 2**62), (-2, 2**62 + 1)),
    "memory_reservation": Limit(lambda value: resources(memory_reservation=value), (0, 2**62), (-1, 2**62 + 1)),
    "cpu_quota": Limit(lambda value: resources(cpu_quota=value), (-1, 2**40), (-2, 2**40 + 1)),
    "cpu_period": Limit(lambda value: resources(cpu_period=value), (1000, 1_000_000), (999, 1_000_001)),
    "cpu_shares": Limit(lambda value: resources(cpu_shares=value), (2, 262_144), (1, 262_145)),
    "pids_limit": Limit(lambda value: resources(pids_limit=value), (-1, 2**31 - 1), (-2, 2**31)),
    "blkio_weight": Limit(lambda value: resources(blkio_weight=value), (10, 1000), (9, 1001)),
    "cpuset_cpus": Limit(
        lambda text: resources(cpuset_cpus=text),
        ("", "0", "0-2,4", "9999", ",".join(["1-2"] * 64)),
        ("10000", "0-", "-1", "0,", "a", "0\n", " 0", "0-10000", ",".join(["1"] * 65)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_what_is_within_the_limit_is_accepted_and_the_next_is_not(limit: Limit) -> None:
    for value in limit.good:
        limit.send(value)
    for value in limit.bad:
        with pytest.raises(Malformed):
            limit.send(value)


@pytest.mark.parametrize("name", [f"RLIMIT_{name}" for name in RLIMITS])
def test_every_resource_limit_of_the_kernel_may_be_set_up_to_its_hard_limit(name: str) -> None:
    spec = requests.process(pb.Process(args=["/x"], rlimits=[pb.Rlimit(type=name, soft=2, hard=2)]))
    assert spec.rlimits == (Rlimit(name, 2, 2),)
    with pytest.raises(Malformed):
        process(rlimits=[pb.Rlimit(type=name, soft=3, hard=2)])


def test_all_resource_limits_fit_and_no_more() -> None:
    every = [pb.Rlimit(type=f"RLIMIT_{name}", soft=1, hard=1) for name in RLIMITS]
    process(rlimits=every)
    with pytest.raises(Malformed, match="too many resource limits;"):
        process(rlimits=[*every, every[0]])


def sandbox(sysctls: dict[str, str]) -> requests.CreateSandbox:
    return requests.create_sandbox(pb.CreateSandboxRequest(sandbox_id=ID, hostname="pod", sysctls=sysctls))


@pytest.mark.parametrize("name", SYSCTLS)
def test_the_safe_sysctls_may_be_set(name: str) -> None:
    assert sandbox({name: "1024"}) == (ID, "pod", {name: "1024"})
    assert requests.unsafe_sysctl({name: "1024"}) == ""


OF_NAMESPACES = (
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
    *("kernel.shmmni", "fs.mqueue.msg_max", "net.core.somaxconn", "net.ipv4.conf.eth0.rp_filter"),
)


@pytest.mark.parametrize("name", OF_NAMESPACES)
def test_sysctls_of_the_containers_namespaces_are_well_formed_and_not_safe(name: str) -> None:
    assert sandbox({name: "1"}).sysctls == {name: "1"}
    assert requests.unsafe_sysctl({SYSCTLS[0]: "1", name: "1"}) == name


@pytest.mark.parametrize(
    "name",
    [
        *("kernel.core_pattern", "kernel.shmmax.x", "KERNEL.SEM", "kernel/sem", "fs.file-max", "fs.mqueue"),
        *("vm.overcommit_memory", "net.ipv4", "net..ipv4.x", "net.ipv4./etc", "net.a.b\n", "net.a.b.c.d.e.f.g"),
        *("net.é.x", "xnet.ipv4.x", ""),
    ],
)
def test_other_sysctls_are_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        sandbox({name: "1024"})


def test_values_of_sysctls_are_numbers() -> None:
    name = "net.ipv4.ip_local_reserved_ports"
    for value in ("0", "1\t2", "1,2-3", "1" * 128):
        sandbox({name: value})
    for value in ("", " 1", "a", "1;2", "1\n", "1" * 129, "-1"):
        with pytest.raises(Malformed):
            sandbox({name: value})
    with pytest.raises(Malformed, match="too many sysctls;"):
        sandbox({f"x{number}": "1" for number in range(33)})
    with pytest.raises(Unsupported):  # not too many
        sandbox({f"x{number}": "1" for number in range(32)})


def test_each_field_of_a_process_arrives_where_it_belongs() -> None:
    sets = {name: [f"CAP_{name.upper()}"] for name in CAPABILITY_SETS}
    message = pb.Process(
        args=["/bin/x", "-a"],
        env=["A=1", "B="],
        cwd="/work/",
        user=pb.User(uid=1, gid=2, additional_gids=[3, 4], umask=0o077),
        capabilities=pb.Capabilities(**sets),
        no_new_privileges=True,
        rlimits=[pb.Rlimit(type="RLIMIT_CPU", hard=9, soft=8)],
        oom_score_adj=7,
        terminal=True,
        console_width=80,
        console_height=25,
        stdin=True,
    )
    found = requests.process(message)
    assert found.args == ("/bin/x", "-a")
    assert found.env == ("A=1", "B=")
    assert found.cwd == "/work/"
    assert found.user == User(1, 2, (3, 4), 0o077)
    assert found.capabilities == Capabilities(*((f"CAP_{name.upper()}",) for name in CAPABILITY_SETS))
    assert (found.no_new_privileges, found.terminal, found.stdin) == (True, True, True)
    assert found.rlimits == (Rlimit("RLIMIT_CPU", 9, 8),)
    assert found.oom_score_adj == 7
    assert found.console_size == (80, 25)


def test_what_a_process_does_not_say_has_a_harmless_meaning() -> None:
    found = requests.process(pb.Process(args=["/x"]))
    assert found.cwd == "/"
    assert found.user == User(0, 0, (), 0o022)
    assert found.capabilities == Capabilities((), (), (), (), ())
    assert (found.no_new_privileges, found.terminal, found.stdin) == (False, False, False)
    assert found.oom_score_adj is None
    assert requests.process(pb.Process(args=["/x"], oom_score_adj=0)).oom_score_adj == 0
    assert requests.process(pb.Process(args=["/x"], user=pb.User(umask=0))).user.umask == 0


def test_each_field_of_a_container_arrives_where_it_belongs() -> None:
    message = pb.CreateContainerRequest(
        container_id=ID,
        process=pb.Process(args=["/x"]),
        mounts=[pb.Mount(destination="/a", type="bind", source="/b", options=["ro", "rbind"])],
        readonly_rootfs=True,
        hostname="web",
        seccomp=b'{"defaultAction":"SCMP_ACT_ALLOW"}',
        sysctls={"kernel.shm_rmid_forced": "1"},
        resources=pb.Resources(cpuset_cpus="1", memory_limit=5, pids_limit=0),
        privileged=True,
        sandbox_container=True,
        pid_namespace_of="ab" * 32,
        masked_in_image=["/opt/a"],
        readonly_in_image=["/opt/b", "/opt/c"],
    )
    found = requests.create_container(message)
    assert (found.container, found.process.args, found.hostname) == (ID, ("/x",), "web")
    assert found.mounts == (MountSpec(found.mounts[0].destination, "bind", "/b", ("ro", "rbind")),)
    assert found.mounts[0].destination == "/a"
    assert (found.readonly_rootfs, found.privileged, found.sandbox_container) == (True, True, True)
    assert found.seccomp is not None
    assert found.sysctls == {"kernel.shm_rmid_forced": "1"}
    assert found.resources == Resources(cpuset_cpus="1", memory_limit=5, pids_limit=0)
    assert found.pid_namespace_of == "ab" * 32
    assert (found.masked_in_image, found.readonly_in_image) == (("/opt/a",), ("/opt/b", "/opt/c"))
    bare = requests.create_container(pb.CreateContainerRequest(container_id=ID, process=pb.Process(args=["/x"])))
    assert (bare.readonly_rootfs, bare.privileged, bare.sandbox_container) == (False, False, False)
    assert (bare.seccomp, bare.pid_namespace_of, bare.hostname, bare.resources) == (None, None, "", Resources())


def test_the_other_requests_carry_their_fields() -> None:
    assert requests.put_policy(pb.PutPolicyRequest(offset=3, data=b"p")) == (3, b"p")
    assert requests.put_document(pb.PutDocumentRequest(offset=4, data=b"d")) == (4, b"d")
    assert requests.nonce(pb.EvidenceRequest(nonce=b"n" * 64)) == b"n" * 64
    assert device(lun=7, data_blocks=9) == (7, "/run/mounts/scsi/m0", ID, 9)
    assert scratch(lun=0) == (ID, 0, None)
    assert scratch(memory_bytes=2**20) == (ID, None, 2**20)
    volume = pb.MountVolumeRequest(name="cache", memory_bytes=2**20)
    assert requests.mount_volume(volume) == ("cache", None, 2**20)
    for kill_all in (False, True):
        signal = pb.SignalProcessRequest(container_id=ID, signal=9, all=kill_all)
        assert requests.signal_process(signal) == (ID, "", 9, kill_all)
    one = pb.SignalProcessRequest(container_id=ID, exec_id="e", signal=15)
    assert requests.signal_process(one) == (ID, "e", 15, False)
    found = requests.exec_process(pb.ExecProcessRequest(container_id=ID, exec_id="e", process=pb.Process(args=["/x"])))
    assert (found.container, found.exec_id, found.process.args) == (ID, "e", ("/x",))
    with pytest.raises(Malformed, match="missing"):
        requests.exec_process(pb.ExecProcessRequest(container_id=ID, process=pb.Process(args=["/x"])))


def test_layers_stay_in_their_order() -> None:
    targets = [f"/run/mounts/scsi/m{number}" for number in (5, 0, 3)]
    found = requests.mount_overlay(pb.MountOverlayRequest(container_id=ID, layer_targets=targets))
    assert (found.container, list(found.layers)) == (ID, targets)


def test_what_a_mount_may_come_from_depends_on_its_type() -> None:
    for source in ("tmpfs", "shm", "none"):
        assert mount(source=source).source == source
    for source in ("", "/a", "proc"):
        with pytest.raises(Malformed):
            mount(source=source)
    assert mount(type="bind", source="/a/b").source == "/a/b"
    for source in ("a", "/a/../b", "tmpfs"):
        with pytest.raises(Malformed):
            mount(type="bind", source=source)


@pytest.mark.parametrize("variable", ["A=1\0", "A\0=1", "A\n=1", "=", "", "A"])
def test_a_variable_has_a_name_and_nothing_that_ends_it(variable: str) -> None:
    with pytest.raises(Malformed):
        process(env=["B=1", variable])


def test_an_argument_has_no_nul_and_the_command_a_name() -> None:
    process(args=["/x", ""])
    for args in (["/x\0"], ["/x", "a\0b"], ["", "/x"]):
        with pytest.raises(Malformed):
            process(args=args)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("layers", "layers"),
        ("mounts", "mounts"),
        ("mount options", "mount options"),
        ("arguments", "arguments"),
        ("variables", "environment variables"),
        ("groups", "groups"),
        ("ambient capabilities", "capabilities"),
    ],
)
def test_a_refusal_says_of_what_there_is_too_much(limit: str, words: str) -> None:
    found = LIMITS[limit]
    with pytest.raises(Malformed, match=rf"^too many {words}; expected at most {found.good[-1]}$"):
        found.send(found.bad[-1])


def test_writable_space_without_a_backing_is_told_apart_from_one_that_is_too_small() -> None:
    with pytest.raises(Malformed, match="has no backing"):
        scratch()
    with pytest.raises(Malformed, match="memory_bytes is out of range"):
        scratch(memory_bytes=0)
