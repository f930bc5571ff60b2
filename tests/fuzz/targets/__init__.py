# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets, one module each, named as on the command line.

A target has::

    SEEDS: Sequence[bytes]              # inputs from which mutation starts: at least one that is accepted
    def target(data: bytes) -> None     # raises nothing but an AssertionError (a broken promise) or a bug

The errors that the tested code documents are caught in ``target``; whatever comes out of it is a finding. It must be
deterministic and leave nothing behind. Nothing else is registered anywhere: a module here is a target.
"""
