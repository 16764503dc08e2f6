/*
 * The Hyper-V synthetic interrupt controller (SynIC), and the message and
 * event connections behind the PostMessage and SignalEvent hypercalls.
 *
 * Replaces QEMU's file of the same name, which needs KVM.  Devices call the
 * functions of hw/hyperv/hyperv.h, the accelerator those of hw/hyperv/synic.h.
 *
 * The host writes a VP's message and event pages while the guest runs, from
 * whatever thread has something to say.  One mutex per SynIC keeps writers
 * apart; towards the guest the order of atomic accesses decides (try_deliver).
 * Lock order: BQL, then the SynIC's mutex.  Interrupts need the BQL, so they
 * are only noted under the mutex and injected after it has been released.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "exec/ram_addr.h"
#include "sysemu/reset.h"
#include "cpu.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/synic.h"

#define PAGE_SIZE_HV 4096

struct SynICState {
    DeviceState parent_obj;

    CPUState *cs;

    QemuMutex lock;
    /* Written by the vCPU under the lock, read by anybody. */
    uint64_t control;
    uint64_t simp;
    uint64_t siefp;
    uint64_t sint[HV_SINT_COUNT];
    /* Messages that wait for their slot to become free; under the lock. */
    QSIMPLEQ_HEAD(, HvSintPost) waiting[HV_SINT_COUNT];

    HvOverlay msg_overlay;
    HvOverlay event_overlay;

    uint64_t messages;
    uint64_t messages_waited;
    uint64_t messages_refused;
    uint64_t events;
    uint64_t events_coalesced;
    uint64_t events_lost;
    uint64_t eoms;
};

#define TYPE_SYNIC "hyperv-synic"
OBJECT_DECLARE_SIMPLE_TYPE(SynICState, SYNIC)

static SynICState *synics[HYPERV_MAX_VPS];
static bool synic_enabled;

bool hyperv_is_synic_enabled(void)
{
    return synic_enabled;
}

static SynICState *synic_of(uint32_t vp)
{
    return vp < HYPERV_MAX_VPS ? synics[vp] : NULL;
}

/* --- Overlay pages ------------------------------------------------------ */

void hyperv_overlay_init(HvOverlay *overlay, Object *owner, const char *name, bool readonly)
{
    memory_region_init_ram(&overlay->mr, owner, name, PAGE_SIZE_HV, &error_abort);
    memory_region_set_readonly(&overlay->mr, readonly);
    overlay->page = memory_region_get_ram_ptr(&overlay->mr);
}

/* BQL held, all vCPUs stopped or not yet running. */
static void overlay_update(HvOverlay *overlay, uint64_t msr)
{
    hwaddr gpa = msr & ~(uint64_t)(PAGE_SIZE_HV - 1);
    bool map = msr & 1;

    if (overlay->mapped && (!map || overlay->gpa != gpa)) {
        memory_region_del_subregion(get_system_memory(), &overlay->mr);
        overlay->mapped = false;
    }
    if (map && !overlay->mapped) {
        memory_region_add_subregion_overlap(get_system_memory(), gpa, &overlay->mr, 1);
        overlay->mapped = true;
        overlay->gpa = gpa;
    }
}

void hyperv_overlay_reset(HvOverlay *overlay)
{
    overlay_update(overlay, 0);
}

struct overlay_work {
    HvOverlay *overlay;
    uint64_t msr;
};

static void overlay_work(CPUState *cs, run_on_cpu_data data)
{
    struct overlay_work *work = data.host_ptr;

    qemu_mutex_lock_iothread();
    overlay_update(work->overlay, work->msr);
    qemu_mutex_unlock_iothread();
    g_free(work);
}

void hyperv_overlay_set(HvOverlay *overlay, CPUState *cs, uint64_t msr)
{
    struct overlay_work *work = g_new(struct overlay_work, 1);

    /*
     * A change of the memory map is not safe against running vCPUs, so it
     * waits until all of them are between two instruction blocks.
     */
    work->overlay = overlay;
    work->msr = msr;
    async_safe_run_on_cpu(cs, overlay_work, RUN_ON_CPU_HOST_PTR(work));
}

bool hyperv_overlay_mappable(uint64_t msr)
{
    hwaddr xlat, len = PAGE_SIZE_HV;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, msr & ~(uint64_t)(PAGE_SIZE_HV - 1),
                                 &xlat, &len, false, MEMTXATTRS_UNSPECIFIED);
    return memory_region_is_ram(mr) && len == PAGE_SIZE_HV;
}

bool hyperv_read_ram(hwaddr gpa, void *buf, hwaddr len)
{
    RCU_READ_LOCK_GUARD();
    while (len) {
        hwaddr xlat, part = len;
        MemoryRegion *mr = address_space_translate(&address_space_memory, gpa, &xlat, &part, false,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (!memory_region_is_ram(mr)) {
            return false;
        }
        memcpy(buf, memory_region_get_ram_ptr(mr) + xlat, part);
        buf += part;
        gpa += part;
        len -= part;
    }
    return true;
}

/* --- Interrupts --------------------------------------------------------- */

static void inject(SynICState *synic, uint8_t vector)
{
    int apic_id = X86_CPU(synic->cs)->apic_id;

    if (qemu_mutex_iothread_locked()) {
        apic_deliver_irq(apic_id, 0, APIC_DM_FIXED, vector, APIC_TRIGGER_EDGE);
        return;
    }
    qemu_mutex_lock_iothread();
    hyperv_kick_deferred = true;
    apic_deliver_irq(apic_id, 0, APIC_DM_FIXED, vector, APIC_TRIGGER_EDGE);
    hyperv_kick_deferred = false;
    qemu_mutex_unlock_iothread();
    /* a halted vCPU that wakes up takes the BQL first of all */
    if (!qemu_cpu_is_self(synic->cs)) {
        qemu_cpu_kick(synic->cs);
    }
}

void hyperv_synic_inject(uint32_t vp, uint8_t vector)
{
    inject(synic_of(vp), vector);
}

/* Inject the SINTs noted in @raise, a bit mask.  SynIC's lock not held. */
static void raise_sints(SynICState *synic, uint32_t raise)
{
    while (raise) {
        unsigned n = ctz32(raise);
        uint64_t sint = qatomic_read(&synic->sint[n]);

        raise &= raise - 1;
        /* In polling mode (bit 18) the guest looks for itself. */
        if (!(sint & (HV_SINT_MASKED | BIT(18)))) {
            inject(synic, sint & HV_SINT_VECTOR_MASK);
        }
    }
}

static bool sint_open(SynICState *synic, unsigned sint)
{
    return (qatomic_read(&synic->control) & HV_SYNIC_ENABLE) &&
           !(qatomic_read(&synic->sint[sint]) & HV_SINT_MASKED);
}

bool hyperv_synic_auto_eoi(uint32_t vp, uint8_t vector)
{
    SynICState *synic = synic_of(vp);

    for (unsigned i = 0; i < HV_SINT_COUNT; i++) {
        uint64_t sint = qatomic_read(&synic->sint[i]);

        if ((sint & HV_SINT_AUTO_EOI) && !(sint & HV_SINT_MASKED) &&
            (sint & HV_SINT_VECTOR_MASK) == vector) {
            return true;
        }
    }
    return false;
}

/* --- Messages ----------------------------------------------------------- */

/*
 * Put @msg into the slot if the guest has emptied it.  The guest empties the
 * slot (type = 0), then looks at the pending flag; we set the flag, then look
 * at the type again.  With a full barrier on each side one of the two always
 * sees the other, and no message is left behind.  Lock held.
 */
static bool try_deliver(SynICState *synic, unsigned sint, const struct hyperv_message *msg,
                        bool more)
{
    struct hyperv_message_page *page = synic->msg_overlay.page;
    struct hyperv_message *slot = &page->slot[sint];
    struct hyperv_message_header header = msg->header;

    if (qatomic_load_acquire(&slot->header.message_type) != HV_MESSAGE_NONE) {
        qatomic_or(&slot->header.message_flags, HV_MESSAGE_FLAG_PENDING);
        smp_mb();
        if (qatomic_load_acquire(&slot->header.message_type) != HV_MESSAGE_NONE) {
            return false;
        }
    }
    memcpy(slot->payload, msg->payload, sizeof(slot->payload));
    slot->header.payload_size = header.payload_size;
    slot->header.sender = header.sender;
    memset(slot->header._reserved, 0, sizeof(slot->header._reserved));
    qatomic_set(&slot->header.message_flags, more ? HV_MESSAGE_FLAG_PENDING : 0);
    qatomic_store_release(&slot->header.message_type, header.message_type);
    synic->messages++;
    return true;
}

typedef QSIMPLEQ_HEAD(, HvSintPost) HvSintPostList;

/*
 * Move messages from the queue of @sint on: into the slot, or out with an
 * error if the SINT can take none.  What is finished goes to the lists; the
 * caller reports it once the lock is gone.  Returns true to raise the SINT.
 */
static bool drain(SynICState *synic, unsigned sint, HvSintPostList *sent, HvSintPostList *failed)
{
    HvSintPost *post;

    if (QSIMPLEQ_EMPTY(&synic->waiting[sint])) {
        return false;
    }
    if (!(synic->simp & HV_SIMP_ENABLE) || !sint_open(synic, sint)) {
        while ((post = QSIMPLEQ_FIRST(&synic->waiting[sint]))) {
            QSIMPLEQ_REMOVE_HEAD(&synic->waiting[sint], link);
            QSIMPLEQ_INSERT_TAIL(failed, post, link);
            synic->messages_refused++;
        }
        return false;
    }
    post = QSIMPLEQ_FIRST(&synic->waiting[sint]);
    if (!try_deliver(synic, sint, &post->msg, QSIMPLEQ_NEXT(post, link) != NULL)) {
        return false;
    }
    QSIMPLEQ_REMOVE_HEAD(&synic->waiting[sint], link);
    QSIMPLEQ_INSERT_TAIL(sent, post, link);
    return true;
}

/* Finish what drain() collected.  SynIC's lock not held. */
static void report(HvSintPostList *list, int status)
{
    HvSintPost *post;

    while ((post = QSIMPLEQ_FIRST(list))) {
        QSIMPLEQ_REMOVE_HEAD(list, link);
        post->done(post, status);
    }
}

void hyperv_synic_post(uint32_t vp, unsigned sint, HvSintPost *post)
{
    SynICState *synic = synic_of(vp);
    HvSintPostList sent = QSIMPLEQ_HEAD_INITIALIZER(sent);
    HvSintPostList failed = QSIMPLEQ_HEAD_INITIALIZER(failed);
    bool raise;

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        QSIMPLEQ_INSERT_TAIL(&synic->waiting[sint], post, link);
        raise = drain(synic, sint, &sent, &failed);
        if (!QSIMPLEQ_EMPTY(&synic->waiting[sint])) {
            synic->messages_waited++;
        }
    }
    raise_sints(synic, raise ? BIT(sint) : 0);
    report(&sent, 0);
    report(&failed, -ENXIO);
}

/* Look at all queues again: the guest has changed something. */
static void rescan(SynICState *synic)
{
    HvSintPostList sent = QSIMPLEQ_HEAD_INITIALIZER(sent);
    HvSintPostList failed = QSIMPLEQ_HEAD_INITIALIZER(failed);
    uint32_t raise = 0;

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        for (unsigned i = 0; i < HV_SINT_COUNT; i++) {
            if (drain(synic, i, &sent, &failed)) {
                raise |= BIT(i);
            }
        }
    }
    raise_sints(synic, raise);
    report(&sent, 0);
    report(&failed, -ENXIO);
}

void hyperv_synic_eom(uint32_t vp)
{
    SynICState *synic = synic_of(vp);

    qatomic_set(&synic->eoms, synic->eoms + 1);
    rescan(synic);
}

/* --- MSRs --------------------------------------------------------------- */

uint64_t hyperv_synic_get_control(uint32_t vp)
{
    return synic_of(vp)->control;
}

void hyperv_synic_set_control(uint32_t vp, uint64_t value)
{
    SynICState *synic = synic_of(vp);

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        qatomic_set(&synic->control, value);
    }
    rescan(synic);
}

uint64_t hyperv_synic_get_simp(uint32_t vp)
{
    return synic_of(vp)->simp;
}

void hyperv_synic_set_simp(uint32_t vp, uint64_t value)
{
    SynICState *synic = synic_of(vp);

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        /* What a former owner of the page left unread is not for the new one. */
        if ((value & HV_SIMP_ENABLE) && !(synic->simp & HV_SIMP_ENABLE)) {
            memset(synic->msg_overlay.page, 0, PAGE_SIZE_HV);
        }
        synic->simp = value;
        hyperv_overlay_set(&synic->msg_overlay, synic->cs, value);
    }
    rescan(synic);
}

uint64_t hyperv_synic_get_siefp(uint32_t vp)
{
    return synic_of(vp)->siefp;
}

void hyperv_synic_set_siefp(uint32_t vp, uint64_t value)
{
    SynICState *synic = synic_of(vp);

    QEMU_LOCK_GUARD(&synic->lock);
    if ((value & HV_SIEFP_ENABLE) && !(synic->siefp & HV_SIEFP_ENABLE)) {
        memset(synic->event_overlay.page, 0, PAGE_SIZE_HV);
    }
    qatomic_set(&synic->siefp, value);
    hyperv_overlay_set(&synic->event_overlay, synic->cs, value);
}

uint64_t hyperv_synic_get_sint(uint32_t vp, unsigned sint)
{
    return synic_of(vp)->sint[sint];
}

void hyperv_synic_set_sint(uint32_t vp, unsigned sint, uint64_t value)
{
    SynICState *synic = synic_of(vp);

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        qatomic_set(&synic->sint[sint], value);
    }
    rescan(synic);
}

void hyperv_synic_stats(uint32_t vp, QDict *out)
{
    SynICState *synic = synic_of(vp);

    QEMU_LOCK_GUARD(&synic->lock);
    qdict_put_int(out, "messages", synic->messages);
    qdict_put_int(out, "messages_waited", synic->messages_waited);
    qdict_put_int(out, "messages_refused", synic->messages_refused);
    qdict_put_int(out, "events", qatomic_read(&synic->events));
    qdict_put_int(out, "events_coalesced", qatomic_read(&synic->events_coalesced));
    qdict_put_int(out, "events_lost", qatomic_read(&synic->events_lost));
    qdict_put_int(out, "eoms", qatomic_read(&synic->eoms));
}

/* --- The device --------------------------------------------------------- */

static void synic_realize(DeviceState *dev, Error **errp)
{
    SynICState *synic = SYNIC(dev);
    uint32_t vp = hyperv_vp_index(synic->cs);
    g_autofree char *msg_name = g_strdup_printf("synic-%u-msg-page", vp);
    g_autofree char *event_name = g_strdup_printf("synic-%u-event-page", vp);

    qemu_mutex_init(&synic->lock);
    for (unsigned i = 0; i < HV_SINT_COUNT; i++) {
        QSIMPLEQ_INIT(&synic->waiting[i]);
        synic->sint[i] = HV_SINT_MASKED;
    }
    hyperv_overlay_init(&synic->msg_overlay, OBJECT(dev), msg_name, false);
    hyperv_overlay_init(&synic->event_overlay, OBJECT(dev), event_name, false);
    synics[vp] = synic;
}

/*
 * System reset; INIT does not come here and leaves the SynIC as it is.
 * vCPUs are stopped.  Messages under way fail.
 */
static void synic_reset(DeviceState *dev)
{
    SynICState *synic = SYNIC(dev);

    WITH_QEMU_LOCK_GUARD(&synic->lock) {
        qatomic_set(&synic->control, 0);
        synic->simp = 0;
        qatomic_set(&synic->siefp, 0);
        for (unsigned i = 0; i < HV_SINT_COUNT; i++) {
            qatomic_set(&synic->sint[i], HV_SINT_MASKED);
        }
        overlay_update(&synic->msg_overlay, 0);
        overlay_update(&synic->event_overlay, 0);
    }
    rescan(synic);
}

static void synic_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = synic_realize;
    dc->reset = synic_reset;
    dc->user_creatable = false;
}

static void synic_machine_reset(void *opaque)
{
    device_cold_reset(DEVICE(opaque));
}

void hyperv_synic_add(CPUState *cs)
{
    Object *obj = object_new(TYPE_SYNIC);

    SYNIC(obj)->cs = cs;
    object_property_add_child(OBJECT(cs), "synic", obj);
    object_unref(obj);
    qdev_realize(DEVICE(obj), NULL, &error_abort);
    qemu_register_reset(synic_machine_reset, obj);
    synic_enabled = true;
}

static const TypeInfo synic_type_info = {
    .name = TYPE_SYNIC,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(SynICState),
    .class_init = synic_class_init,
};

static void synic_register_types(void)
{
    type_register_static(&synic_type_info);
}

type_init(synic_register_types)

/* --- Devices' side: routes ---------------------------------------------- */

struct HvSintRoute {
    unsigned refcount;
    uint32_t sint;
    SynICState *synic;
    HvSintMsgCb cb;
    void *cb_data;
    /* The one message under way, from hyperv_post_msg() to after @cb. */
    bool busy;
    int status;
    HvSintPost post;
};

HvSintRoute *hyperv_sint_route_new(uint32_t vp_index, uint32_t sint, HvSintMsgCb cb,
                                   void *cb_data)
{
    SynICState *synic = synic_of(vp_index);
    HvSintRoute *route;

    if (!synic || sint >= HV_SINT_COUNT) {
        return NULL;
    }
    route = g_new0(HvSintRoute, 1);
    route->refcount = 1;
    route->synic = synic;
    route->sint = sint;
    route->cb = cb;
    route->cb_data = cb_data;
    return route;
}

void hyperv_sint_route_ref(HvSintRoute *route)
{
    qatomic_inc(&route->refcount);
}

void hyperv_sint_route_unref(HvSintRoute *route)
{
    if (route && qatomic_fetch_dec(&route->refcount) == 1) {
        g_free(route);
    }
}

static void route_done_bh(void *opaque)
{
    HvSintRoute *route = opaque;
    int status = route->status;

    /* Before the callback, so that it can post the next message. */
    qatomic_set(&route->busy, false);
    route->cb(route->cb_data, status);
    hyperv_sint_route_unref(route);
}

static void route_done(HvSintPost *post, int status)
{
    HvSintRoute *route = container_of(post, HvSintRoute, post);

    route->status = status;
    aio_bh_schedule_oneshot(qemu_get_aio_context(), route_done_bh, route);
}

int hyperv_post_msg(HvSintRoute *route, struct hyperv_message *msg)
{
    assert(route->cb);
    if (qatomic_xchg(&route->busy, true)) {
        return -EAGAIN;
    }
    route->post.msg = *msg;
    route->post.done = route_done;
    hyperv_sint_route_ref(route);
    hyperv_synic_post(hyperv_vp_index(route->synic->cs), route->sint, &route->post);
    return 0;
}

int hyperv_set_event_flag(HvSintRoute *route, unsigned eventno)
{
    SynICState *synic = route->synic;
    struct hyperv_event_flags_page *page = synic->event_overlay.page;
    unsigned long mask;

    if (eventno >= HV_EVENT_FLAGS_COUNT) {
        return -EINVAL;
    }
    if (!(qatomic_read(&synic->siefp) & HV_SIEFP_ENABLE) || !sint_open(synic, route->sint)) {
        qatomic_inc(&synic->events_lost);
        return -ENXIO;
    }
    mask = BIT_MASK(eventno);
    if (qatomic_fetch_or(&page->slot[route->sint].flags[BIT_WORD(eventno)], mask) & mask) {
        qatomic_inc(&synic->events_coalesced);
        return 0;
    }
    qatomic_inc(&synic->events);
    raise_sints(synic, BIT(route->sint));
    return 0;
}

int hyperv_sint_route_set_sint(HvSintRoute *route)
{
    if (!sint_open(route->synic, route->sint)) {
        return -ENXIO;
    }
    raise_sints(route->synic, BIT(route->sint));
    return 0;
}

/* --- Devices' side: connections ----------------------------------------- */

typedef struct MsgHandler {
    HvMsgHandler handler;
    void *data;
} MsgHandler;

/*
 * A mutex rather than RCU: an EventNotifier is closed right after its handler
 * has been removed, and nobody may be about to signal it then.
 */
static QemuMutex handlers_lock;
static GHashTable *msg_handlers;   /* connection id -> MsgHandler */
static GHashTable *event_handlers; /* connection id -> EventNotifier */

static void __attribute__((constructor)) handlers_init(void)
{
    qemu_mutex_init(&handlers_lock);
    msg_handlers = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    event_handlers = g_hash_table_new(NULL, NULL);
}

int hyperv_set_msg_handler(uint32_t conn_id, HvMsgHandler handler, void *data)
{
    gpointer key = GUINT_TO_POINTER(conn_id);
    MsgHandler *mh;

    QEMU_LOCK_GUARD(&handlers_lock);
    if (!handler) {
        return g_hash_table_remove(msg_handlers, key) ? 0 : -ENOENT;
    }
    if (g_hash_table_contains(msg_handlers, key)) {
        return -EEXIST;
    }
    mh = g_new(MsgHandler, 1);
    mh->handler = handler;
    mh->data = data;
    g_hash_table_insert(msg_handlers, key, mh);
    return 0;
}

int hyperv_set_event_flag_handler(uint32_t conn_id, EventNotifier *notifier)
{
    gpointer key = GUINT_TO_POINTER(conn_id);

    QEMU_LOCK_GUARD(&handlers_lock);
    if (!notifier) {
        return g_hash_table_remove(event_handlers, key) ? 0 : -ENOENT;
    }
    if (g_hash_table_contains(event_handlers, key)) {
        return -EEXIST;
    }
    g_hash_table_insert(event_handlers, key, notifier);
    return 0;
}

uint16_t hyperv_hcall_post_message(uint64_t param, bool fast)
{
    struct hyperv_post_message_input input;
    MsgHandler *mh;

    if (fast) {
        hyperv_violation("post-message-fast", "PostMessage takes its input from memory only");
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    }
    if (!hyperv_read_ram(param, &input, sizeof(input))) {
        hyperv_violation("hypercall-input-address", "input at 0x%" PRIx64 " is not RAM", param);
        return HV_STATUS_INVALID_PARAMETER;
    }
    if (input.payload_size > sizeof(input.payload)) {
        hyperv_violation("post-message-size", "payload_size %u", input.payload_size);
        return HV_STATUS_INVALID_PARAMETER;
    }
    QEMU_LOCK_GUARD(&handlers_lock);
    mh = g_hash_table_lookup(msg_handlers, GUINT_TO_POINTER(input.connection_id));
    return mh ? mh->handler(&input, mh->data) : HV_STATUS_INVALID_CONNECTION_ID;
}

uint16_t hyperv_hcall_signal_event(uint64_t param, bool fast)
{
    uint64_t input = param;
    EventNotifier *notifier;
    uint16_t flag;

    if (!fast && !hyperv_read_ram(param, &input, sizeof(input))) {
        hyperv_violation("hypercall-input-address", "input at 0x%" PRIx64 " is not RAM", param);
        return HV_STATUS_INVALID_PARAMETER;
    }
    flag = input >> 32;
    if (flag) {
        hyperv_violation("signal-event-flag", "flag %u on connection 0x%x", flag,
                         (uint32_t)input);
        return HV_STATUS_INVALID_PARAMETER;
    }
    QEMU_LOCK_GUARD(&handlers_lock);
    notifier = g_hash_table_lookup(event_handlers, GUINT_TO_POINTER((uint32_t)input));
    if (!notifier) {
        return HV_STATUS_INVALID_CONNECTION_ID;
    }
    event_notifier_set(notifier);
    return HV_STATUS_SUCCESS;
}
