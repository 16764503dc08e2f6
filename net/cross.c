// SPDX-License-Identifier: BSD-2-Clause
// See cross.h. A packet crosses in pages of its own, because pages, unlike objects of a core's heap, may
// be freed by another core. There lwIP gets them as a pbuf and frees them when it likes.
#include "net/cross.h"

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/message.h"
#include "net/interface.h"
#include "net/stack.h"

// Pages that may be with all packets under way, or kept by lwIP after they crossed.
#define PAGES_MAX 1024
// How often a packet may be handed on: whoever thinks that it is another's may be a little behind.
#define HOPS_MAX 8

struct crossing {
    struct pbuf_custom pbuf; // the receiving core's
    struct crossing *next;
    const struct nic *nic; // only compared
    size_t pages;
    uint16_t length, checks, segments;
    uint8_t hops;
    uint8_t packet[];
};

struct outbox { // packets for one core, in order, until the end of the batch
    struct crossing *first, *last;
};

static PERCORE struct outbox outboxes[MAX_CORES];
static PERCORE uint64_t waiting; // for which cores there are any
static size_t pages_out;         // of all cores; atomic
static PERCORE unsigned hops;    // of the packet that lwIP is being given

static void crossing_free(struct crossing *c)
{
    size_t pages = c->pages;
    page_free(c, pages);
    __atomic_fetch_sub(&pages_out, pages, __ATOMIC_RELAXED);
}

static struct crossing *crossing_new(size_t length)
{
    size_t pages = (sizeof(struct crossing) + length + PAGE_SIZE - 1) / PAGE_SIZE;
    struct crossing *c = NULL;
    if (__atomic_add_fetch(&pages_out, pages, __ATOMIC_RELAXED) <= PAGES_MAX)
        c = page_alloc(pages);
    if (c)
        c->pages = pages;
    else
        __atomic_fetch_sub(&pages_out, pages, __ATOMIC_RELAXED);
    return c;
}

static void pbuf_freed(struct pbuf *p)
{
    crossing_free((struct crossing *)p); // its first member
}

static void give_to_lwip(struct crossing *c)
{
    struct interface *interface = interface_of(c->nic);
    if (!interface) { // it went meanwhile
        crossing_free(c);
        return;
    }
    interface->flows.taken_over++;
    c->pbuf.custom_free_function = pbuf_freed;
    struct pbuf *p =
        pbuf_alloced_custom(PBUF_RAW, c->length, PBUF_REF, &c->pbuf, c->packet, c->length);
    hops = c->hops;
    interface_inject(interface, p, c->checks, c->segments);
    hops = 0;
}

static void arrive(const void *data)
{
    struct crossing *c = *(struct crossing *const *)data;
    while (c) {
        struct crossing *next = c->next;
        give_to_lwip(c);
        c = next;
    }
    ack_batch_end();
    cross_flush(); // what has to go further
}

bool cross_send(const struct interface *interface, unsigned core, const struct pbuf *p)
{
    struct crossing *c = hops < HOPS_MAX ? crossing_new(p->tot_len) : NULL;
    if (!c)
        return false;
    c->nic = interface->nic;
    c->length = p->tot_len;
    c->checks = interface->netif.chksum_flags;
    c->segments = (uint16_t)interface_arriving_segments();
    c->hops = (uint8_t)(hops + 1);
    stack_copy_received(c->packet, p);
    struct outbox *box = &outboxes[core];
    if (box->first)
        box->last->next = c;
    else
        box->first = c;
    box->last = c;
    waiting |= 1ull << core;
    return true;
}

static void lose(struct crossing *c)
{
    while (c) {
        struct crossing *next = c->next;
        struct interface *interface = interface_of(c->nic);
        if (interface)
            interface->flows.lost++;
        crossing_free(c);
        c = next;
    }
}

void cross_flush(void)
{
    for (; waiting; waiting &= waiting - 1) {
        unsigned core = (unsigned)__builtin_ctzll(waiting);
        struct crossing *first = outboxes[core].first;
        outboxes[core].first = NULL;
        if (!message_post_pointer(core, arrive, first))
            lose(first);
    }
}
