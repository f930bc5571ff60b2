# SPDX-License-Identifier: Apache-2.0
"""What operators see of a shim: counts and durations on a socket, and traces where the environment asks for them."""
