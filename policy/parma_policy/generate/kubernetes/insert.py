# SPDX-License-Identifier: Apache-2.0
"""Manifests with annotations and the runtime class put in; everything else stays as written.

The text is changed where it must be and nowhere else, so comments, order and style survive. The result is parsed
again, and compared with the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from parma_wire.errors import Unsupported

_TEMPLATES: Final = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


_NULL: Final = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class _Edit:
    """Characters from ``start`` to ``end`` become ``text``."""

    start: int
    end: int
    text: str


def insert(text: str, annotations: Sequence[Mapping[str, str]], runtime_class: str) -> str:
    """The manifest with annotations for the pods of each of its workloads, in order.

    ``runtime_class`` is put in as well, unless it is empty. Raises Unsupported where the text cannot be changed in
    place: where an anchor is shared.
    """
    pods = list(_pods(text))
    edits: list[_Edit] = []
    for pod, wanted in zip(pods, annotations, strict=True):
        edits += _edits(text, pod, wanted, runtime_class)
    edits.sort(key=lambda edit: edit.start, reverse=True)
    if len({edit.start for edit in edits}) != len(edits):
        raise Unsupported("workloads share a part of the manifest through an anchor", hint="write it out for each")
    changed = text
    for edit in edits:
        changed = changed[: edit.start] + edit.text + changed[edit.end :]
    _check(text, changed, annotations, runtime_class)
    return changed


def count(text: str) -> int:
    """How many workloads the manifest has."""
    return len(list(_pods(text)))


def _pods(text: str) -> Iterator[yaml.MappingNode]:
    """The pod, or the pod template, of each workload."""
    for root in yaml.compose_all(text, yaml.SafeLoader):
        if isinstance(root, yaml.MappingNode):
            yield from _of_document(root)


def _of_document(root: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
    kind = _member(root, "kind")
    name = kind.value if isinstance(kind, yaml.ScalarNode) else ""
    if name.endswith("List"):
        items = _member(root, "items")
        for item in items.value if isinstance(items, yaml.SequenceNode) else ():
            if isinstance(item, yaml.MappingNode):
                yield from _of_document(item)
        return
    node: yaml.Node | None = root if name in _TEMPLATES else None
    for step in _TEMPLATES.get(name, ()):
        node = _member(node, step) if isinstance(node, yaml.MappingNode) else None
    if isinstance(node, yaml.MappingNode):
        yield node


def _member(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == name:
            found: yaml.Node = value
            return found
    return None


def _edits(text: str, pod: yaml.MappingNode, annotations: Mapping[str, str], runtime_class: str) -> Iterator[_Edit]:
    yield from _put(text, pod, [("metadata", [("annotations", list(annotations.items()))])])
    if runtime_class:
        yield from _put(text, pod, [("spec", [("runtimeClassName", runtime_class)])])


def _put(text: str, node: yaml.MappingNode, members: Members) -> Iterator[_Edit]:
    """Members, perhaps of a mapping in the mapping: what is there already is gone into, or replaced."""
    missing = []
    for name, value in members:
        present = _member(node, name)
        if present is None:
            missing.append((name, value))
        elif isinstance(present, yaml.MappingNode) and isinstance(value, list):
            yield from _put(text, present, value)
        elif not isinstance(present, yaml.ScalarNode) or isinstance(value, list) != (present.value in _NULL):
            raise Unsupported(f"{name} of a workload is not what it should be")
        elif present.value != value:
            start, end = present.start_mark.index, present.end_mark.index
            written = f"{{{_flow(value)}}}" if isinstance(value, list) else f'"{value}"'
            yield _Edit(start, end, written if text[start - 1].isspace() else f" {written}")
    if missing:
        yield _added(text, node, missing)


Members = list[tuple[str, Any]]
"""Names, and the value of each or, as a list again, the members in it."""


def _added(text: str, node: yaml.MappingNode, members: Members) -> _Edit:
    """Members at the start of a mapping."""
    start = node.start_mark.index
    if node.flow_style:
        separator = ", " if node.value else ""
        return _Edit(start + 1, start + 1, _flow(members) + separator)
    line = text.rfind("\n", 0, start) + 1
    before = text[line:start]
    indent = " " * len(before)
    block = _block(members, indent)
    # The mapping may start behind something on its line: "- metadata:", or an anchor.
    return _Edit(start, start, block.removeprefix(indent) + indent)


def _block(members: Members, indent: str) -> str:
    return "".join(
        f"{indent}{name}:\n{_block(value, indent + '  ')}"
        if isinstance(value, list)
        else f'{indent}{name}: "{value}"\n'
        for name, value in members
    )


def _flow(members: Members) -> str:
    """Without braces. Quoted, so that it is JSON too."""
    return ", ".join(
        f'"{name}": {{{_flow(value)}}}' if isinstance(value, list) else f'"{name}": "{value}"'
        for name, value in members
    )


def _check(before: str, after: str, annotations: Sequence[Mapping[str, str]], runtime_class: str) -> None:
    """Both texts mean the same but for what was to be put in."""
    expected = list(yaml.safe_load_all(before))
    index = 0
    for document in expected:
        for pod in _loaded_pods(document):
            metadata = pod.get("metadata") or {}
            pod["metadata"] = {
                **metadata,
                "annotations": {**(metadata.get("annotations") or {}), **annotations[index]},
            }
            if runtime_class:
                pod["spec"] = {**pod["spec"], "runtimeClassName": runtime_class}
            index += 1
    try:
        same = list(yaml.safe_load_all(after)) == expected
    except yaml.YAMLError:
        same = False
    if not same:
        raise Unsupported("the annotations cannot be put into a manifest of this style", hint="paste it: --annotation")


def _loaded_pods(document: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(document, dict):
        return
    kind = str(document.get("kind"))
    if kind.endswith("List"):
        for item in document.get("items") or ():
            yield from _loaded_pods(item)
    elif kind in _TEMPLATES:
        for step in _TEMPLATES[kind]:
            document = document[step]
        yield document
