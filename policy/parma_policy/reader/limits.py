# SPDX-License-Identifier: Apache-2.0
"""Limits of a policy text. A policy is trusted by whoever checks its hash, but is read before anybody checked."""

from __future__ import annotations

from typing import Final

from parma_wire.limits import MAX_POLICY_BYTES as MAX_POLICY_BYTES

MAX_DEPTH: Final = 32
"""Nesting of arrays and objects. Containers need five."""

MAX_STATEMENTS: Final = 256
"""Rules and data objects at the top level."""

MAX_CONTAINERS: Final = 1000
"""In one policy or fragment."""

MAX_LIST: Final = 10_000
"""Elements of any one array or members of any one object."""

MAX_EXPRESSIONS: Final = 4096
"""Different RE2 expressions in one policy or fragment."""

MAX_EXPRESSION_LENGTH: Final = 8192
"""Characters of one RE2 expression."""

MAX_INTEGER: Final = 2**53
"""Largest absolute value of a number: beyond it, readers of JSON start to disagree."""

MAX_PLACED: Final = 100_000
"""Values that parameters may put into one fragment."""
