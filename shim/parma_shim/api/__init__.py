# SPDX-License-Identifier: Apache-2.0
"""containerd's interfaces: the messages and services that the shim serves or calls.

The ``.proto`` files here are ours; package, message and field names and the field numbers are containerd's (module
containerd/api 1.12, compatible with every containerd since 1.7), limited to what the shim needs.
``tools/genproto.py`` makes the ``*_pb2`` modules. Each file is small because each imported one costs the idle daemon
memory.
"""
