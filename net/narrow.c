// SPDX-License-Identifier: BSD-2-Clause
// A connection's segments become shorter because its link or path takes less than before. What lwIP has in
// its queues is cut: a longer segment would never fit its congestion window after a time-out, and make the
// next tcp_write() assert. Called where the MTU changes and where routers complain; the connection's core.
#include "kernel/core.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/timeouts.h"
#include "net/sender.h"
#include "net/stack.h"

#define RETRY 20 // ms, while the NIC still reads from a segment, or there is no memory

#define LOST (1u << 16) // beside the MSS

static PERCORE uint8_t slot; // which of a pcb's extra arguments is what is wanted of it, 0: nothing
static PERCORE bool waiting; // for retry()

void stack_narrow_start(void)
{
    slot = tcp_ext_arg_alloc_id();
}

// lwIP cuts what is first in `unsent`, and leaves the marks for the end of the data on both parts.
static bool cut(struct tcp_pcb *pcb, struct tcp_seg *segment, uint16_t len)
{
    struct tcp_seg *unsent = pcb->unsent;
    pcb->unsent = segment;
    err_t error = segment->p->ref == 1 ? tcp_split_unsent_seg(pcb, len) : ERR_INPROGRESS;
    pcb->unsent = unsent;
    if (error == ERR_OK)
        TCPH_UNSET_FLAG(segment->tcphdr, TCP_PSH | TCP_FIN);
    return error == ERR_OK;
}

// *any: whether any was longer. False: some still are.
static bool cut_all(struct tcp_pcb *pcb, struct tcp_seg *segment, uint16_t len, bool *any)
{
    bool done = true;
    for (; segment; segment = segment->next) {
        if (segment->len <= len)
            continue;
        *any = true;
        done &= cut(pcb, segment, len);
    }
    return done;
}

static void retry(void *arg)
{
    (void)arg;
    waiting = false;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
        uintptr_t wanted = (uintptr_t)tcp_ext_arg_get(pcb, slot);
        if (wanted)
            stack_lower_mss(pcb, (uint16_t)wanted, wanted & LOST);
    }
}

static void try_later(struct tcp_pcb *pcb, uint16_t mss, bool lost)
{
    tcp_ext_arg_set(pcb, slot, (void *)(uintptr_t)(mss | (lost ? LOST : 0)));
    if (!waiting)
        sys_timeout(RETRY, retry, NULL);
    waiting = true;
}

void stack_lower_mss(struct tcp_pcb *pcb, uint16_t mss, bool lost)
{
    uintptr_t wanted = (uintptr_t)tcp_ext_arg_get(pcb, slot);
    if (wanted)
        mss = LWIP_MIN(mss, (uint16_t)wanted);
    lost |= (wanted & LOST) != 0;
    tcp_ext_arg_set(pcb, slot, NULL);
    if (pcb->mss <= mss)
        return;
    uint16_t len = mss - LWIP_TCP_OPT_LEN_TS_OUT;
    bool sent_longer = false, longer = false;
    bool done = cut_all(pcb, pcb->unacked, len, &sent_longer);
    done &= cut_all(pcb, pcb->unsent, len, &longer);
    lost &= sent_longer || (wanted & LOST);
    if (!done) {
        try_later(pcb, mss, lost);
        return;
    }
    pcb->mss = mss;
    sender_path_narrower(pcb);
    if (lost)
        tcp_rexmit_rto(pcb);
}
