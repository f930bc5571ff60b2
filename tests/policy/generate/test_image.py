# SPDX-License-Identifier: Apache-2.0
"""Generated policies: what is in them, and that they allow what containerd's default specification asks for."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.accounts import Account, resolve
from parma_policy.framework.view import PRIVILEGED_CAPABILITIES
from parma_policy.generate import (
    DEFAULT_PATH,
    Image,
    Mount,
    Switches,
    Wish,
    container_for,
    generate,
    signal_number,
)
from parma_policy.reader import load
from parma_policy.summary import as_json, as_text
from parma_wire.errors import Malformed, NotFound
from tests.policy.builders import LAYERS, Talk, capabilities, code, creation, execution, policy

PASSWD = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\napp:x:1000:100::/:\nbroken\nbad:x:y:z::/:\n"
GROUP = b"root:x:0:\nwheel:x:10:root,app\nusers:x:100:\nextra:x:7:other,app\nbroken\n"


def image(**config: Any) -> Image:
    return Image(config, LAYERS, PASSWD, GROUP)


def talk_about(given: Image, wish: Wish | None = None, switches: Switches | None = None) -> Talk:
    return Talk(load(generate([container_for(given, wish or Wish())], switches).encode())).prepared()


def asked(**changes: Any) -> dict[str, Any]:
    """What ``ctr run`` asks for an image that says nothing but its command."""
    root = {"id": "0", "name": "root"}
    groups = [root, {"id": "10", "name": "wheel"}]
    good = {"argList": ["/bin/app"], "envList": [DEFAULT_PATH], "workingDir": "/", "user": root, "groups": groups}
    return creation(**{**good, **changes})


def test_the_default_specification_is_allowed() -> None:
    talk = talk_about(image(Cmd=["/bin/app"]))
    assert talk.ask("create_container", asked()).allowed


def test_with_a_terminal_term_is_set() -> None:
    talk = talk_about(image(Cmd=["/bin/app"]))
    assert talk.ask("create_container", asked(envList=[DEFAULT_PATH, "TERM=xterm"])).allowed


def test_what_the_image_says_is_expected() -> None:
    config = {
        "Entrypoint": ["/entry"],
        "Cmd": ["a", "b"],
        "Env": ["PATH=/bin", "A=b=c", "TERM=dumb"],
        "WorkingDir": "/srv",
        "User": "app",
        "StopSignal": "SIGRTMIN+3",
    }
    talk = talk_about(image(**config))
    request = asked(
        argList=["/entry", "a", "b"],
        envList=["PATH=/bin", "A=b=c", "TERM=dumb"],
        workingDir="/srv",
        user={"id": "1000", "name": "app"},
        groups=[{"id": "100", "name": "users"}, {"id": "10", "name": "wheel"}, {"id": "7", "name": "extra"}],
    )
    for field, value in (("envList", ["PATH=/bin", "A=b=c"]), ("workingDir", "/"), ("argList", ["/entry"])):
        assert not talk.ask("create_container", {**request, field: value}).allowed
    assert talk.ask("create_container", request).allowed
    container_id = request["containerID"]
    for signal, allowed in ((37, True), (15, True), (9, True), (17, False)):
        sent = {"containerID": container_id, "signal": signal, "isInitProcess": True, "argList": []}
        assert talk.ask("signal_container_process", sent).allowed is allowed


def test_what_is_wished_for_is_expected() -> None:
    wish = Wish(
        command=("/bin/echo", "hi"),
        env=("A=2", "B=1"),
        execs=(("/bin/true",),),
        signals=(30,),
        mounts=(Mount("/data", "/src", "bind", ("ro",)),),
        user="1:2",
        working_dir="/tmp",
        stdio=False,
    )
    talk = talk_about(image(Cmd=["x"], Env=["A=1"]), wish)
    request = asked(
        argList=["/bin/echo", "hi"],
        envList=["A=2", "B=1"],
        workingDir="/tmp",
        user={"id": "1", "name": "daemon"},
        groups=[{"id": "2", "name": ""}],
        mounts=[{"destination": "/data", "source": "/src", "type": "bind", "options": ["ro"]}],
    )
    decision = talk.ask("create_container", request)
    assert decision.allowed
    assert not decision.allow_stdio_access
    run = execution(**{name: request[name] for name in ("envList", "workingDir", "user", "groups")})
    assert talk.ask("exec_in_container", {**run, "argList": ["/bin/true"]}).allowed
    assert code(talk.ask("exec_in_container", {**run, "argList": ["/bin/sh"]})) == "command"


def test_privileged_has_every_capability_and_may_gain_privileges() -> None:
    talk = talk_about(image(Cmd=["/bin/app"]), Wish(privileged=True))
    request = asked(privileged=True, noNewPrivileges=False, capabilities=capabilities(PRIVILEGED_CAPABILITIES))
    assert talk.ask("create_container", request).allowed


def test_the_flags_are_as_wished() -> None:
    assert talk_about(image(Cmd=["a"])).ask("get_properties").allowed
    assert not talk_about(image(Cmd=["a"]), switches=Switches(properties_access=False)).ask("get_properties").allowed
    ports = Switches(forward_ports=(9, 8080, 9))
    assert "forward_ports := [9, 8080]" in generate([container_for(image(Cmd=["a"]), Wish())], ports)
    assert talk_about(image(Cmd=["a"]), switches=ports).ask("forward_port", port=8080).allowed
    assert not talk_about(image(Cmd=["a"])).ask("forward_port", port=8080).allowed
    assert talk_about(image(Cmd=["a"]), switches=Switches(runtime_logging=True)).ask("runtime_logging").allowed
    assert not talk_about(image(Cmd=["a"])).ask("dump_stacks").allowed


def test_the_text_is_the_same_every_time_and_has_no_places_or_times_in_it() -> None:
    def made() -> str:
        return generate([container_for(image(Cmd=["a"], Env=["B=1", "A=1"]), Wish(signals=(30, 20)))])

    assert made() == made()
    assert made().startswith("package policy\n")
    assert made().isascii()


def test_a_name_is_kept_where_there_is_one() -> None:
    named = Image({"Cmd": ["a"]}, LAYERS, name="example/app:1")
    assert load(generate([container_for(named, Wish())]).encode()).containers.containers[0].name == "example/app:1"
    assert "name" not in container_for(image(Cmd=["a"]), Wish())


@pytest.mark.parametrize(
    ("config", "wish", "error", "says"),
    [
        ({}, Wish(), Malformed, "no command"),
        ({"Cmd": "a"}, Wish(), Malformed, "wrong Cmd"),
        ({"Cmd": [1]}, Wish(), Malformed, "wrong Cmd"),
        ({"Cmd": ["a"], "User": 5}, Wish(), Malformed, "wrong User"),
        ({"Cmd": ["a"], "User": "nobody"}, Wish(), NotFound, "no user 'nobody'"),
        ({"Cmd": ["a"], "User": "app:nogroup"}, Wish(), NotFound, "no group 'nogroup'"),
        ({"Cmd": ["a"], "User": "99999999999"}, Wish(), Malformed, "too large"),
        ({"Cmd": ["a"], "Env": ["NOVALUE"]}, Wish(), Malformed, "NAME=value"),
        ({"Cmd": ["a"]}, Wish(env=("=1",)), Malformed, "NAME=value"),
        ({"Cmd": ["a"], "StopSignal": "SIGNOT"}, Wish(), Malformed, "unknown signal"),
    ],
)
def test_what_does_not_fit_is_an_error(config: dict[str, Any], wish: Wish, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        container_for(image(**config), wish)


def test_a_policy_that_the_reader_would_refuse_is_not_made() -> None:
    with pytest.raises(Malformed, match="no layers"):
        generate([container_for(Image({"Cmd": ["a"]}, ()), Wish())])


@pytest.mark.parametrize(
    ("name", "number"),
    [("15", 15), ("TERM", 15), ("SIGTERM", 15), ("term", 15), ("SIGRTMIN+3", 37), ("RTMIN+0", 34)],
)
def test_names_of_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["0", "65", "", "SIG", "SIGRTMIN+31", "SIGRTMIN+x", "-9"])
def test_what_is_no_signal(name: str) -> None:
    with pytest.raises(Malformed, match="unknown signal"):
        signal_number(name)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Account(0, 0, (0, 10))),
        ("0", Account(0, 0, (0, 10))),
        ("root", Account(0, 0, (0, 10))),
        ("app", Account(1000, 100, (7, 10, 100))),
        ("1000", Account(1000, 100, (7, 10, 100))),
        ("1000:5", Account(1000, 5, (5, 7, 10))),
        ("app:users", Account(1000, 100, (7, 10, 100))),
        ("4242", Account(4242, 0, (0,))),
        ("4242:4243", Account(4242, 4243, (4243,))),
    ],
)
def test_accounts_are_resolved_as_containerd_does(user: str, expected: Account) -> None:
    assert resolve(user, PASSWD, GROUP) == expected


def test_without_account_files_numbers_work() -> None:
    assert resolve("", b"", b"") == Account(0, 0, (0,))
    assert resolve("5:6", b"", b"") == Account(5, 6, (6,))
    assert resolve("app", b"\xff:x:1:1\napp:x:3:4", b"app:x:9").gid == 4


# -- summaries ---------------------------------------------------------------------------------------------------


def test_the_summary_says_what_may_run() -> None:
    wish = Wish(execs=(("/bin/true",),), mounts=(Mount("/data", "/src", "bind", ()),))
    loaded = load(generate([container_for(Image({"Cmd": ["a b"]}, LAYERS, name="img"), wish)]).encode())
    shown = as_text(loaded)
    assert loaded.sha256.hex() in shown
    for part in ('["a b"]', "Container 1 (img)", "/data", '["/bin/true"]', "PATH", "id 0", "allow_properties_access"):
        assert part in shown
    assert DEFAULT_PATH not in shown


def test_the_summary_names_what_is_wrong_and_what_is_delegated() -> None:
    process = {"command": ["tool"], "env_rules": [], "working_dir": "/", "allow_stdio_access": True}
    delegated = {"issuer": "someone", "feed": "f", "minimum_svn": 1, "includes": ["containers", "fragments"]}
    shown = as_text(policy(external_processes=[process], fragments=[delegated], without=["get_properties"]))
    assert '["tool"]' in shown
    assert "someone, feed f: containers, fragments" in shown
    assert "No rule for: get_properties" in shown
    broken = as_text(policy(api_version=None, framework_version="9.0.0"))
    assert "Nothing is allowed: policy does not define api_version" in broken
    assert "No container can run" in broken


def test_the_summary_for_programs_has_the_same() -> None:
    found: dict[str, Any] = as_json(policy())
    assert found["problems"] == []
    (container,) = found["containers"]
    assert container["command"] == ["/bin/app", "--serve"]
    assert container["env"] == ["PATH", "HOSTNAME (optional)"]
