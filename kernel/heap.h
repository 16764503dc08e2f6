// SPDX-License-Identifier: BSD-2-Clause
// A heap for one core: size classes in slabs of 64 KiB; slabs that become empty go back to the page
// pool at once, but for one that is kept: the packet path often frees its only object and takes it
// again. Used through heap_alloc() and by the unit tests.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HEAP_CLASSES 19
#define HEAP_SLAB_PAGES 16u

struct slab;

struct heap {
    struct slab *partial[HEAP_CLASSES]; // slabs with room, most recently used first
    struct slab *spare;                 // an empty one, or NULL
    size_t bytes, objects;              // live, as asked for
    size_t pages;                       // taken and not given back, the spare slab's too
    uint32_t owner;                     // marks objects; heap_return() checks it
    void *(*take_pages)(size_t count);  // contiguous, not zeroed, NULL when there are none
    void (*give_pages)(void *pages, size_t count);
};

void *heap_take(struct heap *heap, size_t size);   // 16 byte aligned, not zeroed, or NULL
void heap_return(struct heap *heap, void *object); // panics if it is not a live object of this heap
