# SPDX-License-Identifier: Apache-2.0
"""One running virtual machine, from the first process to the last file.

Ownership: :meth:`VirtualMachine.launch` either returns a machine or leaves nothing. A machine's end is noticed by one
thread, the watcher, which alone collects QEMU's exit status; :meth:`VirtualMachine.destroy` removes the rest. If the
shim is killed, the kernel kills QEMU (parent-death signal) and ``delete`` removes the files (``cleanup``).

Lock contract: ``_lock`` guards the exit callbacks and flags only; nothing is waited for and no callback runs under it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parma_shim.helpers.call import call
from parma_shim.vm import accelerator, cleanup, disks, hardware, netns
from parma_shim.vm.command import VmSpec, Wiring, qemu_arguments
from parma_shim.vm.console import BoundedLog, register
from parma_shim.vm.dialing import NotListeningError
from parma_shim.vm.hostcgroup import HostCgroup
from parma_shim.vm.qmp import Qmp
from parma_shim.vm.settings import VmSettings
from parma_shim.vm.spawn import Child, Executor, on_spawn_thread, reap, send_signal, spawner_on
from parma_shim.vm.vsock import VsockDevice, open_device
from parma_wire.errors import AlreadyExists, DeadlineExceeded, ParmaError, Unavailable
from parma_wire.limits import READY_LINE

Log = Callable[[str], None]
ExitCallback = Callable[[int | None], None]

_DIAL_SECONDS: Final = 1.0
_REDIAL_SECONDS: Final = 0.02
_KILL_SECONDS: Final = 5.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class VirtualMachine:
    """A QEMU process and what belongs to it. Safe for several threads. Made by :meth:`launch`."""

    def __init__(self, spec: VmSpec, *, child: Child, monitor: Qmp, vsock: VsockDevice, logs: list[BoundedLog]) -> None:
        self.spec: Final = spec
        self.pid: Final = child.pid
        self.monitor: Final = monitor
        self.started: Final = time.monotonic()
        self._child: Final = child
        self._vsock: Final = vsock
        self._logs: Final = logs
        self._disks: Final = disks.Disks(monitor)
        self._lock: Final = threading.Lock()
        self._callbacks: list[ExitCallback] = []
        self._exited: Final = threading.Event()
        self._status: int | None = None
        self._destroyed = False
        self._cgroup: HostCgroup | None = None
        self._watcher: Final = threading.Thread(target=self._watch, name=f"vm-{child.pid}", daemon=True)
        self._watcher.start()

    @classmethod
    def launch(
        cls,
        spec: VmSpec,
        settings: VmSettings,
        *,
        deadline: float,
        log: Log,
        executor: Executor = on_spawn_thread,
    ) -> VirtualMachine:
        """Start QEMU and negotiate with its monitor; ``deadline`` is of ``time.monotonic``.

        ``executor`` runs what must happen on a thread that lives as long as the shim (parent-death signal).
        Raises Unavailable, FailedPrecondition, DeadlineExceeded or AlreadyExists; nothing is left then.
        """
        if not settings.qemu.is_file():
            raise Unavailable(f"no QEMU at {settings.qemu}", hint="install qemu-system-x86, or set qemu in the config")
        hardware.refuse_needless_emulation(spec.tee, settings)
        environment = _environment(spec.directory)
        chosen = accelerator.choose(
            settings, spec.image.kernel.path, tee=spec.tee, environment=environment, deadline=deadline, log=log
        )
        snp = _snp_arguments(spec, settings, deadline) if spec.tee == "snp" else []
        _make_directory(spec.directory)
        try:
            return cls._start(spec, settings, chosen, snp, environment, executor, deadline)
        except BaseException:
            cleanup.destroy_leftovers(spec.directory)
            raise

    @classmethod
    def _start(
        cls,
        spec: VmSpec,
        settings: VmSettings,
        chosen: str,
        snp: list[str],
        environment: dict[str, str],
        executor: Executor,
        deadline: float,
    ) -> VirtualMachine:
        spawner = spawner_on(executor)
        _write_state(spec.directory, cleanup.HEADER_STARTING, [])
        if spec.network_record:
            (spec.directory / netns.RECORD).write_text(spec.network_record)
        wrap = [str(settings.setpriv), "--pdeathsig", "KILL"]
        vsock = open_device(
            settings, spec.directory, wrap=wrap, environment=environment, spawn=spawner, deadline=deadline
        )
        monitor, theirs = socket.socketpair()
        console, console_theirs = socket.socketpair()
        errors, errors_theirs = os.pipe2(os.O_CLOEXEC)
        try:
            wiring = Wiring(theirs.fileno(), console_theirs.fileno(), vsock.arguments)
            arguments = qemu_arguments(
                spec,
                wiring,
                accelerator=chosen,
                data_dir=settings.qemu_data_dir,
                snp=snp,
            )
            child = spawner(
                [*wrap, *_into_network(settings, spec.network_namespace), str(settings.qemu), *arguments],
                environment=environment,
                stderr=errors_theirs,
                keep=(
                    theirs.fileno(),
                    console_theirs.fileno(),
                    *vsock.keep,
                    *(card.tap for card in spec.cards),
                    *_namespace(spec),
                ),
            )
        except BaseException:
            vsock.close()
            monitor.close()
            console.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
            console_theirs.close()
            os.close(errors_theirs)
        vsock.started()
        logs = [
            BoundedLog(console.detach(), spec.directory / "console.log", awaited=READY_LINE.encode()),
            BoundedLog(errors, spec.directory / "qemu.log"),
        ]
        machine = cls(spec, child=child, monitor=Qmp(monitor), vsock=vsock, logs=logs)
        pids = [process.pid for process in (child, vsock.child) if process is not None]
        try:
            _write_state(spec.directory, cleanup.HEADER_RUNNING, pids)
            machine._place(pids)
            machine._negotiate(deadline)
        except BaseException:
            machine.destroy()
            raise
        return machine

    @property
    def alive(self) -> bool:
        """Whether QEMU runs, as far as is known."""
        return not self._exited.is_set()

    @property
    def vsock_cid(self) -> int:
        """The guest's vsock address on this host; 0 where it is reached through a Unix socket in its directory."""
        return self._vsock.cid

    @property
    def first_output(self) -> float | None:
        """``time.monotonic`` of the first byte on the serial console (the firmware's), or None."""
        return self._logs[0].first_byte

    def attach_disk(self, path: Path, *, readonly: bool, deadline: float) -> int:
        """Attach a file as a disk; returns its SCSI logical unit number."""
        flags = os.O_RDONLY if readonly else os.O_RDWR
        try:
            fd = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"cannot open {path}: {error.strerror}") from error
        try:
            return self.attach_descriptor(fd, readonly=readonly, deadline=deadline)
        finally:
            os.close(fd)

    def attach_descriptor(self, fd: int, *, readonly: bool, deadline: float) -> int:
        """Attach an open file as a disk; the caller keeps ``fd``. Returns the SCSI logical unit number."""
        return self._disks.attach(fd, readonly=readonly, deadline=deadline)

    def detach_disk(self, lun: int, *, deadline: float) -> None:
        """Take a disk away that the guest has stopped using."""
        self._disks.detach(lun, deadline=deadline)

    def connect(self, port: int, *, deadline: float) -> socket.socket:
        """A stream to a vsock port of the guest, tried until the guest listens.

        Raises DeadlineExceeded, or Unavailable when the VM ends meanwhile.
        """
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise DeadlineExceeded(f"the guest did not come up in time{self.last_words()}")
            # Not before the guest says that it listens: see READY_LINE.
            if self._logs[0].seen.is_set():
                with contextlib.suppress(NotListeningError, DeadlineExceeded):
                    return self._vsock.dial(port, min(remaining, _DIAL_SECONDS))
            if self._exited.wait(_REDIAL_SECONDS):
                raise Unavailable(f"the VM has ended{self.last_words()}")

    def on_exit(self, callback: ExitCallback) -> None:
        """Call back once with QEMU's exit status (minus the signal; None: unknown), at once if it has ended."""
        with self._lock:
            if not self._exited.is_set():
                self._callbacks.append(callback)
                return
        callback(self._status)

    def wait(self, timeout: float) -> bool:
        """Whether QEMU has ended within ``timeout`` seconds."""
        return self._exited.wait(timeout)

    def kill(self) -> None:
        """End QEMU now. Returns at once; idempotent."""
        with self._lock:
            if not self._destroyed:
                send_signal(self._child, signal.SIGKILL)

    def destroy(self) -> None:
        """End QEMU, wait for it, and remove every process, socket and file. Idempotent.

        Raises Unavailable when QEMU cannot be killed (it hangs in the kernel); what can be removed is removed.
        """
        self.kill()
        ended = self._exited.wait(_KILL_SECONDS)
        with self._lock:
            if self._destroyed:
                return
            self._destroyed = ended
        self.monitor.close()
        self._vsock.close()
        if not ended:
            raise Unavailable(f"QEMU (process {self.pid}) does not end")
        if threading.current_thread() is not self._watcher:
            self._watcher.join(_KILL_SECONDS)
        os.close(self._child.pidfd)
        if self._cgroup is not None:
            self._cgroup.remove()
        netns.remove_redirection(str(self.spec.directory / netns.RECORD))
        cleanup.remove_directory(str(self.spec.directory))

    def _place(self, pids: list[int]) -> None:
        """Puts the processes where the host accounts for the container, and QEMU where it goes when memory is short."""
        if self.spec.oom_score_adj is not None:
            with contextlib.suppress(OSError):  # lowering it needs a privilege
                Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(self.spec.oom_score_adj))
        if self.spec.cgroups_path:
            record = self.spec.directory / cleanup.CGROUP_FILE
            shim = os.getpid() if self.spec.shim_goes_there else 0
            self._cgroup = HostCgroup(self.spec.cgroups_path, record, shim=shim)
            self._cgroup.enter(pids)

    def _negotiate(self, deadline: float) -> None:
        try:
            self.monitor.negotiate(deadline=deadline)
        except ParmaError as error:
            if self._exited.wait(1.0):
                words = self.last_words()
                raise Unavailable(f"QEMU did not start{words}", hint=_explanation(words)) from error
            raise

    def last_words(self) -> str:
        """Why QEMU or the guest ended, as far as either said."""
        for log in reversed(self._logs):
            lines = [line for line in log.tail_lines(8) if "warning:" not in line]
            if lines:
                return ": " + " | ".join(lines[-2:])
        return ""

    def _watch(self) -> None:
        """The watcher thread: copies the logs, then reports the end."""
        poll = select.poll()
        poll.register(self._child.pidfd, select.POLLIN)
        device = self._vsock.child
        if device is not None:
            poll.register(device.pidfd, select.POLLIN)
        open_logs = list(self._logs)
        for log in open_logs:
            os.set_blocking(log.fd, False)
        while True:
            timeout = register(poll, open_logs)
            ready = {fd for fd, _ in poll.poll(timeout)}
            for log in list(open_logs):
                if log.fd in ready and not log.pump():
                    poll.unregister(log.fd)
                    open_logs.remove(log)
            if self._child.pidfd in ready:
                break
            if device is not None and device.pidfd in ready:
                poll.unregister(device.pidfd)
                self.kill()  # nobody can reach the guest any more
        for log in open_logs:
            log.drain()
        self._report_exit()
        for log in self._logs:
            log.close()

    def _report_exit(self) -> None:
        self._status = reap(self._child)
        with self._lock:
            self._exited.set()
            callbacks, self._callbacks = self._callbacks, []
        self.monitor.close()
        self._vsock.close()  # ends every connection to the guest, and with it every call that waits for it
        for callback in callbacks:
            callback(self._status)


def _namespace(spec: VmSpec) -> tuple[int, ...]:
    return (spec.network_descriptor,) if spec.network_descriptor >= 0 else ()


def _into_network(settings: VmSettings, namespace: str) -> list[str]:
    """Puts what follows into a network namespace, never the host's: QEMU needs no network, and whoever takes its
    process id for the container's (CNI by way of ``/proc/<pid>/ns/net``) must not change the host's.
    """
    if namespace:
        return [str(settings.setpriv.with_name("nsenter")), f"--net={namespace}", "--"]
    return [str(settings.setpriv.with_name("unshare")), "--net", "--"]


def _environment(directory: Path) -> dict[str, str]:
    """What the VM's processes get to see; the marker is how ``cleanup`` recognises them."""
    return {"PATH": _PATH, "LC_ALL": "C", cleanup.MARKER: str(directory)}


def _make_directory(directory: Path) -> None:
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if (directory / cleanup.STATE_FILE).exists():
            raise AlreadyExists(f"there is a VM in {directory} already") from None
    except OSError as error:
        raise Unavailable(f"cannot make {directory}: {error.strerror}") from error


def _write_state(directory: Path, header: str, pids: list[int]) -> None:
    lines = [header, *(f"{pid} {cleanup.start_time(pid)}" for pid in pids)]
    temporary = directory / (cleanup.STATE_FILE + ".new")
    try:
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(directory / cleanup.STATE_FILE)
    except OSError as error:
        raise Unavailable(f"cannot write {temporary}: {error.strerror}") from error


def _explanation(last_words: str) -> str:
    """What is known about a message of QEMU, imported only now that there is one."""
    from parma_snp.failures import explain

    known = explain(last_words)
    return f"{known.meaning} {known.fix}" if known else ""


def _snp_arguments(spec: VmSpec, settings: VmSettings, deadline: float) -> list[str]:
    """The part of the command line that only tee = "snp" has, made where the libraries for it do not stay."""
    image = spec.image
    request = {
        "qemu": str(settings.qemu),
        "firmware": str(image.firmware.path),
        "kernel": str(image.kernel.path),
        "initrd": str(image.initrd.path),
        "cmdline": image.command_line(spec.tee),
        "host_data": spec.host_data.hex(),
        "measurement": image.measurement(spec.tee, spec.vcpus).hex(),
        "id_block": str(settings.id_block or ""),
        "vcpus": spec.vcpus,
        "memory_mib": spec.memory_mib,
    }
    answer = call(settings.python, "snp", request, timeout=max(0.0, deadline - time.monotonic()))
    return [str(argument) for argument in answer["arguments"]]
