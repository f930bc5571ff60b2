# SPDX-License-Identifier: Apache-2.0
"""The reaper, crun's adapter (with a script in crun's place), cgroups, users and the kernel adapter."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from parma_guest import paths, runtime, users
from parma_guest.cgroups import UNLIMITED, Cgroup
from parma_guest.host import GuestHost
from parma_guest.processes import Process
from parma_guest.reaper import Child, Reaper
from parma_guest.runtime import Crun, RuntimeFailed, StdioPlan
from parma_guest.stdio import Stdio
from parma_guest.syscalls import Kernel
from parma_guest.values import ContainerId, ExecId, User
from parma_wire.errors import DeadlineExceeded, Malformed, NotFound, Unavailable
from tests.descriptors import descriptors
from tests.guest.fakes import CONTAINER

PLAIN = StdioPlan(allowed=True, terminal=False, stdin=False, console_size=(0, 0))


class OwnReaper(Reaper):
    """Reaps exactly what it has started, as this process has other children."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("not started"))

    def spawn(self, arguments: Sequence[str], stdio: tuple[int, int, int]) -> Child:
        child = super().spawn(arguments, stdio)

        def reap() -> None:
            _, status = os.waitpid(child.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self.reaped(child.pid, code if code >= 0 else 128 - code)

        threading.Thread(target=reap).start()
        return child


def test_statuses_reach_their_owners_whatever_the_order() -> None:
    exits: queue.Queue[tuple[int, int] | None] = queue.Queue()
    reaper = Reaper(exits.get)
    reaper.start()
    with reaper.expecting():
        reaper.reaped(500, 3)  # exits before it is adopted
        assert reaper.adopt(500).wait() == 3
        second = reaper.adopt(502)
    seen: list[int] = []
    second.on_exit(seen.append)
    exits.put((502, 137))
    assert second.wait(60) == 137
    assert seen == [137]
    second.on_exit(seen.append)
    assert seen == [137, 137]


def test_statuses_of_strangers_are_not_kept() -> None:
    reaper = Reaper(lambda: None)
    reaper.reaped(600, 1)
    with reaper.expecting():
        assert not reaper.adopt(600).exited
    with reaper.expecting():
        reaper.reaped(601, 1)
    with reaper.expecting():
        assert not reaper.adopt(601).exited


@pytest.fixture
def crun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in crun's place: logs its arguments, then does what the test wrote into ``behaviour``."""
    script = tmp_path / "crun"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'while [ $# -gt 0 ]; do case "$1" in\n'
        "--pid-file) pidfile=$2; shift;; --log) log=${2#file:}; shift;; esac; shift; done\n"
        f". {tmp_path}/behaviour\n"
    )
    script.chmod(0o755)
    (tmp_path / "behaviour").write_text(f"[ -z $pidfile ] || echo {os.getpid()} > $pidfile\n")
    monkeypatch.setattr(paths, "CRUN", str(script))
    return tmp_path


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name not in ("crun", "calls", "behaviour"))


def test_a_container_is_created_from_a_private_bundle_and_deleted(crun: Path) -> None:
    target = Crun(OwnReaper(), private=str(crun))
    launched = target.create(CONTAINER, {"ociVersion": "1.0.2"}, PLAIN)
    assert launched.child.pid == os.getpid()
    assert launched.pidfd is not None
    os.close(launched.pidfd)
    launched.stdio.close()
    assert json.loads((crun / "c" / CONTAINER / "config.json").read_text()) == {"ociVersion": "1.0.2"}
    assert (crun / "c" / CONTAINER).stat().st_mode & 0o77 == 0
    target.start(CONTAINER)
    target.update(CONTAINER, {"pids": {"limit": 5}})
    target.delete(CONTAINER)
    calls = (crun / "calls").read_text().splitlines()
    assert [call.split("json ")[1].split()[0] for call in calls] == ["create", "start", "update", "delete"]
    assert all(call.startswith("--root /run/crun --cgroup-manager cgroupfs") for call in calls)
    assert leftovers(crun) == ["c"]
    assert list((crun / "c").iterdir()) == []


def test_output_of_the_process_comes_through_the_pipes(crun: Path) -> None:
    (crun / "behaviour").write_text(f"echo {os.getpid()} > $pidfile; echo out; echo err >&2\n")
    launched = Crun(OwnReaper(), private=str(crun)).execute(CONTAINER, {}, PLAIN)
    assert launched.pidfd is not None
    os.close(launched.pidfd)
    for kind, text in ((2, b"out\n"), (3, b"err\n")):
        descriptor = launched.stdio.borrow(kind)
        assert descriptor is not None
        assert os.read(descriptor, 100) == text
        assert os.read(descriptor, 100) == b""
        launched.stdio.give_back(kind, finished=True)
    launched.stdio.close()
    assert leftovers(crun) == []


def test_crun_failing_is_reported_with_its_last_word_and_leaves_nothing(crun: Path) -> None:
    (crun / "behaviour").write_text(
        'echo \'{"msg":"first"}\' > $log; echo \'{"msg":"no such\\u001b[1m program"}\' >> $log; exit 1\n'
    )
    before = descriptors()
    with pytest.raises(RuntimeFailed, match=r"crun create failed: no such\?\[1m program"):
        Crun(OwnReaper(), private=str(crun)).create(CONTAINER, {}, PLAIN)
    assert leftovers(crun) == ["c"]
    assert list((crun / "c").iterdir()) == []
    assert descriptors() <= before
    (crun / "behaviour").write_text("echo garbage > $log; exit 7\n")
    with pytest.raises(RuntimeFailed, match="status 7"):
        Crun(OwnReaper(), private=str(crun)).start(CONTAINER)


def test_a_crun_that_hangs_is_killed(crun: Path) -> None:
    (crun / "behaviour").write_text("exec sleep 1000\n")
    with pytest.raises(DeadlineExceeded):
        Crun(OwnReaper(), private=str(crun), timeout=0.2).start(CONTAINER)


@pytest.fixture
def entered(crun: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts what is in the container's cgroup, stopped or not. A shell is what crun is, too: the same file."""
    inside: list[subprocess.Popen[bytes]] = []
    (crun / "behaviour").write_text(f"grep -q delete {crun}/calls && exit 0; while :; do sleep 1; done\n")

    def enter(*command: str, stopped: bool) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        inside.append(process)
        if stopped:
            process.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
        (crun / "cgroup.procs").write_text("".join(f"{one.pid}\n" for one in inside))
        return process

    yield enter
    for process in inside:
        process.kill()
        process.communicate()


NEWCOMER = ("/bin/sh", "-c", "read word; exit 5")


@pytest.mark.parametrize("call", ["create", "start", "execute"])
def test_what_is_stopped_on_its_way_into_a_container_is_killed_at_once(
    crun: Path, entered: Callable[..., subprocess.Popen[bytes]], call: str
) -> None:
    going = entered(*NEWCOMER, stopped=False)
    program = entered("/bin/sleep", "1000", stopped=True)  # the container's own affair
    newcomer = entered(*NEWCOMER, stopped=True)
    target = Crun(OwnReaper(), private=str(crun), timeout=60, cgroup=lambda _: Cgroup(crun))
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: target.create(CONTAINER, {}, PLAIN),
        "start": lambda: target.start(CONTAINER),
        "execute": lambda: target.execute(CONTAINER, {}, PLAIN),
    }
    with pytest.raises(RuntimeFailed, match="stopped by others on its way"):
        calls[call]()
    assert newcomer.wait(60) == -signal.SIGKILL
    assert program.poll() is None
    going.communicate(b"on\n")
    assert going.returncode == 5


def test_what_hangs_on_its_way_into_a_container_does_not_get_there_later(
    crun: Path, entered: Callable[..., subprocess.Popen[bytes]]
) -> None:
    program = entered("/bin/sleep", "1000", stopped=False)
    newcomer = entered(*NEWCOMER, stopped=False)
    target = Crun(OwnReaper(), private=str(crun), timeout=0.5, cgroup=lambda _: Cgroup(crun))
    with pytest.raises(DeadlineExceeded):
        target.execute(CONTAINER, {}, PLAIN)
    assert newcomer.wait(60) == -signal.SIGKILL
    assert program.poll() is None


def test_after_one_that_hung_others_are_given_up_sooner_until_one_gets_there(crun: Path) -> None:
    target = Crun(OwnReaper(), private=str(crun), timeout=0.6, cgroup=lambda _: Cgroup(crun))
    (crun / "behaviour").write_text("exec sleep 1000\n")

    def seconds_given(container: ContainerId) -> float:
        with pytest.raises(DeadlineExceeded) as caught:
            target.start(container)
        return float(caught.value.expected.split()[3])

    other = ContainerId("ee" * 32)
    assert [seconds_given(CONTAINER) for _ in range(3)] == [0.6, 0.1, 0.1]
    assert seconds_given(other) == 0.6
    (crun / "behaviour").write_text("exit 0\n")
    target._timeout = 600  # however slow the machine is
    target.start(CONTAINER)
    (crun / "behaviour").write_text("exec sleep 1000\n")
    target._timeout = 0.6
    assert seconds_given(CONTAINER) == 0.6


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    program = tmp_path / "mkfs.test"
    program.write_text("#!/bin/sh\necho no space >&2; exit 3\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match=r"mkfs\.test failed with status 3: no space"):
        runtime.run(OwnReaper())([str(program)], 10)


def cgroup(tmp_path: Path, **files: str) -> Cgroup:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".", 1)).write_text(text)
    return Cgroup(tmp_path)


def test_usage_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    usage = cgroup(
        tmp_path,
        memory_current="4096\n",
        memory_max="max\n",
        memory_stat="anon 1\nfile 2\ninactive_file 3\npgfault 15\npgmajfault 16\n",
        memory_events="low 0\noom 4\noom_kill 5\n",
        cpu_stat="usage_usec 6\nuser_usec 7\nsystem_usec 8\nnr_periods 9\nnr_throttled 10\nthrottled_usec 11\n",
        pids_current="12\n",
        pids_max="max\n",
        io_stat="8:0 rbytes=13 wbytes=14 rios=1\n8:16 rbytes=100 wbytes=200\n",
    ).usage()
    assert usage.memory_limit == UNLIMITED
    assert usage.pids_limit == 0
    values = (usage.memory_usage, usage.memory_anon, usage.memory_file, usage.memory_inactive_file)
    assert values == (4096, 1, 2, 3)
    assert (usage.memory_page_faults, usage.memory_major_page_faults) == (15, 16)
    assert (usage.oom_events, usage.oom_kill_events) == (4, 5)
    assert (usage.cpu_usage_us, usage.cpu_user_us, usage.cpu_system_us) == (6, 7, 8)
    assert (usage.cpu_nr_periods, usage.cpu_nr_throttled, usage.cpu_throttled_us) == (9, 10, 11)
    assert (usage.pids_current, usage.io_read_bytes, usage.io_write_bytes) == (12, 113, 214)


def test_freezing_waits_until_it_is_so(tmp_path: Path) -> None:
    target = cgroup(tmp_path, cgroup_freeze="0", cgroup_events="populated 1\nfrozen 0\n")

    def settle(_seconds: float) -> None:
        (tmp_path / "cgroup.events").write_text("frozen 1\n")

    target.freeze(True, sleep=settle)
    assert (tmp_path / "cgroup.freeze").read_text() == "1"
    times = iter(range(100))
    with pytest.raises(DeadlineExceeded):
        target.freeze(False, clock=lambda: float(next(times)), sleep=lambda _: None)


def test_a_pause_that_does_not_come_to_rest_is_taken_back(tmp_path: Path) -> None:
    target = cgroup(tmp_path, cgroup_freeze="0", cgroup_events="populated 1\nfrozen 0\n")
    times = iter(range(100))
    with pytest.raises(DeadlineExceeded):
        target.freeze(True, clock=lambda: float(next(times)), sleep=lambda _: None)
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_a_cgroup_that_has_gone(tmp_path: Path) -> None:
    target = Cgroup(tmp_path / "gone")
    with pytest.raises(NotFound):
        target.pids()
    with pytest.raises(NotFound):
        target.usage()
    target.kill()
    assert target.oom_kills() == 0
    with pytest.raises(Unavailable):
        target.freeze(True)


def test_signalling_all_skips_those_that_have_gone(tmp_path: Path) -> None:
    received = threading.Event()
    before = signal.signal(signal.SIGUSR2, lambda *_: received.set())
    try:
        cgroup(tmp_path, cgroup_procs=f"4194303\n{os.getpid()}\n").signal_all(signal.SIGUSR2)
        assert received.wait(60)
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def look_up(root: Path, uid: int = 1000, gid: int = 50, *others: int) -> users.Identity:
    kernel = Kernel()
    return users.look_up(User(uid, gid, others, 0o22), lambda path: kernel.open_in_root(str(root), path))


def test_names_come_from_the_containers_files(root: Path) -> None:
    (root / "etc/passwd").write_bytes(b"root:x:0:0::/:/bin/sh\napp:x:1000:50::/:\nother:x:1000:1::/:\nbad\n:x:y:\n")
    (root / "etc/group").write_bytes(b"staff:x:50:app\nextra:x:70:\n")
    assert look_up(root, 1000, 50, 70, 50, 99) == users.Identity("app", ((50, "staff"), (70, "extra"), (99, "")))
    assert look_up(root, 4).user_name == ""


def test_absent_hostile_and_huge_files_give_no_names(root: Path) -> None:
    assert look_up(root).user_name == ""
    os.mkfifo(root / "etc/passwd")  # must not block
    assert look_up(root).user_name == ""
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").write_bytes(b"app:x:1000:0:::\n" + b"#" * users.MAX_FILE_BYTES)
    assert look_up(root).user_name == ""


def test_a_symbolic_link_stays_inside_the_container(root: Path) -> None:
    (root / "real").write_bytes(b"inside:x:1000:0:::\n")
    (root / "etc/passwd").symlink_to("/real")
    assert look_up(root).user_name == "inside"
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/etc/passwd-of-the-host")
    assert look_up(root).user_name == ""
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../etc/passwd")
    assert look_up(root, 0).user_name == ""  # a loop inside the root, not the host's file


def test_the_source_of_a_bind_mount_is_made_below_its_base_without_following_links(tmp_path: Path) -> None:
    host, base = GuestHost(Kernel()), tmp_path / "base"
    host.prepare_bind(str(base), f"{base}/a/b/c")
    assert (base / "a/b/c").is_dir()
    (base / "file").write_text("kept")
    host.prepare_bind(str(base), f"{base}/file")
    assert (base / "file").read_text() == "kept"
    outside = tmp_path / "outside"
    outside.mkdir()
    (base / "link").symlink_to(outside)
    for source in (f"{base}/link/x", f"{base}/file/x"):
        with pytest.raises((Malformed, OSError)):
            host.prepare_bind(str(base), source)
    with pytest.raises(OSError, match="link"):
        host.prepare_bind(str(base), f"{base}/link")
    assert list(outside.iterdir()) == []


def test_a_process_that_has_ended_is_not_alive_before_anybody_has_noticed() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    pidfd = os.pidfd_open(pid)
    process = Process(CONTAINER, ExecId(""), ("sleep",), Child(pid), os.dup(pidfd), Stdio())
    assert process.alive
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    assert not process.alive
    assert not process.exited  # its status is still to be collected, and its number taken until then
    os.waitpid(pid, 0)
    os.close(pidfd)
    process.close()


def test_a_process_has_a_home_that_crun_need_not_look_for(root: Path) -> None:
    (root / "etc/passwd").write_bytes(
        b"app:x:1000:50:G\xe9cos:/srv/app:/bin/sh\nodd:x:1001:50::relative:\nfew:x:1:1:\n"
    )
    assert [look_up(root, uid).home for uid in (1000, 1001, 1, 4)] == ["/srv/app", "/", "/", "/"]
    assert users.with_home(("A=1",), look_up(root)) == ("A=1", "HOME=/srv/app")
    assert users.with_home(("HOME=/x",), look_up(root)) == ("HOME=/x",)


def test_the_source_of_a_bind_mount_is_held_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mounts(Kernel):
        """Opens for real, mounts by name only."""

        def __init__(self) -> None:
            super().__init__()
            self.mounted: dict[str, str] = {}

        def mount(self, source: str, target: str, *_: object) -> None:
            self.mounted[target] = str(Path(source).readlink())

        def unmount_tree(self, target: str) -> None:
            del self.mounted[target]

    kernel, base = Mounts(), tmp_path / "base"
    monkeypatch.setattr(paths, "PINS", str(tmp_path / "pins"))
    base.mkdir()
    (base / "file").write_text("x")
    (base / "link").symlink_to("/etc")
    host = GuestHost(kernel)
    for name in ("", "file"):
        place = f"{tmp_path}/pins/{name or 'directory'}"
        with host.pinned(str(tmp_path), f"{base}/{name}".rstrip("/"), place) as held:
            assert kernel.mounted == {held: str(base / name)}
        assert not kernel.mounted
        assert not Path(place).exists()
    with pytest.raises(OSError, match="link"), host.pinned(str(base), f"{base}/link", str(tmp_path / "pins/x")):
        pass


def test_opening_beneath_refuses_every_way_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to("/etc")
    (tmp_path / "in/up").symlink_to("..")
    for path in ("/etc", "../in", "link/passwd", "up", "in/../../x"):
        with pytest.raises(OSError):  # any errno is a refusal
            Kernel().open_beneath(str(tmp_path / "in"), path)
