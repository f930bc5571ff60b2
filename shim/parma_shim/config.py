# SPDX-License-Identifier: Apache-2.0
"""The host's configuration: a TOML file and its drop-ins, every key with a default, unknown keys refused.

Which file: the one that the runtime's options name (``ConfigPath`` in containerd's configuration), else the one
built into the launcher, else :data:`DEFAULT_PATH`. A file that was named must exist; the default one need not. Keys
may stand directly in the runtime's options as well, and win.
The environment has no say: whoever can set it for containerd is not always who may configure the runtime.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.config_files import DEFAULT_PATH, config_files
from parma_wire.errors import Malformed, NotFound, ParmaError

OPTIONS: Final = "the runtime's options"
"""How errors call the table in containerd's configuration."""

_CONTAINERDS_OWN: Final = frozenset({"TypeUrl", "ConfigPath", "ConfigBody"})
"""Keys of that table that are containerd's: it hands on the whole table where ``ConfigPath`` in it is empty."""

Value = str | int | float | list[str]
"""What a key of the file can hold."""


class Config(NamedTuple):
    """Frozen. All paths are absolute."""

    tee: str = "snp"
    """``snp``, ``emulated`` (signed by a throw-away authority on this host) or ``none`` (unattested)."""

    task_api: str = "auto"
    """Version of containerd's task API that ``start`` offers: ``2``, ``3``, or ``auto`` to find out."""

    image_dir: Path = Path("/usr/lib/parma/image")
    """The guest image: kernel, initrd, firmware, manifest."""

    qemu: Path = Path("/usr/bin/qemu-system-x86_64")
    qemu_data_dir: Path | None = None
    """QEMU's firmware files (``-L``); empty for its own."""

    vhost_device_vsock: Path | None = Path("/usr/bin/vhost-device-vsock")
    """For hosts without /dev/vhost-vsock; empty to do without."""

    accelerator: str = "auto"
    """``kvm``, ``tcg``, or ``auto``: KVM where a probe shows that it works."""

    certificates: Path | None = None
    """With ``snp``: this processor's VCEK or VLEK certificate, as ``parma certificates`` writes it, or the cloud's
    host-amd-cert document; without it no evidence verifies on this host."""

    minimum_tcb: str = ""
    """Lowest firmware levels that this host's status accepts (``snp=24,ucode=219``); empty for the built-in table."""

    attestation: str = "required"
    """``required``: no container starts in a VM whose evidence does not verify; ``reported``: the status says so."""

    emulated_on_snp: str = "refused"
    """With ``emulated``, on a machine with SEV-SNP: ``refused``, or ``allowed``."""

    id_block: Path | None = None
    """With ``snp``: file of signed ID blocks (``parma id-block make``); then nothing else is launched."""

    memory_mib: int = 512
    """Guest memory when the container has no limit."""

    vcpus: int = 1
    """Virtual processors when the container has no limit."""

    scratch: str = "encrypted"
    """The writable layer: ``encrypted`` (a sparse file, key made in the guest) or ``memory`` (of the guest)."""

    scratch_mib: int = 10240
    """Size of the writable layer; nothing is allocated before it is written."""

    volume_mib: int = 1024
    """Size of each emptyDir of a pod that has no limit (``io.parma.volume-limits``) and is not in memory."""

    state_dir: Path = Path("/run/parma")
    data_dir: Path = Path("/var/lib/parma")
    """Holds ``layers/`` (converted image layers) and ``emulated/`` (the emulated secure processor's keys)."""

    layer_cache_mib: int = 20480
    policy_dirs: tuple[Path, ...] = (Path("/etc/parma/policies"),)
    """Folders below which the annotation ``io.parma.policy-file`` may name a policy."""

    fragment_dirs: tuple[Path, ...] = (Path("/etc/parma/fragments"),)
    """Folders below which the annotation ``io.parma.fragment-files`` may name signed fragments."""

    boot_timeout: float = 120.0
    """Seconds from QEMU's start to a ready guest."""

    call_timeout: float = 30.0
    """Seconds that one request to the guest may take."""

    file_updates: float = 60.0
    """Seconds between two looks at files that containers mount; what has changed is handed to the guest. 0: never."""

    setpriv: Path = Path("/usr/bin/setpriv")
    python: Path = Path(sys.executable or "/usr/bin/python3")
    """Interpreter for the short-lived helper processes."""


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "tee": ("snp", "emulated", "none"),
    "task_api": ("auto", "2", "3"),
    "accelerator": ("auto", "kvm", "tcg"),
    "scratch": ("encrypted", "memory"),
    "attestation": ("required", "reported"),
    "emulated_on_snp": ("refused", "allowed"),
}
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "memory_mib": (128, 1 << 24),
    "vcpus": (1, 512),
    "scratch_mib": (16, 1 << 27),
    "volume_mib": (1, 1 << 20),
    "layer_cache_mib": (0, 1 << 27),
    "boot_timeout": (1, 3600),
    "call_timeout": (1, 3600),
    "file_updates": (0, 86_400),
}
_OPTIONAL_PATHS: Final = frozenset({"qemu_data_dir", "vhost_device_vsock", "certificates", "id_block"})


class Source(NamedTuple):
    """Something that says what the configuration is."""

    name: str
    """A path, or words for people."""

    values: dict[str, object]
    """By key; not yet checked."""


class Loaded(NamedTuple):
    """A configuration, and where each of its values comes from."""

    config: Config
    origins: dict[str, str]
    """Key -> the name of the source that set it; keys that nobody set are missing."""


def load(path: str = "", body: bytes = b"") -> Config:
    """Reads the configuration: a file, its drop-ins, and ``body``, a table in the runtime's options, which wins.

    Raises:
        NotFound: ``path`` was named and does not exist.
        Malformed: not TOML, an unknown key, or a value of the wrong type or out of range.
    """
    return load_with_origins(path, body).config


def load_with_origins(path: str = "", body: bytes = b"") -> Loaded:
    """Like :func:`load`; says in addition who said what.

    Raises: as :func:`load`.
    """
    return merge(_sources(path, body))


def load_in_child(path: str = "", body: bytes = b"") -> Config:
    """Like :func:`load`, but parses in a forked child: the TOML parser would stay in memory as long as the shim.

    For a process with one thread only.

    Raises: as :func:`load`.
    """
    if not path and not body and config_files() == [DEFAULT_PATH] and not Path(DEFAULT_PATH).exists():
        return Config()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _send_and_exit(lambda: load(path, body), write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    content = marshal.loads(answer) if answer else "the configuration's reader died"  # noqa: S302 - our own child
    if not isinstance(content, dict):
        raise Malformed(str(content))
    return from_values(content, path or DEFAULT_PATH)


def merge(sources: Iterable[Source]) -> Loaded:
    """One configuration of several sources, of which later ones win key by key.

    Raises:
        Malformed: an unknown key, or a value of the wrong type or out of range, in any of them.
    """
    checked: dict[str, object] = {}
    origins: dict[str, str] = {}
    for source in sources:
        values = _checked(source)
        checked |= values
        origins |= dict.fromkeys(values, source.name)
    return Loaded(Config(**checked), origins)  # type: ignore[arg-type]


def from_values(values: Mapping[str, object], source: str) -> Config:
    """The configuration that one source (called ``source`` in errors) makes. Raises as :func:`merge`."""
    return merge([Source(source, dict(values))]).config


def _checked(source: Source) -> dict[str, object]:
    checked: dict[str, object] = {}
    for key, value in source.values.items():
        if key not in Config._fields:
            raise Malformed(f"unknown key {key!r} in {source.name}", hint=_suggestion(key))
        try:
            checked[key] = _check(key, value)
        except ValueError as error:
            raise Malformed(f"{key} in {source.name} is {value!r}", expected=str(error)) from None
    return checked


def _sources(path: str, body: bytes) -> Iterator[Source]:
    """Weakest first."""
    for file in config_files(path):
        try:
            data = Path(file).read_bytes()
        except FileNotFoundError:
            if file == path:
                raise NotFound(f"the configuration {path} does not exist") from None
            continue  # the default one need not be there; a drop-in may have gone meanwhile
        except OSError as error:
            raise Malformed(f"the configuration {file} cannot be read: {error.strerror}") from None
        yield Source(file, parse_toml(data, file))
    if body:
        values = parse_toml(body, OPTIONS)
        yield Source(OPTIONS, {key: value for key, value in values.items() if key not in _CONTAINERDS_OWN})


def to_values(config: Config) -> dict[str, Value]:
    """The configuration as it would stand in a file."""
    values: dict[str, Value] = {}
    for key, value in config._asdict().items():
        if value is None:
            values[key] = ""
        elif isinstance(value, tuple):
            values[key] = [str(item) for item in value]
        else:
            values[key] = str(value) if isinstance(value, Path) else value
    return values


def to_lines(config: Config) -> dict[str, str]:
    """By key, the lines of a file that says the same."""
    return {key: f"{key} = {_toml(value)}" for key, value in to_values(config).items()}


def _toml(value: Value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def parse_toml(data: bytes, source: str) -> dict[str, object]:
    """The table that a file (called ``source`` in errors) holds; not yet checked. Raises Malformed."""
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are the former
        raise Malformed(f"{source} is not TOML: {error}") from None


def _check(key: str, value: object) -> object:
    """The value as the field's type; ValueError says what was expected."""
    if key == "task_api" and isinstance(value, int):
        value = str(value)
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise ValueError(" or ".join(_CHOICES[key]))
        return value
    if key in _RANGES:
        low, high = _RANGES[key]
        real = key.endswith("_timeout") or key == "file_updates"
        if isinstance(value, bool) or not isinstance(value, (int, float) if real else int) or not low <= value <= high:
            raise ValueError(f"a number from {low} to {high}")
        return float(value) if real else value
    if key == "minimum_tcb":
        return _levels(value)
    if key in ("policy_dirs", "fragment_dirs"):
        if not isinstance(value, list):
            raise ValueError("a list of absolute paths")
        return tuple(map(_path, value))
    return None if key in _OPTIONAL_PATHS and value == "" else _path(value)


def _levels(value: object) -> str:
    """The form only: ``parse_levels`` of ``parma_snp.expected``, which the daemon does not load, knows the names."""
    levels = [part.partition("=") for part in value.split(",")] if isinstance(value, str) and value else []
    well_formed = all(name.strip().isalpha() and level.strip().isdecimal() for name, _, level in levels)
    if not isinstance(value, str) or not well_formed:
        raise ValueError("patch levels such as snp=24,ucode=219, or nothing")
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or any(map(_is_control, value)):
        raise ValueError("an absolute path without control characters")
    return Path(value)


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character < "\xa0"


def _suggestion(key: str) -> str:
    import difflib

    close = difflib.get_close_matches(key, Config._fields, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(Config._fields)


def _send_and_exit(make: Callable[[], Config], pipe: int) -> None:
    """In the child: the result over the pipe, then the end of the process."""
    try:
        answer: dict[str, Value] | str = to_values(make())
    except ParmaError as error:
        answer = str(error)
    try:
        with open(pipe, "wb") as stream:
            stream.write(marshal.dumps(answer))
    finally:
        os._exit(0)
