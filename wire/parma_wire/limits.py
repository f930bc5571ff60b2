# SPDX-License-Identifier: Apache-2.0
"""Numbers that both ends of the vsock connection must agree on.

The sizes come from measurements of ``vhost-device-vsock`` 0.3.0: it stalls for good once 262,144 bytes went one
way with nothing coming back, and it loses packets of 64 KiB. Everything that can be large therefore travels in
small pieces, each answered or acknowledged.
"""

from __future__ import annotations

from typing import Final

GUEST_PORT: Final = 4050
"""vsock port on which the enforcer serves ``parma.guest.v1`` (control and stream connections alike)."""

EMULATED_SECURE_PROCESSOR_PORT: Final = 4051
"""vsock port on which the guest waits for the host's *emulated* secure processor (``tee = emulated`` only)."""

READY_LINE: Final = "parma: ready"
"""What the enforcer prints on the console once it listens; the host waits for it before it dials, as a connection
that is asked for and then given up costs ``vhost-device-vsock`` 0.3.0 its guest for good."""

HOST_CID: Final = 2
"""The only vsock peer the enforcer talks to (VMADDR_CID_HOST)."""

MAX_SEND: Final = 16 * 1024
"""Largest piece handed to one ``send`` on a vsock socket, in bytes."""

MAX_STREAM_DATA: Final = 16_000
"""Largest ``StreamFrame.data``, in bytes: with the ttrpc header it still fits one ``MAX_SEND`` piece."""

STREAM_WINDOW: Final = 32 * 1024
"""Bytes a stream's sender may have outstanding; the receiver returns credit with ``StreamFrame.window_update``."""

MAX_FORWARDED: Final = 64
"""Connections to containers' ports at one time."""

MAX_POLICY_BYTES: Final = 2 * 1024 * 1024
"""Largest execution policy, in bytes."""

POLICY_CHUNK: Final = 16_000
"""Bytes of policy carried by one ``PutPolicy`` request."""

MAX_DOCUMENT_BYTES: Final = 2 * 1024 * 1024
"""Largest signed document (a fragment or a transparency trust list in its envelope), in bytes."""

DOCUMENT_CHUNK: Final = 16_000
"""Bytes of a signed document carried by one ``PutDocument`` request."""

MAX_DOCUMENTS: Final = 64
"""Signed documents that a VM takes in its life."""

MAX_FILES: Final = 256
"""Files that the host provides for one source of mounts; the sizes are in bytes, and a Kubernetes object has 1 MiB."""

MAX_FILE_BYTES: Final = 1 << 20
MAX_FILES_BYTES: Final = 4 << 20
