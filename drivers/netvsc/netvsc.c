// SPDX-License-Identifier: BSD-2-Clause
// The NIC's life: bring-up as a list of steps, each with what undoes it; on failure and on removal the
// steps that were done are undone in reverse. Runs in the device's fiber on core 0 (vmbus/offers.c).
#include "drivers/netvsc/netvsc.h"

#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/log.h"

#define RECEIVE_BUFFER_MAX_OLD (15u << 20) // NVSP 2 and below
#define BUFFER_LEAST (256u << 10)          // below that a NIC is not worth having
#define MEMORY_LEFT_PART 8 // NICs leave that part of the memory to all else: one page in so many
#define NIC_PAGES ((sizeof(struct nic) + PAGE_SIZE - 1) / PAGE_SIZE)

const struct nic_client *nic_client;

static struct nic *nics[NIC_MAX];

const struct nic_info *nic_info(const struct nic *nic)
{
    return &nic->info;
}

// Steps of the bring-up. Each returns 0 or a negative errno with nothing half done.

static void memory_free(struct nic *nic)
{
    for (unsigned i = 0; i < nic->queue_count; i++)
        nic->frames_lost += nic->queue[i]->rx.held;
    if (nic->frames_lost) { // the client kept them: their memory stays theirs
        log_error("%s: %u received frames were never released", nic->info.name, nic->frames_lost);
        vmbus_counters.leaked_pages += nic->receive.pages + NIC_PAGES;
    } else {
        shared_free(nic->receive.memory, nic->receive.pages, nic->leaked);
    }
    shared_free(nic->send.memory, nic->send.pages, nic->leaked);
    shared_free(nic->control.page, 1, nic->leaked);
    while (nic->queue_count > 0)
        queue_free(nic);
}

bool nic_memory_fits(uint32_t pages)
{
    struct memory_stats memory;

    memory_stats(&memory);
    return memory.pages_free >= pages + memory.pages_total / MEMORY_LEFT_PART;
}

// A buffer as large as configured, or, where there is less memory, a half of it, a quarter, and so on.
// Returns its pages; 0: there is no memory.
static uint32_t buffer_alloc(uint32_t bytes, uint8_t **memory)
{
    uint32_t least = bytes < BUFFER_LEAST ? bytes : BUFFER_LEAST;

    for (; bytes >= least; bytes /= 2) {
        uint32_t pages = bytes / PAGE_SIZE;
        *memory = nic_memory_fits(pages) ? shared_alloc_raw(pages) : NULL;
        if (*memory)
            return pages;
    }
    return 0;
}

static int memory_alloc(struct nic *nic)
{
    nic->receive.pages = buffer_alloc(config.receive_buffer, &nic->receive.memory);
    nic->receive.bytes = nic->receive.pages * PAGE_SIZE;
    if (nic->receive.memory)
        nic->send.pages = buffer_alloc(config.send_buffer, &nic->send.memory);
    nic->control.page = shared_alloc(1);
    if (!nic->send.memory || !nic->control.page || !queue_new(nic)) {
        memory_free(nic);
        return -ENOMEM;
    }
    if (nic->receive.bytes < (config.receive_buffer & ~(PAGE_SIZE - 1)))
        log_warn("%s: memory is short: a receive buffer of %u KiB", nic->info.name,
                 nic->receive.bytes >> 10);
    nic->control.page_gpa = virt_to_phys(nic->control.page);
    return 0;
}

uint32_t nic_pages(const struct nic *nic)
{
    uint32_t pages = NIC_PAGES + nic->receive.pages + nic->send.pages + 1;

    for (unsigned i = 0; i < nic->queue_count; i++)
        pages += queue_pages(nic->queue[i]);
    return pages;
}

static void unshare(struct nic *nic)
{
    if (gpadl_destroy(nic->device, &nic->receive.gpadl))
        nic->leaked = true;
    if (gpadl_destroy(nic->device, &nic->send.gpadl))
        nic->leaked = true;
}

static int channel_up(struct nic *nic)
{
    return queue_open(nic->queue[0], nic->device);
}

static void channel_down(struct nic *nic)
{
    channels_close(nic);
    unshare(nic); // from VMBus 4.0 the buffers go after the channel; before they have gone already
}

static int configure(struct nic *nic)
{
    return nvsp_configure(nic, config.mtu);
}

static void buffers_revoke(struct nic *nic)
{
    nvsp_revoke_buffer(nic, NVSP_REVOKE_RECEIVE_BUFFER, NVSP_RECEIVE_BUFFER_ID);
    nvsp_revoke_buffer(nic, NVSP_REVOKE_SEND_BUFFER, NVSP_SEND_BUFFER_ID);
    if (vmbus_version() < VMBUS_VERSION_4_0)
        unshare(nic);
}

static int buffers_share(struct nic *nic)
{
    if (nic->nvsp_version <= NVSP_VERSION_2 && nic->receive.bytes > RECEIVE_BUFFER_MAX_OLD) {
        log_error("%s: the host takes no receive buffer over 15 MiB", nic->info.name);
        return -EINVAL;
    }
    int r = nvsp_share_receive_buffer(nic);
    if (r == 0)
        r = rx_start(nic->queue[0]);
    if (r == 0)
        r = nvsp_share_send_buffer(nic);
    if (r) {
        buffers_revoke(nic);
        return r;
    }
    nic->info.rx_sections = nic->receive.section_count;
    return 0;
}

static int set_filter(struct nic *nic, uint32_t filter)
{
    return rndis_set(nic, OID_PACKET_FILTER, &filter, sizeof(filter));
}

// Some hosts come up with an open filter; nothing may arrive before the client is there.
static int filter_close(struct nic *nic)
{
    return set_filter(nic, 0);
}

static int query_u32(struct nic *nic, uint32_t oid, uint32_t *value)
{
    uint32_t length;
    int r = rndis_query(nic, oid, NULL, 0, value, sizeof(*value), &length);

    return r == 0 && length != sizeof(*value) ? -EPROTO : r;
}

static int query_mac(struct nic *nic)
{
    uint8_t mac[6];
    uint32_t length;
    int r = rndis_query(nic, OID_PERMANENT_ADDRESS, NULL, 0, mac, sizeof(mac), &length);

    if (r)
        return r;
    static const uint8_t none[6];
    if (length != sizeof(mac) || (mac[0] & 1) || memcmp(mac, none, sizeof(mac)) == 0)
        return -EPROTO;
    memcpy(nic->info.mac, mac, sizeof(mac));
    return 0;
}

static int query_all(struct nic *nic)
{
    uint32_t mtu, link, speed = 0;
    int r = query_u32(nic, OID_MAXIMUM_FRAME_SIZE, &mtu);

    if (r == 0)
        r = query_mac(nic);
    if (r == 0)
        r = rndis_negotiate_offloads(nic);
    if (r == 0)
        r = query_u32(nic, OID_MEDIA_CONNECT_STATUS, &link);
    if (r)
        return r;
    if (mtu < 68)
        return -EPROTO;
    nic->info.mtu = mtu < config.mtu ? (uint16_t)mtu : config.mtu;
    nic->control.link = link == 0;
    r = query_u32(nic, OID_LINK_SPEED, &speed);
    if (r != 0 && r != -EOPNOTSUPP)
        return r;
    nic->info.speed_bps = (uint64_t)speed * 100;
    return 0;
}

static int attach(struct nic *nic)
{
    channels_attach(nic);
    return 0;
}

// Gives the host a moment to finish what it was given.
static void drain(struct nic *nic)
{
    uint64_t deadline = time_now() + DRAIN_TIMEOUT;

    while (time_now() < deadline && channels_outstanding(nic) > 0)
        fiber_sleep(TIME_MS);
}

// The host may read a frame's memory until it has completed it or has let go of the channel. So that
// goes first if frames are still out; if the host does not confirm it the frames are lost to us, too.
static void abort_sends(struct nic *nic)
{
    uint32_t held = channels_held(nic);

    if (held == 0)
        return;
    rndis_halt(nic);
    buffers_revoke(nic);
    channels_close(nic);
    if (!nic->leaked) {
        channels_abort(nic);
        return;
    }
    log_error("%s: %u sent frames are lost: the host did not let go of them", nic->info.name, held);
    vmbus_counters.leaked_requests += held;
}

static void detach(struct nic *nic)
{
    nic->control.closing = true;
    while (nic->control.askers > 0) // each has its time-outs
        fiber_sleep(TIME_MS);
    channels_stop(nic);
    drain(nic);
    abort_sends(nic);
    channels_detach(nic);
}

static int filter_open(struct nic *nic)
{
    return set_filter(nic, RNDIS_FILTER_UP);
}

static void filter_shut(struct nic *nic)
{
    int r = set_filter(nic, 0);

    if (r && r != -ENODEV)
        log_warn("%s: cannot close the packet filter (%d)", nic->info.name, r);
}

static void link_tell(struct nic *nic, bool up)
{
    nic->info.link_up = up;
    channels_link(nic);
}

// The client asks for addresses as soon as it has a link: frames must be able to come in by then.
static int link_begin(struct nic *nic)
{
    nic->control.link_flapped = false;
    if (nic->control.link)
        link_tell(nic, true);
    return 0;
}

static const struct step {
    const char *name;
    int (*up)(struct nic *nic);
    void (*down)(struct nic *nic); // may be NULL
} steps[] = {
    {"memory", memory_alloc, memory_free},
    {"channel", channel_up, channel_down},
    {"NVSP version", nvsp_negotiate, NULL},
    {"NDIS configuration", configure, NULL},
    {"buffers", buffers_share, buffers_revoke},
    {"RNDIS initialize", rndis_initialize, rndis_halt},
    {"closed packet filter", filter_close, NULL},
    {"parameters", query_all, NULL},
    {"channels", channels_open, NULL},
    {"network stack", attach, detach},
    {"open packet filter", filter_open, filter_shut},
    {"link", link_begin, NULL},
};

#define STEPS (sizeof(steps) / sizeof(steps[0]))

static void up_failed(const struct nic *nic, int error)
{
    const char *name = nic->info.name;
    struct memory_stats memory;

    memory_stats(&memory);
    if (error == -ENODEV) // it was taken back, or failed, as was logged
        log_debug("%s: gone at: %s", name, steps[nic->steps].name);
    else if (nic->device->tries > 0)
        log_debug("%s: %s failed again (%d)", name, steps[nic->steps].name, error);
    else if (error == -ENOMEM)
        log_error("%s: not enough memory (%u KiB free): not used until there is more", name,
                  (unsigned)(memory.pages_free * (PAGE_SIZE >> 10)));
    else
        log_error("%s: %s failed (%d)", name, steps[nic->steps].name, error);
}

static int nic_up(struct nic *nic)
{
    for (; nic->steps < STEPS; nic->steps++) {
        uint64_t began = time_now();
        int r = steps[nic->steps].up(nic);

        log_debug("%s: %s: %u us", nic->info.name, steps[nic->steps].name,
                  (unsigned)((time_now() - began) / TIME_US));
        if (r) {
            up_failed(nic, r);
            return r;
        }
    }
    return 0;
}

static void nic_down(struct nic *nic)
{
    while (nic->steps > 0) {
        const struct step *step = &steps[--nic->steps];
        if (step->down)
            step->down(nic);
    }
}

// What the host said unasked and every core has to know.
static void work(struct vmbus_device *device)
{
    struct nic *nic = device->driver_data;
    struct nic_control *c = &nic->control;
    bool flapped = c->link_flapped, table = c->table_changed;

    if (c->speed_changed)
        log_info("%s: link speed %u Mbit/s", nic->info.name,
                 (unsigned)(nic->info.speed_bps / 1000000));
    c->link_flapped = c->table_changed = c->speed_changed = false;
    if (flapped && nic->info.link_up) // another network behind the same link: start over
        link_tell(nic, false);
    if (nic->info.link_up != c->link)
        link_tell(nic, c->link);
    if (table)
        rss_balance(nic);
}

static void write_stats(void)
{
    const char *separator = "";

    stats_print("{");
    for (unsigned i = 0; i < NIC_MAX; i++) {
        if (!nics[i])
            continue;
        stats_print("%s", separator);
        nic_write_stats(nics[i]);
        separator = ",";
    }
    stats_print("}");
}

static struct stats_source stats = {.name = "netvsc", .write = write_stats};

static unsigned free_index(void)
{
    unsigned i = 0;

    while (i < NIC_MAX && nics[i])
        i++;
    return i;
}

// Undoes everything and forgets the NIC.
static void nic_destroy(struct nic *nic, unsigned index)
{
    nic_down(nic);
    nics[index] = NULL;
    if (nic->frames_lost == 0)
        page_free(nic, NIC_PAGES);
}

static int probe(struct vmbus_device *device)
{
    static const char *const names[NIC_MAX] = {"nic0", "nic1", "nic2", "nic3",
                                               "nic4", "nic5", "nic6", "nic7"};
    unsigned index = free_index();

    if (index == NIC_MAX) {
        if (device->tries == 0)
            log_error("netvsc: relid %u: there are %u NICs already: not used until one goes",
                      device->relid, NIC_MAX);
        return -ENOSPC;
    }
    struct nic *nic = page_alloc(NIC_PAGES);
    if (!nic)
        return -ENOMEM;
    nic->device = device;
    memcpy(nic->info.instance, &device->instance_id, sizeof(nic->info.instance));
    nic->info.name = names[index];
    nic->info.index = index;
    nic->info.channels = 1;
    nic->index = index;
    rss_init(nic);
    nics[index] = nic;
    int r = nic_up(nic);
    if (r) {
        nic_destroy(nic, index);
        return r;
    }
    device->driver_data = nic;
    const struct nic_info *info = &nic->info;
    log_info("%s: %02x:%02x:%02x:%02x:%02x:%02x, NVSP %u.%u, MTU %u, %u receive and %u send "
             "sections, %u channels, checksums %#x, link %s",
             info->name, info->mac[0], info->mac[1], info->mac[2], info->mac[3], info->mac[4],
             info->mac[5], nic->nvsp_version >> 16, nic->nvsp_version & 0xffff, info->mtu,
             nic->receive.section_count, nic->send.section_count, info->channels, info->tx_csum,
             info->link_up ? "up" : "down");
    return 0;
}

static void detach_device(struct vmbus_device *device)
{
    struct nic *nic = device->driver_data;

    log_info("%s: removed", nic->info.name);
    nic_destroy(nic, nic->index);
}

static struct vmbus_driver driver = {
    .name = "netvsc",
    .class_id = {{0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9,
                  0x65, 0xed, 0x0e}},
    .probe = probe,
    .work = work,
    .remove = detach_device,
};

void netvsc_start(const struct nic_client *client)
{
    nic_client = client;
    stats_add(&stats);
    vmbus_register_driver(&driver);
}
