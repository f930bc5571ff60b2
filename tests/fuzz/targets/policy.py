# SPDX-License-Identifier: Apache-2.0
"""The strict reader of policies: any bytes are a policy or `Malformed`, with and without parity."""

from __future__ import annotations

from parma_policy.reader import PolicyTextError, load
from parma_wire.errors import Malformed
from tests.policy.builders import text

SEEDS = [
    text().encode(),
    text(
        fragments=[
            {"issuer": "did:x509:0:sha256:a::eku:1.2.3", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}
        ],
        allow_stdio_access=None,
        allow_environment_variable_dropping=True,
        transparency_trust_lists=[{"issuer": "i", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["*"]}],
        platform_rules=[{"env_rules": [{"pattern": "A=1|B=2", "strategy": "re2", "required": False}], "mounts": []}],
    ).encode(),
    b'package policy\nimport rego.v1\napi_svn = "0.1.0" # old\nreason := {"errors": data.framework.errors}\n',
]


def target(data: bytes) -> None:
    """Loads ``data``, and checks that an error says where."""
    for parity in (False, True):
        try:
            load(data, parity=parity)
        except PolicyTextError as error:
            _check_place(error, data.decode().split("\n"))
        except Malformed:
            pass


def _check_place(error: PolicyTextError, lines: list[str]) -> None:
    assert 1 <= error.line <= len(lines)
    assert 1 <= error.column <= len(lines[error.line - 1]) + 1
