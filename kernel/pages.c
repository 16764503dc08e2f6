// SPDX-License-Identifier: BSD-2-Clause
// The buddy system behind page_alloc(); see pages.h. The links of a free block are in the block
// itself. A request that is not a power of two takes the next bigger block and gives the tail back.
#include "kernel/pages.h"

#include <string.h>

#include "kernel/alloc.h"
#include "kernel/panic.h"

struct page_block {
    struct page_block *next, *previous;
};

static size_t index_of(const struct page_pool *pool, uintptr_t page)
{
    return (page - pool->base) / PAGE_SIZE;
}

static void block_insert(struct page_pool *pool, uintptr_t page, unsigned order)
{
    struct page_block *block = (struct page_block *)page;

    block->previous = NULL;
    block->next = pool->free[order];
    if (block->next)
        block->next->previous = block;
    pool->free[order] = block;
    pool->orders[index_of(pool, page)] = (uint8_t)(order + 1);
}

static void block_remove(struct page_pool *pool, uintptr_t page, unsigned order)
{
    struct page_block *block = (struct page_block *)page;

    if (block->previous)
        block->previous->next = block->next;
    else
        pool->free[order] = block->next;
    if (block->next)
        block->next->previous = block->previous;
    pool->orders[index_of(pool, page)] = 0;
}

void page_pool_init(struct page_pool *pool, uintptr_t base, size_t pages, uint8_t *orders)
{
    *pool = (struct page_pool){.base = base, .pages = pages, .orders = orders};
    memset(orders, 0, pages);
}

// Frees one aligned block, merging it with its buddy as long as that is free and as big.
static void block_free(struct page_pool *pool, uintptr_t page, unsigned order)
{
    while (order + 1 < PAGE_ORDERS) {
        size_t buddy = index_of(pool, page) ^ ((size_t)1 << order);
        uintptr_t address = pool->base + buddy * PAGE_SIZE;
        if (buddy >= pool->pages || pool->orders[buddy] != order + 1)
            break;
        block_remove(pool, address, order);
        page = page < address ? page : address;
        order++;
    }
    block_insert(pool, page, order);
}

void page_pool_give(struct page_pool *pool, uintptr_t first, size_t count)
{
    size_t at = index_of(pool, first);

    ASSERT(first % PAGE_SIZE == 0 && first >= pool->base && count <= pool->pages &&
           at <= pool->pages - count);
    for (size_t i = 0; i < count; i++)
        ASSERT(pool->orders[at + i] == 0); // else it is free already
    pool->available += count;
    while (count > 0) {
        unsigned order = 0;
        while (order + 1 < PAGE_ORDERS && (at & (((size_t)2 << order) - 1)) == 0 &&
               (size_t)2 << order <= count)
            order++;
        block_free(pool, pool->base + at * PAGE_SIZE, order);
        at += (size_t)1 << order;
        count -= (size_t)1 << order;
    }
}

void page_pool_add(struct page_pool *pool, uintptr_t first, size_t pages)
{
    pool->total += pages;
    page_pool_give(pool, first, pages);
}

uintptr_t page_pool_take(struct page_pool *pool, size_t count)
{
    unsigned wanted = 0, order;

    if (count == 0 || count > (size_t)1 << (PAGE_ORDERS - 1))
        return 0;
    while ((size_t)1 << wanted < count)
        wanted++;
    for (order = wanted; order < PAGE_ORDERS && !pool->free[order]; order++)
        ;
    if (order == PAGE_ORDERS)
        return 0;
    uintptr_t page = (uintptr_t)pool->free[order];
    block_remove(pool, page, order);
    while (order > wanted) {
        order--;
        block_insert(pool, page + ((uintptr_t)PAGE_SIZE << order), order);
    }
    pool->available -= (size_t)1 << wanted;
    size_t tail = ((size_t)1 << wanted) - count;
    if (tail > 0)
        page_pool_give(pool, page + count * PAGE_SIZE, tail);
    return page;
}
