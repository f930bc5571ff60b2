# SPDX-License-Identifier: Apache-2.0
"""The commands ``parma measure`` and ``parma id-block``.

Exit status: 0 as it should be, 1 it is not (a manifest that publishes another measurement, an ID block that is not
good), 2 the command could not be carried out as given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parma_snp.errors import SnpError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

    from parma_snp.idblock import Checked, Identity
    from parma_snp.image_files import ImageFiles
    from parma_snp.measure import Measurement

GOOD: Final = 0
BAD: Final = 1
UNUSABLE: Final = 2

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it
Run = Callable[[argparse.Namespace], int]


def add_measure_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``measure`` and ``id-block``. Each sets ``run``, a function from the parsed arguments to the exit status."""
    measure = subparsers.add_parser(
        "measure",
        help="predict the launch measurement of a VM",
        description="Predict the launch measurement (MEASUREMENT of a report) of a VM from what it boots and its "
        "shape: of a guest image, or of files and a command line.",
    )
    _add_boot(measure)
    _add_shape(measure)
    measure.add_argument("--json", action="store_true")
    measure.set_defaults(run=_command("measure", run_measure))
    _add_id_block(subparsers)


def _add_boot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", type=Path, metavar="DIR", help="guest image, with its manifest")
    parser.add_argument("--tee", default="snp", help="which of the image's command lines (default: %(default)s)")
    for name in ("firmware", "kernel", "initrd"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help="without --image")
    parser.add_argument("--cmdline", metavar="TEXT", help="kernel command line, exactly as launched; without --image")


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vcpus", type=int, metavar="N", help="number of vCPUs (default: 1)")
    parser.add_argument("--vcpu-type", metavar="MODEL", help="QEMU's CPU model (default: EPYC-v4)")
    parser.add_argument("--table", action="store_true", help="every supported number of vCPUs")
    parser.add_argument(
        "--sev-features",
        type=lambda text: int(text, 0),
        default=1,
        metavar="N",
        help="SEV_FEATURES of the vCPUs: 0x1 (default) with Linux 6.11 and later, 0x21 with AMD's older kernels",
    )


def _add_id_block(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "id-block",
        help="sign what may be launched, for the firmware to check",
        description="ID blocks: the secure processor finishes a launch only if it measures what a signed ID block "
        "says, and reports whose key that was.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="sign one ID block for each VM shape")
    _add_boot(make)
    _add_shape(make)
    make.add_argument("--measurement", metavar="HEX", action="append", help="instead of an image or files")
    make.add_argument("--id-key", type=Path, required=True, metavar="PEM", help="P-384 private key")
    make.add_argument("--author-key", type=Path, metavar="PEM", help="P-384 private key that certifies the ID key")
    make.add_argument("--family-id", default="00" * 16, metavar="HEX", help="16 bytes")
    make.add_argument("--image-id", default="00" * 16, metavar="HEX", help="16 bytes")
    make.add_argument("--guest-svn", type=int, default=0, metavar="N", help="security version of the guest")
    make.add_argument("--policy", type=lambda text: int(text, 0), default=0x30000, metavar="N", help="guest policy")
    make.add_argument("--out", type=Path, required=True, metavar="FILE", help="for `id_block` in config.toml")
    make.add_argument("--raw", type=Path, metavar="DIR", help="also id_block.bin and id_auth.bin, of one shape")
    make.set_defaults(run=_command("id-block make", run_make))
    check = actions.add_parser("check", help="check ID blocks as the firmware does")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--id-key", type=Path, metavar="PEM", help="the key (public or private) it must be signed with")
    check.add_argument("--author-key", type=Path, metavar="PEM", help="the key that must have certified the ID key")
    check.add_argument("--image", type=Path, metavar="DIR", help="guest image that must be covered, in every shape")
    check.add_argument("--tee", default="snp", help=argparse.SUPPRESS)
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_command("id-block check", run_check))


def _command(name: str, run: Run) -> Run:
    """``run`` with its errors as one line and exit status 2."""

    def guarded(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except (SnpError, OSError) as error:
            print(f"parma {name}: {error}", file=sys.stderr)
            return UNUSABLE

    return guarded


def _files(options: argparse.Namespace) -> ImageFiles:
    from parma_snp import image_files

    parts = (options.firmware, options.kernel, options.initrd, options.cmdline)
    if options.image is not None:
        if any(part is not None for part in parts):
            raise SnpError("usage", "--image has its own firmware, kernel, initrd and command line")
        return image_files.load(options.image, options.tee)
    if any(part is None for part in parts):
        raise SnpError("usage", "give --image, or --firmware, --kernel, --initrd and --cmdline")
    return image_files.ImageFiles(*parts, published={})


def _table(options: argparse.Namespace, files: ImageFiles) -> list[Measurement]:
    from parma_snp.measure import DEFAULT_VCPU_TYPE, measurement_table

    if options.table and options.vcpus is not None:
        raise SnpError("usage", "--table is for every number of vCPUs, --vcpus for one")
    return measurement_table(
        files.firmware,
        files.kernel,
        files.initrd,
        files.cmdline,
        vcpu_types=(options.vcpu_type or DEFAULT_VCPU_TYPE,),
        vcpu_counts=None if options.table else (options.vcpus or 1,),
        guest_features=options.sev_features,
    )


def run_measure(options: argparse.Namespace) -> int:
    """``parma measure``."""
    files = _files(options)
    table = _table(options, files)
    if options.json:
        rows = [{"vcpu_type": row.vcpu_type, "vcpus": row.vcpus, "measurement": row.digest.hex()} for row in table]
        print(json.dumps(rows, indent=1))
    elif options.table:
        for row in table:
            print(f"{row.vcpu_type:<12} {row.vcpus:>3}  {row.digest.hex()}")
    else:
        print(table[0].digest.hex())
    different = [row for row in table if _published(files, row) not in (None, row.digest.hex())]
    for row in different:
        print(
            f"parma measure: the manifest publishes another measurement for {row.vcpu_type}, {row.vcpus} vCPUs: "
            f"{_published(files, row)}",
            file=sys.stderr,
        )
    return BAD if different and options.sev_features == 1 else GOOD


def _published(files: ImageFiles, row: Measurement) -> str | None:
    return files.published.get((row.vcpu_type, row.vcpus))


def run_make(options: argparse.Namespace) -> int:
    """``parma id-block make``."""
    from parma_snp import idblock, idblock_file
    from parma_snp.launch import check_policy

    check_policy(options.policy)
    measurements = [_hex("--measurement", text, 48) for text in options.measurement or []]
    if not measurements:
        measurements = [row.digest for row in _table(options, _files(options))]
    if options.raw is not None and len(measurements) != 1:
        raise SnpError("usage", "--raw is for one measurement")
    id_key = _private_key(options.id_key)
    author_key = _private_key(options.author_key) if options.author_key else None
    blocks = [idblock.make(_identity(options, digest), id_key, author_key) for digest in measurements]
    options.out.write_text(idblock_file.dumps(blocks))
    if options.raw is not None:
        (options.raw / "id_block.bin").write_bytes(blocks[0].block)
        (options.raw / "id_auth.bin").write_bytes(blocks[0].auth)
    print(f"{len(blocks)} ID blocks in {options.out}")
    print(f"ID key digest      {idblock.key_digest(id_key.public_key()).hex()}")
    if author_key is not None:
        print(f"author key digest  {idblock.key_digest(author_key.public_key()).hex()}")
    return GOOD


def _identity(options: argparse.Namespace, measurement: bytes) -> Identity:
    from parma_snp.idblock import Identity

    family_id, image_id = _hex("--family-id", options.family_id, 16), _hex("--image-id", options.image_id, 16)
    return Identity(measurement, family_id, image_id, options.guest_svn, options.policy)


def run_check(options: argparse.Namespace) -> int:
    """``parma id-block check``."""
    from parma_snp import idblock, idblock_file, image_files
    from parma_snp.measure import measurement_table

    data = options.file.read_bytes()
    problems = []
    checked = []
    try:
        checked = [idblock.check(signed) for signed in idblock_file.loads(data).values()]
    except SnpError as error:
        problems.append(str(error))
    for name, path, found in (
        ("ID", options.id_key, {entry.id_key_digest for entry in checked}),
        ("author", options.author_key, {entry.author_key_digest for entry in checked}),
    ):
        if path is not None and found != {idblock.key_digest(_public_key(path))}:
            problems.append(f"not every block is by this {name} key")
    if options.image is not None and not problems:
        files = image_files.load(options.image, options.tee)
        covered = {entry.identity.measurement for entry in checked}
        for row in measurement_table(files.firmware, files.kernel, files.initrd, files.cmdline):
            if row.digest not in covered:
                problems.append(f"no block for {row.vcpu_type}, {row.vcpus} vCPUs: {row.digest.hex()}")
    contents = [_row(entry) for entry in checked]
    if options.json:
        print(json.dumps({"good": not problems, "problems": problems, "id_blocks": contents}, indent=1))
    else:
        for content in contents:
            print("\n".join(f"{key:<18} {value}" for key, value in content.items()) + "\n")
        print("\n".join(["BAD", *(f"  {problem}" for problem in problems)]) if problems else "good")
    return BAD if problems else GOOD


def _row(entry: Checked) -> dict[str, object]:
    identity = entry.identity
    return {
        "measurement": identity.measurement.hex(),
        "family_id": identity.family_id.hex(),
        "image_id": identity.image_id.hex(),
        "guest_svn": identity.guest_svn,
        "policy": f"{identity.policy:#x}",
        "id_key_digest": entry.id_key_digest.hex(),
        "author_key_digest": entry.author_key_digest.hex(),
    }


def _hex(name: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise SnpError("usage", f"{name} has another size", expected=f"{size} bytes in hex", found=text[:100])
    return value


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from parma_snp.idblock import require_p384

    try:
        return require_p384(load_pem_private_key(path.read_bytes(), None))
    except (ValueError, TypeError) as error:
        raise SnpError("idblock.key", f"{path} is not an unencrypted private key in PEM: {error}") from None


def _public_key(path: Path) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = path.read_bytes()
    if b"PRIVATE KEY" in data:
        return _private_key(path).public_key()
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise SnpError("idblock.key", f"{path} is not a key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SnpError("idblock.key", f"{path} is not a P-384 key", hint="openssl ecparam -genkey -name secp384r1")
    return key
