// SPDX-License-Identifier: BSD-2-Clause
// A heap for one core: size classes in slabs of 64 KiB; a slab that becomes empty goes back to the
// page pool at once, so memory in use tells the truth. Used through heap_alloc() and by the unit tests.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HEAP_CLASSES 19

struct slab;

struct heap {
    struct slab *partial[HEAP_CLASSES]; // slabs with room, most recently used first
    size_t bytes, objects;              // live, as asked for
    uint32_t owner;                     // marks objects; heap_return() checks it
    void *(*take_pages)(size_t count);  // contiguous, not zeroed, NULL when there are none
    void (*give_pages)(void *pages, size_t count);
};

void *heap_take(struct heap *heap, size_t size);   // 16 byte aligned, not zeroed, or NULL
void heap_return(struct heap *heap, void *object); // panics if it is not a live object of this heap
