// SPDX-License-Identifier: BSD-2-Clause
// Page tables. RAM is mapped at its own address, not executable; the kernel image at the top, W^X;
// the per-core window in it to pages of each core. Private to kernel/ and drivers/hyperv/.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_info;

enum map_kind { MAP_RAM, MAP_READ_ONLY, MAP_CODE, MAP_DEVICE, MAP_FRAMEBUFFER };

// Builds core 0's tables and switches to them. PERCORE variables count as untouched before.
void paging_init(const struct boot_info *info);

// Sets up what each core must before it uses any of these tables: NX, write protection, PAT.
void paging_init_core(void);

// Tables for one more core: its own window, a fresh copy of the template; the rest is shared.
// Returns the physical address of its PML4, 0 if there is no memory. Core 0.
uint64_t paging_new_core(void);

// Maps [phys, phys+bytes) at its own address if it is not mapped yet; panics without memory. Core
// 0.
void paging_map(uint64_t phys, uint64_t bytes, enum map_kind kind);

// Changes the rights of one page of the identity map.
void paging_protect(uint64_t page, enum map_kind kind);

// Takes one page of RAM out of the map (stack guards), for ever. False if there is no memory for
// the table that this may need.
bool paging_unmap(void *page);

// True if reading [p, p+bytes) cannot fault on this core.
bool paging_readable(const void *p, size_t bytes);
