# SPDX-License-Identifier: Apache-2.0
"""The hostile host: attacks that others fell for, against the real enforcer, over the real wire protocol.

``rows.toml`` is the table: each attack, its outcome, and the tests that show it. ``inventory.toml`` lists everything
that the host controls in the guest. Tests hold both complete; ``./dev hostile`` prints the first, ``./dev docs`` makes
docs/hostile-host.md and docs/host-inputs.md of them.

Tests in a module ``test_vm_*`` attack the enforcer in a booted guest, mostly the same one: a refused attack must leave
it usable. What needs no kernel is in ``test_wire_*``: the same enforcer and policy engine over a socket pair.
``test_guest_*`` turns the table: a hostile guest against the shim.
"""
