# SPDX-License-Identifier: Apache-2.0
"""What crun is given: built from nothing, equal for all containers but for a few validated fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import oci, requests
from parma_guest.attest.service import DeviceNode
from parma_guest.owners import IdMapping, UserNamespace
from parma_guest.values import Capabilities
from parma_wire import guest_pb2 as pb
from parma_wire.errors import ParmaError

ID = "a1" * 32
NO_CAPS = Capabilities((), (), (), (), ())

GOLDEN: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": f"/run/gcs/c/{ID}/rootfs", "readonly": False},
    "hostname": "localhost",
    "process": {
        "terminal": False,
        "args": ["/bin/app", "--serve"],
        "env": ["A=1"],
        "cwd": "/srv",
        "user": {"uid": 5, "gid": 6, "umask": 0o027, "additionalGids": [7]},
        "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
        {
            "destination": "/run",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
    ],
    "linux": {
        "namespaces": [
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "mount"},
            {"type": "cgroup"},
            {"type": "network"},
            {"type": "pid"},
        ],
        "cgroupsPath": f"/parma/{ID}",
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": list(oci.MASKED_PATHS),
        "readonlyPaths": list(oci.READONLY_PATHS),
    },
}


def request(**fields: Any) -> requests.CreateContainer:
    process = pb.Process(
        args=["/bin/app", "--serve"],
        env=["A=1"],
        cwd="/srv",
        user=pb.User(uid=5, gid=6, additional_gids=[7], umask=0o027),
        no_new_privileges=True,
        rlimits=[pb.Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=512)],
    )
    return requests.create_container(pb.CreateContainerRequest(container_id=ID, process=process, **fields))


def spec(wanted: requests.CreateContainer) -> dict[str, Any]:
    return oci.container(wanted, wanted.process.env, NO_CAPS, {})


def test_a_plain_container() -> None:
    assert spec(request()) == GOLDEN


def test_every_optional_field_ends_where_it_belongs_and_nowhere_else() -> None:
    wanted = request(
        hostname="box",
        readonly_rootfs=True,
        sysctls={"net.ipv4.tcp_syncookies": "1"},
        seccomp=b'{"defaultAction":"SCMP_ACT_ALLOW"}',
        resources=pb.Resources(memory_limit=1, memory_swap=2, cpu_quota=3, pids_limit=4, cpuset_cpus="0"),
        mounts=[pb.Mount(destination="/tmp", type="tmpfs", source="tmpfs", options=["mode=1777"])],
    )
    document = spec(wanted)
    assert document["hostname"] == "box"
    assert document["root"]["readonly"] is True
    assert document["mounts"][:-1] == GOLDEN["mounts"]
    assert document["mounts"][-1] == {
        "destination": "/tmp",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["mode=1777"],
    }
    expected = {
        **GOLDEN["linux"],
        "sysctl": {"net.ipv4.tcp_syncookies": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "resources": {
            **GOLDEN["linux"]["resources"],
            "memory": {"limit": 1, "swap": 2},
            "cpu": {"quota": 3, "cpus": "0"},
            "pids": {"limit": 4},
        },
    }
    assert document["linux"] == expected


def test_a_user_namespace_is_that_of_the_root_file_system() -> None:
    wanted = request()
    namespace = UserNamespace((IdMapping(0, 1000, 65535),), (IdMapping(0, 0, 20), IdMapping(20, 2000, 5)))
    linux = oci.container(wanted, wanted.process.env, NO_CAPS, {}, user_namespace=namespace)["linux"]
    assert linux.pop("uidMappings") == [{"containerID": 0, "hostID": 1000, "size": 65535}]
    assert linux.pop("gidMappings") == [
        {"containerID": 0, "hostID": 0, "size": 20},
        {"containerID": 20, "hostID": 2000, "size": 5},
    ]
    assert linux.pop("namespaces") == [*GOLDEN["linux"]["namespaces"], {"type": "user"}]
    assert linux == {name: value for name, value in GOLDEN["linux"].items() if name != "namespaces"}


def test_a_privileged_container_has_no_masks_but_still_no_devices() -> None:
    document = spec(request(privileged=True))
    assert document["linux"]["maskedPaths"] == []
    assert document["linux"]["readonlyPaths"] == []
    assert document["linux"]["resources"] == GOLDEN["linux"]["resources"]
    assert "rw" in document["mounts"][5]["options"]


def test_paths_of_the_image_are_hidden_besides_the_enforcers_own() -> None:
    linux = spec(request(masked_in_image=["/bin/ls"], readonly_in_image=["/tmp"]))["linux"]
    assert linux["maskedPaths"] == [*GOLDEN["linux"]["maskedPaths"], "/bin/ls"]
    assert linux["readonlyPaths"] == [*GOLDEN["linux"]["readonlyPaths"], "/tmp"]


def test_a_terminal_has_its_size_only_when_it_is_known() -> None:
    process = request().process
    assert "consoleSize" not in oci.process(process._replace(terminal=True), (), NO_CAPS)
    sized = oci.process(process._replace(terminal=True, console_size=(80, 25)), (), NO_CAPS)
    assert sized["consoleSize"] == {"width": 80, "height": 25}
    assert oci.process(process._replace(oom_score_adj=5), (), NO_CAPS)["oomScoreAdj"] == 5


@given(
    mounts=st.lists(
        st.builds(
            lambda destination, kind, source, options: pb.Mount(
                destination=destination, type=kind, source=source, options=options
            ),
            st.text("/abc.", max_size=6),
            st.sampled_from(["bind", "tmpfs", "proc"]),
            st.text("/abc.", max_size=6),
            st.lists(st.sampled_from(["ro", "rw", "rbind", "size=1m", "upperdir=/x"]), max_size=2),
        ),
        max_size=2,
    ),
    hostname=st.text(max_size=5),
    privileged=st.booleans(),
)
def test_whatever_the_host_asks_for_the_fixed_part_stays(
    mounts: list[pb.Mount], hostname: str, privileged: bool
) -> None:
    try:
        document = spec(request(mounts=mounts, hostname=hostname, privileged=privileged))
    except ParmaError:
        return
    assert set(document) == set(GOLDEN)
    assert set(document["linux"]) == set(GOLDEN["linux"])
    assert document["linux"]["namespaces"] == GOLDEN["linux"]["namespaces"]
    assert document["root"] == GOLDEN["root"]
    fixed = document["mounts"][: len(GOLDEN["mounts"])]
    assert [mount["destination"] for mount in fixed] == [mount["destination"] for mount in GOLDEN["mounts"]]


@pytest.mark.parametrize("path", ["/proc/kcore", "/sys/firmware", "/proc/keys"])
def test_what_leaks_is_masked(path: str) -> None:
    assert path in oci.MASKED_PATHS


def test_a_device_is_there_for_every_user_and_may_be_opened() -> None:
    wanted = request()
    document = oci.container(wanted, wanted.process.env, NO_CAPS, {}, device=DeviceNode("/dev/sev-guest", 244, 3))
    (device,) = document["linux"]["devices"]
    assert device == {
        "path": "/dev/sev-guest",
        "type": "c",
        "major": 244,
        "minor": 3,
        "fileMode": 0o666,
        "uid": 0,
        "gid": 0,
    }
    rules = document["linux"]["resources"]["devices"]
    assert rules == [
        *GOLDEN["linux"]["resources"]["devices"],
        {"allow": True, "type": "c", "major": 244, "minor": 3, "access": "rw"},
    ]
