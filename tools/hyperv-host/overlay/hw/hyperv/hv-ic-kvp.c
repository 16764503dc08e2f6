/*
 * hv-ic-kvp: key-value pairs and addresses, exchanged with the guest.
 *
 * Property "request" (qom-set) takes one operation and fails if the guest
 * cannot be asked just now; "result" (qom-get) tells what came of it:
 *
 *   {"operation": "get" | "delete", "pool": POOL, "key": TEXT}
 *   {"operation": "set", "pool": POOL, "key": TEXT, "type": TYPE,
 *    "value": TEXT or number}
 *   {"operation": "enumerate", "pool": POOL, "index": N}
 *   {"operation": "get-ip", "adapter": MAC}
 *   {"operation": "set-ip", "adapter": GUID, "dhcp": bool, "family": 1 to 3,
 *    "address", "subnet", "gateway", "dns": TEXT with ';' between entries}
 *
 * POOL is "external", "guest", "auto" or "auto-external", TYPE "string",
 * "expand-string", "u32" or "u64".  When a version is agreed on the host says
 * what it is in pool "auto-external".
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qapi/visitor.h"
#include "sysemu/sysemu.h"
#include "hv-ic.h"

#define TYPE_HV_IC_KVP_DEVICE "hv-ic-kvp"
OBJECT_DECLARE_SIMPLE_TYPE(HvIcKvpDevice, HV_IC_KVP_DEVICE)

struct HvIcKvpDevice {
    HvIc parent_obj;

    unsigned introduced;    /* keys about the host that have been sent */
    bool introducing;       /* the request under way is one of these */
    uint64_t number;        /* of the request that "result" is about */
    uint8_t operation;
    uint8_t pool;
    QDict *values;          /* of the answer, may be NULL */
};

static const uint32_t versions[] = {
    HV_IC_VERSION(1, 0), HV_IC_VERSION(3, 0), HV_IC_VERSION(4, 0),
};

static const char *const operations[] = {
    [HV_IC_KVP_GET] = "get",
    [HV_IC_KVP_SET] = "set",
    [HV_IC_KVP_DELETE] = "delete",
    [HV_IC_KVP_ENUMERATE] = "enumerate",
    [HV_IC_KVP_GET_IP] = "get-ip",
    [HV_IC_KVP_SET_IP] = "set-ip",
};

static const char *const pools[HV_IC_KVP_POOLS] = {
    [HV_IC_KVP_EXTERNAL] = "external",
    [HV_IC_KVP_GUEST] = "guest",
    [HV_IC_KVP_AUTO] = "auto",
    [HV_IC_KVP_AUTO_EXTERNAL] = "auto-external",
};

static const struct {
    const char *name;
    uint32_t type;
} types[] = {
    { "string", HV_IC_KVP_STRING },
    { "expand-string", HV_IC_KVP_EXPAND_STRING },
    { "u32", HV_IC_KVP_U32 },
    { "u64", HV_IC_KVP_U64 },
};

/* The index of a text among several, -1 with an error if it is none. */
static int choose(const QDict *dict, const char *key, const char *text,
                  const char *const *choices, unsigned count, Error **errp)
{
    unsigned i;

    if (!hv_ic_get_string(dict, key, &text, errp)) {
        return -1;
    }
    for (i = 0; i < count; i++) {
        if (!strcmp(text, choices[i])) {
            return i;
        }
    }
    error_setg(errp, "there is no %s \"%s\"", key, text);
    return -1;
}

/*
 * Requests
 */

static bool put_key(uint8_t *key, uint32_t *bytes, const QDict *dict,
                    Error **errp)
{
    const char *text = "";

    if (!hv_ic_get_string(dict, "key", &text, errp)) {
        return false;
    }
    if (!*text) {
        error_setg(errp, "a key is needed");
        return false;
    }
    *bytes = hv_ic_put_string(key, HV_IC_KVP_KEY_MAX, text, errp);
    return *bytes;
}

static bool put_value(HvIcKvpValue *value, const QDict *dict, Error **errp)
{
    const char *type = "string", *text = "";
    uint64_t number = 0;
    unsigned i;

    if (!put_key(value->key, &value->key_bytes, dict, errp) ||
        !hv_ic_get_string(dict, "type", &type, errp)) {
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(types); i++) {
        if (!strcmp(type, types[i].name)) {
            value->type = types[i].type;
        }
    }
    switch (value->type) {
    case HV_IC_KVP_STRING:
    case HV_IC_KVP_EXPAND_STRING:
        if (!hv_ic_get_string(dict, "value", &text, errp)) {
            return false;
        }
        value->value_bytes = hv_ic_put_string(value->value,
                                              HV_IC_KVP_VALUE_MAX, text, errp);
        return value->value_bytes;
    case HV_IC_KVP_U32:
        value->value_bytes = 4;
        if (!hv_ic_get_uint(dict, "value", UINT32_MAX, &number, errp)) {
            return false;
        }
        stl_le_p(value->value, number);
        return true;
    case HV_IC_KVP_U64:
        value->value_bytes = 8;
        if (!hv_ic_get_uint(dict, "value", UINT64_MAX, &number, errp)) {
            return false;
        }
        stq_le_p(value->value, number);
        return true;
    default:
        error_setg(errp, "there is no type \"%s\"", type);
        return false;
    }
}

static bool request_pairs(HvIcKvpDevice *s, const QDict *dict, Error **errp)
{
    g_autofree HvIcKvp *msg = g_new0(HvIcKvp, 1);
    int pool = choose(dict, "pool", "external", pools, HV_IC_KVP_POOLS, errp);
    uint64_t index = 0;

    if (pool < 0) {
        return false;
    }
    msg->operation = s->operation;
    msg->pool = s->pool = pool;
    switch (s->operation) {
    case HV_IC_KVP_GET:
        if (!put_key(msg->value.key, &msg->value.key_bytes, dict, errp)) {
            return false;
        }
        break;
    case HV_IC_KVP_SET:
        if (!put_value(&msg->value, dict, errp)) {
            return false;
        }
        break;
    case HV_IC_KVP_DELETE:
        if (!put_key(msg->delete.key, &msg->delete.key_bytes, dict, errp)) {
            return false;
        }
        break;
    default:
        if (!hv_ic_get_uint(dict, "index", UINT32_MAX, &index, errp)) {
            return false;
        }
        msg->enumerate.index = index;
        break;
    }
    if (!hv_ic_request(HV_IC(s), msg, sizeof(*msg))) {
        error_setg(errp, "the guest's ring is too small for the request");
        return false;
    }
    return true;
}

static bool put_text(uint8_t *out, uint32_t max, const QDict *dict,
                     const char *key, Error **errp)
{
    const char *text = "";

    return hv_ic_get_string(dict, key, &text, errp) &&
           hv_ic_put_string(out, max, text, errp);
}

static bool request_ip(HvIcKvpDevice *s, const QDict *dict, Error **errp)
{
    g_autofree HvIcKvpIp *msg = g_new0(HvIcKvpIp, 1);
    uint64_t family = 0;
    bool dhcp = false;

    if (HV_IC(s)->version < HV_IC_VERSION(4, 0)) {
        error_setg(errp, "addresses need version 4.0 of the kvp service, the "
                   "guest chose %u.%u", HV_IC(s)->version >> 16,
                   HV_IC(s)->version & 0xffff);
        return false;
    }
    msg->operation = s->operation;
    msg->pool = s->pool = HV_IC_KVP_GUEST;
    if (!hv_ic_get_bool(dict, "dhcp", &dhcp, errp) ||
        !hv_ic_get_uint(dict, "family", 3, &family, errp) ||
        !put_text(msg->adapter, sizeof(msg->adapter), dict, "adapter", errp) ||
        !put_text(msg->address, sizeof(msg->address), dict, "address", errp) ||
        !put_text(msg->subnet, sizeof(msg->subnet), dict, "subnet", errp) ||
        !put_text(msg->gateway, sizeof(msg->gateway), dict, "gateway", errp) ||
        !put_text(msg->dns, sizeof(msg->dns), dict, "dns", errp)) {
        return false;
    }
    msg->family = family;
    msg->dhcp = dhcp;
    if (!hv_ic_request(HV_IC(s), msg, sizeof(*msg))) {
        error_setg(errp, "the guest's ring is too small for the request");
        return false;
    }
    return true;
}

static bool request(HvIcKvpDevice *s, const QDict *dict, Error **errp)
{
    int operation = choose(dict, "operation", "", operations,
                           ARRAY_SIZE(operations), errp);

    if (operation < 0) {
        return false;
    }
    s->operation = operation;
    return operation < HV_IC_KVP_GET_IP ? request_pairs(s, dict, errp)
                                        : request_ip(s, dict, errp);
}

/*
 * The host introduces itself
 */

/* Send the next key about the host, if there is one left. */
static void introduce(HvIcKvpDevice *s)
{
    static const char *const keys[] = {
        "HostName", "PhysicalHostName", "VirtualMachineName",
    };
    g_autoptr(QDict) dict = NULL;

    s->introducing = s->introduced < ARRAY_SIZE(keys);
    if (!s->introducing) {
        return;
    }
    dict = qdict_new();
    qdict_put_str(dict, "operation", "set");
    qdict_put_str(dict, "pool", "auto-external");
    qdict_put_str(dict, "key", keys[s->introduced]);
    qdict_put_str(dict, "value", s->introduced < 2 ? "hyperv-host"
                                                   : qemu_get_vm_name() ?: "");
    s->introduced++;
    s->introducing = request(s, dict, NULL);
}

static void kvp_ready(HvIc *ic)
{
    HvIcKvpDevice *s = HV_IC_KVP_DEVICE(ic);

    s->introduced = 0;
    introduce(s);
}

/*
 * Answers
 */

/* A counted string; NULL if it is malformed. */
static char *take_counted(const uint8_t *in, uint32_t bytes, uint32_t max)
{
    char *text;

    if (!bytes || bytes % 2 || bytes > max || lduw_le_p(in + bytes - 2)) {
        return NULL;
    }
    text = hv_ic_take_string(in, bytes);
    return text;
}

static bool take_value(HvIcKvpDevice *s, const HvIcKvpValue *value)
{
    g_autofree char *text = NULL;

    switch (value->type) {
    case HV_IC_KVP_STRING:
    case HV_IC_KVP_EXPAND_STRING:
        text = take_counted(value->value, value->value_bytes,
                            HV_IC_KVP_VALUE_MAX);
        if (!text) {
            return false;
        }
        qdict_put_str(s->values, "value", text);
        break;
    case HV_IC_KVP_U32:
        if (value->value_bytes != 4) {
            return false;
        }
        qdict_put_int(s->values, "value", ldl_le_p(value->value));
        break;
    case HV_IC_KVP_U64:
        if (value->value_bytes != 8) {
            return false;
        }
        qdict_put_int(s->values, "value", ldq_le_p(value->value));
        break;
    default:
        return false;
    }
    qdict_put_int(s->values, "type", value->type);
    return true;
}

static bool take_key(HvIcKvpDevice *s, const HvIcKvpValue *value)
{
    g_autofree char *text = take_counted(value->key, value->key_bytes,
                                         HV_IC_KVP_KEY_MAX);

    if (!text) {
        return false;
    }
    qdict_put_str(s->values, "key", text);
    return true;
}

static bool take_pairs(HvIcKvpDevice *s, const uint8_t *body, uint32_t bytes)
{
    g_autofree HvIcKvp *msg = NULL;

    if (bytes < sizeof(*msg)) {
        return false;
    }
    msg = g_memdup2(body, sizeof(*msg));    /* aligned */
    if (msg->operation != s->operation || msg->pool != s->pool) {
        return false;
    }
    switch (s->operation) {
    case HV_IC_KVP_GET:
        return take_value(s, &msg->value);
    case HV_IC_KVP_ENUMERATE:
        return take_key(s, &msg->enumerate.value) &&
               take_value(s, &msg->enumerate.value);
    default:
        return true;
    }
}

static bool take_text(HvIcKvpDevice *s, const char *key, const uint8_t *in,
                      uint32_t max)
{
    g_autofree char *text = hv_ic_take_string(in, max);

    if (!text) {
        return false;
    }
    qdict_put_str(s->values, key, text);
    return true;
}

static bool take_ip(HvIcKvpDevice *s, const uint8_t *body, uint32_t bytes)
{
    const HvIcKvpIp *msg = (const HvIcKvpIp *)body;

    if (bytes < sizeof(*msg) || msg->operation != s->operation) {
        return false;
    }
    if (s->operation == HV_IC_KVP_SET_IP) {
        return true;
    }
    qdict_put_int(s->values, "family", msg->family);
    qdict_put_bool(s->values, "dhcp", msg->dhcp);
    return msg->family <= 3 &&
           take_text(s, "address", msg->address, sizeof(msg->address)) &&
           take_text(s, "subnet", msg->subnet, sizeof(msg->subnet)) &&
           take_text(s, "gateway", msg->gateway, sizeof(msg->gateway)) &&
           take_text(s, "dns", msg->dns, sizeof(msg->dns));
}

static void kvp_answer(HvIc *ic, uint32_t status, const uint8_t *body,
                       uint32_t bytes)
{
    HvIcKvpDevice *s = HV_IC_KVP_DEVICE(ic);
    bool good = true;

    qobject_unref(s->values);
    s->values = qdict_new();
    if (!status) {
        good = s->operation < HV_IC_KVP_GET_IP ? take_pairs(s, body, bytes)
                                               : take_ip(s, body, bytes);
    }
    if (!good) {
        hv_ic_fail(ic, "ic-kvp", "malformed answer to \"%s\"",
                   operations[s->operation]);
    } else if (s->introducing) {
        introduce(s);
    }
}

static void kvp_no_answer(HvIc *ic)
{
    HvIcKvpDevice *s = HV_IC_KVP_DEVICE(ic);

    qobject_unref(s->values);
    s->values = NULL;
    s->introducing = false;
}

/*
 * Properties
 */

static void set_request(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    HvIcKvpDevice *s = HV_IC_KVP_DEVICE(obj);
    g_autoptr(QDict) dict = hv_ic_request_dict(v, name, errp);

    if (!dict || !hv_ic_check_idle(HV_IC(s), errp)) {
        return;
    }
    if (request(s, dict, errp)) {
        qobject_unref(s->values);
        s->values = NULL;
        s->number++;
    }
}

static void get_result(Object *obj, Visitor *v, const char *name,
                       void *opaque, Error **errp)
{
    static const char *const outcomes[] = {
        "none", "pending", "answered", "timed-out", "closed",
    };
    HvIcKvpDevice *s = HV_IC_KVP_DEVICE(obj);
    HvIc *ic = HV_IC(s);
    QDict *out = qdict_new();
    QObject *any = QOBJECT(out);

    qdict_put_int(out, "number", s->number);
    qdict_put_str(out, "operation", operations[s->operation]);
    qdict_put_str(out, "outcome", outcomes[ic->outcome]);
    if (ic->outcome == HV_IC_ANSWERED) {
        qdict_put_int(out, "status", ic->status);
        qdict_put(out, "values", s->values ? qobject_ref(s->values)
                                           : qdict_new());
    }
    visit_type_any(v, name, &any, errp);
    qobject_unref(any);
}

static void kvp_finalize(Object *obj)
{
    qobject_unref(HV_IC_KVP_DEVICE(obj)->values);
}

static void kvp_class_init(ObjectClass *klass, void *data)
{
    HvIcClass *ic = HV_IC_CLASS(klass);

    DEVICE_CLASS(klass)->desc = "Hyper-V key-value pair service";
    hv_ic_set_ids(klass, "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6",
                  "242ff919-07db-4180-9c2e-b86cb68c8c55");
    ic->name = "kvp";
    ic->type = HV_IC_KVP;
    ic->versions = versions;
    ic->version_count = ARRAY_SIZE(versions);
    ic->ready = kvp_ready;
    ic->answer = kvp_answer;
    ic->no_answer = kvp_no_answer;
    object_class_property_add(klass, "request", "any", NULL, set_request,
                              NULL, NULL);
    object_class_property_set_description(klass, "request",
                                          "one operation on the guest's keys");
    object_class_property_add(klass, "result", "any", get_result, NULL,
                              NULL, NULL);
    object_class_property_set_description(klass, "result",
                                          "what came of the last request");
}

static const TypeInfo kvp_type = {
    .name = TYPE_HV_IC_KVP_DEVICE,
    .parent = TYPE_HV_IC,
    .instance_size = sizeof(HvIcKvpDevice),
    .instance_finalize = kvp_finalize,
    .class_init = kvp_class_init,
};

static void kvp_register(void)
{
    type_register_static(&kvp_type);
}

type_init(kvp_register)
