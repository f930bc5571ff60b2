# SPDX-License-Identifier: Apache-2.0
"""AMD SEV-SNP: parse, verify and appraise attestation reports, predict launch measurements, launch, emulate.

Nothing is imported here: a guest that only parses reports must not pay for cryptography.
"""
