/*
 * What the integration components share: the abstract device hv-ic, which
 * negotiates a version on its channel, sends one request at a time and checks
 * the answer.  Each component is a device of its own (hv-ic-shutdown.c,
 * hv-ic-heartbeat.c, hv-ic-timesync.c, hv-ic-kvp.c).
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_IC_H
#define HW_HYPERV_HV_IC_H

#include "qapi/error.h"
#include "hw/hyperv/vmbus.h"
#include "hv-ic-proto.h"

#define TYPE_HV_IC "hv-ic"
OBJECT_DECLARE_TYPE(HvIc, HvIcClass, HV_IC)

/*
 * Legal steps: CLOSED -> NEGOTIATING -> READY or REFUSED; NEGOTIATING, READY ->
 * FAILED; all -> CLOSED.
 */
typedef enum HvIcState {
    HV_IC_CLOSED,           /* the guest has not opened the channel */
    HV_IC_NEGOTIATING,      /* it has not answered yet */
    HV_IC_READY,
    HV_IC_REFUSED,          /* it knows no version that we know */
    HV_IC_FAILED,           /* it broke a rule and is not served any more */
} HvIcState;

/* What became of the last request. */
typedef enum HvIcOutcome {
    HV_IC_NONE,             /* there was none */
    HV_IC_PENDING,
    HV_IC_ANSWERED,
    HV_IC_TIMED_OUT,
    HV_IC_CHANNEL_CLOSED,
} HvIcOutcome;

struct HvIc {
    VMBusDevice parent_obj;

    uint32_t max_version;
    uint32_t reply_timeout_ms;

    HvIcState state;
    uint32_t framework;
    uint32_t version;       /* agreed on; 0 before */

    HvIcOutcome outcome;
    uint32_t status;        /* of the answer */
    uint16_t type;          /* of the request */
    uint8_t transaction;
    int64_t sent_ns;        /* QEMU_CLOCK_VIRTUAL */
    QEMUTimer *reply_timer;
    DECLARE_BITMAP(given_up, 256);      /* requests that timed out */

    uint8_t message[HV_IC_MESSAGE_MAX]; /* the last request, with headers */
    uint32_t message_bytes;
    bool unsent;            /* the ring has no room for it yet */

    uint64_t requests;
    uint64_t answers;
    uint64_t timeouts;
    uint64_t round_trip_ns; /* of the last answer */
};

struct HvIcClass {
    VMBusDeviceClass parent_class;

    const char *name;               /* in the statistics */
    QemuUUID instance_id;
    uint16_t type;                  /* of its messages */
    const uint32_t *versions;       /* that the host speaks, ascending */
    unsigned version_count;

    /* A version is agreed on: requests may be sent. */
    void (*ready)(HvIc *s);
    /* The answer to the request, its @status in s->status as well. */
    void (*answer)(HvIc *s, uint32_t status, const uint8_t *body,
                   uint32_t bytes);
    /* No answer in time, or none to come (s->outcome says which). */
    void (*no_answer)(HvIc *s);
    /* The channel was closed. */
    void (*closed)(HvIc *s);
    void (*stats)(HvIc *s, QDict *out);
};

/* Is the component ready for a request just now? */
static inline bool hv_ic_idle(const HvIc *s)
{
    return s->state == HV_IC_READY && s->outcome != HV_IC_PENDING;
}

/* As hv_ic_idle(), and says in @errp why not. */
bool hv_ic_check_idle(const HvIc *s, Error **errp);

/*
 * Send a request; the component has to be idle.  Answer or no_answer is called
 * later, never from here.  Returns false if the guest's ring is too small.
 */
bool hv_ic_request(HvIc *s, const void *body, uint32_t bytes);

/*
 * The guest's answer breaks @rule: names it and stops serving the channel.
 */
void hv_ic_fail(HvIc *s, const char *rule, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* Set the ids of the VMBus class and instance; both have to be right. */
void hv_ic_set_ids(ObjectClass *klass, const char *class_id,
                   const char *instance_id);

/*
 * Properties "request" take an object.  Its optional members; a wrong type is
 * an error in @errp, absence leaves the default.
 */
QDict *hv_ic_request_dict(Visitor *v, const char *name, Error **errp);
bool hv_ic_get_bool(const QDict *dict, const char *key, bool *value,
                    Error **errp);
bool hv_ic_get_uint(const QDict *dict, const char *key, uint64_t max,
                    uint64_t *value, Error **errp);
bool hv_ic_get_string(const QDict *dict, const char *key, const char **value,
                      Error **errp);

/*
 * UTF-16 with an end into @out of @max bytes.  Returns the bytes with the end,
 * 0 with an error in @errp if it does not fit or is not UTF-8.
 */
uint32_t hv_ic_put_string(uint8_t *out, uint32_t max, const char *text,
                          Error **errp);
/* The string in @in, that ends within @max bytes; NULL if it is malformed. */
char *hv_ic_take_string(const uint8_t *in, uint32_t max);

#endif
