# SPDX-License-Identifier: Apache-2.0
"""Enforcement points that a flag or a short list decides, and processes outside of containers."""

from __future__ import annotations

from parma_policy.framework.containers import repeated
from parma_policy.framework.decision import Decision, Reason, denied, shown
from parma_policy.framework.narrowing import EnvChoice, choose_env
from parma_policy.framework.state import State
from parma_policy.framework.view import View, unusable
from parma_policy.model import ExternalProcess
from parma_policy.requests import Empty, ExecExternal, ForwardPort, LoadTransparencyTrustList, LogProvider

Outcome = tuple[Decision, State]


def _switch(view: View, point: str, flag: str, topic: str, *, on: bool) -> Outcome:
    if on:
        return Decision(True, point), view.state
    reason = Reason("flag", "the policy does not allow it", topic, change=f"{flag} would have to be true", where=flag)
    return denied(point, reason), view.state


def get_properties(view: View, _request: Empty) -> Outcome:
    """Statistics, process lists and the like."""
    on, topic = view.policy.flags.allow_properties_access, "properties access not allowed"
    return _switch(view, "get_properties", "allow_properties_access", topic, on=on)


def dump_stacks(view: View, _request: Empty) -> Outcome:
    """Stacks of the enforcer itself."""
    on, topic = view.policy.flags.allow_dump_stacks, "dumping of stacks not allowed"
    return _switch(view, "dump_stacks", "allow_dump_stacks", topic, on=on)


def runtime_logging(view: View, _request: Empty) -> Outcome:
    """The enforcer's own log."""
    on, topic = view.policy.flags.allow_runtime_logging, "runtime logging not allowed"
    return _switch(view, "runtime_logging", "allow_runtime_logging", topic, on=on)


def host_network(view: View, _request: Empty) -> Outcome:
    """The VM's network for a container."""
    on, topic = view.policy.flags.allow_host_network, "host network not allowed"
    return _switch(view, "host_network", "allow_host_network", topic, on=on)


def configure_network(view: View, _request: Empty) -> Outcome:
    """A network for the containers."""
    on, topic = view.policy.extensions.allow_network, "network not allowed"
    return _switch(view, "configure_network", "allow_network", topic, on=on)


def forward_port(view: View, request: ForwardPort) -> Outcome:
    """A connection to what containers serve for themselves only."""
    point, where = "forward_port", "forward_ports"
    if request.port in view.policy.forward_ports:
        return Decision(True, point), view.state
    text, change = "the host may not connect to this port of the containers' loopback", f"{where} would have to list it"
    return denied(point, Reason("port", text, "", actual=str(request.port), change=change, where=where)), view.state


def _lower(name: str) -> str:
    """In lower case, letter by letter: as Rego has it, no letter depends on its neighbours."""
    return "".join(character.lower()[0] for character in name)


def log_provider(view: View, request: LogProvider) -> Outcome:
    """Sources of log events; names compare without regard to case."""
    point = "log_provider"
    listed = {_lower(name) for name in view.policy.allowed_log_providers or ()}
    kept = tuple(name for name in request.providers if _lower(name) in listed)
    if len(kept) != len(request.providers) and not view.policy.flags.allow_log_provider_dropping:
        refused = [name for name in request.providers if _lower(name) not in listed]
        text = f"log provider {shown(refused[0])} is not in the policy"
        where = "allowed_log_providers"
        change = f"{where} would have to list it"
        topic = "log provider not allowed by policy"
        return denied(point, Reason("provider", text, topic, change=change, where=where)), view.state
    return Decision(True, point, providers_to_keep=kept), view.state


def exec_external(view: View, request: ExecExternal) -> Outcome:
    """A process outside of the containers, listed as such."""
    point = "exec_external"
    processes = tuple(view.external_processes())
    remaining = tuple(p for p in processes if p.command == request.arg_list and p.working_dir == request.working_dir)
    dropping = view.policy.flags.allow_environment_variable_dropping
    env = choose_env(remaining, lambda process: process.env_rules, request.env_list, dropping=dropping)
    ambiguous = repeated(view, env.kept) if env.candidates else []
    if not env.candidates or ambiguous:
        return denied(point, *_why_not_external(view, request, env, ambiguous)), view.state
    stdio = env.candidates[0].allow_stdio_access
    if any(process.allow_stdio_access != stdio for process in env.candidates):
        from parma_policy.framework import explain

        places = (process.place for process in env.candidates)
        return denied(point, explain.stdio_undecidable("external processes", places)), view.state
    decision = Decision(True, point, env_list=env.kept, allow_stdio_access=stdio)
    return decision, view.state


def _why_not_external(
    view: View, request: ExecExternal, env: EnvChoice[ExternalProcess], ambiguous: list[str]
) -> list[Reason]:
    from parma_policy.framework import denials, explain

    if env.undecided:
        return [explain.env_undecidable(*env.undecided)]
    if ambiguous:
        return [explain.env_ambiguous(ambiguous)]
    processes = tuple(view.external_processes())
    if processes:
        dropping = view.policy.flags.allow_environment_variable_dropping
        return denials.external(view, processes, request, dropping=dropping)
    change = "external_processes would have to list it"
    text = "the policy lists no external processes"
    return [*unusable(view), Reason("command", text, "invalid command", change=change, where="external_processes")]


def load_transparency_trust_list(view: View, request: LoadTransparencyTrustList) -> Outcome:
    """A trust list whose envelope was checked: issuer, subject and version decide which ledgers it may name."""
    point = "load_transparency_trust_list"
    rules = [
        rule
        for rule in view.trust_list_rules()
        if rule.issuer == request.issuer and rule.subject == request.subject and request.svn >= rule.minimum_svn
    ]
    if not rules:
        text = "no rule of the policy accepts this issuer, subject and version"
        topic = "no TTL candidate matches the provided TTL's issuer, subject and svn"
        return denied(
            point, *unusable(view), Reason("trust_list", text, topic, where="transparency_trust_lists")
        ), view.state
    accepted = {ledger for rule in rules for ledger in rule.allowed_ledgers}
    ledgers = tuple(ledger for ledger in request.ledgers if ledger in accepted or "*" in accepted)
    if not ledgers:
        text = "the list names no ledger that the policy accepts"
        topic = "The provided TTL does not contain any ledgers it is allowed to load"
        return denied(point, Reason("ledgers", text, topic)), view.state
    return Decision(True, point, allowed_ledgers=ledgers), view.state
