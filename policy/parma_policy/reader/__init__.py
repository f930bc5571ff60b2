# SPDX-License-Identifier: Apache-2.0
"""The strict reader: from the bytes of an execution policy to typed, immutable values.

The policy language is Rego, but there is no Rego engine here: the reader accepts exactly what policy generators
write (data, and rules that hand an enforcement point to the framework) and refuses everything else with line and
column. See ``syntax`` for the grammar.
"""

from __future__ import annotations

from parma_policy.reader.errors import PolicyTextError
from parma_policy.reader.policy import has_own_rules, load

__all__ = ["PolicyTextError", "has_own_rules", "load"]
