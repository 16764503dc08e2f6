// SPDX-License-Identifier: BSD-2-Clause
// See sender.h. A sender belongs to a pcb and lives as long as that. It keeps the pcb's snd_nxt and
// snd_lbb, so that lwIP takes acknowledgements of what it never saw go out; recovery.c says what goes
// out when. Nothing is sent from within lwIP's callbacks, only from the core's loop.
#include "net/sender.h"

#include <stddef.h>
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/time.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "net/express.h"
#include "net/frame.h"
#include "net/interface.h"
#include "net/options.h"
#include "net/recovery.h"
#include "net/stack.h"

#define EXTENTS 128 // pieces that were written and are not acknowledged
#define UNSENT_BYTES                                                                               \
    (256 << 10) // so much is accepted ahead, or what may be under way if that is more
#define BLOCKED_TIME (10 * TIME_MS)
#define TURN_BYTES 32768u // that one sends before the next one's turn, or one frame
#define OPTION_SACK 5
#define GIVE_UP 10u // time-outs or window probes without any answer

enum counter {
    FRAMES,
    BYTES,
    RESENT,
    TIMEOUTS,
    PROBES,
    NEEDLESS,
    BLOCKED,
    GIVEN_UP,
    AHEAD,
    COUNTERS
};

struct extent {
    const uint8_t *data;
    uint32_t len;
};

struct sender {
    struct sender *next;
    struct tcp_pcb *pcb;
    struct recovery recovery;
    struct express express;
    struct extent extents[EXTENTS];
    unsigned first, count;
    uint32_t base;   // sequence number of the first extent's first byte
    uint32_t unsent; // bytes: the first of them is in extent `at`, `offset` bytes behind its start,
    unsigned at;     // or will be
    uint32_t offset;
    uint32_t acked;  // bytes not yet told
    uint16_t window; // of the last segment, as on the wire
    bool pending;    // something has happened to it
    bool ready;      // may have something to send, and waits for its turn
    bool blocked;    // in this round: the NIC has enough, or there is no memory
    bool stopped;    // takes nothing more
    bool squeeze;    // the window stays small: use what there is of it
    unsigned window_probes;
    uint64_t window_at; // when to ask for the peer's window; 0: it is open
    uint64_t wake_at;
};

static PERCORE struct sender *senders;
static PERCORE struct sender *running, *next_one; // in sender_poll(); NULL when they are gone
static PERCORE struct sender *turn;               // whose it is; NULL: the first one's
static PERCORE bool attention;
static PERCORE uint64_t wake_at;
static PERCORE uint8_t slot; // of a pcb's extra arguments
static PERCORE uint64_t counts[COUNTERS];

static struct sender *sender_of(const struct tcp_pcb *pcb)
{
    return tcp_ext_arg_get(pcb, slot);
}

// ---- Life ----

static void sender_gone(u8_t id, void *data)
{
    (void)id;
    struct sender *s = data;
    if (!s)
        return;
    struct sender **link = &senders;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    if (running == s)
        running = NULL;
    if (next_one == s)
        next_one = s->next;
    if (turn == s)
        turn = s->next;
    counts[TIMEOUTS] += s->recovery.timeouts;
    counts[PROBES] += s->recovery.probes;
    counts[NEEDLESS] += s->recovery.needless;
    recovery_free(&s->recovery);
    heap_free(s);
}

static const struct tcp_ext_arg_callbacks slot_callbacks = {.destroy = sender_gone};

static uint32_t wire_mss(const struct tcp_pcb *pcb)
{
    bool timestamps = (pcb->flags & TF_TIMESTAMP) && pcb->mss > 2 * LWIP_TCP_OPT_LEN_TS_OUT;
    return timestamps ? pcb->mss - LWIP_TCP_OPT_LEN_TS_OUT : pcb->mss;
}

static struct sender *sender_new(struct tcp_pcb *pcb)
{
    struct sender *s = net_alloc(sizeof(*s));
    if (!s)
        return NULL;
    memset(s, 0, sizeof(*s));
    s->pcb = pcb;
    s->base = pcb->snd_lbb;
    s->wake_at = UINT64_MAX;
    recovery_init(&s->recovery, pcb->snd_lbb, wire_mss(pcb), pcb->flags & TF_SACK, config.reno,
                  time_now());
    s->next = senders;
    senders = s;
    tcp_ext_arg_set(pcb, slot, s);
    tcp_ext_arg_set_callbacks(pcb, slot, &slot_callbacks);
    return s;
}

// ---- The queue ----

static uint32_t limit_of_unsent(const struct sender *s)
{
    uint32_t cwnd = s->recovery.congestion.cwnd;
    return cwnd > UNSENT_BYTES ? cwnd : UNSENT_BYTES;
}

uint32_t sender_room(const struct tcp_pcb *pcb)
{
    const struct sender *s = sender_of(pcb);
    if (!s)
        return UNSENT_BYTES;
    uint32_t limit = limit_of_unsent(s);
    return s->count < EXTENTS && s->unsent < limit ? limit - s->unsent : 0;
}

bool sender_write(struct tcp_pcb *pcb, const void *data, uint32_t len)
{
    if (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT)
        return false;
    struct sender *s = sender_of(pcb);
    if (!s)
        s = sender_new(pcb);
    if (!s || s->stopped || !len || len > sender_room(pcb))
        return false;
    struct extent *last = &s->extents[(s->first + s->count + EXTENTS - 1) % EXTENTS];
    if (s->count && last->data + last->len == data)
        last->len += len;
    else
        s->extents[(s->first + s->count++) % EXTENTS] = (struct extent){data, len};
    s->unsent += len;
    s->pending = attention = true;
    return true;
}

uint32_t sender_stop(struct tcp_pcb *pcb)
{
    struct sender *s = sender_of(pcb);
    if (!s)
        return 0;
    s->unsent = 0;
    s->stopped = true;
    return s->recovery.board.nxt - s->recovery.board.una + s->acked;
}

uint32_t sender_resent(const struct tcp_pcb *pcb)
{
    const struct sender *s = sender_of(pcb);
    return s ? (uint32_t)s->recovery.resent_segments : 0;
}

static void drop_acknowledged(struct sender *s)
{
    while (s->count && !seq_before(s->recovery.board.una, s->base + s->extents[s->first].len)) {
        s->base += s->extents[s->first].len;
        if (s->at == s->first) { // all of it was sent: what comes next begins another one
            s->at = (s->at + 1) % EXTENTS;
            s->offset = 0;
        }
        s->first = (s->first + 1) % EXTENTS;
        s->count--;
    }
}

// The memory of up to `len` bytes from `seq`, which were written. Returns how many pieces.
static unsigned find_data(const struct sender *s, uint32_t seq, uint32_t len,
                          struct nic_piece pieces[FRAME_PIECES])
{
    uint32_t offset = s->offset;
    unsigned at = s->at, count = 0;
    if (seq != s->recovery.board.nxt) { // again
        offset = seq - s->base;
        at = s->first;
    }
    for (; offset >= s->extents[at].len; at = (at + 1) % EXTENTS)
        offset -= s->extents[at].len;
    for (; len && count < FRAME_PIECES; at = (at + 1) % EXTENTS, offset = 0) {
        uint32_t n = LWIP_MIN(len, s->extents[at].len - offset);
        pieces[count++] = (struct nic_piece){s->extents[at].data + offset, n};
        len -= n;
    }
    return count;
}

// ---- Out ----

static bool may_send_new(const struct tcp_pcb *pcb)
{
    // What lwIP itself has to send comes first: the connection's end is behind all that we sent.
    return (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT) && !pcb->unsent && !pcb->unacked;
}

static struct netif *route(const struct tcp_pcb *pcb)
{
    if (pcb->netif_idx != NETIF_NO_INDEX)
        return netif_get_by_index(pcb->netif_idx);
    return ip_route(&pcb->local_ip, &pcb->remote_ip);
}

// Payload that a frame may hold.
static uint32_t frame_limit(const struct sender *s, const struct netif *netif)
{
    bool ip6 = IP_IS_V6(&s->pcb->remote_ip);
    uint32_t headers = (ip6 ? 40 : IP_HLEN) + TCP_HLEN + LWIP_TCP_OPT_LEN_TS_OUT;
    uint32_t large = s->pcb->mss < STACK_MSS_LEAST ? 0 : interface_large_max(netif, ip6);
    return LWIP_MAX(s->recovery.mss, large > headers ? large - headers : 0);
}

// Sends a segment by lwIP's way, which shows how the next ones can go. False: not now.
static bool transmit_by_lwip(struct sender *s, struct netif *netif, uint32_t seq,
                             const struct nic_piece *data, unsigned count, bool last)
{
    struct pbuf *p = frame_build(s->pcb, netif, seq, data, count, last);
    if (!p)
        return false;
    express_learn(&s->express, s->pcb, p);
    err_t error = frame_send(s->pcb, netif, p);
    express_learn(NULL, NULL, NULL);
    pbuf_free(p);
    return error == ERR_OK;
}

// Sends a piece; it becomes shorter if its data lies in too many places. False: not now.
static bool transmit(struct sender *s, struct piece *piece, struct netif *netif, uint64_t now)
{
    struct nic_piece data[FRAME_PIECES];
    unsigned count = find_data(s, piece->seq, piece->len, data);
    uint16_t mss = (uint16_t)s->recovery.mss;
    piece->len = 0;
    for (unsigned i = 0; i < count; i++)
        piece->len += data[i].len;
    bool last = piece->seq + piece->len == s->recovery.board.nxt + s->unsent;
    if (express_serves(&s->express, netif, mss, now))
        return express_send(&s->express, s->pcb, mss, piece->seq, data, count, last);
    return transmit_by_lwip(s, netif, piece->seq, data, count, last);
}

// What lwIP does for each segment that it sends.
static void note_sent(struct sender *s, const struct piece *piece)
{
    struct tcp_pcb *pcb = s->pcb;
    pcb->rcv_ann_right_edge = pcb->rcv_nxt + pcb->rcv_ann_wnd;
    pcb->ts_lastacksent = pcb->rcv_nxt;
    tcp_clear_flags(pcb, TF_ACK_DELAY | TF_ACK_NOW);
    counts[FRAMES]++;
    counts[BYTES] += piece->len;
    if (piece->again) {
        counts[RESENT]++;
        return;
    }
    pcb->snd_nxt = pcb->snd_lbb = piece->seq + piece->len;
    s->unsent -= piece->len;
    s->offset += piece->len;
    unsigned last = (s->first + s->count - 1) % EXTENTS;
    for (; s->at != last && s->offset >= s->extents[s->at].len; s->at = (s->at + 1) % EXTENTS)
        s->offset -= s->extents[s->at].len;
}

static struct offer make_offer(const struct sender *s, uint32_t frame)
{
    const struct tcp_pcb *pcb = s->pcb;
    // lwIP may not have taken an acknowledgement that we did.
    uint32_t edge = pcb->lastack + pcb->snd_wnd;
    uint32_t una = s->recovery.board.una;
    return (struct offer){
        .unsent = may_send_new(pcb) ? s->unsent : 0,
        .window = seq_before(una, edge) ? edge - una : 0,
        .frame = frame,
        .small = pcb->flags & TF_NODELAY,
        .crumb = s->squeeze ? 1 : pcb->snd_wnd_max / 2,
    };
}

static void wake_for_timers(struct sender *s, uint64_t at)
{
    s->wake_at = LWIP_MIN(at, recovery_deadline(&s->recovery));
    if (s->window_at)
        s->wake_at = LWIP_MIN(s->wake_at, s->window_at);
}

static void block(struct sender *s, uint64_t now)
{
    s->blocked = true;
    wake_for_timers(s, now + BLOCKED_TIME);
}

// Has nothing to send until something happens; `none` tells until when.
static void rest(struct sender *s, const struct piece *none, uint64_t now)
{
    s->ready = false;
    if (!none->window)
        s->window_at = 0;
    else if (!s->window_at)
        s->window_at = now + recovery_timeout(&s->recovery);
    wake_for_timers(s, none->at);
}

// Sends what may go now, about `most` bytes at most.
static void take_turn(struct sender *s, uint32_t most, uint64_t now)
{
    struct netif *netif = route(s->pcb);
    uint32_t frame = netif ? frame_limit(s, netif) : 0;
    for (uint32_t sent = 0; sent < most;) {
        if (!netif || interface_has_enough(netif)) {
            block(s, now);
            return;
        }
        struct offer offer = make_offer(s, frame);
        struct piece piece = recovery_next(&s->recovery, &offer, now);
        if (!piece.len) {
            rest(s, &piece, now);
            return;
        }
        if (!transmit(s, &piece, netif, now)) {
            counts[BLOCKED]++;
            block(s, now);
            return;
        }
        recovery_sent(&s->recovery, &piece, now);
        note_sent(s, &piece);
        s->squeeze = false;
        s->window_at = 0;
        s->window_probes = 0;
        sent += piece.len;
    }
}

// The window has been too small for a while.
static void probe_window(struct sender *s, uint64_t now)
{
    if (!s->window_at || s->window_at > now)
        return;
    if (s->pcb->snd_wnd) {
        s->squeeze = true;
        s->window_at = 0;
        return;
    }
    tcp_keepalive(s->pcb); // old bytes: the answer tells the window
    s->window_probes++;
    uint64_t wait = recovery_timeout(&s->recovery) << LWIP_MIN(s->window_probes, 8u);
    s->window_at = now + LWIP_MIN(wait, 60 * TIME_S);
}

// Tells what was acknowledged. False: the sender is gone.
static bool tell_acknowledged(struct sender *s)
{
    while (s->acked) {
        u16_t bytes = (u16_t)LWIP_MIN(s->acked, UINT16_MAX);
        err_t error = ERR_OK;
        s->acked -= bytes;
        TCP_EVENT_SENT(s->pcb, bytes, error);
        (void)error;
        if (!running)
            return false;
    }
    return true;
}

// What has happened to it, or is due.
static void look_after(struct sender *s, uint64_t now)
{
    if (!tell_acknowledged(s))
        return;
    s->pending = false;
    recovery_timer(&s->recovery, now);
    if (s->recovery.backoff > GIVE_UP || s->window_probes > GIVE_UP) {
        counts[GIVEN_UP]++;
        tcp_abort(s->pcb);
        return;
    }
    s->recovery.mss = s->recovery.congestion.mss = wire_mss(s->pcb);
    probe_window(s, now);
    s->ready = true;
}

// ---- In ----

static uint32_t read_edge(const struct tcp_options *options, unsigned at)
{
    uint32_t edge = 0;
    for (unsigned i = 0; i < 4; i++)
        edge = edge << 8 | *tcp_options_byte(options, at + i);
    return edge;
}

static unsigned read_sacks(const struct tcp_options *options, struct acknowledgement *out)
{
    struct tcp_option option = {0};
    while (tcp_options_next(options, &option)) {
        if (option.kind != OPTION_SACK)
            continue;
        unsigned blocks = LWIP_MIN((option.size - 2) / 8, SACK_BLOCKS);
        for (unsigned i = 0; i < blocks; i++) {
            out->sacked[i].left = read_edge(options, option.at + 2 + 8 * i);
            out->sacked[i].right = read_edge(options, option.at + 6 + 8 * i);
        }
        return blocks;
    }
    return 0;
}

void sender_segment_in(const struct tcp_pcb *pcb, const struct tcp_hdr *header, uint16_t data_len,
                       const struct tcp_options *options)
{
    struct sender *s = sender_of(pcb);
    if (!s || pcb->state < ESTABLISHED)
        return;
    uint8_t flags = TCPH_FLAGS(header);
    struct scoreboard *board = &s->recovery.board;
    struct acknowledgement a = {.ack = header->ackno};
    if ((flags & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK || seq_before(a.ack, board->una))
        return;
    if (seq_before(pcb->snd_nxt, a.ack)) { // of what was never sent: lwIP will refuse it, too
        counts[AHEAD]++;
        return;
    }
    s->window_probes = 0;
    s->pending = attention = true;
    if (seq_before(board->nxt, a.ack))
        a.ack = board->nxt; // the end of the connection, which lwIP sent
    uint32_t una = board->una;
    a.duplicate = a.ack == una && !data_len && header->wnd == s->window && !(flags & TCP_FIN);
    a.blocks = read_sacks(options, &a);
    s->window = header->wnd;
    recovery_ack(&s->recovery, &a, time_now());
    s->acked += board->una - una;
    drop_acknowledged(s);
}

void sender_path_narrower(const struct tcp_pcb *pcb)
{
    struct sender *s = sender_of(pcb);
    if (!s)
        return;
    recovery_too_long(&s->recovery);
    s->express.until = 0;
    s->pending = attention = true;
}

// ---- The core's loop ----

// Looks after those that need it. Returns whether any did.
static bool look_after_all(uint64_t now)
{
    bool worked = false;
    for (struct sender *s = senders; s; s = next_one) {
        next_one = s->next;
        running = s;
        if (s->pending || now >= s->wake_at) {
            worked |= s->pending;
            look_after(s, now);
        }
    }
    running = next_one = NULL;
    return worked;
}

// Begins a round of turns: how many senders take part. No callback runs before its end, so none of them
// goes.
static unsigned begin_round(void)
{
    unsigned count = 0;
    for (struct sender *s = senders; s; s = s->next) {
        s->blocked = false;
        count += s->ready;
    }
    return count;
}

// Those that are ready send in turns, so that all get the same of what the NIC takes, however much each
// of them may have under way. Returns whether some are left because a NIC has enough.
static bool give_turns(unsigned count, uint64_t now)
{
    struct sender *first_blocked = NULL;
    for (unsigned left = count; left;) {
        struct sender *s = turn ? turn : senders;
        turn = s->next;
        if (!s->ready || s->blocked)
            continue;
        take_turn(s, left > 1 ? TURN_BYTES : UINT32_MAX, now);
        if (s->blocked && !first_blocked)
            first_blocked = s;
        left -= s->blocked || !s->ready;
    }
    if (first_blocked)
        turn = first_blocked; // and begins the next time
    return first_blocked;
}

bool sender_poll(void)
{
    uint64_t now = time_now();
    if (!attention && now < wake_at)
        return false;
    uint64_t frames = counts[FRAMES];
    attention = false;
    bool worked = look_after_all(now);
    if (give_turns(begin_round(), now))
        attention = true; // each turn of the loop, until there is room
    wake_at = UINT64_MAX;
    for (const struct sender *s = senders; s; s = s->next)
        wake_at = LWIP_MIN(wake_at, s->wake_at);
    return worked || counts[FRAMES] != frames;
}

uint64_t sender_deadline(void)
{
    return wake_at;
}

// ---- Statistics ----

// Of all cores.
static void write_stats(void)
{
    static const char *const names[COUNTERS] = {
        [FRAMES] = "frames",     [BYTES] = "bytes",        [RESENT] = "resent",
        [TIMEOUTS] = "timeouts", [PROBES] = "tail_probes", [NEEDLESS] = "needless",
        [BLOCKED] = "blocked",   [GIVEN_UP] = "given_up",  [AHEAD] = "acked_ahead"};
    for (unsigned i = 0; i < COUNTERS; i++) {
        uint64_t sum = 0;
        for (unsigned core = 0; core < core_count(); core++)
            sum += ((const uint64_t *)core_peek(core, counts))[i];
        stats_print("%s\"%s\":%llu", i ? "," : "{", names[i], (unsigned long long)sum);
    }
    stats_print("}");
}

static struct stats_source sender_stats = {.name = "sender", .write = write_stats};

void sender_start(void)
{
    slot = tcp_ext_arg_alloc_id();
    wake_at = UINT64_MAX;
    if (core_id() == 0)
        stats_add(&sender_stats);
}
