// SPDX-License-Identifier: BSD-2-Clause
// Questions to the host and their answers: NVSP requests, RNDIS initialize, query, set and halt, and
// what the host says unasked (link, keepalive). The questions run in the device's fiber, one at a time;
// answers come from the handler. Every wait has a time-out and ends when the device is rescinded.
#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "kernel/config.h"
#include "kernel/log.h"

// Puts a packet of the control path; waits while the ring is full.
static int put_wait(struct nic *nic, uint32_t id, const struct nvsp_message *m, uint32_t rndis_len)
{
    uint64_t deadline = time_now() + CONTROL_TIMEOUT;
    struct packet_descriptor d = {
        .type = PACKET_INBAND,
        .flags = id ? PACKET_WANTS_COMPLETION : 0,
        .transaction_id = id,
    };
    struct ring_vec vec = {m, sizeof(*m)};
    uint32_t need = ring_packet_bytes(sizeof(d), sizeof(*m));
    struct nic_queue *q = nic->queue[0];

    for (;;) {
        if (nic->device->rescinded || nic->device->failed || q->channel.state != CHANNEL_OPEN)
            return -ENODEV;
        bool put = m ? tx_room(q, need) && ring_out_put(&q->channel.out, &d, sizeof(d), &vec, 1)
                     : tx_put_control(q, id, nic->control.page_gpa, rndis_len);
        if (put)
            break;
        if (time_now() >= deadline)
            return -ETIMEDOUT;
        fiber_sleep(TIME_MS);
    }
    channel_publish(&q->channel);
    return 0;
}

// Takes an id for a question and remembers that its completion is awaited.
static int begin(struct nic *nic)
{
    struct nic_control *c = &nic->control;

    c->request = requests_take(&nic->queue[0]->tx.requests);
    if (!c->request)
        return -EBUSY;
    nic->queue[0]->tx.request[c->request] = (struct tx_request){.kind = TX_CONTROL};
    c->packet_done = c->reply_done = false;
    c->event.set = false;
    return 0;
}

static int wait_for(struct nic *nic, const bool *done, uint64_t timeout)
{
    uint64_t deadline = time_now() + timeout;

    while (!*done) {
        uint64_t now = time_now();
        if (now >= deadline)
            return -ETIMEDOUT;
        int r = device_wait(nic->device, &nic->control.event, deadline - now);
        if (r && !*done)
            return r;
    }
    return 0;
}

// An NVSP request that is answered by its completion, which stays in nic->control.nvsp.
static int nvsp_call(struct nic *nic, const struct nvsp_message *m)
{
    int r = begin(nic);

    if (r == 0)
        r = put_wait(nic, nic->control.request, m, 0);
    if (r == 0)
        r = wait_for(nic, &nic->control.packet_done, CONTROL_TIMEOUT);
    nic->control.request = 0;
    return r;
}

// An NVSP message without an answer.
static int nvsp_tell(struct nic *nic, const struct nvsp_message *m)
{
    return put_wait(nic, 0, m, 0);
}

void control_packet_done(struct nic *nic, uint32_t id, const struct nvsp_message *nvsp,
                         uint32_t length)
{
    struct nic_control *c = &nic->control;

    if (id != c->request)
        return; // its fiber has given up
    c->nvsp = *nvsp;
    c->nvsp_len = length;
    c->packet_done = true;
    event_set(&c->event);
}

// Every completion: its type, and that it is long enough for the last field that is used.
static int check(const struct nvsp_message *m, uint32_t length, uint32_t type, size_t needed,
                 uint32_t status)
{
    if (length < needed || m->type != type)
        return -EPROTO;
    return status == NVSP_STATUS_SUCCESS ? 0 : -EIO;
}

int nvsp_check_init(const struct nvsp_message *m, uint32_t length)
{
    return check(m, length, NVSP_INIT_COMPLETE, 16, m->init_complete.status);
}

int nvsp_check_receive_buffer(const struct nvsp_message *m, uint32_t length, uint32_t buffer_bytes)
{
    int r =
        check(m, length, NVSP_SEND_RECEIVE_BUFFER_COMPLETE, 28, m->receive_buffer_complete.status);

    if (r)
        return r;
    if (m->receive_buffer_complete.section_count != 1 || m->receive_buffer_complete.offset != 0)
        return -EPROTO;
    if (m->receive_buffer_complete.section_size < 68 || m->receive_buffer_complete.count == 0)
        return -EPROTO;
    if ((uint64_t)m->receive_buffer_complete.section_size * m->receive_buffer_complete.count >
        buffer_bytes)
        return -EPROTO;
    return 0;
}

int nvsp_check_send_buffer(const struct nvsp_message *m, uint32_t length)
{
    int r = check(m, length, NVSP_SEND_SEND_BUFFER_COMPLETE, 12, m->send_buffer_complete.status);

    if (r == 0 && m->send_buffer_complete.section_size < 68)
        return -EPROTO;
    return r;
}

int nvsp_check_subchannels(const struct nvsp_message *m, uint32_t length, unsigned asked)
{
    int r = check(m, length, NVSP_SUBCHANNEL, 12, m->subchannel_complete.status);

    return r == 0 && m->subchannel_complete.count > asked ? -EPROTO : r;
}

int nvsp_negotiate(struct nic *nic)
{
    static const uint32_t versions[] = {NVSP_VERSION_6_1, NVSP_VERSION_6, NVSP_VERSION_5,
                                        NVSP_VERSION_4,   NVSP_VERSION_2, NVSP_VERSION_1};

    for (unsigned i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        struct nvsp_message m = {
            .type = NVSP_INIT,
            .init = {.version = versions[i], .version_again = versions[i]},
        };
        int r = nvsp_call(nic, &m);

        if (r == 0)
            r = nvsp_check_init(&nic->control.nvsp, nic->control.nvsp_len);
        if (r == -EIO)
            continue; // the next older one
        nic->nvsp_version = r == 0 ? versions[i] : 0;
        return r;
    }
    return -EPROTONOSUPPORT;
}

int nvsp_configure(struct nic *nic, uint16_t mtu)
{
    bool ndis630 = nic->nvsp_version >= NVSP_VERSION_5;
    struct nvsp_message ndis = {
        .type = NVSP_SEND_NDIS_CONFIG,
        .ndis_config = {.mtu = mtu + 14u, .capabilities = NVSP_CAPABILITY_8021Q},
    };
    struct nvsp_message version = {
        .type = NVSP_SEND_NDIS_VERSION,
        .ndis_version = {.major = 6, .minor = ndis630 ? 30 : 1},
    };
    int r = 0;

    if (nic->nvsp_version >= NVSP_VERSION_5)
        ndis.ndis_config.capabilities |= NVSP_CAPABILITY_TEAMING;
    // Its MAC address, and so what is configured for this NIC, is not known yet.
    if (nic->nvsp_version >= NVSP_VERSION_6_1 && config.rsc)
        ndis.ndis_config.capabilities |= NVSP_CAPABILITY_RSC;
    if (nic->nvsp_version >= NVSP_VERSION_2)
        r = nvsp_tell(nic, &ndis);
    return r ? r : nvsp_tell(nic, &version);
}

static int share(struct nic *nic, struct gpadl *gpadl, void *memory, uint32_t pages,
                 enum nvsp_type type, uint16_t id)
{
    bool leaked;
    int r = gpadl_create(nic->device, memory, pages, gpadl, &leaked);

    nic->leaked |= leaked;
    if (r)
        return r;
    struct nvsp_message m = {.type = type, .buffer = {.gpadl = gpadl->handle, .id = id}};
    return nvsp_call(nic, &m);
}

int nvsp_share_receive_buffer(struct nic *nic)
{
    struct receive_buffer *b = &nic->receive;
    int r = share(nic, &b->gpadl, b->memory, b->pages, NVSP_SEND_RECEIVE_BUFFER,
                  NVSP_RECEIVE_BUFFER_ID);

    if (r == 0)
        r = nvsp_check_receive_buffer(&nic->control.nvsp, nic->control.nvsp_len, b->bytes);
    if (r)
        return r;
    b->section_size = nic->control.nvsp.receive_buffer_complete.section_size;
    b->section_count = nic->control.nvsp.receive_buffer_complete.count;
    return 0;
}

int nvsp_share_send_buffer(struct nic *nic)
{
    struct send_buffer *b = &nic->send;
    int r = share(nic, &b->gpadl, b->memory, b->pages, NVSP_SEND_SEND_BUFFER, NVSP_SEND_BUFFER_ID);

    if (r == 0)
        r = nvsp_check_send_buffer(&nic->control.nvsp, nic->control.nvsp_len);
    if (r)
        return r;
    b->section_size = nic->control.nvsp.send_buffer_complete.section_size;
    b->section_count = b->pages * VMBUS_PAGE_SIZE / b->section_size;
    if (b->section_count > UINT16_MAX) // more than the queues' indices reach
        b->section_count = UINT16_MAX;
    b->section_limit = b->section_size;
    return 0;
}

int nvsp_request_subchannels(struct nic *nic, unsigned *count)
{
    struct nvsp_message m = {
        .type = NVSP_SUBCHANNEL,
        .subchannel = {.operation = NVSP_SUBCHANNEL_ALLOCATE, .count = *count},
    };
    int r = nvsp_call(nic, &m);

    if (r == 0)
        r = nvsp_check_subchannels(&nic->control.nvsp, nic->control.nvsp_len, *count);
    *count = r == 0 ? nic->control.nvsp.subchannel_complete.count : 0;
    return r;
}

void nvsp_revoke_buffer(struct nic *nic, enum nvsp_type type, uint16_t id)
{
    struct nvsp_message m = {.type = type, .revoke = {.id = id}};

    nvsp_tell(nic, &m);
}

// Sends the RNDIS request that is in the control page; its id is the word after the header.
static int rndis_send(struct nic *nic, uint32_t rndis_id, uint32_t reply_type, uint32_t length)
{
    struct nic_control *c = &nic->control;
    int r = begin(nic);

    if (r)
        return r;
    c->rndis_id = rndis_id;
    c->rndis_type = reply_type;
    return put_wait(nic, c->request, NULL, length);
}

// Sends a request and waits for both of its answers; the reply stays in nic->control.reply.
static int rndis_call(struct nic *nic, uint32_t rndis_id, uint32_t type, uint32_t length)
{
    struct nic_control *c = &nic->control;
    int r = rndis_send(nic, rndis_id, type | RNDIS_COMPLETE, length);

    if (r == 0)
        r = wait_for(nic, &c->packet_done, CONTROL_TIMEOUT);
    if (r == 0 && c->nvsp.type == NVSP_SEND_RNDIS_PACKET_COMPLETE &&
        c->nvsp.rndis_complete.status != NVSP_STATUS_SUCCESS)
        r = -EIO; // there will be no reply
    if (r == 0)
        r = wait_for(nic, &c->reply_done, CONTROL_TIMEOUT);
    c->request = 0;
    c->rndis_id = 0;
    return r;
}

static uint32_t next_rndis_id(struct nic *nic)
{
    if (++nic->control.next_id == 0)
        nic->control.next_id = 1;
    return nic->control.next_id;
}

int rndis_initialize(struct nic *nic)
{
    struct send_buffer *b = &nic->send;
    struct rndis_initialize_complete reply;
    struct rndis_initialize m = {
        .header = {.type = RNDIS_INITIALIZE, .length = sizeof(m)},
        .id = next_rndis_id(nic),
        .major = 1,
        .max_transfer = 0x4000,
    };

    memcpy(nic->control.page, &m, sizeof(m));
    int r = rndis_call(nic, m.id, RNDIS_INITIALIZE, sizeof(m));
    if (r)
        return r;
    if (nic->control.reply_len < offsetof(struct rndis_initialize_complete, reserved))
        return -EPROTO;
    memcpy(&reply, nic->control.reply, offsetof(struct rndis_initialize_complete, reserved));
    if (reply.status != RNDIS_STATUS_SUCCESS)
        return -EIO;
    if (reply.alignment > 12) // no host needs more than a page
        return -EPROTO;
    b->alignment = 1u << reply.alignment;
    b->message_limit = reply.max_packets < TX_MESSAGES_MAX ? reply.max_packets : TX_MESSAGES_MAX;
    if (reply.max_transfer < b->section_limit)
        b->section_limit = reply.max_transfer;
    return 0;
}

// One question by RNDIS at a time: the page and the reply are for one.
static void control_take(struct nic *nic)
{
    while (nic->control.taken)
        fiber_sleep(TIME_MS);
    nic->control.taken = true;
}

void rndis_halt(struct nic *nic)
{
    struct rndis_simple m = {
        .header = {.type = RNDIS_HALT, .length = sizeof(m)},
        .id = next_rndis_id(nic),
    };

    control_take(nic);
    memcpy(nic->control.page, &m, sizeof(m));
    if (rndis_send(nic, 0, 0, sizeof(m)) == 0) // only the packet is completed
        wait_for(nic, &nic->control.packet_done, HALT_TIMEOUT);
    nic->control.request = 0;
    nic->control.taken = false;
}

static int rndis_request(struct nic *nic, uint32_t type, uint32_t oid, const void *info,
                         uint32_t length)
{
    struct rndis_complete reply;
    struct rndis_request m = {
        .header = {.type = type, .length = (uint32_t)sizeof(m) + length},
        .id = next_rndis_id(nic),
        .oid = oid,
        .info_length = length,
        .info_offset = sizeof(m) - RNDIS_HEADER_BYTES,
    };

    if (m.header.length > CONTROL_REQUEST_BYTES)
        return -EINVAL;
    control_take(nic);
    memcpy(nic->control.page, &m, sizeof(m));
    if (length)
        memcpy(nic->control.page + sizeof(m), info, length);
    int r = rndis_call(nic, m.id, type, m.header.length);
    nic->control.taken = false; // the reply stays until somebody waits again
    if (r)
        return r;
    if (nic->control.reply_len < sizeof(reply))
        return -EPROTO;
    memcpy(&reply, nic->control.reply, sizeof(reply));
    return reply.status == RNDIS_STATUS_SUCCESS ? 0 : -EOPNOTSUPP;
}

int rndis_set(struct nic *nic, uint32_t oid, const void *info, uint32_t length)
{
    return rndis_request(nic, RNDIS_SET, oid, info, length);
}

int rndis_query(struct nic *nic, uint32_t oid, const void *input, uint32_t input_length, void *out,
                uint32_t room, uint32_t *length)
{
    int r = rndis_request(nic, RNDIS_QUERY, oid, input, input_length);

    if (r)
        return r;
    const void *info = rndis_query_info(nic->control.reply, nic->control.reply_len, length);
    if (!info)
        return -EPROTO;
    if (*length > room)
        *length = room;
    memcpy(out, info, *length);
    return 0;
}

// A reply, still in the receive buffer. The header that is checked is the one in the copy.
static void take_reply(struct nic *nic, const uint8_t *message, uint32_t length)
{
    struct nic_control *c = &nic->control;
    struct rndis_complete reply;

    if (!c->rndis_id || c->reply_done || length < sizeof(reply) || length > CONTROL_REPLY_BYTES) {
        c->unexpected++;
        return;
    }
    copy_from_shared(c->reply, message, length);
    memcpy(&reply, c->reply, sizeof(reply));
    if (reply.id != c->rndis_id || reply.header.type != c->rndis_type) {
        c->unexpected++;
        return;
    }
    c->reply_len = length;
    c->reply_done = true;
    event_set(&c->event);
}

static void link_change(struct nic *nic, bool up)
{
    nic->control.link = up;
    if (!up)
        nic->control.link_flapped = true; // even if it is up again before that is looked at
    device_work(nic->device);
}

// The status buffer may lie behind the message's length (old hosts): it is checked against the range.
static void take_indication(struct nic *nic, const uint8_t *message, uint32_t length,
                            uint32_t range)
{
    struct rndis_indicate i;
    uint32_t speed;

    if (length < sizeof(i)) {
        nic->control.unexpected++;
        return;
    }
    copy_from_shared(&i, message, sizeof(i));
    nic->control.indications++;
    switch (i.status) {
    case RNDIS_STATUS_MEDIA_CONNECT:
        link_change(nic, true);
        break;
    case RNDIS_STATUS_MEDIA_DISCONNECT:
        link_change(nic, false);
        break;
    case RNDIS_STATUS_NETWORK_CHANGE:
        nic->control.link_flapped = true;
        device_work(nic->device);
        break;
    case RNDIS_STATUS_LINK_SPEED_CHANGE:
        if (i.buffer_length < sizeof(speed) || i.buffer_offset < 12 ||
            i.buffer_offset > range - RNDIS_HEADER_BYTES ||
            range - RNDIS_HEADER_BYTES - i.buffer_offset < sizeof(speed)) {
            nic->control.unexpected++;
            break;
        }
        copy_from_shared(&speed, message + RNDIS_HEADER_BYTES + i.buffer_offset, sizeof(speed));
        nic->info.speed_bps = (uint64_t)speed * 100;
        nic->control.speed_changed = true;
        device_work(nic->device);
        break;
    default: // the offload configuration after a set, and others that need no action
        break;
    }
}

static void answer_keepalive(struct nic *nic, const uint8_t *message, uint32_t length)
{
    struct nic_control *c = &nic->control;
    struct rndis_simple ask;

    if (length < sizeof(ask) || c->keepalive) { // one answer at a time: its memory is with the host
        c->unexpected++;
        return;
    }
    copy_from_shared(&ask, message, sizeof(ask));
    struct rndis_complete reply = {
        .header = {.type = RNDIS_KEEPALIVE | RNDIS_COMPLETE, .length = sizeof(reply)},
        .id = ask.id,
        .status = RNDIS_STATUS_SUCCESS,
    };
    uint32_t id = requests_take(&nic->queue[0]->tx.requests);
    if (!id)
        return;
    memcpy(c->page + CONTROL_REQUEST_BYTES, &reply, sizeof(reply));
    nic->queue[0]->tx.request[id] = (struct tx_request){.kind = TX_KEEPALIVE};
    if (!tx_put_control(nic->queue[0], id, c->page_gpa + CONTROL_REQUEST_BYTES, sizeof(reply))) {
        requests_give(&nic->queue[0]->tx.requests, id); // the host asks again
        return;
    }
    c->keepalive = id;
    c->keepalives++;
}

void control_message(struct nic *nic, const uint8_t *message, uint32_t length, uint32_t range)
{
    uint32_t type;

    copy_from_shared(&type, message, sizeof(type));
    switch (type) {
    case RNDIS_INITIALIZE | RNDIS_COMPLETE:
    case RNDIS_QUERY | RNDIS_COMPLETE:
    case RNDIS_SET | RNDIS_COMPLETE:
        take_reply(nic, message, length);
        break;
    case RNDIS_INDICATE:
        take_indication(nic, message, length, range);
        break;
    case RNDIS_KEEPALIVE:
        answer_keepalive(nic, message, length);
        break;
    default:
        nic->control.unexpected++;
    }
}

// The table by which the host wants to be sent to. Hosts up to NVSP 6 may give the offset of a shorter
// message than theirs is.
static void take_send_table(struct nic *nic, const uint8_t *message, uint32_t length)
{
    struct nvsp_message m = {0};
    uint32_t bytes = sizeof(nic->rss.wish), fixed = offsetof(struct nvsp_message, words) + 8;

    if (length < fixed) {
        nic->control.unexpected++;
        return;
    }
    memcpy(&m, message, fixed);
    uint32_t offset = m.send_table.offset;
    if (nic->nvsp_version <= NVSP_VERSION_6 && length >= NVSP_MESSAGE_BYTES + bytes)
        offset = NVSP_MESSAGE_BYTES;
    if (m.send_table.count != NVSP_SEND_TABLE_SIZE || offset < fixed || offset > length ||
        length - offset < bytes) {
        nic->control.unexpected++;
        return;
    }
    memcpy(nic->rss.wish, message + offset, bytes);
    nic->rss.wished = nic->control.table_changed = true;
    nic->control.tables++;
    device_work(nic->device);
}

void control_inband(struct nic *nic, const uint8_t *message, uint32_t length)
{
    uint32_t type = 0;

    if (length >= sizeof(type))
        memcpy(&type, message, sizeof(type));
    if (type == NVSP_SEND_INDIRECTION_TABLE)
        take_send_table(nic, message, length);
    else
        nic->control.unexpected++;
}
