// SPDX-License-Identifier: BSD-2-Clause
// Builds and changes page tables; see paging.h. All cores share every table of the lower half. Of
// the upper half (the kernel image) each core has its own copy, as its window differs. Table pages
// come from the page pool and are reached by the identity map, before and after the switch.
#include "kernel/paging.h"

#include <string.h>

#include "boot/boot_info.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/lock.h"
#include "kernel/panic.h"

#define PTE_PRESENT 1ull
#define PTE_WRITE 2ull
#define PTE_PWT 8ull // selects PAT entry 1: write combining
#define PTE_PCD 0x10ull
#define PTE_LARGE 0x80ull
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull
#define LARGE_PAGE 0x200000ull
#define PAT_VALUE 0x0007040600070106ull // WB, WC, UC-, UC, WB, WT, UC-, UC
#define IMAGE_SLOT 511                  // of the kernel image in every PML4

static uint64_t *pml4; // core 0's, whose lower half all others point to
static uint64_t image_phys;
static char *windows[MAX_CORES]; // each core's own pages
static struct lock table_lock;

// Of one of the linker's symbols (kernel/image.h) in the image.
static uint64_t image_offset(const char *symbol)
{
    return (uint64_t)symbol - (uint64_t)kernel_start;
}

static size_t window_bytes(void)
{
    return image_offset(percore_end) - image_offset(percore_start);
}

static uint64_t flags_of(enum map_kind kind)
{
    switch (kind) {
    case MAP_RAM:
        return PTE_PRESENT | PTE_WRITE | PTE_NX;
    case MAP_READ_ONLY:
        return PTE_PRESENT | PTE_NX;
    case MAP_CODE:
        return PTE_PRESENT;
    case MAP_DEVICE:
        return PTE_PRESENT | PTE_WRITE | PTE_NX | PTE_PCD | PTE_PWT;
    case MAP_FRAMEBUFFER:
        return PTE_PRESENT | PTE_WRITE | PTE_NX | PTE_PWT;
    }
    panic("paging: bad kind %d", kind);
}

static uint64_t *table_new(void)
{
    uint64_t *table = page_alloc(1);

    if (!table)
        panic("paging: no memory for page tables");
    return table;
}

static uint64_t *table_of(uint64_t entry)
{
    return (uint64_t *)(entry & PTE_ADDRESS);
}

// Replaces a 2 MiB entry by a table that says the same, so that one page of it can differ.
static void split(uint64_t *entry, uint64_t *table)
{
    for (uint64_t i = 0; i < 512; i++)
        table[i] = (*entry & ~PTE_LARGE) + i * PAGE_SIZE;
    *entry = (uint64_t)table | PTE_PRESENT | PTE_WRITE;
}

// The entry for `virt` at `level` (1: page, 2: 2 MiB), tables on the way being made as needed.
static uint64_t *entry_make(uint64_t *root, uint64_t virt, unsigned level)
{
    uint64_t *table = root;

    for (unsigned at = 4;; at--) {
        uint64_t *entry = &table[virt >> (12 + 9 * (at - 1)) & 511];
        if (at == level)
            return entry;
        if (!(*entry & PTE_PRESENT))
            *entry = (uint64_t)table_new() | PTE_PRESENT | PTE_WRITE;
        else if (*entry & PTE_LARGE)
            split(entry, table_new());
        table = table_of(*entry);
    }
}

// The entry that maps virt, of a page or of 2 MiB, or NULL.
static uint64_t *entry_find(uint64_t *root, uint64_t virt, bool *large)
{
    uint64_t *table = root;

    if (virt >> 47 != 0 && virt >> 47 != 0x1ffff)
        return NULL;
    for (unsigned at = 4;; at--) {
        uint64_t *entry = &table[virt >> (12 + 9 * (at - 1)) & 511];
        if (!(*entry & PTE_PRESENT))
            return NULL;
        *large = *entry & PTE_LARGE;
        if (at == 1 || *large)
            return entry;
        table = table_of(*entry);
    }
}

static void map(uint64_t *root, uint64_t virt, uint64_t phys, uint64_t bytes, enum map_kind kind)
{
    uint64_t flags = flags_of(kind), end = virt + bytes;
    bool large;

    while (virt < end) {
        if ((virt | phys) % LARGE_PAGE == 0 && end - virt >= LARGE_PAGE &&
            !entry_find(root, virt, &large) && !(*entry_make(root, virt, 2) & PTE_PRESENT)) {
            *entry_make(root, virt, 2) = phys | flags | PTE_LARGE;
            virt += LARGE_PAGE;
            phys += LARGE_PAGE;
        } else {
            uint64_t *entry = entry_make(root, virt, 1);
            do { // as far as this table goes
                *entry++ = phys | flags;
                virt += PAGE_SIZE;
                phys += PAGE_SIZE;
            } while (virt < end && virt % LARGE_PAGE != 0);
        }
    }
}

static void map_image(uint64_t *root, const char *from, const char *to, uint64_t phys,
                      enum map_kind kind)
{
    map(root, (uint64_t)from, phys, (uint64_t)to - (uint64_t)from, kind);
}

// The upper half of one core's tables. Returns false if there is no memory for its window.
static bool map_kernel(uint64_t *root, unsigned core)
{
    size_t window = window_bytes();
    char *own = page_alloc(window / PAGE_SIZE);

    if (!own)
        return false;
    memcpy(own, (const void *)(image_phys + image_offset(percore_start)), window);
    windows[core] = own;
    map_image(root, kernel_start, text_end, image_phys, MAP_CODE);
    map_image(root, percore_start, percore_end, (uint64_t)own, MAP_RAM);
    map_image(root, data_start, boot_stack_guard, image_phys + image_offset(data_start), MAP_RAM);
    map_image(root, boot_stack_guard + PAGE_SIZE, data_end,
              image_phys + image_offset(boot_stack_guard) + PAGE_SIZE, MAP_RAM);
    map_image(root, data_end, kernel_end, image_phys + image_offset(data_end), MAP_READ_ONLY);
    return true;
}

// RAM at its own address, but for page 0 and the kernel image, whose code must have no writable
// twin. The window's template stays: it is read for each new core.
static void map_ram(const struct boot_memory_range *range)
{
    uint64_t from = range->base, end = range->base + range->pages * PAGE_SIZE;
    uint64_t image_end = image_phys + image_offset(kernel_end);

    if (range->type == BOOT_MEMORY_RESERVED)
        return;
    if (from == 0)
        from = PAGE_SIZE;
    if (from < image_end && end > image_phys) {
        uint64_t window = image_phys + image_offset(percore_start);
        if (from < image_phys)
            map(pml4, from, from, image_phys - from, MAP_RAM);
        map(pml4, window, window, window_bytes(), MAP_READ_ONLY);
        from = image_end;
    }
    if (from < end)
        map(pml4, from, from, end - from, MAP_RAM);
}

void paging_init_core(void)
{
    wrmsr(MSR_EFER, (rdmsr(MSR_EFER) | EFER_NXE) & ~EFER_SCE);
    wrmsr(MSR_PAT, PAT_VALUE);
    write_cr0(read_cr0() | CR0_WP);
}

void paging_init(const struct boot_info *info)
{
    ASSERT(image_offset(kernel_end) <= info->kernel_pages * PAGE_SIZE);
    image_phys = info->kernel_base;
    uint64_t *root = table_new();
    pml4 = root;
    for (uint32_t i = 0; i < info->range_count; i++)
        map_ram(&info->ranges[i]);
    if (!map_kernel(root, 0))
        panic("paging: no memory for core 0");
    const struct boot_framebuffer *fb = &info->framebuffer;
    if (fb->base != 0)
        paging_map(fb->base, (uint64_t)fb->stride * fb->height * 4, MAP_FRAMEBUFFER);
    paging_init_core();
    write_cr3((uint64_t)root);
}

uint64_t paging_new_core(void)
{
    uint64_t *root = page_alloc(1);

    if (!root)
        return 0;
    memcpy(root, pml4, PAGE_SIZE);
    root[IMAGE_SLOT] = 0;
    if (!map_kernel(root, core_count())) {
        page_free(root, 1);
        return 0;
    }
    return (uint64_t)root;
}

void paging_map(uint64_t phys, uint64_t bytes, enum map_kind kind)
{
    uint64_t end = (phys + bytes + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    bool large;

    ASSERT(phys >= PAGE_SIZE && phys < end && end < 1ull << 46);
    // Later cores copy the PML4, so no entry may appear in it that they could miss.
    ASSERT(core_count() <= 1 || pml4[phys >> 39] & PTE_PRESENT);
    for (uint64_t page = phys & ~(uint64_t)(PAGE_SIZE - 1); page < end; page += PAGE_SIZE)
        if (!entry_find(pml4, page, &large))
            map(pml4, page, page, PAGE_SIZE, kind);
}

void paging_protect(uint64_t page, enum map_kind kind)
{
    bool enabled = lock(&table_lock);

    *entry_make(pml4, page, 1) = page | flags_of(kind);
    tlb_flush_page(page);
    unlock(&table_lock, enabled);
}

bool paging_unmap(void *page)
{
    uint64_t *table = page_alloc(1); // in case that the page is part of a big one
    bool large = false;

    if (!table)
        return false;
    bool enabled = lock(&table_lock);
    uint64_t *entry = entry_find(pml4, (uint64_t)page, &large);
    if (large)
        split(entry, table);
    *entry_make(pml4, (uint64_t)page, 1) = 0;
    tlb_flush_page((uint64_t)page);
    unlock(&table_lock, enabled);
    if (!large)
        page_free(table, 1);
    return true;
}

bool paging_readable(const void *p, size_t bytes)
{
    uint64_t *root = table_of(read_cr3());
    uint64_t at = (uint64_t)p & ~(uint64_t)(PAGE_SIZE - 1), end = (uint64_t)p + bytes;
    bool large;

    if (end < (uint64_t)p)
        return false;
    for (; at < end; at += PAGE_SIZE)
        if (!entry_find(root, at, &large))
            return false;
    return true;
}

const void *core_peek(unsigned core, const void *p)
{
    ASSERT(core < core_count() && core_in_window(p, 1));
    return windows[core] + ((const char *)p - percore_start);
}

// Where virt_to_phys() found something mapped: which 2 MiB, plus 1.
static PERCORE uint64_t found_last;

uint64_t virt_to_phys(const void *p)
{
    uint64_t virt = (uint64_t)p;
    bool large;

    if (virt >= (uint64_t)kernel_start && virt < (uint64_t)kernel_end) {
        if (core_in_window(p, 1))
            panic("virt_to_phys: %p is in the per-core window", p);
        return virt - (uint64_t)kernel_start + image_phys;
    }
    // What goes out by reference is most often in one place, and this only finds wrong pointers.
    if (virt / LARGE_PAGE + 1 == found_last)
        return virt;
    if (virt >= 1ull << 47 || !entry_find(pml4, virt, &large))
        panic("virt_to_phys: %p is not mapped", p);
    found_last = virt / LARGE_PAGE + 1;
    return virt;
}
