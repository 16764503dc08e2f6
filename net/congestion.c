// SPDX-License-Identifier: BSD-2-Clause
// See congestion.h: what both kinds have in common.
#include "net/congestion.h"

#include "kernel/time.h"

#define FRAME_BYTES 65536 // no frame is larger

void congestion_init(struct congestion *c, bool is_reno, uint32_t mss, uint64_t now)
{
    *c = (struct congestion){.is_reno = is_reno,
                             .mss = mss,
                             .cwnd = INITIAL_SEGMENTS * mss,
                             .pacing = NOT_PACED,
                             .quantum = FRAME_BYTES};
    if (is_reno)
        reno_init(c);
    else
        bbr_init(c, now);
}

void congestion_ack(struct congestion *c, const struct ack_sample *s)
{
    if (c->is_reno)
        reno_ack(c, s);
    else
        bbr_ack(c, s);
}

void congestion_lost(struct congestion *c, uint32_t in_flight)
{
    if (c->is_reno)
        reno_lost(c, in_flight);
}

void congestion_timeout(struct congestion *c, uint32_t in_flight)
{
    if (c->is_reno)
        reno_timeout(c, in_flight);
    else
        bbr_timeout(c);
}
