// SPDX-License-Identifier: BSD-2-Clause
// Receive side scaling: which flow arrives on which core. The host hashes each frame's addresses and
// ports and looks the hash up in a table of channels; key and table are ours, so the same can be
// computed here. Any core may ask; only core 0's fibers change anything.
#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "kernel/log.h"
#include "kernel/random.h"

void rss_init(struct nic *nic)
{
    uint8_t *key = nic->rss.key;

    random_bytes(key, sizeof(nic->rss.key));
    toeplitz_prepare(&nic->rss.hash, key);
}

// What the host can do: 0 and the number of its queues, with which hashes in nic->rss.types; or a
// negative errno.
int rss_query(struct nic *nic, unsigned *queues)
{
    struct ndis_rss_capabilities c = {.header = {.type = NDIS_OBJECT_RSS_CAPABILITIES,
                                                 .revision = 2,
                                                 .size = NDIS_RSS_CAPABILITIES_BYTES}};
    uint32_t length;
    int r = rndis_query(nic, OID_RSS_CAPABILITIES, &c, NDIS_RSS_CAPABILITIES_BYTES, &c, sizeof(c),
                        &length);

    if (r)
        return r;
    *queues = rndis_rss_check(&c, length, &nic->rss.types);
    return 0;
}

static int set_parameters(struct nic *nic, uint16_t flags, uint32_t types)
{
    struct {
        struct ndis_rss_parameters head;
        uint32_t table[NIC_TABLE_SIZE];
        uint8_t key[TOEPLITZ_KEY];
    } p = {
        .head = {
            .header = {.type = NDIS_OBJECT_RSS_PARAMETERS, .revision = 2, .size = sizeof(p.head)},
            .flags = flags,
            .hash = types | RSS_HASH_TOEPLITZ,
            .table_bytes = sizeof(p.table),
            .table_offset = offsetof(typeof(p), table),
            .key_bytes = sizeof(p.key),
            .key_offset = offsetof(typeof(p), key),
        }};

    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++)
        p.table[i] = nic->rss.core_of[i]; // channel i is core i's
    memcpy(p.key, nic->rss.key, sizeof(p.key));
    return rndis_set(nic, OID_RSS_PARAMETERS, &p, sizeof(p));
}

// As Linux does it, which every host knows: off, then on with everything.
static int set_all(struct nic *nic)
{
    int r = set_parameters(nic, NDIS_RSS_DISABLE, nic->rss.types);

    if (r == 0)
        r = set_parameters(nic, 0, nic->rss.types);
    return r;
}

// The table that the host would like best: that by which it wants to be sent to, if it has said so;
// flows then leave by the channel they come by. Else all channels in turn.
static void wished_table(const struct nic *nic, uint8_t core_of[NIC_TABLE_SIZE])
{
    // With more channels than the wish has entries some would get nothing.
    bool wished = nic->rss.wished && nic->queue_count <= NVSP_SEND_TABLE_SIZE;

    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++) {
        unsigned channel = wished ? nic->rss.wish[i % NVSP_SEND_TABLE_SIZE] : i;
        core_of[i] = (uint8_t)(channel % nic->queue_count);
    }
}

// All channels are open: spreads what arrives over them. 0, or a negative errno.
int rss_start(struct nic *nic)
{
    const uint32_t udp = RSS_HASH_UDP4 | RSS_HASH_UDP6;

    wished_table(nic, nic->rss.core_of);
    int r = set_all(nic);
    if (r == -EOPNOTSUPP && (nic->rss.types & udp)) {
        nic->rss.types &= ~udp;
        r = set_all(nic);
    }
    if (r != -EOPNOTSUPP)
        return r;
    log_warn("%s: host refuses to spread what arrives", nic->info.name);
    nic->rss.types = 0;
    memset(nic->rss.core_of, 0, sizeof(nic->rss.core_of));
    return 0;
}

// The host wants to be sent to in another way.
void rss_balance(struct nic *nic)
{
    uint8_t core_of[NIC_TABLE_SIZE];

    wished_table(nic, core_of);
    if (nic_client->balance && nic->queue_count > 1)
        nic_client->balance(nic, core_of);
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

    if (!(nic->rss.types & (flow->ip6 ? RSS_HASH_IP6 : RSS_HASH_IP4)))
        return 0;
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
    if (hash == 0)
        return 0;
    return __atomic_load_n(&nic->rss.core_of[hash % NIC_TABLE_SIZE], __ATOMIC_RELAXED);
}

int nic_set_table(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE])
{
    uint8_t old[NIC_TABLE_SIZE];

    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++) {
        if (core_of[i] >= nic->queue_count)
            return -EINVAL;
    }
    if (!nic->queue[0]->up || nic->control.closing)
        return -ENODEV;
    if (nic->rss.types == 0)
        return -EOPNOTSUPP;
    memcpy(old, nic->rss.core_of, sizeof(old));
    for (unsigned i = 0; i < NIC_TABLE_SIZE; i++)
        __atomic_store_n(&nic->rss.core_of[i], core_of[i], __ATOMIC_RELAXED);
    nic->control.askers++; // the NIC does not go before this is back
    int r = set_all(nic);
    nic->control.askers--;
    for (unsigned i = 0; r && i < NIC_TABLE_SIZE; i++)
        __atomic_store_n(&nic->rss.core_of[i], old[i], __ATOMIC_RELAXED);
    return r;
}
