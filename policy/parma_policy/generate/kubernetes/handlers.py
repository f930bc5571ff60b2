# SPDX-License-Identifier: Apache-2.0
"""Probes and lifecycle hooks: those that run a command in the container become entries of its exec list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from parma_policy.generate.kubernetes.expansion import expand_static
from parma_policy.generate.nodes import Fields
from parma_policy.generate.policy import Exec

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_TIMING = (
    *("failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold"),
    *("terminationGracePeriodSeconds", "timeoutSeconds"),
)
# Asked over the network, from the host.
_OVER_THE_NETWORK = ("httpGet", "tcpSocket", "grpc")


def read_handlers(container: Fields, static: Mapping[str, str]) -> tuple[tuple[Exec, ...], str]:
    """The commands of a container's probes and hooks, and the stop signal of its lifecycle.

    ``static`` has the variables as written: kubelet expands the commands of probes with them, those of hooks not.
    """
    commands = list(_probes(container, static))
    lifecycle = container.child("lifecycle")
    stop_signal = ""
    if lifecycle is not None:
        with lifecycle:
            stop_signal = lifecycle.text("stopSignal")
            for name in ("postStart", "preStop"):
                commands += _hook(lifecycle.child(name), f"lifecycle.{name}")
    return tuple(commands), stop_signal


def _probes(container: Fields, static: Mapping[str, str]) -> Iterator[Exec]:
    for name in _PROBES:
        probe = container.child(name)
        if probe is None:
            continue
        with probe:
            probe.ignore(*_TIMING, *_OVER_THE_NETWORK)
            command = _command(probe)
        if command:
            yield Exec(tuple(expand_static(argument, static) for argument in command), name)


def _hook(hook: Fields | None, name: str) -> Iterator[Exec]:
    if hook is None:
        return
    with hook:
        hook.ignore(*_OVER_THE_NETWORK, "sleep")
        command = _command(hook)
    if command:
        yield Exec(command, name)


def _command(fields: Fields) -> tuple[str, ...]:
    run = fields.child("exec")
    if run is None:
        return ()
    with run:
        command = run.texts("command")
    if not command:
        run.node.problem("exec without a command")
    return command
