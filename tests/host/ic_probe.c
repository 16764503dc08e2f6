/*
 * Tries the emulated host's integration components from below, and its time when the TSC changes: an
 * EFI program that is a correct guest where it has to be and breaks one rule at a time, and says on
 * COM1 what came of it, one line "probe: NAME: RESULT" each. Started by test_ic_probe.py, which knows
 * the right results; ends by powering the machine off.
 *
 * Runs on the boot processor with interrupts off and the firmware's identity mapping.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <efi.h>

#define PACKET_WORDS 700
#include "probe_vmbus.h"

#define LATE (700 * MS)         /* the heartbeat's time-out, set by the test, is 500 ms */
#define MOVES 2                 /* of the test's doing ... */
#define MOVES_TIME (30000 * MS) /* ... within this */
#define SILENCE (12000 * MS)    /* after 10 s the host has lost contact */

enum { SHUTDOWN, HEARTBEAT, TIMESYNC, KVP, SERVICES };

/* The first word of each class id on the wire. */
static const uint32_t class_of[SERVICES] = {0x0e0b6031, 0x57164f39, 0x9527e630, 0xa9a0f4e7};
static struct {
    uint32_t relid, signal_id;
} offers[SERVICES];

static uint8_t ring_pages[SERVICES][2 * RING_PAGES][PAGE] __attribute__((aligned(PAGE)));

/* Words of a packet's body: pipe header, message header, what follows. */
enum { PIPE_TYPE, PIPE_BYTES, FRAMEWORK, TYPE, BODY_BYTES, STATUS, TRANSACTION, BODY };
#define HEADERS 28
#define FLAGS_REQUEST (3u << 8)
#define FLAGS_ANSWER (5u << 8)

static struct packet request; /* the last that came */

/* --- A correct guest ---------------------------------------------------- */

static void use_service(unsigned service)
{
    channel_close();
    relid = offers[service].relid;
    signal_id = offers[service].signal_id;
    rings = ring_pages[service];
}

static int take_request(uint64_t patience)
{
    return take_packet(&request, patience);
}

/* The channel opened anew, and the host's offer of versions taken. */
static void start(void)
{
    channel_open();
    if (!take_request(PATIENCE)) {
        say("negotiation", "did not come");
    }
}

/* The request as an answer, not sent yet. */
static struct packet answer(void)
{
    struct packet p = request;

    p.body[TRANSACTION] = (p.body[TRANSACTION] & 0xff) | FLAGS_ANSWER;
    return p;
}

static void put_answer(struct packet *p)
{
    put_packet(p, IN_BAND, 16, 16 + 8 + p->body[PIPE_BYTES], 0, 0);
}

/* The answer that chooses the newest of everything. */
static struct packet choice(void)
{
    struct packet p = answer();
    uint32_t frameworks = p.body[BODY] & 0xffff, versions = p.body[BODY] >> 16;
    uint32_t *list = p.body + BODY + 2;

    list[1] = list[frameworks + versions - 1];
    list[0] = request.body[BODY + 2 + frameworks - 1];
    p.body[BODY] = 1 | 1 << 16;
    p.body[BODY_BYTES] = 16 << 16 | (p.body[BODY_BYTES] & 0xffff);
    return p;
}

static void choose(void)
{
    struct packet p = choice();

    put_answer(&p);
}

/* Does the host go on after the negotiation? */
static void say_life(const char *name)
{
    choose();
    say(name, take_request(SETTLED) ? "served" : "fatal");
}

/* --- Rules -------------------------------------------------------------- */

#define TRY(name, ...)                                                                             \
    do {                                                                                           \
        struct packet p;                                                                           \
        start();                                                                                   \
        p = choice();                                                                              \
        __VA_ARGS__;                                                                               \
        say_life(name);                                                                            \
    } while (0)

static void try_transport(void)
{
    use_service(HEARTBEAT);
    start();
    say_number("versions offered", request.body[BODY]);
    say_number("first framework", request.body[BODY + 2]);
    say_life("nothing wrong");
    TRY("completion", put_packet(&p, COMPLETION, 16, 80, 0, 0));
    TRY("with completion", put_packet(&p, IN_BAND, 16, 80, 1, 0));
    TRY("short", put_packet(&p, IN_BAND, 16, 16 + 24, 0, 0));
    TRY("pipe type 2", p.body[PIPE_TYPE] = 2; put_answer(&p));
    TRY("pipe beyond", put_packet(&p, IN_BAND, 16, 16 + p.body[PIPE_BYTES], 0, 0));
    TRY("pipe without header", p.body[PIPE_BYTES] = 16; put_packet(&p, IN_BAND, 16, 80, 0, 0));
    TRY("body beyond", p.body[BODY_BYTES] |= 0x1000u << 16; put_answer(&p));
    TRY("request", p.body[TRANSACTION] = 1 | FLAGS_REQUEST; put_answer(&p));
    TRY("transaction of nobody", p.body[TRANSACTION]++; put_answer(&p));
    TRY("type 4", p.body[TYPE] |= 4; put_answer(&p));
    TRY("no body", p.body[BODY_BYTES] &= 0xffff; put_answer(&p));
    TRY("two versions", p.body[BODY] = 1 | 2 << 16; put_answer(&p));
    TRY("framework 9.9", p.body[BODY + 2] = 9 | 9 << 16; put_answer(&p));
    TRY("version 9.9", p.body[BODY + 3] = 9 | 9 << 16; put_answer(&p));
    TRY("no version known", p.body[BODY] = 0; put_answer(&p));
}

static void try_heartbeat(void)
{
    struct packet p;

    start();
    p = choice();
    put_answer(&p);
    say_truth("beat", take_request(PATIENCE) && (request.body[TYPE] & 0xffff) == 1);
    put_answer(&p); /* the choice again */
    p = answer();
    p.body[BODY]++;
    p.body[BODY + 2] = 1;
    put_answer(&p);
    put_answer(&p);
    say_truth("beat after two seconds", take_request(2 * PATIENCE));

    wait_until(now() + LATE);
    p = answer();
    p.body[BODY]++;
    put_answer(&p);
    say_truth("beat after a late answer", take_request(2 * PATIENCE));
    say("silence", "begins");
    wait_until(now() + SILENCE);
    while (take_request(SETTLED)) {
    }
    say_truth("beat after silence", take_request(2 * PATIENCE));
    p = answer();
    put_answer(&p);
    say_truth("beat after a wrong one", take_request(3 * PATIENCE / 2));

    TRY("beat with application 4", choose(); take_request(PATIENCE); p = answer(); p.body[BODY]++;
        p.body[BODY + 2] = 4; put_answer(&p));
    TRY("beat of eight bytes", choose(); take_request(PATIENCE); p = answer();
        p.body[BODY_BYTES] = 8 << 16; p.body[BODY]++; put_answer(&p));
}

static void try_timesync(void)
{
    uint64_t time;

    use_service(TIMESYNC);
    start();
    choose();
    say_truth("time", take_request(PATIENCE) && (request.body[TYPE] & 0xffff) == 4);
    say_number("flags of the first time", request.body[BODY + 4] & 0xff);
    time = request.body[BODY + 2] | (uint64_t)request.body[BODY + 3] << 32;
    say_truth("reference time is of now", time <= now() && now() - time < PATIENCE);
}

static void try_kvp(void)
{
    use_service(KVP);
    TRY("pair of another operation", choose(); take_request(PATIENCE); p = answer(); p.body[BODY]++;
        put_answer(&p));
    TRY("pair cut off", choose(); take_request(PATIENCE); p = answer();
        p.body[BODY_BYTES] = (p.body[BODY_BYTES] & 0xffff) | 100 << 16; put_answer(&p));
    start();
    choose();
    take_request(PATIENCE);
    say_number("host introduces itself", request.body[BODY]);
    {
        struct packet p = answer();

        put_answer(&p);
    }
    say_truth("and goes on", take_request(PATIENCE));
}

/* --- A TSC of another frequency ----------------------------------------- */

struct tsc_page {
    uint32_t sequence, reserved;
    uint64_t scale;
    int64_t offset;
};

static uint64_t read_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* The test changes the TSC meanwhile: page and MSR agree at each moment, and time never goes back. */
static void try_moves(void)
{
    const volatile struct tsc_page *page = (const volatile struct tsc_page *)TSC_PAGE;
    uint64_t end, last = 0, wrong = 0, back = 0, sequences = 0;
    uint32_t known = 0;
    int invalid = 0;

    write_msr(MSR_REFERENCE_TSC, page_msr(TSC_PAGE));
    say("moves", "begin");
    end = now() + MOVES_TIME;
    while (now() < end && sequences <= MOVES) {
        uint32_t sequence = page->sequence;
        uint64_t before = now(), scale = page->scale, tsc = read_tsc(), time;
        int64_t offset = page->offset;
        uint64_t after = now();

        invalid |= !sequence;
        back += before < last;
        last = after;
        if (!sequence || page->sequence != sequence) {
            continue;
        }
        time = (uint64_t)((unsigned __int128)tsc * scale >> 64) + (uint64_t)offset;
        wrong += time < before || time > after;
        sequences += sequence != known;
        known = sequence;
    }
    say_truth("page is invalid for a moment", invalid);
    say_number("pages", sequences);
    say_number("page and MSR disagree", wrong);
    say_number("time goes back", back);
    write_msr(MSR_REFERENCE_TSC, 0);
}

/* --- Set-up ------------------------------------------------------------- */

static void take_offers(void)
{
    uint32_t m[2] = {REQUEST_OFFERS, 0};

    send_message(m, 2);
    while (await_message() == OFFER) {
        for (unsigned i = 0; i < SERVICES; i++) {
            if (reply[2] != class_of[i]) {
                continue;
            }
            offers[i].relid = reply[46];
            offers[i].signal_id = reply[48];
            if (i == HEARTBEAT) {
                say_number("offer's flags", reply[14] & 0xffff);
                say_number("pipe mode", reply[15]);
            }
        }
    }
    for (unsigned i = 0; i < SERVICES; i++) {
        relid = offers[i].relid;
        if (!relid || gpadl_create(GPADL_RING, ring_pages[i], RINGS_BYTES)) {
            say("set-up", "failed");
        }
    }
}

/* gnu-efi's start-up code calls this by the ELF convention. */
EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    (void)image;
    begin();
    contact(SECOND_CONTACT_ID, VERSION_5_3, 0, 2, 0);
    await_message();
    connection = reply[3];
    take_offers();
    try_transport();
    try_heartbeat();
    try_timesync();
    try_kvp();
    channel_close();
    try_moves();
    send_message((const uint32_t[]){UNLOAD, 0}, 2);
    say_truth("end", await_message() == UNLOAD_RESPONSE);
    return end(system);
}
