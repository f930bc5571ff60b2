// SPDX-License-Identifier: Apache-2.0
module parma.invalid/bench/netprobe

go 1.19
