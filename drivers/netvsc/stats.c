// SPDX-License-Identifier: BSD-2-Clause
// Counters of the NICs for the console's `stats`: sums over a NIC's queues. Runs on core 0 and reads
// what other cores count meanwhile; each counter is one aligned word.
#include "drivers/netvsc/nic.h"

#define SUM(nic, field)                                                                            \
    __extension__({                                                                                \
        unsigned long long sum_ = 0;                                                               \
        for (unsigned i_ = 0; i_ < (nic)->queue_count; i_++)                                       \
            sum_ += (nic)->queue[i_]->field;                                                       \
        sum_;                                                                                      \
    })

static void write_rx_stats(const struct nic *nic)
{
    stats_print("\"rx_packets\":%llu,\"rx_bytes\":%llu,\"rx_coalesced\":%llu,\"rx_batches\":%llu,"
                "\"completions\":%llu,"
                "\"completions_blocked\":%llu,\"rx_csum_ok\":%llu,\"rx_csum_bad\":%llu,",
                SUM(nic, rx.packets), SUM(nic, rx.bytes), SUM(nic, rx.coalesced),
                SUM(nic, rx.batches), SUM(nic, rx.completions), SUM(nic, rx.completions_blocked),
                SUM(nic, rx.csum_ok), SUM(nic, rx.csum_bad));
    stats_print("\"rx_sections\":%u,\"rx_held\":%llu,\"rx_held_peak\":%llu,",
                nic->receive.section_count, SUM(nic, rx.held), SUM(nic, rx.held_peak));
    stats_print("\"rx_pinned\":%llu,\"rx_pinned_peak\":%llu,", SUM(nic, rx.pinned),
                SUM(nic, rx.pinned_peak));
    stats_print("\"rx_dropped\":{\"not_up\":%llu,\"length\":%llu,\"data\":%llu,\"ppi\":%llu,"
                "\"range\":%llu,\"packet\":%llu,\"rsc\":%llu,\"no_group\":%llu,\"vlan\":%llu},",
                SUM(nic, rx.dropped[RNDIS_OK]), SUM(nic, rx.dropped[RNDIS_BAD_LENGTH]),
                SUM(nic, rx.dropped[RNDIS_BAD_DATA]), SUM(nic, rx.dropped[RNDIS_BAD_PPI]),
                SUM(nic, rx.bad_ranges), SUM(nic, rx.bad_packets),
                SUM(nic, rx.dropped[RNDIS_BAD_RSC]), SUM(nic, rx.no_group), SUM(nic, rx.vlan));
}

static void write_tx_stats(const struct nic *nic)
{
    stats_print("\"tx_packets\":%llu,\"tx_bytes\":%llu,\"tx_copied\":%llu,\"tx_held\":%llu,"
                "\"tx_large\":%llu,"
                "\"tx_ring_packets\":%llu,\"tx_full\":%llu,\"tx_failed\":%llu,",
                SUM(nic, tx.packets), SUM(nic, tx.bytes), SUM(nic, tx.copied), SUM(nic, tx.held),
                SUM(nic, tx.large), SUM(nic, tx.ring_packets), SUM(nic, tx.full),
                SUM(nic, tx.failed));
    stats_print("\"tx_outstanding\":%llu,\"bad_completions\":%llu,",
                SUM(nic, tx.requests.capacity) - SUM(nic, tx.requests.free_count),
                SUM(nic, tx.bad_completions));
}

// What each core carries.
static void write_channel_stats(const struct nic *nic)
{
    stats_print("\"channels\":[");
    for (unsigned i = 0; i < nic->queue_count; i++) {
        const struct nic_queue *q = nic->queue[i];
        stats_print("%s{\"rx_packets\":%llu,\"rx_bytes\":%llu,\"tx_packets\":%llu,"
                    "\"tx_bytes\":%llu,\"signals\":%llu,\"interrupts\":%llu}",
                    i ? "," : "", (unsigned long long)q->rx.packets,
                    (unsigned long long)q->rx.bytes, (unsigned long long)q->tx.packets,
                    (unsigned long long)q->tx.bytes, (unsigned long long)q->channel.signals,
                    (unsigned long long)q->channel.interrupts);
    }
    stats_print("],");
}

void nic_write_stats(const struct nic *nic)
{
    stats_print("\"%s\":{\"pages\":%u,", nic->info.name, nic_pages(nic));
    write_rx_stats(nic);
    write_tx_stats(nic);
    write_channel_stats(nic);
    stats_print(
        "\"signals\":%llu,\"interrupts\":%llu,\"control_unexpected\":%llu,"
        "\"keepalives\":%llu,\"indications\":%llu,\"send_tables\":%llu}",
        SUM(nic, channel.signals), SUM(nic, channel.interrupts),
        (unsigned long long)nic->control.unexpected, (unsigned long long)nic->control.keepalives,
        (unsigned long long)nic->control.indications, (unsigned long long)nic->control.tables);
}
