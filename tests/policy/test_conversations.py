# SPDX-License-Identifier: Apache-2.0
"""Random conversations over random policies: what an execution policy promises holds after any number of requests.

The model beside the framework knows only the policy's text, as data, and what was answered. It checks, after each step:

* a container runs on nothing but layers that were mounted with the root hashes which one of the policy's containers
  lists, in its order, and with that container's command, working directory and user;
* a decision depends on nothing but policy and history: the whole conversation again, from the policy's bytes, gets the
  same answers, and so does the same policy with every point decided by a rule of its own in the Rego engine;
* what an id can still be only narrows, and an id that was used stays used;
* what an overlay or a running container uses is not unmounted;
* a roll-back restores exactly.
"""

from __future__ import annotations

import atexit
import copy
import json
import re
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parma_policy.framework import Decision, State, decide
from parma_policy.loaded import load_policy
from parma_policy.model import Policy
from parma_policy.reader import load
from tests.policy.builders import LAYERS, Json, capabilities, container, creation, disk, execution, rootfs, text
from tests.policy.rego_engine import PROGRAM, new_engine

COMMANDS = (["a"], ["b"], ["a", "-x"])
DIRECTORIES = ("/", "/srv")
IDS = tuple(digit * 64 for digit in "abc")
DISKS = tuple(disk(number) for number in range(5))
HASHES = (*LAYERS, "f" * 64)
ENV = ("PATH=/usr/bin:/bin", "HOSTNAME=x", "A=1", "A=2", "SECRET=")
SIGNALS = st.integers(0, 4)
CAPS = st.sampled_from([[], ["CAP_KILL"], ["CAP_KILL", "CAP_CHOWN"]]).map(capabilities)

ENV_RULES = st.lists(
    st.sampled_from(
        [
            {"pattern": "PATH=/usr/bin:/bin", "strategy": "string", "required": False},
            {"pattern": "A=[0-9]", "strategy": "re2", "required": False},
            {"pattern": "HOSTNAME=.+", "strategy": "re2", "required": True},
            {"name": "A", "name_strategy": "string", "value": "1", "value_strategy": "string", "required": False},
        ]
    ),
    max_size=3,
)
CONTAINERS = st.builds(
    container,
    command=st.sampled_from(COMMANDS),
    working_dir=st.sampled_from(DIRECTORIES),
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3),
    env_rules=ENV_RULES,
    exec_processes=st.lists(
        st.fixed_dictionaries({"command": st.sampled_from(COMMANDS), "signals": st.lists(SIGNALS, max_size=2)}),
        max_size=2,
    ),
    signals=st.lists(SIGNALS, max_size=3),
    allow_stdio_access=st.booleans(),
    allow_elevated=st.booleans(),
    no_new_privileges=st.booleans(),
    capabilities=st.none() | CAPS,
    mounts=st.just([]),
    user=st.sampled_from(
        [
            container()["user"],
            {**container()["user"], "user_idname": {"pattern": "", "strategy": "any"}},
        ]
    ),
)
TEXTS = st.builds(
    lambda containers, **definitions: text(*containers, **definitions),
    st.lists(CONTAINERS, min_size=1, max_size=4),
    allow_environment_variable_dropping=st.booleans(),
    allow_capability_dropping=st.booleans(),
    allow_properties_access=st.booleans(),
    framework_version=st.sampled_from(["0.5.0", "0.5.0", "0.4.0", "0.2.3"]),
    api_version=st.sampled_from(["0.12.0", "0.10.0"]),
)
_FORWARD = re.compile(r"(?m)^(\w+) := data\.framework\.(?!reason)(\w+)$")


def frozen(state: State) -> dict[str, Any]:
    """What a state holds, apart from it."""
    return {name: copy.copy(dict(value) if hasattr(value, "items") else value) for name, value in _fields(state)}


def _fields(state: State) -> list[tuple[str, Any]]:
    return [(name, getattr(state, name)) for name in State.__dataclass_fields__]


class Conversations(RuleBasedStateMachine):
    """One policy, one VM."""

    policy: Policy
    source: str

    def __init__(self) -> None:
        super().__init__()
        self.state = State.initial()
        self.log: list[tuple[str, Json, Decision, State]] = []
        self.mounted: dict[str, str] = {}
        self.overlays: dict[str, list[str]] = {}
        self.running: dict[str, Json] = {}
        self.used: set[str] = set()
        self.before: State = self.state

    @initialize(source=TEXTS)
    def load_it(self, source: str) -> None:
        self.source = source
        self.policy = load(source.encode())
        lines = dict(line.split(" := ", 1) for line in source.splitlines() if " := " in line)
        self.containers: list[Json] = json.loads(lines["containers"])

    def ask(self, point: str, request: Json) -> Decision:
        self.before, held = self.state, frozen(self.state)
        decision, after = decide(self.policy, self.before, point, request)
        assert decide(self.policy, self.before, point, request) == (decision, after)
        assert frozen(self.before) == held, "a decision has changed a state"
        assert decision.allowed or after is self.before
        self.log.append((point, request, decision, self.before))
        self.state = after
        return decision

    # -- requests ------------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from(DISKS), root_hash=st.sampled_from(HASHES))
    def mount(self, place: str, root_hash: str) -> None:
        if self.ask("mount_device", {"target": place, "deviceHash": root_hash}).allowed:
            assert place not in self.mounted
            assert any(root_hash in one["layers"] for one in self.containers)
            self.mounted[place] = root_hash

    @rule(place=st.sampled_from(DISKS))
    def unmount(self, place: str) -> None:
        if self.ask("unmount_device", {"unmountTarget": place}).allowed:
            assert all(place not in targets for targets in self.overlays.values())
            assert self.mounted.pop(place, None) is not None

    @rule(identity=st.sampled_from(IDS), places=st.lists(st.sampled_from(DISKS), max_size=3))
    def overlay(self, identity: str, places: list[str]) -> None:
        self._overlay(identity, places)

    @rule(identity=st.sampled_from(IDS), data=st.data())
    def run_what_the_policy_says(self, identity: str, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.containers), "container")
        self._mount_for(one, identity)
        self._create(self._fitting(one, identity))

    @rule(identity=st.sampled_from(IDS), data=st.data())
    def mount_for_a_container(self, identity: str, data: st.DataObject) -> None:
        self._mount_for(data.draw(st.sampled_from(self.containers), "container"), identity)

    def _mount_for(self, one: Json, identity: str) -> None:
        for layer in one["layers"]:
            free = [place for place in DISKS if place not in self.mounted]
            if layer not in self.mounted.values() and free:
                self.mount(free[0], layer)
        places = {root_hash: place for place, root_hash in self.mounted.items()}
        self._overlay(identity, [places.get(layer, DISKS[0]) for layer in reversed(one["layers"])])

    def _overlay(self, identity: str, targets: list[str]) -> None:
        request = {"containerID": identity, "layerPaths": targets, "target": rootfs(identity)}
        if self.ask("mount_overlay", request).allowed:
            hashes = [self.mounted[target] for target in reversed(targets)]
            assert any(one["layers"] == hashes for one in self.containers)
            assert identity not in self.overlays
            self.overlays[identity] = targets

    @precondition(lambda self: self.overlays)
    @rule(identity=st.sampled_from(IDS))
    def take_overlay_away(self, identity: str) -> None:
        if self.ask("unmount_overlay", {"unmountTarget": rootfs(identity)}).allowed:
            assert identity not in self.running
            assert self.overlays.pop(identity, None) is not None

    @rule(
        identity=st.sampled_from(IDS),
        command=st.sampled_from(COMMANDS),
        directory=st.sampled_from(DIRECTORIES),
        env=st.lists(st.sampled_from(ENV), unique=True, max_size=3),
        caps=CAPS,
        privileged=st.booleans(),
        no_new_privileges=st.booleans(),
    )
    def create(
        self,
        identity: str,
        command: list[str],
        directory: str,
        env: list[str],
        caps: Json,
        privileged: bool,
        no_new_privileges: bool,
    ) -> None:
        request = creation(containerID=identity, argList=command, workingDir=directory, envList=env, capabilities=caps)
        self._create({**request, "privileged": privileged, "noNewPrivileges": no_new_privileges})

    @precondition(lambda self: self.overlays.keys() - self.used)
    @rule(data=st.data())
    def create_as_the_policy_says(self, data: st.DataObject) -> None:
        identity = data.draw(st.sampled_from(sorted(self.overlays.keys() - self.used)), "id")
        hashes = [self.mounted[place] for place in reversed(self.overlays[identity])]
        one = data.draw(st.sampled_from([one for one in self.containers if one["layers"] == hashes]), "container")
        self._create(self._fitting(one, identity))

    @staticmethod
    def _fitting(one: Json, identity: str) -> Json:
        """The request that this container of the policy allows."""
        env = [rule["pattern"] for rule in one["env_rules"] if rule.get("strategy") == "string"]
        env += ["HOSTNAME=x"] if any(rule["required"] for rule in one["env_rules"]) else []
        return creation(
            containerID=identity,
            argList=one["command"],
            workingDir=one["working_dir"],
            envList=list(dict.fromkeys(env)),
            capabilities=one["capabilities"] or capabilities(),
        )

    def _create(self, request: Json) -> None:
        decision = self.ask("create_container", request)
        identity = request["containerID"]
        if not decision.allowed:
            return
        assert identity not in self.used, "an id was used twice"
        assert set(decision.env_list or ()) <= set(request["envList"])
        hashes = [self.mounted[target] for target in reversed(self.overlays[identity])]
        fits = [
            one
            for one in self.containers
            if one["layers"] == hashes
            and one["command"] == request["argList"]
            and one["working_dir"] == request["workingDir"]
            and (one["allow_elevated"] or not request["privileged"])
            and one["allow_stdio_access"] is decision.allow_stdio_access
        ]
        assert fits, "a container runs that the policy does not have"
        assert len(self.state.candidates(identity)) <= len(fits)
        self.used.add(identity)
        self.running[identity] = request

    @rule(identity=st.sampled_from(IDS), command=st.sampled_from(COMMANDS), data=st.data())
    def execute(self, identity: str, command: list[str], data: st.DataObject) -> None:
        changes: Json = data.draw(st.sampled_from([{}, {}, {"workingDir": "/x"}, {"envList": ["SECRET="]}]), "changes")
        self._execute(identity, command, changes)

    def _execute(self, identity: str, command: list[str], changes: Json) -> None:
        created = self.running.get(identity, creation())
        same = {name: created[name] for name in ("workingDir", "envList", "capabilities")}
        decision = self.ask(
            "exec_in_container", execution(containerID=identity, argList=command, **{**same, **changes})
        )
        if decision.allowed:
            assert identity in self.running
            assert "workingDir" not in changes
            candidates = self.state.candidates(identity)
            assert all(tuple(command) in [one.command for one in found.exec_processes] for found in candidates)

    @rule(identity=st.sampled_from(IDS), signal=SIGNALS, init=st.booleans(), command=st.sampled_from(COMMANDS))
    def signal(self, identity: str, signal: int, init: bool, command: list[str]) -> None:
        request = {"containerID": identity, "signal": signal, "isInitProcess": init, "argList": command}
        if self.ask("signal_container_process", request).allowed:
            assert identity in self.running
            assert not init or all(signal in found.signals for found in self.state.candidates(identity))

    @precondition(lambda self: self.used)
    @rule(identity=st.sampled_from(IDS))
    def shut_down(self, identity: str) -> None:
        if self.ask("shutdown_container", {"containerID": identity}).allowed:
            assert identity in self.used
            self.running.pop(identity, None)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def execute_what_the_policy_lists(self, data: st.DataObject) -> None:
        identity = data.draw(st.sampled_from(sorted(self.running)), "id")
        found = self.state.candidates(identity)
        processes = [process for one in found for process in one.exec_processes]
        if processes:
            process = data.draw(st.sampled_from(processes), "process")
            self._execute(identity, list(process.command), {})

    @rule(encrypted=st.booleans(), identity=st.sampled_from(IDS))
    def scratch(self, encrypted: bool, identity: str) -> None:
        target = f"/run/gcs/c/{identity}/scratch"
        assert encrypted or not self.ask("scratch_mount", {"target": target, "encrypted": encrypted}).allowed

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """What was asked last is asked of the state that it was asked of, after whatever came since."""
        point, request, decision, state = data.draw(st.sampled_from(self.log[-8:]))
        assert decide(self.policy, state, point, request)[0] == decision

    # -- always --------------------------------------------------------------------------------------------------

    @invariant()
    def what_an_id_can_be_only_narrows(self) -> None:
        for identity, candidates in self.state.matches.items():
            known = self.before.matches.get(identity)
            assert known is None or all(one in known for one in candidates)

    @invariant()
    def the_framework_knows_what_is_mounted(self) -> None:
        assert dict(self.state.devices) == self.mounted
        overlays = {overlay.container_id: list(overlay.layer_targets) for overlay in self.state.overlays.values()}
        assert overlays == self.overlays

    @invariant()
    def whatever_runs_has_its_layers(self) -> None:
        for identity in self.running:
            assert all(target in self.mounted for target in self.overlays[identity])

    @invariant()
    def a_used_id_stays_used(self) -> None:
        assert self.used == set(self.state.started)

    def teardown(self) -> None:
        if not self.log:
            return
        again, state = load(self.source.encode()), State.initial()
        for point, request, decision, _ in self.log:
            answer, state = decide(again, state, point, json.loads(json.dumps(request)))
            assert answer == decision, "the same history has led to another answer"
        if PROGRAM.exists():
            self.ask_the_engine()

    def ask_the_engine(self) -> None:
        """The same conversation, with every point decided by a rule that passes the framework's answer on."""
        policy = load_policy(_FORWARD.sub(r"\1 := object.union(data.framework.\2, {})", self.source).encode(), ENGINE)
        state = policy.initial_state()
        for point, request, decision, _ in self.log:
            answer, state = policy.decide(state, point, request)
            assert (answer.allowed, answer.env_list, answer.caps) == (
                decision.allowed,
                decision.env_list,
                decision.caps,
            )
            assert answer.allow_stdio_access == decision.allow_stdio_access
            assert answer.topics() == decision.topics()


ENGINE = new_engine()
"""Started with the first question, and ended with the tests."""
atexit.register(ENGINE.close)

Conversations.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestConversations = Conversations.TestCase
