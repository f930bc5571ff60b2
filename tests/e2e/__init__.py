# SPDX-License-Identifier: Apache-2.0
"""End to end: real containerd, real QEMU guest, real kernel, real crun, real dm-verity."""
