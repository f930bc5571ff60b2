# SPDX-License-Identifier: Apache-2.0
"""Decisions of a policy with rules of its own.

A point that the policy hands to the framework is decided as ever, without the engine. For any other::

    data.policy.<point>  --evaluated-->  operations on the metadata: applied, also where it says no
       |        ^                        allowed: false -> denied, with data.policy.reason
       v        |                        allowed: true  -> env_list, caps_list, ... narrow the request
    data.framework.<x>: the framework's answer to the input at that place

What the engine fails to answer is denied, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from parma_policy.framework import GUEST, Decision, Kind, Platform, State, decide, fragments
from parma_policy.framework.decision import Reason, denied, policy_error
from parma_policy.framework.handlers import HANDLERS
from parma_policy.framework.state import with_item
from parma_policy.framework.view import View
from parma_policy.model import Policy
from parma_policy.points import POINTS, Default, EnforcementPoint
from parma_policy.reader.fragment import fragment_package
from parma_policy.rego import documents, fragment_module, results
from parma_policy.rego.engine import (
    Answer,
    Definition,
    Engine,
    EngineFailed,
    EvaluationFailed,
    Found,
    Json,
    Modules,
)
from parma_policy.rego.metadata import Applier, BadOperationError, Metadata, operations
from parma_policy.requests import LoadFragment
from parma_wire.errors import Malformed

_DEFAULTS: Final[Mapping[str, Mapping[str, Json]]] = {
    "create_container": {"env_list": None, "allow_stdio_access": False},
    "exec_in_container": {"env_list": None},
    "exec_external": {"env_list": None, "allow_stdio_access": False},
    "load_fragment": {"add_module": False},
    "log_provider": {"providers_to_keep": None},
}
"""What a rule's answer has where it says nothing, besides ``allowed``."""


@dataclass(frozen=True, slots=True)
class RegoState:
    """The history of one VM under a policy with rules of its own."""

    metadata: Metadata = field(default_factory=Metadata)
    stdio: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """By container id: whether the rule that allowed to create it gave access to its streams."""
    fragments: Modules = ()
    """Fragments that are modules, with the package that each defines."""


@dataclass(slots=True)
class _Question:
    """One evaluation: what was asked, and what the framework was asked back. ``decisions`` are those on the very
    request, not on another input that a rule has made up."""

    view: View
    request: object
    states: list[State] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)


class _RefusedModuleError(Exception):
    """A fragment that cannot be a module beside the policy, and why."""


class RegoPolicy:
    """A loaded policy; see ``load``."""

    def __init__(
        self,
        engine: Engine,
        text: str,
        policy: Policy,
        definitions: Mapping[str, Definition],
        *,
        reads_metadata: bool,
        platform: Platform = GUEST,
    ) -> None:
        self.policy = policy
        self._engine = engine
        self._text = text
        self._definitions = definitions
        self._reads_metadata = reads_metadata
        self._platform = platform

    @staticmethod
    def initial_state() -> RegoState:
        """Nothing has been allowed yet."""
        return RegoState()

    def with_platform(self, platform: Platform) -> RegoPolicy:
        """The same policy on a platform with other constants. Raises what ``Engine.load`` raises."""
        self._engine.load(self._modules(()), "policy", documents.constants(platform))
        return RegoPolicy(
            self._engine,
            self._text,
            self.policy,
            self._definitions,
            reads_metadata=self._reads_metadata,
            platform=platform,
        )

    def decide(self, state: RegoState, point: str, request: Mapping[str, object]) -> tuple[Decision, RegoState]:
        """Decides one request; see ``framework.decide``. A policy's own rules may also record something when they
        deny: the state after a denial may not be the one before."""
        declared = POINTS.get(point)
        definition = self._definitions.get(point)
        try:
            if declared is None or definition is None or definition == Definition("framework", point):
                return self._framework(state, point, request)
            typed = declared.schema.decode(request, point) if declared.linux else request
            if isinstance(typed, LoadFragment):
                fragment_package(typed.rego)
            if self.policy.api_problem:
                return policy_error(point, "api_version", self.policy.api_problem), state
            if isinstance(typed, LoadFragment):
                return self._load_fragment(state, declared, typed)
            return self._rule(state, declared, request, typed)
        except _RefusedModuleError as error:
            return policy_error(point, "fragment_text", str(error)), state
        except (EvaluationFailed, EngineFailed) as error:
            return policy_error(point, "engine", error.message), state

    # -- the framework's points ----------------------------------------------------------------------------------

    def _framework(self, state: RegoState, point: str, request: Mapping[str, object]) -> tuple[Decision, RegoState]:
        before = state.metadata.framework
        decision, after = decide(self.policy, before, point, request, platform=self._platform)
        if not decision.allowed:
            return self._explained(state, decision, request), state
        changed = replace(state, metadata=state.metadata.after_framework(after))
        if decision.add_module:
            text = str(request["rego"])
            added = self._with_module(state, fragment_package(text), text)
            changed = replace(changed, fragments=added)
        if point == "exec_in_container":
            remembered = self._remembered(state, request)
            decision = replace(decision, allow_stdio_access=remembered)
        return decision, changed

    def _remembered(self, state: RegoState, request: Mapping[str, object]) -> bool:
        """Whether the container's streams are open: decided when it was created."""
        identity = str(request.get("containerID"))
        started = state.metadata.framework.started.get(identity)
        return state.stdio.get(identity, started is not None and started.allow_stdio_access)

    # -- the policy's own ----------------------------------------------------------------------------------------

    def _rule(
        self, state: RegoState, declared: EnforcementPoint, request: Mapping[str, object], typed: object
    ) -> tuple[Decision, RegoState]:
        point = declared.name
        question = self._question(state, typed)
        found = self._query(state, point, dict(request), question)
        if found is None:
            return self._undefined(state, declared, request)
        answer, metadata, problem = self._read(state, declared, found, question)
        changed = replace(state, metadata=metadata)
        if problem:
            return policy_error(point, "answer", problem), changed
        if not answer["allowed"]:
            return self._explained(changed, denied(point), request), changed
        outcome = results.read(point, answer, request)
        if isinstance(outcome, str):
            return replace(denied(point, Reason("answer", outcome, outcome)), kind=Kind.ERROR), changed
        return self._allowed(changed, outcome, question, request)

    def _allowed(
        self, state: RegoState, decision: Decision, question: _Question, request: Mapping[str, object]
    ) -> tuple[Decision, RegoState]:
        identity = str(request.get("containerID"))
        if decision.point == "exec_in_container":
            return replace(decision, allow_stdio_access=self._remembered(state, request)), state
        if decision.point != "create_container":
            return decision, state
        # What of attestation a container reaches is the framework's to say; a rule that does not ask it gives none.
        framework = question.decisions.get("create_container")
        if framework is not None and framework.allowed:
            decision = replace(decision, attestation=framework.attestation, identity=framework.identity)
        return decision, replace(state, stdio=with_item(state.stdio, identity, decision.allow_stdio_access))

    def _undefined(
        self, state: RegoState, declared: EnforcementPoint, request: Mapping[str, object]
    ) -> tuple[Decision, RegoState]:
        """As if the policy had no such rule."""
        without = replace(self.policy, rules=self.policy.rules - {declared.name})
        decision, after = decide(without, state.metadata.framework, declared.name, request, platform=self._platform)
        if not decision.allowed:
            return decision, state
        return decision, replace(state, metadata=state.metadata.after_framework(after))

    def _read(
        self, state: RegoState, declared: EnforcementPoint, found: Found, question: _Question
    ) -> tuple[dict[str, Json], Metadata, str]:
        """The rule's answer completed by the point's defaults, the metadata after it, and what is wrong with it."""
        metadata = state.metadata
        if not isinstance(found.value, dict):
            return {}, metadata, "the rule's value is not an object"
        try:
            metadata = Applier(question.request, question.states).apply(metadata, found.value.get("metadata"))
        except BadOperationError as error:
            return {}, error.state or metadata, f"error applying metadata operations: {error}"
        answer = dict(_DEFAULTS.get(declared.name, {}))
        if declared.default is not Default.FRAMEWORK:
            answer["allowed"] = declared.default is Default.ALLOW
        answer |= found.value
        problem = "" if isinstance(answer.get("allowed"), bool) else "value for 'allowed' is not a boolean"
        return answer, metadata, problem

    def _load_fragment(
        self, state: RegoState, declared: EnforcementPoint, request: LoadFragment
    ) -> tuple[Decision, RegoState]:
        """Asks before the fragment's text counts for anything; and again when it is a module, once for each set of
        parameters that the first answer names."""
        namespace = fragment_package(request.rego)
        document = {**_fragment_document(request, namespace), "fragment_loaded": False}
        answer, state = self._ask_about_fragment(state, declared, request, document)
        if not isinstance(answer, dict):
            return answer, state
        document["fragment_loaded"] = True
        sets = fragment_module.parameter_sets(answer.get("parameters"))
        kept: Modules | None = None
        for parameters in sets or [{}]:
            text = fragment_module.with_parameters(request.rego, parameters)
            loaded = self._with_module(state, namespace, text)
            answer, asked = self._ask_about_fragment(replace(state, fragments=loaded), declared, request, document)
            state = replace(asked, fragments=state.fragments)
            if not isinstance(answer, dict):
                return answer, state
            if answer["add_module"] is True:
                kept = loaded
        if kept is None:
            return Decision(True, declared.name), state
        if len(sets) > 1:
            return policy_error(declared.name, "answer", "a module cannot have several sets of parameters"), state
        return Decision(True, declared.name, add_module=True), replace(state, fragments=kept)

    def _ask_about_fragment(
        self, state: RegoState, declared: EnforcementPoint, request: LoadFragment, document: Json
    ) -> tuple[dict[str, Json] | Decision, RegoState]:
        """The rule's answer if that is a yes, else the decision."""
        question = self._question(state, request)
        found = self._query(state, declared.name, document, question)
        if found is None:
            return self._undefined(state, declared, _fragment_request(request))
        answer, metadata, problem = self._read(state, declared, found, question)
        state = replace(state, metadata=metadata)
        if problem:
            return policy_error(declared.name, "answer", problem), state
        if not answer["allowed"]:
            return self._explained(state, denied(declared.name), _fragment_request(request)), state
        return answer, state

    def _with_module(self, state: RegoState, namespace: str, text: str) -> Modules:
        """The fragments with one more. Raises _RefusedModuleError."""
        if dict(state.fragments).get(namespace, text) != text:
            raise _RefusedModuleError(f"another fragment is package {namespace} already")
        fragments = tuple(sorted({*state.fragments, (namespace, text)}))
        try:
            self._engine.load(self._modules(fragments), "policy", documents.constants(self._platform))
        except Malformed as error:
            raise _RefusedModuleError(error.message) from None
        return fragments

    # -- questions to the engine, and back -----------------------------------------------------------------------

    def _modules(self, fragments: Modules) -> Modules:
        return tuple(sorted((("policy", self._text), *fragments)))

    def _question(self, state: RegoState, request: object) -> _Question:
        return _Question(View(self.policy, state.metadata.framework, self._platform), request)

    def _query(self, state: RegoState, name: str, document: Json, question: _Question) -> Found | None:
        metadata = state.metadata.document() if self._reads_metadata else None
        ask: Callable[[str, Json], Answer] = lambda asked, given: self._answer(question, asked, given)  # noqa: E731
        return self._engine.query(self._modules(state.fragments), f"policy.{name}", document, ask, metadata)

    def _answer(self, question: _Question, name: str, given: Json) -> Answer:
        """What ``data.framework.<name>`` is for this input."""
        if name == "error_objects":
            return Answer([])
        if name in ("errors", "reason"):
            errors = sorted({reason.topic for reason in self._objections(question, given)})
            return Answer(errors, is_set=True) if name == "errors" else Answer({"errors": errors, "error_objects": []})
        point = POINTS[name]
        if not point.linux:
            return Answer({"allowed": False})
        request = question.request if isinstance(question.request, LoadFragment) and name == "load_fragment" else None
        if request is None:
            decoded = _decoded(point, given)
            if decoded is None:
                return Answer(refused=f"data.framework.{name} cannot be asked about this input")
            request = decoded
        try:
            decision, after = HANDLERS[name](question.view, request)
        except Malformed as error:
            return Answer(refused=error.message)
        if decision.kind is Kind.POLICY_ERROR:
            return Answer(refused=decision.message())
        document = documents.decision(decision)
        if isinstance(request, LoadFragment) and decision.allowed:
            document["parameters"] = [
                documents.plain(parameters) for parameters in fragments.parameter_sets(question.view, request)
            ]
        if decision.allowed:
            question.states.append(after)
            if request == question.request:
                question.decisions[name] = decision
            document["metadata"] = operations(question.view.state, after)
        return Answer(document)

    def _objections(self, question: _Question, given: Json) -> tuple[Reason, ...]:
        """What the framework has against the input, whose ``rule`` says at which point."""
        point = POINTS.get(str(given.get("rule"))) if isinstance(given, dict) else None
        if point is None or not point.linux:
            return ()
        is_fragment = isinstance(question.request, LoadFragment) and point.name == "load_fragment"
        request = question.request if is_fragment else _decoded(point, given)
        found = () if request is None else HANDLERS[point.name](question.view, request)[0].reasons
        question.reasons |= {reason.topic: reason for reason in found}
        return found

    def _explained(self, state: RegoState, decision: Decision, request: Mapping[str, object]) -> Decision:
        """A denial with the policy's own reasons, where it has any to give; where those are the framework's, with its
        words for them."""
        definition = self._definitions.get("reason")
        if decision.kind is not Kind.DENIED or definition is None:
            return decision
        question = self._question(state, request)
        asked = {**request, "rule": decision.point}
        if decision.point == "load_fragment":
            fragment: LoadFragment = POINTS[decision.point].schema.decode(request, decision.point)
            question.request = fragment
            asked = {**_fragment_document(fragment, fragment_package(fragment.rego)), "rule": decision.point}
        if definition == Definition("framework", "reason"):
            return decision if decision.reasons else replace(decision, reasons=self._objections(question, asked))
        try:
            found = self._query(state, "reason", asked, question)
        except (EvaluationFailed, EngineFailed):
            return decision
        given = found.value.get("errors") if found and isinstance(found.value, dict) else None
        told = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
        known = {reason.topic for reason in decision.reasons}
        more = tuple(question.reasons.get(text) or Reason("policy", text, text) for text in told if text not in known)
        return replace(decision, reasons=(*decision.reasons, *more))


def _decoded(point: EnforcementPoint, given: Json) -> Any:
    """The request in an input that may have more members than the point knows; None where there is none."""
    if not isinstance(given, dict):
        return None
    try:
        return point.schema.decode({key: given[key] for key in given if key in point.schema.keys}, point.name)
    except Malformed:
        return None


def _fragment_document(request: LoadFragment, namespace: str) -> dict[str, Json]:
    """The input of ``load_fragment`` as rules see it: never the text itself."""
    return {
        "issuer": request.issuer,
        "feed": request.feed,
        "namespace": namespace,
        "has_header_svn": request.header_svn is not None,
        "header_svn": request.header_svn,
        "receipts": [
            {"issuer": receipt.issuer, "ttl_subjects": list(receipt.ttl_subjects)} for receipt in request.receipts
        ],
    }


def _fragment_request(request: LoadFragment) -> dict[str, Json]:
    document = _fragment_document(request, "")
    return {key: document[key] for key in ("issuer", "feed", "header_svn", "receipts")} | {"rego": request.rego}
