/*
 * GPADLs: memory of the guest that it has told the host of, and GPA ranges in
 * packets.  Used by vmbus-message.c with the guest's messages, by the rings and
 * by devices, in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/hyperv/hyperv-host.h"
#include "vmbus-internal.h"

#define MAX_GPADLS 1024

static VMBusGpadl *gpadl_find(VMBus *bus, uint32_t relid, uint32_t id)
{
    VMBusGpadl *gpadl;

    QTAILQ_FOREACH(gpadl, &bus->gpadls, link) {
        if (gpadl->id == id && gpadl->relid == relid) {
            return gpadl;
        }
    }
    return NULL;
}

VMBusGpadl *vmbus_gpadl_find_filling(VMBus *bus, uint32_t id)
{
    VMBusGpadl *gpadl;

    QTAILQ_FOREACH(gpadl, &bus->gpadls, link) {
        if (gpadl->id == id && gpadl->state == VMBUS_GPADL_FILLING) {
            return gpadl;
        }
    }
    return NULL;
}

static void gpadl_free(VMBusGpadl *gpadl)
{
    assert(!gpadl->users);
    QTAILQ_REMOVE(&gpadl->bus->gpadls, gpadl, link);
    gpadl->bus->gpadl_count--;
    g_free(gpadl->words);
    g_free(gpadl->pages);
    g_free(gpadl);
}

static void gpadl_torndown(VMBusGpadl *gpadl)
{
    VMBusMsgGpadlTorndown msg = {
        .header.type = VMBUS_MSG_GPADL_TORNDOWN,
        .gpadl = gpadl->id,
    };

    vmbus_send(gpadl->bus, &msg, sizeof(msg));
    gpadl_free(gpadl);
}

VMBusGpadl *vmbus_gpadl_get(VMBusChannel *chan, uint32_t id)
{
    VMBusGpadl *gpadl = gpadl_find(vmbus_channel_bus(chan), chan->relid, id);

    if (!gpadl || gpadl->state != VMBUS_GPADL_READY || !gpadl->pages) {
        return NULL;
    }
    gpadl->users++;
    return gpadl;
}

void vmbus_gpadl_put(VMBusGpadl *gpadl)
{
    if (!gpadl) {
        return;
    }
    assert(gpadl->users);
    if (!--gpadl->users && gpadl->state == VMBUS_GPADL_TEARDOWN) {
        gpadl_torndown(gpadl);
    }
}

uint32_t vmbus_gpadl_bytes(const VMBusGpadl *gpadl)
{
    return gpadl->bytes;
}

bool vmbus_gpadl_aligned(const VMBusGpadl *gpadl)
{
    return gpadl->range_count == 1 && !gpadl->offset;
}

uint8_t *vmbus_gpadl_ptr(const VMBusGpadl *gpadl, uint32_t off, uint32_t *run)
{
    uint32_t in_page;

    assert(off < gpadl->bytes);
    if (gpadl->linear) {
        *run = gpadl->bytes - off;
        return gpadl->linear + gpadl->offset + off;
    }
    off += gpadl->offset;
    in_page = off & (VMBUS_PAGE_SIZE - 1);
    *run = MIN(VMBUS_PAGE_SIZE - in_page,
               gpadl->bytes + gpadl->offset - off);
    return gpadl->pages[off >> VMBUS_PAGE_BITS] + in_page;
}

void vmbus_gpadl_read(const VMBusGpadl *gpadl, uint32_t off, void *buf,
                      uint32_t bytes)
{
    uint32_t run;

    while (bytes) {
        const uint8_t *src = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        memcpy(buf, src, run);
        buf = (uint8_t *)buf + run;
        off += run;
        bytes -= run;
    }
}

void vmbus_gpadl_write(const VMBusGpadl *gpadl, uint32_t off, const void *buf,
                       uint32_t bytes)
{
    uint32_t run;

    while (bytes) {
        uint8_t *dst = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        memcpy(dst, buf, run);
        buf = (const uint8_t *)buf + run;
        off += run;
        bytes -= run;
    }
}

static int iov_append(struct iovec *iov, int count, int max, uint8_t *ptr,
                      uint32_t bytes)
{
    if (count && (uint8_t *)iov[count - 1].iov_base +
                 iov[count - 1].iov_len == ptr) {
        iov[count - 1].iov_len += bytes;
        return count;
    }
    if (count == max) {
        return -1;
    }
    iov[count].iov_base = ptr;
    iov[count].iov_len = bytes;
    return count + 1;
}

int vmbus_gpadl_iov(const VMBusGpadl *gpadl, uint32_t off, uint32_t bytes,
                    struct iovec *iov, int count, int max)
{
    uint32_t run;

    while (bytes && count >= 0) {
        uint8_t *ptr = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        count = iov_append(iov, count, max, ptr, run);
        off += run;
        bytes -= run;
    }
    return count;
}

/* The host address of guest RAM at @gpa, NULL if there is none. */
static uint8_t *guest_ram(hwaddr gpa, hwaddr bytes)
{
    MemoryRegion *mr;
    hwaddr offset, run = bytes;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, gpa, &offset, &run,
                                 true, MEMTXATTRS_UNSPECIFIED);
    if (run < bytes || !memory_access_is_direct(mr, true)) {
        return NULL;
    }
    return qemu_map_ram_ptr(mr->ram_block, offset);
}

/*
 * The number of page numbers that @range needs, 0 if it is malformed.
 */
static uint64_t gpa_range_pages(const VMBusGpaRange *range)
{
    if (!range->bytes || range->offset >= VMBUS_PAGE_SIZE) {
        return 0;
    }
    return DIV_ROUND_UP((uint64_t)range->offset + range->bytes,
                        VMBUS_PAGE_SIZE);
}

int vmbus_gpa_range_iov(const uint8_t **pos, uint32_t *left,
                        struct iovec *iov, int count, int max)
{
    VMBusGpaRange range;
    uint64_t pages, i;
    const uint8_t *pfns = *pos + sizeof(range);

    if (*left < sizeof(range)) {
        return -1;
    }
    memcpy(&range, *pos, sizeof(range));
    pages = gpa_range_pages(&range);
    if (!pages || pages > (*left - sizeof(range)) / 8) {
        return -1;
    }
    for (i = 0; i < pages; i++) {
        uint64_t pfn = ldq_le_p(pfns + i * 8);
        uint32_t bytes = MIN(range.bytes, VMBUS_PAGE_SIZE - range.offset);
        uint8_t *ptr;

        if (pfn > (UINT64_MAX >> VMBUS_PAGE_BITS)) {
            return -2;
        }
        ptr = guest_ram((pfn << VMBUS_PAGE_BITS) + range.offset, bytes);
        if (!ptr) {
            return -2;
        }
        count = iov_append(iov, count, max, ptr, bytes);
        if (count < 0) {
            return -3;
        }
        range.bytes -= bytes;
        range.offset = 0;
    }
    *pos += sizeof(range) + pages * 8;
    *left -= sizeof(range) + pages * 8;
    return count;
}

static bool gpadl_map(VMBusGpadl *gpadl)
{
    const uint64_t *pfns = gpadl->words + 1;
    uint32_t i;

    gpadl->pages = g_new(uint8_t *, gpadl->page_count);
    for (i = 0; i < gpadl->page_count; i++) {
        if (pfns[i] > (UINT64_MAX >> VMBUS_PAGE_BITS)) {
            return false;
        }
        gpadl->pages[i] = guest_ram(pfns[i] << VMBUS_PAGE_BITS,
                                    VMBUS_PAGE_SIZE);
        if (!gpadl->pages[i]) {
            return false;
        }
    }
    gpadl->linear = gpadl->pages[0];
    for (i = 1; i < gpadl->page_count; i++) {
        if (gpadl->pages[i] != gpadl->linear + (size_t)i * VMBUS_PAGE_SIZE) {
            gpadl->linear = NULL;
            break;
        }
    }
    return true;
}

/* All words are there: check the ranges, map the pages if there is one. */
static bool gpadl_complete(VMBusGpadl *gpadl)
{
    uint32_t i, pos = 0;

    for (i = 0; i < gpadl->range_count; i++) {
        VMBusGpaRange range;
        uint64_t pages;

        if (pos == gpadl->words_total) {
            return false;
        }
        memcpy(&range, &gpadl->words[pos], sizeof(range));
        pages = gpa_range_pages(&range);
        if (!pages || pages > gpadl->words_total - pos - 1) {
            return false;
        }
        if (!i) {
            gpadl->bytes = range.bytes;
            gpadl->offset = range.offset;
            gpadl->page_count = pages;
        }
        pos += 1 + pages;
    }
    if (gpadl->range_count == 1 && !gpadl_map(gpadl)) {
        return false;
    }
    g_free(gpadl->words);
    gpadl->words = NULL;
    gpadl->state = VMBUS_GPADL_READY;
    return true;
}

static void gpadl_created(VMBus *bus, uint32_t relid, uint32_t id,
                          uint32_t status)
{
    VMBusMsgGpadlCreated msg = {
        .header.type = VMBUS_MSG_GPADL_CREATED,
        .relid = relid,
        .gpadl = id,
        .status = status,
    };

    vmbus_send(bus, &msg, sizeof(msg));
}

/* Take over page numbers from a message; answer when it was the last one. */
static void gpadl_fill(VMBusGpadl *gpadl, const uint8_t *words, uint32_t bytes)
{
    uint32_t count = MIN(bytes / 8, gpadl->words_total - gpadl->words_seen);
    uint32_t status = VMBUS_STATUS_OK;

    memcpy(gpadl->words + gpadl->words_seen, words, count * 8);
    gpadl->words_seen += count;
    if (gpadl->words_seen < gpadl->words_total) {
        return;
    }
    if (!gpadl_complete(gpadl)) {
        hyperv_violation("gpadl-range", "relid %u, gpadl 0x%x", gpadl->relid,
                         gpadl->id);
        status = VMBUS_STATUS_FAILED;
    }
    gpadl_created(gpadl->bus, gpadl->relid, gpadl->id, status);
    if (status) {
        gpadl_free(gpadl);
    }
}

void vmbus_handle_gpadl_header(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlHeader *msg = data;
    VMBusGpadl *gpadl;
    const char *why = NULL;

    if (msg->relid > VMBUS_MAX_RELID || !bus->relids[msg->relid]) {
        why = "gpadl-unknown-relid";
    } else if (gpadl_find(bus, msg->relid, msg->gpadl) ||
               vmbus_gpadl_find_filling(bus, msg->gpadl)) {
        why = "gpadl-duplicate-id";
    } else if (!msg->range_count || msg->range_buffer_bytes % 8 ||
               msg->range_buffer_bytes < 16 || bus->gpadl_count == MAX_GPADLS) {
        why = "gpadl-range";
    }
    if (why) {
        hyperv_violation(why, "relid %u, gpadl 0x%x, %u ranges in %u bytes",
                         msg->relid, msg->gpadl, msg->range_count,
                         msg->range_buffer_bytes);
        gpadl_created(bus, msg->relid, msg->gpadl, VMBUS_STATUS_FAILED);
        return;
    }

    gpadl = g_new0(VMBusGpadl, 1);
    gpadl->bus = bus;
    gpadl->id = msg->gpadl;
    gpadl->relid = msg->relid;
    gpadl->range_count = msg->range_count;
    gpadl->words_total = msg->range_buffer_bytes / 8;
    gpadl->words = g_new0(uint64_t, gpadl->words_total);
    QTAILQ_INSERT_TAIL(&bus->gpadls, gpadl, link);
    bus->gpadl_count++;
    gpadl_fill(gpadl, (const uint8_t *)(msg + 1), bytes - sizeof(*msg));
}

void vmbus_handle_gpadl_body(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlBody *msg = data;
    VMBusGpadl *gpadl = vmbus_gpadl_find_filling(bus, msg->gpadl);

    if (!gpadl) {
        hyperv_violation("gpadl-body-unexpected", "gpadl 0x%x", msg->gpadl);
        return;
    }
    gpadl_fill(gpadl, (const uint8_t *)(msg + 1), bytes - sizeof(*msg));
}

void vmbus_handle_gpadl_teardown(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlTeardown *msg = data;
    VMBusGpadl *gpadl = gpadl_find(bus, msg->relid, msg->gpadl);

    if (!gpadl || gpadl->state != VMBUS_GPADL_READY) {
        hyperv_violation("gpadl-teardown-unexpected", "relid %u, gpadl 0x%x",
                         msg->relid, msg->gpadl);
        return;
    }
    if (gpadl->users) {
        gpadl->state = VMBUS_GPADL_TEARDOWN;
    } else {
        gpadl_torndown(gpadl);
    }
}

void vmbus_gpadls_free(VMBus *bus, uint32_t relid, bool all)
{
    VMBusGpadl *gpadl, *next;

    QTAILQ_FOREACH_SAFE(gpadl, &bus->gpadls, link, next) {
        if (all || gpadl->relid == relid) {
            gpadl_free(gpadl);
        }
    }
}
