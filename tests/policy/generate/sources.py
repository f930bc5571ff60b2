# SPDX-License-Identifier: Apache-2.0
"""Policies from sources given as values, with an image that is just there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parma_policy.generate.hashing import LayerReader
from parma_policy.generate.library import Library, Places
from parma_policy.generate.run import Made, Settings, run
from parma_policy.images import Image
from parma_policy.model import Container, Policy
from parma_policy.reader import load
from tests.policy.builders import LAYERS
from tests.policy.generate.builders import GROUP, PASSWD

CONFIG = {"Entrypoint": ["/entry"], "Cmd": ["serve"], "Env": ["PATH=/bin"]}


class KnownImages(Library):
    """Every image exists, and has this configuration."""

    def __init__(self, **config: Any) -> None:
        super().__init__(Places(), LayerReader(None, processes=0))
        self.config = {**CONFIG, **config}

    def image(self, name: str) -> Image:
        return Image(self.config, LAYERS, PASSWD, GROUP, name)


def policies(settings: Settings, **config: Any) -> list[Made]:
    """What the generator makes."""
    return run(settings, KnownImages(**config))


def loaded(made: Made) -> Policy:
    return load(made.text.encode())


def containers(made: Made) -> tuple[Container, ...]:
    return loaded(made).containers.containers


def write_documents(path: Path, documents: Sequence[Mapping[str, Any]]) -> Path:
    """JSON documents, which are YAML as well."""
    path.write_text("\n---\n".join(json.dumps(document) for document in documents))
    return path


def accepts(container: Container, variable: str) -> bool:
    """Whether some rule of the container accepts the variable."""
    return container.env_rules.accepts(variable)
