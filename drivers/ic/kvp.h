// SPDX-License-Identifier: BSD-2-Clause
// Inside the KVP service: the two kinds of pools. Keys and values are as on the wire, but in private
// memory, and checked: a key is terminated and not empty, sizes lie inside their fields.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/ic/ic_proto.h"

// kvp_pool.c: what the host has written, in the order in which it came. Bounded: the host cannot take
// more memory than KVP_POOL_BYTES for all pools together.
#define KVP_POOL_BYTES (128u << 10)

// Adds the key, or replaces its value. False: there is no room, nothing is changed.
bool kvp_pool_set(unsigned pool, const struct kvp_value *v);
bool kvp_pool_get(unsigned pool, struct kvp_value *v); // by v's key
bool kvp_pool_at(unsigned pool, uint32_t index, struct kvp_value *v);
bool kvp_pool_delete(unsigned pool, const uint8_t *key, uint32_t key_size);
void kvp_pool_sizes(unsigned *entries, unsigned *bytes); // of all pools

// kvp_auto.c: what we say about ourselves, in the same way.
bool kvp_auto_get(struct kvp_value *v);
bool kvp_auto_at(uint32_t index, struct kvp_value *v);
