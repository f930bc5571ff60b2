# SPDX-License-Identifier: Apache-2.0
"""Debian packages without touching the machine's own package database.

A private apt (own sources, lists, cache and an empty status file below one working directory) downloads packages of
the suite that is asked for, whatever release the host runs. The mirror, the proxy and the time checks are the host's
own apt configuration; signatures are always checked against the Debian archive keyring.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_wire.errors import Malformed, NotFound, ParmaError, Unavailable

SUITES: Final[dict[str, tuple[str, ...]]] = {
    "bookworm": ("bookworm", "bookworm-updates", "bookworm-security"),
    "bookworm-backports": ("bookworm", "bookworm-updates", "bookworm-security", "bookworm-backports"),
    "trixie": ("trixie", "trixie-updates", "trixie-security"),
    "sid": ("sid",),
}
"""What can be asked for, and the releases that each is resolved within. Nothing is ever mixed beyond these."""

_KEYRINGS: Final = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_INHERITED: Final = re.compile(
    r"Acquire::(https?|ftp|Check-Date|Check-Valid-Until|Retries|ForceIPv[46])\b", re.IGNORECASE
)
_INST: Final = re.compile(r"Inst (?P<name>\S+) (?:\[[^]]*\] )?\((?P<version>\S+) [^\[]*\[(?P<architecture>\w+)\]\)")
_UNKNOWN: Final = re.compile(r"Unable to locate package (\S+)|Version '([^']+)' for '([^']+)' was not found")

Log = Callable[[str], None]


@dataclass(frozen=True)
class Deb:
    """One downloaded package; ``sha256`` (hex) is that of the signed package list and was checked."""

    name: str
    version: str
    architecture: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Mirror:
    """Where packages come from. ``security`` is None when the host has no security source."""

    main: str
    security: str | None
    keyring: Path


def host_mirror() -> Mirror:
    """The Debian mirror and keyring of this machine's apt sources.

    Raises Unavailable when there is no apt, NotFound when none of its sources is a Debian release.
    """
    if shutil.which("apt-get") is None:
        raise Unavailable("apt-get is not installed", expected="a Debian 12 or 13 machine")
    # Without release information: also on a machine that has never run `apt-get update`.
    form = "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)"
    output = _run(["apt-get", "indextargets", "--no-release-info", "--format", form])
    main = security = None
    for line in output.splitlines():
        created_by, component, release, uri = (line.split(maxsplit=3) + [""] * 4)[:4]
        if created_by != "Packages" or component != "main":
            continue
        if re.fullmatch(r"(bookworm|trixie|stable|sid|unstable|testing)", release):
            main = main or uri
        elif release.endswith(("-security", "/updates")):
            security = security or uri
    if main is None:
        raise NotFound(
            "no Debian mirror among this machine's apt sources",
            expected="a source of bookworm, trixie or sid with component main, as in /etc/apt/sources.list.d",
        )
    keyring = next((path for path in _KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise NotFound("no Debian archive keyring", hint="apt-get install debian-archive-keyring")
    return Mirror(main, security, keyring)


class DebianArchive:
    """Downloads packages into ``workdir`` and unpacks them. Safe for several processes at once.

    ``log`` receives one line of progress at a time.
    """

    def __init__(self, workdir: Path, *, log: Log = lambda _: None) -> None:
        self.workdir = workdir.absolute()
        self.log = log
        self._mirror: Mirror | None = None
        self._fresh: set[str] = set()

    def fetch(
        self,
        suite: str,
        packages: Sequence[str],
        *,
        with_dependencies: bool = False,
        exclude: Collection[str] = (),
    ) -> list[Deb]:
        """Downloads ``packages`` (``name`` or ``name=version``) of ``suite``; sorted by name.

        ``with_dependencies`` adds everything they depend on (not what they recommend), but for the names in
        ``exclude``. Raises NotFound (naming the package or version that the archive does not have) or Unavailable.
        """
        if suite not in SUITES:
            raise Malformed(f"unknown suite {suite!r}", expected=", ".join(SUITES))
        with self._locked():
            self._update(suite)
            wanted = self._resolve(suite, packages) if with_dependencies else list(packages)
            wanted = [item for item in wanted if item.partition("=")[0] not in exclude]
            records = self._records(suite, wanted)
            self._download(suite, records)
            return sorted((self._deb(record) for record in records), key=lambda deb: deb.name)

    def fetch_exactly(self, suite: str, packages: Sequence[tuple[str, str, str]]) -> list[Deb]:
        """The packages ``(name, version, sha256)`` and no others; no network is needed when they were had before.

        Raises NotFound when the archive no longer has one of them, or has it with other contents.
        """
        records = [self._kept(*package) for package in packages]
        if all(records):
            return [deb for deb in records if deb]
        found = self.fetch(suite, [f"{name}={version}" for name, version, _ in packages])
        by_name = {deb.name: deb for deb in found}
        for name, version, sha256 in packages:
            if by_name[name].sha256 != sha256:
                raise NotFound(f"the archive's {name}={version} in {suite} is not the one that was locked")
        return found

    def dependencies(self, suite: str, package: str) -> list[str]:
        """Names of the packages that ``package`` directly depends on (alternatives included)."""
        with self._locked():
            self._update(suite)
            record = self._records(suite, [package])[0]
        return [item.split()[0] for item in re.split(r"[,|]", record.get("Depends", "")) if item.strip()]

    def _kept(self, name: str, version: str, sha256: str) -> Deb | None:
        path = self.workdir / "debs" / f"{sha256}.deb"
        if not path.is_file() or _sha256(path) != sha256:
            return None
        return Deb(name, version, "", path, sha256, path.stat().st_size)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return exclusive(self.workdir)

    def _directory(self, suite: str) -> Path:
        return self.workdir / "apt" / suite

    def _update(self, suite: str) -> None:
        """Refreshes the package lists of ``suite``, once for the life of this object."""
        if suite in self._fresh:
            return
        self._mirror = self._mirror or host_mirror()
        directory = self._directory(suite)
        for name in ("lists/partial", "cache/archives/partial", "preferences.d"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        (directory / "debian.sources").write_text(sources(suite, self._mirror))
        (directory / "apt.conf").write_text(configuration(directory, _run(["apt-config", "dump"])))
        self.log(f"reading the package lists of {suite}")
        try:
            self._apt(suite, "apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        except ParmaError as error:
            raise Unavailable(
                f"the package lists of {suite} could not be read: {error.message}",
                hint="is there a network, and does 'apt-get update' work on this machine?",
            ) from error
        self._fresh.add(suite)

    def _resolve(self, suite: str, packages: Sequence[str]) -> list[str]:
        """``name=version`` of the packages and all that they depend on, as apt would install on an empty machine."""
        target = ["-t", suite] if suite.endswith("-backports") else []
        output = self._apt(suite, "apt-get", "install", "-s", "-qq", "--no-install-recommends", *target, *packages)
        found = [match for match in map(_INST.match, output.splitlines()) if match]
        if not found:
            raise Unavailable(f"apt resolved nothing for {' '.join(packages)} in {suite}")
        return sorted(f"{match['name'].partition(':')[0]}={match['version']}" for match in found)

    def _records(self, suite: str, packages: Sequence[str]) -> list[dict[str, str]]:
        """The signed package list's entry for each package, one look-up for all."""
        # Without quiet=0 apt names the unknown package only to a terminal.
        output = self._apt(suite, "apt-cache", "show", "--no-all-versions", "-o", "quiet=0", *packages)
        entries = [_paragraph(text) for text in output.split("\n\n") if text.strip()]
        records = []
        for item in packages:
            name, _, version = item.partition("=")
            match = [e for e in entries if e["Package"] == name and version in ("", e["Version"])]
            if not match:
                raise NotFound(f"the archive has no {item} in {suite}")
            records.append(match[0])
        return records

    def _download(self, suite: str, records: Sequence[dict[str, str]]) -> None:
        missing = [r for r in records if not self._cached(r)]
        if not missing:
            return
        total = sum(int(r["Size"]) for r in missing)
        self.log(f"downloading {len(missing)} packages of {suite}, {total / 1e6:.0f} MB")
        debs = self.workdir / "debs"
        partial = self.workdir / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        debs.mkdir(exist_ok=True)
        names = [f"{r['Package']}={r['Version']}" for r in missing]
        self._apt(suite, "apt-get", "download", "-q", *names, cwd=partial, progress=True)
        for path in partial.iterdir():
            digest = _sha256(path)
            if digest not in {r["SHA256"] for r in missing}:
                raise Unavailable(f"{path.name} is not the package that the archive's list names")
            # The hash is part of the name: the archive may rebuild a version, and the cache may not mix them up.
            path.rename(debs / f"{digest}.deb")

    def _cached(self, record: dict[str, str]) -> bool:
        path = self._path(record)
        if not path.is_file():
            return False
        if path.stat().st_size == int(record["Size"]) and _sha256(path) == record["SHA256"]:
            return True
        path.unlink()
        return False

    def _path(self, record: dict[str, str]) -> Path:
        return self.workdir / "debs" / f"{record['SHA256']}.deb"

    def _deb(self, record: dict[str, str]) -> Deb:
        if not self._cached(record):
            raise Unavailable(f"{record['Package']} {record['Version']} was not downloaded")
        size = int(record["Size"])
        path = self._path(record)
        return Deb(record["Package"], record["Version"], record["Architecture"], path, record["SHA256"], size)

    def _apt(self, suite: str, *command: str, cwd: Path | None = None, progress: bool = False) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._directory(suite) / "apt.conf"), "LC_ALL": "C.UTF-8"}
        try:
            if progress:
                return _run_with_progress(command, cwd=cwd, environment=environment, log=self.log)
            return _run(command, cwd=cwd, environment=environment)
        except Unavailable as error:
            unknown = re.search(
                r"Unable to locate package (\S+)|Version '([^']+)' for '([^']+)' was not found", error.message
            )
            if unknown:
                item = unknown[1] or f"{unknown[3]}={unknown[2]}"
                raise NotFound(f"the archive has no {item} in {suite}") from error
            raise


def sources(suite: str, mirror: Mirror) -> str:
    """The deb822 sources for ``suite``, every stanza signed by the Debian archive keyring."""
    main = [name for name in SUITES[suite] if not name.endswith("-security")]
    security = [name for name in SUITES[suite] if name.endswith("-security")]
    stanzas = [(mirror.main, main)]
    if mirror.security is not None and security:
        stanzas.append((mirror.security, security))
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {' '.join(names)}\nComponents: main\nArchitectures: amd64\n"
        f"Signed-By: {mirror.keyring}\n"
        for uri, names in stanzas
    )


def configuration(directory: Path, host_configuration: str) -> str:
    """apt's configuration for a private ``directory``, with the network settings of ``apt-config dump``.

    The host's other settings are left out: hooks would act on the host, and docker's would empty our cache.
    """
    inherited = [line for line in host_configuration.splitlines() if _INHERITED.match(line)]
    own = {
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::AllowInsecureRepositories": "false",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::netrc": "/etc/apt/auth.conf",
        "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
        "Dir::Etc::sourcelist": str(directory / "debian.sources"),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": str(directory / "preferences.d"),
        "Dir::State": str(directory),
        "Dir::State::lists": str(directory / "lists"),
        "Dir::State::status": str(directory / "status"),
        "Dir::Cache": str(directory / "cache"),
        "Dir::Log": str(directory),
    }
    lines = [*inherited, *(f'{key} "{value}";' for key, value in own.items()), 'APT::Architectures { "amd64"; };']
    return "\n".join(lines) + "\n"


def unpack(debs: Iterable[Deb], directory: Path) -> None:
    """Unpacks the packages' files below ``directory``, running none of their scripts."""
    directory.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        _run(["dpkg-deb", "--extract", str(deb.path), str(directory)])


@contextlib.contextmanager
def exclusive(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of a working directory."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _paragraph(text: str) -> dict[str, str]:
    """One entry of a package list; continuation lines are dropped, as no field that we use has any."""
    pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith(" "))
    return dict(pairs)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: Sequence[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Output of a command; Unavailable with its first error lines when it fails or does not exist."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} could not be run: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(_failure(command, done.stderr))
    return done.stdout


def _failure(command: Sequence[str], stderr: str) -> str:
    lines = [
        line.strip() for line in stderr.splitlines() if line.startswith(("E:", "N: Unable", "dpkg"))
    ] or stderr.splitlines()
    return f"{' '.join(command[:2])} failed: {' '.join(lines[:4])[:600]}"


def _run_with_progress(command: Sequence[str], *, cwd: Path | None, environment: dict[str, str], log: Log) -> str:
    """As ``_run``, with a line of progress at every tenth of apt's download."""
    read_end, write_end = os.pipe()
    full = [*command, "-o", f"APT::Status-Fd={write_end}"]
    stderr_path = (cwd or Path.cwd()) / "stderr.log"
    with open(read_end, encoding="utf-8", errors="replace") as status, stderr_path.open("w+") as stderr:
        try:
            process = subprocess.Popen(
                full,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[write_end],
            )
        finally:
            os.close(write_end)
        shown = 0
        for line in status:
            fields = line.split(":", 3)
            if fields[0] == "dlstatus" and len(fields) == 4 and float(fields[2]) >= shown + 10:
                shown = int(float(fields[2])) // 10 * 10
                log(f"downloading: {shown}%")
        returncode = process.wait()
        stderr.seek(0)
        text = stderr.read()
    stderr_path.unlink()
    if returncode:
        raise Unavailable(_failure(command, text))
    return ""
