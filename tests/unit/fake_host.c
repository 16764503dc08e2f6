// SPDX-License-Identifier: BSD-2-Clause
// See fake_host.h. Written against the protocol, not against the drivers.
#include "fake_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/hyperv/hyperv.h"
#include "fake_kernel.h"
#include "kernel/core.h"

#define MESSAGES 64
#define GPADLS 16

struct fake_host host = {
    .max_version = VMBUS_VERSION_5_3,
    .max_nvsp = NVSP_VERSION_6_1,
    .dedicated = true,
    .mtu = 1500,
    .queues = 1,
    .offload = {
        .header = {.type = NDIS_OBJECT_OFFLOAD, .revision = 3, .size = sizeof(struct ndis_offload)},
        .ip4_tx = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS | NDIS_CSUM_UDP,
        .ip4_rx = NDIS_CSUM_TCP | NDIS_CSUM_UDP}};

static struct hv_message messages[MESSAGES];
static unsigned message_head, message_tail;
static uint64_t event_flags[HOST_CHANNELS][HV_EVENT_FLAG_WORDS]; // of each core
static bool interrupted[HOST_CHANNELS];

static struct shared { // a GPADL
    uint32_t handle, relid, pages, seen;
    uint64_t first;
} gpadls[GPADLS];

static struct channel {
    bool offered, rescinded, open;
    uint32_t gpadl;
    unsigned core;
    struct ring_in from_guest;
    struct ring_out to_guest;
} channels[HOST_CHANNELS], *channel = channels;

static uint32_t receive_gpadl, send_gpadl;

static struct channel *channel_of(uint32_t relid)
{
    struct channel *c = &channels[(relid - HOST_RELID) % HOST_CHANNELS];

    return relid - HOST_RELID < HOST_CHANNELS && c->offered ? c : NULL;
}

static unsigned index_of(const struct channel *c)
{
    return (unsigned)(c - channels);
}

void host_channel(unsigned index)
{
    channel = &channels[index];
}

// SynIC

bool synic_interrupted(void)
{
    bool was = interrupted[core_id()];

    interrupted[core_id()] = false;
    return was;
}

bool synic_take_message(struct hv_message *out)
{
    if (core_id() != 0 || message_head == message_tail)
        return false;
    *out = messages[message_head++ % MESSAGES];
    return true;
}

bool synic_take_message_of(unsigned core, struct hv_message *out)
{
    return core == 0 && synic_take_message(out);
}

bool synic_take_events(uint64_t flags[HV_EVENT_FLAG_WORDS], unsigned words)
{
    bool any = false;

    for (unsigned i = 0; i < words; i++) {
        flags[i] = event_flags[core_id()][i];
        any |= flags[i] != 0;
        event_flags[core_id()][i] = 0;
    }
    return any;
}

void host_message(const void *payload, uint8_t len)
{
    struct hv_message *m = &messages[message_tail++ % MESSAGES];

    *m = (struct hv_message){.type = VMBUS_SYNIC_MESSAGE, .size = len};
    memcpy(m->payload, payload, len);
    interrupted[0] = true;
}

void host_event(uint32_t relid)
{
    const struct channel *c = channel_of(relid);
    unsigned core = c ? c->core : 0;

    event_flags[core][relid / 64] |= 1ull << (relid % 64);
    interrupted[core] = true;
}

// Faults

void host_rescind(uint32_t relid)
{
    struct vmbus_relid m = {.header.type = VMBUS_RESCIND, .relid = relid};

    host_message(&m, sizeof(m));
    if (channel_of(relid))
        channel_of(relid)->rescinded = true;
}

bool host_offered(unsigned index)
{
    return channels[index].offered && !channels[index].rescinded;
}

void host_rescind_all(void)
{
    for (unsigned i = HOST_CHANNELS; i-- > 0;) {
        if (host_offered(i))
            host_rescind(HOST_RELID + i);
    }
}

static void rescind_now(void)
{
    unsigned i = host.rescind_index;

    if (i == 0)
        host_rescind_all();
    else if (host_offered(i))
        host_rescind(HOST_RELID + i);
}

// A message of the guest's is there, and has been answered.

static void message_begin(void)
{
    if (++host.guest_messages == host.rescind_at && host.rescind_first)
        rescind_now();
}

static void message_end(void)
{
    if (host.guest_messages == host.rescind_at && !host.rescind_first)
        rescind_now();
}

// The guest asks: what is to go wrong with the answer.
static enum fault question(const char *what)
{
    snprintf(host.question, sizeof(host.question), "%s", what);
    if (++host.questions != host.fault_at)
        return FAULT_NONE;
    if (host.fault == FAULT_RESCIND)
        host_rescind(HOST_RELID);
    return host.fault;
}

static bool no_answer(enum fault f)
{
    return f == FAULT_SILENT || f == FAULT_RESCIND;
}

static void answer(enum fault f, const void *payload, size_t len)
{
    if (!no_answer(f))
        host_message(payload, (uint8_t)(f == FAULT_SHORT ? 9 : len));
}

// Memory

static struct shared *shared_find(uint32_t handle)
{
    for (unsigned i = 0; i < GPADLS; i++) {
        if (handle && gpadls[i].handle == handle)
            return &gpadls[i];
    }
    return NULL;
}

static uint8_t *shared_memory(uint32_t handle)
{
    struct shared *s = shared_find(handle);

    return s ? (uint8_t *)(uintptr_t)(s->first << 12) : NULL;
}

uint8_t *host_receive_buffer(void)
{
    return shared_memory(receive_gpadl);
}

uint8_t *host_send_buffer(void)
{
    return shared_memory(send_gpadl);
}

struct ring_header *host_in_header(void)
{
    return channel->to_guest.header;
}

struct ring_header *host_out_header(void)
{
    return channel->from_guest.header;
}

// VMBus messages

static void gpadl_pfns(struct shared *s, const uint8_t *pfns, size_t len)
{
    for (; len >= 8; pfns += 8, len -= 8) {
        uint64_t pfn;
        memcpy(&pfn, pfns, 8);
        if (s->seen == 0)
            s->first = pfn;
        if (pfn != s->first + s->seen++)
            host.bad++;
    }
    if (s->seen < s->pages)
        return;
    enum fault f = question("GPADL");
    struct vmbus_result r = {.header.type = VMBUS_GPADL_CREATED,
                             .relid = s->relid,
                             .id = s->handle,
                             .status = f == FAULT_REFUSE ? 0x8000ffff : 0};
    if (f == FAULT_REFUSE) {
        s->handle = 0;
        host.gpadls_live--;
    }
    answer(f, &r, sizeof(r));
}

static void gpadl_header(const uint8_t *m, size_t len)
{
    struct vmbus_gpadl_header h;
    struct shared *s = gpadls;

    memcpy(&h, m, sizeof(h));
    while (s->handle)
        s++;
    if (h.gpadl == 0 || shared_find(h.gpadl) || h.range_count != 1 || h.offset != 0 ||
        !channel_of(h.relid))
        host.bad++;
    *s = (struct shared){.handle = h.gpadl, .relid = h.relid, .pages = h.bytes / 4096};
    host.gpadls_live++;
    gpadl_pfns(s, m + sizeof(h), len - sizeof(h));
}

static void gpadl_teardown(const uint8_t *m)
{
    struct vmbus_gpadl_teardown t;

    memcpy(&t, m, sizeof(t));
    struct shared *s = shared_find(t.gpadl);
    struct vmbus_gpadl_torndown r = {.header.type = VMBUS_GPADL_TORNDOWN, .gpadl = t.gpadl};
    const struct channel *c = s ? channel_of(s->relid) : NULL;
    if (!c || (c->open && c->gpadl == t.gpadl && !c->rescinded)) {
        host.bad++;
        return;
    }
    enum fault f = c->rescinded ? FAULT_NONE : question("teardown");
    if (f == FAULT_SILENT || f == FAULT_SHORT)
        return;
    s->handle = 0;
    host.gpadls_live--;
    host_message(&r, sizeof(r));
}

static void open_channel(const uint8_t *m)
{
    struct vmbus_open o;

    memcpy(&o, m, sizeof(o));
    struct shared *s = shared_find(o.gpadl);
    struct channel *c = channel_of(o.relid);
    if (c && c->rescinded)
        return;
    if (!s || !c || c->open || s->relid != o.relid || o.target_vp != 5 + index_of(c)) {
        host.bad++;
        return;
    }
    enum fault f = question("open");
    if (index_of(c) && index_of(c) == host.refuse_open)
        f = FAULT_REFUSE;
    struct vmbus_result r = {.header.type = VMBUS_OPEN_RESULT,
                             .relid = o.relid,
                             .id = o.open_id,
                             .status = f == FAULT_REFUSE ? 0xc0000001 : 0};
    if (f != FAULT_REFUSE && f != FAULT_RESCIND) {
        uint8_t *rings = (uint8_t *)(uintptr_t)(s->first << 12);
        uint8_t *down = rings + o.downstream_page * 4096;

        c->from_guest = (struct ring_in){
            .header = (void *)rings, .data = rings + 4096, .size = (o.downstream_page - 1) * 4096};
        c->to_guest = (struct ring_out){.header = (void *)down,
                                        .data = down + 4096,
                                        .size = (s->pages - o.downstream_page - 1) * 4096};
        c->open = true;
        c->gpadl = o.gpadl;
        c->core = index_of(c);
        host.opens++;
    }
    answer(f, &r, sizeof(r));
}

// The subchannels go with the primary.
static void close_primary(void)
{
    receive_gpadl = send_gpadl = 0;
    host.subchannels = 0;
    for (unsigned i = 1; i < HOST_CHANNELS; i++) {
        if (channels[i].open && !channels[i].rescinded)
            host.bad++;
        if (channels[i].offered && !channels[i].rescinded)
            host_rescind(HOST_RELID + i);
    }
}

static void close_channel(const uint8_t *m)
{
    struct vmbus_relid r;

    memcpy(&r, m, sizeof(r));
    struct channel *c = channel_of(r.relid);
    if (c && c->rescinded)
        return;
    host.closes++;
    if (!c || !c->open) {
        host.bad++;
        return;
    }
    c->open = false;
    if (c == channels)
        close_primary();
}

static uint16_t contact(uint32_t connection, const uint8_t *m)
{
    struct vmbus_initiate_contact c;

    memcpy(&c, m, sizeof(c));
    bool new_style = c.version >= VMBUS_VERSION_5_0;
    if (new_style && host.max_version < VMBUS_VERSION_5_0)
        return HV_STATUS_INVALID_CONNECTION_ID;
    if (connection != (new_style ? 4 : 1) || (new_style ? c.target != 2 : c.target & 4095) ||
        c.target_vp != 5 || !c.monitor_to_guest != !c.monitor_to_host)
        host.bad++;
    enum fault f = question("contact");
    struct vmbus_version_response r = {
        .header.type = VMBUS_VERSION_RESPONSE,
        .supported = c.version <= host.max_version && f != FAULT_REFUSE,
        .connection_id = new_style ? HOST_MESSAGES : c.version,
    };
    if (r.supported && f == FAULT_NONE)
        host.version = c.version;
    answer(f, &r, new_style ? sizeof(r) : 10);
    return HV_STATUS_SUCCESS;
}

void host_offers_all(void)
{
    struct ndis_offload *o = &host.offload;

    o->ip6_tx = o->ip4_tx | NDIS_CSUM_IP_OPTIONS;
    o->ip6_rx = o->ip4_rx;
    o->lso_ip4_encapsulation = o->lso_ip6_encapsulation = NDIS_LSO_8023;
    o->lso_ip4_max = o->lso_ip6_max = HOST_LSO_MAX;
    o->lso_ip4_min_segments = o->lso_ip6_min_segments = 2;
    o->lso_ip6_options = NDIS_LSO_IP6_EXTENSIONS | NDIS_LSO_IP6_TCP_OPTIONS;
    o->rsc_ip4 = o->rsc_ip6 = 1;
}

void host_offer(uint32_t relid, uint16_t subchannel, uint8_t instance)
{
    struct vmbus_offer o = {
        .header.type = VMBUS_OFFER,
        .class_id = {{0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9,
                      0x65, 0xed, 0x0e}},
        .instance_id = {{instance}},
        .relid = relid,
        .subchannel_index = subchannel,
        .is_dedicated = host.dedicated,
        .connection_id = HOST_CONNECTION + relid - HOST_RELID,
    };

    if (relid - HOST_RELID < HOST_CHANNELS && instance == 1)
        channels[relid - HOST_RELID].offered = true;

    host_message(&o, sizeof(o));
}

static void offers(void)
{
    struct vmbus_offer unknown = {.header.type = VMBUS_OFFER, .relid = 1, .class_id = {{1}}};
    struct vmbus_header all = {.type = VMBUS_ALL_OFFERS};

    host.offers_requested++;
    host_message(&unknown, sizeof(unknown));
    host_offer(HOST_RELID, 0, 1);
    host_message(&all, sizeof(all));
}

static void relid_released(const uint8_t *m)
{
    struct vmbus_relid r;

    memcpy(&r, m, sizeof(r));
    host.released++;
    struct channel *c = channel_of(r.relid);
    if (!c)
        return;
    if (!c->rescinded)
        host.bad++;
    if (c == channels)
        host.subchannels = 0;
    *c = (struct channel){0};
    for (unsigned i = 0; i < GPADLS; i++) { // the host lets go of everything at the latest now
        if (gpadls[i].relid == r.relid)
            gpadls[i] = (struct shared){0};
    }
}

static uint16_t posted(uint32_t connection_id, const uint8_t *m, size_t len)
{
    uint32_t kind;

    memcpy(&kind, m, 4);
    if (host.unloads) // nothing more may be said
        host.bad++;
    if (kind == VMBUS_INITIATE_CONTACT)
        return contact(connection_id, m);
    if (connection_id != (host.version >= VMBUS_VERSION_5_0 ? HOST_MESSAGES : 1))
        host.bad++;
    switch (kind) {
    case VMBUS_REQUEST_OFFERS:
        offers();
        break;
    case VMBUS_GPADL_HEADER:
        gpadl_header(m, len);
        break;
    case VMBUS_GPADL_BODY: {
        uint32_t handle;
        memcpy(&handle, m + 12, 4);
        gpadl_pfns(shared_find(handle), m + 16, len - 16);
        break;
    }
    case VMBUS_GPADL_TEARDOWN:
        gpadl_teardown(m);
        break;
    case VMBUS_OPEN:
        open_channel(m);
        break;
    case VMBUS_CLOSE:
        close_channel(m);
        break;
    case VMBUS_RELID_RELEASED:
        relid_released(m);
        break;
    case VMBUS_UNLOAD: {
        struct vmbus_header r = {.type = VMBUS_UNLOAD_RESPONSE};
        host.unloads++;
        host_message(&r, sizeof(r));
        break;
    }
    default:
        host.bad++;
    }
    return HV_STATUS_SUCCESS;
}

uint16_t hv_post_message(uint32_t connection_id, uint32_t type, const void *payload, size_t len)
{
    if (host.busy_posts) {
        host.busy_posts--;
        return HV_STATUS_INSUFFICIENT_BUFFERS;
    }
    if (type != VMBUS_SYNIC_MESSAGE || len > 240)
        host.bad++;
    message_begin();
    uint16_t status = posted(connection_id, payload, len);
    message_end();
    return status;
}

// The NIC

void host_put(uint16_t type, uint16_t flags, uint64_t id, const void *extra, uint32_t extra_len,
              const void *payload, uint32_t payload_len)
{
    uint64_t header[600] = {0};
    struct packet_descriptor *d = (void *)header;
    struct ring_vec vec = {payload, payload_len};

    *d = (struct packet_descriptor){.type = type, .flags = flags, .transaction_id = id};
    if (extra_len)
        memcpy(&header[2], extra, extra_len);
    if (!ring_out_put(&channel->to_guest, d, 16 + extra_len, &vec, payload_len ? 1 : 0))
        host.bad++;
    if (ring_out_publish(&channel->to_guest))
        host_event(HOST_RELID + index_of(channel));
}

void host_transfer(uint64_t id, const uint32_t *ranges, unsigned count)
{
    struct nvsp_message m = {.type = NVSP_SEND_RNDIS_PACKET};
    uint32_t extra[2 + 2 * 600] = {NVSP_RECEIVE_BUFFER_ID, count};

    for (unsigned i = 0; i < count; i++) {
        extra[2 + 2 * i] = ranges[2 * i + 1];
        extra[3 + 2 * i] = ranges[2 * i];
    }
    host_put(PACKET_TRANSFER_PAGES, 0, id, extra, 8 + 8 * count, &m, sizeof(m));
}

uint32_t host_frame(uint32_t section, const void *frame, uint32_t len, uint32_t csum)
{
    uint8_t *to = host_receive_buffer() + section * HOST_SECTION;
    struct rndis_packet p = {
        .header = {.type = RNDIS_PACKET, .length = 60 + len},
        .data_offset = 52,
        .data_length = len,
        .ppi_offset = 36,
        .ppi_length = 16,
    };
    uint32_t ppi[4] = {16, PPI_CHECKSUM, 12, csum};

    memcpy(to, &p, sizeof(p));
    memcpy(to + 44, ppi, sizeof(ppi));
    memcpy(to + 60, frame, len);
    return 60 + len;
}

void host_complete(uint64_t id, uint32_t status)
{
    struct nvsp_message m = {.type = NVSP_SEND_RNDIS_PACKET_COMPLETE,
                             .rndis_complete.status = status};

    host_put(PACKET_COMPLETION, 0, id, NULL, 0, &m, sizeof(m));
}

static void nvsp_answer(enum fault f, uint64_t id, const struct nvsp_message *m)
{
    if (!no_answer(f))
        host_put(PACKET_COMPLETION, 0, id, NULL, 0, m, f == FAULT_SHORT ? 8 : sizeof(*m));
}

static uint32_t status_of(enum fault f)
{
    return f == FAULT_REFUSE ? NVSP_STATUS_FAILURE : NVSP_STATUS_SUCCESS;
}

void host_send_table(uint32_t count, uint32_t offset, uint32_t at, uint32_t bytes)
{
    uint32_t m[64] = {NVSP_SEND_INDIRECTION_TABLE, count, offset};

    for (unsigned i = 0; i < 16; i++)
        m[at / 4 + i] = 15 - i;
    host_put(PACKET_INBAND, 0, 0, NULL, 0, m, bytes);
}

void host_indicate_at(uint32_t section, uint32_t type, uint32_t status, uint32_t offset,
                      uint32_t data)
{
    struct {
        struct rndis_indicate head;
        uint32_t data;
    } m = {{.header = {.type = type, .length = sizeof(m)},
            .status = status,
            .buffer_length = 4,
            .buffer_offset = offset},
           data};
    uint32_t range[2] = {section * HOST_SECTION, sizeof(m)};

    memcpy(host_receive_buffer() + range[0], &m, sizeof(m));
    host_transfer(9 + section, range, 1);
}

void host_indicate(uint32_t type, uint32_t status, uint32_t offset, uint32_t data)
{
    host_indicate_at(0, type, status, offset, data);
    fake_run(0);
}

static void subchannels(enum fault f, uint64_t id, uint32_t count)
{
    struct nvsp_message r = {
        .type = NVSP_SUBCHANNEL,
        .subchannel_complete = {.status = status_of(f), .count = count},
    };

    if (count == 0 || count >= host.queues || host.subchannels)
        host.bad++;
    host.subchannels = count;
    if (f == FAULT_NONE) { // before the answer, in any order
        for (unsigned i = count - host.offers_late; i > 0; i--)
            host_offer(HOST_RELID + i, (uint16_t)i, 1);
    }
    nvsp_answer(f, id, &r);
}

static void nvsp_request(uint64_t id, const struct nvsp_message *m)
{
    struct nvsp_message r = {0};
    enum fault f;

    switch (m->type) {
    case NVSP_INIT:
        f = question("NVSP init");
        r.type = NVSP_INIT_COMPLETE;
        r.init_complete.status = m->init.version <= host.max_nvsp ? status_of(f) : 0;
        host.nvsp = m->init.version;
        nvsp_answer(f, id, &r);
        break;
    case NVSP_SEND_NDIS_CONFIG:
        host.capabilities = m->ndis_config.capabilities;
        host.ndis_mtu = m->ndis_config.mtu;
        break;
    case NVSP_SEND_NDIS_VERSION:
        break;
    case NVSP_SEND_RECEIVE_BUFFER:
        f = question("receive buffer");
        receive_gpadl = m->buffer.gpadl;
        r.type = NVSP_SEND_RECEIVE_BUFFER_COMPLETE;
        r.receive_buffer_complete.status = status_of(f);
        r.receive_buffer_complete.section_count = 1;
        r.receive_buffer_complete.section_size = HOST_SECTION;
        r.receive_buffer_complete.count = shared_find(receive_gpadl)->pages * 4096 / HOST_SECTION;
        nvsp_answer(f, id, &r);
        break;
    case NVSP_SEND_SEND_BUFFER:
        f = question("send buffer");
        send_gpadl = m->buffer.gpadl;
        r.type = NVSP_SEND_SEND_BUFFER_COMPLETE;
        r.send_buffer_complete.status = status_of(f);
        r.send_buffer_complete.section_size = HOST_SEND_SECTION;
        nvsp_answer(f, id, &r);
        break;
    case NVSP_SUBCHANNEL:
        subchannels(question("subchannels"), id, m->subchannel.count);
        break;
    case NVSP_REVOKE_RECEIVE_BUFFER:
    case NVSP_REVOKE_SEND_BUFFER:
        host.revokes++;
        break;
    default:
        host.bad++;
    }
}

// An RNDIS reply, in the last receive section.
static void rndis_reply(enum fault f, const void *reply, uint32_t len)
{
    uint32_t section = shared_find(receive_gpadl)->pages * 4096 / HOST_SECTION - 1;
    uint32_t range[2] = {section * HOST_SECTION, len + 16};

    if (no_answer(f))
        return;
    memcpy(host_receive_buffer() + range[0], reply, len);
    if (f == FAULT_SHORT)
        memset(host_receive_buffer() + range[0] + 4, 0, 4); // message length
    host_transfer(0, range, 1);
}

static void rndis_query(enum fault f, const struct rndis_request *q)
{
    struct {
        struct rndis_query_complete head;
        uint8_t info[160];
    } r = {.head = {.header.type = RNDIS_QUERY | RNDIS_COMPLETE,
                    .id = q->id,
                    .status = f == FAULT_REFUSE ? 0xc0000001 : 0,
                    .info_length = 4,
                    .info_offset = 16}};
    static const uint8_t mac[6] = {0, 0x15, 0x5d, 1, 2, 3};
    uint32_t speed = 100000000; // 10 Gbit/s
    struct ndis_rss_capabilities rss = {
        .header = {.type = NDIS_OBJECT_RSS_CAPABILITIES, .revision = 2, .size = 18},
        .flags = NDIS_RSS_CAP_TOEPLITZ | NDIS_RSS_CAP_TCP4 | NDIS_RSS_CAP_TCP6 | NDIS_RSS_CAP_UDP4 |
                 NDIS_RSS_CAP_UDP6,
        .queues = host.queues,
        .table_entries = 128,
    };

    switch (q->oid) {
    case OID_MAXIMUM_FRAME_SIZE:
        memcpy(r.info, &host.mtu, 4);
        break;
    case OID_PERMANENT_ADDRESS:
        memcpy(r.info, mac, 6);
        r.head.info_length = 6;
        break;
    case OID_OFFLOAD_CAPABILITIES:
        memcpy(r.info, &host.offload, sizeof(host.offload));
        r.head.info_length = sizeof(host.offload);
        break;
    case OID_RSS_CAPABILITIES:
        memcpy(r.info, &rss, 18);
        r.head.info_length = 18;
        break;
    case OID_LINK_SPEED:
        memcpy(r.info, &speed, 4);
        break;
    case OID_MEDIA_CONNECT_STATUS:
        break;
    default:
        r.head.status = 0xc00000bb;
    }
    r.head.header.length = sizeof(r.head) + r.head.info_length;
    rndis_reply(f, &r, r.head.header.length);
}

static uint32_t set_rss(const struct rndis_request *q, const uint8_t *info)
{
    struct ndis_rss_parameters p;

    memcpy(&p, info, sizeof(p));
    if (q->info_length != 40 + 512 + 40 || p.header.type != NDIS_OBJECT_RSS_PARAMETERS ||
        p.header.size != 40 || p.table_bytes != 512 || p.table_offset != 40 || p.key_bytes != 40 ||
        p.key_offset != 552)
        host.bad++;
    if (host.no_rss || (host.no_udp_hash && p.hash & (RSS_HASH_UDP4 | RSS_HASH_UDP6)))
        return 0xc0000001;
    if (p.flags & NDIS_RSS_DISABLE) {
        host.rss_disables++;
        return 0;
    }
    host.rss_sets++;
    host.rss_hash = p.hash;
    memcpy(host.rss_table, info + 40, 512);
    memcpy(host.rss_key, info + 552, 40);
    return 0;
}

static void rndis_set(enum fault f, const struct rndis_request *q, const uint8_t *info)
{
    struct rndis_complete r = {
        .header = {.type = RNDIS_SET | RNDIS_COMPLETE, .length = sizeof(r)},
        .id = q->id,
        .status = f == FAULT_REFUSE ? 0xc0000001 : 0,
    };

    if (q->info_offset != 20)
        host.bad++;
    if (q->oid == OID_OFFLOAD_PARAMETERS && q->info_length <= sizeof(host.parameters))
        memcpy(&host.parameters, info, q->info_length);
    if (q->oid == OID_PACKET_FILTER && f == FAULT_NONE) {
        memcpy(&host.filter, info, 4);
        host.filter_sets++;
    }
    if (q->oid == OID_RSS_PARAMETERS && f == FAULT_NONE)
        r.status = set_rss(q, info);
    rndis_reply(f, &r, sizeof(r));
}

static void rndis_init(enum fault f, uint32_t id)
{
    struct rndis_initialize_complete r = {
        .header = {.type = RNDIS_INITIALIZE | RNDIS_COMPLETE, .length = sizeof(r)},
        .id = id,
        .status = f == FAULT_REFUSE ? 0xc0000001 : 0,
        .max_packets = 8,
        .max_transfer = 0x4000,
        .alignment = 3,
    };

    rndis_reply(f, &r, sizeof(r));
}

static void rndis_control(uint64_t id, const uint8_t *message)
{
    struct rndis_request q;
    char what[32];

    memcpy(&q, message, sizeof(q)); // more than short messages have, but inside the page
    host_complete(id, NVSP_STATUS_SUCCESS);
    switch (q.header.type) {
    case RNDIS_INITIALIZE:
        rndis_init(question("RNDIS initialize"), q.id);
        break;
    case RNDIS_QUERY:
        snprintf(what, sizeof(what), "query %#x", q.oid);
        rndis_query(question(what), &q);
        break;
    case RNDIS_SET:
        snprintf(what, sizeof(what), "set %#x", q.oid);
        rndis_set(question(what), &q, message + sizeof(q));
        break;
    case RNDIS_HALT:
        host.halts++;
        break;
    case RNDIS_KEEPALIVE | RNDIS_COMPLETE:
        host.keepalive_replies++;
        break;
    default:
        host.bad++;
    }
}

static void data_packet(const struct ring_packet *p)
{
    struct host_packet *to = &host.packets[host.packet_count];

    host.packets_total++;
    if (!(p->flags & PACKET_WANTS_COMPLETION) || p->transaction_id == 0)
        host.bad++;
    if (host.packet_count < HOST_PACKETS) {
        *to = (struct host_packet){.channel = index_of(channel),
                                   .type = p->type,
                                   .flags = p->flags,
                                   .transaction_id = p->transaction_id,
                                   .header_len = p->header_len,
                                   .payload_len = p->payload_len};
        ring_copy_out(&channel->from_guest, p, 0, to->bytes, p->header_len + p->payload_len);
        host.packet_count++;
    }
    if (!host.hold)
        host_complete(p->transaction_id, NVSP_STATUS_SUCCESS);
}

static void packet(const struct ring_packet *p)
{
    struct nvsp_message m = {0};
    uint64_t range[2]; // of a GPA-direct packet

    if (p->payload_len > sizeof(m) || p->payload_len < 4) {
        host.bad++;
        return;
    }
    ring_copy_out(&channel->from_guest, p, p->header_len, &m, p->payload_len);
    if (p->type == PACKET_COMPLETION) {
        host.completion_channel[host.completion_count % 512] = index_of(channel);
        host.completions[host.completion_count % 512] = p->transaction_id;
        host.completion_status[host.completion_count++ % 512] = m.rndis_complete.status;
    } else if (channel != channels &&
               (m.type != NVSP_SEND_RNDIS_PACKET || m.rndis.channel != NVSP_CHANNEL_DATA)) {
        host.bad++; // only data on subchannels
    } else if (m.type != NVSP_SEND_RNDIS_PACKET) {
        nvsp_request(p->transaction_id, &m);
    } else if (m.rndis.channel == NVSP_CHANNEL_CONTROL) {
        ring_copy_out(&channel->from_guest, p, 24, range, sizeof(range));
        rndis_control(p->transaction_id,
                      (uint8_t *)(uintptr_t)((range[1] << 12) + (range[0] >> 32)));
    } else {
        data_packet(p);
    }
}

static void service(void)
{
    struct ring_packet p;

    while (channel->open && !channel->rescinded && ring_in_next(&channel->from_guest, &p)) {
        message_begin();
        if (!channel->rescinded)
            packet(&p);
        message_end();
    }
    if (channel->open && channel->from_guest.dead)
        host.bad++;
    if (channel->open && ring_in_release(&channel->from_guest))
        host_event(HOST_RELID + index_of(channel));
}

void host_service(void)
{
    struct channel *chosen = channel;

    for (channel = channels; channel < channels + HOST_CHANNELS; channel++)
        service();
    channel = chosen;
}

uint16_t hv_signal_event(uint32_t connection_id)
{
    uint32_t index = connection_id - HOST_CONNECTION;

    host.signals++;
    if (index >= HOST_CHANNELS) {
        host.bad++;
        return HV_STATUS_INVALID_CONNECTION_ID;
    }
    host.wrong_core += channels[index].open && channels[index].core != core_id();
    if (host.busy_signals) {
        host.busy_signals--;
        return host.busy_status;
    }
    if (!host.paused)
        host_service();
    return HV_STATUS_SUCCESS;
}
