# SPDX-License-Identifier: Apache-2.0
"""Compose files, understood as ``nerdctl compose`` runs them.

Each service's containers have a VM of their own, so each service has a policy of its own.
"""

from __future__ import annotations
