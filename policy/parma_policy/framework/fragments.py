# SPDX-License-Identifier: Apache-2.0
"""Signed fragments: parts of the policy that somebody named in the policy may supply.

The policy is asked twice. Before anything of the fragment's text is read: is it from an accepted issuer and feed, new
enough by its envelope, with the receipts required? After: is it new enough by its own word, and what of it counts?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from parma_policy.framework.decision import Decision, Kind, Reason, denied, policy_error, shown
from parma_policy.framework.state import LoadedFragment, State
from parma_policy.framework.view import View, unusable
from parma_policy.model import ContainerIndex, FragmentRule, SvnValue
from parma_policy.reader.delegated import INCLUDABLE
from parma_policy.reader.errors import PolicyTextError
from parma_policy.reader.fragment import FragmentText, Parameters
from parma_policy.reader.lists import Items
from parma_policy.reader.syntax import FrozenJson
from parma_policy.requests import LoadFragment, Receipt

_POINT = "load_fragment"


def load_fragment(view: View, request: LoadFragment) -> tuple[Decision, State]:
    """Decides on a fragment whose envelope was checked, and adds what the policy lets it include."""
    rules, reasons = _accepting(view, request)
    if not rules:
        return denied(_POINT, *reasons), view.state
    try:
        return _load(view, request, rules)
    except PolicyTextError as error:
        return policy_error(_POINT, "fragment_text", f"the fragment cannot be read: {error}"), view.state


def parameter_sets(view: View, request: LoadFragment) -> list[Mapping[str, FrozenJson]]:
    """The parameters that the rules accepting the envelope give; none where they say nothing of any."""
    rules, _ = _accepting(view, request)
    return _given(_of_feed(view, request) if view.policy.parity else rules)


def _load(view: View, request: LoadFragment, rules: Sequence[FragmentRule]) -> tuple[Decision, State]:
    """``rules`` accept the envelope. The text is judged by all rules of its issuer and feed, which have to agree on
    what counts of it."""
    fragment = FragmentText.parse(request.rego, parity=view.policy.parity)
    all_rules = _of_feed(view, request)
    agreeing, reasons = _new_enough(fragment, all_rules, request.header_svn)
    if agreeing and not view.policy.parity:
        agreeing_too, reasons = _new_enough(fragment, rules, request.header_svn)
        agreeing = agreeing if agreeing_too else []
        rules = agreeing_too
    if not agreeing:
        return denied(_POINT, *reasons), view.state
    includes = agreeing[0].includes
    if any(rule.includes.symmetric_difference(includes) & _COUNTING for rule in agreeing):
        return _contradiction("include different things of this fragment"), view.state
    given = _given(all_rules if view.policy.parity else rules)
    if not given and _given(all_rules):
        return _contradiction("differ in whether they give this fragment parameters"), view.state
    if len(given) > 1 and "namespace" in includes:
        text = "a fragment cannot include namespace with several sets of parameters"
        return replace(denied(_POINT, Reason("fragment_rules", text, text)), kind=Kind.ERROR), view.state
    loaded = [_cut_down(request, fragment.items(parameters), includes) for parameters in _different(given) or [None]]
    new = [fragment for fragment in loaded if fragment not in view.state.fragments]
    decision = Decision(True, _POINT, add_module="namespace" in includes)
    return decision, view.after(fragments=(*view.state.fragments, *new))


_COUNTING: Final = frozenset(INCLUDABLE)


def _contradiction(what: str) -> Decision:
    change = "the rules in fragments for this issuer and feed would have to agree"
    return policy_error(_POINT, "fragment_rules", f"rules of the policy {what}", change)


def _of_feed(view: View, request: LoadFragment) -> list[FragmentRule]:
    return [rule for rule in view.fragment_rules() if (rule.issuer, rule.feed) == (request.issuer, request.feed)]


def _given(rules: Sequence[FragmentRule]) -> list[Mapping[str, FrozenJson]]:
    return [rule.parameters for rule in rules if rule.parameters is not None]


def _different(sets: Sequence[Mapping[str, FrozenJson]]) -> list[Parameters]:
    """Each set once. The fragment is read with each."""
    different: list[Parameters] = []
    for parameters in sets:
        if parameters not in different:
            different.append(parameters)
    return different


def _cut_down(request: LoadFragment, items: Items, includes: frozenset[str]) -> LoadedFragment:
    return LoadedFragment(
        request.issuer,
        request.feed,
        containers=items.containers if "containers" in includes else ContainerIndex(),
        external_processes=items.external_processes if "external_processes" in includes else (),
        fragments=items.fragments if "fragments" in includes else (),
        platform_rules=items.platform_rules if "platform_rules" in includes else (),
        transparency_trust_lists=(items.transparency_trust_lists if "transparency_trust_lists" in includes else ()),
    )


# -- before the text is read -------------------------------------------------------------------------------------


def _accepting(view: View, request: LoadFragment) -> tuple[list[FragmentRule], list[Reason]]:
    """The rules that accept the envelope; without any, why not."""
    rules = list(view.fragment_rules())
    of_issuer = [rule for rule in rules if rule.issuer == request.issuer]
    if not of_issuer:
        text = f"no fragment of issuer {shown(request.issuer)} is in the policy"
        return [], [*unusable(view), Reason("issuer", text, "invalid fragment issuer")]
    of_feed = [rule for rule in of_issuer if rule.feed == request.feed]
    if not of_feed:
        text = f"no fragment of feed {shown(request.feed)} of this issuer is in the policy"
        return [], [Reason("feed", text, "invalid fragment feed")]
    new = [rule for rule in of_feed if request.header_svn is None or _at_least(request.header_svn, rule.minimum_svn)]
    if not new:
        return [], [_too_old(of_feed, request.header_svn), *_missing(of_feed, request)]
    complete = [rule for rule in new if not _missing_receipts(rule, request.receipts)]
    if complete:
        return complete, []
    return [], _missing(new, request)


def _missing(rules: Sequence[FragmentRule], request: LoadFragment) -> list[Reason]:
    missing = dict.fromkeys(name for rule in rules for name in _missing_receipts(rule, request.receipts))
    return [
        Reason("receipt", f"transparency receipt of {shown(name)} is missing", f"missing receipt from {name}")
        for name in missing
    ]


def _missing_receipts(rule: FragmentRule, receipts: Iterable[Receipt]) -> list[str]:
    receipts = list(receipts)
    # ``TTL:...`` names a trust list and never a ledger, whatever a ledger calls itself.
    issuers = {receipt.issuer for receipt in receipts if not receipt.issuer.startswith("TTL:")}
    lists = {f"TTL:{subject}" for receipt in receipts for subject in receipt.ttl_subjects}
    return [name for name in rule.required_receipts if name not in issuers | lists and not (name == "*" and receipts)]


# -- afterwards --------------------------------------------------------------------------------------------------


def _new_enough(
    fragment: FragmentText, rules: Sequence[FragmentRule], header_svn: int | None
) -> tuple[list[FragmentRule], list[Reason]]:
    """The rules whose minimum the fragment's version satisfies; without any, why not."""
    accepted, reasons = _by_svn(fragment, rules, header_svn)
    problem = fragment.framework.problem
    if problem:
        return [], [Reason("framework_version", f"fragment {problem}", f"fragment {problem}"), *reasons]
    return accepted, reasons


def _by_svn(
    fragment: FragmentText, rules: Sequence[FragmentRule], header_svn: int | None
) -> tuple[list[FragmentRule], list[Reason]]:
    svn: SvnValue | None = fragment.svn if fragment.has_svn else header_svn
    if header_svn is not None and svn != header_svn:
        topic = f"svn in header {header_svn} does not match svn in fragment rego {svn}"
        return [], [Reason("svn_mismatch", topic, topic)]
    accepted = [rule for rule in rules if _at_least(svn, rule.minimum_svn)]
    return accepted, [] if accepted else [_too_old(rules, svn)]


def _at_least(svn: SvnValue | None, minimum: SvnValue | None) -> bool:
    """Whole numbers and semantic versions do not compare; neither does what is no version at all."""
    if isinstance(svn, int) and isinstance(minimum, int):
        return svn >= minimum
    if svn is None or minimum is None or isinstance(svn, int) or isinstance(minimum, int):
        return False
    return svn >= minimum


def _too_old(rules: Sequence[FragmentRule], svn: SvnValue | None) -> Reason:
    minimum = rules[0].minimum_svn
    if svn is not None and type(svn) is not type(minimum):
        topic = "fragment svn and the specified minimum are different types"
        return Reason("svn_type", topic, topic, str(minimum), str(svn))
    topic = "fragment svn is below the specified minimum"
    return Reason("svn", topic, topic, f"{minimum} or newer", str(svn))
