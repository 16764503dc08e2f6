// SPDX-License-Identifier: BSD-2-Clause
// GPADLs: guest memory that the host may use. Core 0, from fibers.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/vmbus/device.h"

struct gpadl {
    uint32_t handle; // 0: none
    uint32_t pages;
    void *memory;
};

// Builds message number `index` (0: header, then bodies) that shares `pages` contiguous pages at gpa.
// Returns its length, or 0 if there are no more messages. Pure.
size_t gpadl_message(uint32_t relid, uint32_t handle, uint64_t gpa, uint32_t pages, unsigned index,
                     uint8_t out[240]);

// Shares physically contiguous pages. 0, or a negative errno; then the memory is the caller's again,
// unless *leaked says that the host may have it.
int gpadl_create(struct vmbus_device *device, void *memory, uint32_t pages, struct gpadl *out,
                 bool *leaked);

// Takes the memory back. 0, or a negative errno: then the host did not confirm, and the memory must
// never be used again. Nothing to do for a handle of 0.
int gpadl_destroy(struct vmbus_device *device, struct gpadl *gpadl);

// Pages for sharing, and giving them back only if the host has let go of them.
void *shared_alloc(uint32_t pages);
void *shared_alloc_raw(uint32_t pages); // not zeroed
void shared_free(void *memory, uint32_t pages, bool leaked);
