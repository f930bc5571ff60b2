# SPDX-License-Identifier: Apache-2.0
"""containerd's task service: containers and their processes, from Create to Delete."""
