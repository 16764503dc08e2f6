// SPDX-License-Identifier: BSD-2-Clause
// Memory. Pages come from one allocator (control path only, takes a lock); small objects from a
// per-core heap that takes no lock. All of it is identity mapped RAM outside the per-core window,
// zeroed for pages, not zeroed for objects, never executable.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096u

// `count` physically contiguous, zeroed pages, or NULL. Any core; not from an interrupt handler.
void *page_alloc(size_t count);

// The same, but not zeroed: for buffers that are written before they are read. Where there are many
// pages, and fresh ones at that, zeroing takes milliseconds.
void *page_alloc_raw(size_t count);

// Gives back exactly what page_alloc(count) or page_alloc_raw(count) returned. Any core.
void page_free(void *pages, size_t count);

// `size` bytes (1..65536 and a bit; bigger ones go to page_alloc), 16 byte aligned, or NULL.
// Only the core that allocated an object may use heap_free() on it; debug builds check that.
void *heap_alloc(size_t size);
void heap_free(void *object); // NULL is allowed

// The physical address of kernel memory: identity for RAM, translated for the kernel image.
// Panics for the per-core window and for what is not mapped.
uint64_t virt_to_phys(const void *p);

struct memory_stats {
    size_t pages_total, pages_free;  // whole machine
    size_t heap_bytes, heap_objects; // live objects of the calling core
};
void memory_stats(struct memory_stats *out);

// The live objects of all cores and the pages that their heaps hold (but for the calling core's spare
// ones, which memory_stats() calls free), for statistics: what other cores have changes meanwhile. Core 0.
void memory_heaps(size_t *bytes, size_t *objects, size_t *pages);
