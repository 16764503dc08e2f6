/*
 * hv-ic: the transport of Hyper-V's integration components.
 *
 * A component has one channel.  When the guest opens it the host offers
 * versions; then it sends requests, one at a time, and the guest answers each
 * by the same message with another flag.  The guest never begins.  A request
 * that is not answered in time is given up; its answer, should it come, is
 * late.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qapi/visitor.h"
#include "qapi/qmp/qbool.h"
#include "qapi/qmp/qnum.h"
#include "qapi/qmp/qstring.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "hv-ic.h"

#define WORK_BUDGET 16

/* As pipe in message mode, in the offer's user data. */
#define PIPE_MESSAGE_MODE 4

static const uint32_t frameworks[] = {
    HV_IC_VERSION(1, 0), HV_IC_VERSION(3, 0),
};

static VMBusChannel *ic_channel(HvIc *s)
{
    return &VMBUS_DEVICE(s)->channels[0];
}

/* The newest framework that goes with the newest message version. */
static uint32_t max_framework(const HvIc *s)
{
    return s->max_version < HV_IC_VERSION(3, 0) ? HV_IC_VERSION(1, 0)
                                                : HV_IC_VERSION(3, 0);
}

/* The end of the request under way; calls no_answer. */
static void request_over(HvIc *s, HvIcOutcome outcome)
{
    HvIcClass *ic = HV_IC_GET_CLASS(s);

    if (s->outcome != HV_IC_PENDING) {
        return;
    }
    timer_del(s->reply_timer);
    s->unsent = false;
    s->outcome = outcome;
    if (s->type != HV_IC_NEGOTIATE && ic->no_answer) {
        ic->no_answer(s);
    }
}

void hv_ic_fail(HvIc *s, const char *rule, const char *fmt, ...)
{
    g_autofree char *detail = NULL;
    va_list ap;

    va_start(ap, fmt);
    detail = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    vmbus_channel_fail(ic_channel(s), rule, "%s: %s",
                       HV_IC_GET_CLASS(s)->name, detail);
    s->state = HV_IC_FAILED;
    request_over(s, HV_IC_CHANNEL_CLOSED);
}

/*
 * Sending
 */

static void reply_timeout(void *opaque)
{
    HvIc *s = opaque;

    set_bit(s->transaction, s->given_up);
    s->timeouts++;
    request_over(s, HV_IC_TIMED_OUT);
}

/* Put the request on the ring as soon as there is room. */
static void message_send(HvIc *s)
{
    VMBusChannel *chan = ic_channel(s);
    VMBusPacketDesc desc = { .type = VMBUS_PACKET_INBAND };
    uint32_t room = vmbus_packet_room(sizeof(desc), s->message_bytes);

    if (!vmbus_ring_has_room(chan, room) && vmbus_channel_usable(chan) &&
        vmbus_ring_wait_room(chan, room)) {
        return;
    }
    if (!vmbus_channel_usable(chan)) {
        return;
    }
    vmbus_ring_put(chan, &desc, sizeof(desc), s->message, s->message_bytes);
    vmbus_ring_commit(chan);
    s->unsent = false;
}

static bool message_begin(HvIc *s, uint16_t type, const void *body,
                          uint32_t bytes)
{
    HvIcPipeHeader pipe = {
        .type = HV_IC_PIPE_DATA,
        .bytes = sizeof(HvIcHeader) + bytes,
    };
    HvIcHeader header = {
        .type = type,
        .body_bytes = bytes,
        .flags = HV_IC_FLAG_TRANSACTION | HV_IC_FLAG_REQUEST,
    };

    assert(bytes <= sizeof(s->message) - HV_IC_HEADERS);
    s->message_bytes = HV_IC_HEADERS + bytes;
    if (vmbus_packet_room(sizeof(VMBusPacketDesc), s->message_bytes) >=
        ic_channel(s)->out.size) {
        return false;
    }
    header.transaction = ++s->transaction;
    if (type != HV_IC_NEGOTIATE) {
        header.framework.major = s->framework >> 16;
        header.framework.minor = s->framework;
        header.version.major = s->version >> 16;
        header.version.minor = s->version;
    }
    clear_bit(s->transaction, s->given_up);
    memcpy(s->message, &pipe, sizeof(pipe));
    memcpy(s->message + sizeof(pipe), &header, sizeof(header));
    memcpy(s->message + HV_IC_HEADERS, body, bytes);

    s->type = type;
    s->outcome = HV_IC_PENDING;
    s->sent_ns = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    s->unsent = true;
    return true;
}

bool hv_ic_check_idle(const HvIc *s, Error **errp)
{
    const char *name = HV_IC_GET_CLASS(s)->name;

    switch (s->state) {
    case HV_IC_CLOSED:
        error_setg(errp, "the guest does not use the %s service", name);
        return false;
    case HV_IC_NEGOTIATING:
        error_setg(errp, "the guest has not chosen a version of the %s "
                   "service yet", name);
        return false;
    case HV_IC_REFUSED:
        error_setg(errp, "the guest knows no version of the %s service that "
                   "is offered", name);
        return false;
    case HV_IC_FAILED:
        error_setg(errp, "the guest broke a rule of the %s service", name);
        return false;
    case HV_IC_READY:
        break;
    }
    if (s->outcome == HV_IC_PENDING) {
        error_setg(errp, "the %s service is busy: the guest has not answered "
                   "the last request yet", name);
        return false;
    }
    return true;
}

bool hv_ic_request(HvIc *s, const void *body, uint32_t bytes)
{
    assert(hv_ic_idle(s));
    if (!message_begin(s, HV_IC_GET_CLASS(s)->type, body, bytes)) {
        return false;
    }
    s->requests++;
    timer_mod(s->reply_timer, s->sent_ns / SCALE_MS + s->reply_timeout_ms);
    vmbus_channel_kick(ic_channel(s));
    return true;
}

static void put_version(uint8_t **pos, uint32_t version)
{
    HvIcWireVersion wire = { .major = version >> 16, .minor = version };

    memcpy(*pos, &wire, sizeof(wire));
    *pos += sizeof(wire);
}

/*
 * Offer versions, oldest first.  There is no limit to the time for an answer:
 * Linux waits for its daemon, a minute if need be.
 */
static void negotiate(HvIc *s)
{
    HvIcClass *ic = HV_IC_GET_CLASS(s);
    uint8_t body[sizeof(HvIcNegotiate) + 16 * sizeof(HvIcWireVersion)];
    HvIcNegotiate counts = { 0 };
    uint8_t *pos = body + sizeof(counts);
    unsigned i;

    assert(ARRAY_SIZE(frameworks) + ic->version_count <= 16);
    for (i = 0; i < ARRAY_SIZE(frameworks); i++) {
        if (frameworks[i] <= max_framework(s)) {
            put_version(&pos, frameworks[i]);
            counts.frameworks++;
        }
    }
    for (i = 0; i < ic->version_count; i++) {
        if (ic->versions[i] <= s->max_version) {
            put_version(&pos, ic->versions[i]);
            counts.versions++;
        }
    }
    memcpy(body, &counts, sizeof(counts));
    message_begin(s, HV_IC_NEGOTIATE, body, pos - body);
    s->state = HV_IC_NEGOTIATING;
}

/*
 * Receiving
 */

static bool framework_offered(const HvIc *s, uint32_t version)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(frameworks); i++) {
        if (frameworks[i] == version) {
            return version <= max_framework(s);
        }
    }
    return false;
}

static bool version_offered(const HvIc *s, uint32_t version)
{
    HvIcClass *ic = HV_IC_GET_CLASS(s);
    unsigned i;

    for (i = 0; i < ic->version_count; i++) {
        if (ic->versions[i] == version) {
            return version <= s->max_version;
        }
    }
    return false;
}

static void negotiated(HvIc *s, const uint8_t *body, uint32_t bytes)
{
    HvIcNegotiate counts;
    HvIcWireVersion wire[2];
    uint32_t framework, version;

    if (bytes < sizeof(counts)) {
        hv_ic_fail(s, "ic-negotiate", "body of %u bytes", bytes);
        return;
    }
    memcpy(&counts, body, sizeof(counts));
    if (!counts.frameworks || !counts.versions) {
        s->state = HV_IC_REFUSED;
        return;
    }
    if (counts.frameworks != 1 || counts.versions != 1 ||
        bytes < sizeof(counts) + sizeof(wire)) {
        hv_ic_fail(s, "ic-negotiate", "%u frameworks, %u versions in %u bytes",
                   counts.frameworks, counts.versions, bytes);
        return;
    }
    memcpy(wire, body + sizeof(counts), sizeof(wire));
    framework = HV_IC_VERSION(wire[0].major, wire[0].minor);
    version = HV_IC_VERSION(wire[1].major, wire[1].minor);
    if (!framework_offered(s, framework) || !version_offered(s, version)) {
        hv_ic_fail(s, "ic-negotiate", "framework %u.%u, version %u.%u: not "
                   "offered", wire[0].major, wire[0].minor, wire[1].major,
                   wire[1].minor);
        return;
    }
    s->framework = framework;
    s->version = version;
    s->state = HV_IC_READY;
    s->outcome = HV_IC_NONE;
    if (HV_IC_GET_CLASS(s)->ready) {
        HV_IC_GET_CLASS(s)->ready(s);
    }
}

/* Is this the answer that is waited for?  If not it is dropped. */
static bool answer_expected(HvIc *s, const HvIcHeader *header)
{
    const char *name = HV_IC_GET_CLASS(s)->name;

    if (header->flags != (HV_IC_FLAG_TRANSACTION | HV_IC_FLAG_RESPONSE)) {
        hyperv_violation("ic-unasked", "%s: message type %u with flags 0x%x is "
                         "no answer", name, header->type, header->flags);
        return false;
    }
    if (test_and_clear_bit(header->transaction, s->given_up)) {
        hyperv_violation("ic-late", "%s: answer %u after %u ms", name,
                         header->transaction, s->reply_timeout_ms);
        return false;
    }
    if (s->outcome != HV_IC_PENDING || s->unsent) {
        hyperv_violation("ic-unasked", "%s: answer %u to nothing", name,
                         header->transaction);
        return false;
    }
    if (header->transaction != s->transaction) {
        hyperv_violation("ic-transaction", "%s: answer %u, request %u", name,
                         header->transaction, s->transaction);
        return false;
    }
    if (header->type != s->type) {
        hyperv_violation("ic-type", "%s: answer of type %u, request of type %u",
                         name, header->type, s->type);
        return false;
    }
    return true;
}

static void packet_handle(HvIc *s, const VMBusPacket *pkt)
{
    HvIcPipeHeader pipe;
    HvIcHeader header;
    const uint8_t *body;

    if (!vmbus_device_message(VMBUS_DEVICE(s))) {
        return;
    }
    if (pkt->type != VMBUS_PACKET_INBAND || pkt->want_completion) {
        hv_ic_fail(s, "ic-packet", "type %u%s", pkt->type,
                   pkt->want_completion ? " with completion" : "");
        return;
    }
    if (pkt->payload_bytes < HV_IC_HEADERS) {
        hv_ic_fail(s, "ic-header", "%u bytes", pkt->payload_bytes);
        return;
    }
    memcpy(&pipe, pkt->payload, sizeof(pipe));
    memcpy(&header, pkt->payload + sizeof(pipe), sizeof(header));
    if (pipe.type != HV_IC_PIPE_DATA || pipe.bytes < sizeof(header) ||
        pipe.bytes > pkt->payload_bytes - sizeof(pipe) ||
        header.body_bytes > pipe.bytes - sizeof(header)) {
        hv_ic_fail(s, "ic-header", "pipe type %u, %u bytes, body of %u in a "
                   "packet of %u", pipe.type, pipe.bytes, header.body_bytes,
                   pkt->payload_bytes);
        return;
    }
    if (!answer_expected(s, &header)) {
        return;
    }

    timer_del(s->reply_timer);
    s->outcome = HV_IC_ANSWERED;
    s->status = header.status;
    body = pkt->payload + HV_IC_HEADERS;
    if (header.type == HV_IC_NEGOTIATE) {
        negotiated(s, body, header.body_bytes);
        return;
    }
    s->answers++;
    s->round_trip_ns = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) - s->sent_ns;
    if (HV_IC_GET_CLASS(s)->answer) {
        HV_IC_GET_CLASS(s)->answer(s, header.status, body, header.body_bytes);
    }
}

/*
 * The channel
 */

static bool ic_work(VMBusChannel *chan)
{
    HvIc *s = HV_IC(chan->dev);
    VMBusPacket pkt;
    unsigned i;

    for (i = 0; i < WORK_BUDGET && vmbus_channel_usable(chan); i++) {
        if (s->unsent) {
            message_send(s);
        }
        if (vmbus_channel_usable(chan) && vmbus_ring_next(chan, &pkt)) {
            packet_handle(s, &pkt);
            if (VMBUS_DEVICE(s)->take_back_due) {
                return false;
            }
            continue;
        }
        if (!vmbus_channel_usable(chan)) {
            break;
        }
        vmbus_ring_release(chan);
        if (vmbus_ring_sleep(chan)) {
            return false;
        }
    }
    if (chan->open && chan->broken) {
        s->state = HV_IC_FAILED;    /* of a broken ring, too */
        request_over(s, HV_IC_CHANNEL_CLOSED);
    }
    return vmbus_channel_usable(chan);
}

static int ic_open_channel(VMBusChannel *chan)
{
    HvIc *s = HV_IC(chan->dev);

    bitmap_zero(s->given_up, 256);
    s->outcome = HV_IC_NONE;
    negotiate(s);
    return 0;
}

static void ic_close_channel(VMBusChannel *chan)
{
    HvIc *s = HV_IC(chan->dev);

    s->state = HV_IC_CLOSED;
    s->version = s->framework = 0;
    request_over(s, HV_IC_CHANNEL_CLOSED);
    if (HV_IC_GET_CLASS(s)->closed) {
        HV_IC_GET_CLASS(s)->closed(s);
    }
}

/*
 * What properties are made of
 */

QDict *hv_ic_request_dict(Visitor *v, const char *name, Error **errp)
{
    QObject *any = NULL;
    QDict *dict;

    if (!visit_type_any(v, name, &any, errp)) {
        return NULL;
    }
    dict = qobject_to(QDict, any);
    if (!dict) {
        error_setg(errp, "%s has to be an object", name);
        qobject_unref(any);
    }
    return dict;
}

bool hv_ic_get_bool(const QDict *dict, const char *key, bool *value,
                    Error **errp)
{
    QObject *any = qdict_get(dict, key);
    QBool *qbool = qobject_to(QBool, any);

    if (any && !qbool) {
        error_setg(errp, "%s has to be true or false", key);
        return false;
    }
    if (qbool) {
        *value = qbool_get_bool(qbool);
    }
    return true;
}

bool hv_ic_get_uint(const QDict *dict, const char *key, uint64_t max,
                    uint64_t *value, Error **errp)
{
    QObject *any = qdict_get(dict, key);
    QNum *num = qobject_to(QNum, any);
    uint64_t number;

    if (!any) {
        return true;
    }
    if (!num || !qnum_get_try_uint(num, &number) || number > max) {
        error_setg(errp, "%s has to be a number up to %" PRIu64, key, max);
        return false;
    }
    *value = number;
    return true;
}

bool hv_ic_get_string(const QDict *dict, const char *key, const char **value,
                      Error **errp)
{
    QObject *any = qdict_get(dict, key);
    QString *string = qobject_to(QString, any);

    if (any && !string) {
        error_setg(errp, "%s has to be text", key);
        return false;
    }
    if (string) {
        *value = qstring_get_str(string);
    }
    return true;
}

uint32_t hv_ic_put_string(uint8_t *out, uint32_t max, const char *text,
                          Error **errp)
{
    glong units = 0;
    g_autofree gunichar2 *wide = g_utf8_to_utf16(text, -1, NULL, &units, NULL);

    if (!wide || (units + 1) * 2 > max) {
        error_setg(errp, "not UTF-8, or more than %u characters: %.40s",
                   max / 2 - 1, text);
        return 0;
    }
    memcpy(out, wide, (units + 1) * 2);
    return (units + 1) * 2;
}

char *hv_ic_take_string(const uint8_t *in, uint32_t max)
{
    uint32_t bytes = 0;
    g_autofree gunichar2 *wide = NULL;

    while (bytes + 2 <= max && lduw_le_p(in + bytes)) {
        bytes += 2;
    }
    if (bytes + 2 > max) {
        return NULL;
    }
    wide = g_memdup2(in, bytes + 2);    /* aligned */
    return g_utf16_to_utf8(wide, -1, NULL, NULL, NULL);
}

/*
 * The device
 */

static void ic_stats(QDict *out, void *opaque)
{
    static const char *const states[] = {
        "closed", "negotiating", "ready", "refused", "failed",
    };
    static const char *const outcomes[] = {
        "none", "pending", "answered", "timed-out", "closed",
    };
    HvIc *s = opaque;
    HvIcClass *ic = HV_IC_GET_CLASS(s);
    g_autofree char *version = g_strdup_printf("%u.%u", s->version >> 16,
                                               s->version & 0xffff);
    g_autofree char *framework = g_strdup_printf("%u.%u", s->framework >> 16,
                                                 s->framework & 0xffff);

    vmbus_device_stats(VMBUS_DEVICE(s), out);
    qdict_put_str(out, "state", states[s->state]);
    qdict_put_str(out, "version", version);
    qdict_put_str(out, "framework", framework);
    qdict_put_int(out, "requests", s->requests);
    qdict_put_int(out, "answers", s->answers);
    qdict_put_int(out, "timeouts", s->timeouts);
    qdict_put_int(out, "round_trip_us", s->round_trip_ns / SCALE_US);
    qdict_put_str(out, "outcome", outcomes[s->outcome]);
    qdict_put_int(out, "status", s->status);
    if (ic->stats) {
        ic->stats(s, out);
    }
}

static void ic_realize(VMBusDevice *vdev, Error **errp)
{
    HvIc *s = HV_IC(vdev);
    HvIcClass *ic = HV_IC_GET_CLASS(s);

    if (!s->max_version) {
        s->max_version = ic->versions[ic->version_count - 1];
    }
    if (!version_offered(s, s->max_version)) {
        error_setg(errp, "%s: there is no version 0x%x", ic->name,
                   s->max_version);
        return;
    }
    vdev->num_channels = 1;
    s->reply_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, reply_timeout, s);
    hyperv_stats_register_service(ic->name, ic_stats, s);
}

static void ic_unrealize(VMBusDevice *vdev)
{
    HvIc *s = HV_IC(vdev);

    hyperv_stats_unregister(HV_IC_GET_CLASS(s)->name);
    timer_free(s->reply_timer);
}

void hv_ic_set_ids(ObjectClass *klass, const char *class_id,
                   const char *instance_id)
{
    if (qemu_uuid_parse(class_id, &VMBUS_DEVICE_CLASS(klass)->class_id) ||
        qemu_uuid_parse(instance_id, &HV_IC_CLASS(klass)->instance_id)) {
        g_assert_not_reached();
    }
}

static void ic_instance_init(Object *obj)
{
    VMBUS_DEVICE(obj)->instance_id = HV_IC_GET_CLASS(obj)->instance_id;
}

static Property ic_props[] = {
    DEFINE_PROP_UINT32("max-version", HvIc, max_version, 0),
    DEFINE_PROP_UINT32("reply-timeout-ms", HvIc, reply_timeout_ms, 60000),
    DEFINE_PROP_END_OF_LIST()
};

static const VMStateDescription ic_vmstate = {
    .name = TYPE_HV_IC,
    .unmigratable = 1,
};

static void ic_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_CLASS(klass);

    dc->vmsd = &ic_vmstate;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, ic_props);
    vdc->offer_flags = VMBUS_OFFER_NAMED_PIPE;
    vdc->offer_pipe_mode = PIPE_MESSAGE_MODE;
    vdc->realize = ic_realize;
    vdc->unrealize = ic_unrealize;
    vdc->open_channel = ic_open_channel;
    vdc->close_channel = ic_close_channel;
    vdc->channel_work = ic_work;
}

static const TypeInfo ic_type = {
    .name = TYPE_HV_IC,
    .parent = TYPE_VMBUS_DEVICE,
    .abstract = true,
    .instance_size = sizeof(HvIc),
    .instance_init = ic_instance_init,
    .class_size = sizeof(HvIcClass),
    .class_init = ic_class_init,
};

static void ic_register(void)
{
    type_register_static(&ic_type);
}

type_init(ic_register)
