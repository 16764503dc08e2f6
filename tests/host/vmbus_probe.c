/*
 * Tries the emulated host's VMBus and NIC from below: an EFI program that is a correct guest where it
 * has to be and breaks one rule at a time, and says on COM1 what came of it, one line
 * "probe: NAME: RESULT" each. Started by test_vmbus_probe.py, which knows the right results; ends by
 * powering the machine off.
 *
 * Runs on the boot processor with interrupts off and the firmware's identity mapping: messages and
 * ring packets are polled for.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <efi.h>

#include "probe_vmbus.h"

enum { INIT = 1, NDIS_VERSION = 100, RECV_BUF, REVOKE_RECV = 103, SEND_BUF, RNDIS_PACKET = 107 };
enum {
    RNDIS_COMPLETE = 108,
    NDIS_CONFIG = 125,
    DATA_PATH = 129,
    OID_QUERY_EX = 131,
    SUBCHANNEL = 133
};

#define RECV_PAGES 32
#define SEND_PAGES 4
#define SECTION 6144
#define NO_SECTION 0xffffffffu

enum { GPADL_RECV = GPADL_RING + 1, GPADL_SEND, GPADL_SMALL, GPADL_ODD, GPADL_BAD, GPADL_RING_2 };

static uint8_t all_rings[2][2 * RING_PAGES][PAGE] __attribute__((aligned(PAGE)));
static uint8_t recv_buffer[RECV_PAGES * PAGE] __attribute__((aligned(PAGE)));
static uint8_t send_buffer[SEND_PAGES * PAGE] __attribute__((aligned(PAGE)));
static uint8_t loose[2 * PAGE] __attribute__((aligned(PAGE))); /* for GPA ranges */

/* Says what answers the message: "silence", or "type N" with the 32-bit word at @word. */
static void say_answer(const char *name, unsigned sint, uint32_t type, unsigned word)
{
    uint32_t came = take_message(sint, type ? PATIENCE : QUIET);

    if (!came) {
        say(name, "silence");
    } else if (came != type) {
        say_number("unexpected message", came);
    } else {
        say_number(name, reply[word]);
    }
}

#define TRY_MESSAGE(name, type, word, ...)                                                         \
    do {                                                                                           \
        const uint32_t m_[] = {__VA_ARGS__};                                                       \
        send_message(m_, sizeof(m_) / 4);                                                          \
        say_answer(name, 2, type, word);                                                           \
    } while (0)

/* Result: supported and connection state, as one number. */
static void say_contact(const char *name, unsigned sint)
{
    if (take_message(sint, PATIENCE) == VERSION_RESPONSE) {
        say_number(name, reply[2] & 0xffff);
    } else {
        say(name, "silence");
    }
}

static void try_contact(void)
{
    uint32_t word = REQUEST_OFFERS;

    TRY_MESSAGE("request while disconnected", 0, 0, REQUEST_OFFERS, 0);
    post_message(1, &word, 4);
    say_answer("four bytes", 2, 0, 0);
    ((uint32_t *)INPUT_PAGE)[0] = 1;
    ((uint32_t *)INPUT_PAGE)[2] = 2;
    ((uint32_t *)INPUT_PAGE)[3] = 8;
    say_number("message type 2", hypercall(CALL_POST_MESSAGE, (uint64_t)INPUT_PAGE));
    contact(SECOND_CONTACT_ID, 0x00060000, 0, 2, 0);
    say_contact("contact 6.0", 2);
    contact(1, VERSION_5_3, 0, 2, 0);
    say_contact("contact 5.3 on id 1", 2);
    contact(SECOND_CONTACT_ID, VERSION_5_3, 0, 3, 0);
    say_contact("contact to SINT 3", 3);
    contact(SECOND_CONTACT_ID, VERSION_5_3, 0, 2, 0x1000);
    say_contact("contact with one monitor page", 2);
    contact(SECOND_CONTACT_ID, VERSION_5_3, 77, 2, 0);
    say_contact("contact for processor 77", 2);

    contact(1, VERSION_2_4, 77, 0, 0);
    say_contact("contact 2.4", 2);
    TRY_MESSAGE("unload at 2.4", 0, 0, UNLOAD, 0);
    TRY_MESSAGE("modify at 2.4", 0, 0, MODIFY, 0, 1, 0);

    contact(SECOND_CONTACT_ID, VERSION_5_3, 0, 2, 0);
    say_contact("contact 5.3", 2);
    connection = reply[3];
    say_number("message connection id", connection);
}

static void try_messages(void)
{
    uint32_t request[2] = {REQUEST_OFFERS, 0};

    post_message(SECOND_CONTACT_ID, request, sizeof(request));
    say_answer("request on the old id", 2, 0, 0);
    TRY_MESSAGE("type 60", 0, 0, 60, 0);
    TRY_MESSAGE("type 25", 0, 0, 25, 0, 0, 0, 0, 0);
    TRY_MESSAGE("type of a host", 0, 0, OPEN_RESULT, 0, 1, 1, 0);
    TRY_MESSAGE("short open", 0, 0, OPEN, 0, 1, 1, 1);
    TRY_MESSAGE("reserved channel", 0, 0, OPEN_RESERVED, 0, 1, 0, 2, 1, 1);
    TRY_MESSAGE("socket connect", TL_RESULT, 10, TL_CONNECT, 0, 1, 2, 3, 4, 5, 6, 7, 8);

    send_message(request, 2);
    say_answer("offer", 2, OFFER, 45); /* subchannel index 0 */
    relid = reply[46];
    signal_id = reply[48];
    say_truth("offer has no monitor", !(reply[47] >> 8 & 1) && reply[47] >> 16 == 1);
    say_answer("all offers", 2, ALL_OFFERS, 0);
    TRY_MESSAGE("request twice", 0, 0, REQUEST_OFFERS, 0);
}

/* --- GPADLs ------------------------------------------------------------- */

static void try_gpadls(void)
{
    uint32_t page = (uint32_t)((uint64_t)loose / PAGE);

#define HEADER(relid_, bytes_, offset_, qwords_, ...)                                              \
    GPADL_HEADER, 0, relid_, GPADL_BAD, (qwords_)*8 | 1 << 16, bytes_, offset_, __VA_ARGS__
    TRY_MESSAGE("gpadl of no channel", GPADL_CREATED, 4, HEADER(relid + 1, PAGE, 0, 2, page, 0));
    TRY_MESSAGE("gpadl of 0 bytes", GPADL_CREATED, 4, HEADER(relid, 0, 0, 2, page, 0));
    TRY_MESSAGE("gpadl offset 4096", GPADL_CREATED, 4,
                HEADER(relid, PAGE, PAGE, 3, page, 0, page, 0));
    TRY_MESSAGE("gpadl lacks a page", GPADL_CREATED, 4, HEADER(relid, 2 * PAGE, 0, 2, page, 0));
    TRY_MESSAGE("gpadl of no RAM", GPADL_CREATED, 4, HEADER(relid, PAGE, 0, 2, 0, 0xf));
    TRY_MESSAGE("gpadl without range", GPADL_CREATED, 4, GPADL_HEADER, 0, relid, GPADL_BAD, 16, 0,
                0, 0);
    TRY_MESSAGE("body without header", 0, 0, GPADL_BODY, 0, 0, GPADL_BAD, page, 0);
    TRY_MESSAGE("gpadl half", 0, 0, HEADER(relid, 2 * PAGE, 0, 3, page, 0));
    TRY_MESSAGE("gpadl id in progress", GPADL_CREATED, 4, HEADER(relid, PAGE, 0, 2, page, 0));
    TRY_MESSAGE("teardown of a half", 0, 0, GPADL_TEARDOWN, 0, relid, GPADL_BAD);
    TRY_MESSAGE("gpadl other half", GPADL_CREATED, 4, GPADL_BODY, 0, 0, GPADL_BAD, page, 0);
    TRY_MESSAGE("body after the end", 0, 0, GPADL_BODY, 0, 0, GPADL_BAD, page, 0);
    TRY_MESSAGE("teardown, wrong relid", 0, 0, GPADL_TEARDOWN, 0, relid + 1, GPADL_BAD);
    TRY_MESSAGE("teardown", GPADL_TORNDOWN, 2, GPADL_TEARDOWN, 0, relid, GPADL_BAD);
    TRY_MESSAGE("teardown twice", 0, 0, GPADL_TEARDOWN, 0, relid, GPADL_BAD);

    say_number("ring gpadl", gpadl_create(GPADL_RING, rings, RINGS_BYTES));
    say_number("receive gpadl", gpadl_create(GPADL_RECV, recv_buffer, sizeof(recv_buffer)));
    say_number("send gpadl", gpadl_create(GPADL_SEND, send_buffer, sizeof(send_buffer)));
    say_number("small gpadl", gpadl_create(GPADL_SMALL, loose, PAGE));
    say_number("odd gpadl", gpadl_create(GPADL_ODD, loose + 16, PAGE));
    say_number("duplicate gpadl", gpadl_create(GPADL_RING, rings, RINGS_BYTES));
}

/* --- Channel and rings -------------------------------------------------- */

static void try_open(const char *name, uint32_t gpadl, uint32_t vp, uint32_t downstream)
{
    send_open(relid, gpadl, vp, downstream);
    say_answer(name, 2, OPEN_RESULT, 4);
}

static void try_channel(void)
{
    send_open(relid + 1, GPADL_RING, 0, RING_PAGES);
    say_answer("open of no channel", 2, 0, 0);
    rings_reset();
    try_open("open with no gpadl", GPADL_BAD, 0, RING_PAGES);
    try_open("open with ring at 0", GPADL_RING, 0, 0);
    try_open("open with ring at 1", GPADL_RING, 0, 1);
    try_open("open with ring at the end", GPADL_RING, 0, 2 * RING_PAGES - 1);
    try_open("open with ring beyond", GPADL_RING, 0, 2 * RING_PAGES);
    try_open("open with odd ring", GPADL_ODD, 0, 1);
    try_open("open for processor 77", GPADL_RING, 77, RING_PAGES);
    out_header()[READ] = 4;
    try_open("open with bad index", GPADL_RING, 0, RING_PAGES);
    TRY_MESSAGE("close of closed", 0, 0, CLOSE, 0, relid);
    TRY_MESSAGE("modify of closed", MODIFY_RESPONSE, 3, MODIFY, 0, relid, 0);

    channel_open();
    say_truth("open", opened);
    say_truth("host masks signals and knows room", in_header()[FEATURES] & 1);
    send_open(relid, GPADL_RING, 0, RING_PAGES);
    say_answer("open twice", 2, 0, 0);
    TRY_MESSAGE("release of open", 0, 0, RELID_RELEASED, 0, relid);
    TRY_MESSAGE("modify to processor 77", MODIFY_RESPONSE, 3, MODIFY, 0, relid, 77);
    TRY_MESSAGE("modify to nobody", MODIFY_RESPONSE, 3, MODIFY, 0, relid, 0xffffffff);
    TRY_MESSAGE("modify", MODIFY_RESPONSE, 3, MODIFY, 0, relid, 0);
    TRY_MESSAGE("teardown of the ring", 0, 0, GPADL_TEARDOWN, 0, relid, GPADL_RING);
    channel_close();
    say_answer("torn down after close", 2, GPADL_TORNDOWN, 2);
    say_number("ring gpadl again", gpadl_create(GPADL_RING, rings, RINGS_BYTES));
}

static void give_back(uint64_t id, uint32_t type)
{
    struct packet p = {.body = {type, 1}};

    put_packet(&p, COMPLETION, 16, 24, 0, id);
}

static uint32_t rndis_status; /* of the last RNDIS answer that came, ~0 before */
static uint64_t last_section;
static int keep_sections; /* do not give back what answers come in */

static void take_answer(const struct packet *p)
{
    if (p->type == XFER_PAGES) {
        rndis_status = *(uint32_t *)(recv_buffer + p->body[3] + 12);
        last_section = p->id;
        if (!keep_sections) {
            give_back(p->id, RNDIS_COMPLETE);
        }
    }
}

/* Waits for the completion of @id, taking RNDIS answers on the way; 0 if none comes. */
static int await_completion(struct packet *p, uint64_t id, uint64_t patience)
{
    while (take_packet(p, patience)) {
        if (p->type == COMPLETION && p->id == id) {
            return 1;
        }
        take_answer(p);
    }
    return 0;
}

static void await_answer(void)
{
    struct packet p;

    while (rndis_status == ~0u && take_packet(&p, PATIENCE)) {
        take_answer(&p);
    }
}

/* An NVSP message of 40 bytes with a completion asked for; 0 if there is none. */
static int nvsp(struct packet *p, uint64_t patience, uint32_t type, uint32_t a, uint32_t b)
{
    static uint64_t id;

    *p = (struct packet){.body = {type, a, b}};
    put_packet(p, IN_BAND, 16, 56, 1, ++id);
    return await_completion(p, id, patience);
}

static void nvsp_quiet(uint32_t type, uint32_t a, uint32_t b)
{
    struct packet p = {.body = {type, a, b}};

    put_packet(&p, IN_BAND, 16, 56, 0, 0);
}

/* --- NVSP session ------------------------------------------------------- */

enum stage { RAW, VERSION, CONFIGURED, BUFFERS, RNDIS };
static enum stage stage;

/* An RNDIS message of @bytes, which is in the send buffer's section 0. Returns the status, 0: none. */
static uint32_t send_section(uint32_t bytes)
{
    struct packet p = {.body = {RNDIS_PACKET, 0, 0, bytes}};
    static uint64_t id = 0x1000;

    put_packet(&p, IN_BAND, 16, 56, 1, ++id);
    if (!await_completion(&p, id, SETTLED)) {
        return 0;
    }
    return p.body[0] == RNDIS_COMPLETE ? p.body[1] : 0xdeadu;
}

static uint32_t *section_words(void)
{
    return (uint32_t *)send_buffer;
}

#define SECTION_WORDS(...)                                                                         \
    do {                                                                                           \
        const uint32_t w_[] = {__VA_ARGS__};                                                       \
        for (unsigned i_ = 0; i_ < sizeof(w_) / 4; i_++) {                                         \
            section_words()[i_] = w_[i_];                                                          \
        }                                                                                          \
    } while (0)

/* Opens the channel anew and negotiates as far as said. */
static void session(enum stage wanted)
{
    struct packet p;

    channel_open();
    stage = wanted;
    if (wanted >= VERSION) {
        nvsp(&p, PATIENCE, INIT, 0x60001, 0x60001);
    }
    if (wanted >= CONFIGURED) {
        nvsp_quiet(NDIS_CONFIG, 1514, 0);
        nvsp_quiet(NDIS_VERSION, 6, 30);
    }
    if (wanted >= BUFFERS) {
        nvsp(&p, PATIENCE, RECV_BUF, GPADL_RECV, 0xcafe);
        nvsp(&p, PATIENCE, SEND_BUF, GPADL_SEND, 0);
    }
    if (wanted >= RNDIS) {
        SECTION_WORDS(2, 24, 1, 1, 0, 0x4000);
        rndis_status = ~0u;
        send_section(24);
        await_answer();
    }
}

/* Is the channel still served? */
static int alive(void)
{
    struct packet p;

    return stage == RAW ? nvsp(&p, SETTLED, INIT, 0x60001, 0x60001)
                        : nvsp(&p, SETTLED, OID_QUERY_EX, 0, 0);
}

static void say_life(const char *name)
{
    say(name, alive() ? "served" : "fatal");
}

static void try_ring_rules(void)
{
    struct packet p = {.body = {INIT, 2, 2}};

#define TRY_RING(name, ...)                                                                        \
    do {                                                                                           \
        session(RAW);                                                                              \
        p = (struct packet){.body = {INIT, 2, 2}};                                                 \
        __VA_ARGS__;                                                                               \
        settle(); /* before the next packet mends the index */                                     \
        say_life(name);                                                                            \
    } while (0)
    TRY_RING("nothing wrong", (void)p);
    TRY_RING("index 4", out_header()[WRITE] = 4, ring_signal());
    TRY_RING("index beyond", out_header()[WRITE] = RING_BYTES, ring_signal());
    TRY_RING("8 bytes there", ring_put(&p, 8, 8));
    TRY_RING("header of 8 bytes", put_packet(&p, IN_BAND, 8, 56, 1, 1));
    TRY_RING("total below header", put_packet(&p, IN_BAND, 48, 24, 1, 1));
    TRY_RING("total beyond", p.type = IN_BAND, p.header_qwords = 2, p.total_qwords = 100,
             ring_put(&p, 56, 64));
    TRY_RING("flag 2", put_packet(&p, IN_BAND, 16, 56, 3, 1));
    TRY_RING("packet type 3", put_packet(&p, 3, 16, 56, 1, 1));
    TRY_RING("packet type 7", put_packet(&p, XFER_PAGES, 32, 56, 1, 1));
    TRY_RING("pages cut off", put_packet(&p, GPA_DIRECT, 16, 56, 1, 1));
    TRY_RING("mask set", alive(), settle(), out_header()[MASK] = 1, stage = VERSION);
}

static void try_subchannels(const char *name, uint32_t operation, uint32_t count)
{
    struct packet p;

    say_number(name, nvsp(&p, PATIENCE, SUBCHANNEL, operation, count) ? p.body[1] : 0xdead);
}

static void try_nvsp_rules(void)
{
    struct packet p;

#define TRY_NVSP(name, stage_, ...)                                                                \
    do {                                                                                           \
        session(stage_);                                                                           \
        __VA_ARGS__;                                                                               \
        say_life(name);                                                                            \
    } while (0)
    session(RAW);
    say_number("unknown version", nvsp(&p, PATIENCE, INIT, 0x70000, 0x70000) ? p.body[3] : 0xdead);
    say_number("then a known one", nvsp(&p, PATIENCE, INIT, 0x60001, 0x60001) ? p.body[3] : 0xdead);
    say_truth("completion is long enough", p.total_qwords * 8 >= 56);
    TRY_NVSP("no version", RAW, nvsp_quiet(NDIS_VERSION, 6, 30));
    TRY_NVSP("version twice", VERSION, nvsp_quiet(INIT, 0x60001, 0x60001));
    TRY_NVSP("message 110", VERSION, nvsp_quiet(110, 0, 0));
    TRY_NVSP("short message", VERSION, p = (struct packet){.body = {RECV_BUF, GPADL_RECV}},
             put_packet(&p, IN_BAND, 16, 24, 1, 1));
    TRY_NVSP("receive buffer before configuration", VERSION, nvsp_quiet(RECV_BUF, GPADL_RECV, 0));
    TRY_NVSP("configuration twice", CONFIGURED, nvsp_quiet(NDIS_CONFIG, 1514, 0));
    TRY_NVSP("NDIS version twice", CONFIGURED, nvsp_quiet(NDIS_VERSION, 6, 30));
    TRY_NVSP("unknown receive buffer", CONFIGURED, nvsp_quiet(RECV_BUF, GPADL_BAD, 0));
    TRY_NVSP("odd receive buffer", CONFIGURED, nvsp_quiet(RECV_BUF, GPADL_ODD, 0));
    TRY_NVSP("small receive buffer", CONFIGURED, nvsp_quiet(RECV_BUF, GPADL_SMALL, 0));
    TRY_NVSP("receive buffer twice", BUFFERS, nvsp_quiet(RECV_BUF, GPADL_RECV, 0));
    TRY_NVSP("send buffer twice", BUFFERS, nvsp_quiet(SEND_BUF, GPADL_SEND, 0));
    TRY_NVSP("RNDIS before buffers", CONFIGURED, send_section(24));
    TRY_NVSP("subchannels before buffers", CONFIGURED, nvsp_quiet(SUBCHANNEL, 1, 1));
    TRY_NVSP("revoke", RNDIS, nvsp_quiet(REVOKE_RECV, 0xcafe, 0));

    session(RNDIS);
    try_subchannels("subchannels", 1, 64);
    try_subchannels("subchannels, operation 2", 2, 1);
    try_subchannels("more subchannels than sections", 1, 60);
    try_subchannels("no subchannels", 1, 0);
    try_subchannels("subchannels twice", 1, 1);
    say_number("extended query", nvsp(&p, PATIENCE, OID_QUERY_EX, 0, 0) ? p.body[1] : 0xdead);
    say_truth("data path", nvsp(&p, PATIENCE, DATA_PATH, 1, 0) && p.total_qwords == 2);
    nvsp_quiet(OID_QUERY_EX, 0, 0);
    say_life("query without completion");
    p = (struct packet){.body = {RNDIS_PACKET, 0, 0, 24}};
    put_packet(&p, IN_BAND, 16, 56, 0, 0);
    say_life("RNDIS without completion");

    TRY_NVSP("completion of unknown id", RNDIS, give_back(3000, RNDIS_COMPLETE));
    TRY_NVSP("completion twice", RNDIS, give_back(last_section, RNDIS_COMPLETE));
    TRY_NVSP("completion of wrong type", RNDIS, give_back(last_section, RNDIS_PACKET));
    TRY_NVSP("section beyond", RNDIS, p = (struct packet){.body = {RNDIS_PACKET, 0, 2, SECTION}},
             put_packet(&p, IN_BAND, 16, 56, 1, 1));
}

/* --- RNDIS -------------------------------------------------------------- */

/* A PACKET message at @at of the send buffer: PPIs of @ppi bytes, frame of @data bytes. */
static uint32_t *frame(uint32_t at, uint32_t ppi, uint32_t data)
{
    uint32_t *m = (uint32_t *)(send_buffer + at);
    uint8_t *f = (uint8_t *)m + 44 + ppi;
    uint32_t i;

    for (i = 0; i < 11; i++) {
        m[i] = 0;
    }
    m[0] = 1;
    m[1] = 44 + ppi + data;
    m[2] = 36 + ppi;
    m[3] = data;
    m[7] = ppi ? 36 : 0;
    m[8] = ppi;
    for (i = 0; i < data; i++) {
        f[i] = i < 6 ? 0xff : 0;
    }
    f[6] = 2;
    f[12] = 0x88; /* for local experiments: nobody answers */
    f[13] = 0xb5;
    return m;
}

static void ppi(uint32_t *m, uint32_t bytes, uint32_t type, uint32_t offset, uint32_t value)
{
    m[11] = bytes;
    m[12] = type;
    m[13] = offset;
    m[14] = value;
}

/* A packet with @count GPA ranges of one page each, after @section_bytes in section 0. */
static uint32_t send_ranges(uint32_t section_bytes, uint32_t count, const uint32_t (*ranges)[2],
                            const uint64_t *pages)
{
    struct packet p = {.body = {0, count}};
    uint32_t header = 24 + 16 * count, *nvsp_message = p.body + (header - 16) / 4;
    static uint64_t id = 0x2000;

    for (uint32_t i = 0; i < count; i++) {
        p.body[2 + 4 * i] = ranges[i][0];
        p.body[3 + 4 * i] = ranges[i][1];
        p.body[4 + 4 * i] = (uint32_t)pages[i];
        p.body[5 + 4 * i] = (uint32_t)(pages[i] >> 32);
    }
    nvsp_message[0] = RNDIS_PACKET;
    nvsp_message[2] = section_bytes ? 0 : NO_SECTION;
    nvsp_message[3] = section_bytes;
    put_packet(&p, GPA_DIRECT, header, header + 40, 1, ++id);
    if (!await_completion(&p, id, SETTLED)) {
        return 0;
    }
    return p.body[1];
}

/* Sets offload parameters: bytes 4 to 7, 8 to 11, 12 to 15 of the structure. */
static void set_offloads(uint32_t word1, uint32_t word2, uint32_t word3)
{
    SECTION_WORDS(5, 28 + 28, 8, 0xfc01020c, 28, 20, 0, 0x1c0380, word1, word2, word3, 0, 0, 0);
    rndis_status = ~0u;
    send_section(28 + 28);
    await_answer();
}

static void try_data(void)
{
    uint32_t *m;

    session(RNDIS);
    frame(0, 0, 60);
    say_number("frame", send_section(104));
    frame(0, 0, 1514);
    say_number("largest frame", send_section(44 + 1514));
    frame(0, 0, 1519);
    say_number("larger frame", send_section(44 + 1519));
    frame(0, 0, 13);
    say_number("frame of 13 bytes", send_section(44 + 13));
    for (unsigned i = 0; i < 9; i++) {
        frame(104 * i, 0, 60);
    }
    say_number("eight messages", send_section(8 * 104));
    say_number("nine messages", send_section(9 * 104));
    say_number("junk behind", send_section(104 + 20));
    frame(104, 0, 60)[0] = 4;
    say_number("query after packet", send_section(208));

#define TRY_FRAME(name, ppi_bytes, ...)                                                            \
    do {                                                                                           \
        m = frame(0, ppi_bytes, 60);                                                               \
        __VA_ARGS__;                                                                               \
        say_number(name, send_section(104 + (ppi_bytes)));                                         \
    } while (0)
    TRY_FRAME("message too long", 0, m[1] += 8);
    TRY_FRAME("message too short", 0, m[1] = 40);
    TRY_FRAME("OOB", 0, m[4] = 8);
    TRY_FRAME("VC handle", 0, m[9] = 1);
    TRY_FRAME("no data", 0, m[3] = 0);
    TRY_FRAME("data beyond", 0, m[3] = 61);
    TRY_FRAME("data offset wraps", 0, m[2] = 0xfffffff8);
    TRY_FRAME("PPI beyond", 16, ppi(m, 16, 0, 12, 0), m[8] = 200);
    TRY_FRAME("PPI of 0 bytes", 16, ppi(m, 0, 0, 12, 0));
    TRY_FRAME("PPI longer than all", 16, ppi(m, 20, 0, 12, 0));
    TRY_FRAME("PPI of 14 bytes", 16, ppi(m, 14, 0, 12, 0));
    TRY_FRAME("PPI without value", 16, ppi(m, 16, 0, 16, 0));
    TRY_FRAME("PPI value in header", 16, ppi(m, 16, 0, 8, 0));
    TRY_FRAME("unknown PPI", 16, ppi(m, 16, 99, 12, 0));
    TRY_FRAME("checksum", 16, ppi(m, 16, 0, 12, 1 | 4 | 34 << 16));
    TRY_FRAME("checksum, default offset", 16, ppi(m, 16, 0, 12, 1 | 8));
    TRY_FRAME("checksum in IP header", 16, ppi(m, 16, 0, 12, 1 | 4 | 33 << 16));
    TRY_FRAME("checksum in IPv6 header", 16, ppi(m, 16, 0, 12, 2 | 4 | 34 << 16));
    TRY_FRAME("checksum beyond", 16, ppi(m, 16, 0, 12, 1 | 4 | 59 << 16));
    TRY_FRAME("VLAN", 16, ppi(m, 16, 6, 12, 5 << 4));
    TRY_FRAME("checksum of IP header", 16, ppi(m, 16, 0, 12, 1 | 16));
    set_offloads(1 | 1 << 8, 0, 0);
    TRY_FRAME("checksum while off", 16, ppi(m, 16, 0, 12, 1 | 4 | 34 << 16));
    TRY_FRAME("checksum of IP header while off", 16, ppi(m, 16, 0, 12, 1 | 16));
    TRY_FRAME("checksum while another is off", 16, ppi(m, 16, 0, 12, 1 | 8));
}

#define LARGE_PAYLOAD 3000
#define LSO_V4 (1460u | 34u << 20 | 1u << 30)
#define LSO_V6 (1440u | 54u << 20 | 3u << 30)

/* What goes before "length" in the sum of a pseudo header with addresses 10.0.0.1 and 10.0.0.2. */
static void put_pseudo_sum(uint8_t *field)
{
    const uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6;

    field[0] = (uint8_t)(sum >> 8);
    field[1] = (uint8_t)sum;
}

/* A large-send frame without fault in section 0; returns the frame. */
static uint8_t *large(int ipv6)
{
    uint32_t header = ipv6 ? 54 : 34;
    uint8_t *f = (uint8_t *)frame(0, 16, header + 20 + LARGE_PAYLOAD) + 44 + 16;
    uint8_t *ip = f + 14, *tcp = f + header, *last = ipv6 ? ip + 40 : ip + 20;

    ppi((uint32_t *)send_buffer, 16, 2, 12, ipv6 ? LSO_V6 : LSO_V4);
    f[12] = ipv6 ? 0x86 : 0x08;
    f[13] = ipv6 ? 0xdd : 0x00;
    ip[0] = ipv6 ? 0x60 : 0x45;
    ip[ipv6 ? 6 : 9] = 6;
    last[-8] = last[-4] = 10;
    last[-5] = 1;
    last[-1] = 2;
    tcp[12] = 5 << 4;
    tcp[13] = 0x10;
    put_pseudo_sum(tcp + 16);
    return f;
}

static void try_large(void)
{
    uint32_t *const m = (uint32_t *)send_buffer;
    uint8_t *f;

#define TRY_LARGE(name, ipv6, ...)                                                                 \
    do {                                                                                           \
        f = large(ipv6);                                                                           \
        __VA_ARGS__;                                                                               \
        say_number(name, send_section(m[1]));                                                      \
    } while (0)
    session(RNDIS);
    TRY_LARGE("large", 0, (void)f);
    TRY_LARGE("large, IPv6", 1, (void)f);
    TRY_LARGE("large, version 1", 0, m[14] &= ~(1u << 30));
    TRY_LARGE("large, IPv4 as IPv6", 0, m[14] |= 1u << 31);
    TRY_LARGE("large, IPv6 as IPv4", 1, m[14] &= ~(1u << 31));
    TRY_LARGE("large, TCP elsewhere", 0, m[14] += 4u << 20);
    TRY_LARGE("large, TCP in IP header", 0, m[14] -= 4u << 20);
    TRY_LARGE("large, TCP beyond", 0, m[3] = 34 + 19, m[1] = 44 + 16 + 34 + 19);
    TRY_LARGE("large, not TCP", 0, f[14 + 9] = 17);
    TRY_LARGE("large, IPv6, not TCP", 1, f[14 + 6] = 17);
    TRY_LARGE("large, fragment", 0, f[14 + 6] = 0x20);
    TRY_LARGE("large, TCP header of 16", 0, f[34 + 12] = 4 << 4);
    TRY_LARGE("large, options beyond", 0, m[3] = 34 + 24, m[1] = 44 + 16 + 34 + 24,
              f[34 + 12] = 7 << 4);
    TRY_LARGE("large, length", 0, f[14 + 3] = 40);
    TRY_LARGE("large, IPv6, length", 1, f[14 + 5] = 20);
    TRY_LARGE("large, IP checksum", 0, f[14 + 10] = 1);
    TRY_LARGE("large, TCP checksum of zero", 0, f[34 + 16] = f[34 + 17] = 0);
    TRY_LARGE("large, IPv6, TCP checksum with length", 1, f[54 + 17] += 20);
    TRY_LARGE("large, SYN", 0, f[34 + 13] |= 2);
    TRY_LARGE("large, RST", 0, f[34 + 13] |= 4);
    TRY_LARGE("large, URG", 0, f[34 + 13] |= 0x20);
    TRY_LARGE("large, MSS 0", 0, m[14] &= ~0xfffffu);
    TRY_LARGE("large, MSS above MTU", 0, m[14] += 1);
    TRY_LARGE("large, one segment", 0, m[3] = 54 + 1460, m[1] = 44 + 16 + 54 + 1460);
    /* with a second PPI, where the frame's addresses were */
    TRY_LARGE("large, with checksum", 0, m[7] = 36, m[8] = 32, m[2] += 16, m[1] += 16, m[15] = 16,
              m[16] = 0, m[17] = 12, m[18] = 1 | 4);
    set_offloads(0, 1u << 24, 2);
    TRY_LARGE("large while off", 0, (void)f);
    TRY_LARGE("large, IPv6, while on", 1, (void)f);
    set_offloads(0, 2u << 24, 1);
    TRY_LARGE("large while on", 0, (void)f);
    TRY_LARGE("large, IPv6, while off", 1, (void)f);
}

/* Above the maximum: 16 ranges of one page. */
static void try_largest(void)
{
    uint32_t ranges[15][2];
    uint64_t pages[15];
    uint8_t *f = large(0);

    for (unsigned i = 0; i < 15; i++) {
        ranges[i][0] = PAGE;
        ranges[i][1] = 0;
        pages[i] = (uint64_t)loose / PAGE;
    }
    (void)f;
    ((uint32_t *)send_buffer)[1] = 44 + 16 + 54 + 15 * PAGE;
    ((uint32_t *)send_buffer)[3] = 54 + 15 * PAGE;
    say_number("large, 61 KiB", send_ranges(44 + 16 + 54, 15, ranges, pages));
    ((uint32_t *)send_buffer)[1] += 0xf53c - (54 + 15 * PAGE) + 1;
    ((uint32_t *)send_buffer)[3] = 0xf53c + 1;
    say_number("large, above the maximum",
               send_ranges(44 + 16 + 54 + 0xf53c - (54 + 15 * PAGE) + 1, 15, ranges, pages));
}

static void try_ranges(void)
{
    const uint64_t page = (uint64_t)send_buffer / PAGE, loose_page = (uint64_t)loose / PAGE;

#define TRY_RANGES(name, section, count, r0, o0, p0, r1, o1, p1)                                   \
    do {                                                                                           \
        const uint32_t r_[2][2] = {{r0, o0}, {r1, o1}};                                            \
        const uint64_t p_[2] = {p0, p1};                                                           \
        say_number(name, send_ranges(section, count, r_, p_));                                     \
    } while (0)
    session(RNDIS);
    frame(0, 0, 60);
    TRY_RANGES("frame in pages", 0, 2, 44, 0, page, 60, 44, page);
    TRY_RANGES("frame in section and page", 44, 1, 60, 44, page, 0, 0, 0);
    TRY_RANGES("header in two ranges", 0, 2, 40, 0, page, 64, 40, page);
    TRY_RANGES("page of no RAM", 44, 1, 60, 0, 0xf000000, 0, 0, 0);
    say_life("after all these");
    TRY_RANGES("range of 0 bytes", 44, 1, 0, 0, loose_page, 0, 0, 0);
    say_life("dead of it");
    session(RNDIS);
    TRY_RANGES("range offset 4096", 44, 1, 60, PAGE, loose_page, 0, 0, 0);
    say_life("dead of that");
    session(RNDIS);
    TRY_RANGES("range lacks a page", 44, 1, 2 * PAGE, 0, loose_page, 0, 0, 0);
    say_life("dead of this");
    session(RNDIS);
    TRY_RANGES("no range", 44, 0, 0, 0, 0, 0, 0, 0);
    say_life("dead again");
}

/* An RNDIS request in section 0; says the packet's status, then that of the answer. */
static void try_request(const char *name, const char *answer, uint32_t bytes)
{
    rndis_status = ~0u;
    say_number(name, send_section(bytes));
    if (answer) {
        await_answer();
        say_number(answer, rndis_status);
    }
}

/* Sets RSS parameters with a table of one entry and a key of zeroes, but lengths as they are said. */
static void try_rss(const char *name, const char *answer, uint32_t flags, uint32_t hash,
                    uint32_t table_bytes, uint32_t entry, uint32_t key_bytes)
{
    SECTION_WORDS(5, 28 + 84, 10, 0x10204, 84, 20, 0, 0x280289, flags, hash, table_bytes, 40,
                  key_bytes, 44, 0, 0, 0, entry, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    try_request(name, answer, 28 + 84);
}

static void try_control(void)
{
    session(BUFFERS);
    frame(0, 0, 60);
    say_number("data before initialize", send_section(104));
    SECTION_WORDS(4, 28, 5, 0x10106, 0, 20, 0);
    try_request("query before initialize", NULL, 28);

    session(RNDIS);
    SECTION_WORDS(4, 28, 5, 0x10106, 0, 20, 0);
    try_request("query", "query's answer", 28);
    SECTION_WORDS(4, 28, 6, 0x12345678, 0, 20, 0);
    try_request("query of unknown OID", "its answer", 28);
    SECTION_WORDS(4, 28, 6, 0x10106, 8, 20, 0);
    try_request("query with data beyond", NULL, 28);
    SECTION_WORDS(4, 64, 6, 0x10106, 0, 20, 0);
    try_request("query longer than packet", NULL, 28);
    SECTION_WORDS(4, 24, 6, 0x10106, 0, 20);
    try_request("query too short", NULL, 24);
    SECTION_WORDS(5, 32, 7, 0x1010e, 4, 24, 0, 0);
    try_request("set at odd offset", "set's answer", 32);
    SECTION_WORDS(5, 28 + 28, 8, 0xfc01020c, 28, 20, 0, 0x1c0381, 0, 0, 0, 0, 0, 0);
    try_request("offloads of wrong type", "that answer", 56);
    SECTION_WORDS(5, 28 + 28, 8, 0xfc01020c, 28, 20, 0, 0x1c0380, 0, 0x200, 0, 0, 0, 0);
    try_request("LSO version 1 on", "other answer", 56);
    try_rss("RSS as it never was", "RSS answer 1", 0xe, 0x1701, 4, 0, 40);
    try_rss("RSS with another function", "RSS answer 2", 0, 0x1702, 4, 0, 40);
    try_rss("RSS with unknown types", "RSS answer 3", 0, 0x100701, 4, 0, 40);
    try_rss("RSS without table", "RSS answer 4", 0, 0x1701, 0, 0, 40);
    try_rss("RSS with half an entry", "RSS answer 5", 0, 0x1701, 6, 0, 40);
    try_rss("RSS with table beyond", "RSS answer 6", 0, 0x1701, 48, 0, 40);
    try_rss("RSS to channel 64", "RSS answer 7", 0, 0x1701, 4, 64, 40);
    try_rss("RSS with key of 39", "RSS answer 8", 0, 0x1701, 4, 0, 39);
    try_rss("RSS", "RSS answer 9", 0, 0x1701, 4, 63, 40);
    try_rss("RSS as it is", "RSS answer 10", 0xe, 0x1701, 4, 0, 40);
    try_rss("RSS off", "RSS answer 11", 0x10, 0, 0, 0, 0);
    SECTION_WORDS(8, 12, 9);
    try_request("keepalive", "alive", 12);

    SECTION_WORDS(2, 24, 1, 1, 0, 0x4000);
    send_section(24);
    say_life("initialize twice");
    session(RNDIS);
    SECTION_WORDS(6, 12, 0);
    send_section(12);
    say_life("reset");
    session(RNDIS);
    SECTION_WORDS(3, 12, 3);
    say_number("halt", send_section(12));
    frame(0, 0, 60);
    say_number("data after halt", send_section(104));
    say_life("after halt");
}

/* --- Filter and list of groups ------------------------------------------ */

/* The list: @bytes of two groups, 01:00:5e:00:07:01 and :02, and whatever comes behind them. */
static void set_groups(const char *name, const char *answer, uint32_t bytes)
{
    SECTION_WORDS(5, 28 + 200, 9, 0x1010103, bytes, 20, 0, 0x005e0001, 0x00010107, 0x0207005e);
    try_request(name, answer, 28 + 200);
}

/* What the test's frames begin with is their number, 1 to 31; number 1 ends them. One bit each. */
static uint32_t hear(void)
{
    struct packet p;
    uint32_t heard = 0;

    while (!(heard & 2) && take_packet(&p, 5 * PATIENCE)) {
        if (p.type != XFER_PAGES) {
            continue;
        }
        for (uint32_t i = 0; i < p.body[1] && 3 + 2 * i < PACKET_WORDS; i++) {
            const uint8_t *m = recv_buffer + p.body[3 + 2 * i];
            const uint32_t *words = (const uint32_t *)m;

            if (words[0] == 1) { /* a frame */
                heard |= 1u << (m[8 + words[2] + 14] & 31);
            }
        }
        give_back(p.id, RNDIS_COMPLETE);
    }
    return heard;
}

static void try_filter(const char *name, const char *came, uint32_t filter)
{
    SECTION_WORDS(5, 32, 7, 0x1010e, 4, 20, 0, filter);
    rndis_status = ~0u;
    send_section(32);
    await_answer();
    say(name, "listens");
    say_number(came, hear());
}

/* 1: directed, 2: multicast, 4: all multicast. */
static void try_groups(void)
{
    session(RNDIS);
    try_filter("no group", "heard without a group", 3);
    set_groups("group", "group's answer", 6);
    try_filter("a group", "heard with a group", 3);
    set_groups("groups", "groups' answer", 12);
    try_filter("two groups", "heard with two groups", 3);
    set_groups("half a group", "answer to half a group", 9);
    set_groups("33 groups", "answer to 33 groups", 198);
    try_filter("the same groups", "heard as before", 3);
    try_filter("no filter for groups", "heard without filter for groups", 1);
    try_filter("all groups", "heard of all groups", 5);
    set_groups("groups taken back", "answer to no groups", 0);
    try_filter("no group again", "heard in the end", 3);
}

/* --- Subchannels -------------------------------------------------------- */

static struct {
    uint32_t relid, signal_id;
} channels[2];

static void use_channel(unsigned which)
{
    rings = all_rings[which];
    relid = channels[which].relid;
    signal_id = channels[which].signal_id;
}

/* Asks for a subchannel in a new session, opens it and uses it. */
static void subchannel_session(void)
{
    struct packet p;

    session(RNDIS);
    channels[0].relid = relid;
    channels[0].signal_id = signal_id;
    nvsp(&p, PATIENCE, SUBCHANNEL, 1, 1);
    if (await_message() != OFFER) {
        say("subchannel's offer", "did not come");
    }
    channels[1].relid = reply[46];
    channels[1].signal_id = reply[48];
    use_channel(1);
    rings_reset();
    if (gpadl_create(GPADL_RING_2, rings, RINGS_BYTES)) {
        say("subchannel's gpadl", "failed");
    }
    send_open(relid, GPADL_RING_2, 0, RING_PAGES);
    if (await_message() != OPEN_RESULT || reply[4]) {
        say("subchannel's open", "failed");
    }
}

/* Closing the primary takes the subchannel back; says whether that was so. */
static void subchannel_end(const char *name)
{
    use_channel(0);
    channel_close();
    say_truth(name, await_message() == RESCIND && reply[2] == channels[1].relid);
    send_message((const uint32_t[]){RELID_RELEASED, 0, channels[1].relid}, 3);
}

static void try_subchannel(void)
{
    subchannel_session();
    frame(0, 0, 60);
    say_number("frame on subchannel", send_section(104));
    SECTION_WORDS(4, 28, 5, 0x10106, 0, 20, 0);
    say_number("query on subchannel", send_section(28));
    say_life("subchannel");
    nvsp_quiet(NDIS_VERSION, 6, 30);
    say_life("version on subchannel");
    use_channel(0);
    say_life("primary");
    subchannel_end("rescind");

    subchannel_session();
    use_channel(0);
    keep_sections = 1;
    SECTION_WORDS(4, 28, 5, 0x10106, 0, 20, 0);
    try_request("query on primary", NULL, 28);
    rndis_status = ~0u;
    await_answer();
    keep_sections = 0;
    use_channel(1);
    give_back(last_section, RNDIS_COMPLETE);
    say_life("completion on subchannel");
    subchannel_end("rescind again");
}

/* Names of 512 bytes until the host has had enough of queueing them. */
static void try_flood(void)
{
    uint32_t sent = 0;

    session(RNDIS);
    keep_sections = 1;
    do {
        SECTION_WORDS(4, 28, 5, 0x20216, 0, 20, 0);
        sent++;
    } while (send_section(28) == 1 && sent < 1000);
    keep_sections = 0;
    say_truth("flood of queries ends in time", sent > 190 && sent < 230);
    say_life("after the flood");
}

static void try_end(void)
{
    session(RNDIS);
    contact(SECOND_CONTACT_ID, VERSION_5_3, 0, 2, 0);
    say_contact("contact while connected", 2);
    opened = 0;
    TRY_MESSAGE("offer again", OFFER, 46, REQUEST_OFFERS, 0);
    say_answer("all offers again", 2, ALL_OFFERS, 0);
    TRY_MESSAGE("gpadl is forgotten", 0, 0, GPADL_TEARDOWN, 0, relid, GPADL_RING);
    TRY_MESSAGE("release of unknown", 0, 0, RELID_RELEASED, 0, 2000);
    TRY_MESSAGE("release", 0, 0, RELID_RELEASED, 0, relid);
    TRY_MESSAGE("release twice", 0, 0, RELID_RELEASED, 0, relid);
    TRY_MESSAGE("unload", UNLOAD_RESPONSE, 0, UNLOAD, 0);
}

/* gnu-efi's start-up code calls this by the ELF convention. */
EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    (void)image;
    rings = all_rings[0];
    begin();
    write_msr(MSR_SINT(3), 0x53);
    try_contact();
    try_messages();
    try_gpadls();
    try_channel();
    try_ring_rules();
    try_nvsp_rules();
    try_data();
    try_large();
    try_largest();
    try_ranges();
    try_control();
    try_groups();
    try_subchannel();
    try_flood();
    try_end();
    say("end", "yes");
    return end(system);
}
