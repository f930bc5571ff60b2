# SPDX-License-Identifier: Apache-2.0
"""The untrusted host side: the shim binary, the task service, stdio, and the virtual machine below them."""

__version__ = "0.1.0"
