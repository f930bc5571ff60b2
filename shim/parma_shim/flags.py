# SPDX-License-Identifier: Apache-2.0
"""The shim's command line, parsed as Go's ``flag`` package does (tier 0: cheap imports only).

containerd calls ``-namespace NS -address A -publish-binary B -id ID [-bundle D] [-debug] start|delete``; ``-x v``,
``--x v`` and ``-x=v`` are the same thing, and parsing stops at the first word that is not a flag.
"""

STRINGS = frozenset({"namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket"})
SWITCHES = frozenset({"debug", "v", "version", "info"})

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Invocation:
    """One call of the binary: the flags that were given and the action word (empty when there is none)."""

    __slots__ = ("action", "strings", "switches")

    def __init__(self, strings: dict[str, str], switches: frozenset[str], action: str) -> None:
        self.strings = strings
        self.switches = switches
        self.action = action

    def get(self, name: str) -> str:
        """The value of a string flag, empty when it was not given."""
        return self.strings.get(name, "")

    def require(self, name: str) -> str:
        """The value of a string flag.

        Raises:
            Malformed: it is absent or empty.
        """
        value = self.get(name)
        if not value:
            _refuse(f"the flag -{name} is missing", "containerd starts this program; see `parma --help` for people")
        return value


def _refuse(message: str, hint: str) -> None:
    from parma_wire.errors import Malformed  # not on the fast path: it pulls in `typing`

    raise Malformed(message, hint=hint)


def parse(arguments: list[str]) -> Invocation:
    """Splits the words after the program's name.

    Raises:
        Malformed: an unknown flag, a flag without its value, or a switch with a value that is not boolean.
    """
    strings: dict[str, str] = {}
    switches: set[str] = set()
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if len(word) < 2 or word[0] != "-":
            break
        position += 1
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name in SWITCHES:
            _set_switch(switches, name, value if equals else "true")
        elif name in STRINGS:
            if not equals:
                if position == len(arguments):
                    _refuse(f"the flag -{name} needs a value", "give it as the next word")
                value = arguments[position]
                position += 1
            strings[name] = value
        else:
            _refuse(f"unknown flag {word}", "known: -" + " -".join(sorted(STRINGS | SWITCHES)))
    action = arguments[position] if position < len(arguments) else ""
    return Invocation(strings, frozenset(switches), action)


def _set_switch(switches: set[str], name: str, value: str) -> None:
    if value in _TRUE:
        switches.add(name)
    elif value in _FALSE:
        switches.discard(name)
    else:
        _refuse(f"the flag -{name} takes true or false, not {value!r}", f"-{name} alone means true")
