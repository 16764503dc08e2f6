// SPDX-License-Identifier: BSD-2-Clause
// The machine's page pool and each core's heap; see alloc.h. The pool gets RAM as it is needed
// (kernel/ranges.h).
#include "kernel/alloc.h"

#include <string.h>

#include "boot/boot_info.h"
#include "kernel/core.h"
#include "kernel/heap.h"
#include "kernel/lock.h"
#include "kernel/machine.h"
#include "kernel/pages.h"
#include "kernel/panic.h"
#include "kernel/ranges.h"

static struct page_pool pool;
static struct ranges ranges; // what of them is not in the pool yet
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

static bool add_piece(void)
{
    uint64_t base;
    size_t count = ranges_next(&ranges, &base);

    if (count > 0)
        page_pool_add(&pool, base, count);
    return count > 0;
}

void *page_alloc_raw(size_t count)
{
    bool enabled = lock(&pool_lock);
    void *pages;

    while (!(pages = (void *)page_pool_take(&pool, count)) && add_piece())
        ;
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

// The pool has a byte for each page.
void memory_init(const struct boot_info *info)
{
    ranges_init(&ranges, info->ranges, info->range_count);
    uint64_t pages = ranges.top / PAGE_SIZE;
    uint64_t index_pages = (pages + PAGE_SIZE - 1) / PAGE_SIZE;
    uint64_t index = ranges_keep(&ranges, index_pages);
    if (!index)
        panic("memory: no free range has %llu pages", (unsigned long long)index_pages + 1);
    page_pool_init(&pool, 0, pages, (uint8_t *)index);
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

    *out = (struct memory_stats){.pages_total = pool.total + ranges.pages,
                                 .pages_free = pool.available + ranges.pages + spare,
                                 .heap_bytes = heap.bytes,
                                 .heap_objects = heap.objects};
}

void memory_heaps(size_t *bytes, size_t *objects, size_t *pages)
{
    *bytes = *objects = *pages = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        const struct heap *h = core_peek(core, &heap);

        *bytes += h->bytes;
        *objects += h->objects;
        *pages += h->pages;
    }
    *pages -= heap.spare ? HEAP_SLAB_PAGES : 0;
}
