/*
 * Hyper-V for TCG guests: CPUID leaves, synthetic MSRs, the hypercall page and
 * its two hypercalls, reference time, synthetic timers, crash reports.
 *
 * Called by the hooks in target/i386 (see hyperv-tcg.h) on vCPU threads, mostly
 * without the BQL.  The SynIC itself is in hw/hyperv/hyperv.c.
 *
 * Nothing of this lives in CPUX86State, so that INIT, which QEMU does by
 * clearing most of that, leaves it alone as it should; system reset comes
 * through reset handlers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qmp/qlist.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "sysemu/cpu-timers.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/hyperv-host-internal.h"
#include "hw/hyperv/synic.h"
#include "tcg/hyperv-tcg.h"

#define HV_PAGE_SIZE 4096
#define HV_PAGE_MASK (~(uint64_t)(HV_PAGE_SIZE - 1))
/* Bits 11:1 of MSRs that name a page. */
#define HV_PAGE_MSR_RESERVED ((uint64_t)(HV_PAGE_SIZE - 1) & ~1ull)

#define HV_HYPERCALL_LOCKED BIT_ULL(1)
#define HV_MSR_FIRST 0x40000000u
#define HV_MSR_LAST 0x400001ffu

#define HV_STIMER_COUNT 4
#define HV_STIMER_ENABLE BIT_ULL(0)
#define HV_STIMER_PERIODIC BIT_ULL(1)
#define HV_STIMER_AUTO_ENABLE BIT_ULL(3)
#define HV_STIMER_VECTOR(config) (((config) >> 4) & 0xff)
#define HV_STIMER_DIRECT BIT_ULL(12)
#define HV_STIMER_SINT(config) (((config) >> 16) & 0xf)
#define HV_STIMER_RESERVED (~0xf1fffull)
/* A periodic timer may not keep the main loop busy: 100 us. */
#define HV_STIMER_PERIOD_MIN 1000

#define HV_CRASH_CTL_MESSAGE BIT_ULL(62)
#define HV_CRASH_TEXT_MAX 4096

#define APIC_BUS_HZ 1000000000ull /* hw/intc/apic.c counts nanoseconds */

typedef struct HvTscPage {
    uint32_t sequence;
    uint32_t reserved;
    uint64_t scale;
    int64_t offset;
} HvTscPage;

typedef struct HvVcpu HvVcpu;

typedef struct HvTimer {
    HvVcpu *vcpu;
    unsigned index;
    QEMUTimer *timer;
    uint64_t config;
    uint64_t count;
    uint64_t deadline;
    /* Message mode: @post is on its way; another expiry is owed after it. */
    bool busy;
    bool owed;
    HvSintPost post;
} HvTimer;

struct HvVcpu {
    X86CPU *cpu;
    uint32_t vp;
    uint64_t vp_assist;
    QemuMutex timer_lock; /* for timers; taken inside the BQL */
    HvTimer timers[HV_STIMER_COUNT];
    /* Counters; written by the vCPU's thread but for the expiries. */
    uint64_t post_messages;
    uint64_t signal_events;
    uint64_t other_hypercalls;
    uint64_t failed_hypercalls;
    uint64_t interrupts;
    uint64_t msr_reads;
    uint64_t msr_writes;
    uint64_t timer_expiries;
};

static HvVcpu *vcpus[HYPERV_MAX_VPS];

/* What the partition has only one of. */
static struct {
    QemuMutex lock;
    uint64_t guest_os_id;
    uint64_t hypercall;
    uint64_t reference_tsc;
    HvOverlay hypercall_overlay;
    HvOverlay tsc_overlay;
    uint64_t crash_params[HV_CRASH_PARAMS];
    uint64_t crash_reports;
    char *crash_text;
    uint64_t resets; /* of the machine; its start is the first */
} partition;

static HvVcpu *vcpu_of(CPUX86State *env)
{
    int index = env_cpu(env)->cpu_index;

    return index >= 0 && index < HYPERV_MAX_VPS ? vcpus[index] : NULL;
}

static bool has(HvVcpu *vcpu, int feature)
{
    return hyperv_feat_enabled(vcpu->cpu, feature);
}

static void count_one(uint64_t *counter)
{
    qatomic_set(counter, *counter + 1);
}

/* --- Time --------------------------------------------------------------- */

/*
 * The guest's TSC begins as this machine's, less an offset.  Its frequency is
 * measured against the monotonic clock, from process start to the first use.
 * When the VM "moves to another host" (set_tsc_khz) its rate changes: from
 * then on it is @base_guest plus what this machine's TSC has gone on since
 * @base_host, times @ratio / 2^32.
 *
 * Reference time is made of the guest's TSC by the very formula of the TSC
 * page, so that page and MSR agree always.  Both stand still while the VM is
 * stopped, and go on without a jump unless leap() makes one.
 *
 * Changed only in the main loop while the vCPUs are stopped; read by anybody.
 */
static struct {
    int64_t start_ticks;
    int64_t start_ns;
    uint64_t host_hz;
    uint64_t tsc_hz; /* the guest's */
    uint64_t scale; /* 100 ns units per tick, times 2^64 */
    int64_t offset;
    bool moved;
    uint64_t base_host;
    uint64_t base_guest;
    uint64_t ratio;
    uint32_t sequence; /* of the page while it is valid */
    QEMUTimer *page_timer; /* pending: the page is invalid */
} timebase = {
    .ratio = 1ull << 32,
    .sequence = 1,
};

/* How long a TSC page stays invalid after a move. */
#define TSC_PAGE_INVALID_MS 100

static void timebase_start(void)
{
    timebase.start_ns = get_clock();
    timebase.start_ticks = cpu_get_host_ticks();
}

/* 10^7 * 2^64 / hz; fits, as hz > 10^7. */
static uint64_t tsc_scale(uint64_t hz)
{
    uint64_t quotient_low = 0, high = 10000000;

    divu128(&quotient_low, &high, hz);
    return quotient_low;
}

static gpointer timebase_measure(gpointer unused)
{
    const int64_t enough_ns = 200 * SCALE_MS;
    int64_t ns = get_clock() - timebase.start_ns;
    int64_t ticks;

    if (ns < enough_ns) {
        g_usleep((enough_ns - ns) / 1000 + 1);
    }
    ns = get_clock();
    ticks = cpu_get_host_ticks() - timebase.start_ticks;
    ns -= timebase.start_ns;
    timebase.host_hz = (uint64_t)((double)ticks * 1e6 / ns + 0.5) * 1000;
    timebase.tsc_hz = timebase.host_hz;
    timebase.scale = tsc_scale(timebase.tsc_hz);
    return NULL;
}

static void timebase_ready(void)
{
    static GOnce once = G_ONCE_INIT;

    g_once(&once, timebase_measure, NULL);
}

uint64_t hyperv_tcg_tsc(uint64_t ticks)
{
    uint64_t low, high;

    if (likely(!timebase.moved)) {
        return ticks;
    }
    mulu64(&low, &high, ticks - timebase.base_host, timebase.ratio);
    return timebase.base_guest + (high << 32 | low >> 32);
}

static uint64_t tsc_to_reference(uint64_t tsc)
{
    uint64_t low, high;

    mulu64(&low, &high, tsc, timebase.scale);
    return high + timebase.offset;
}

uint64_t hyperv_reference_time(void)
{
    timebase_ready();
    return tsc_to_reference(hyperv_tcg_tsc(cpu_get_ticks()));
}

/* Show the guest how to make reference time of the TSC.  partition.lock held. */
static void tsc_page_write(void)
{
    HvTscPage *page = partition.tsc_overlay.page;

    qatomic_set(&page->scale, timebase.scale);
    qatomic_set(&page->offset, timebase.offset);
    qatomic_store_release(&page->sequence, timebase.sequence);
}

static void tsc_page_valid(void *opaque)
{
    QEMU_LOCK_GUARD(&partition.lock);
    if (partition.reference_tsc & 1) {
        tsc_page_write();
    }
}

static void set_reference_tsc(HvVcpu *vcpu, uint64_t value)
{
    partition.reference_tsc = value;
    if ((value & 1) && has(vcpu, HYPERV_TCG_TSC_PAGE)) {
        timebase_ready();
        if (!timebase.page_timer || !timer_pending(timebase.page_timer)) {
            tsc_page_write();
        }
    }
    hyperv_overlay_set(&partition.tsc_overlay, CPU(vcpu->cpu), value);
}

static uint64_t get_tsc_khz(void)
{
    timebase_ready();
    return timebase.tsc_hz / 1000;
}

/*
 * Go on with another TSC frequency, as after a live migration.  Reference time
 * and the TSC's value go on from where they are; the TSC page is invalid
 * (sequence 0) for a moment and then has another sequence, scale and offset.
 */
static void set_tsc_khz(uint64_t khz, Error **errp)
{
    HvTscPage *page = partition.tsc_overlay.page;
    uint64_t ticks = cpu_get_ticks(), now, host_hz;

    if (runstate_is_running()) {
        error_setg(errp, "the VM has to be stopped");
        return;
    }
    timebase_ready();
    host_hz = timebase.host_hz;
    if (khz * 1000 < host_hz / 4 || khz * 1000 > host_hz * 4) {
        error_setg(errp, "the frequency has to be within a factor of 4 of %" PRIu64 " kHz",
                   host_hz / 1000);
        return;
    }
    QEMU_LOCK_GUARD(&partition.lock);
    qatomic_set(&page->sequence, 0);
    now = hyperv_reference_time();
    timebase.base_guest = hyperv_tcg_tsc(ticks);
    timebase.base_host = ticks;
    timebase.tsc_hz = khz * 1000;
    timebase.ratio = (uint64_t)((double)timebase.tsc_hz * 4294967296.0 / host_hz);
    timebase.moved = true;
    timebase.scale = tsc_scale(timebase.tsc_hz);
    timebase.offset = 0;
    timebase.offset = now - tsc_to_reference(timebase.base_guest);
    if (++timebase.sequence == 0) {
        timebase.sequence = 1;
    }
    if (!timebase.page_timer) {
        timebase.page_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, tsc_page_valid, NULL);
    }
    timer_mod(timebase.page_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + TSC_PAGE_INVALID_MS);
}

static void timers_rearm(void);

/*
 * TSC and reference time go on by @ms at once, as on a host that does not
 * freeze them while a VM is stopped.  The TSC page needs no change.
 */
static void leap(uint64_t ms, Error **errp)
{
    const uint64_t most = 366ull * 24 * 3600 * 1000;
    uint64_t ticks = cpu_get_ticks();

    if (runstate_is_running()) {
        error_setg(errp, "the VM has to be stopped");
        return;
    }
    if (ms > most) {
        error_setg(errp, "at most a year at a time");
        return;
    }
    timebase_ready();
    WITH_QEMU_LOCK_GUARD(&partition.lock) {
        timebase.base_guest = hyperv_tcg_tsc(ticks) + timebase.tsc_hz / 1000 * ms;
        timebase.base_host = ticks;
        timebase.moved = true;
    }
    timers_rearm();
}

/* --- Synthetic timers --------------------------------------------------- */

/* Arm the QEMU timer for @t's deadline.  timer_lock held. */
static void timer_arm(HvTimer *t)
{
    uint64_t now = hyperv_reference_time();
    uint64_t delta = t->deadline > now ? t->deadline - now : 0;
    /* A year is as good as for ever, and cannot overflow. */
    const uint64_t year = 365ull * 24 * 3600 * 10000000;

    timer_mod(t->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + MIN(delta, year) * 100);
}

/* Act on what the guest has just written.  timer_lock held. */
static void timer_update(HvTimer *t)
{
    if (!(t->config & HV_STIMER_ENABLE) || !t->count) {
        timer_del(t->timer);
        return;
    }
    if (t->config & HV_STIMER_PERIODIC) {
        t->deadline = hyperv_reference_time() + MAX(t->count, HV_STIMER_PERIOD_MIN);
    } else {
        t->deadline = t->count;
    }
    timer_arm(t);
}

static bool timer_set_config(HvTimer *t, uint64_t value)
{
    QEMU_LOCK_GUARD(&t->vcpu->timer_lock);
    if ((value & HV_STIMER_RESERVED) ||
        ((value & HV_STIMER_DIRECT) && !has(t->vcpu, HYPERV_TCG_STIMER_DIRECT))) {
        hyperv_violation("msr-reserved-bits", "STIMER%u_CONFIG = 0x%" PRIx64, t->index, value);
        return false;
    }
    /* Without a SINT to post to the timer cannot be enabled. */
    if (!(value & HV_STIMER_DIRECT) && !HV_STIMER_SINT(value)) {
        value &= ~HV_STIMER_ENABLE;
    }
    t->config = value;
    timer_update(t);
    return true;
}

static void timer_set_count(HvTimer *t, uint64_t value)
{
    QEMU_LOCK_GUARD(&t->vcpu->timer_lock);
    t->count = value;
    if (!value) {
        t->config &= ~HV_STIMER_ENABLE;
    } else if ((t->config & HV_STIMER_AUTO_ENABLE) &&
               ((t->config & HV_STIMER_DIRECT) || HV_STIMER_SINT(t->config))) {
        t->config |= HV_STIMER_ENABLE;
    }
    timer_update(t);
}

static void timer_post_done(HvSintPost *post, int status);

/* Post the expiry message that is owed, unless the last one is still on its way. */
static void timer_post(HvTimer *t)
{
    struct hyperv_message *msg = &t->post.msg;
    unsigned sint;

    WITH_QEMU_LOCK_GUARD(&t->vcpu->timer_lock) {
        if (!t->owed || t->busy) {
            return;
        }
        t->owed = false;
        t->busy = true;
        sint = HV_STIMER_SINT(t->config);
        memset(msg, 0, sizeof(*msg));
        msg->header.message_type = HV_MESSAGE_TIMER_EXPIRED;
        msg->header.payload_size = 24;
        stl_le_p(msg->payload, t->index);
        stq_le_p(msg->payload + 8, t->deadline);
        stq_le_p(msg->payload + 16, hyperv_reference_time());
        t->post.done = timer_post_done;
    }
    hyperv_synic_post(t->vcpu->vp, sint, &t->post);
}

static void timer_post_done(HvSintPost *post, int status)
{
    HvTimer *t = container_of(post, HvTimer, post);

    WITH_QEMU_LOCK_GUARD(&t->vcpu->timer_lock) {
        t->busy = false;
        if (status) {
            /* The SINT is closed: timers_retry() when the guest opens one. */
            t->owed = t->config != 0;
            return;
        }
    }
    timer_post(t);
}

/* The guest changed its SynIC: post what could not be posted before. */
static void timers_retry(HvVcpu *vcpu)
{
    for (unsigned i = 0; i < HV_STIMER_COUNT; i++) {
        timer_post(&vcpu->timers[i]);
    }
}

/* The QEMU timer has expired.  Main loop, BQL held. */
static void timer_fire(void *opaque)
{
    HvTimer *t = opaque;
    uint64_t config, now;

    WITH_QEMU_LOCK_GUARD(&t->vcpu->timer_lock) {
        config = t->config;
        if (!(config & HV_STIMER_ENABLE)) {
            return;
        }
        /* The clocks differ by a little, and the guest may have moved it. */
        now = hyperv_reference_time();
        if (now < t->deadline) {
            timer_arm(t);
            return;
        }
        if (config & HV_STIMER_PERIODIC) {
            uint64_t period = MAX(t->count, HV_STIMER_PERIOD_MIN);

            t->deadline += period;
            if (t->deadline <= now) {
                t->deadline = now + period;
            }
            timer_arm(t);
        } else {
            t->config &= ~HV_STIMER_ENABLE;
        }
        t->vcpu->timer_expiries++;
        t->owed = !(config & HV_STIMER_DIRECT);
    }
    if (config & HV_STIMER_DIRECT) {
        hyperv_synic_inject(t->vcpu->vp, HV_STIMER_VECTOR(config));
    } else {
        timer_post(t);
    }
}

/* Reference time has leapt; the clock that the QEMU timers go by has not. */
static void timers_rearm(void)
{
    for (unsigned i = 0; i < HYPERV_MAX_VPS; i++) {
        if (!vcpus[i]) {
            continue;
        }
        QEMU_LOCK_GUARD(&vcpus[i]->timer_lock);
        for (unsigned n = 0; n < HV_STIMER_COUNT; n++) {
            HvTimer *t = &vcpus[i]->timers[n];

            if (t->config & HV_STIMER_ENABLE && t->count) {
                timer_arm(t);
            }
        }
    }
}

static void timers_reset(HvVcpu *vcpu)
{
    QEMU_LOCK_GUARD(&vcpu->timer_lock);
    for (unsigned i = 0; i < HV_STIMER_COUNT; i++) {
        HvTimer *t = &vcpu->timers[i];

        timer_del(t->timer);
        t->config = 0;
        t->count = 0;
        t->owed = false;
    }
}

/* --- CPUID -------------------------------------------------------------- */

bool hyperv_tcg_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                      uint32_t *edx)
{
    HvVcpu *vcpu = vcpu_of(&cpu->env);
    bool frequencies;

    if (!vcpu || index < HV_CPUID_VENDOR_AND_MAX_FUNCTIONS || index > HV_CPUID_MAX) {
        return false;
    }
    frequencies = has(vcpu, HYPERV_TCG_FREQUENCIES);
    *eax = *ebx = *ecx = *edx = 0;
    switch (index) {
    case HV_CPUID_VENDOR_AND_MAX_FUNCTIONS:
        *eax = HV_CPUID_IMPLEMENT_LIMITS;
        *ebx = 0x7263694d; /* "Microsoft Hv" */
        *ecx = 0x666f736f;
        *edx = 0x76482074;
        break;
    case HV_CPUID_INTERFACE:
        *eax = 0x31237648; /* "Hv#1" */
        break;
    case HV_CPUID_VERSION:
        *eax = 20348;
        *ebx = 10 << 16;
        break;
    case HV_CPUID_FEATURES:
        *eax = HV_TIME_REF_COUNT_AVAILABLE | HV_SYNIC_AVAILABLE | HV_SYNTIMERS_AVAILABLE |
               HV_APIC_ACCESS_AVAILABLE | HV_HYPERCALL_AVAILABLE | HV_VP_INDEX_AVAILABLE |
               HV_RESET_AVAILABLE | HV_REFERENCE_TSC_AVAILABLE |
               (frequencies ? HV_ACCESS_FREQUENCY_MSRS : 0);
        *ebx = HV_POST_MESSAGES | HV_SIGNAL_EVENTS;
        *edx = (frequencies ? HV_FREQUENCY_MSRS_AVAILABLE : 0) |
               (has(vcpu, HYPERV_TCG_CRASH) ? HV_GUEST_CRASH_MSR_AVAILABLE : 0) |
               (has(vcpu, HYPERV_TCG_STIMER_DIRECT) ? HV_STIMER_DIRECT_MODE_AVAILABLE : 0);
        break;
    case HV_CPUID_ENLIGHTMENT_INFO:
        *eax = HV_SYSTEM_RESET_RECOMMENDED | HV_RELAXED_TIMING_RECOMMENDED |
               (has(vcpu, HYPERV_TCG_AUTO_EOI) ? 0 : HV_DEPRECATING_AEOI_RECOMMENDED);
        *ebx = 0xffffffff; /* never report long spins */
        break;
    case HV_CPUID_IMPLEMENT_LIMITS:
        *eax = HYPERV_MAX_VPS;
        *ebx = HYPERV_MAX_VPS;
        break;
    }
    return true;
}

/* --- MSRs --------------------------------------------------------------- */

bool hyperv_tcg_is_msr(CPUX86State *env, uint32_t msr)
{
    return msr >= HV_MSR_FIRST && msr <= HV_MSR_LAST && vcpu_of(env);
}

uint64_t hyperv_guest_os_id(void)
{
    return qatomic_read(&partition.guest_os_id);
}

/* A register of this vCPU's local APIC, by its MMIO offset. */
static uint32_t apic_read(HvVcpu *vcpu, unsigned offset)
{
    hwaddr base = cpu_get_apic_base(vcpu->cpu->apic_state) & HV_PAGE_MASK;

    return address_space_ldl(CPU(vcpu->cpu)->as, base + offset, MEMTXATTRS_UNSPECIFIED, NULL);
}

static void apic_write(HvVcpu *vcpu, unsigned offset, uint32_t value)
{
    hwaddr base = cpu_get_apic_base(vcpu->cpu->apic_state) & HV_PAGE_MASK;

    address_space_stl(CPU(vcpu->cpu)->as, base + offset, value, MEMTXATTRS_UNSPECIFIED, NULL);
}

/* Rules for the value of an MSR that names an overlay page. */
static bool page_msr_ok(const char *name, uint64_t value, uint64_t reserved)
{
    if (value & reserved) {
        hyperv_violation("msr-reserved-bits", "%s = 0x%" PRIx64, name, value);
        return false;
    }
    if ((value & 1) && !hyperv_overlay_mappable(value)) {
        hyperv_violation("overlay-unmappable", "%s = 0x%" PRIx64 ": no RAM there", name, value);
        return false;
    }
    return true;
}

static void set_guest_os_id(HvVcpu *vcpu, uint64_t value)
{
    qatomic_set(&partition.guest_os_id, value);
    /* A guest without identity has no hypercalls. */
    if (!value && (partition.hypercall & HV_HYPERCALL_ENABLE)) {
        qatomic_set(&partition.hypercall, partition.hypercall & ~(uint64_t)HV_HYPERCALL_ENABLE);
        hyperv_overlay_set(&partition.hypercall_overlay, CPU(vcpu->cpu), 0);
    }
}

static bool set_hypercall(HvVcpu *vcpu, uint64_t value)
{
    if (partition.hypercall & HV_HYPERCALL_LOCKED) {
        hyperv_violation("hypercall-msr-locked", "write of 0x%" PRIx64, value);
        return false;
    }
    if (!page_msr_ok("HYPERCALL", value, HV_PAGE_MSR_RESERVED & ~HV_HYPERCALL_LOCKED)) {
        return false;
    }
    if ((value & HV_HYPERCALL_ENABLE) && !partition.guest_os_id) {
        hyperv_violation("hypercall-without-os-id", "GUEST_OS_ID is 0, page not enabled");
        value &= ~(uint64_t)HV_HYPERCALL_ENABLE;
    }
    qatomic_set(&partition.hypercall, value);
    hyperv_overlay_set(&partition.hypercall_overlay, CPU(vcpu->cpu), value);
    return true;
}

static bool set_sint(HvVcpu *vcpu, unsigned sint, uint64_t value)
{
    if (!(value & HV_SINT_MASKED) && (value & HV_SINT_VECTOR_MASK) < 16) {
        hyperv_violation("sint-vector", "SINT%u = 0x%" PRIx64 ": vector below 16", sint, value);
        return false;
    }
    hyperv_synic_set_sint(vcpu->vp, sint, value);
    timers_retry(vcpu);
    return true;
}

/* Print and keep what the guest says about its end. */
static void report_crash(uint64_t control)
{
    uint64_t *p = partition.crash_params;
    g_autofree char *raw = NULL;
    GString *text = g_string_new(NULL);
    uint64_t len = 0;

    if (control & HV_CRASH_CTL_MESSAGE) {
        len = MIN(p[4], HV_CRASH_TEXT_MAX);
        raw = g_malloc0(len + 1);
        if (!hyperv_read_ram(p[3], raw, len)) {
            len = 0;
        }
    }
    /* The guest's bytes go to a terminal: one line, nothing that acts on it. */
    for (uint64_t i = 0; i < len && raw[i]; i++) {
        if (raw[i] == '\n') {
            g_string_append(text, " | ");
        } else {
            g_string_append_c(text, g_ascii_isprint(raw[i]) ? raw[i] : '.');
        }
    }
    fprintf(stderr, "hyperv-host: guest crash: p0=0x%" PRIx64 " p1=0x%" PRIx64 " p2=0x%" PRIx64
            " p3=0x%" PRIx64 " p4=0x%" PRIx64 "%s%s\n", p[0], p[1], p[2], p[3], p[4],
            text->len ? ": " : "", text->str);
    partition.crash_reports++;
    g_free(partition.crash_text);
    partition.crash_text = g_string_free(text, false);
}

static void request_reset(void)
{
    qemu_mutex_lock_iothread();
    qemu_system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
    qemu_mutex_unlock_iothread();
}

/* MSRs of the whole partition.  partition.lock held. */
static bool write_partition_msr(HvVcpu *vcpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case HV_X64_MSR_GUEST_OS_ID:
        set_guest_os_id(vcpu, value);
        return true;
    case HV_X64_MSR_HYPERCALL:
        return set_hypercall(vcpu, value);
    case HV_X64_MSR_REFERENCE_TSC:
        if (!page_msr_ok("REFERENCE_TSC", value, HV_PAGE_MSR_RESERVED)) {
            return false;
        }
        set_reference_tsc(vcpu, value);
        return true;
    case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_P4:
        partition.crash_params[msr - HV_X64_MSR_CRASH_P0] = value;
        return true;
    case HV_X64_MSR_CRASH_CTL:
        if (value & HV_CRASH_CTL_NOTIFY) {
            report_crash(value);
        }
        return true;
    default:
        g_assert_not_reached();
    }
}

static bool write_vp_msr(HvVcpu *vcpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case HV_X64_MSR_EOI:
        apic_write(vcpu, 0xb0, 0);
        return true;
    case HV_X64_MSR_ICR:
        apic_write(vcpu, 0x310, value >> 32);
        apic_write(vcpu, 0x300, value);
        return true;
    case HV_X64_MSR_TPR:
        apic_write(vcpu, 0x80, value & 0xff);
        return true;
    case HV_X64_MSR_APIC_ASSIST_PAGE:
        if (!page_msr_ok("VP_ASSIST_PAGE", value, HV_PAGE_MSR_RESERVED)) {
            return false;
        }
        vcpu->vp_assist = value;
        return true;
    case HV_X64_MSR_SCONTROL:
        hyperv_synic_set_control(vcpu->vp, value);
        timers_retry(vcpu);
        return true;
    case HV_X64_MSR_SIEFP:
        if (!page_msr_ok("SIEFP", value, 0)) {
            return false;
        }
        hyperv_synic_set_siefp(vcpu->vp, value);
        return true;
    case HV_X64_MSR_SIMP:
        if (!page_msr_ok("SIMP", value, 0)) {
            return false;
        }
        hyperv_synic_set_simp(vcpu->vp, value);
        timers_retry(vcpu);
        return true;
    case HV_X64_MSR_EOM:
        hyperv_synic_eom(vcpu->vp);
        return true;
    case HV_X64_MSR_SINT0 ... HV_X64_MSR_SINT15:
        return set_sint(vcpu, msr - HV_X64_MSR_SINT0, value);
    case HV_X64_MSR_STIMER0_CONFIG ... HV_X64_MSR_STIMER3_COUNT: {
        HvTimer *t = &vcpu->timers[(msr - HV_X64_MSR_STIMER0_CONFIG) / 2];

        if (msr & 1) {
            timer_set_count(t, value);
            return true;
        }
        return timer_set_config(t, value);
    }
    case HV_X64_MSR_RESET:
        if (value & 1) {
            request_reset();
        }
        return true;
    default:
        g_assert_not_reached();
    }
}

static bool msr_offered(HvVcpu *vcpu, uint32_t msr)
{
    switch (msr) {
    case HV_X64_MSR_GUEST_OS_ID ... HV_X64_MSR_RESET:
    case HV_X64_MSR_TIME_REF_COUNT:
    case HV_X64_MSR_REFERENCE_TSC:
    case HV_X64_MSR_EOI ... HV_X64_MSR_APIC_ASSIST_PAGE:
    case HV_X64_MSR_SCONTROL ... HV_X64_MSR_EOM:
    case HV_X64_MSR_SINT0 ... HV_X64_MSR_SINT15:
    case HV_X64_MSR_STIMER0_CONFIG ... HV_X64_MSR_STIMER3_COUNT:
        return true;
    case HV_X64_MSR_TSC_FREQUENCY:
    case HV_X64_MSR_APIC_FREQUENCY:
        return has(vcpu, HYPERV_TCG_FREQUENCIES);
    case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_CTL:
        return has(vcpu, HYPERV_TCG_CRASH);
    default:
        return false;
    }
}

bool hyperv_tcg_wrmsr(CPUX86State *env, uint32_t msr, uint64_t value)
{
    HvVcpu *vcpu = vcpu_of(env);

    count_one(&vcpu->msr_writes);
    if (!msr_offered(vcpu, msr)) {
        hyperv_violation("msr-not-offered", "write of 0x%" PRIx64 " to 0x%x", value, msr);
        return false;
    }
    switch (msr) {
    case HV_X64_MSR_VP_INDEX:
    case HV_X64_MSR_TIME_REF_COUNT:
    case HV_X64_MSR_TSC_FREQUENCY:
    case HV_X64_MSR_APIC_FREQUENCY:
    case HV_X64_MSR_SVERSION:
        hyperv_violation("msr-read-only", "write of 0x%" PRIx64 " to 0x%x", value, msr);
        return false;
    case HV_X64_MSR_GUEST_OS_ID:
    case HV_X64_MSR_HYPERCALL:
    case HV_X64_MSR_REFERENCE_TSC:
    case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_CTL:
        WITH_QEMU_LOCK_GUARD(&partition.lock) {
            return write_partition_msr(vcpu, msr, value);
        }
        g_assert_not_reached();
    default:
        return write_vp_msr(vcpu, msr, value);
    }
}

static uint64_t read_timer_msr(HvVcpu *vcpu, uint32_t msr)
{
    HvTimer *t = &vcpu->timers[(msr - HV_X64_MSR_STIMER0_CONFIG) / 2];

    QEMU_LOCK_GUARD(&vcpu->timer_lock);
    return msr & 1 ? t->count : t->config;
}

bool hyperv_tcg_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *value)
{
    HvVcpu *vcpu = vcpu_of(env);

    count_one(&vcpu->msr_reads);
    if (!msr_offered(vcpu, msr) || msr == HV_X64_MSR_EOI) {
        hyperv_violation("msr-not-offered", "read of 0x%x", msr);
        return false;
    }
    switch (msr) {
    case HV_X64_MSR_GUEST_OS_ID:
        *value = hyperv_guest_os_id();
        break;
    case HV_X64_MSR_HYPERCALL:
        *value = qatomic_read(&partition.hypercall);
        break;
    case HV_X64_MSR_VP_INDEX:
        *value = vcpu->vp;
        break;
    case HV_X64_MSR_TIME_REF_COUNT:
        *value = hyperv_reference_time();
        break;
    case HV_X64_MSR_REFERENCE_TSC:
        *value = qatomic_read(&partition.reference_tsc);
        break;
    case HV_X64_MSR_TSC_FREQUENCY:
        timebase_ready();
        *value = timebase.tsc_hz;
        break;
    case HV_X64_MSR_APIC_FREQUENCY:
        *value = APIC_BUS_HZ;
        break;
    case HV_X64_MSR_ICR:
        *value = apic_read(vcpu, 0x300) | (uint64_t)apic_read(vcpu, 0x310) << 32;
        break;
    case HV_X64_MSR_TPR:
        *value = apic_read(vcpu, 0x80);
        break;
    case HV_X64_MSR_APIC_ASSIST_PAGE:
        *value = vcpu->vp_assist;
        break;
    case HV_X64_MSR_SCONTROL:
        *value = hyperv_synic_get_control(vcpu->vp);
        break;
    case HV_X64_MSR_SVERSION:
        *value = HV_SYNIC_VERSION;
        break;
    case HV_X64_MSR_SIEFP:
        *value = hyperv_synic_get_siefp(vcpu->vp);
        break;
    case HV_X64_MSR_SIMP:
        *value = hyperv_synic_get_simp(vcpu->vp);
        break;
    case HV_X64_MSR_SINT0 ... HV_X64_MSR_SINT15:
        *value = hyperv_synic_get_sint(vcpu->vp, msr - HV_X64_MSR_SINT0);
        break;
    case HV_X64_MSR_STIMER0_CONFIG ... HV_X64_MSR_STIMER3_COUNT:
        *value = read_timer_msr(vcpu, msr);
        break;
    case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_P4:
        *value = qatomic_read(&partition.crash_params[msr - HV_X64_MSR_CRASH_P0]);
        break;
    case HV_X64_MSR_CRASH_CTL:
        *value = HV_CRASH_CTL_NOTIFY | HV_CRASH_CTL_MESSAGE;
        break;
    default: /* EOM, RESET */
        *value = 0;
        break;
    }
    return true;
}

/* --- Hypercalls --------------------------------------------------------- */

/* What is wrong with a simple call, as a status; @size is that of its input. */
static uint16_t check_simple_call(uint64_t control, uint64_t input, unsigned size)
{
    if (control & ~0x1ffffull) {
        hyperv_violation("hypercall-control", "control word 0x%" PRIx64 ": only code and fast bit "
                         "may be set", control);
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    }
    if (!(control & HV_HYPERCALL_FAST) &&
        ((input & 7) || (input & (HV_PAGE_SIZE - 1)) + size > HV_PAGE_SIZE)) {
        hyperv_violation("hypercall-alignment", "call 0x%x with input at 0x%" PRIx64,
                         (uint16_t)control, input);
        return HV_STATUS_INVALID_ALIGNMENT;
    }
    return HV_STATUS_SUCCESS;
}

static uint16_t do_hypercall(HvVcpu *vcpu, uint64_t control, uint64_t input)
{
    bool fast = control & HV_HYPERCALL_FAST;
    uint16_t status;

    switch ((uint16_t)control) {
    case HV_POST_MESSAGE:
        count_one(&vcpu->post_messages);
        status = check_simple_call(control, input, sizeof(struct hyperv_post_message_input));
        return status ?: hyperv_hcall_post_message(input, fast);
    case HV_SIGNAL_EVENT:
        count_one(&vcpu->signal_events);
        status = check_simple_call(control, input, sizeof(struct hyperv_signal_event_input));
        return status ?: hyperv_hcall_signal_event(input, fast);
    default:
        count_one(&vcpu->other_hypercalls);
        hyperv_violation("hypercall-code", "call 0x%x is not offered", (uint16_t)control);
        return HV_STATUS_INVALID_HYPERCALL_CODE;
    }
}

bool hyperv_tcg_hypercall(CPUX86State *env)
{
    HvVcpu *vcpu = vcpu_of(env);
    uint16_t status;

    if (!vcpu) {
        return false;
    }
    if ((env->hflags & HF_CPL_MASK) || !(env->hflags & HF_CS64_MASK)) {
        hyperv_violation("hypercall-mode", "not in long mode at CPL 0");
        return false;
    }
    if (!(qatomic_read(&partition.hypercall) & HV_HYPERCALL_ENABLE)) {
        hyperv_violation("hypercall-page-disabled", "at rip 0x%" PRIx64, (uint64_t)env->eip);
        return false;
    }
    status = do_hypercall(vcpu, env->regs[R_ECX], env->regs[R_EDX]);
    if (status) {
        count_one(&vcpu->failed_hypercalls);
    }
    env->regs[R_EAX] = status;
    return true;
}

/* --- Interrupts --------------------------------------------------------- */

void hyperv_tcg_interrupt_taken(X86CPU *cpu, int vector)
{
    HvVcpu *vcpu = vcpu_of(&cpu->env);
    APICCommonState *apic;

    if (!vcpu) {
        return;
    }
    count_one(&vcpu->interrupts);
    if (vector < 0 || !hyperv_synic_auto_eoi(vcpu->vp, vector)) {
        return;
    }
    apic = APIC_COMMON(cpu->apic_state);
    apic->isr[vector / 32] &= ~BIT(vector % 32);
    apic_poll_irq(cpu->apic_state);
}

/* --- Set-up, reset, statistics ------------------------------------------ */

static void partition_stats(QDict *out)
{
    QList *vps = qlist_new();
    QDict *crash = qdict_new();

    for (unsigned i = 0; i < HYPERV_MAX_VPS; i++) {
        HvVcpu *vcpu = vcpus[i];
        QDict *vp, *calls;

        if (!vcpu) {
            continue;
        }
        vp = qdict_new();
        calls = qdict_new();
        qdict_put_int(calls, "post_message", qatomic_read(&vcpu->post_messages));
        qdict_put_int(calls, "signal_event", qatomic_read(&vcpu->signal_events));
        qdict_put_int(calls, "other", qatomic_read(&vcpu->other_hypercalls));
        qdict_put_int(calls, "failed", qatomic_read(&vcpu->failed_hypercalls));
        qdict_put_int(vp, "index", i);
        qdict_put(vp, "hypercalls", calls);
        qdict_put_int(vp, "interrupts", qatomic_read(&vcpu->interrupts));
        qdict_put_int(vp, "timers", qatomic_read(&vcpu->timer_expiries));
        qdict_put_int(vp, "msr_reads", qatomic_read(&vcpu->msr_reads));
        qdict_put_int(vp, "msr_writes", qatomic_read(&vcpu->msr_writes));
        hyperv_synic_stats(i, vp);
        qlist_append(vps, vp);
    }
    qdict_put(out, "vps", vps);

    WITH_QEMU_LOCK_GUARD(&partition.lock) {
        qdict_put_int(crash, "reports", partition.crash_reports);
        qdict_put_str(crash, "text", partition.crash_text ?: "");
        for (unsigned i = 0; i < HV_CRASH_PARAMS; i++) {
            g_autofree char *name = g_strdup_printf("p%u", i);

            qdict_put_int(crash, name, partition.crash_params[i]);
        }
        qdict_put_int(out, "guest_os_id", partition.guest_os_id);
        qdict_put_int(out, "resets", partition.resets);
    }
    qdict_put(out, "crash", crash);
}

/* System reset: vCPUs are stopped, BQL held. */
static void partition_reset(void *opaque)
{
    WITH_QEMU_LOCK_GUARD(&partition.lock) {
        partition.resets++;
        qatomic_set(&partition.guest_os_id, 0);
        qatomic_set(&partition.hypercall, 0);
        partition.reference_tsc = 0;
        hyperv_overlay_reset(&partition.hypercall_overlay);
        hyperv_overlay_reset(&partition.tsc_overlay);
    }
}

static void vcpu_reset(void *opaque)
{
    HvVcpu *vcpu = opaque;

    vcpu->vp_assist = 0;
    timers_reset(vcpu);
}

static void partition_create(void)
{
    static const HvPartitionOps ops = {
        .stats = partition_stats,
        .get_tsc_khz = get_tsc_khz,
        .set_tsc_khz = set_tsc_khz,
        .leap = leap,
    };
    /* vmmcall; ret; the rest traps. */
    static const uint8_t code[] = { 0x0f, 0x01, 0xd9, 0xc3 };

    qemu_mutex_init(&partition.lock);
    timebase_start();
    hyperv_host_create(&ops);
    hyperv_overlay_init(&partition.hypercall_overlay, NULL, "hyperv-hypercall-page", true);
    hyperv_overlay_init(&partition.tsc_overlay, NULL, "hyperv-tsc-page", true);
    memset(partition.hypercall_overlay.page, 0xcc, HV_PAGE_SIZE);
    memcpy(partition.hypercall_overlay.page, code, sizeof(code));
    qemu_register_reset(partition_reset, NULL);
}

bool hyperv_tcg_realize(X86CPU *cpu, Error **errp)
{
    static bool partition_exists;
    int index = CPU(cpu)->cpu_index;
    HvVcpu *vcpu;

    if (!hyperv_feat_enabled(cpu, HYPERV_TCG_ON)) {
        return true;
    }
    if (index < 0 || index >= HYPERV_MAX_VPS) {
        error_setg(errp, "hyperv=on supports up to %u vCPUs", HYPERV_MAX_VPS);
        return false;
    }
    vcpu = g_new0(HvVcpu, 1);
    vcpu->cpu = cpu;
    vcpu->vp = index;
    qemu_mutex_init(&vcpu->timer_lock);
    for (unsigned i = 0; i < HV_STIMER_COUNT; i++) {
        HvTimer *t = &vcpu->timers[i];

        t->vcpu = vcpu;
        t->index = i;
        t->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, timer_fire, t);
    }
    if (!partition_exists) {
        partition_create();
        partition_exists = true;
    }
    hyperv_synic_add(CPU(cpu));
    qemu_register_reset(vcpu_reset, vcpu);
    cpu->env.features[FEAT_1_ECX] |= CPUID_EXT_HYPERVISOR;
    qatomic_store_release(&vcpus[index], vcpu);
    return true;
}
