# SPDX-License-Identifier: Apache-2.0
"""Names in certificates: AMD's extensions and the marker of emulated ones.

Source: AMD publication 57230, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification".
"""

from __future__ import annotations

from typing import Final

AMD_ARC: Final = "1.3.6.1.4.1.3704.1."
STRUCT_VERSION: Final = AMD_ARC + "1"
PRODUCT_NAME: Final = AMD_ARC + "2"
BL_SPL: Final = AMD_ARC + "3.1"
TEE_SPL: Final = AMD_ARC + "3.2"
SNP_SPL: Final = AMD_ARC + "3.3"
SPL_4: Final = AMD_ARC + "3.4"
SPL_5: Final = AMD_ARC + "3.5"
SPL_6: Final = AMD_ARC + "3.6"
SPL_7: Final = AMD_ARC + "3.7"
UCODE_SPL: Final = AMD_ARC + "3.8"
FMC_SPL: Final = AMD_ARC + "3.9"
HWID: Final = AMD_ARC + "4"
CSP_ID: Final = AMD_ARC + "5"

# Critical in every certificate of an emulated secure processor. The arc 2.25 takes any UUID; software that does not
# know this one must refuse the certificate (RFC 5280, section 4.2), and that is the point.
EMULATION_MARKER: Final = "2.25.96125842393553375767685231341882169487"
EMULATION_MARKER_VALUE: Final = b"\x0c\x10EMULATED-NOT-SNP"  # UTF8String

EMULATED_ORGANISATION: Final = "EMULATED - NOT AMD"
EMULATED_NAME_PREFIX: Final = "EMULATED "
EMULATED_ID: Final = b"EMULATED-NOT-SNP"  # FAMILY_ID and IMAGE_ID; four times over, CHIP_ID
EMULATED_CHIP_ID: Final = EMULATED_ID * 4
