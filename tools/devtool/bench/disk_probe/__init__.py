# SPDX-License-Identifier: Apache-2.0
"""A process 1 for the measurement of disks: reads a verified layer and writes encrypted scratch, beside plain disks."""
