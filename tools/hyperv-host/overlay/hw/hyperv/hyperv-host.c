/*
 * /machine/hyperv: counters readable over QMP, and the log of broken rules.
 *
 * Used by all other parts of the emulated Hyper-V through hyperv-host.h; the
 * object is made by the first vCPU that has hyperv=on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qmp/qlist.h"
#include "qom/object.h"
#include "hw/boards.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/hyperv-host-internal.h"

#define TYPE_HYPERV_HOST "hyperv-host"

/* Lines printed for one rule; all violations are counted. */
#define VIOLATION_LINES_MAX 100

typedef struct HvStatsSource {
    char *name;
    bool service;
    HvStatsFn fn;
    void *opaque;
    QTAILQ_ENTRY(HvStatsSource) link;
} HvStatsSource;

static QTAILQ_HEAD(, HvStatsSource) sources = QTAILQ_HEAD_INITIALIZER(sources);
static const HvPartitionOps *partition;

static QemuMutex violations_lock;
static GHashTable *violations; /* rule -> count */

static void __attribute__((constructor)) hyperv_host_init(void)
{
    qemu_mutex_init(&violations_lock);
    violations = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

void hyperv_violation(const char *rule, const char *fmt, ...)
{
    size_t count;
    g_autofree char *detail = NULL;
    va_list ap;

    va_start(ap, fmt);
    detail = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    QEMU_LOCK_GUARD(&violations_lock);
    count = GPOINTER_TO_SIZE(g_hash_table_lookup(violations, rule)) + 1;
    g_hash_table_insert(violations, g_strdup(rule), GSIZE_TO_POINTER(count));
    if (count <= VIOLATION_LINES_MAX) {
        fprintf(stderr, "hyperv-host: violation: %s: %s\n", rule, detail);
    }
    if (count == VIOLATION_LINES_MAX) {
        fprintf(stderr, "hyperv-host: violation: %s: further ones are only counted\n", rule);
    }
}

static void register_source(const char *name, bool service, HvStatsFn fn, void *opaque)
{
    HvStatsSource *source = g_new0(HvStatsSource, 1);

    source->name = g_strdup(name);
    source->service = service;
    source->fn = fn;
    source->opaque = opaque;
    QTAILQ_INSERT_TAIL(&sources, source, link);
}

void hyperv_stats_register(const char *name, HvStatsFn fn, void *opaque)
{
    register_source(name, false, fn, opaque);
}

void hyperv_stats_register_service(const char *name, HvStatsFn fn, void *opaque)
{
    register_source(name, true, fn, opaque);
}

void hyperv_stats_unregister(const char *name)
{
    HvStatsSource *source, *next;

    QTAILQ_FOREACH_SAFE(source, &sources, link, next) {
        if (!strcmp(source->name, name)) {
            QTAILQ_REMOVE(&sources, source, link);
            g_free(source->name);
            g_free(source);
        }
    }
}

static QDict *stats_violations(void)
{
    QDict *out = qdict_new();
    GHashTableIter iter;
    gpointer rule, count;

    QEMU_LOCK_GUARD(&violations_lock);
    g_hash_table_iter_init(&iter, violations);
    while (g_hash_table_iter_next(&iter, &rule, &count)) {
        qdict_put_int(out, rule, GPOINTER_TO_SIZE(count));
    }
    return out;
}

static void hyperv_host_get_stats(Object *obj, Visitor *v, const char *name, void *opaque,
                                  Error **errp)
{
    QDict *out = qdict_new();
    QDict *devices = qdict_new();
    QDict *services = qdict_new();
    QObject *any = QOBJECT(out);
    HvStatsSource *source;

    partition->stats(out);
    QTAILQ_FOREACH(source, &sources, link) {
        QDict *item = qdict_new();

        source->fn(item, source->opaque);
        qdict_put(source->service ? services : devices, source->name, item);
    }
    qdict_put(out, "devices", devices);
    qdict_put(out, "services", services);
    qdict_put(out, "violations", stats_violations());
    visit_type_any(v, name, &any, errp);
    qobject_unref(any);
}

static void hyperv_host_get_tsc_khz(Object *obj, Visitor *v, const char *name, void *opaque,
                                    Error **errp)
{
    uint64_t khz = partition->get_tsc_khz();

    visit_type_uint64(v, name, &khz, errp);
}

static void hyperv_host_set_tsc_khz(Object *obj, Visitor *v, const char *name, void *opaque,
                                    Error **errp)
{
    uint64_t khz;

    if (visit_type_uint64(v, name, &khz, errp)) {
        partition->set_tsc_khz(khz, errp);
    }
}

static void hyperv_host_leap(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    uint64_t ms;

    if (visit_type_uint64(v, name, &ms, errp)) {
        partition->leap(ms, errp);
    }
}

void hyperv_host_create(const HvPartitionOps *ops)
{
    Object *obj;

    if (partition) {
        return;
    }
    partition = ops;
    obj = object_new(TYPE_HYPERV_HOST);
    object_property_add_child(qdev_get_machine(), "hyperv", obj);
    object_unref(obj);
}

static void hyperv_host_class_init(ObjectClass *klass, void *data)
{
    object_class_property_add(klass, "stats", "any", hyperv_host_get_stats, NULL, NULL, NULL);
    object_class_property_set_description(klass, "stats", "counters and violated rules");
    object_class_property_add(klass, "tsc-khz", "uint64", hyperv_host_get_tsc_khz,
                              hyperv_host_set_tsc_khz, NULL, NULL);
    object_class_property_set_description(klass, "tsc-khz",
                                          "frequency of the guest's TSC, changed as by a migration");
    object_class_property_add(klass, "leap-ms", "uint64", NULL, hyperv_host_leap, NULL, NULL);
    object_class_property_set_description(klass, "leap-ms",
                                          "TSC and reference time of a stopped VM go on by so much");
}

static const TypeInfo hyperv_host_info = {
    .name = TYPE_HYPERV_HOST,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(Object),
    .class_init = hyperv_host_class_init,
};

static void hyperv_host_register_types(void)
{
    type_register_static(&hyperv_host_info);
}

type_init(hyperv_host_register_types)
