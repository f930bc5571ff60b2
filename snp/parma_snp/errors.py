# SPDX-License-Identifier: Apache-2.0
"""The one error of this package.

``code`` is stable and meant for programs: a family, a dot, a word (``cert.validity``, ``bind.tcb``). The families:

* ``format``    the report is not a well-formed attestation report
* ``cert``      the certificates do not lead from a pinned root to the key
* ``sig``       the report's signature is absent or wrong
* ``bind``      report and certificate are both genuine but do not belong together
* ``appraise``  the report is genuine but not what the relying party asked for
* ``emulated``  emulated evidence where real is wanted, or the reverse; or a broken emulated processor
* ``certtable``, ``hostcert``, ``idblock``, ``evidence``, ``status``   those documents are malformed
* ``measure``, ``launch``, ``host``   computing a measurement, building a command line, probing a host
* ``usage``     the caller asked for something that makes no sense
"""

from __future__ import annotations

from typing import Final

# Not when the first error comes: a confined process of the guest cannot import any more.
from parma_snp.codes import CODES


class SnpError(Exception):
    """Something about SEV-SNP evidence or a launch is wrong. ``str()`` is one line fit for a user.

    What a verification says of evidence always comes with ``expected`` and ``hint``: those of the code
    (``parma_snp.codes``) where whoever raises it has nothing more precise.
    """

    def __init__(self, code: str, message: str, *, expected: str = "", found: str = "", hint: str = "") -> None:
        super().__init__(message)
        meaning = CODES.get(code)
        self.code: Final = code
        self.message: Final = message
        self.expected: Final = expected or (meaning.wants if meaning else "")
        self.found: Final = found
        self.hint: Final = hint or (meaning.do if meaning else "")

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.found:
            text += f", found {self.found}" if self.expected else f"; found {self.found}"
        if self.hint:
            text += f" (hint: {self.hint})"
        return text

    def to_json(self) -> dict[str, str]:
        """The error as a JSON object of five strings. ``found`` is the message where there is no value to show."""
        return {
            "code": self.code,
            "message": self.message,
            "expected": self.expected,
            "found": self.found or self.message,
            "hint": self.hint,
        }
