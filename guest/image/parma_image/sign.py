# SPDX-License-Identifier: Apache-2.0
"""Endorsements of an image: a signature over each of its measurements, so that relying parties pin issuer and version.

They lie beside the image, ``endorsements/<measurement>.cose``, where the host finds the one for a VM's shape. Images
started for the emulated processor are endorsed as another series; started without a processor, not at all.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from parma_image.manifest import Manifest, load
from parma_snp import endorsement
from parma_snp.endorsement import Signer
from parma_snp.errors import SnpError
from parma_snp.expected import Endorser
from parma_wire.errors import Malformed, ParmaError, Unverified

FOLDER: Final = "endorsements"
_SUFFIX: Final = ".cose"


class Signed(NamedTuple):
    """What was signed: the issuer to pin, and how many measurements of each series."""

    issuer: str
    feeds: dict[str, int]


def sign_image(directory: Path, signer: Signer, *, predicate: str, svn: int, feed: str, signed_at: datetime) -> Signed:
    """Endorse every measurement of the image in ``directory``; earlier endorsements go.

    ``predicate`` is what the did:x509 says of the signer's certificate, ``svn`` the image's version, higher for each
    release that closes a hole. Raises NotFound, Malformed (a manifest without measurements), ParmaError.
    """
    manifest = load(directory)
    wanted = _feeds(manifest, feed)
    if not wanted:
        raise Malformed(f"the manifest in {directory} lists no measurements to sign")
    try:
        issuer = endorsement.issuer_of(signer, predicate)
        made = {
            measurement: endorsement.sign(
                measurement, svn=svn, feed=series, issuer=issuer, signer=signer, signed_at=signed_at
            )
            for measurement, series in wanted.items()
        }
    except SnpError as error:
        raise _ours(error) from None
    _replace(directory / FOLDER, made)
    feeds = list(wanted.values())
    return Signed(issuer, {series: feeds.count(series) for series in sorted(set(feeds))})


def verify_endorsements(directory: Path, *, issuer: str, min_svn: int, feed: str, now: datetime) -> int:
    """How many measurements of the image this issuer has endorsed: all of them.

    Raises Unverified, with the first that is missing or wrong, NotFound, Malformed.
    """
    wanted = _feeds(load(directory), feed)
    for measurement, series in wanted.items():
        path = directory / FOLDER / f"{measurement.hex()}{_SUFFIX}"
        try:
            data = path.read_bytes() if path.exists() else b""
            endorsement.verify(data, Endorser(issuer, series, min_svn), measurement, now=now)
        except SnpError as error:
            raise Unverified(f"{path.name}: {error}") from None
    return len(wanted)


def _feeds(manifest: Manifest, feed: str) -> dict[bytes, str]:
    """The series of each measurement that gets endorsed.

    A variant with a larger trusted base is a series of its own: who pins the default one has not agreed to it.
    """
    if manifest.variant != "default":
        feed = f"{feed}-{manifest.variant}"
    series = {"snp": feed, "emulated": feed + endorsement.EMULATED_SUFFIX}
    return {bytes.fromhex(row.measurement): series[row.tee] for row in manifest.measurements if row.tee in series}


def _replace(folder: Path, made: dict[bytes, bytes]) -> None:
    """Exactly these endorsements; a reader finds an old or a new one, never a part."""
    folder.mkdir(exist_ok=True)
    names = {f"{measurement.hex()}{_SUFFIX}": data for measurement, data in made.items()}
    for name, data in names.items():
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(folder / name)
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.name not in names:
            path.unlink()


def _ours(error: SnpError) -> ParmaError:
    return Malformed(error.message, expected=error.expected, hint=error.hint)
