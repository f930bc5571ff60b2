# SPDX-License-Identifier: Apache-2.0
"""What the shim reads from and leaves in a container's bundle directory (tier 0).

``address``      the shim's address; containerd 1.7 reconnects by it
``parma.state``  only in the bundle whose ``start`` created the daemon: what ``delete`` has to undo
``parma.exit``   how the container ended, once it has: ``delete`` repeats it when the shim dies before Delete

``parma.state`` is lines of ``key=value``. Its format has a number so that a newer ``delete`` can undo what an older
shim left; unknown keys are kept out of the way, not refused.
"""

import posix

ADDRESS = "address"
STATE = "parma.state"
EXIT = "parma.exit"
_STATE_FORMAT = "1"

GROUP_ANNOTATIONS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Containers with the same value share a shim and a virtual machine; the first that is present counts."""


class State:
    """``parma.state``: what exists because of one daemon. Empty text and 0 mean "not (yet) known"."""

    __slots__ = ("directory", "pid", "socket", "started", "task_pid")

    def __init__(
        self, *, socket: str = "", pid: int = 0, started: int = 0, directory: str = "", task_pid: int = 0
    ) -> None:
        self.socket = socket
        self.pid = pid
        self.started = started
        """Start time of ``pid`` in clock ticks since boot: tells the process from a later one with the same number."""
        self.directory = directory
        """The group's private directory, which ``vm.cleanup.destroy_leftovers`` empties."""
        self.task_pid = task_pid
        """The process id that containerd was told."""

    def encode(self) -> bytes:
        lines = [f"format={_STATE_FORMAT}"] + [f"{name}={getattr(self, name)}" for name in self.__slots__]
        return "".join(line + "\n" for line in lines).encode()


def write_state(bundle: str, state: State) -> None:
    """Replaces the file atomically."""
    replace_file(f"{bundle}/{STATE}", state.encode())


def read_state(bundle: str) -> State | None:
    """The state, or ``None`` when this bundle's ``start`` created no daemon (or all of it is undone already)."""
    data = read_file(f"{bundle}/{STATE}")
    if data is None:
        return None
    values = dict(line.split("=", 1) for line in data.decode(errors="replace").splitlines() if "=" in line)
    state = State(socket=values.get("socket", ""), directory=values.get("directory", ""))
    for name in ("pid", "started", "task_pid"):
        text = values.get(name, "")
        setattr(state, name, int(text) if text.isdecimal() else 0)
    return state


def write_exit(bundle: str, pid: int, status: int, exited_at: int) -> None:
    """Keeps how the container ended; ``exited_at`` in nanoseconds since 1970. Replaces the file atomically."""
    replace_file(f"{bundle}/{EXIT}", f"{pid} {status} {exited_at}\n".encode())


def read_exit(bundle: str) -> tuple[int, int, int] | None:
    """What `write_exit` kept, or ``None`` when the container has not ended."""
    words = (read_file(f"{bundle}/{EXIT}") or b"").split()
    if len(words) != 3 or not all(word.isdigit() for word in words):
        return None
    return int(words[0]), int(words[1]), int(words[2])


def write_address(bundle: str, address: str) -> None:
    """Replaces the file atomically."""
    replace_file(f"{bundle}/{ADDRESS}", address.encode())


def group_of(bundle: str, identity: str) -> str:
    """The id of the group that the container belongs to: its own id unless ``config.json`` says otherwise.

    A sandbox's bundle has no ``config.json`` (sandboxer = "shim"): it is its own group.
    """
    data = read_file(f"{bundle}/config.json")
    if data is None or not any(name.encode() in data for name in GROUP_ANNOTATIONS):
        return identity  # the common case under `ctr`: nothing to parse
    spec = _parse_json(data)
    annotations = spec.get("annotations") if isinstance(spec, dict) else None
    if isinstance(annotations, dict):
        for name in GROUP_ANNOTATIONS:
            value = annotations.get(name)
            if isinstance(value, str) and value:
                return value
    return identity


def read_file(path: str) -> bytes | None:
    """The whole file, or ``None`` when there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_directories(path: str, mode: int = 0o711) -> None:
    """The directory, and those above it that are missing: ``os.makedirs`` without ``os``. Others may do so at once."""
    missing = []
    while path and not _is_made(path, mode):
        missing.append(path)
        path = path.rpartition("/")[0]
    for directory in reversed(missing):
        if not _is_made(directory, mode):
            raise FileNotFoundError(directory)


def _is_made(path: str, mode: int) -> bool:
    """False when the one above it is missing too."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    return True


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is no such process."""
    data = read_file(f"/proc/{pid}/stat") if pid > 0 else None
    # Field 22; the name in field 2 may contain anything, even parentheses.
    return int(data.rpartition(b")")[2].split()[19]) if data else 0


def replace_file(path: str, data: bytes) -> None:
    """Atomically, by a file that is for nobody else, whatever the umask."""
    temporary = f"{path}.{posix.getpid()}"
    with open(temporary, "wb", buffering=0, opener=_private) as file:
        file.write(data)
    posix.rename(temporary, path)


def _private(path: str, flags: int) -> int:
    return posix.open(path, flags, 0o600)


def _parse_json(data: bytes) -> object:
    import json  # 9 ms; only for containers of a pod

    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        from parma_wire.errors import Malformed

        raise Malformed(f"config.json in the bundle is not JSON: {error}") from None
