# SPDX-License-Identifier: Apache-2.0
"""Execution policies from what people already have: images, Compose files, Kubernetes manifests, confcom's input.

A source is read into ``nodes``, understood field by field (``kubernetes``, ``compose``, ``confcom``), and becomes
what is wanted of each container (``assemble.Wanted``). Together with its image (``library``) and the platform's rule
set (``platforms``) that is a container of the policy (``policy``), and ``render`` writes the text. Only ``library``
and what it uses, and ``run``, touch anything outside.
"""

from __future__ import annotations

from parma_policy.generate.assemble import DEFAULT_PATH
from parma_policy.generate.policy import Container, Fragment, Mount, Switches
from parma_policy.generate.render import generate, policy_text
from parma_policy.generate.signals import signal_number
from parma_policy.generate.wish import Wish, container_for
from parma_policy.images import Image

__all__ = [
    "DEFAULT_PATH",
    "Container",
    "Fragment",
    "Image",
    "Mount",
    "Switches",
    "Wish",
    "container_for",
    "generate",
    "policy_text",
    "signal_number",
]
