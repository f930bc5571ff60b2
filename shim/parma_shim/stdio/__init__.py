# SPDX-License-Identifier: Apache-2.0
"""stdin, stdout and stderr between containerd's side (fifos, files, logger programs) and the guest's streams."""
