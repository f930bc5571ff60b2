# SPDX-License-Identifier: Apache-2.0
"""Where Parma refuses what the reference enforcer accepts.

``load(data, parity=True)`` switches these off: decisions then are the reference's, for comparison with recorded ones.
A guest never does that.
"""

from __future__ import annotations

from typing import Final

STRICTER: Final[dict[str, str]] = {
    "load.custom-rules": (
        "A policy with Rego rules of its own, or with constant answers for enforcement points, is refused when it is "
        "loaded; also in parity mode. The 'rego' variant of the guest image has an engine for them."
    ),
    "rego.built-in-functions": (
        "Rules of a policy's own may not call functions that depend on anything but their arguments (clock, network, "
        "randomness, environment): the policy is refused when it is loaded."
    ),
    "rego.framework": (
        "Rules of a policy's own see of data.framework its answer at each enforcement point, errors, error_objects and "
        "reason; of data.metadata everything but issuers and fragment_parameters. Referring to anything else, or to "
        "something whose name is computed, is refused when the policy is loaded."
    ),
    "rego.records": (
        "Rules of a policy's own cannot make up what the framework records: no container that is not in the policy, "
        "no fragment that was not loaded."
    ),
    "load.unknown-names": (
        "Unknown definitions and unknown members of objects are refused when the policy is loaded; the reference "
        "ignores them."
    ),
    "load.missing-members": (
        "A container that lacks a member, or has one of the wrong type, is refused when the policy is loaded; in the "
        "reference it silently never matches."
    ),
    "load.layers": "A container without layers, or with something that is no SHA-256 root hash, is refused at load.",
    "load.forms": (
        "A umask that is not four octal digits, a capability that is listed twice or is no capability's name, and a "
        "seccomp digest that is no SHA-256 are refused at load."
    ),
    "load.parameters": (
        "A fragment that uses a parameter without a value is denied; in the reference the definition that uses it is "
        "left out."
    ),
    "load.bad-expression": (
        "An expression that RE2 refuses is refused at load; in the reference it never matches. The reference also "
        "knows newer names of Unicode classes, like \\p{Letter} for \\pL."
    ),
    "load.unknown-strategy": "An unknown pattern strategy is refused at load; in the reference it never matches.",
    "mount-device.unusable-version": (
        "With a framework_version that makes the policy's containers unusable, their layers cannot be mounted either; "
        "the reference mounts them and denies the overlay."
    ),
    "trust-list.version": (
        "A policy's transparency_trust_lists count from framework_version 0.5.0 on, as a fragment's do; the reference "
        "takes the policy's own whatever its version."
    ),
    "mount.unclean": (
        "A mount whose source or destination has a '.' or '..' component or an empty one is denied: an expression "
        "like '.+' would accept it."
    ),
    "mount.literal-prefix": (
        "The directory put in for 'sandbox://' and 'hugepages://' is compared literally, and the expression behind it "
        "is anchored on its own; in the reference both are one expression, so that an alternation escapes the "
        "directory."
    ),
    "env.ambiguous": "Two different values for one environment variable are denied.",
    "env.loads-code": (
        "A variable that tells a loader or an interpreter what code to run (LD_PRELOAD and all LD_*, PYTHONPATH and "
        "its like, BASH_ENV, NODE_OPTIONS, JAVA_TOOL_OPTIONS, ...) is accepted only by a rule in which its name is "
        "spelled; in the reference '[A-Z_]+=.+' accepts them all."
    ),
    "request.text": "Strings with NUL characters, or without a UTF-8 form, are malformed in any request.",
    "overlay.empty": "An overlay of no layers is denied.",
    "create.overlay-gone": (
        "A container cannot be created on an overlay that was unmounted again. The reference remembers which "
        "containers an id can be, whatever became of its overlay, and leaves it to its guest to find nothing there."
    ),
    "unmount.in-use": (
        "A device that a mounted overlay uses, and the overlay of a container that was started and not shut down, "
        "cannot be unmounted. The reference guest checks this outside of its policy engine."
    ),
}
"""Name of each difference and what it is."""
