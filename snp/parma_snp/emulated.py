# SPDX-License-Identifier: Apache-2.0
"""The emulated secure processor: reports of the real format, signed by a key that the host itself made.

It lets everything around attestation run on machines without SEV-SNP. It protects nothing: who controls the host
controls the key. So its reports say what they are (chip id, image id, TCB zero, critical marker in every certificate)
and no verifier accepts them unless asked twice (see ``parma_snp.verify``).

As a command it is a short-lived helper of the host's daemon::

    python -m parma_snp.emulated report --directory D --host-data HEX --measurement HEX --report-id HEX  <64 bytes

writes the 1184 bytes of the report; ``key`` in place of ``report``, with --fields, the 32 bytes of a derived key.
Errors are one line on standard error and exit status 1.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import hmac
import os
import stat
import struct
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from parma_snp import oids
from parma_snp.errors import SnpError
from parma_snp.report import (
    COMPONENT_SIZE,
    HOST_DATA_SIZE,
    MEASUREMENT_SIZE,
    REPORT_DATA_SIZE,
    REPORT_SIZE,
    SIGNED_SIZE,
    parse,
)

DEFAULT_POLICY: Final = 0x30000
REPORT_ID_SIZE: Final = 32
FIELD_POLICY: Final = 1 << 0
FIELD_MEASUREMENT: Final = 1 << 3
"""GUEST_FIELD_SELECT of MSG_KEY_REQ: what is mixed into a derived key."""

_KEY_LABEL: Final = b"parma.emulated.derived-key.v1\0"
ROOT_FILE: Final = "root.pem"
_AUTHORITY_FILE: Final = "authority.pem"
_LOCK_FILE: Final = "lock"
_END_OF_KEY: Final = b"-----END PRIVATE KEY-----\n"
_MILAN_CPUID: Final = bytes((0x19, 0x01, 0x01))


def _exactly(name: str, value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise SnpError("usage", f"{name} has another length", expected=f"{size} bytes", found=f"{len(value)} bytes")
    return value


class EmulatedAuthority:
    """The signing key of one emulated processor and its certificates. Made by :func:`ensure_authority`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate_chain: str, root_file: Path) -> None:
        self._key: Final = key
        self.certificate_chain: Final = certificate_chain
        """PEM of VCEK, ASK, ARK, in this order."""
        self.root_file: Final = root_file
        """PEM of the ARK: what a verifier has to be given by name."""

    def sign_report(
        self,
        *,
        report_data: bytes,
        host_data: bytes,
        measurement: bytes,
        report_id: bytes,
        policy: int = DEFAULT_POLICY,
        vmpl: int = 0,
        version: int = 3,
    ) -> bytes:
        """A signed report of 1184 bytes.

        ``report_data`` (64 bytes) is the guest's; the rest is fixed at launch: ``host_data`` 32, ``measurement`` 48 and
        ``report_id`` 32 bytes. ``version`` is 3 or 5. Raises SnpError ``usage`` or of the ``format`` family.
        """
        body = _body(
            version=version,
            policy=policy,
            vmpl=vmpl,
            report_data=_exactly("report data", report_data, REPORT_DATA_SIZE),
            measurement=_exactly("measurement", measurement, MEASUREMENT_SIZE),
            host_data=_exactly("host data", host_data, HOST_DATA_SIZE),
            report_id=_exactly("report id", report_id, REPORT_ID_SIZE),
        )
        r, s = decode_dss_signature(self._key.sign(body, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(COMPONENT_SIZE, "little") + s.to_bytes(COMPONENT_SIZE, "little")
        return parse((body + signature).ljust(REPORT_SIZE, b"\0")).raw

    def derive_key(self, *, fields: int, measurement: bytes, policy: int = DEFAULT_POLICY) -> bytes:
        """A derived key of 32 bytes, as MSG_KEY_REQ gives with the VCEK as its root. The host knows it as well.

        ``fields`` selects which of the guest's values are mixed in: `FIELD_POLICY`, `FIELD_MEASUREMENT` or both.
        Raises SnpError ``usage`` for any other.
        """
        if fields & ~(FIELD_POLICY | FIELD_MEASUREMENT):
            raise SnpError("usage", "the emulated processor mixes only policy and measurement", found=f"{fields:#x}")
        mixed = struct.pack("<QQ", fields, policy if fields & FIELD_POLICY else 0)
        if fields & FIELD_MEASUREMENT:
            mixed += _exactly("measurement", measurement, MEASUREMENT_SIZE)
        secret = self._key.private_numbers().private_value.to_bytes(48, "big")
        return hmac.digest(secret, _KEY_LABEL + mixed, hashlib.sha256)


def _body(
    *,
    version: int,
    policy: int,
    vmpl: int,
    report_data: bytes,
    measurement: bytes,
    host_data: bytes,
    report_id: bytes,
) -> bytes:
    """The signed part of a report (specification table ATTESTATION_REPORT); every TCB_VERSION is zero."""
    if version not in (3, 5):
        raise SnpError("usage", "the emulated processor makes reports of version 3 and 5", found=str(version))
    if not 0 <= policy < 1 << 64 or not 0 <= vmpl <= 3:
        raise SnpError("usage", "guest policy or VMPL is out of range", found=f"{policy:#x}, {vmpl}")
    body = bytearray(SIGNED_SIZE)
    struct.pack_into("<IIQ", body, 0x00, version, 0, policy)
    body[0x10:0x30] = oids.EMULATED_ID * 2
    struct.pack_into("<II", body, 0x30, vmpl, 1)
    body[0x50:0x90] = report_data
    body[0x90:0xC0] = measurement
    body[0xC0:0xE0] = host_data
    body[0x140:0x160] = report_id
    body[0x160:0x180] = b"\xff" * 32  # no migration agent
    body[0x188:0x18B] = _MILAN_CPUID
    body[0x1A0:0x1E0] = oids.EMULATED_CHIP_ID
    return bytes(body)


def ensure_authority(directory: Path, *, now: datetime | None = None) -> EmulatedAuthority:
    """The emulated processor kept in ``directory``, made on first use (which takes seconds).

    Any number of processes may call this at once; all get the same one. The directory is created with mode 0700, must
    belong to the caller and be closed to everybody else. ``now`` (aware) dates new certificates.
    Raises SnpError of the ``emulated`` family.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(directory)
        if not (directory / _AUTHORITY_FILE).exists():
            _create(directory, now or datetime.now(UTC))
        return _load(directory)
    except OSError as error:
        raise SnpError("emulated.storage", f"cannot use the emulated processor's directory: {error}") from error


def _check_private(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SnpError(
            "emulated.storage",
            f"{directory} is not private",
            expected="a directory of the caller's with mode 0700",
            found=f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):#o}",
        )


def _create(directory: Path, now: datetime) -> None:
    # Only here: making certificates needs far more of `cryptography` than signing does.
    from parma_snp.emulated_pki import create

    lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / _AUTHORITY_FILE).exists():
            return
        pki = create(now)
        _write(directory / ROOT_FILE, pki.root)
        _write(directory / _AUTHORITY_FILE, pki.key + pki.chain)  # last: its presence says that all is there
    finally:
        os.close(lock)


def _write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none, also after a crash. The caller holds the lock."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _load(directory: Path) -> EmulatedAuthority:
    path = directory / _AUTHORITY_FILE
    key_pem, end, chain = path.read_bytes().partition(_END_OF_KEY)
    try:
        key = load_pem_private_key(key_pem + end, password=None)
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not chain.startswith(b"-----BEGIN CERTIFICATE-----"):
        raise _damaged(path, "not a P-384 key followed by certificates")
    return EmulatedAuthority(key, chain.decode("ascii", "replace"), directory / ROOT_FILE)


def _damaged(path: Path, why: str) -> SnpError:
    hint = f"remove {path.parent}; a new emulated processor is made on the next use"
    return SnpError("emulated.storage", f"{path} is damaged: {why}", hint=hint)


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like every other error: one line, exit status 1."""

    def error(self, message: str) -> NoReturn:
        raise SnpError("usage", message)


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _number(text: str) -> int:
    return int(text, 0)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="parma_snp.emulated", description="The emulated secure processor. Protects nothing.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    create = commands.add_parser("create", help="make the emulated processor if need be, print its root's file name")
    report = commands.add_parser("report", help="read 64 bytes REPORT_DATA, write a report of 1184 bytes")
    key = commands.add_parser("key", help="write a derived key of 32 bytes")
    for command in (create, report, key):
        command.add_argument("--directory", type=Path, required=True, help="its private directory")
    for command in (report, key):
        command.add_argument("--measurement", type=_hex, required=True, metavar="HEX", help="48 bytes")
        command.add_argument("--policy", type=_number, default=DEFAULT_POLICY, metavar="N", help="guest policy")
    report.add_argument("--host-data", type=_hex, required=True, metavar="HEX", help="32 bytes")
    report.add_argument("--report-id", type=_hex, required=True, metavar="HEX", help="32 bytes, random for each VM")
    report.add_argument("--vmpl", type=_number, default=0, metavar="N")
    key.add_argument("--fields", type=_number, required=True, metavar="N", help="1: the policy, 8: the measurement")
    return parser.parse_args(arguments)


def _answer(authority: EmulatedAuthority, options: argparse.Namespace) -> bytes:
    if options.command == "key":
        return authority.derive_key(fields=options.fields, measurement=options.measurement, policy=options.policy)
    return authority.sign_report(
        report_data=sys.stdin.buffer.read(REPORT_DATA_SIZE + 1),
        host_data=options.host_data,
        measurement=options.measurement,
        report_id=options.report_id,
        policy=options.policy,
        vmpl=options.vmpl,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    try:
        options = _arguments(sys.argv[1:] if arguments is None else arguments)
        authority = ensure_authority(options.directory)
        if options.command == "create":
            print(authority.root_file)
            return 0
        sys.stdout.buffer.write(_answer(authority, options))
        sys.stdout.buffer.flush()
    except (SnpError, OSError) as error:
        print(f"parma_snp.emulated: {error}".replace("\n", " "), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
