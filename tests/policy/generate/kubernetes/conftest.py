# SPDX-License-Identifier: Apache-2.0
"""Policies for documents of a manifest, or what the user is told instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate.problems import SourceError
from parma_policy.generate.run import Settings
from parma_policy.model import Container
from tests.policy.generate.kubernetes.manifests import Json
from tests.policy.generate.sources import containers, policies, write_documents


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """The containers of the only policy for some documents."""

    def make(*documents: Json, config: Json | None = None, **settings: Any) -> tuple[Container, ...]:
        path = write_documents(tmp_path / "manifest.yaml", documents)
        (policy,) = policies(Settings(kubernetes=[path], **settings), **(config or {}))
        return containers(policy)

    return make


@pytest.fixture
def refused(made: Any) -> Any:
    """The problems of documents, as the user sees them."""

    def refuse(*documents: Json, **settings: Any) -> str:
        with pytest.raises(SourceError) as caught:
            made(*documents, **settings)
        return str(caught.value)

    return refuse
