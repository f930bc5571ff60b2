# SPDX-License-Identifier: Apache-2.0
"""The virtual machine: QEMU, its disks, its vsock device, and their end."""
