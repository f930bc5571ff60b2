# SPDX-License-Identifier: Apache-2.0
"""Attestation for containers: what a policy lets a container reach, and nothing to others.

::

    enforcer (PID 1)                             agent, one for each such container, with no rights
      service  -- channel (SOCK_SEQPACKET) -->     agent
        asks the TEE, derives keys                   cuse            <-- /dev/sev-guest in the container
      endorsements, security_context                 http, endpoints <-- 127.0.0.1 in its network namespace

Whatever a container writes is parsed in its own agent. The agent can ask the enforcer for what the policy lets its
container have, and for nothing else. See docs/containers-attestation.md.
"""
