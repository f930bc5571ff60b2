# SPDX-License-Identifier: Apache-2.0
"""Layers: OCI image layers as dm-verity devices, for the policy generator and for hosts."""
