// SPDX-License-Identifier: BSD-2-Clause
// The page pool and the heap: exact sizes, merging, reuse, every wrong free found.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "kernel/heap.h"
#include "kernel/pages.h"
#include "kernel/panic.h"

#define SPAN_PAGES 4096u // 16 MiB
#define SPAN_ALIGN (64ul << 20)

static struct page_pool pool;
static uint8_t orders[SPAN_PAGES];
static uintptr_t span;
static uint8_t *reserved;
static struct heap heap;
static jmp_buf panicked;
static bool panic_expected;

_Noreturn void panic(const char *format, ...)
{
    if (panic_expected)
        longjmp(panicked, 1);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    abort();
}

#define assert_panics(statement)                                                                   \
    do {                                                                                           \
        panic_expected = true;                                                                     \
        if (setjmp(panicked) == 0) {                                                               \
            statement;                                                                             \
            panic_expected = false;                                                                \
            fail_msg("no panic: %s", #statement);                                                  \
        }                                                                                          \
        panic_expected = false;                                                                    \
    } while (0)

static void *take_pages(size_t count)
{
    return (void *)page_pool_take(&pool, count);
}

static void give_pages(void *pages, size_t count)
{
    page_pool_give(&pool, (uintptr_t)pages, count);
}

static int setup(void **state)
{
    (void)state;
    reserved = mmap(NULL, SPAN_ALIGN * 2, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(reserved != MAP_FAILED);
    span = ((uintptr_t)reserved + SPAN_ALIGN - 1) & ~(SPAN_ALIGN - 1);
    page_pool_init(&pool, span, SPAN_PAGES, orders);
    page_pool_add(&pool, span, SPAN_PAGES);
    heap = (struct heap){.owner = 3, .take_pages = take_pages, .give_pages = give_pages};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return munmap(reserved, SPAN_ALIGN * 2);
}

// Everything in one piece again: the strongest sign that nothing was lost or merged wrongly.
static void assert_pool_whole(void)
{
    if (heap.spare) {
        give_pages(heap.spare, HEAP_SLAB_PAGES);
        heap.spare = NULL;
    }
    assert_int_equal(pool.available, SPAN_PAGES);
    uintptr_t all = page_pool_take(&pool, SPAN_PAGES);
    assert_int_equal(all, span);
    page_pool_give(&pool, all, SPAN_PAGES);
}

static void test_pages_exact_sizes(void **state)
{
    (void)state;
    for (size_t count = 1; count <= 100; count++) {
        uintptr_t pages = page_pool_take(&pool, count);
        assert_true(pages >= span && pages + count * PAGE_SIZE <= span + SPAN_PAGES * PAGE_SIZE);
        assert_int_equal(pool.available, SPAN_PAGES - count);
        memset((void *)pages, 0xaa, count * PAGE_SIZE);
        page_pool_give(&pool, pages, count);
    }
    assert_pool_whole();
}

static void test_pages_alignment(void **state)
{
    (void)state;
    uintptr_t one = page_pool_take(&pool, 1);
    uintptr_t sixteen = page_pool_take(&pool, 16);
    uintptr_t odd = page_pool_take(&pool, 9);
    assert_int_equal(sixteen % (16 * PAGE_SIZE), 0);
    assert_int_equal(odd % (16 * PAGE_SIZE), 0);
    page_pool_give(&pool, sixteen, 16);
    page_pool_give(&pool, one, 1);
    page_pool_give(&pool, odd, 9);
    assert_pool_whole();
}

static void test_pages_exhaustion(void **state)
{
    (void)state;
    assert_int_equal(page_pool_take(&pool, 0), 0);
    assert_int_equal(page_pool_take(&pool, SPAN_PAGES + 1), 0);
    assert_int_equal(page_pool_take(&pool, SIZE_MAX), 0);
    uintptr_t all = page_pool_take(&pool, SPAN_PAGES);
    assert_int_equal(page_pool_take(&pool, 1), 0);
    assert_int_equal(pool.available, 0);
    page_pool_give(&pool, all + 5 * PAGE_SIZE, 1); // a part of what was taken
    assert_int_equal(page_pool_take(&pool, 1), all + 5 * PAGE_SIZE);
    page_pool_give(&pool, all, SPAN_PAGES);
    assert_pool_whole();
}

static void test_pages_wrong_frees(void **state)
{
    (void)state;
    uintptr_t pages = page_pool_take(&pool, 4);
    assert_panics(page_pool_give(&pool, pages + 1, 1));
    assert_panics(page_pool_give(&pool, span - PAGE_SIZE, 1));
    assert_panics(page_pool_give(&pool, span + (SPAN_PAGES - 1) * (uintptr_t)PAGE_SIZE, 2));
    page_pool_give(&pool, pages, 4);
    assert_panics(page_pool_give(&pool, span, SPAN_PAGES));
}

static void test_pages_holes(void **state)
{
    (void)state;
    page_pool_init(&pool, span, SPAN_PAGES, orders);
    page_pool_add(&pool, span + 3 * PAGE_SIZE, 10);
    page_pool_add(&pool, span + 100 * PAGE_SIZE, 57);
    assert_int_equal(pool.total, 67);
    size_t taken = 0;
    while (page_pool_take(&pool, 1))
        taken++;
    assert_int_equal(taken, 67);
}

#define LIVE 200

static void test_pages_random(void **state)
{
    static struct {
        uintptr_t pages;
        size_t count;
    } live[LIVE];

    (void)state;
    srandom(1);
    for (unsigned round = 0; round < 50000; round++) {
        unsigned i = (unsigned)random() % LIVE;
        if (live[i].pages) {
            // Whoever else got one of these pages would have written its own mark.
            assert_int_equal(*(unsigned *)live[i].pages, i);
            assert_int_equal(*(unsigned *)(live[i].pages + live[i].count * PAGE_SIZE - 4), i);
            page_pool_give(&pool, live[i].pages, live[i].count);
            live[i].pages = 0;
        } else {
            live[i].count = 1 + (size_t)random() % 40;
            live[i].pages = page_pool_take(&pool, live[i].count);
            if (live[i].pages) {
                *(unsigned *)live[i].pages = i;
                *(unsigned *)(live[i].pages + live[i].count * PAGE_SIZE - 4) = i;
            }
        }
    }
    for (unsigned i = 0; i < LIVE; i++)
        if (live[i].pages)
            page_pool_give(&pool, live[i].pages, live[i].count);
    assert_pool_whole();
}

static void test_heap_sizes(void **state)
{
    (void)state;
    for (size_t size = 1; size < 70000; size = size + 1 + size / 7) {
        uint8_t *object = heap_take(&heap, size);
        assert_non_null(object);
        assert_int_equal((uintptr_t)object % 16, 0);
        assert_int_equal(heap.bytes, size);
        assert_int_equal(heap.objects, 1);
        memset(object, 0x55, size);
        assert_int_equal(heap.pages, SPAN_PAGES - pool.available);
        heap_return(&heap, object);
        assert_int_equal(heap.bytes, 0);
        assert_int_equal(pool.available + (heap.spare ? HEAP_SLAB_PAGES : 0), SPAN_PAGES);
    }
    assert_null(heap_take(&heap, 0));
    assert_null(heap_take(&heap, SPAN_PAGES * (size_t)PAGE_SIZE));
    assert_null(heap_take(&heap, SIZE_MAX));
    assert_pool_whole();
}

static void test_heap_wrong_frees(void **state)
{
    struct heap other = {.owner = 4, .take_pages = take_pages, .give_pages = give_pages};

    (void)state;
    char *first = heap_take(&heap, 100), *second = heap_take(&heap, 100);
    assert_panics(heap_return(&other, first));
    assert_panics(heap_return(&heap, first + 16));
    heap_return(&heap, first);
    assert_panics(heap_return(&heap, first));
    heap_return(&heap, second);
    assert_pool_whole();
}

static void test_heap_random(void **state)
{
    static struct {
        uint8_t *object;
        size_t size;
    } live[LIVE];
    size_t bytes = 0, objects = 0;

    (void)state;
    srandom(2);
    for (unsigned round = 0; round < 100000; round++) {
        unsigned i = (unsigned)random() % LIVE;
        if (live[i].object) {
            for (size_t at = 0; at < live[i].size; at += 1 + live[i].size / 16)
                assert_int_equal(live[i].object[at], (uint8_t)i);
            heap_return(&heap, live[i].object);
            live[i].object = NULL;
            bytes -= live[i].size;
            objects--;
        } else {
            live[i].size = 1 + (size_t)random() % (1u << (random() % 15));
            live[i].object = heap_take(&heap, live[i].size);
            assert_non_null(live[i].object);
            memset(live[i].object, (int)i, live[i].size);
            bytes += live[i].size;
            objects++;
        }
        assert_int_equal(heap.bytes, bytes);
        assert_int_equal(heap.objects, objects);
        assert_int_equal(heap.pages, SPAN_PAGES - pool.available);
    }
    for (unsigned i = 0; i < LIVE; i++)
        if (live[i].object)
            heap_return(&heap, live[i].object);
    assert_pool_whole();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_exact_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_exhaustion, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_wrong_frees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heap_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heap_wrong_frees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heap_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
