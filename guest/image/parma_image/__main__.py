# SPDX-License-Identifier: Apache-2.0
"""``python -m parma_image image ...`` is ``parma image ...``."""

import sys

from parma_image.cli import main

sys.exit(main())
