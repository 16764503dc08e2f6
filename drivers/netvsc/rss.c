// SPDX-License-Identifier: BSD-2-Clause
// Receive side scaling: which flow arrives on which core. The host hashes each frame's addresses and
// ports and looks the hash up in a table of channels; key and table are ours, so the same can be
// computed here. Any core may ask; only core 0's fibers change anything.
#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "kernel/random.h"

void rss_init(struct nic *nic)
{
    uint8_t *key = nic->rss.key;

    random_bytes(key, sizeof(nic->rss.key));
    toeplitz_prepare(&nic->rss.hash, key);
}

static bool hash_has_ports(const struct nic *nic, const struct nic_flow *flow)
{
    switch (flow->protocol) {
    case 6:
        return nic->rss.types & (flow->ip6 ? RSS_HASH_TCP6 : RSS_HASH_TCP4);
    case 17:
        return nic->rss.types & (flow->ip6 ? RSS_HASH_UDP6 : RSS_HASH_UDP4);
    default:
        return false;
    }
}

uint32_t nic_flow_hash(const struct nic *nic, const struct nic_flow *flow)
{
    unsigned bytes = flow->ip6 ? 16 : 4;
    uint8_t input[TOEPLITZ_INPUT];

    memcpy(input, flow->src, bytes);
    memcpy(input + bytes, flow->dst, bytes);
    bytes *= 2;
    if (hash_has_ports(nic, flow)) {
        memcpy(input + bytes, &flow->src_port, 2);
        memcpy(input + bytes + 2, &flow->dst_port, 2);
        bytes += 4;
    }
    return toeplitz(&nic->rss.hash, input, bytes);
}

unsigned nic_flow_core(const struct nic *nic, uint32_t hash)
{
    return __atomic_load_n(&nic->rss.core_of[hash % NIC_TABLE_SIZE], __ATOMIC_RELAXED);
}

int nic_set_table(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE])
{
    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++) {
        if (core_of[i] >= nic->queue_count)
            return -EINVAL;
    }
    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++)
        __atomic_store_n(&nic->rss.core_of[i], core_of[i], __ATOMIC_RELAXED);
    return 0;
}
