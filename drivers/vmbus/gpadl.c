// SPDX-License-Identifier: BSD-2-Clause
// Sharing memory with the host: one header message and as many bodies as the page numbers need, one
// answer; on the way back TEARDOWN, and only TORNDOWN makes the memory ours again. Called by channel.c
// for rings and by drivers for their buffers, from fibers of core 0.
#include "drivers/vmbus/gpadl.h"

#include <errno.h>
#include <string.h>

#include "drivers/vmbus/connection.h"
#include "kernel/alloc.h"
#include "kernel/log.h"
#include "kernel/min.h"

static uint32_t next_handle = 0xd0001;

static void put_pfns(uint64_t *to, uint64_t gpa, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t pfn = (gpa >> VMBUS_PAGE_SHIFT) + first + i;
        memcpy(&to[i], &pfn, sizeof(pfn)); // the header's array is only 4-aligned
    }
}

size_t gpadl_message(uint32_t relid, uint32_t handle, uint64_t gpa, uint32_t pages, unsigned index,
                     uint8_t out[240])
{
    if (index == 0) {
        struct vmbus_gpadl_header header = {
            .header.type = VMBUS_GPADL_HEADER,
            .relid = relid,
            .gpadl = handle,
            .range_bytes = (uint16_t)(sizeof(uint64_t) * (pages + 1)),
            .range_count = 1,
            .bytes = pages << VMBUS_PAGE_SHIFT,
        };
        uint32_t count = min_u32(pages, VMBUS_GPADL_HEADER_PFNS);

        memcpy(out, &header, sizeof(header));
        put_pfns((void *)(out + sizeof(header)), gpa, 0, count);
        return sizeof(header) + count * sizeof(uint64_t);
    }
    uint32_t first = VMBUS_GPADL_HEADER_PFNS + (index - 1) * VMBUS_GPADL_BODY_PFNS;
    if (first >= pages)
        return 0;
    struct vmbus_gpadl_body body = {.header.type = VMBUS_GPADL_BODY, .gpadl = handle};
    uint32_t count = min_u32(pages - first, VMBUS_GPADL_BODY_PFNS);

    memcpy(out, &body, sizeof(body));
    put_pfns((void *)(out + sizeof(body)), gpa, first, count);
    return sizeof(body) + count * sizeof(uint64_t);
}

// What has been begun is said to the end, even if the device is rescinded: the host knows whole GPADLs
// only. *known: it has heard of this one.
static int post_all(struct vmbus_device *device, uint32_t handle, uint64_t gpa, uint32_t pages,
                    bool *known)
{
    uint8_t message[HV_MESSAGE_PAYLOAD_MAX];

    *known = false;
    for (unsigned i = 0;; i++) {
        size_t len = gpadl_message(device->relid, handle, gpa, pages, i, message);
        if (len == 0)
            return 0;
        int r = vmbus_post(message, len, *known ? NULL : device);
        if (r)
            return r;
        *known = true;
    }
}

int gpadl_create(struct vmbus_device *device, void *memory, uint32_t pages, struct gpadl *out,
                 bool *leaked)
{
    *out = (struct gpadl){0};
    *leaked = false;
    if (pages == 0 || pages > VMBUS_GPADL_MAX_PAGES)
        return -EINVAL;

    uint32_t handle = next_handle++;
    if (next_handle == 0)
        next_handle = 1;
    struct vmbus_call call = {.answer = VMBUS_GPADL_CREATED, .relid = device->relid, .id = handle};

    bool known;
    vmbus_call_begin(&call);
    int r = post_all(device, handle, virt_to_phys(memory), pages, &known);
    if (r == 0)
        r = vmbus_call_wait(&call, device, VMBUS_ANSWER_TIMEOUT);
    vmbus_call_end(&call);
    if (!known)
        return r;
    if (r == 0 && call.result.status != 0)
        return -EIO; // refused: the host has forgotten it
    *out = (struct gpadl){.handle = handle, .pages = pages, .memory = memory};
    if (r) { // nobody knows what the host has now
        *leaked = gpadl_destroy(device, out) != 0;
        return r;
    }
    return 0;
}

int gpadl_destroy(struct vmbus_device *device, struct gpadl *gpadl)
{
    if (gpadl->handle == 0)
        return 0;
    struct vmbus_gpadl_teardown message = {
        .header.type = VMBUS_GPADL_TEARDOWN, .relid = device->relid, .gpadl = gpadl->handle};
    struct vmbus_call call = {.answer = VMBUS_GPADL_TORNDOWN, .id = gpadl->handle};

    gpadl->handle = 0;
    vmbus_call_begin(&call);
    // A rescind ends neither the posting nor the wait at once: the host still answers this question
    // for a rescinded device, and the answer decides whether the memory can be used again.
    int r = vmbus_post(&message, sizeof(message), NULL);
    if (r == 0) {
        r = vmbus_call_wait(&call, device, VMBUS_ANSWER_TIMEOUT);
        if (r == -ENODEV)
            r = vmbus_call_wait(&call, NULL, VMBUS_RESCINDED_TIMEOUT);
    }
    vmbus_call_end(&call);
    if (r) {
        log_warn("vmbus: relid %u: GPADL %#x not torn down (%d)", device->relid, message.gpadl, r);
        (device->primary ? device->primary : device)->leaked = true;
    }
    return r;
}

void *shared_alloc(uint32_t pages)
{
    return page_alloc(pages);
}

void *shared_alloc_raw(uint32_t pages)
{
    return page_alloc_raw(pages);
}

void shared_free(void *memory, uint32_t pages, bool leaked)
{
    if (!memory)
        return;
    if (leaked)
        vmbus_counters.leaked_pages += pages;
    else
        page_free(memory, pages);
}
