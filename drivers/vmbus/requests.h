// SPDX-License-Identifier: BSD-2-Clause
// Transaction ids of packets that the host will complete. An id is 1..capacity, never a pointer: what
// comes back from the host is looked up, and an id that is not in use is refused. One user, the core
// of the channel; no locks.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REQUESTS_MAX 1024u

struct requests {
    uint32_t capacity;
    uint32_t free_count;
    uint64_t in_use[REQUESTS_MAX / 64];
    uint16_t free[REQUESTS_MAX]; // stack of free ids
};

// All ids 1..capacity free. capacity <= REQUESTS_MAX.
void requests_init(struct requests *table, uint32_t capacity);

// An id, or 0 if all are in use.
uint32_t requests_take(struct requests *table);

// Gives an id back that the host named. False (and nothing changes) if it is not in use.
bool requests_give(struct requests *table, uint64_t id);

// True if the id is in use.
bool requests_used(const struct requests *table, uint64_t id);
