# SPDX-License-Identifier: Apache-2.0
"""Environment variables that tell a loader or an interpreter what code to run.

An expression such as ``[A-Z_]+=.+`` was hardly meant for them, so a rule must spell their names to accept them.
"""

from __future__ import annotations

import re
from typing import Final

_LOADS_CODE: Final = re.compile(
    r"LD_\w+=|PYTHON[A-Z0-9]*=|BASH_ENV=|BASH_FUNC_|GCONV_PATH=|GLIBC_TUNABLES=|PERL5\w*=|RUBY(LIB|OPT)=|NODE_OPTIONS="
    r"|_JAVA_OPTIONS=|JAVA_TOOL_OPTIONS=|JDK_JAVA_OPTIONS=|DOTNET_STARTUP_HOOKS=|LUA_INIT|PHP_INI_SCAN_DIR=|PHPRC="
)
"""ld.so(8), bash(1), and the manuals of each. Python's have no underscore after the first word, unlike those that
Kubernetes makes of a service named python-something."""


def loads_code(variable: str) -> bool:
    """Whether ``variable``, a ``NAME=value`` text, is one of them."""
    return _LOADS_CODE.match(variable) is not None
