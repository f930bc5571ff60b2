# SPDX-License-Identifier: Apache-2.0
"""containerd's sandbox API (``sandboxer = "shim"``): the pod as such, where containerd starts no pause container."""
