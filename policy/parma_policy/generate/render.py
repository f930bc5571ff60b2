# SPDX-License-Identifier: Apache-2.0
"""The text of a policy. It is the same for the same input, whoever makes it and when: its hash is what gets attested.

Nothing of the place or the time of its making is in it, and it is plain ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from parma_policy.generate.policy import Container, Fragment, Noted, Switches
from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION

_NO_RULES: Final = ("plan9_mount", "plan9_unmount", "mount_blockdev", "unmount_blockdev")
_WIDTH: Final = 160
_COMMENT_WIDTH: Final = 116

_FLAG_MEANING: Final = {
    "allow_properties_access": "statistics and process lists of containers",
    "allow_dump_stacks": "stacks of the enforcer",
    "allow_runtime_logging": "the enforcer's own log",
    "allow_environment_variable_dropping": "leave out variables that no rule accepts, instead of a denial",
    "allow_unencrypted_scratch": "writable space that the host can read",
    "allow_capability_dropping": "leave out capabilities that are not listed, instead of a denial",
    "allow_host_network": "the network of the VM itself",
    "allow_network": "a network for the containers; absent: true",
    "permissive": "NOTHING is denied for what it is: what this policy would deny is allowed, and recorded",
}


def policy_text(
    containers: Sequence[Container],
    switches: Switches | None = None,
    *,
    fragments: Sequence[Fragment] = (),
    notes: Sequence[str] = (),
) -> str:
    """The policy for these containers; ``notes`` are lines for the comment at its head.

    It was read back by the strict reader. Raises Malformed for containers that are none.
    """
    objects = [
        Noted(container.as_object(), "\n".join((f"Container {number}", *container.origin)))
        for number, container in enumerate(containers, 1)
    ]
    return _text(objects, switches or Switches(), fragments, notes)


def generate(containers: Sequence[Mapping[str, object]], switches: Switches | None = None) -> str:
    """The policy for containers given as the policy's own objects. Raises Malformed as ``policy_text`` does."""
    return _text([Noted(container) for container in containers], switches or Switches(), (), ())


def _text(containers: Sequence[Noted], switches: Switches, fragments: Sequence[Fragment], notes: Sequence[str]) -> str:
    parts = [
        "package policy",
        "",
        "# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the",
        "# attestation report of a VM that enforces it.",
        *_comment("\n".join(notes)),
        "",
        f'api_version := "{API_VERSION}"',
        f'framework_version := "{FRAMEWORK_VERSION}"',
        "",
        "# What may run, and how. Whatever differs in anything is denied.",
        f"containers := {_literal(list(containers))}",
        "",
        *_fragments(fragments),
        "# What the host may see or leave out.",
        *_flags(switches.flags()),
        *_forward_ports(switches.forward_ports),
        "",
        "# Each of these is decided by the framework in the measured guest, from the data above.",
        *(f"{name} := data.framework.{name}" for name, point in POINTS.items() if _has_rule(name, linux=point.linux)),
        'reason := {"errors": data.framework.errors}',
        "",
    ]
    text = "\n".join(parts)
    load(text.encode())
    return text


def _fragments(fragments: Sequence[Fragment]) -> list[str]:
    if not fragments:
        return []
    listed = _literal([Noted(fragment.as_object()) for fragment in fragments])
    return ["# Signed fragments that may be loaded, and what of them counts.", f"fragments := {listed}", ""]


def _flags(flags: Mapping[str, bool]) -> Iterator[str]:
    for name, value in flags.items():
        meaning = _FLAG_MEANING.get(name)
        if meaning:
            yield f"# {meaning}"
        yield f"{name} := {json.dumps(value)}"


def _forward_ports(ports: Sequence[int]) -> list[str]:
    if not ports:
        return []
    return [
        "# connections to these ports, where containers take whoever comes for one of themselves",
        f"forward_ports := {json.dumps(sorted(set(ports)))}",
    ]


def _has_rule(name: str, *, linux: bool) -> bool:
    return linux and name not in _NO_RULES


def _literal(value: object, indent: str = "") -> str:
    """JSON. What is short stands on one line; else an object has one member to a line, with comments above."""
    if isinstance(value, Noted):
        value = value.value
    if _fits(value):
        return json.dumps(value)
    inner = indent + "    "
    if isinstance(value, Mapping):
        members = [(_note(item), f"{json.dumps(key)}: {_literal(item, inner)}") for key, item in value.items()]
        return "{\n" + _lines(members, inner) + f"{indent}}}"
    if isinstance(value, list) and any(isinstance(item, Noted | Mapping) for item in value):
        return "[\n" + _lines([(_note(item), _literal(item, inner)) for item in value], inner) + f"{indent}]"
    return json.dumps(value)


def _note(value: object) -> str:
    return value.note if isinstance(value, Noted) else ""


def _fits(value: object) -> bool:
    """An object of plain values that is short enough for one line."""
    if not isinstance(value, Mapping) or any(isinstance(item, Mapping | Noted) for item in value.values()):
        return False
    if any(isinstance(item, list) and any(isinstance(one, Mapping | Noted) for one in item) for item in value.values()):
        return False
    return len(json.dumps(value)) <= _WIDTH


def _lines(elements: Sequence[tuple[str, str]], indent: str) -> str:
    """Elements with commas; a note is printed where it differs from the one before."""
    lines = []
    before = ""
    for number, (note, text) in enumerate(elements):
        if note != before:
            lines += [f"{indent}{line}" for line in _comment(note)]
        before = note
        lines.append(f"{indent}{text}{',' if number + 1 < len(elements) else ''}")
    return "".join(f"{line}\n" for line in lines)


def _comment(note: str) -> Iterable[str]:
    """A note as comment lines: printable ASCII, so that nothing in it can be taken for anything else."""
    for line in note.splitlines():
        text = json.dumps(line)[1:-1].replace('\\"', '"')
        yield f"# {text if len(text) <= _COMMENT_WIDTH else text[:_COMMENT_WIDTH] + '...'}"
