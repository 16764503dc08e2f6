/*
 * The parts of the synthetic NIC and what they share: hv-net.c (device and
 * channel worker), hv-net-nvsp.c (negotiation), hv-net-rx.c, hv-net-sections.c
 * and hv-net-tx.c (the packet paths), hv-net-rndis.c (control messages and OIDs),
 * hv-net-offload.c (which offloads are on), hv-net-rss.c (receive side
 * scaling), hv-net-gso.c (large frames), hv-net-csum.c (checksums in software),
 * hv-net-wire.c (delay, loss, ...) and hv-net-admin.c (speed, pause, ...).
 *
 * Everything runs in the main loop's thread; frames are moved without the BQL,
 * all else under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_NET_H
#define HW_HYPERV_HV_NET_H

#include "hw/hyperv/vmbus.h"
#include "hv-net-proto.h"
#include "hv-net-toeplitz.h"
#include "hv-net-wire.h"
#include "net/net.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_net.h"

#define TYPE_HV_NET "hv-net"
OBJECT_DECLARE_SIMPLE_TYPE(HvNet, HV_NET)

#define HV_NET_SEND_SECTION         6144u
/* A receive section: header room, the frame, and what Windows hosts add. */
#define HV_NET_RX_DATA_OFFSET       256u
#define HV_NET_RX_TAIL              36u
#define HV_NET_CONTROL_SECTIONS     16u
#define HV_NET_MTU_DEFAULT          1514u
#define HV_NET_MTU_MAX              9216u
#define HV_NET_MAX_MESSAGES         8u
#define HV_NET_CONTROL_QUEUE_BYTES  (100u * KiB)
#define HV_NET_CONTROL_MESSAGE_MAX  (16u * KiB)
#define HV_NET_TX_QUEUE             1024u
#define HV_NET_TX_IOV               192
/* What virtual switches offer as the largest LSO frame, and the smallest. */
#define HV_NET_LSO_MAX              0xf53cu
#define HV_NET_LSO_SEGMENTS         2u
#define HV_NET_FRAME_MAX            (64u * KiB + 64)
/* As many ranges as a transfer-page packet may have with RSC, and without. */
#define HV_NET_RANGES_MAX           562u
#define HV_NET_BATCH_RANGES         375u
#define HV_NET_MULTICAST_MAX        32u
#define HV_NET_QUEUES_MAX           64u
#define HV_NET_RSS_TABLE            128u
#define HV_NET_RSS_KEY_BYTES        40u
#define HV_NET_SEND_TABLE           16u
#define HV_NET_NO_SECTION           UINT32_MAX
/* Whoever is not the worker leaves it this much of the ring for completions. */
#define HV_NET_RING_RESERVE         256u

/* RNDIS session: NONE -> INITIALIZED -> HALTED, ended by closing. */
typedef enum HvNetRndisState {
    HV_NET_RNDIS_NONE,
    HV_NET_RNDIS_INITIALIZED,
    HV_NET_RNDIS_HALTED,
} HvNetRndisState;

#define HV_NET_CSUM_TX  1u
#define HV_NET_CSUM_RX  2u

/* Offloads in force; the checksums are HV_NET_CSUM_* bits. */
typedef struct HvNetOffload {
    uint8_t ipv4_header;
    uint8_t tcp_v4;
    uint8_t udp_v4;
    uint8_t tcp_v6;
    uint8_t udp_v6;
    bool lso_v4;
    bool lso_v6;
    bool rsc_v4;
    bool rsc_v6;
} HvNetOffload;

/* A control message on its way to the guest. */
typedef struct HvNetReply {
    QSIMPLEQ_ENTRY(HvNetReply) link;
    uint32_t bytes;
    uint8_t data[];
} HvNetReply;

/* A packet the guest sent while the backend was busy. */
typedef struct HvNetTxPending {
    QSIMPLEQ_ENTRY(HvNetTxPending) link;
    VMBusPacket packet;
    uint8_t data[];
} HvNetTxPending;

/* Receive side scaling as the guest has set it. */
typedef struct HvNetRss {
    bool enabled;
    bool key_set;
    uint8_t key[HV_NET_RSS_KEY_BYTES];
    uint32_t hash;              /* NDIS_HASH_* */
    uint32_t entries;
    uint8_t table[HV_NET_RSS_TABLE];    /* channel indices */
} HvNetRss;

/* What belongs to one queue of the backend. */
typedef struct HvNetBackend {
    bool tx_blocked;            /* it has not taken the last frame */
    bool rx_stalled;            /* we said "later" */
    uint16_t rx_stalled_on;     /* because of this channel */

    uint64_t tx_frames;
    uint64_t rx_frames;
} HvNetBackend;

/* What belongs to one channel. */
typedef struct HvNetQueue {
    uint32_t free_section;      /* head of the list, HV_NET_NO_SECTION */
    uint32_t free_count;
    uint32_t batch_first;       /* sections to be announced together */
    uint32_t batch_last;
    uint32_t batch_count;
    uint32_t outstanding;       /* sections the guest has, of any owner */
    QSIMPLEQ_HEAD(, HvNetTxPending) tx_pending;
    uint32_t tx_pending_count;

    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t rx_stalls;
    uint64_t rx_batches;
    uint32_t sections_peak;
} HvNetQueue;

struct HvNet {
    VMBusDevice parent_obj;

    NICState *nic;
    NICConf conf;
    uint32_t max_nvsp;
    uint32_t max_mtu;           /* as the guest counts it, with L2 header */
    uint32_t link_speed;        /* Mbit/s */
    uint32_t queues;            /* channels, with the primary */
    bool csum;                  /* without it none of the next four */
    bool csum_tx4;
    bool csum_tx6;
    bool csum_rx4;
    bool csum_rx6;
    bool lso;                   /* without it none of the next two */
    bool lso4;
    bool lso6;
    bool rsc;
    bool filter;                /* honour the guest's packet filter */
    uint32_t batch_ranges;      /* sections announced together, but for RSC */
    bool rss_udp;               /* offer hashes over UDP ports */
    bool old_send_table;        /* with a wrong offset, up to NVSP 6 */
    bool paused;                /* neither channels nor backend are read */
    char *stats_name;

    /*
     * The session with the guest: all zero while the primary channel is
     * closed.
     */
    struct {
        uint32_t nvsp;          /* version agreed on, 0 before */
        bool ndis_version_set;
        bool ndis_config_set;
        uint32_t ndis_minor;
        uint32_t mtu;           /* frame without FCS */
        uint64_t capabilities;

        VMBusGpadl *recv_gpadl;
        uint16_t recv_id;
        uint32_t section_bytes;
        uint32_t section_count;
        unsigned long *section_busy;
        unsigned long *section_announced;   /* first of a packet */
        uint8_t *section_channel;   /* that a busy section was given to */
        uint32_t *section_next; /* in the free list, or in its packet */
        uint32_t free_control[HV_NET_CONTROL_SECTIONS];     /* a stack */
        uint32_t free_control_count;
        uint32_t outstanding;

        VMBusGpadl *send_gpadl;
        uint16_t send_id;

        HvNetRndisState rndis;
        uint32_t packet_filter;
        MACAddr multicast[HV_NET_MULTICAST_MAX];
        uint32_t multicast_count;
        HvNetOffload offload;
        HvNetRss rss;
        bool subchannels_requested;
        uint32_t subchannels;   /* granted */
        bool send_table_due;    /* as soon as all of them are open */
        uint8_t send_table[HV_NET_SEND_TABLE];  /* channels */
        MACAddr mac;            /* as the guest sees it now */
        bool told_link_down;
        int64_t told_link_ms;   /* when, 0 never */
    } session;

    QSIMPLEQ_HEAD(, HvNetReply) replies;
    uint32_t replies_bytes;
    HvNetQueue *queue;          /* one for each channel */
    HvNetBackend *backend;      /* channel i sends on i % backends */
    uint32_t backends;
    QEMUTimer *link_timer;
    QEMUBH *rx_flush;
    bool rx_flush_due;
    bool rx_burst;              /* its end is when the guest is told */
    uint8_t *scratch;           /* HV_NET_FRAME_MAX bytes */
    bool vnet;                  /* frames of the backend have a vnet header */
    HvNetWire wire;             /* between the backend and us */

    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t tx_errors;
    uint64_t tx_csum;
    uint64_t tx_large;          /* LSO frames */
    uint64_t tx_large_segments; /* that these become */
    uint32_t tx_large_peak;     /* bytes of the largest */
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t rx_dropped;
    uint64_t rx_filtered;
    uint64_t rx_coalesced;      /* frames */
    uint64_t rx_coalesced_segments;
    uint32_t rx_coalesced_peak; /* bytes of the largest */
    uint64_t rx_cut;            /* large frames for a guest without RSC */
    uint64_t rx_stalls_ring;    /* waited for the guest to read its ring */
    uint64_t rx_stalls_section; /* or to give back receive sections */
    uint32_t rx_sections_peak;
};

static inline VMBusChannel *hv_net_primary(HvNet *s)
{
    return &s->parent_obj.channels[0];
}

static inline VMBusChannel *hv_net_channel(HvNet *s, uint32_t index)
{
    return &s->parent_obj.channels[index];
}

static inline HvNetBackend *hv_net_backend_of(HvNet *s,
                                              const VMBusChannel *chan)
{
    return &s->backend[chan->index % s->backends];
}

static inline HvNetQueue *hv_net_queue_of(HvNet *s, const VMBusChannel *chan)
{
    return &s->queue[chan->index];
}

/* hv-net.c */

bool hv_net_link_down(HvNet *s);
/* Room for one completion?  If not, the worker is called when there is. */
bool hv_net_completion_room(VMBusChannel *chan);
/* Complete a packet of the guest; the room has been checked. */
void hv_net_complete(VMBusChannel *chan, uint64_t transaction_id,
                     const NvspMessage *msg);

/* hv-net-nvsp.c */

/* A packet that is neither a completion nor an RNDIS packet. */
void hv_net_nvsp_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt);
/* RNDIS and subchannels need versions, configuration and receive buffer. */
bool hv_net_session_complete(HvNet *s);
/* Tell the guest which channel to send on, if it is time for that. */
void hv_net_send_table(HvNet *s);

/* hv-net-sections.c */

/* The receive buffer has come: all its sections are free. */
void hv_net_sections_create(HvNet *s);
/* Give each channel its share of what is free. */
void hv_net_sections_share_out(HvNet *s);
/* @chan is gone, and with it the completions it would have brought. */
void hv_net_sections_reclaim(HvNet *s, VMBusChannel *chan);
/* The guest gets its buffers back; frames wait from here on. */
void hv_net_buffers_release(HvNet *s);
/* Could @chan ever have room for so many sections in one packet? */
bool hv_net_sections_suffice(HvNet *s, VMBusChannel *chan, uint32_t count);
/* Room for so many more?  If not, the worker of @chan is called later. */
bool hv_net_batch_room(HvNet *s, VMBusChannel *chan, uint32_t count);
/* Take a section into @chan's batch; the room has been checked. */
uint32_t hv_net_batch_add(HvNet *s, VMBusChannel *chan);
/* Tell the guest of the batch; false: later, the worker is called then. */
bool hv_net_batch_flush(HvNet *s, VMBusChannel *chan);
/* Send queued control messages as far as there are sections and room. */
void hv_net_replies_send(HvNet *s);
/* The guest is done with what a transfer-page packet gave it. */
void hv_net_rx_completion(HvNet *s, VMBusChannel *chan,
                          const VMBusPacket *pkt);

/* hv-net-rx.c */

/* Frames of all backends may wait, for the primary channel. */
void hv_net_rx_stall_all(HvNet *s);
/* Frames that waited for @chan have to wait for the primary instead. */
void hv_net_rx_stall_elsewhere(HvNet *s, const VMBusChannel *chan);
/* Ask for the frames that wait, if it is @chan that they waited for. */
void hv_net_rx_resume(HvNet *s, const VMBusChannel *chan);
bool hv_net_can_receive(NetClientState *nc);
/* A frame that has passed the wire; 0: later, hv_net_wire_resume says when. */
ssize_t hv_net_receive_iov(NetClientState *nc, const struct iovec *iov,
                           int count);
/* Announce the frames that have come; also a bottom half. */
void hv_net_rx_flush(void *opaque);
/* The backend begins or ends to hand over all frames that it has. */
void hv_net_receive_burst(NetClientState *nc, bool begins);

/* hv-net-tx.c */

/* An RNDIS packet: done at once, or as soon as the backend has time. */
void hv_net_tx_packet(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt);
/* Go on with the packets that wait. */
void hv_net_tx_run(HvNet *s, VMBusChannel *chan);
void hv_net_tx_clear(HvNetQueue *q);

/* hv-net-rndis.c */

/*
 * Handle a control message that has been copied from the guest.  Returns
 * false if it is malformed: then its packet is completed as failed.  May fail
 * the channel.
 */
bool hv_net_control(HvNet *s, const uint8_t *msg, uint32_t bytes);
void hv_net_replies_clear(HvNet *s);
/* Queue a status indication. */
void hv_net_indicate(HvNet *s, uint32_t status, const void *info,
                     uint32_t bytes);
/* The link may have changed: tell the guest, at once or when it is time. */
void hv_net_link_update(HvNet *s);

/* hv-net-admin.c */

void hv_net_admin_class_init(ObjectClass *klass);
/* The speed of the link in units of 100 bit/s. */
uint32_t hv_net_link_speed_rndis(const HvNet *s);

/* hv-net-offload.c */

void hv_net_offload_defaults(HvNet *s);
/* What is offered, as NDIS has it; returns its size. */
uint32_t hv_net_offload_capabilities(HvNet *s, const uint8_t *info,
                                     uint32_t info_bytes, void *out);
/* What is on; returns its size. */
uint32_t hv_net_offload_current(HvNet *s, void *out);
/* The guest sets its parameters; returns an RNDIS status. */
uint32_t hv_net_offload_set(HvNet *s, const uint8_t *info, uint32_t bytes);

/* hv-net-gso.c */

/* Where things are in a large frame; offsets count from the vnet header. */
typedef struct HvNetGso {
    uint32_t bytes;
    uint32_t skip;              /* of the vnet header, 0 if it is elsewhere */
    /* the rest is filled in by hv_net_gso_layout */
    uint32_t pieces;
    uint32_t ip;
    uint32_t tcp;
    uint32_t payload;
    uint32_t mss;
    bool ipv6;
} HvNetGso;

/*
 * Fill in @at from the headers at @data (@left bytes, with the vnet header if
 * @at->skip says so).  False if this is no large frame, or a malformed one.
 */
bool hv_net_gso_layout(HvNetGso *at, const struct virtio_net_hdr *vnet,
                       const uint8_t *data, uint32_t left);
/*
 * @data has a copy of the headers of @at; make them those of a frame of
 * @bytes, pieces @first to @first + @count of it.
 */
void hv_net_gso_cut(const HvNetGso *at, struct virtio_net_hdr *vnet,
                    uint8_t *data, uint32_t bytes, uint32_t first,
                    uint32_t count);
/*
 * The rule that an LSO frame of @bytes breaks, or NULL.  @head: its first
 * @head_bytes, @lso: the per-packet information.
 */
const char *hv_net_lso_check(const uint8_t *head, uint32_t head_bytes,
                             uint32_t bytes, uint32_t lso, uint32_t mtu);
/* Fill in what the guest left open in @head, which has been checked. */
void hv_net_lso_fill(uint8_t *head, uint32_t bytes, uint32_t lso,
                     struct virtio_net_hdr *vnet);

/* hv-net-rss.c */

/* The capabilities as NDIS has them; returns their size. */
uint32_t hv_net_rss_capabilities(HvNet *s, void *out);
/* The guest sets its parameters; returns an RNDIS status. */
uint32_t hv_net_rss_set(HvNet *s, const uint8_t *info, uint32_t bytes);
/* The hash of an untagged frame; false if there is none to be had. */
bool hv_net_rss_hash(const HvNetRss *rss, const uint8_t *frame, uint32_t bytes,
                     uint32_t *hash);

/* hv-net-csum.c */

/* Add the Internet checksum of @bytes at @buf, which starts at an even
 * offset of the data summed up. */
uint64_t hv_net_csum_add(uint64_t sum, const void *buf, size_t bytes);
/* The same over @bytes at offset @off of @iov. */
uint64_t hv_net_csum_add_iov(uint64_t sum, const struct iovec *iov, int count,
                             size_t off, size_t bytes);
/* What to store in the packet, as it is in memory. */
uint16_t hv_net_csum_finish(uint64_t sum);
/*
 * Check the checksums of a received frame, of those kinds that are enabled.
 * Returns RX_CSUM_* bits.  @trusted: TCP and UDP are known to be right.
 */
uint32_t hv_net_csum_verify(const HvNetOffload *offload, const uint8_t *frame,
                            uint32_t bytes, bool trusted);

#endif
