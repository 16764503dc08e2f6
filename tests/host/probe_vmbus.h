/*
 * A VMBus guest as far as the probes need one: messages, shared memory, one channel in use at a time
 * and its rings. Included once by each program, which may break any rule with it.
 *
 * Polls, with interrupts off. PACKET_WORDS: how long a packet's body may be.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#ifndef DUNLIN_TESTS_PROBE_VMBUS_H
#define DUNLIN_TESTS_PROBE_VMBUS_H

#include "probe.h"

#ifndef PACKET_WORDS
#define PACKET_WORDS 80
#endif

#define VERSION_2_4 0x00020004u
#define VERSION_5_3 0x00050003u
#define SECOND_CONTACT_ID 4
#define QUIET (20 * MS) /* as long is waited for what must not come */
#define PATIENCE (2000 * MS)
/* Until the host has dealt with all that it was given, however slow it is just now. */
#define SETTLED 0
#define SETTLED_TRIPS 8

enum {
    OFFER = 1,
    RESCIND,
    REQUEST_OFFERS,
    ALL_OFFERS,
    OPEN,
    OPEN_RESULT,
    CLOSE,
    GPADL_HEADER,
    GPADL_BODY
};
enum {
    GPADL_CREATED = 10,
    GPADL_TEARDOWN,
    GPADL_TORNDOWN,
    RELID_RELEASED,
    CONTACT,
    VERSION_RESPONSE
};
enum {
    UNLOAD = 16,
    UNLOAD_RESPONSE,
    OPEN_RESERVED,
    TL_CONNECT = 21,
    MODIFY,
    TL_RESULT,
    MODIFY_RESPONSE
};

enum { IN_BAND = 6, XFER_PAGES, GPA_DIRECT = 9, COMPLETION = 11 };

#define RING_PAGES 4 /* each way, with the header */
#define RING_BYTES ((RING_PAGES - 1) * PAGE)
#define RINGS_BYTES (2 * RING_PAGES * PAGE)

#define GPADL_RING 0x100

static uint8_t (*rings)[PAGE];    /* of the channel in use */
static uint32_t connection = 1;   /* for messages */
static uint32_t relid, signal_id; /* of the channel in use */
static int opened;

/* --- Messages ----------------------------------------------------------- */

static uint32_t reply[60]; /* the last message that came */

static inline uint64_t post_message(uint32_t id, const void *data, uint32_t bytes)
{
    uint64_t status;

    do {
        for (uint32_t i = 0; i < bytes; i++) {
            INPUT_PAGE[16 + i] = ((const uint8_t *)data)[i];
        }
        status = post((uint64_t)INPUT_PAGE, id, bytes);
    } while (status == 0x13);
    return status;
}

static inline void send_message(const uint32_t *words, uint32_t count)
{
    post_message(connection, words, count * 4);
}

/* Waits for a message in the slot of @sint; 0 if none comes, else its type. */
static inline uint32_t take_message(unsigned sint, uint64_t patience)
{
    uint64_t end = now() + patience;

    while (!*(volatile uint32_t *)&slot(sint)->type) {
        if (now() > end) {
            return 0;
        }
    }
    for (unsigned i = 0; i < 60; i++) {
        reply[i] = ((uint32_t *)slot(sint)->payload)[i];
    }
    consume(sint);
    return reply[0];
}

static inline uint32_t await_message(void)
{
    return take_message(2, PATIENCE);
}

static inline void contact(uint32_t id, uint32_t version, uint32_t vp, uint32_t sint,
                           uint64_t monitor)
{
    uint32_t m[10] = {CONTACT, 0, version, vp, sint, 0, (uint32_t)monitor, 0, 0, 0};

    post_message(id, m, sizeof(m));
}

/* --- GPADLs, channel and rings ------------------------------------------ */

/* One range of @bytes at @address, with the page numbers that are its due. */
static inline uint32_t gpadl_create(uint32_t id, void *address, uint32_t bytes)
{
    uint64_t page = (uint64_t)address / PAGE, offset = (uint64_t)address % PAGE;
    uint32_t pages = (offset + bytes + PAGE - 1) / PAGE, at = 7;
    uint32_t m[60] = {GPADL_HEADER, 0, relid, id, (8 + 8 * pages) | 1 << 16, bytes, offset};

    for (uint32_t sent = 0; sent < pages;) {
        while (sent < pages && at + 2 <= 60) {
            m[at++] = (uint32_t)(page + sent);
            m[at++] = (uint32_t)((page + sent) >> 32);
            sent++;
        }
        send_message(m, at);
        m[0] = GPADL_BODY;
        at = 4;
    }
    return await_message() == GPADL_CREATED ? reply[4] : 0xdeadu;
}

/* Header words of a ring. */
enum { WRITE, READ, MASK, PENDING, FEATURES = 16 };

static inline volatile uint32_t *out_header(void)
{
    return (volatile uint32_t *)rings[0];
}

static inline volatile uint32_t *in_header(void)
{
    return (volatile uint32_t *)rings[RING_PAGES];
}

static inline void rings_reset(void)
{
    for (unsigned i = 0; i < RINGS_BYTES; i++) {
        ((volatile uint8_t *)rings)[i] = 0;
    }
    out_header()[FEATURES] = in_header()[FEATURES] = 1;
}

static inline void send_open(uint32_t id, uint32_t gpadl, uint32_t vp, uint32_t downstream)
{
    uint32_t m[37] = {OPEN, 0, id, 0x77, gpadl, vp, downstream};

    send_message(m, 37);
}

static inline void channel_close(void)
{
    uint32_t m[3] = {CLOSE, 0, relid};

    if (opened) {
        send_message(m, 3);
        opened = 0;
    }
}

static inline void channel_open(void)
{
    channel_close();
    rings_reset();
    send_open(relid, GPADL_RING, 0, RING_PAGES);
    opened = await_message() == OPEN_RESULT && !reply[4];
    if (!opened) {
        say("open", "failed");
    }
}

struct packet {
    uint16_t type, header_qwords, total_qwords, flags;
    uint64_t id;
    uint32_t body[PACKET_WORDS];
};

static inline void ring_signal(void)
{
    hypercall(CALL_SIGNAL_EVENT | CALL_FAST, signal_id);
}

/* Puts @bytes (a multiple of 8) as they are and moves the index by @advance. */
static inline void ring_put(const void *data, uint32_t bytes, uint32_t advance)
{
    uint32_t at = out_header()[WRITE];

    for (uint32_t i = 0; i < bytes; i++) {
        rings[1][(at + i) % RING_BYTES] = ((const uint8_t *)data)[i];
    }
    __sync_synchronize();
    out_header()[WRITE] = (at + advance) % RING_BYTES;
    ring_signal();
}

/* @header and @total in bytes. */
static inline void put_packet(struct packet *p, uint16_t type, uint32_t header, uint32_t total,
                              uint16_t flags, uint64_t id)
{
    total = (total + 7) & ~7u;
    p->type = type;
    p->header_qwords = header / 8;
    p->total_qwords = total / 8;
    p->flags = flags;
    p->id = id;
    ring_put(p, total, total + 8);
}

/* A question to the host and its answer: it looks at its channels meanwhile. The channel is open. */
static inline void round_trip(void)
{
    const uint32_t m[4] = {MODIFY, 0, relid, 0};

    send_message(m, 4);
    await_message();
}

static inline void settle(void)
{
    for (unsigned i = 0; i < SETTLED_TRIPS; i++) {
        round_trip();
    }
}

static inline int packet_came(uint64_t patience)
{
    uint64_t end = now() + patience;
    uint32_t at = in_header()[READ], trips = 0;

    while (in_header()[WRITE] == at) {
        if (patience == SETTLED) {
            if (trips++ == SETTLED_TRIPS) {
                return 0;
            }
            round_trip();
        } else if (now() > end) {
            return 0;
        }
    }
    return 1;
}

/* Takes one packet of the host; 0 if none comes. */
static inline int take_packet(struct packet *p, uint64_t patience)
{
    uint32_t at = in_header()[READ], bytes;

    if (!packet_came(patience)) {
        return 0;
    }
    for (unsigned i = 0; i < 16; i++) {
        ((uint8_t *)p)[i] = rings[RING_PAGES + 1][(at + i) % RING_BYTES];
    }
    bytes = p->total_qwords * 8u;
    for (unsigned i = 16; i < bytes && i < sizeof(*p); i++) {
        ((uint8_t *)p)[i] = rings[RING_PAGES + 1][(at + i) % RING_BYTES];
    }
    in_header()[READ] = (at + bytes + 8) % RING_BYTES;
    return 1;
}

/* --- The program --------------------------------------------------------- */

/* Messages come to SINT 2 from now on. */
static inline void begin(void)
{
    catch_faults();
    put("\r\n");
    write_msr(MSR_GUEST_OS_ID, OS_ID);
    write_msr(MSR_HYPERCALL, page_msr(HYPERCALL_PAGE));
    write_msr(MSR_SIMP, page_msr(SIMP_PAGE));
    write_msr(MSR_SINT(2), 0x52);
    write_msr(MSR_SCONTROL, 1);
}

static inline EFI_STATUS end(EFI_SYSTEM_TABLE *system)
{
    write_msr(MSR_SIMP, 0);
    write_msr(MSR_SCONTROL, 0);
    system->RuntimeServices->ResetSystem(EfiResetShutdown, EFI_SUCCESS, 0, NULL);
    return EFI_ABORTED;
}

#endif
