# SPDX-License-Identifier: Apache-2.0
"""A process 1 for tests: loads the modules, listens on vsock, reports on the serial port, and powers off."""
