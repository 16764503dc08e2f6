// SPDX-License-Identifier: BSD-2-Clause
// What the UEFI program hands to the kernel: the one header that boot/ and kernel/ share.
// Everything in here is in memory that the memory map marks as used, so the kernel may read it
// until it chooses to reclaim it. All addresses are physical.
#pragma once

#include <stdint.h>

#define BOOT_INFO_MAGIC 0x4e494c4e5544ull // "DUNLIN"
#define BOOT_INFO_VERSION 2
#define BOOT_MAX_RANGES 256
#define BOOT_CONFIG_MAX 16384 // bytes of dunlin.conf that are kept, without the final NUL
#define BOOT_ENTROPY_BYTES 64

enum boot_memory_type {
    BOOT_MEMORY_FREE = 1,     // usable at once
    BOOT_MEMORY_LOADER = 2,   // boot program, boot_info, kernel image, config: in use
    BOOT_MEMORY_ACPI = 3,     // tables: keep
    BOOT_MEMORY_RESERVED = 4, // firmware runtime, MMIO and all else: never touch
    BOOT_MEMORY_FIRMWARE = 5, // usable at once, but the firmware was there until now
};

struct boot_memory_range {
    uint64_t base;  // page aligned
    uint64_t pages; // of 4096 bytes
    uint32_t type;  // enum boot_memory_type
    uint32_t reserved;
};

struct boot_framebuffer { // base == 0: there is none
    uint64_t base;
    uint32_t width, height; // pixels
    uint32_t stride;        // pixels per scan line
    uint32_t format;        // 0 = 32 bit xRGB (blue lowest), 1 = 32 bit xBGR
};

struct boot_info {
    uint64_t magic;       // BOOT_INFO_MAGIC
    uint32_t version;     // BOOT_INFO_VERSION; the kernel refuses any other
    uint32_t size;        // sizeof(struct boot_info)
    uint64_t kernel_base; // where the kernel image was loaded (page aligned)
    uint64_t kernel_pages;
    uint64_t acpi_rsdp; // 0: not found
    uint64_t entry_tsc; // rdtsc when the boot program started
    struct boot_framebuffer framebuffer;
    uint16_t serial_port; // I/O port of COM1, 0: none
    uint16_t reserved;
    uint32_t config_bytes; // of config below; 0: no dunlin.conf found
    uint32_t config_truncated;
    uint32_t range_count;
    struct boot_memory_range ranges[BOOT_MAX_RANGES];
    uint8_t entropy[BOOT_ENTROPY_BYTES]; // EFI_RNG_PROTOCOL where there, else zero
    char config[BOOT_CONFIG_MAX + 1];    // text, NUL terminated
};
