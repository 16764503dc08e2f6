// SPDX-License-Identifier: BSD-2-Clause
// See ranges.h.
#include "kernel/ranges.h"

#include "kernel/alloc.h"

#define LOW_MEMORY 0x100000ull
#define BLOCK 0x200000ull

// In what order. Memory in which the firmware's code was comes last: at the first write to such a page an
// emulator throws away what it had translated of it (QEMU: 1 ms a page).
enum stage {
    EDGES,  // parts of a block whose rest is somebody else's, hence backed already
    BLOCKS, // whole ones
    FIRMWARE,
    STAGES
};

// [result, *end) of the range may be used; empty if it is of another type.
static uint64_t usable(const struct ranges *r, uint32_t i, uint32_t type, uint64_t *end)
{
    const struct boot_memory_range *range = &r->list[i];
    uint64_t from = range->base < LOW_MEMORY ? LOW_MEMORY : range->base;

    *end = range->base + range->pages * PAGE_SIZE;
    if (r->kept && *end == r->kept_end)
        *end = r->kept;
    if (range->type != type || *end < from)
        *end = from;
    return from;
}

void ranges_init(struct ranges *r, const struct boot_memory_range *list, uint32_t count)
{
    static const uint32_t types[] = {BOOT_MEMORY_FREE, BOOT_MEMORY_FIRMWARE};
    uint64_t end;

    *r = (struct ranges){.list = list, .count = count};
    for (uint32_t i = 0; i < 2 * count; i++) {
        uint64_t from = usable(r, i / 2, types[i % 2], &end);
        r->pages += (end - from) / PAGE_SIZE;
        if (end > from && end > r->top)
            r->top = end;
    }
}

uint64_t ranges_keep(struct ranges *r, size_t pages)
{
    uint64_t most = 0, end;

    for (uint32_t i = 0; i < r->count; i++) {
        uint64_t from = usable(r, i, BOOT_MEMORY_FREE, &end);
        if (end - from > most) {
            most = end - from;
            r->kept_end = end;
        }
    }
    if (most / PAGE_SIZE <= pages)
        return 0;
    r->kept = r->kept_end - pages * PAGE_SIZE;
    r->pages -= pages;
    return r->kept;
}

// The next piece of the current range that belongs to the current stage, or 0.
static uint64_t piece(struct ranges *r, uint64_t *base)
{
    uint32_t type = r->stage == FIRMWARE ? BOOT_MEMORY_FIRMWARE : BOOT_MEMORY_FREE;
    uint64_t end, from = usable(r, r->next, type, &end), at = from > r->at ? from : r->at;
    uint64_t block = at & ~(BLOCK - 1), stop = block + BLOCK < end ? block + BLOCK : end;

    if (r->stage == EDGES && stop - at == BLOCK) { // at the other end, then
        at = end & ~(BLOCK - 1);
        stop = end;
    } else if (r->stage == BLOCKS && at != block) {
        at = block + BLOCK;
        stop = at + BLOCK;
    }
    if (at >= end || (r->stage == BLOCKS && end - at < BLOCK))
        return 0;
    r->at = stop;
    *base = at;
    return stop - at;
}

size_t ranges_next(struct ranges *r, uint64_t *base)
{
    uint64_t bytes;

    for (; r->stage < STAGES; r->stage++, r->next = 0) {
        for (; r->next < r->count; r->next++, r->at = 0) {
            if ((bytes = piece(r, base))) {
                r->pages -= bytes / PAGE_SIZE;
                return bytes / PAGE_SIZE;
            }
        }
    }
    return 0;
}
