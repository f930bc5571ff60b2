# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest's own interpreter at build time, as a script; standard library only, and as little as possible.

``closure DIR:DIR HIDDEN:HIDDEN NAME...``
    imports the modules and prints every module that is then loaded, as a Python literal: a list of (name, origin).
    Hidden ones are as if they did not exist.
``compile``
    reads lines ``SOURCE<TAB>TARGET<TAB>NAME`` from standard input; writes each TARGET, the byte code of
    SOURCE, to run as if it were the file NAME.
"""

import sys


def closure(path: str, hidden: str, names: list[str]) -> None:
    sys.path[:0] = path.split(":")
    sys.modules.update(dict.fromkeys(hidden.split(":")))  # type: ignore[arg-type]  # None: there is no such module
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
            sys.exit(3)
    found = set()
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None:
            found.add((spec.name, spec.origin or ""))
        elif name != "__main__" and getattr(module, "__file__", None):  # a module that put something in its own place
            found.add((name, module.__file__))
    print(sorted(found))


def compile_all() -> None:
    import _imp
    from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]

    for line in sys.stdin:
        source, target, name = line.rstrip("\n").split("\t")
        with open(source, "rb") as file:
            text = file.read()
        code = compile(text, name, "exec", dont_inherit=True)
        # Not checked against a source at run time: there is none in the guest.
        data = _code_to_hash_pyc(code, _imp.source_hash(0, text), False)
        with open(target, "wb") as file:
            file.write(data)


if __name__ == "__main__":
    if sys.argv[1] == "closure":
        closure(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        compile_all()
