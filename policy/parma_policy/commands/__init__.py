# SPDX-License-Identifier: Apache-2.0
"""The commands below ``parma policy``, one module each. A module's ``add`` adds its parser; what the command needs is
imported when it runs."""
