# SPDX-License-Identifier: Apache-2.0
"""Probes of containerd: its version, the dialect of its configuration, and whether Parma is registered in it.

Source: containerd's docs/cri/config.md. ``version = 2`` (containerd 1.x) and ``version = 3`` (containerd 2.x) keep the
same tables under other plugin names; a table under the other dialect's name is ignored without a word.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, Final, NamedTuple

from parma_shim.doctor.host import Surroundings
from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_wire.errors import Malformed

SHIM: Final = "containerd-shim-parma-v2"
RUNTIME: Final = "io.containerd.parma.v2"
MIN_VERSION: Final = (1, 7)
_CONFIG: Final = "/etc/containerd/config.toml"
_FLAGS: Final = ("-c", "--config", "-config")
_PATH: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_ANNOTATION: Final = "io.parma.policy"


class Dialect(NamedTuple):
    """Under which plugins a version of the configuration keeps what matters here."""

    runtimes: str
    images: str


DIALECTS: Final[Mapping[int, Dialect]] = {
    2: Dialect("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
    3: Dialect("io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
}


class Settings(NamedTuple):
    """What the configuration says, files that it imports included."""

    version: int
    plugins: dict[str, Any]

    @property
    def dialect(self) -> Dialect:
        """The dialect; containerd reads versions it does not know yet like the newest."""
        return DIALECTS[min(max(self.version, 2), max(DIALECTS))]

    def runtimes(self, plugin: str) -> dict[str, dict[str, Any]]:
        """The CRI runtimes that are Parma's, by name."""
        containerd = _table(_table(self.plugins, plugin), "containerd")
        return {
            name: entry
            for name, entry in _table(containerd, "runtimes").items()
            if isinstance(entry, dict) and (name == "parma" or str(entry.get("runtime_type", "")).find("parma") >= 0)
        }

    @property
    def discards_layers(self) -> bool:
        """Whether layers are thrown away once they are unpacked."""
        plugin = _table(self.plugins, self.dialect.images)
        return bool(
            plugin.get("discard_unpacked_layers") or _table(plugin, "containerd").get("discard_unpacked_layers")
        )


def _table(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def read_settings(host: Surroundings) -> Settings | None:
    """The configuration and what it imports; None without a file that can be read.

    Raises Malformed, naming the file, for one that is not TOML.
    """
    file = config_file(host)
    first = host.text(file)
    if first is None:
        return None
    main = _parse(first, file)
    version = main.get("version", 1)
    plugins = dict(_table(main, "plugins"))
    imports = main.get("imports")
    for pattern in imports if isinstance(imports, list) else []:
        for path in host.matching(str(pattern)):
            _merge(plugins, _table(_parse(host.text(path) or "", path), "plugins"))
    return Settings(version if isinstance(version, int) else 1, plugins)


def config_file(host: Surroundings) -> str:
    """The file that the running containerd was told to read (as k3s does), else the usual one."""
    process = host.process("containerd")
    words = process.arguments if process else []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag in _FLAGS:
            return value if equals else following
    return _CONFIG


def _directories(host: Surroundings) -> tuple[str, Sequence[str]]:
    """Where containerd looks for programs, and how to call that."""
    process = host.process("containerd")
    return ("containerd's PATH", process.path) if process and process.path else ("the usual PATH", _PATH)


def _parse(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"{path}: {error}") from None


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] = dict(into[key])
            _merge(into[key], value)
        else:
            into[key] = value


NO_CONTAINERD: Final = Problem(
    "warn",
    "no program containerd in {path}",
    "Nothing here calls the shim.",
    "install containerd 1.7 or later",
)
OLD_CONTAINERD: Final = Problem(
    "fail",
    "containerd {version}",
    "The shim speaks the task API of containerd 1.7 and later.",
    "install containerd 1.7 or later",
)


def _examine_version(host: Surroundings) -> Outcome:
    version = _version(host)
    if version is None:
        return NO_CONTAINERD.found(path=":".join(_directories(host)[1]))
    text = ".".join(map(str, version))
    return ok(f"containerd {text}") if version >= MIN_VERSION else OLD_CONTAINERD.found(version=text)


def _version(host: Surroundings) -> tuple[int, ...] | None:
    for directory in _directories(host)[1]:
        program = f"{directory}/containerd"
        if host.executable(program):
            match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", host.run([program, "--version"]) or "")
            return tuple(map(int, match.groups())) if match else None
    return None


NO_SHIM: Final = Problem(
    "fail",
    f"no program {SHIM} in {{path}}",
    f"containerd looks for the runtime {RUNTIME} under this name in its own PATH. `ctr` says: runtime "
    f'"{RUNTIME}" binary not installed "{SHIM}".',
    f"parma shim-launcher --config /etc/parma/config.toml /usr/local/bin/{SHIM}",
)


def _examine_shim(host: Surroundings) -> Outcome:
    whose, directories = _directories(host)
    for directory in directories:
        if host.executable(f"{directory}/{SHIM}"):
            return ok(f"{directory}/{SHIM}, in {whose}")
    try:
        settings = read_settings(host)
    except Malformed:
        settings = None
    for entry in (settings.runtimes(settings.dialect.runtimes) if settings else {}).values():
        path = str(entry.get("runtime_path", ""))
        if path and host.executable(path):
            return ok(f"{path}, by runtime_path")
    return NO_SHIM.found(path=f"{whose}, {':'.join(directories)}")


NOT_TOML: Final = Problem(
    "fail",
    "{reason}",
    "containerd does not start with this configuration.",
    "correct the file",
)
NO_CONFIG: Final = Problem(
    "skip",
    "{file} cannot be read",
    "containerd runs with its defaults, which is all that `ctr` and `nerdctl` need. For Kubernetes, Parma has to be "
    "registered as a runtime.",
    "for Kubernetes: add the runtime, see README.md",
)
WRONG_VERSION: Final = Problem(
    "fail",
    "the configuration says version = {version}, containerd is {containerd}",
    "containerd 1.x reads up to version = 2; 2.x reads version = 3 and converts version = 2.",
    "write the configuration in the dialect of this containerd: containerd config default",
)
WRONG_DIALECT: Final = Problem(
    "fail",
    "the runtime is registered under {found}; with version = {version} it belongs under {expected}",
    "containerd ignores tables of plugins that it does not have, so CRI does not know the runtime.",
    "move the table to the plugin named as expected",
)
WRONG_TYPE: Final = Problem(
    "fail",
    "the runtime {name} has runtime_type = {found!r}",
    "This is what containerd makes the shim's name from.",
    f'runtime_type = "{RUNTIME}"',
)
NO_ANNOTATIONS: Final = Problem(
    "fail",
    "the runtime {name} passes on no annotations io.parma.* ({key})",
    "The policy comes with the pod as an annotation; CRI passes on only those listed, and without a policy nothing is "
    "started.",
    '{pod,container}_annotations = ["io.parma.*"]',
)
NOT_REGISTERED: Final = Problem(
    "warn",
    "no runtime of Parma is registered for Kubernetes (CRI)",
    "`ctr` and `nerdctl` need no registration; a RuntimeClass does.",
    "for Kubernetes: add the runtime, see README.md",
)
DISCARDS: Final = Problem(
    "fail",
    "discard_unpacked_layers = true",
    "The layers' content is thrown away after unpacking, but it is what the verified devices are made from.",
    "remove discard_unpacked_layers, and pull the images again",
)


def _examine_registration(host: Surroundings) -> Outcome:
    try:
        settings = read_settings(host)
    except Malformed as error:
        return NOT_TOML.found(reason=error.message)
    if settings is None:
        return NO_CONFIG.found(file=config_file(host))
    version = _version(host)
    if version is not None and version < (2,) and settings.version > 2:
        return WRONG_VERSION.found(version=settings.version, containerd=".".join(map(str, version)))
    if settings.discards_layers:
        return DISCARDS.found()
    return _examine_runtimes(settings, config_file(host))


def _examine_runtimes(settings: Settings, file: str) -> Outcome:
    expected = settings.dialect.runtimes
    runtimes = settings.runtimes(expected)
    if not runtimes:
        for dialect in DIALECTS.values():
            if settings.runtimes(dialect.runtimes):
                return WRONG_DIALECT.found(found=dialect.runtimes, version=settings.version, expected=expected)
        return NOT_REGISTERED.found()
    for name, entry in runtimes.items():
        if entry.get("runtime_type") != RUNTIME:
            return WRONG_TYPE.found(name=name, found=entry.get("runtime_type"))
        for key in ("pod_annotations", "container_annotations"):
            patterns = entry.get(key)
            if not isinstance(patterns, list) or not any(fnmatch(_ANNOTATION, str(word)) for word in patterns):
                return NO_ANNOTATIONS.found(name=name, key=key)
    return ok(f"{file}: version = {settings.version}, runtime {', '.join(sorted(runtimes))}")


PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe("containerd.version", "containerd 1.7 or later", _examine_version, (NO_CONTAINERD, OLD_CONTAINERD)),
    Probe("containerd.shim", f"{SHIM} where containerd finds it", _examine_shim, (NO_SHIM,)),
    Probe(
        "containerd.config",
        "Parma registered in the dialect that containerd reads",
        _examine_registration,
        (
            NOT_TOML,
            NO_CONFIG,
            WRONG_VERSION,
            WRONG_DIALECT,
            WRONG_TYPE,
            NO_ANNOTATIONS,
            NOT_REGISTERED,
            DISCARDS,
        ),
    ),
)
