# SPDX-License-Identifier: Apache-2.0
"""The helpers' own end of the pipe: read a document, run a function, write what it returns or what went wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from parma_wire.errors import ParmaError, Unavailable

Document = dict[str, Any]


def run(function: Callable[[Document], Document]) -> int:
    """Serve one request on stdin and stdout; the exit status is 0 also when the answer is an error document."""
    # What libraries print must not end up inside the answer.
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = function(json.load(sys.stdin))
    except ParmaError as error:
        answer = failure(error)
    except OSError as error:
        answer = failure(Unavailable(f"{error.filename or ''} {error.strerror or error}".strip()))
    with os.fdopen(output, "w") as stream:
        json.dump(answer, stream)
    return 0


def failure(error: ParmaError) -> Document:
    """The error document for an error."""
    return {"error": {"code": error.code, "message": str(error)}}
