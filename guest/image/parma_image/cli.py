# SPDX-License-Identifier: Apache-2.0
"""``parma image``: build the guest image, renew its lock file, check an image against its manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parma_wire.errors import ParmaError

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[Any]  # noqa: SLF001

WORKDIR: Final = Path("/var/cache/parma/image")


def add_image_commands(subparsers: _Subparsers) -> None:
    """Adds ``image build|lock|verify``; the chosen one is left in ``arguments.run``, a function of the arguments."""
    image = subparsers.add_parser("image", help="build and check the guest image")
    commands = image.add_subparsers(dest="image_command", required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build kernel, initrd, firmware and manifest into a folder")
    build.add_argument("directory", type=Path, metavar="DIR")
    build.add_argument(
        "--relock", action="store_true", help="use other versions if the archive no longer has the locked ones"
    )
    build.set_defaults(run=_build)

    lock = commands.add_parser("lock", help="lock the versions that the Debian archive has now")
    lock.set_defaults(run=_lock)

    verify = commands.add_parser("verify", help="check an image against its manifest, measurements included")
    verify.add_argument("directory", type=Path, metavar="DIR")
    verify.set_defaults(run=_verify)

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
    return 1 if found else 0
