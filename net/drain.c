// SPDX-License-Identifier: BSD-2-Clause
// The end of all connections, for kernel/power.c: no new ones, then those that are there may finish,
// then they are reset. From a fiber of core 0, which has each core do its part.
#include "kernel/core.h"
#include "kernel/message.h"
#include "kernel/power.h"
#include "lwip/priv/tcp_priv.h"
#include "net/stack.h"

static void stop_listening(void *arg)
{
    (void)arg;
    while (tcp_listen_pcbs.pcbs)
        tcp_close(tcp_listen_pcbs.pcbs);
}

static void count_connections(void *arg)
{
    for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        ++*(unsigned *)arg;
}

static void reset_connections(void *arg)
{
    (void)arg;
    while (tcp_active_pcbs)
        tcp_abort(tcp_active_pcbs);
}

static void on_every_core(void (*fn)(void *arg), void *arg)
{
    for (unsigned core = 0; core < core_count(); core++)
        core_call(core, fn, arg);
}

static void begin(void)
{
    on_every_core(stop_listening, NULL);
}

static unsigned left(void)
{
    unsigned count = 0;
    on_every_core(count_connections, &count);
    return count;
}

static void abandon(void)
{
    on_every_core(reset_connections, NULL);
}

void drain_start(void)
{
    static const struct power_work work = {.begin = begin, .left = left, .abandon = abandon};
    power_register(&work);
}
