// SPDX-License-Identifier: BSD-2-Clause
// See steer.h. Every core acts for itself when it gets a connection: it knows the loads of all, gives
// away what it can spare, and asks core 0 to tell the host. Core 0 does not keep book of the moves: it
// looks who owns each bucket, and may look late.
#include "net/steer.h"

#include <errno.h>
#include <string.h>

#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/log.h"
#include "kernel/message.h"
#include "kernel/time.h"
#include "lwip/timeouts.h"
#include "net/balance.h"
#include "net/interface.h"

// The host's table is set so long after the first change, so that one message takes many; then not
// again before the pause is over, which grows while there is no end of changes.
#define GATHER (5 * TIME_MS)
#define PAUSE_FIRST (20 * TIME_MS)
#define PAUSE_LAST (1 * TIME_S)
#define RETRY 10 // ms, when there was no room for a message

// What each core lets the others know; written when a connection opens or closes.
static struct published {
    uint32_t connections;
    uint32_t free[NIC_MAX]; // buckets, of each NIC
} __attribute__((aligned(64))) published[MAX_CORES];

// The cores that the host wants to use for each NIC, a bit for each. Core 0 writes.
static uint64_t wished[NIC_MAX];

static struct event moved; // core 0's
static unsigned tables_set, tables_refused;

static bool is_free(const struct flows *flows, unsigned bucket)
{
    return flows->owner[bucket] == core_id() && !flows->live[bucket];
}

void steer_changed(struct interface *interface)
{
    uint32_t free = 0;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        free += is_free(&interface->flows, b);
    published[core_id()].free[interface->index] = free;
}

// The cores among which buckets may go round.
static uint64_t usable(const struct interface *interface)
{
    uint64_t cores = share_cores(interface);
    uint64_t good = cores & __atomic_load_n(&wished[interface->index], __ATOMIC_RELAXED);
    return good ? good : cores;
}

static void find_free(const struct interface *interface, uint64_t mine[2])
{
    mine[0] = mine[1] = 0;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        if (is_free(&interface->flows, b))
            mine[b / 64] |= 1ull << b % 64;
}

static void give(struct interface *interface, const uint64_t gifts[MAX_CORES][2])
{
    for (unsigned core = 0; core < core_count(); core++)
        if (gifts[core][0] | gifts[core][1])
            flow_give(interface, core, gifts[core]); // if there is no room for that, another time
}

// This core is not to be used: all that it can spare goes to the others in turn.
static void shed(struct interface *interface, uint64_t cores)
{
    uint64_t mine[2], gifts[MAX_CORES][2], left = cores;
    memset(gifts, 0, core_count() * sizeof(gifts[0]));
    find_free(interface, mine);
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++) {
        if (!(mine[b / 64] >> b % 64 & 1))
            continue;
        gifts[__builtin_ctzll(left)][b / 64] |= 1ull << b % 64;
        left &= left - 1;
        left = left ? left : cores;
    }
    give(interface, gifts);
}

// If the host does not want this core to be used, what is free goes to the others.
static void follow_wish(struct interface *interface)
{
    if (!(usable(interface) >> core_id() & 1))
        shed(interface, usable(interface));
}

void steer_closed(struct interface *interface)
{
    published[core_id()].connections--;
    if (!interface)
        return;
    steer_changed(interface);
    follow_wish(interface);
}

static void some_moved(const void *data)
{
    (void)data;
    event_set(&moved);
}

static void tell_core0(void *arg)
{
    if (!message_post(0, some_moved, NULL, 0))
        sys_timeout(RETRY, tell_core0, arg);
}

void steer_taken(struct interface *interface)
{
    steer_changed(interface);
    sys_untimeout(tell_core0, NULL);
    tell_core0(NULL);
}

void steer_opened(struct interface *interface)
{
    published[core_id()].connections++;
    steer_changed(interface);
    uint64_t cores = usable(interface), mine[2], gifts[MAX_CORES][2];
    struct balance_load loads[MAX_CORES];
    if (!(cores >> core_id() & 1)) {
        shed(interface, cores);
        return;
    }
    for (unsigned core = 0; core < core_count(); core++)
        loads[core] = (struct balance_load){published[core].connections,
                                            published[core].free[interface->index]};
    find_free(interface, mine);
    memset(gifts, 0, core_count() * sizeof(gifts[0]));
    if (balance(loads, cores, core_id(), mine, gifts))
        give(interface, gifts);
}

// ---- The host's wish ----

static void take_wish(const void *data)
{
    struct interface *interface = interface_of(*(const struct nic *const *)data);
    if (interface)
        follow_wish(interface);
}

void steer_wish(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE])
{
    const struct interface *interface = interface_of(nic);
    uint64_t cores = 0;
    if (!interface)
        return;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        cores |= 1ull << core_of[b];
    __atomic_store_n(&wished[interface->index], cores, __ATOMIC_RELAXED);
    // A core that cannot be told sees it at its next connection.
    for (uint64_t left = share_cores(interface); left; left &= left - 1)
        message_post_pointer((unsigned)__builtin_ctzll(left), take_wish, nic);
}

void steer_join(struct interface *interface)
{
    if (core_id() == 0) {
        uint64_t cores = 0;
        for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
            cores |= 1ull << interface->flows.owner[b];
        __atomic_store_n(&wished[interface->index], cores, __ATOMIC_RELAXED);
    }
    steer_changed(interface);
}

// ---- The host's table ----

// Who has which bucket; what is changing hands right now stays as the host has it. False: nothing is
// different from the host's table.
static bool find_owners(const struct interface *interface, uint8_t table[NIC_TABLE_SIZE])
{
    bool different = false;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        table[b] = (uint8_t)nic_flow_core(interface->nic, NIC_TABLE_SIZE + b);
    for (uint64_t cores = share_cores(interface); cores; cores &= cores - 1) {
        unsigned core = (unsigned)__builtin_ctzll(cores);
        const struct interface *theirs = interface_peek(core, interface->index);
        for (unsigned b = 0; theirs && b < NIC_TABLE_SIZE; b++) {
            if (theirs->flows.owner[b] != core || table[b] == core)
                continue;
            table[b] = (uint8_t)core;
            different = true;
        }
    }
    return different;
}

// True if a table was set. The interface may be gone afterwards.
static bool update_host(unsigned index)
{
    const struct interface *interface = interface_peek(0, index);
    uint8_t table[NIC_TABLE_SIZE];
    if (!interface || !find_owners(interface, table))
        return false;
    int error = nic_set_table(interface->nic, table);
    if (error == 0)
        tables_set++;
    else if (error == -EBUSY || error == -ETIMEDOUT)
        event_set(&moved); // once more, after a while
    else if (error != -ENODEV && tables_refused++ == 0)
        log_warn("net: nic%u: the host does not take a table (%d); its flows are handed on", index,
                 error);
    return error == 0;
}

static void steer_fiber(void *arg)
{
    uint64_t pause = PAUSE_FIRST;
    (void)arg;
    for (;;) {
        if (event_wait(&moved, PAUSE_LAST) == -ETIMEDOUT) {
            pause = PAUSE_FIRST;
            event_wait(&moved, WAIT_FOREVER);
        }
        fiber_sleep(GATHER);
        bool any = false;
        for (unsigned index = 0; index < NIC_MAX; index++)
            any |= update_host(index);
        if (any) {
            fiber_sleep(pause);
            pause = pause * 2 < PAUSE_LAST ? pause * 2 : PAUSE_LAST;
        }
    }
}

static void write_stats(void)
{
    stats_print("{\"tables_set\":%u,\"tables_refused\":%u}", tables_set, tables_refused);
}

static struct stats_source steer_stats = {.name = "steer", .write = write_stats};

void steer_start(void)
{
    stats_add(&steer_stats);
    if (fiber_spawn("steer", steer_fiber, NULL))
        log_error("net: no memory to spread connections over the cores");
}
