# SPDX-License-Identifier: Apache-2.0
"""Signed documents: COSE_Sign1 envelopes, X.509 chains, did:x509 issuers, transparency receipts.

Imports nothing of ours. Start at :mod:`parma_cose.envelope` to verify and at :mod:`parma_cose.signing` to sign.
"""
