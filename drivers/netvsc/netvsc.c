// SPDX-License-Identifier: BSD-2-Clause
// The NIC's life: bring-up as a list of steps, each with what undoes it; on failure and on removal the
// steps that were done are undone in reverse. Runs in the device's fiber on core 0 (vmbus/offers.c).
// Also the handler of the channel, which ties receive, transmit and the client together.
#include "drivers/netvsc/netvsc.h"

#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/log.h"

#define RECEIVE_BUFFER_MAX_OLD (15u << 20) // NVSP 2 and below
#define SLOT_PAGES (TX_REQUESTS * TX_SLOT_BYTES / PAGE_SIZE)
#define NIC_PAGES ((sizeof(struct nic) + PAGE_SIZE - 1) / PAGE_SIZE)

const struct nic_client *nic_client;

static struct nic *nics[NETVSC_MAX];

const struct nic_info *nic_info(const struct nic *nic)
{
    return &nic->info;
}

void nic_set_client_data(struct nic *nic, void *data)
{
    nic->client_data = data;
}

void *nic_client_data(const struct nic *nic)
{
    return nic->client_data;
}

void nic_flush(struct nic *nic)
{
    if (nic->channel.state != CHANNEL_OPEN)
        return;
    rx_flush(nic);
    tx_close_section(nic);
    // Nobody waits any more: else the host would interrupt at every crossing from now on.
    if (nic->channel.out.room_wanted && !nic->tx.waiting && !nic->rx.done)
        ring_out_cancel_room(&nic->channel.out);
    channel_publish(&nic->channel);
}

// True if the rings can be used; else the device's fiber is told. What is sent outside of the handler
// may be the first to see a broken index.
static bool rings_alive(struct nic *nic)
{
    if (!nic->channel.in.dead && !nic->channel.out.dead)
        return true;
    channel_fail(&nic->channel, "impossible ring index or packet");
    return false;
}

static bool handler_poll(void *ctx)
{
    struct nic *nic = ctx;
    bool frames = false;
    bool more = rx_poll(nic, &frames);

    channel_release(&nic->channel);
    tx_check_ready(nic);
    if (frames)
        nic_client->batch_end(nic);
    nic_flush(nic);
    return rings_alive(nic) && more;
}

static void handler_flush(void *ctx)
{
    struct nic *nic = ctx;

    nic_flush(nic);
    // Completions found room and took the wish back that frames had, too: the host will not tell.
    if (nic->tx.waiting && !nic->channel.out.room_wanted) {
        tx_check_ready(nic);
        nic_flush(nic);
    }
    rings_alive(nic);
}

static const struct channel_ops handler = {.poll = handler_poll, .flush = handler_flush};

// Steps of the bring-up. Each returns 0 or a negative errno with nothing half done.

static void memory_free(struct nic *nic)
{
    if (nic->rx.held) { // the client kept frames: their memory stays theirs
        log_error("%s: %u received frames were never released", nic->info.name, nic->rx.held);
        vmbus_counters.leaked_pages += nic->rx.buffer_pages + nic->rx.group_pages + NIC_PAGES;
    } else {
        shared_free(nic->rx.buffer, nic->rx.buffer_pages, nic->leaked);
        if (nic->rx.groups)
            page_free(nic->rx.groups, nic->rx.group_pages);
    }
    shared_free(nic->tx.buffer, nic->tx.buffer_pages, nic->leaked);
    shared_free(nic->tx.slots, SLOT_PAGES, nic->leaked);
    shared_free(nic->control.page, 1, nic->leaked);
}

static int memory_alloc(struct nic *nic)
{
    nic->rx.buffer_pages = config.receive_buffer / PAGE_SIZE;
    nic->rx.buffer_bytes = nic->rx.buffer_pages * PAGE_SIZE;
    nic->tx.buffer_pages = config.send_buffer / PAGE_SIZE;
    nic->rx.buffer = shared_alloc(nic->rx.buffer_pages);
    nic->tx.buffer = shared_alloc(nic->tx.buffer_pages);
    nic->tx.slots = shared_alloc(SLOT_PAGES);
    nic->control.page = shared_alloc(1);
    if (!nic->rx.buffer || !nic->tx.buffer || !nic->tx.slots || !nic->control.page) {
        memory_free(nic);
        return -ENOMEM;
    }
    nic->tx.slots_gpa = virt_to_phys(nic->tx.slots);
    nic->control.page_gpa = virt_to_phys(nic->control.page);
    requests_init(&nic->tx.requests, TX_REQUESTS);
    return 0;
}

static void unshare(struct nic *nic)
{
    if (gpadl_destroy(nic->device, &nic->rx.gpadl))
        nic->leaked = true;
    if (gpadl_destroy(nic->device, &nic->tx.gpadl))
        nic->leaked = true;
}

static int channel_up(struct nic *nic)
{
    return channel_open(&nic->channel, nic->device, config.ring & ~(PAGE_SIZE - 1), &handler, nic);
}

// After this the host has nothing of ours but the buffers. If it did not confirm that, nic->leaked.
static void channel_end(struct nic *nic)
{
    if (channel_close(&nic->channel))
        nic->leaked = true;
}

static void channel_down(struct nic *nic)
{
    channel_end(nic);
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
    if (nic->nvsp_version <= NVSP_VERSION_2 && nic->rx.buffer_bytes > RECEIVE_BUFFER_MAX_OLD) {
        log_error("%s: the host takes no receive buffer over 15 MiB", nic->info.name);
        return -EINVAL;
    }
    int r = nvsp_share_receive_buffer(nic);
    if (r == 0)
        r = rx_start(nic);
    if (r == 0)
        r = nvsp_share_send_buffer(nic);
    if (r) {
        buffers_revoke(nic);
        return r;
    }
    tx_start(nic);
    nic->info.rx_sections = nic->rx.section_count;
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
    nic->info.link_up = link == 0;
    r = query_u32(nic, OID_LINK_SPEED, &speed);
    if (r != 0 && r != -EOPNOTSUPP)
        return r;
    nic->info.speed_bps = (uint64_t)speed * 100;
    return 0;
}

static int attach(struct nic *nic)
{
    nic->state = NIC_UP;
    nic_client->attach(nic);
    return 0;
}

// Gives the host a moment to finish what it was given.
static void drain(struct nic *nic)
{
    uint64_t deadline = time_now() + DRAIN_TIMEOUT;

    while (time_now() < deadline && nic->channel.state == CHANNEL_OPEN &&
           nic->tx.requests.free_count < TX_REQUESTS)
        fiber_sleep(TIME_MS);
}

// The host may read a frame's memory until it has completed it or has let go of the channel. So that
// goes first if frames are still out; if the host does not confirm it the frames are lost to us, too.
static void abort_sends(struct nic *nic)
{
    uint32_t held = tx_held(nic);

    if (held == 0)
        return;
    rndis_halt(nic);
    buffers_revoke(nic);
    channel_end(nic);
    if (!nic->leaked) {
        tx_abort(nic);
        return;
    }
    log_error("%s: %u sent frames are lost: the host did not let go of them", nic->info.name, held);
    vmbus_counters.leaked_requests += held;
}

static void detach(struct nic *nic)
{
    nic->state = NIC_STOPPING;
    nic_flush(nic);
    drain(nic);
    abort_sends(nic);
    nic_client->detach(nic);
    nic_flush(nic);
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
    {"network stack", attach, detach},
    {"open packet filter", filter_open, filter_shut},
};

#define STEPS (sizeof(steps) / sizeof(steps[0]))

static int nic_up(struct nic *nic)
{
    for (; nic->steps < STEPS; nic->steps++) {
        int r = steps[nic->steps].up(nic);
        if (r) {
            log_error("%s: %s failed (%d)", nic->info.name, steps[nic->steps].name, r);
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

static void write_rx_stats(const struct nic *nic)
{
    const struct nic_rx *rx = &nic->rx;

    stats_print("\"rx_packets\":%llu,\"rx_bytes\":%llu,\"rx_batches\":%llu,\"completions\":%llu,"
                "\"completions_blocked\":%llu,\"rx_csum_ok\":%llu,\"rx_csum_bad\":%llu,",
                (unsigned long long)rx->packets, (unsigned long long)rx->bytes,
                (unsigned long long)rx->batches, (unsigned long long)rx->completions,
                (unsigned long long)rx->completions_blocked, (unsigned long long)rx->csum_ok,
                (unsigned long long)rx->csum_bad);
    stats_print("\"rx_sections\":%u,\"rx_held\":%u,\"rx_held_peak\":%u,", rx->section_count,
                rx->held, rx->held_peak);
    stats_print("\"rx_pinned\":%u,\"rx_pinned_peak\":%u,", rx->pinned, rx->pinned_peak);
    stats_print("\"rx_dropped\":{\"not_up\":%llu,\"length\":%llu,\"data\":%llu,\"ppi\":%llu,"
                "\"range\":%llu,\"packet\":%llu,\"no_group\":%llu,\"vlan\":%llu},",
                (unsigned long long)rx->dropped[RNDIS_OK],
                (unsigned long long)rx->dropped[RNDIS_BAD_LENGTH],
                (unsigned long long)rx->dropped[RNDIS_BAD_DATA],
                (unsigned long long)rx->dropped[RNDIS_BAD_PPI], (unsigned long long)rx->bad_ranges,
                (unsigned long long)rx->bad_packets, (unsigned long long)rx->no_group,
                (unsigned long long)rx->vlan);
}

static void write_tx_stats(const struct nic *nic)
{
    const struct nic_tx_state *tx = &nic->tx;

    stats_print("\"tx_packets\":%llu,\"tx_bytes\":%llu,\"tx_copied\":%llu,\"tx_held\":%llu,"
                "\"tx_ring_packets\":%llu,\"tx_full\":%llu,\"tx_failed\":%llu,",
                (unsigned long long)tx->packets, (unsigned long long)tx->bytes,
                (unsigned long long)tx->copied, (unsigned long long)tx->held,
                (unsigned long long)tx->ring_packets, (unsigned long long)tx->full,
                (unsigned long long)tx->failed);
    stats_print("\"tx_outstanding\":%u,\"bad_completions\":%llu,",
                tx->requests.capacity - tx->requests.free_count,
                (unsigned long long)tx->bad_completions);
}

static void write_nic_stats(const struct nic *nic)
{
    stats_print("\"%s\":{", nic->info.name);
    write_rx_stats(nic);
    write_tx_stats(nic);
    stats_print(
        "\"signals\":%llu,\"interrupts\":%llu,\"control_unexpected\":%llu,"
        "\"keepalives\":%llu,\"indications\":%llu}",
        (unsigned long long)nic->channel.signals, (unsigned long long)nic->channel.interrupts,
        (unsigned long long)nic->control.unexpected, (unsigned long long)nic->control.keepalives,
        (unsigned long long)nic->control.indications);
}

static void write_stats(void)
{
    const char *separator = "";

    stats_print("{");
    for (unsigned i = 0; i < NETVSC_MAX; i++) {
        if (!nics[i])
            continue;
        stats_print("%s", separator);
        write_nic_stats(nics[i]);
        separator = ",";
    }
    stats_print("}");
}

static struct stats_source stats = {.name = "netvsc", .write = write_stats};

static unsigned free_index(void)
{
    unsigned i = 0;

    while (i < NETVSC_MAX && nics[i])
        i++;
    return i;
}

// Undoes everything and forgets the NIC.
static void nic_destroy(struct nic *nic, unsigned index)
{
    nic_down(nic);
    nics[index] = NULL;
    if (nic->rx.held == 0)
        page_free(nic, NIC_PAGES);
}

static int probe(struct vmbus_device *device)
{
    static const char *const names[NETVSC_MAX] = {"nic0", "nic1", "nic2", "nic3",
                                                  "nic4", "nic5", "nic6", "nic7"};
    unsigned index = free_index();

    if (index == NETVSC_MAX)
        return -ENOSPC;
    struct nic *nic = page_alloc(NIC_PAGES);
    if (!nic)
        return -ENOMEM;
    nic->device = device;
    nic->info.name = names[index];
    nic->index = index;
    nics[index] = nic;
    int r = nic_up(nic);
    if (r) {
        nic_destroy(nic, index);
        return r;
    }
    device->driver_data = nic;
    const struct nic_info *info = &nic->info;
    log_info("%s: %02x:%02x:%02x:%02x:%02x:%02x, NVSP %u.%u, MTU %u, %u receive and %u send "
             "sections, checksums %#x, link %s",
             info->name, info->mac[0], info->mac[1], info->mac[2], info->mac[3], info->mac[4],
             info->mac[5], nic->nvsp_version >> 16, nic->nvsp_version & 0xffff, info->mtu,
             nic->rx.section_count, nic->tx.section_count, info->tx_csum,
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
    .remove = detach_device,
};

void netvsc_start(const struct nic_client *client)
{
    nic_client = client;
    stats_add(&stats);
    vmbus_register_driver(&driver);
}
