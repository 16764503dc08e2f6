// SPDX-License-Identifier: BSD-2-Clause
// The allocator that inih links with. With its line buffer on the stack it does not call it.
#include "kernel/alloc.h"

void *ini_malloc(size_t size);
void ini_free(void *ptr);
void *ini_realloc(void *ptr, size_t size);

void *ini_malloc(size_t size)
{
    return heap_alloc(size);
}

void ini_free(void *ptr)
{
    heap_free(ptr);
}

void *ini_realloc(void *ptr, size_t size)
{
    (void)ptr;
    (void)size;
    return NULL;
}
