// SPDX-License-Identifier: BSD-2-Clause
// The machine's page pool and each core's heap; see alloc.h. The pool's span is all RAM above 1
// MiB: what is below stays free for starting cores (kernel/core.c).
#include "kernel/alloc.h"

#include <string.h>

#include "boot/boot_info.h"
#include "kernel/core.h"
#include "kernel/heap.h"
#include "kernel/lock.h"
#include "kernel/machine.h"
#include "kernel/pages.h"
#include "kernel/panic.h"

#define LOW_MEMORY 0x100000ull

static struct page_pool pool;
// Whose firmware ranges are not in the pool yet, and how many pages these are.
static const struct boot_info *unused_ranges;
static size_t unused_pages;
static struct lock pool_lock;
static PERCORE struct heap heap;

static void give_pages(void *pages, size_t count)
{
    bool enabled = lock(&pool_lock);

    page_pool_give(&pool, (uintptr_t)pages, count);
    unlock(&pool_lock, enabled);
}

void page_free(void *pages, size_t count)
{
    give_pages(pages, count);
}

// The part of a range of this type that the pool may have: [*base, *base + result pages).
static uint64_t usable(const struct boot_memory_range *range, uint32_t type, uint64_t *base)
{
    uint64_t end = range->base + range->pages * PAGE_SIZE;

    *base = range->base < LOW_MEMORY ? LOW_MEMORY : range->base;
    return range->type == type && end > *base ? (end - *base) / PAGE_SIZE : 0;
}

// Memory in which the firmware's code was is used when there is no other: at the first write to such a
// page an emulator throws away what it had translated of it (QEMU: 1 ms a page).
static bool add_firmware_ranges(void)
{
    const struct boot_info *info = unused_ranges;
    uint64_t base;

    unused_ranges = NULL;
    unused_pages = 0;
    for (uint32_t i = 0; info && i < info->range_count; i++) {
        uint64_t pages = usable(&info->ranges[i], BOOT_MEMORY_FIRMWARE, &base);
        if (pages > 0)
            page_pool_add(&pool, base, pages);
    }
    return info;
}

void *page_alloc_raw(size_t count)
{
    bool enabled = lock(&pool_lock);
    void *pages = (void *)page_pool_take(&pool, count);

    if (!pages && add_firmware_ranges())
        pages = (void *)page_pool_take(&pool, count);
    unlock(&pool_lock, enabled);
    return pages;
}

void *page_alloc(size_t count)
{
    void *pages = page_alloc_raw(count);

    if (pages)
        memset(pages, 0, count * PAGE_SIZE);
    return pages;
}

// The pool's byte per page is taken from the end of the biggest free range.
void memory_init(const struct boot_info *info)
{
    uint64_t top = 0, largest = 0, largest_base = 0, base;

    for (uint32_t i = 0; i < info->range_count; i++) {
        uint64_t pages = usable(&info->ranges[i], BOOT_MEMORY_FIRMWARE, &base);
        unused_pages += pages;
        if (pages > 0 && base + pages * PAGE_SIZE > top)
            top = base + pages * PAGE_SIZE;
        pages = usable(&info->ranges[i], BOOT_MEMORY_FREE, &base);
        if (pages > 0 && base + pages * PAGE_SIZE > top)
            top = base + pages * PAGE_SIZE;
        if (pages > largest) {
            largest = pages;
            largest_base = base;
        }
    }
    uint64_t index_pages = (top / PAGE_SIZE + PAGE_SIZE - 1) / PAGE_SIZE;
    if (largest <= index_pages)
        panic("memory: no free range has %llu pages", (unsigned long long)index_pages + 1);
    uint64_t index = largest_base + (largest - index_pages) * PAGE_SIZE;
    page_pool_init(&pool, 0, top / PAGE_SIZE, (uint8_t *)index);
    for (uint32_t i = 0; i < info->range_count; i++) {
        uint64_t pages = usable(&info->ranges[i], BOOT_MEMORY_FREE, &base);
        if (base == largest_base && pages == largest)
            pages -= index_pages;
        if (pages > 0)
            page_pool_add(&pool, base, pages);
    }
    unused_ranges = info;
}

void *heap_alloc(size_t size)
{
    if (!heap.take_pages) {
        heap.owner = core_id();
        heap.take_pages = page_alloc_raw;
        heap.give_pages = give_pages;
    }
    return heap_take(&heap, size);
}

void heap_free(void *object)
{
    if (object)
        heap_return(&heap, object);
}

void memory_stats(struct memory_stats *out)
{
    size_t spare = heap.spare ? HEAP_SLAB_PAGES : 0;

    *out = (struct memory_stats){.pages_total = pool.total + unused_pages,
                                 .pages_free = pool.available + unused_pages + spare,
                                 .heap_bytes = heap.bytes,
                                 .heap_objects = heap.objects};
}

void memory_heaps(size_t *bytes, size_t *objects)
{
    *bytes = *objects = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        const struct heap *h = core_peek(core, &heap);

        *bytes += h->bytes;
        *objects += h->objects;
    }
}
