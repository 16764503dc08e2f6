// SPDX-License-Identifier: BSD-2-Clause
// Which core should get the buckets that a loaded core can give away. Pure; see steer.c for its use.
#pragma once

#include <stdint.h>

struct balance_load { // of one core
    uint32_t connections;
    uint32_t free; // buckets that it owns and no connection lives in: how many may come to it
};

// Shares out `mine`, the free buckets of core `self` (a bit for each), among `cores` (a bit for each, self
// included), so that those with fewer connections will get more of the next ones. Adds to gifts[core],
// which the caller has cleared, and keeps loads[] up to date. Returns how many buckets should go: 0 if
// self has hardly more connections than the least loaded core.
unsigned balance(struct balance_load loads[], uint64_t cores, unsigned self, const uint64_t mine[2],
                 uint64_t gifts[][2]);
