// SPDX-License-Identifier: BSD-2-Clause
// The RAM that the firmware left us, and the order in which the page pool gets it: piece by piece as it
// is needed, because the first write to a part of memory that the host has not backed yet is dear
// (Linux backs it with 2 MiB at a time: 5 ms). Core 0 at start-up, then under the pool's lock.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "boot/boot_info.h"

struct ranges {
    const struct boot_memory_range *list; // the firmware's
    uint32_t count;
    uint64_t top;            // the end of the highest one
    uint64_t kept, kept_end; // by ranges_keep()
    size_t pages;            // that are still to come
    unsigned stage;          // enum stage; see ranges.c
    uint32_t next;           // range
    uint64_t at;             // in it, 0: at its start
};

// Below 1 MiB nothing is ours: cores start there.
void ranges_init(struct ranges *r, const struct boot_memory_range *list, uint32_t count);

// Takes `pages` out for good, from the end of the biggest free range. Their address; 0: it has no more
// than that. Once, before ranges_next().
uint64_t ranges_keep(struct ranges *r, size_t pages);

// The next piece, of at most 2 MiB: its pages, and where it is. 0: that was all.
size_t ranges_next(struct ranges *r, uint64_t *base);
