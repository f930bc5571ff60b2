# SPDX-License-Identifier: Apache-2.0
"""Mutation testing: small faults are put into the code that decides, and each must make a test fail."""
