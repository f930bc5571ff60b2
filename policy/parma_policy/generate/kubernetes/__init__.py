# SPDX-License-Identifier: Apache-2.0
"""Kubernetes manifests: pods, and what makes pods.

What kubelet does before the container runtime is asked (variables resolved and expanded, security contexts merged,
volumes turned into mounts) is done here in its order, as of Kubernetes 1.27 to 1.34.
"""

from __future__ import annotations
