# SPDX-License-Identifier: Apache-2.0
"""Signed documents that extend a policy: fragments, and the trust lists that their transparency receipts need.

From an envelope's bytes to the typed request that the framework decides on. Nothing of a payload is read before its
envelope has been verified; whether its issuer is wanted is the policy's decision, made on the request.
"""
