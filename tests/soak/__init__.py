# SPDX-License-Identifier: Apache-2.0
"""Many lives of containers, and whether anything is left of them. `./dev soak` is the long form, the test the short."""
