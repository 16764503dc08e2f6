/*
 * hv-ic-heartbeat: asks the guest every two seconds whether it is alive and
 * how its application is.
 *
 * Contact is "none" until the first answer, then "ok", and "lost" while no
 * answer has come for five beats.  The clock is the machine's: a stopped VM
 * misses nothing.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "hv-ic.h"

#define TYPE_HV_IC_HEARTBEAT_DEVICE "hv-ic-heartbeat"
OBJECT_DECLARE_SIMPLE_TYPE(HvIcHeartbeatDevice, HV_IC_HEARTBEAT_DEVICE)

#define PERIOD_MS 2000
#define LOST_MS (5 * PERIOD_MS)

struct HvIcHeartbeatDevice {
    HvIc parent_obj;

    QEMUTimer *timer;
    uint64_t sequence;
    bool answered;              /* on this channel, ever */
    int64_t last_answer_ms;     /* QEMU_CLOCK_VIRTUAL */
    uint32_t application;
    uint64_t missed;            /* beats that found the last one unanswered */
};

static const uint32_t versions[] = {
    HV_IC_VERSION(1, 0), HV_IC_VERSION(3, 0),
};

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

static void beat(void *opaque)
{
    HvIcHeartbeatDevice *s = opaque;
    HvIcHeartbeat body = { .sequence = s->sequence };

    timer_mod(s->timer, now_ms() + PERIOD_MS);
    if (hv_ic_idle(HV_IC(s))) {
        hv_ic_request(HV_IC(s), &body, sizeof(body));
    } else {
        s->missed++;
    }
}

static void heartbeat_ready(HvIc *ic)
{
    HvIcHeartbeatDevice *s = HV_IC_HEARTBEAT_DEVICE(ic);

    s->answered = false;
    s->application = HV_IC_APP_UNKNOWN;
    beat(s);
}

static void heartbeat_answer(HvIc *ic, uint32_t status, const uint8_t *body,
                             uint32_t bytes)
{
    HvIcHeartbeatDevice *s = HV_IC_HEARTBEAT_DEVICE(ic);
    uint64_t sequence;
    uint32_t application;

    if (bytes < 12) {
        hv_ic_fail(ic, "ic-heartbeat", "body of %u bytes", bytes);
        return;
    }
    sequence = ldq_le_p(body);
    application = ldl_le_p(body + 8);
    if (sequence != s->sequence + 1 || application >= HV_IC_APP_STATES) {
        hv_ic_fail(ic, "ic-heartbeat", "sequence %" PRIu64 " to %" PRIu64
                   ", application state %u", sequence, s->sequence,
                   application);
        return;
    }
    s->sequence = sequence;
    s->application = application;
    s->answered = true;
    s->last_answer_ms = now_ms();
}

static void heartbeat_closed(HvIc *ic)
{
    timer_del(HV_IC_HEARTBEAT_DEVICE(ic)->timer);
}

static void heartbeat_stats(HvIc *ic, QDict *out)
{
    static const char *const applications[HV_IC_APP_STATES] = {
        "unknown", "healthy", "critical", "stopped",
    };
    HvIcHeartbeatDevice *s = HV_IC_HEARTBEAT_DEVICE(ic);
    bool alive = ic->state == HV_IC_READY && s->answered;
    int64_t age = now_ms() - s->last_answer_ms;

    qdict_put_str(out, "contact",
                  !alive ? "none" : age > LOST_MS ? "lost" : "ok");
    qdict_put_str(out, "application", applications[s->application]);
    qdict_put_int(out, "missed", s->missed);
    qdict_put_int(out, "last_answer_ms", alive ? age : -1);
}

static void heartbeat_init(Object *obj)
{
    HvIcHeartbeatDevice *s = HV_IC_HEARTBEAT_DEVICE(obj);

    s->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, beat, s);
}

static void heartbeat_finalize(Object *obj)
{
    timer_free(HV_IC_HEARTBEAT_DEVICE(obj)->timer);
}

static void heartbeat_class_init(ObjectClass *klass, void *data)
{
    HvIcClass *ic = HV_IC_CLASS(klass);

    DEVICE_CLASS(klass)->desc = "Hyper-V heartbeat service";
    hv_ic_set_ids(klass, "57164f39-9115-4e78-ab55-382f3bd5422d",
                  "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0");
    ic->name = "heartbeat";
    ic->type = HV_IC_HEARTBEAT;
    ic->versions = versions;
    ic->version_count = ARRAY_SIZE(versions);
    ic->ready = heartbeat_ready;
    ic->answer = heartbeat_answer;
    ic->closed = heartbeat_closed;
    ic->stats = heartbeat_stats;
}

static const TypeInfo heartbeat_type = {
    .name = TYPE_HV_IC_HEARTBEAT_DEVICE,
    .parent = TYPE_HV_IC,
    .instance_size = sizeof(HvIcHeartbeatDevice),
    .instance_init = heartbeat_init,
    .instance_finalize = heartbeat_finalize,
    .class_init = heartbeat_class_init,
};

static void heartbeat_register(void)
{
    type_register_static(&heartbeat_type);
}

type_init(heartbeat_register)
