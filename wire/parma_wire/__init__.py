# SPDX-License-Identifier: Apache-2.0
"""What shim and guest share, and nothing more: the messages, the limits of the transport, and the errors."""
