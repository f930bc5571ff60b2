# SPDX-License-Identifier: Apache-2.0
"""Creating a container, and what happens in it: each field of a request is decided."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.framework.view import PRIVILEGED_CAPABILITIES
from tests.policy.builders import (
    CAPS,
    ID,
    OTHER_ID,
    SANDBOX,
    Json,
    Talk,
    capabilities,
    code,
    container,
    creation,
    execution,
    policy,
    rootfs,
)

DATA_MOUNT: Json = {
    "destination": "/data",
    "source": f"{SANDBOX}/tmp/empty/volume",
    "type": "bind",
    "options": ["rw", "rbind", "rshared"],
}


def create(request: Json, *containers: Json, **definitions: Any) -> Any:
    return Talk(policy(*containers, **definitions)).prepared().ask("create_container", request)


def test_what_the_policy_says_is_allowed() -> None:
    decision = create(creation())
    assert decision.allowed
    assert decision.env_list == ("PATH=/usr/bin:/bin",)
    assert list(decision.caps.bounding) == CAPS
    assert decision.allow_stdio_access
    assert not decision.add_module
    assert decision.message() == decision.hint() == ""


@pytest.mark.parametrize(
    ("change", "expected_code", "topic", "says"),
    [
        (
            {"argList": ["/bin/sh"]},
            "command",
            "invalid command",
            'expected "/bin/app" with 1 argument, got ["/bin/sh"]',
        ),
        ({"argList": []}, "command", "invalid command", "got []"),
        ({"argList": ["/bin/app --serve"]}, "command", "invalid command", "got"),
        ({"workingDir": "/"}, "working_dir", "invalid working directory", 'expected "/srv", got "/"'),
        ({"noNewPrivileges": False}, "no_new_privileges", "invalid noNewPrivileges", "expected true, got false"),
        ({"user": {"id": "0", "name": "root"}}, "user", "invalid user", 'expected id "1000", got 0 "root"'),
        ({"user": {"id": "1", "name": ""}}, "user", "invalid user", 'expected id "1000", got 1'),
        ({"groups": [{"id": "0", "name": "root"}]}, "group", "invalid user", 'expected id "1000", got 0 "root"'),
        ({"umask": "0000"}, "umask", "invalid user", 'expected 0022, got "0000"'),
        ({"privileged": True}, "privileged", "privileged escalation not allowed", "expected false, got true"),
        ({"seccompProfileSHA256": "ab"}, "seccomp", "invalid seccomp", "expected no profile, got SHA-256 ab"),
        ({"devices": ["/dev/kvm"]}, "devices", "devices not supported", "/dev/kvm"),
        ({"mounts": [{**DATA_MOUNT, "destination": "/etc"}]}, "mounts", "invalid mount list: /etc", "no mount there"),
        ({"mounts": [{**DATA_MOUNT, "source": "/etc"}]}, "mounts", "invalid mount list: /data", "sandbox:///tmp"),
        ({"mounts": [{**DATA_MOUNT, "type": "nfs"}]}, "mounts", "invalid mount list: /data", "got nfs"),
        ({"mounts": [{**DATA_MOUNT, "options": ["rw"]}]}, "mounts", "invalid mount list: /data", "options"),
        ({"envList": ["PATH=/usr/bin:/bin", "LD_PRELOAD=/x"]}, "env", "invalid env list: LD_PRELOAD", '"LD_PRELOAD"'),
        ({"envList": ["PATH=/evil"]}, "env", "invalid env list: PATH", "another value"),
        ({"envList": []}, "env_required", "missing required environment variable", 'expected "PATH"'),
        (
            {"envList": ["PATH=/usr/bin:/bin", "HOSTNAME=a", "HOSTNAME=b"]},
            "env_ambiguous",
            "invalid env list: HOSTNAME",
            "given twice",
        ),
        (
            {"capabilities": capabilities([*CAPS, "CAP_SYS_ADMIN"])},
            "capabilities",
            "capabilities don't match",
            "extra CAP_SYS_ADMIN",
        ),
        ({"capabilities": capabilities(CAPS[1:])}, "capabilities", "capabilities don't match", "missing CAP_CHOWN"),
        (
            {"capabilities": capabilities([*CAPS[1:], "CAP_BPF"])},
            "capabilities",
            "capabilities don't match",
            "got extra CAP_BPF; missing CAP_CHOWN;",
        ),
        (
            {"capabilities": capabilities([*CAPS, CAPS[0]])},
            "capabilities",
            "capabilities don't match",
            "one of them twice",
        ),
        (
            {"capabilities": {**capabilities(), "ambient": ["CAP_KILL"]}},
            "capabilities",
            "capabilities don't match",
            "ambient",
        ),
        ({"containerID": OTHER_ID}, "no_overlay", "invalid command", "no overlay"),
    ],
)
def test_one_change_is_denied_with_its_reason(change: Json, expected_code: str, topic: str, says: str) -> None:
    talk = Talk(policy()).prepared()
    before = talk.state
    decision = talk.ask("create_container", creation(**change))
    assert code(decision) == expected_code
    assert decision.reasons[0].topic == topic
    assert decision.message().startswith("create_container denied: ")
    assert says in decision.message()
    assert "\n" not in decision.message()
    assert talk.state is before


@pytest.mark.parametrize("variable", ["TOKEN=hunter2", "PATH=hunter2", "HOSTNAME="])
def test_values_of_variables_are_never_shown(variable: str) -> None:
    for dropping in (False, True):
        decision = create(creation(envList=["B=hunter2", variable]), allow_environment_variable_dropping=dropping)
        shown = decision.message() + decision.hint() + repr(decision.reasons)
        assert not decision.allowed
        assert "hunter2" not in shown
        assert "/usr/bin" not in shown


def test_the_reason_is_that_of_the_candidate_that_came_closest() -> None:
    near = container(command=["near"])
    far = container(command=["far"], working_dir="/far", no_new_privileges=True)
    decision = create(creation(argList=["near"], workingDir="/elsewhere"), far, near)
    assert [reason.code for reason in decision.reasons] == ["working_dir"]
    assert "/srv" in decision.message()


def test_among_equally_close_ones_the_right_command_counts() -> None:
    decision = create(
        creation(argList=["b"], workingDir="/x"), container(command=["a"], working_dir="/x"), container(command=["b"])
    )
    assert code(decision) == "working_dir"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ({"privileged": True}, {"allow_elevated": True}),
        ({"envList": ["PATH=/usr/bin:/bin", "A=1"]}, {}),
        ({"capabilities": capabilities([*CAPS, "CAP_SYS_ADMIN"])}, {}),
    ],
)
def test_what_is_allowed_or_dropped_does_not_make_a_candidate_less_close(asked: Json, allowed: Json) -> None:
    """The second is as close as the first, and has the right command."""
    first, second = container(command=["a"], **allowed), container(command=["b"], working_dir="/", **allowed)
    dropping = {"allow_environment_variable_dropping": True, "allow_capability_dropping": True}
    decision = create(creation(argList=["b"], **asked), first, second, **dropping)
    assert [(reason.code, reason.where) for reason in decision.reasons] == [
        ("working_dir", "containers[1].working_dir")
    ]


def test_of_equally_close_ones_with_the_right_command_the_first_counts() -> None:
    other_umask, elsewhere = container(), container(working_dir="/")
    other_umask["user"] = {**other_umask["user"], "umask": "0077"}
    for candidates, expected in (((other_umask, elsewhere), "umask"), ((elsewhere, other_umask), "working_dir")):
        assert [reason.code for reason in create(creation(), *candidates).reasons] == [expected]


def test_of_two_with_two_failing_rules_the_one_with_the_right_command_counts() -> None:
    wrong, right = container(command=["a"], working_dir="/"), container(command=["b"], working_dir="/")
    user = {**right["user"], "umask": "0077"}
    decision = create(creation(argList=["b"]), wrong, {**right, "user": user})
    assert [(reason.code, reason.where.partition(".")[0]) for reason in decision.reasons] == [
        ("working_dir", "containers[1]"),
        ("umask", "containers[1]"),
    ]


def test_all_failing_rules_of_the_closest_are_listed() -> None:
    decision = create(creation(argList=["x"], workingDir="/x", envList=[]))
    assert [reason.code for reason in decision.reasons] == ["command", "working_dir", "env_required"]


def test_long_values_are_shortened() -> None:
    assert len(create(creation(argList=["x" * 10_000])).message()) < 1000


def test_an_id_is_used_once() -> None:
    talk = Talk(policy()).created()
    assert code(talk.ask("create_container", creation())) == "already_started"
    assert talk.ask("shutdown_container", containerID=ID).allowed
    assert talk.ask("shutdown_container", containerID=ID).allowed
    assert code(talk.ask("create_container", creation())) == "already_started"


@pytest.mark.parametrize("parity", [False, True])
def test_an_overlay_that_was_unmounted_carries_no_container(parity: bool) -> None:
    talk = Talk(policy(parity=parity)).prepared()
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed
    decision = talk.ask("create_container", creation())
    assert decision.allowed is parity  # the reference leaves it to its guest
    assert parity or code(decision) == "not_mounted"


def test_the_policy_without_no_new_privileges_accepts_it_too() -> None:
    for given in (True, False):
        assert create(creation(noNewPrivileges=given), container(no_new_privileges=False)).allowed


def test_users_by_name_and_expression() -> None:
    user = {
        "user_idname": {"pattern": "app|daemon", "strategy": "re2"},
        "group_idnames": [{"pattern": "staff", "strategy": "name"}, {"pattern": "", "strategy": "any"}],
        "umask": "0022",
    }
    assert create(creation(user={"id": "5", "name": "daemon"}), container(user=user)).allowed
    denied = create(creation(user={"id": "5", "name": "root"}), container(user=user))
    assert 're2 "app|daemon"' in denied.message()
    named = {**user, "group_idnames": [{"pattern": "staff", "strategy": "name"}]}
    denied = create(creation(user={"id": "5", "name": "app"}), container(user=named))
    assert 'expected name "staff", got 1000 "app"' in denied.message()
    nobody = {**user, "group_idnames": []}
    assert "expected none" in create(creation(user={"id": "5", "name": "app"}), container(user=nobody)).message()


# -- capabilities ------------------------------------------------------------------------------------------------


def test_no_capabilities_in_the_policy_mean_the_defaults() -> None:
    plain = container(capabilities=None, allow_elevated=True)
    assert create(creation(), plain).allowed
    names = list(PRIVILEGED_CAPABILITIES)
    every = {**capabilities(names), "inheritable": names}
    assert create(creation(privileged=True, capabilities=every), plain).allowed
    assert not create(creation(privileged=False, capabilities=every), plain).allowed


def test_capabilities_are_dropped_where_the_policy_allows_it() -> None:
    asked = creation(capabilities=capabilities([*CAPS, "CAP_SYS_ADMIN"]))
    decision = create(asked, allow_capability_dropping=True)
    assert decision.allowed
    assert list(decision.caps.bounding) == CAPS
    too_few = creation(capabilities=capabilities(CAPS[1:]))
    assert code(create(too_few, allow_capability_dropping=True)) == "capabilities"


def test_dropping_capabilities_came_with_0_2_2() -> None:
    asked = creation(capabilities=capabilities([*CAPS, "CAP_SYS_ADMIN"]))
    assert not create(asked, allow_capability_dropping=True, framework_version="0.2.1").allowed


def test_containers_that_would_keep_other_capabilities_leave_no_answer() -> None:
    one, other = container(capabilities=capabilities(["CAP_KILL"])), container(capabilities=capabilities(["CAP_CHOWN"]))
    decision = create(creation(), one, other, allow_capability_dropping=True)
    assert code(decision) == "capabilities_undecidable"


# -- dropping variables ------------------------------------------------------------------------------------------


def test_variables_are_dropped_where_the_policy_allows_it() -> None:
    asked = creation(envList=["PATH=/usr/bin:/bin", "LD_PRELOAD=/x", "HOSTNAME=a"])
    decision = create(asked, allow_environment_variable_dropping=True)
    assert decision.env_list == ("PATH=/usr/bin:/bin", "HOSTNAME=a")


def test_a_required_variable_is_required_even_then() -> None:
    decision = create(creation(envList=["A=1"]), allow_environment_variable_dropping=True)
    assert [reason.code for reason in decision.reasons] == ["env_required"]


def test_what_is_dropped_is_not_ambiguous() -> None:
    asked = creation(envList=["PATH=/usr/bin:/bin", "A=1", "A=2"])
    assert create(asked, allow_environment_variable_dropping=True).allowed


def test_containers_that_would_keep_other_variables_leave_no_answer() -> None:
    def with_rule(name: str) -> Json:
        patterns = (f"{name}=1", "BOTH=1")
        return container(env_rules=[{"pattern": text, "strategy": "string", "required": False} for text in patterns])

    asked = creation(envList=["A=1", "B=1", "BOTH=1"])
    decision = create(asked, with_rule("A"), with_rule("B"), allow_environment_variable_dropping=True)
    assert code(decision) == "env_undecidable"
    assert 'got "A", "B"; to allow it' in decision.message()


def test_containers_that_differ_only_in_stdio_leave_no_answer() -> None:
    decision = create(creation(), container(), container(allow_stdio_access=False))
    assert code(decision) == "stdio_undecidable"
    assert decision.topics() == ("containers only distinguishable by allow_stdio_access",)
    many = create(creation(), *[container(allow_stdio_access=bool(number)) for number in range(10)])
    assert many.reasons[0].where == ", ".join(f"containers[{number}]" for number in range(10))[:100]


# -- exec --------------------------------------------------------------------------------------------------------


def test_a_listed_command_may_be_run() -> None:
    decision = Talk(policy()).created().ask("exec_in_container", execution())
    assert decision.allowed
    assert decision.env_list == ("PATH=/usr/bin:/bin",)
    assert decision.allow_stdio_access


def test_stdio_is_what_was_decided_at_creation() -> None:
    talk = Talk(policy(container(allow_stdio_access=False))).created()
    assert not talk.ask("exec_in_container", execution()).allow_stdio_access


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"argList": ["/bin/sh", "-c", "id"]}, "command"),
        ({"argList": ["/bin/app", "--serve"]}, "command"),
        ({"workingDir": "/"}, "working_dir"),
        ({"noNewPrivileges": False}, "no_new_privileges"),
        ({"user": {"id": "0", "name": "root"}}, "user"),
        ({"groups": [{"id": "0", "name": ""}]}, "group"),
        ({"umask": "0077"}, "umask"),
        ({"envList": ["PATH=/usr/bin:/bin", "A=1"]}, "env"),
        ({"envList": []}, "env_required"),
        ({"capabilities": capabilities([])}, "capabilities"),
        ({"containerID": OTHER_ID}, "not_started"),
    ],
)
def test_any_other_exec_is_denied(change: Json, expected: str) -> None:
    talk = Talk(policy()).created()
    before = talk.state
    assert code(talk.ask("exec_in_container", execution(**change))) == expected
    assert talk.state is before


def test_nothing_runs_in_a_container_without_listed_commands() -> None:
    talk = Talk(policy(container(exec_processes=[]))).created()
    assert "lists no exec_processes" in talk.ask("exec_in_container", execution()).message()


def test_nothing_runs_in_a_container_that_was_shut_down() -> None:
    talk = Talk(policy()).created()
    assert talk.ask("shutdown_container", containerID=ID).allowed
    assert code(talk.ask("exec_in_container", execution())) == "shut_down"
    signal = {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": None}
    assert code(talk.ask("signal_container_process", signal)) == "shut_down"


def test_nothing_runs_in_a_container_that_was_not_created() -> None:
    talk = Talk(policy()).prepared()
    assert code(talk.ask("exec_in_container", execution())) == "not_started"


def two() -> tuple[Json, Json]:
    """Two containers that differ only in what may be run in them and which signals they get."""
    return (
        container(exec_processes=[{"command": ["a"], "signals": [1]}], signals=[1]),
        container(exec_processes=[{"command": ["b"], "signals": [2]}], signals=[2]),
    )


def test_an_exec_decides_which_container_it_is() -> None:
    talk = Talk(policy(*two())).created()
    assert len(talk.state.candidates(ID)) == 2
    assert talk.ask("exec_in_container", execution(argList=["a"])).allowed
    assert len(talk.state.candidates(ID)) == 1
    assert code(talk.ask("exec_in_container", execution(argList=["b"]))) == "command"


# -- signals -----------------------------------------------------------------------------------------------------


def signal(number: int, command: list[str] | None = None) -> Json:
    return {"containerID": ID, "signal": number, "isInitProcess": command is None, "argList": command}


def test_a_signal_decides_which_container_it_is() -> None:
    talk = Talk(policy(*two())).created()
    assert talk.ask("signal_container_process", signal(2)).allowed
    assert code(talk.ask("signal_container_process", signal(1))) == "signal"
    assert code(talk.ask("exec_in_container", execution(argList=["a"]))) == "command"


def test_signals_of_other_processes_are_listed_with_their_command() -> None:
    talk = Talk(policy()).created()
    assert talk.ask("signal_container_process", signal(9, ["/bin/sh"])).allowed
    denied = talk.ask("signal_container_process", signal(1, ["/bin/sh"]))
    assert "expected one of [9, 15], got 1" in denied.message()
    assert (
        'command ["/bin/cat"] receive: expected none'
        in talk.ask("signal_container_process", signal(9, ["/bin/cat"])).message()
    )
    assert code(talk.ask("signal_container_process", signal(9))) == "signal"


def test_signals_need_a_container() -> None:
    talk = Talk(policy()).prepared()
    assert code(talk.ask("signal_container_process", signal(15))) == "not_started"
    assert code(talk.ask("shutdown_container", containerID=ID)) == "not_started"
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed


def test_every_group_of_a_process_must_be_one_of_those_in_the_policy() -> None:
    user = {
        "user_idname": {"pattern": "", "strategy": "any"},
        "group_idnames": [{"pattern": gid, "strategy": "id"} for gid in ("1000", "2000")],
        "umask": "0022",
    }
    for groups, allowed in (
        (("1000", "2000"), True),
        (("2000",), True),
        (("1000", "0"), False),
        (("0", "2000"), False),
    ):
        talk = Talk(policy(container(user=user))).prepared()
        asked = creation(groups=[{"id": gid, "name": ""} for gid in groups])
        assert talk.ask("create_container", asked).allowed is allowed, groups


def test_a_variable_given_twice_is_for_the_reference_only() -> None:
    asked = creation(envList=["PATH=/usr/bin:/bin", "HOSTNAME=a", "HOSTNAME=b"])
    assert code(create(asked)) == "env_ambiguous"
    assert Talk(policy(parity=True)).prepared().ask("create_container", asked).allowed


def test_an_expression_for_any_variable_is_none_for_those_that_load_code_but_in_the_reference() -> None:
    rules = [{"pattern": "[A-Z_]+=.+", "strategy": "re2", "required": False}]
    asked = creation(envList=["PATH=/usr/bin:/bin", "LD_PRELOAD=/x"])
    decision = create(asked, container(env_rules=rules))
    assert [reason.code for reason in decision.reasons] == ["env"]
    assert Talk(policy(container(env_rules=rules), parity=True)).prepared().ask("create_container", asked).allowed
    dropping = Talk(policy(container(env_rules=rules), allow_environment_variable_dropping=True)).prepared()
    assert dropping.ask("create_container", asked).env_list == ("PATH=/usr/bin:/bin",)


def test_what_no_candidate_may_have_is_told_before_what_is_given_twice() -> None:
    assert code(create(creation(envList=["PATH=/usr/bin:/bin", "PATH=/evil"]))) == "env"


def test_a_privileged_request_has_privileged_defaults_only_where_it_may_be_privileged() -> None:
    names = list(PRIVILEGED_CAPABILITIES)
    asked = creation(privileged=True, capabilities={**capabilities(names), "inheritable": names})
    decision = create(asked, container(capabilities=None))
    assert [reason.code for reason in decision.reasons] == ["privileged", "capabilities"]
