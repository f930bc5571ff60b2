# SPDX-License-Identifier: Apache-2.0
"""``parma image``: build the guest image, renew its lock file, check, measure out and endorse an image."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parma_wire.errors import Malformed, ParmaError

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[Any]  # noqa: SLF001

WORKDIR: Final = Path("/var/cache/parma/image")


def add_image_commands(subparsers: _Subparsers) -> None:
    """Adds ``image build|lock|verify|size|sign``; the chosen one is ``arguments.run``, a function of the arguments."""
    image = subparsers.add_parser("image", help="build and check the guest image")
    commands = image.add_subparsers(dest="image_command", required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build kernel, initrd, firmware and manifest into a folder")
    build.add_argument("directory", type=Path, metavar="DIR")
    build.add_argument(
        "--relock", action="store_true", help="use other versions if the archive no longer has the locked ones"
    )
    build.add_argument(
        "--without-acpi",
        action="store_true",
        help="close the guest's kernel to the host's ACPI tables and the code in them; its VMs have one vCPU",
    )
    build.set_defaults(run=_build)

    lock = commands.add_parser("lock", help="lock the versions that the Debian archive has now")
    lock.set_defaults(run=_lock)

    verify = commands.add_parser("verify", help="check an image against its manifest, measurements included")
    verify.add_argument("directory", type=Path, metavar="DIR")
    verify.add_argument("--endorser", metavar="DID", help="and that this issuer has endorsed each measurement")
    verify.add_argument("--min-svn", type=int, metavar="N", help="with --endorser: the lowest acceptable version")
    _add_feed(verify)
    verify.set_defaults(run=_verify)

    size = commands.add_parser("size", help="how large the trusted base is: files, bytes, lines of our own source")
    size.add_argument("directory", type=Path, metavar="DIR")
    size.set_defaults(run=_size)

    sign = commands.add_parser(
        "sign",
        help="endorse an image's measurements",
        description="Sign each measurement of an image, offline, so that relying parties can pin the issuer and a "
        "lowest version ('parma verify --endorser DID --min-svn N') instead of a digest. Prints the issuer's DID.",
    )
    sign.add_argument("directory", type=Path, metavar="DIR")
    sign.add_argument("--key", type=Path, required=True, metavar="PEM", help="private key (P-384 or RSA)")
    sign.add_argument(
        "--chain", type=Path, required=True, metavar="PEM", help="its certificate, then those of its issuers"
    )
    sign.add_argument("--svn", type=int, required=True, metavar="N", help="version; raise it when a hole is closed")
    sign.add_argument(
        "--predicate",
        default="subject:CN",
        metavar="TEXT",
        help="what the DID says of the signer: subject:CN, eku:OID, ... (default: %(default)s)",
    )
    _add_feed(sign)
    sign.set_defaults(run=_sign)

    for command in (build, lock):
        command.add_argument(
            "--variant",
            choices=("default", "rego"),
            default="default",
            help="'rego': with an engine for policies with rules of their own",
        )
        command.add_argument(
            "--workdir", type=Path, default=WORKDIR, metavar="DIR", help="keep downloads here (default: %(default)s)"
        )


def _add_feed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feed", default="parma-uvm", metavar="NAME", help="series of images (default: %(default)s)")


def main(arguments: list[str] | None = None) -> int:
    """``python -m parma_image``; the exit code."""
    parser = argparse.ArgumentParser(prog="parma")
    add_image_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    parsed = parser.parse_args(arguments)
    try:
        result: int = parsed.run(parsed)
    except ParmaError as error:
        print(f"parma: {error}", file=sys.stderr)
        return 1
    return result


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _build(arguments: argparse.Namespace) -> int:
    from parma_image.build import build_image

    build_image(
        arguments.directory,
        workdir=arguments.workdir,
        log=_progress,
        relock_if_gone=arguments.relock,
        variant=arguments.variant,
        acpi=not arguments.without_acpi,
    )
    return 0


def _lock(arguments: argparse.Namespace) -> int:
    from parma_image import lock, rego
    from parma_image.debian import DebianArchive

    archive = DebianArchive(arguments.workdir, log=_progress)
    path = lock.LOCK_FILE
    if arguments.variant == "rego":
        made, path = rego.make_lock(archive), rego.LOCK_FILE
    else:
        made = lock.make(archive, arguments.workdir)
    path.write_text(lock.dump(made), encoding="utf-8")
    _progress(f"{len(made.packages)} packages and {len(made.wheels)} wheels locked in {path}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from parma_image.verify import verify_image

    found = verify_image(arguments.directory)
    for problem in found:
        print(problem)
    print(f"{arguments.directory}: {'differs from its manifest' if found else 'matches its manifest'}")
    if found:
        return 1
    return _verify_endorsements(arguments)


def _size(arguments: argparse.Namespace) -> int:
    from parma_image.manifest import load
    from parma_image.size import as_table

    print(as_table(load(arguments.directory)))
    return 0


def _verify_endorsements(arguments: argparse.Namespace) -> int:
    if arguments.endorser is None and arguments.min_svn is None:
        return 0
    if arguments.endorser is None or arguments.min_svn is None:
        raise Malformed("--endorser and --min-svn go together")
    from parma_image.sign import verify_endorsements

    count = verify_endorsements(
        arguments.directory,
        issuer=arguments.endorser,
        min_svn=arguments.min_svn,
        feed=arguments.feed,
        now=datetime.now(UTC),
    )
    print(f"{arguments.directory}: {count} measurements are endorsed by {arguments.endorser}")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from parma_image.sign import sign_image
    from parma_snp.endorsement import load_signer
    from parma_snp.errors import SnpError

    try:
        signer = load_signer(arguments.key.read_bytes(), arguments.chain.read_bytes())
    except SnpError as error:
        raise Malformed(error.message, expected=error.expected, hint=error.hint) from None
    signed = sign_image(
        arguments.directory,
        signer,
        predicate=arguments.predicate,
        svn=arguments.svn,
        feed=arguments.feed,
        signed_at=datetime.now(UTC),
    )
    for feed, count in signed.feeds.items():
        _progress(f"{count} measurements endorsed, feed {feed}, SVN {arguments.svn}")
    print(signed.issuer)
    return 0
