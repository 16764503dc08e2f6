/*
 * hv-ic-timesync: tells the guest what time it is: "set your clock" when it
 * has agreed on a version and when the machine goes on after a stop, then a
 * sample every five seconds.
 *
 * The host's clock as this guest is told it can be moved ("clock-offset-us")
 * and made to run fast or slow ("clock-rate-ppm").  Property "request"
 * (qom-set) takes {"sync": bool} and sends a message at once.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qapi/visitor.h"
#include "sysemu/runstate.h"
#include "hw/hyperv/hyperv-host.h"
#include "hv-ic.h"

#define TYPE_HV_IC_TIMESYNC "hv-ic-timesync"
OBJECT_DECLARE_SIMPLE_TYPE(HvIcTimesync, HV_IC_TIMESYNC)

#define PERIOD_MS 5000
#define RATE_MAX_PPM 100000
/* A thousand years; keeps sums in range. */
#define OFFSET_MAX_US (1000ll * 366 * 24 * 3600 * 1000000)

struct HvIcTimesync {
    HvIc parent_obj;

    QEMUTimer *timer;
    VMChangeStateEntry *vm_change;
    bool sync_owed;         /* the next message says "now" */
    /* The clock: host time at @rate_since, and how it goes on from there. */
    int64_t offset_us;
    int64_t rate_ppm;
    int64_t rate_since_ns;  /* QEMU_CLOCK_HOST */
    uint64_t syncs;
    uint64_t samples;
};

static const uint32_t versions[] = {
    HV_IC_VERSION(1, 0), HV_IC_VERSION(3, 0), HV_IC_VERSION(4, 0),
};

/* What the clock has gained since its rate was set, in ns. */
static int64_t rate_gain_ns(const HvIcTimesync *s, int64_t now_ns)
{
    return (now_ns - s->rate_since_ns) / 1000000 * s->rate_ppm;
}

/* The host's time for this guest, in 100 ns since 1601. */
static uint64_t host_time(const HvIcTimesync *s)
{
    int64_t ns = qemu_clock_get_ns(QEMU_CLOCK_HOST);

    return HV_IC_UNIX_EPOCH + (ns + rate_gain_ns(s, ns)) / 100 +
           s->offset_us * 10;
}

static void send_time(HvIcTimesync *s)
{
    HvIc *ic = HV_IC(s);
    uint8_t flags = s->sync_owed ? HV_IC_TIME_SYNC_NOW : HV_IC_TIME_SAMPLE;
    HvIcTime old = {
        .round_trip = ic->round_trip_ns / 100,
        .flags = flags,
    };
    HvIcTimeRef new = { .flags = flags };

    if (!hv_ic_idle(ic)) {
        return;     /* the timer comes again */
    }
    if (ic->version < HV_IC_VERSION(4, 0)) {
        old.host_time = host_time(s);
        hv_ic_request(ic, &old, sizeof(old));
    } else {
        new.reference_time = hyperv_reference_time();
        new.host_time = host_time(s);
        hv_ic_request(ic, &new, sizeof(new));
    }
    *(s->sync_owed ? &s->syncs : &s->samples) += 1;
    s->sync_owed = false;
}

static void send_timer(void *opaque)
{
    HvIcTimesync *s = opaque;

    timer_mod(s->timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + PERIOD_MS);
    send_time(s);
}

static void timesync_ready(HvIc *ic)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(ic);

    s->sync_owed = true;
    send_timer(s);
}

static void timesync_answer(HvIc *ic, uint32_t status, const uint8_t *body,
                            uint32_t bytes)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(ic);

    if (s->sync_owed) {
        send_time(s);
    }
}

static void timesync_closed(HvIc *ic)
{
    timer_del(HV_IC_TIMESYNC(ic)->timer);
}

/* Time went on while the machine stood still. */
static void vm_changed(void *opaque, bool running, RunState state)
{
    HvIcTimesync *s = opaque;

    if (running && HV_IC(s)->state == HV_IC_READY) {
        s->sync_owed = true;
        send_time(s);
    }
}

static void set_request(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(obj);
    g_autoptr(QDict) dict = hv_ic_request_dict(v, name, errp);
    bool sync = true;

    if (dict && hv_ic_check_idle(HV_IC(s), errp) &&
        hv_ic_get_bool(dict, "sync", &sync, errp)) {
        s->sync_owed = sync;
        send_time(s);
    }
}

static void get_offset(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    visit_type_int64(v, name, &HV_IC_TIMESYNC(obj)->offset_us, errp);
}

static void set_offset(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(obj);
    int64_t value;

    if (!visit_type_int64(v, name, &value, errp)) {
        return;
    }
    if (value > OFFSET_MAX_US || value < -OFFSET_MAX_US) {
        error_setg(errp, "%s is out of range", name);
        return;
    }
    s->offset_us = value;
    s->rate_since_ns = qemu_clock_get_ns(QEMU_CLOCK_HOST);
}

static void get_rate(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    visit_type_int64(v, name, &HV_IC_TIMESYNC(obj)->rate_ppm, errp);
}

static void set_rate(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(obj);
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    int64_t value;

    if (!visit_type_int64(v, name, &value, errp)) {
        return;
    }
    if (value > RATE_MAX_PPM || value < -RATE_MAX_PPM) {
        error_setg(errp, "%s has to be within %d", name, RATE_MAX_PPM);
        return;
    }
    /* the clock itself does not jump */
    s->offset_us += rate_gain_ns(s, now) / 1000;
    s->rate_since_ns = now;
    s->rate_ppm = value;
}

static void timesync_stats(HvIc *ic, QDict *out)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(ic);

    qdict_put_int(out, "host_time", host_time(s));
    qdict_put_int(out, "clock_offset_us", s->offset_us);
    qdict_put_int(out, "clock_rate_ppm", s->rate_ppm);
    qdict_put_int(out, "syncs", s->syncs);
    qdict_put_int(out, "samples", s->samples);
}

static void timesync_init(Object *obj)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(obj);

    s->rate_since_ns = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    s->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, send_timer, s);
    s->vm_change = qemu_add_vm_change_state_handler(vm_changed, s);
}

static void timesync_finalize(Object *obj)
{
    HvIcTimesync *s = HV_IC_TIMESYNC(obj);

    qemu_del_vm_change_state_handler(s->vm_change);
    timer_free(s->timer);
}

static void timesync_class_init(ObjectClass *klass, void *data)
{
    HvIcClass *ic = HV_IC_CLASS(klass);

    DEVICE_CLASS(klass)->desc = "Hyper-V time synchronization service";
    hv_ic_set_ids(klass, "9527e630-d0ae-497b-adce-e80ab0175caf",
                  "2dd1ce17-079e-403c-b352-a1921ee207ee");
    ic->name = "timesync";
    ic->type = HV_IC_TIME_SYNC;
    ic->versions = versions;
    ic->version_count = ARRAY_SIZE(versions);
    ic->ready = timesync_ready;
    ic->answer = timesync_answer;
    ic->closed = timesync_closed;
    ic->stats = timesync_stats;
    object_class_property_add(klass, "request", "any", NULL, set_request,
                              NULL, NULL);
    object_class_property_set_description(klass, "request",
                                          "tell the guest the time now");
    object_class_property_add(klass, "clock-offset-us", "int64", get_offset,
                              set_offset, NULL, NULL);
    object_class_property_set_description(klass, "clock-offset-us",
                                          "added to the host's time");
    object_class_property_add(klass, "clock-rate-ppm", "int64", get_rate,
                              set_rate, NULL, NULL);
    object_class_property_set_description(klass, "clock-rate-ppm",
                                          "how much faster the clock runs");
}

static const TypeInfo timesync_type = {
    .name = TYPE_HV_IC_TIMESYNC,
    .parent = TYPE_HV_IC,
    .instance_size = sizeof(HvIcTimesync),
    .instance_init = timesync_init,
    .instance_finalize = timesync_finalize,
    .class_init = timesync_class_init,
};

static void timesync_register(void)
{
    type_register_static(&timesync_type);
}

type_init(timesync_register)
