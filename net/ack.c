// SPDX-License-Identifier: BSD-2-Clause
// Acknowledges large segments once for a batch of received frames. lwIP acknowledges every second
// segment, which is too late for one that stands for many, and too often when several of those come
// together. Called by the hook for what arrives (stack.c) and at the end of a batch (rx.c).
#include "kernel/core.h"
#include "lwip/priv/tcp_priv.h"
#include "net/interface.h"

#define WAITING 8 // connections in one batch; others are acknowledged at once

static PERCORE struct tcp_pcb *waiting[WAITING]; // may be gone, only compared
static PERCORE unsigned waiting_count;

// lwIP sets TF_ACK_DELAY with the first segment that is to be acknowledged, and acknowledges when it
// finds that set.
void ack_at_batch_end(struct tcp_pcb *pcb)
{
    for (unsigned i = 0; i < waiting_count; i++) {
        if (waiting[i] == pcb) {
            tcp_clear_flags(pcb, TF_ACK_DELAY);
            return;
        }
    }
    if (waiting_count == WAITING) {
        tcp_set_flags(pcb, TF_ACK_DELAY);
        return;
    }
    waiting[waiting_count++] = pcb;
    tcp_clear_flags(pcb, TF_ACK_DELAY);
}

static bool is_active(const struct tcp_pcb *pcb)
{
    const struct tcp_pcb *p = tcp_active_pcbs;
    while (p && p != pcb) // lwIP puts those that received last in front
        p = p->next;
    return p;
}

void ack_batch_end(void)
{
    for (unsigned i = 0; i < waiting_count; i++) {
        struct tcp_pcb *pcb = waiting[i];
        if (is_active(pcb) && (pcb->flags & TF_ACK_DELAY)) {
            tcp_ack_now(pcb);
            tcp_output(pcb);
        }
    }
    waiting_count = 0;
}
