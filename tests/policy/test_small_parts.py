# SPDX-License-Identifier: Apache-2.0
"""Versions, patterns and rules by themselves."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from parma_policy.framework.matching import ambiguous_variables, clean_path
from parma_policy.framework.narrowing import choose_capabilities, choose_env, drops_capabilities
from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES
from parma_policy.model import Capabilities, EnvRule, EnvRules
from parma_policy.patterns import PatternCache, TextPattern, anchored, compile_anchored, expression_set
from parma_policy.versions import Version, version
from tests.policy.builders import policy

ORDERED = ["0.0.1", "0.1.0", "0.9.0", "0.10.0", "1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-a", "1.0.0-a.1", "1.0.0"]


def test_versions_are_ordered_as_semver_says() -> None:
    parsed = [version(text) for text in ORDERED]
    assert sorted(parsed) == parsed
    assert all(a < b for a, b in itertools.pairwise(parsed))
    assert [str(one) for one in parsed] == ORDERED


def test_build_metadata_does_not_count() -> None:
    assert version("1.2.3+a") == version("1.2.3+b")
    assert len({version("1.2.3+a"), version("1.2.3")}) == 1
    assert version("1.2.3") != "1.2.3"


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "vv1.2.3", "1.2.3-", "1.2.x", " 1.2.3", "1.2.٣", "1" * 99])
def test_what_is_no_version(text: str) -> None:
    assert Version.parse(text) is None


@pytest.mark.parametrize("text", ["v1.2.3", "01.2.3", "1.02.003"])
def test_a_version_is_read_as_rego_reads_it(text: str) -> None:
    assert Version.parse(text) == version("1.2.3")


def test_a_constant_version_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"1\.2"):
        version("1.2")


@pytest.mark.parametrize(
    ("expression", "good"),
    [(r"A=\C", False), (r"\\\C", False), (r"\Q\E\C", False), (r"\\C", True), (r"\Q\C\E", True), (r"\Qa\E\Qb\C", True)],
)
def test_an_expression_for_any_byte_is_refused_as_the_reference_does(expression: str, good: bool) -> None:
    assert (compile_anchored(expression) is not None) is good


@pytest.mark.parametrize(
    ("expression", "expected"), [("a", "^a$"), ("^a", "^a$"), ("a$", "^a$"), ("^a$", "^a$"), ("a|b", "^a|b$")]
)
def test_anchors_are_added_as_text(expression: str, expected: str) -> None:
    assert anchored(expression) == expected


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [
        ("A=.+", "A=1", True),
        ("A=.+", "A=", False),
        ("A=.+", "A=1\n", False),
        ("A=.", "A=é", True),
        ("A=1|B=2", "A=1junk", True),
        ("(?i)fabric_.+", "FABRIC_x", True),
        (r"A=\d", "A=٣", False),
        ("a(?=b)", "ab", False),
        (r"(a)\1", "aa", False),
    ],
)
def test_expressions_are_re2(expression: str, text: str, expected: bool) -> None:
    assert PatternCache().make(expression, "re2").matches(text) is expected


def test_an_unknown_strategy_matches_nothing() -> None:
    assert not TextPattern("a", "unknown").matches("a")
    assert TextPattern("a", "unknown").valid


def rules(*patterns: tuple[str, bool]) -> EnvRules:
    return EnvRules(tuple(EnvRule(TextPattern(text), None, required) for text, required in patterns))


def named(name: str, value: str) -> EnvRule:
    cache = PatternCache()
    return EnvRule(cache.make(name, "re2"), cache.make(value, "re2"), required=True)


def test_a_rule_on_name_and_value_needs_an_equals_sign() -> None:
    rule = named("A", ".*")
    assert rule.matches("A=")
    assert rule.matches("A=b=c")
    assert not rule.matches("A")
    assert not rule.matches("B=1")


CODE = (
    *("LD_PRELOAD=/x", "LD_AUDIT=/x", "LD_LIBRARY_PATH=/x", "PYTHONPATH=/x", "PYTHONSTARTUP=/x", "BASH_ENV=/x"),
    *("BASH_FUNC_ls%%=() { x; }", "GCONV_PATH=/x", "GLIBC_TUNABLES=a=1", "PERL5OPT=-Mx", "RUBYOPT=-rx", "PHPRC=/x"),
    *(
        "NODE_OPTIONS=-r/x",
        "JAVA_TOOL_OPTIONS=-javaagent:/x",
        "_JAVA_OPTIONS=x",
        "JDK_JAVA_OPTIONS=x",
        "LUA_INIT_5_4=x",
    ),
)
WIDE = ("(?s).+", "[^=]+=.*", "(?i)ld_.+=.+|.+", "[A-Z_0-9%a-z]+=.+")


@pytest.mark.parametrize("variable", CODE)
def test_what_loads_code_is_accepted_by_its_name_alone(variable: str) -> None:
    name, _, value = variable.partition("=")
    cache = PatternCache()
    wide = [EnvRule(cache.make(text, "re2"), None, required=False) for text in WIDE]
    assert not EnvRules((*wide, named(".+", ".+"))).accepts(variable)
    assert EnvRules(tuple(replace(rule, parity=True) for rule in wide)).accepts(variable)
    for rule in (
        EnvRule(cache.make(variable, "string"), None, required=False),
        EnvRule(cache.make(f"{name}=.+", "re2"), None, required=False),
        EnvRule(cache.make(f"(OTHER|{name})=.+", "re2"), None, required=False),
        named(name, ".+"),
        EnvRule(cache.make(name, "string"), cache.make(value, "string"), required=False),
    ):
        assert EnvRules((*wide, rule)).accepts(variable)


@pytest.mark.parametrize(
    "variable", ["PYTHON_APP_SERVICE_HOST=10.0.0.1", "LD=ld", "ENV=test", "JAVA_HOME=/x", "XLD_A=1"]
)
def test_what_only_looks_like_it_is_a_variable_as_any_other(variable: str) -> None:
    assert EnvRule(PatternCache().make("[A-Z_]+=.+", "re2"), None, required=False).matches(variable)


def test_required_rules_need_a_variable() -> None:
    needed = EnvRules((*rules(("A=1", True), ("B=1", False)).rules, named("C", "[0-9]")))
    assert needed.allow(("A=1", "C=3"))
    assert needed.allow(("A=1", "B=1", "C=3"))
    assert not needed.allow(("C=3",))
    assert not needed.allow(("A=1",))
    assert not needed.allow(("A=1", "C=3", "D=1"))
    assert [rule.describe() for rule in needed.unmet(())] == ["A", "C"]
    assert needed.unaccepted(("D=1", "A=1")) == ["D=1"]


def test_the_largest_subset_of_variables_is_kept() -> None:
    small, large = rules(("A=1", False)), rules(("A=1", False), ("B=1", False))
    choice = choose_env([small, large], lambda one: one, ("A=1", "B=1", "C=1"), dropping=True)
    assert choice.kept == ("A=1", "B=1")
    assert choice.candidates == (large,)


def test_equally_large_subsets_leave_no_answer() -> None:
    a, b = rules(("A=1", False)), rules(("B=1", False))
    choice = choose_env([a, b], lambda one: one, ("A=1", "B=1"), dropping=True)
    assert choice.candidates == ()
    assert set(choice.undecided) == {("A=1",), ("B=1",)}


def test_dropping_cannot_help_what_is_required() -> None:
    choice = choose_env([rules(("A=1", True))], lambda one: one, ("B=1",), dropping=True)
    assert (choice.candidates, choice.kept, choice.undecided) == ((), (), ())


def test_an_unknown_framework_version_drops_no_capabilities() -> None:
    assert not drops_capabilities(policy(framework_version="x", allow_capability_dropping=True))


def test_capabilities_are_compared_as_sets_of_equal_length() -> None:
    assert Capabilities(("A", "B")).same_as(Capabilities(("B", "A")))
    assert not Capabilities(("A", "A")).same_as(Capabilities(("A",)))
    assert not Capabilities(("A",)).same_as(Capabilities(effective=("A",)))


def test_capabilities_are_dropped_to_the_largest_intersection() -> None:
    given = Capabilities(("A", "B", "C"))
    small, large = Capabilities(("A",)), Capabilities(("A", "B"))
    choice = choose_capabilities([small, large], lambda one: one, given, dropping=True)
    assert choice.candidates == (large,)
    assert choice.kept.bounding == ("A", "B")


def test_equally_large_intersections_leave_no_answer() -> None:
    offers = [Capabilities(("A",)), Capabilities(("B",))]
    choice = choose_capabilities(offers, lambda one: one, Capabilities(("A", "B")), dropping=True)
    assert choice.undecided
    assert choice.candidates == ()


@pytest.mark.parametrize("path", ["/", "/a", "/a/b/", "a", "tmpfs", "/a/..b", "/a/.b"])
def test_clean_paths(path: str) -> None:
    assert clean_path(path)


@pytest.mark.parametrize("path", ["..", "/a/../b", "/a/..", "/./a", "//a", "/a//b", "sandbox:///a"])
def test_unclean_paths(path: str) -> None:
    assert not clean_path(path)


def test_variables_given_twice() -> None:
    assert ambiguous_variables(("A=1", "B=1", "A=1")) == []
    assert ambiguous_variables(("A=1", "B=1", "A=2", "A=3")) == ["A"]


@pytest.mark.parametrize("variable", ["A=1", "B=x", "C=2", "D=1junk", "E=1", "A=", "B=x\n", "F"])
def test_many_expressions_together_mean_the_same_as_one_by_one(variable: str) -> None:
    cache = PatternCache()
    texts = ["A=[0-9]", "(?i)b=.+", "C=2|D=1", "F(?=x)", "("]
    singly = [EnvRule(cache.make(text, "re2"), None, required=False) for text in texts]
    assert EnvRules(tuple(singly)).accepts(variable) == any(rule.matches(variable) for rule in singly)


def test_a_set_of_expressions_finds_each() -> None:
    found = expression_set(("A=[0-9]", "B=.", "C=."))
    assert found is not None
    assert [found(text) for text in ("A=1", "B=é", "D=1")] == [True, True, False]


LINUX = (  # in the order of their numbers
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CONTAINERD = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)


def test_default_capabilities_are_those_of_containerd_and_for_the_privileged_all_of_linux() -> None:
    assert set(UNPRIVILEGED_CAPABILITIES) == {f"CAP_{word}" for word in CONTAINERD.split()}
    assert set(PRIVILEGED_CAPABILITIES) == {f"CAP_{word}" for word in LINUX.split()}
    for names in (UNPRIVILEGED_CAPABILITIES, PRIVILEGED_CAPABILITIES):
        assert len(set(names)) == len(names)
