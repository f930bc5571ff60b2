# SPDX-License-Identifier: Apache-2.0
"""What ``./dev`` runs: set-up, demo, tests, measurements."""
