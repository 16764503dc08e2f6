// SPDX-License-Identifier: BSD-2-Clause
// The heap behind heap_alloc(); see heap.h. Every object has a 16 byte header that tells its slab
// (or its page count, for objects beyond the classes), so that a wrong or repeated free is found.
#include "kernel/heap.h"

#include "kernel/alloc.h"
#include "kernel/panic.h"

#define SLAB_BYTES (HEAP_SLAB_PAGES * PAGE_SIZE)
#define MARK_LIVE 0x4c495645u // "LIVE"
#define MARK_FREE 0x46524545u
#define CLASS_PAGES 0xffffu // an object of whole pages

struct object {
    uint32_t mark;
    uint16_t class;
    uint16_t owner;
    uint32_t size;  // as asked for
    uint32_t pages; // CLASS_PAGES only
    union {
        struct object *next_free;
        max_align_t data[0];
    };
};
#define OBJECT_HEADER offsetof(struct object, next_free)
_Static_assert(OBJECT_HEADER == 16, "objects must stay 16 byte aligned");

struct slab { // at the start of its SLAB_BYTES, which are aligned to their size
    struct slab *next, *previous;
    struct object *free;
    uint32_t used;   // objects
    uint32_t carved; // bytes handed out at least once, header included
    uint32_t class;
    uint32_t in_list;
};
#define SLAB_HEADER 64u
_Static_assert(sizeof(struct slab) <= SLAB_HEADER, "objects begin after the slab's header");

// Bytes of an object without its header: steps of at most a half, the last fits an Ethernet jumbo
// frame's buffer.
static const uint32_t class_bytes[HEAP_CLASSES] = {16,   32,   48,   64,   96,   128,  192,
                                                   256,  384,  512,  768,  1024, 1536, 1792,
                                                   2048, 3072, 4096, 6144, 10240};

// The smallest class for an object of up to 1024 bytes, by its size in steps of 16, rounded up.
#define SMALL_BYTES 1024u
static const uint8_t small_class[SMALL_BYTES / 16 + 1] = {
    [2] = 1,         [3] = 2,          [4] = 3,          [5 ... 6] = 4,
    [7 ... 8] = 5,   [9 ... 12] = 6,   [13 ... 16] = 7,  [17 ... 24] = 8,
    [25 ... 32] = 9, [33 ... 48] = 10, [49 ... 64] = 11,
};
#define FIRST_LARGE_CLASS 12u

static unsigned class_for(size_t size)
{
    unsigned class = FIRST_LARGE_CLASS;

    if (size <= SMALL_BYTES)
        return small_class[(size + 15) / 16];
    while (class < HEAP_CLASSES && class_bytes[class] < size)
        class ++;
    return class;
}

static void list_insert(struct heap *heap, struct slab *slab)
{
    slab->previous = NULL;
    slab->next = heap->partial[slab->class];
    if (slab->next)
        slab->next->previous = slab;
    heap->partial[slab->class] = slab;
    slab->in_list = 1;
}

static void list_remove(struct heap *heap, struct slab *slab)
{
    if (slab->previous)
        slab->previous->next = slab->next;
    else
        heap->partial[slab->class] = slab->next;
    if (slab->next)
        slab->next->previous = slab->previous;
    slab->in_list = 0;
}

static void *take_pages(struct heap *heap, size_t count)
{
    void *pages = heap->take_pages(count);

    if (pages)
        heap->pages += count;
    return pages;
}

static void give_pages(struct heap *heap, void *pages, size_t count)
{
    heap->pages -= count;
    heap->give_pages(pages, count);
}

static struct slab *slab_new(struct heap *heap, unsigned class)
{
    struct slab *slab = heap->spare ? heap->spare : take_pages(heap, HEAP_SLAB_PAGES);

    heap->spare = NULL;
    if (!slab)
        return NULL;
    ASSERT((uintptr_t)slab % SLAB_BYTES == 0);
    *slab = (struct slab){.class = class, .carved = SLAB_HEADER};
    list_insert(heap, slab);
    return slab;
}

static struct object *slab_take(struct heap *heap, struct slab *slab)
{
    uint32_t step = OBJECT_HEADER + class_bytes[slab->class];
    struct object *object = slab->free;

    if (object) {
        slab->free = object->next_free;
    } else {
        object = (struct object *)((char *)slab + slab->carved);
        slab->carved += step;
    }
    slab->used++;
    if (!slab->free && slab->carved + step > SLAB_BYTES)
        list_remove(heap, slab);
    return object;
}

static struct object *pages_take(struct heap *heap, size_t size)
{
    size_t pages = (size + OBJECT_HEADER + PAGE_SIZE - 1) / PAGE_SIZE;
    struct object *object = take_pages(heap, pages);

    if (object) {
        object->class = CLASS_PAGES;
        object->pages = (uint32_t)pages;
    }
    return object;
}

void *heap_take(struct heap *heap, size_t size)
{
    struct object *object;

    if (size == 0 || size > UINT32_MAX)
        return NULL;
    unsigned class = class_for(size);
    if (class < HEAP_CLASSES) {
        struct slab *slab = heap->partial[class] ? heap->partial[class] : slab_new(heap, class);
        object = slab ? slab_take(heap, slab) : NULL;
        if (object)
            object->class = (uint16_t) class;
    } else {
        object = pages_take(heap, size);
    }
    if (!object)
        return NULL;
    object->mark = MARK_LIVE;
    object->owner = (uint16_t)heap->owner;
    object->size = (uint32_t)size;
    heap->bytes += size;
    heap->objects++;
    return object->data;
}

void heap_return(struct heap *heap, void *data)
{
    struct object *object = (struct object *)((char *)data - OBJECT_HEADER);

    ASSERT(object->mark == MARK_LIVE);
    ASSERT(object->owner == (uint16_t)heap->owner);
    object->mark = MARK_FREE;
    heap->bytes -= object->size;
    heap->objects--;
    if (object->class == CLASS_PAGES) {
        give_pages(heap, object, object->pages);
        return;
    }
    struct slab *slab = (struct slab *)((uintptr_t)object & ~(uintptr_t)(SLAB_BYTES - 1));
    object->next_free = slab->free;
    slab->free = object;
    if (!slab->in_list)
        list_insert(heap, slab);
    if (--slab->used == 0) {
        list_remove(heap, slab);
        if (heap->spare)
            give_pages(heap, slab, HEAP_SLAB_PAGES);
        else
            heap->spare = slab;
    }
}
