/*
 * hv-ic-shutdown: asks the guest to power off or to restart.
 *
 * Property "request" (qom-set) takes {"restart": bool, "force": bool,
 * "timeout": seconds, "message": text}, all optional, and fails if the guest
 * cannot be asked.  What it answered is in the statistics; that it has done
 * what it said shows in the machine.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "hv-ic.h"

#define TYPE_HV_IC_SHUTDOWN "hv-ic-shutdown"

#define TIMEOUT_DEFAULT_S 60
#define TIMEOUT_MAX_S 3600

static const uint32_t versions[] = {
    HV_IC_VERSION(1, 0), HV_IC_VERSION(3, 0), HV_IC_VERSION(3, 1),
    HV_IC_VERSION(3, 2),
};

static bool request_build(HvIcShutdown *body, const QDict *dict, Error **errp)
{
    bool restart = false, force = false;
    uint64_t timeout = TIMEOUT_DEFAULT_S;
    const char *text = "";

    if (!hv_ic_get_bool(dict, "restart", &restart, errp) ||
        !hv_ic_get_bool(dict, "force", &force, errp) ||
        !hv_ic_get_uint(dict, "timeout", TIMEOUT_MAX_S, &timeout, errp) ||
        !hv_ic_get_string(dict, "message", &text, errp)) {
        return false;
    }
    memset(body, 0, sizeof(*body));
    body->reason = HV_IC_REASON_PLANNED;
    body->timeout_s = timeout;
    body->flags = (force ? HV_IC_SHUTDOWN_FORCE : 0) |
                  (restart ? HV_IC_SHUTDOWN_RESTART : 0);
    return hv_ic_put_string((uint8_t *)body->text, sizeof(body->text), text,
                            errp);
}

static void set_request(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    HvIc *s = HV_IC(obj);
    g_autoptr(QDict) dict = hv_ic_request_dict(v, name, errp);
    g_autofree HvIcShutdown *body = g_new(HvIcShutdown, 1);

    if (!dict || !hv_ic_check_idle(s, errp) ||
        !request_build(body, dict, errp)) {
        return;
    }
    if (!hv_ic_request(s, body, sizeof(*body))) {
        error_setg(errp, "the guest's ring is too small for the request");
    }
}

static void shutdown_class_init(ObjectClass *klass, void *data)
{
    HvIcClass *ic = HV_IC_CLASS(klass);

    DEVICE_CLASS(klass)->desc = "Hyper-V guest shutdown service";
    hv_ic_set_ids(klass, "0e0b6031-5213-4934-818b-38d90ced39db",
                  "b6650ff7-33bc-4840-8048-e0676786f393");
    ic->name = "shutdown";
    ic->type = HV_IC_SHUTDOWN;
    ic->versions = versions;
    ic->version_count = ARRAY_SIZE(versions);
    object_class_property_add(klass, "request", "any", NULL, set_request,
                              NULL, NULL);
    object_class_property_set_description(klass, "request",
                                          "have the guest power off");
}

static const TypeInfo shutdown_type = {
    .name = TYPE_HV_IC_SHUTDOWN,
    .parent = TYPE_HV_IC,
    .class_init = shutdown_class_init,
};

static void shutdown_register(void)
{
    type_register_static(&shutdown_type);
}

type_init(shutdown_register)
