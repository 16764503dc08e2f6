// SPDX-License-Identifier: BSD-2-Clause
// A queue: one channel of a NIC on one core. Its memory (core 0's fiber makes and frees it), and the
// channel's handler, which ties receive, transmit and the client together on the queue's core.
#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "kernel/alloc.h"
#include "kernel/config.h"

#define SLOT_PAGES (TX_REQUESTS * TX_SLOT_BYTES / PAGE_SIZE)
#define QUEUE_PAGES ((sizeof(struct nic_queue) + PAGE_SIZE - 1) / PAGE_SIZE)

void nic_set_client_data(struct nic *nic, void *data)
{
    queue_here(nic)->client_data = data;
}

void *nic_client_data(const struct nic *nic)
{
    return queue_here(nic)->client_data;
}

static void queue_flush(struct nic_queue *q)
{
    if (q->channel.state != CHANNEL_OPEN)
        return;
    rx_flush(q);
    tx_close_section(q);
    // Nobody waits any more: else the host would interrupt at every crossing from now on.
    if (q->channel.out.room_wanted && !q->tx.waiting && !q->rx.done)
        ring_out_cancel_room(&q->channel.out);
    channel_publish(&q->channel);
}

void nic_flush(struct nic *nic)
{
    queue_flush(queue_here(nic));
}

// True if the rings can be used; else the device's fiber is told. What is sent outside of the handler
// may be the first to see a broken index.
static bool rings_alive(struct nic_queue *q)
{
    if (!q->channel.in.dead && !q->channel.out.dead)
        return true;
    channel_fail(&q->channel, "impossible ring index or packet");
    return false;
}

static bool handler_poll(void *ctx)
{
    struct nic_queue *q = ctx;
    bool frames = false;
    bool more = rx_poll(q, &frames);

    channel_release(&q->channel);
    tx_check_ready(q);
    if (frames)
        nic_client->batch_end(q->nic);
    queue_flush(q);
    return rings_alive(q) && more;
}

// Nothing that the host has not been shown, and nothing that waits for room: nearly always.
static bool all_shown(const struct nic_queue *q)
{
    const struct ring_out *out = &q->channel.out;

    return out->write == out->published && !q->tx.open.id && !q->rx.done && !q->tx.waiting &&
           !out->room_wanted && !q->channel.signal_at && !out->dead;
}

static void handler_flush(void *ctx)
{
    struct nic_queue *q = ctx;

    if (all_shown(q))
        return;
    queue_flush(q);
    // Completions found room and took the wish back that frames had, too: the host will not tell.
    if (q->tx.waiting && !q->channel.out.room_wanted) {
        tx_check_ready(q);
        queue_flush(q);
    }
    rings_alive(q);
}

static const struct channel_ops handler = {.poll = handler_poll, .flush = handler_flush};

struct nic_queue *queue_new(struct nic *nic)
{
    uint32_t rings = 2 * (config.ring / PAGE_SIZE);
    bool fits = nic_memory_fits(QUEUE_PAGES + SLOT_PAGES + rings);
    struct nic_queue *q = fits ? page_alloc(QUEUE_PAGES) : NULL;

    if (!q)
        return NULL;
    q->tx.slots = shared_alloc(SLOT_PAGES);
    if (!q->tx.slots) {
        page_free(q, QUEUE_PAGES);
        return NULL;
    }
    q->nic = nic;
    q->index = nic->queue_count;
    q->tx.slots_gpa = virt_to_phys(q->tx.slots);
    requests_init(&q->tx.requests, TX_REQUESTS);
    nic->queue[nic->queue_count++] = q;
    return q;
}

void queue_free(struct nic *nic)
{
    struct nic_queue *q = nic->queue[--nic->queue_count];

    shared_free(q->tx.slots, SLOT_PAGES, nic->leaked);
    if (q->rx.held) { // each may still be released
        vmbus_counters.leaked_pages += q->rx.group_pages + QUEUE_PAGES;
        return;
    }
    if (q->rx.groups)
        page_free(q->rx.groups, q->rx.group_pages);
    page_free(q, QUEUE_PAGES);
}

uint32_t queue_pages(const struct nic_queue *q)
{
    return QUEUE_PAGES + SLOT_PAGES + q->rx.group_pages + q->channel.gpadl.pages;
}

int queue_open(struct nic_queue *q, struct vmbus_device *device)
{
    return channel_open(&q->channel, device, q->index, config.ring & ~(PAGE_SIZE - 1), &handler, q);
}
