# SPDX-License-Identifier: Apache-2.0
"""Twenty situations in which shims of others broke, each in the file with its number::

     1  Delete is slow                          11  kill -9 of the shim
     2  nobody comes for a shim; Create fails   12  the guest cannot be reached
     3  an exit while containerd is away        13  the caller does not wait for the boot
     4  exits lost, or announced twice          14  many execs, and execs that time out
     5  init's exit and those of its execs      15  other versions of containerd and of the shim
     6  one lock for all                        16  traps of pods
     7  nobody reads the output                 17  `delete` runs on every disconnect
     8  output lost at the end                  18  out of memory
     9  stdin's end                             19  log and stdio that break
    10  the VM dies by itself                   20  leftovers

More of 3, 10 and 11, with a container at each step of its life: `tests.e2e.test_crash_steps`.
"""
