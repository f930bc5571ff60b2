# SPDX-License-Identifier: Apache-2.0
"""ConfigMaps, Secrets and ServiceAccounts that were given with the manifests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from parma_policy.generate.nodes import Fields

_IGNORED = ("apiVersion", "kind", "metadata", "immutable")


@dataclass(frozen=True, slots=True)
class Data:
    """The keys of a ConfigMap or Secret that are text. ``binary`` are keys whose values are not."""

    text: Mapping[str, str]
    binary: frozenset[str] = frozenset()


@dataclass(slots=True)
class Objects:
    """By namespace (empty: not said) and name."""

    config_maps: dict[tuple[str, str], Data] = field(default_factory=dict)
    secrets: dict[tuple[str, str], Data] = field(default_factory=dict)
    without_token: set[tuple[str, str]] = field(default_factory=set)
    """ServiceAccounts that say ``automountServiceAccountToken: false``."""

    def config_map(self, namespace: str, name: str) -> Data | None:
        """A ConfigMap of the namespace, or None."""
        return _find(self.config_maps, namespace, name)

    def secret(self, namespace: str, name: str) -> Data | None:
        """A Secret of the namespace, or None."""
        return _find(self.secrets, namespace, name)

    def mounts_token(self, namespace: str, account: str) -> bool:
        """Whether the ServiceAccount's token is put into pods that do not say."""
        return not {(namespace, account), ("", account)} & self.without_token


def _find(found: Mapping[tuple[str, str], Data], namespace: str, name: str) -> Data | None:
    return found.get((namespace, name)) or found.get(("", name))


def read_config_map(fields: Fields) -> Data:
    """``data`` and ``binaryData``."""
    with fields:
        fields.ignore(*_IGNORED)
        text = {key: node.text() for key, node in fields.members("data").items()}
        return Data(text, frozenset(fields.members("binaryData")))


def read_secret(fields: Fields) -> Data:
    """``data`` (base64) and ``stringData``, which wins."""
    with fields:
        fields.ignore(*_IGNORED, "type")
        text: dict[str, str] = {}
        binary: set[str] = set()
        for key, node in fields.members("data").items():
            try:
                text[key] = base64.b64decode(node.text(), validate=True).decode("utf-8")
            except binascii.Error:
                node.problem("not base64")
            except UnicodeDecodeError:
                binary.add(key)
        strings = {key: node.text() for key, node in fields.members("stringData").items()}
        return Data({**text, **strings}, frozenset(binary - strings.keys()))


def mounts_token(fields: Fields) -> bool:
    """Of a ServiceAccount."""
    return fields.flag("automountServiceAccountToken", default=True)
