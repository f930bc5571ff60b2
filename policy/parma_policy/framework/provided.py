# SPDX-License-Identifier: Apache-2.0
"""Files that the host provides for containers to mount: configuration, secrets, what the platform knows of names.

A source of mounts is one thing, whoever mounts it. So what any container's mount says of a source's content counts
for all: a file that one container was promised is never another for its neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator

from parma_policy.framework.decision import Decision, Reason, allowed, denied, shown
from parma_policy.framework.matching import clean_path, source_named
from parma_policy.framework.state import State, with_item
from parma_policy.framework.view import View, unusable
from parma_policy.model import MountRule
from parma_policy.requests import ProvideFiles

Outcome = tuple[Decision, State]
_POINT = "provide_files"


def provide_files(view: View, request: ProvideFiles) -> Outcome:
    """Anew or, with ``update``, in place of what was there."""
    rules = [(place, rule) for place, rule in _rules(view) if _is_about(view, rule, request)]
    if not rules or not clean_path(request.source):
        change = "mounts of a container would have to list it"
        reason = Reason("provided_source", f"no container mounts {shown(request.source)}", "", change=change)
        return denied(_POINT, *unusable(view), reason), view.state
    files = frozenset((file.path, file.sha256) for file in request.files)
    for place, rule in rules:
        if rule.pins is not None and rule.pins != files:
            return denied(_POINT, _other_content(place, request)), view.state
    if request.update or request.source in view.state.provided:
        fixed = [place for place, rule in rules if not rule.updates and rule.pins is None]
        if fixed and files != view.state.provided.get(request.source):
            return denied(_POINT, _no_updates(fixed[0], request)), view.state
    return allowed(_POINT), view.after(provided=with_item(view.state.provided, request.source, files))


def _rules(view: View) -> Iterator[tuple[str, MountRule]]:
    """Every mount of policy and fragments, and where it stands."""
    for index in (view.policy.containers, *(fragment.containers for fragment in view.state.fragments)):
        for container in index.containers:
            yield from ((f"{container.place}.mounts[{n}]", rule) for n, rule in enumerate(container.mounts))
    for platform in view.platform_rules():
        yield from (("platform_rules", rule) for rule in platform.mounts)


def _is_about(view: View, rule: MountRule, request: ProvideFiles) -> bool:
    return rule.type == "bind" and source_named(view, rule, request.source, request)


def _other_content(place: str, request: ProvideFiles) -> Reason:
    text = f"the files for {shown(request.source)} are not those that the policy knows"
    change = f"{place}.sha256 would have to be another"
    return Reason("provided_content", text, "", change=change, where=place)


def _no_updates(place: str, request: ProvideFiles) -> Reason:
    text = f"the files for {shown(request.source)} cannot be changed"
    return Reason("provided_update", text, "", change=f"{place}.updates would have to be true", where=place)
