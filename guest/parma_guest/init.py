# SPDX-License-Identifier: Apache-2.0
"""Process 1 of the guest. Whatever goes wrong in it, the VM ends: there is no state in which it runs on unguarded."""

from __future__ import annotations

import time

_STARTED = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # before the imports that cost time

import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from types import TracebackType  # noqa: E402
from typing import Final  # noqa: E402

from parma_guest import boot, cmdline, tee  # noqa: E402
from parma_guest.attest.service import Attestation  # noqa: E402
from parma_guest.confine import give_up_vsock  # noqa: E402
from parma_guest.decisions import FrameworkEngine, preload  # noqa: E402
from parma_guest.devicemapper import DeviceMapper  # noqa: E402
from parma_guest.devices import ScsiDevices  # noqa: E402
from parma_guest.enforcer import Enforcer, LoadPolicy  # noqa: E402
from parma_guest.group import Group  # noqa: E402
from parma_guest.host import GuestHost  # noqa: E402
from parma_guest.modules import load_modules  # noqa: E402
from parma_guest.network import Network  # noqa: E402
from parma_guest.overlay import Overlays  # noqa: E402
from parma_guest.owners import Owners  # noqa: E402
from parma_guest.pod import Pod  # noqa: E402
from parma_guest.reaper import Reaper  # noqa: E402
from parma_guest.runtime import Crun, run  # noqa: E402
from parma_guest.scratch import RawDisk, Scratches  # noqa: E402
from parma_guest.service import GuestService, StreamService  # noqa: E402
from parma_guest.syscalls import Kernel  # noqa: E402
from parma_guest.verity import Layers  # noqa: E402
from parma_wire import guest_pb2 as pb  # noqa: E402
from parma_wire.limits import GUEST_PORT, MAX_SEND, READY_LINE  # noqa: E402
from ttrpc import Server  # noqa: E402

_BACKLOG: Final = 64


def main(load_policy: Callable[[Reaper], LoadPolicy] = lambda _: FrameworkEngine) -> None:
    """Never returns. ``load_policy`` makes what policies are loaded with."""
    kernel = Kernel()
    sys.excepthook = _die_with(kernel)
    threading.excepthook = lambda hook: _die(kernel, hook.exc_type, hook.exc_traceback)
    try:
        _serve(kernel, load_policy, [("python", time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)])
    except BaseException as error:  # noqa: BLE001  # process 1 has nobody to tell
        _die(kernel, type(error), error.__traceback__)
    _die(kernel, None, None)


def _serve(kernel: Kernel, load_policy: Callable[[Reaper], LoadPolicy], phases: list[tuple[str, int]]) -> None:
    boot.leave_initial_root(kernel)
    boot.mount_all(kernel)
    _detach_console()
    boot.quiet()
    boot.raise_limits()
    tee_name = cmdline.booted_tee()
    load_modules(tee_name)
    boot.mount_late(kernel)
    boot.lock_down()
    boot.enable_controllers()
    kernel.loopback_up()
    phases.append(("modules", _now()))

    reaper = Reaper()
    reaper.start()
    provider = tee.provider(tee_name, _listen, tee.from_host)
    enforcer = Enforcer(provider, load_policy(reaper))
    devices = ScsiDevices(kernel.block_device_size)
    mapper = DeviceMapper()
    host = GuestHost(kernel)
    scratches = Scratches(devices, mapper, kernel, RawDisk(), run(reaper))
    group = Group(
        enforcer,
        Layers(devices, mapper, kernel),
        scratches,
        Overlays(kernel, Owners(kernel, reaper.spawn)),
        Pod(kernel, host, scratches),
        Crun(reaper),
        host,
        Attestation(provider, reaper.spawn, kernel),
        Network(kernel),
    )
    listener = _listen(GUEST_PORT)
    phases.insert(0, ("userspace", _STARTED // 1000))
    phases.insert(0, ("kernel", boot.kernel_ready_us(boot.read_kernel_log())))
    phases.append(("ready", _now()))
    server = Server(accept=tee.from_host, write_chunk=MAX_SEND)
    services = pb.DESCRIPTOR.services_by_name
    server.register(services["Guest"], GuestService(enforcer, group, phases, kernel.power_off))
    server.register(services["Streams"], StreamService(group))
    give_up_vsock()  # nothing has been started yet, and all sockets are there
    _say(READY_LINE)
    threading.Thread(target=preload, name="preload", daemon=True).start()  # its failure ends the VM, as any thread's
    server.serve(listener)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind((socket.VMADDR_CID_ANY, port))
    listener.listen(_BACKLOG)
    return listener


def _detach_console() -> None:
    """The console belongs to the host: it gets fixed words through `_say` and nothing else."""
    global _console
    _console = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


_console = 2


def _say(text: str) -> None:
    try:
        os.write(_console, text.encode() + b"\r\n")
    except OSError:
        return


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _die_with(kernel: Kernel):  # type: ignore[no-untyped-def]
    def hook(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
        _die(kernel, kind, trace)

    return hook


def _die(kernel: Kernel, kind: type[BaseException] | None, trace: TracebackType | None) -> None:
    """Type and place only: the text of an error, or a local variable, could hold a secret."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "end"
    _say(f"parma: the enforcer ended ({kind.__name__ if kind else 'no error'} at {place}); power off")
    kernel.power_off()
    os._exit(1)
