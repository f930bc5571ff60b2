# SPDX-License-Identifier: Apache-2.0
"""``parma doctor``: is everything there that running a container takes, and if not, what is missing and how to get it.

Not part of the shim: what a launch with ``tee = "snp"`` requires is probed by the launch itself (``parma_snp.probes``).
"""
