# SPDX-License-Identifier: Apache-2.0
"""SHA-256 without ``hashlib``: that loads all of OpenSSL, 4 MiB and 5 ms the shim can do without."""

import sys

if sys.version_info >= (3, 12):
    from _sha2 import sha256
else:
    from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]


__all__ = ["hex_digest", "sha256"]


def hex_digest(data: bytes | str) -> str:
    """64 lower-case hexadecimal digits; text is hashed as UTF-8."""
    digest: str = sha256(data.encode() if isinstance(data, str) else data).hexdigest()
    return digest
