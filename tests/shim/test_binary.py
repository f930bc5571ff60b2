# SPDX-License-Identifier: Apache-2.0
"""The real program, called as containerd calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import any_pb2

from parma_shim import bundle as bundle_files
from parma_shim.api import bootstrap_pb2, runc_options_pb2, runtime_info_pb2, task_pb2
from parma_shim.task import hooks
from parma_shim.vm import hostcgroup
from tests.shim.support import Binary, FakeContainerd, bundle, ended, eventually, task_stub

NOISE = {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1", "PYTHONVERBOSE": "1", "PYTHONPATH": "/nowhere"}


def daemon_of(here: Path) -> bundle_files.State:
    """The daemon's state once it has written it."""

    def written() -> bundle_files.State | None:
        state = bundle_files.read_state(str(here))
        return state if state is not None and state.pid else None

    state = eventually(written, "the daemon")
    assert isinstance(state, bundle_files.State)
    return state


@pytest.fixture
def here(short_path: Path) -> Path:
    made = bundle(short_path / "b", "sleep")
    os.mkfifo(made / "log")
    return made


def test_start_with_parameters_offers_version_3(binary: Binary, here: Path) -> None:
    done = binary.run("start", "x", here=here, stdin=binary.params("x"))
    answer = json.loads(done.stdout)
    assert set(answer) == {"version", "address", "protocol"}
    assert (answer["version"], answer["protocol"]) == (3, "ttrpc")
    assert answer["address"].startswith(f"unix://{binary.sockets}/")
    assert (here / "address").read_text() == answer["address"]


def test_start_of_containerd_1_7_offers_version_2(binary: Binary, here: Path) -> None:
    binary.config.write_text(binary.config.read_text() + "task_api = 2\n")
    answer = json.loads(binary.run("start", "x", here=here).stdout)
    assert answer["version"] == 2
    daemon_of(here)
    Path(answer["address"].removeprefix("unix://")).unlink()


def test_start_of_containerd_1_6_prints_the_address_alone(binary: Binary, here: Path) -> None:
    del binary.environment["MAX_SHIM_VERSION"]
    address = binary.run("start", "x", here=here).stdout.decode()
    assert address == (here / "address").read_text()
    daemon_of(here)
    Path(address.removeprefix("unix://")).unlink()


def test_nothing_in_the_environment_changes_the_answer(binary: Binary, here: Path) -> None:
    done = binary.run("start", "x", here=here, stdin=binary.params("x"), environment=NOISE)
    assert json.loads(done.stdout)["version"] == 3


def test_the_socket_accepts_before_the_answer_and_the_service_has_both_names(binary: Binary, here: Path) -> None:
    answer = binary.start("x", here)
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(answer["address"].removeprefix("unix://"))
    for version in (2, 3):
        with task_stub(answer["address"], version) as call:
            assert call("Connect", task_pb2.ConnectRequest(id="x")).shim_pid == daemon_of(here).pid


def test_the_daemon_is_detached(binary: Binary, here: Path) -> None:
    binary.start("x", here)
    pid = daemon_of(here).pid
    assert os.getsid(pid) == pid
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)} == {"/dev/null"}  # noqa: PTH115
    assert os.readlink(f"/proc/{pid}/cwd") == "/"  # noqa: PTH115
    score = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    assert score == min(1000, int(Path("/proc/self/oom_score_adj").read_text()) + 1)


@pytest.fixture
def shim_cgroup(short_path: Path) -> Iterator[str]:
    """A cgroup that containerd's client has made for shims, in one hierarchy."""
    hierarchy = next(path for path in hostcgroup.hierarchies() if path.name in ("memory", "cgroup"))
    place = hierarchy / f"parma-test-{os.getpid()}-{short_path.name}"
    try:
        place.mkdir()
    except OSError:
        pytest.skip("needs root and writable cgroups")
    yield f"/{place.name}"
    eventually(lambda: not (place / "cgroup.procs").read_text(), "the end of all that was in it")
    place.rmdir()


def start_in_cgroup(binary: Binary, here: Path, path: str) -> subprocess.CompletedProcess[bytes]:
    options = runc_options_pb2.Options(shim_cgroup=path).SerializeToString()
    packed = any_pb2.Any(type_url="containerd.runc.v1.Options", value=options)
    return binary.run(
        "start", "x", here=here, stdin=binary.params("x", extensions=[bootstrap_pb2.Extension(value=packed)])
    )


def test_the_shim_goes_to_the_cgroup_that_it_is_told(binary: Binary, here: Path, shim_cgroup: str) -> None:
    done = start_in_cgroup(binary, here, shim_cgroup)
    assert done.returncode == 0, done.stdout
    daemon = daemon_of(here)
    assert shim_cgroup in Path(f"/proc/{daemon.pid}/cgroup").read_text()
    os.kill(daemon.pid, signal.SIGTERM)


def test_a_cgroup_that_does_not_exist_is_an_error_and_leaves_no_shim(binary: Binary, here: Path) -> None:
    done = start_in_cgroup(binary, here, "/no/such/cgroup")
    assert done.returncode == 1
    assert b"/no/such/cgroup does not exist" in done.stdout
    assert list(binary.sockets.iterdir()) == []


def test_containers_of_a_group_share_a_shim(binary: Binary, short_path: Path) -> None:
    pod = {"io.kubernetes.cri.sandbox-id": "pod"}
    first = bundle(short_path / "pod", annotations=pod)
    second = bundle(short_path / "app", annotations=pod)
    address = binary.start("pod", first)["address"]
    assert binary.start("app", second)["address"] == address
    assert (second / "address").read_text() == address
    assert not (second / "parma.state").exists()


def test_of_many_starts_at_once_one_makes_the_shim(binary: Binary, short_path: Path) -> None:
    pod = {"io.kubernetes.cri.sandbox-id": "pod"}
    places = [bundle(short_path / f"c{number}", annotations=pod) for number in range(4)]
    addresses: list[str] = []
    threads = [
        threading.Thread(target=lambda place=place: addresses.append(binary.start(place.name, place)["address"]))
        for place in places
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(addresses)) == 1
    assert len(addresses) == 4
    assert sum((place / "parma.state").exists() for place in places) == 1


def test_a_failed_start_prints_one_line_and_leaves_nothing(binary: Binary, here: Path) -> None:
    (here / "config.json").write_text('{"io.kubernetes.cri.sandbox-id"')
    done = binary.run("start", "x", here=here, stdin=binary.params("x"), environment=NOISE)
    assert done.returncode == 1
    assert done.stdout.startswith(b"containerd-shim-parma-v2: ")
    assert done.stdout.count(b"\n") == 1
    assert not binary.sockets.exists()


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("-nonsense", "start")])
def test_wrong_usage_is_one_line(binary: Binary, here: Path, words: tuple[str, ...]) -> None:
    done = binary.run(words[-1] if words else "", "x", here=here, extra=words[:-1])
    assert done.returncode == 1
    assert done.stdout.count(b"\n") == 1


def test_info_is_a_runtime_info(binary: Binary, here: Path) -> None:
    done = binary.run("-info", "x", here=here, environment=NOISE)
    info = runtime_info_pb2.RuntimeInfo.FromString(done.stdout)
    assert info.name == "io.containerd.parma.v2"
    assert info.version.version
    features = json.loads(info.features.value)
    assert info.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    assert "rro" in features["mountOptions"]
    assert tuple(features["hooks"]) == hooks.KINDS  # those that run, and no other
    assert features["linux"]["mountExtensions"]["idmap"]["enabled"] is False
    assert "erofs" in info.annotations["containerd.io/runtime-allow-mounts"]


def test_a_copy_of_the_program_elsewhere_is_the_same_program(binary: Binary, here: Path, short_path: Path) -> None:
    (short_path / "copies").mkdir()
    copy = short_path / "copies" / "containerd-shim-parma-v2"
    shutil.copy(binary.path, copy)
    binary.path = copy
    done = binary.run("start", "a", here=here)
    assert done.returncode == 0
    assert json.loads(done.stdout)["address"].startswith("unix://")
    assert binary.run("delete", "a", here=here).returncode == 0


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_version_is_printed(binary: Binary, here: Path, flag: str) -> None:
    done = binary.run(flag, "x", here=here)
    assert done.returncode == 0
    assert b"Version:" in done.stdout


def test_a_whole_life_with_events_in_order(binary: Binary, here: Path, containerd: FakeContainerd) -> None:
    answer = binary.start("x", here)
    pid = daemon_of(here).pid
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))
        call("Kill", task_pb2.KillRequest(id="x", signal=9))
        assert call("Wait", task_pb2.WaitRequest(id="x")).exit_status == 137
        call("Delete", task_pb2.DeleteRequest(id="x"))
        call("Shutdown", task_pb2.ShutdownRequest(id="x"))
    eventually(lambda: ended(pid), "the daemon's end")
    assert containerd.topics() == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert list(binary.sockets.iterdir()) == []
    assert not (here / "parma.state").exists()


def test_sigterm_ends_the_daemon_and_reports_the_exits(binary: Binary, here: Path, containerd: FakeContainerd) -> None:
    answer = binary.start("x", here)
    pid = daemon_of(here).pid
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: ended(pid), "the daemon's end")
    assert [event.exit_status for event in containerd.exits()] == [137]
    assert list(binary.sockets.iterdir()) == []


HURRY = """
from parma_shim import lean
lean.prepare()
from parma_shim import daemon
daemon.TICK = 0.02
daemon.CONNECT_PATIENCE = {patience}
"""


def test_a_daemon_that_nobody_connects_to_ends(short_path: Path, here: Path) -> None:
    impatient = Binary(short_path, prelude=HURRY.format(patience=0.3))
    impatient.start("x", here)
    state = daemon_of(here)
    eventually(lambda: ended(state.pid), "the daemon's end")
    assert list(impatient.sockets.iterdir()) == []


def test_a_connection_that_only_looks_whether_somebody_listens_does_not_keep_a_daemon_alive(
    short_path: Path, here: Path
) -> None:
    impatient = Binary(short_path, prelude=HURRY.format(patience=3))
    answer = impatient.start("x", here)
    with task_stub(answer["address"]) as call:  # at once: its patience begins when it is ready
        pid = call("Connect", task_pb2.ConnectRequest(id="x")).shim_pid
        assert pid == daemon_of(here).pid
    eventually(lambda: ended(pid), "the daemon's end")


def test_a_daemon_whose_bundle_is_gone_ends_when_it_has_no_task(short_path: Path, here: Path) -> None:
    attentive = Binary(short_path, prelude=HURRY.format(patience=60))
    answer = attentive.start("x", here)
    state = daemon_of(here)
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        shutil.rmtree(here)
        assert call("Kill", task_pb2.KillRequest(id="x", signal=9)) is not None
        assert call("Wait", task_pb2.WaitRequest(id="x")).exit_status == 137
        call("Delete", task_pb2.DeleteRequest(id="x"))
        eventually(lambda: ended(state.pid), "the daemon's end")


def test_a_configuration_that_is_wrong_is_reported_by_create(binary: Binary, here: Path) -> None:
    import ttrpc

    binary.config.write_text("memory = 5\n")
    answer = binary.start("x", here)
    with task_stub(answer["address"]) as call, pytest.raises(ttrpc.TtrpcError, match="did you mean 'memory_mib'"):
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))


def test_delete_prints_a_response_and_removes_what_a_killed_shim_left(binary: Binary, here: Path) -> None:
    binary.start("x", here)
    state = daemon_of(here)
    os.kill(state.pid, signal.SIGKILL)
    eventually(lambda: ended(state.pid), "the daemon's end")
    assert list(binary.sockets.iterdir()) != []
    for _ in range(2):
        done = binary.run("delete", "x", here=here, extra=("-bundle", str(here)), environment=NOISE)
        assert done.returncode == 0
        response = task_pb2.DeleteResponse.FromString(done.stdout)
        assert response.exit_status == 137
        assert response.exited_at.seconds > 0
    assert list(binary.sockets.iterdir()) == []


def test_delete_repeats_an_exit_that_was_reported_before_the_shim_was_killed(binary: Binary, here: Path) -> None:
    bundle(here, "exit", "3")
    answer = binary.start("x", here)
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))
        exited_at = call("Wait", task_pb2.WaitRequest(id="x")).exited_at
        eventually(lambda: (here / "parma.exit").exists(), "the exit to be kept")
    os.kill(daemon_of(here).pid, signal.SIGKILL)
    done = binary.run("delete", "x", here=here, extra=("-bundle", str(here)))
    response = task_pb2.DeleteResponse.FromString(done.stdout)
    assert (response.pid, response.exit_status, response.exited_at) == (4242, 3, exited_at)


def test_delete_ends_a_daemon_that_still_lives(binary: Binary, here: Path) -> None:
    binary.start("x", here)
    state = daemon_of(here)
    assert binary.run("delete", "x", here=here, extra=("-bundle", str(here))).returncode == 0
    assert ended(state.pid)
    assert list(binary.sockets.iterdir()) == []


def test_delete_of_another_container_of_the_group_leaves_the_shim_alone(binary: Binary, short_path: Path) -> None:
    pod = {"io.kubernetes.cri.sandbox-id": "pod"}
    first, second = bundle(short_path / "pod", annotations=pod), bundle(short_path / "app", annotations=pod)
    answer = binary.start("pod", first)
    binary.start("app", second)
    assert binary.run("delete", "app", here=second, extra=("-bundle", str(second))).returncode == 0
    with task_stub(answer["address"]) as call:
        assert call("Connect", task_pb2.ConnectRequest(id="pod")).shim_pid == daemon_of(first).pid


def test_delete_of_the_container_that_made_the_shim_spares_the_groups_others(binary: Binary, short_path: Path) -> None:
    group = {"io.containerd.runc.v2.group": "g"}
    places = {name: bundle(short_path / name, annotations=group) for name in ("one", "two")}
    answer = binary.start("one", places["one"])
    binary.start("two", places["two"])
    pid = daemon_of(places["one"]).pid
    with task_stub(answer["address"]) as call:
        for name, place in places.items():
            call("Create", task_pb2.CreateTaskRequest(id=name, bundle=str(place)))
        call("Delete", task_pb2.DeleteRequest(id="one"))
        assert binary.run("delete", "one", here=places["one"], extra=("-bundle", str(places["one"]))).returncode == 0
        assert call("State", task_pb2.StateRequest(id="two")).id == "two"
    assert binary.run("delete", "two", here=places["two"], extra=("-bundle", str(places["two"]))).returncode == 0
    assert ended(pid)
    assert list(binary.sockets.iterdir()) == []


def test_delete_does_not_kill_a_process_that_only_has_the_number(binary: Binary, here: Path) -> None:
    state = bundle_files.State(socket=f"{binary.sockets}/none", pid=os.getpid(), started=1)
    bundle_files.write_state(str(here), state)
    assert binary.run("delete", "x", here=here, extra=("-bundle", str(here))).returncode == 0


def test_delete_with_nothing_there_succeeds(binary: Binary, short_path: Path) -> None:
    done = binary.run("delete", "x", here=short_path, extra=("-bundle", str(short_path / "gone")))
    assert done.returncode == 0
    assert task_pb2.DeleteResponse.FromString(done.stdout).exit_status == 137


def test_the_log_goes_to_the_fifo(binary: Binary, here: Path) -> None:
    reader = os.open(here / "log", os.O_RDWR | os.O_NONBLOCK)
    try:
        binary.start("x", here)
        os.kill(daemon_of(here).pid, signal.SIGTERM)

        def line() -> bytes:
            try:
                return os.read(reader, 4096)
            except BlockingIOError:
                return b""

        text = eventually(line, "a log line").decode()
    finally:
        os.close(reader)
    assert 'msg="signal 15: ending"' in text
    assert "runtime=io.containerd.parma.v2 namespace=default id=x" in text
