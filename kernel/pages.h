// SPDX-License-Identifier: BSD-2-Clause
// A pool of physically contiguous pages: a buddy system over one span of addresses, with exact
// sizes. Holds no lock and zeroes nothing; kernel/alloc.c adds both. Also used by the unit tests.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PAGE_ORDERS 20 // blocks of 1 .. 2^19 pages (2 GiB)

struct page_block;

struct page_pool {
    uintptr_t base;  // of the span, aligned to the biggest block
    size_t pages;    // in the span
    uint8_t *orders; // one per page: order + 1 for the first page of a free block, else 0
    struct page_block *free[PAGE_ORDERS];
    size_t total, available;
};

// The span is [base, base + pages * 4096), of which nothing is free yet; orders has one byte for
// each page. base must be a multiple of the biggest block.
void page_pool_init(struct page_pool *pool, uintptr_t base, size_t pages, uint8_t *orders);

// Adds pages of the span. They must be mapped, writable and not in the pool.
void page_pool_add(struct page_pool *pool, uintptr_t first, size_t pages);

// `count` contiguous pages aligned to their size rounded up to a power of two, or 0.
uintptr_t page_pool_take(struct page_pool *pool, size_t count);

// Gives back any part of what was taken. Merges with free neighbours.
void page_pool_give(struct page_pool *pool, uintptr_t first, size_t count);
