// SPDX-License-Identifier: BSD-2-Clause
// The connection to the host's VMBus: version negotiation, posting control messages, matching answers
// to the fibers that wait for them, and saying goodbye. Everything runs on core 0, whose SynIC slot
// receives all control messages; vmbus_unload() also runs on a panicking core.
#include "drivers/vmbus/connection.h"

#include <errno.h>
#include <string.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/vmbus/channel.h"
#include "drivers/vmbus/vmbus.h"
#include "kernel/alloc.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"

#define POST_DELAY_MIN (100 * TIME_US)
#define POST_DELAY_MAX (1 * TIME_S)

// Legal steps: DISCONNECTED -> CONNECTING -> CONNECTED -> UNLOADED, CONNECTING -> DISCONNECTED.
enum connection_state { DISCONNECTED, CONNECTING, CONNECTED, UNLOADED };

static struct {
    enum connection_state state;
    uint32_t version;
    uint32_t message_connection; // where to post
    struct vmbus_call *calls;    // questions without an answer yet
    uint8_t *pages; // interrupt page, monitor page to the guest, monitor page to the host
} connection;

struct vmbus_counters vmbus_counters;

uint32_t vmbus_version(void)
{
    return connection.state == CONNECTED ? connection.version : 0;
}

void vmbus_set_send_bit(uint32_t relid)
{
    // The second half of the interrupt page is guest to host.
    uint64_t *words = (void *)(connection.pages + PAGE_SIZE / 2);

    __atomic_fetch_or(&words[relid / 64], 1ull << (relid % 64), __ATOMIC_SEQ_CST);
}

static bool status_retry(uint16_t status)
{
    switch (status) {
    case HV_STATUS_INSUFFICIENT_MEMORY:
    case HV_STATUS_INSUFFICIENT_BUFFERS:
    case HV_STATUS_TIMEOUT:
        return true;
    case HV_STATUS_INVALID_CONNECTION_ID: // while connecting it means: an older host
        return connection.state == CONNECTED;
    default:
        return false;
    }
}

int vmbus_post(const void *message, size_t len, const struct vmbus_device *device)
{
    uint64_t deadline = time_now() + VMBUS_POST_TIMEOUT;
    uint64_t delay = POST_DELAY_MIN;

    vmbus_counters.posts++;
    for (;;) {
        if (connection.state != CONNECTING && connection.state != CONNECTED)
            return -ENOTCONN;
        if (device && device->rescinded)
            return -ENODEV;
        uint16_t status =
            hv_post_message(connection.message_connection, VMBUS_SYNIC_MESSAGE, message, len);
        if (status == HV_STATUS_SUCCESS)
            return 0;
        if (!status_retry(status)) {
            if (status == HV_STATUS_INVALID_CONNECTION_ID)
                return -ENXIO;
            log_error("vmbus: message refused, status %#x", status);
            return -EIO;
        }
        if (time_now() >= deadline)
            return -ETIMEDOUT;
        vmbus_counters.post_retries++;
        fiber_sleep(delay);
        if (delay < POST_DELAY_MAX)
            delay *= 2;
    }
}

void vmbus_call_begin(struct vmbus_call *call)
{
    call->next = connection.calls;
    connection.calls = call;
}

int vmbus_call_wait(struct vmbus_call *call, struct vmbus_device *device, uint64_t timeout)
{
    int r = device ? device_wait(device, &call->event, timeout) : event_wait(&call->event, timeout);

    if (call->done)
        return 0;
    return r ? r : -EIO;
}

void vmbus_call_end(struct vmbus_call *call)
{
    struct vmbus_call **link = &connection.calls;

    while (*link != call)
        link = &(*link)->next;
    *link = call->next;
}

int vmbus_call(struct vmbus_call *call, const void *message, size_t len,
               struct vmbus_device *device, uint64_t timeout)
{
    vmbus_call_begin(call);
    int r = vmbus_post(message, len, device);
    if (r == 0)
        r = vmbus_call_wait(call, device, timeout);
    vmbus_call_end(call);
    return r;
}

// Shortest acceptable host-to-guest messages; 0: a type that the host must not send.
static const uint16_t minimum_size[] = {
    [VMBUS_OFFER] = sizeof(struct vmbus_offer),
    [VMBUS_RESCIND] = sizeof(struct vmbus_relid),
    [VMBUS_ALL_OFFERS] = sizeof(struct vmbus_header),
    [VMBUS_OPEN_RESULT] = sizeof(struct vmbus_result),
    [VMBUS_GPADL_CREATED] = sizeof(struct vmbus_result),
    [VMBUS_GPADL_TORNDOWN] = sizeof(struct vmbus_gpadl_torndown),
    [VMBUS_VERSION_RESPONSE] = offsetof(struct vmbus_version_response, padding), // before 5.0
    [VMBUS_UNLOAD_RESPONSE] = sizeof(struct vmbus_header),
};

bool vmbus_message_valid(const void *payload, size_t len)
{
    struct vmbus_header header;

    if (len < sizeof(header) || len > HV_MESSAGE_PAYLOAD_MAX)
        return false;
    memcpy(&header, payload, sizeof(header));
    if (header.type >= sizeof(minimum_size) / sizeof(minimum_size[0]))
        return false;
    return minimum_size[header.type] && len >= minimum_size[header.type];
}

static bool call_matches(const struct vmbus_call *call, uint32_t type, uint32_t relid, uint32_t id)
{
    return !call->done && call->answer == type && call->relid == relid && call->id == id;
}

// Hands the answer to whoever asked; a question is answered once.
static void answer(uint32_t type, uint32_t relid, uint32_t id, const void *message, size_t len)
{
    for (struct vmbus_call *call = connection.calls; call; call = call->next) {
        if (!call_matches(call, type, relid, id))
            continue;
        size_t room = sizeof(call->result) > sizeof(call->version) ? sizeof(call->result)
                                                                   : sizeof(call->version);
        memcpy(&call->result, message, len < room ? len : room);
        call->done = true;
        event_set(&call->event);
        return;
    }
    vmbus_counters.unexpected_messages++;
}

void vmbus_message(const struct hv_message *m)
{
    union {
        struct vmbus_header header;
        struct vmbus_offer offer;
        struct vmbus_relid relid;
        struct vmbus_result result;
        struct vmbus_gpadl_torndown torndown;
        uint8_t bytes[HV_MESSAGE_PAYLOAD_MAX];
    } u = {0};

    vmbus_counters.messages++;
    if (m->type != VMBUS_SYNIC_MESSAGE || !vmbus_message_valid(m->payload, m->size)) {
        vmbus_counters.bad_messages++;
        return;
    }
    memcpy(u.bytes, m->payload, m->size);
    switch (u.header.type) {
    case VMBUS_OFFER:
        vmbus_offer(&u.offer);
        break;
    case VMBUS_RESCIND:
        vmbus_rescind(u.relid.relid);
        break;
    case VMBUS_OPEN_RESULT:
    case VMBUS_GPADL_CREATED:
        answer(u.header.type, u.result.relid, u.result.id, u.bytes, m->size);
        break;
    case VMBUS_GPADL_TORNDOWN:
        answer(u.header.type, 0, u.torndown.gpadl, u.bytes, m->size);
        break;
    case VMBUS_VERSION_RESPONSE:
        answer(u.header.type, 0, 0, u.bytes, m->size);
        break;
    default: // ALL_OFFERS, UNLOAD_RESPONSE: nobody waits for them in a fiber
        break;
    }
}

// One INITIATE_CONTACT. 0: connected; -EPROTONOSUPPORT or -ENXIO: try an older version.
static int contact(uint32_t version)
{
    bool new_style = version >= VMBUS_VERSION_5_0;
    uint64_t pages = virt_to_phys(connection.pages);
    struct vmbus_initiate_contact message = {
        .header.type = VMBUS_INITIATE_CONTACT,
        .version = version,
        .target_vp = core_vp_index(0),
        .target = new_style ? VMBUS_SINT : pages,
        .monitor_to_guest = pages + PAGE_SIZE,
        .monitor_to_host = pages + 2 * PAGE_SIZE,
    };
    struct vmbus_call call = {.answer = VMBUS_VERSION_RESPONSE};

    connection.message_connection = new_style ? VMBUS_CONNECTION_CONTACT : VMBUS_CONNECTION_OLD;
    int r = vmbus_call(&call, &message, sizeof(message), NULL, VMBUS_CONNECT_TIMEOUT);
    if (r)
        return r;
    if (!call.version.supported)
        return -EPROTONOSUPPORT;
    if (call.version.state != 0) {
        log_error("vmbus: host accepts version %u.%u but fails with state %u", version >> 16,
                  version & 0xffff, call.version.state);
        return -EIO;
    }
    if (new_style)
        connection.message_connection = call.version.connection_id;
    connection.version = version;
    return 0;
}

static int negotiate(void)
{
    static const uint32_t versions[] = {
        VMBUS_VERSION_5_3, VMBUS_VERSION_5_2, VMBUS_VERSION_5_1, VMBUS_VERSION_5_0,
        VMBUS_VERSION_4_1, VMBUS_VERSION_4_0, VMBUS_VERSION_3_0, VMBUS_VERSION_2_4,
    };
    int r = -EPROTONOSUPPORT;

    for (unsigned i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        r = contact(versions[i]);
        if (r != -EPROTONOSUPPORT && r != -ENXIO)
            break;
    }
    return r;
}

// The devices by the state they are in.
static void write_devices(void)
{
    static const char *const names[DEVICE_GONE] = {
        [DEVICE_OFFERED] = "offered", [DEVICE_OPENING] = "opening", [DEVICE_RUNNING] = "running",
        [DEVICE_CLOSING] = "closing", [DEVICE_IDLE] = "idle",
    };

    for (unsigned state = 0; state < DEVICE_GONE; state++)
        stats_print("%s\"%s\":%u", state ? "," : "\"devices\":{", names[state],
                    vmbus_devices_in(state));
    stats_print("},");
}

static void stats_write(void)
{
    const struct vmbus_counters *c = &vmbus_counters;

    stats_print("{\"version\":\"%u.%u\",\"messages\":%llu,\"bad_messages\":%llu,"
                "\"unexpected_messages\":%llu,\"posts\":%llu,\"post_retries\":%llu,",
                connection.version >> 16, connection.version & 0xffff,
                (unsigned long long)c->messages, (unsigned long long)c->bad_messages,
                (unsigned long long)c->unexpected_messages, (unsigned long long)c->posts,
                (unsigned long long)c->post_retries);
    stats_print("\"offers\":%llu,\"offers_dropped\":%llu,\"rescinds\":%llu,\"released\":%llu,",
                (unsigned long long)c->offers, (unsigned long long)c->offers_dropped,
                (unsigned long long)c->rescinds, (unsigned long long)c->released);
    write_devices();
    struct bus_counters sum = {0};
    for (unsigned core = 0; core < core_count(); core++) {
        const struct bus_counters *b = vmbus_core_counters(core);
        sum.events += b->events;
        sum.unknown_events += b->unknown_events;
        sum.signals += b->signals;
        sum.signals_refused += b->signals_refused;
    }
    stats_print("\"events\":%llu,\"unknown_events\":%llu,\"signals\":%llu,\"signals_refused\":%llu,"
                "\"leaked_pages\":%llu,\"leaked_requests\":%llu}",
                (unsigned long long)sum.events, (unsigned long long)sum.unknown_events,
                (unsigned long long)sum.signals, (unsigned long long)sum.signals_refused,
                (unsigned long long)c->leaked_pages, (unsigned long long)c->leaked_requests);
}

static struct stats_source stats = {.name = "vmbus", .write = stats_write};

static void control_fiber(void *arg)
{
    struct vmbus_header request = {.type = VMBUS_REQUEST_OFFERS};
    (void)arg;

    connection.state = CONNECTING;
    int r = negotiate();
    if (r) {
        connection.state = DISCONNECTED;
        log_error("vmbus: no connection to the host (%d)", r);
        return;
    }
    connection.state = CONNECTED;
    log_info("vmbus: connected, version %u.%u, messages on connection %u", connection.version >> 16,
             connection.version & 0xffff, connection.message_connection);
    r = vmbus_post(&request, sizeof(request), NULL);
    if (r)
        log_error("vmbus: cannot ask for offers (%d)", r);
    vmbus_offers_run();
}

void vmbus_start(void)
{
    stats_add(&stats);
    connection.pages = page_alloc(3); // the host's for ever
    if (!connection.pages || fiber_spawn("vmbus", control_fiber, NULL) != 0)
        log_error("vmbus: out of memory");
}

static bool take_connection_message(struct hv_message *m)
{
    return core_id() == 0 ? synic_take_message(m) : synic_take_message_of(0, m);
}

// Posts without waiting in a fiber: the loop may never run again.
static bool post_polled(const void *message, size_t len, uint64_t deadline)
{
    for (;;) {
        uint16_t status =
            hv_post_message(connection.message_connection, VMBUS_SYNIC_MESSAGE, message, len);
        struct hv_message drop;

        if (status == HV_STATUS_SUCCESS)
            return true;
        if (!status_retry(status) || time_now() >= deadline)
            return false;
        take_connection_message(&drop); // the host may be blocked by its own full slot
        __builtin_ia32_pause();
    }
}

void vmbus_unload(void)
{
    struct vmbus_header message = {.type = VMBUS_UNLOAD};
    uint64_t deadline = time_now() + VMBUS_UNLOAD_TIMEOUT;
    bool told = connection.state == CONNECTED && connection.version >= VMBUS_VERSION_3_0 &&
                post_polled(&message, sizeof(message), deadline);

    connection.state = UNLOADED;
    while (told && time_now() < deadline) {
        struct hv_message m;
        struct vmbus_header header;

        if (!take_connection_message(&m)) {
            __builtin_ia32_pause();
            continue;
        }
        memcpy(&header, m.payload, sizeof(header));
        if (m.type == VMBUS_SYNIC_MESSAGE && m.size >= sizeof(header) &&
            header.type == VMBUS_UNLOAD_RESPONSE)
            return;
    }
}
