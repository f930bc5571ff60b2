# SPDX-License-Identifier: Apache-2.0
"""Short-lived processes for work whose libraries are too large for a daemon that lives as long as a container.

Each is run as ``python -m parma_shim.helpers.<name>``, reads one JSON document from stdin and writes one to stdout.
A failure is the document ``{"error": {"code": <google.rpc.Code>, "message": ...}}``.
"""
