// SPDX-License-Identifier: BSD-2-Clause
// The synthetic interrupt controller (TLFS 11): each core's message and event pages. The interrupt
// handler only notes that it ran; VMBus' poller takes messages and events from the loop.
// The host writes to both pages at any time, so each slot is copied before it is looked at.
#include <stdatomic.h>
#include <string.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/hyperv/hyperv_regs.h"
#include "drivers/hyperv/private.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/panic.h"
#include "kernel/vectors.h"

static struct hv_message_slot *messages[MAX_CORES]; // 16 slots each; panic reads other cores'
static PERCORE struct hv_event_flags *events;
static PERCORE volatile bool interrupted;
static atomic_bool eom_wanted[MAX_CORES]; // panic on one core emptied another one's slot

static void note_interrupt(void)
{
    interrupted = true;
}

void synic_init(void)
{
    irq_set(VECTOR_VMBUS, note_interrupt, !hv_auto_eoi());
}

void synic_init_core(void)
{
    struct hv_message_slot *slots = page_alloc(1);

    events = page_alloc(1);
    if (!slots || !events)
        panic("hyperv: no memory for the SynIC pages");
    messages[core_id()] = slots;
    hv_enable_page(HV_MSR_SIMP, slots);
    hv_enable_page(HV_MSR_SIEFP, events);
    wrmsr(HV_MSR_SINT0 + HV_SINT_VMBUS, VECTOR_VMBUS | (hv_auto_eoi() ? HV_SINT_AUTO_EOI : 0));
    wrmsr(HV_MSR_SCONTROL, rdmsr(HV_MSR_SCONTROL) | HV_ENABLE);
    interrupted = true; // look once at what the firmware may have left, which does not interrupt
}

void synic_stop(void)
{
    wrmsr(HV_MSR_SINT0 + HV_SINT_VMBUS, rdmsr(HV_MSR_SINT0 + HV_SINT_VMBUS) | HV_SINT_MASKED);
    wrmsr(HV_MSR_SIMP, rdmsr(HV_MSR_SIMP) & ~HV_ENABLE);
    wrmsr(HV_MSR_SIEFP, rdmsr(HV_MSR_SIEFP) & ~HV_ENABLE);
    wrmsr(HV_MSR_SCONTROL, rdmsr(HV_MSR_SCONTROL) & ~HV_ENABLE);
}

bool synic_interrupted(void)
{
    if (!interrupted)
        return false;
    interrupted = false; // one that comes now is noted again: the caller looks after this
    return true;
}

// The MSR is the writing core's own: for another core's slot that core has to write it.
static void end_of_message(unsigned core)
{
    if (core == core_id())
        wrmsr(HV_MSR_EOM, 0);
    else
        atomic_store(&eom_wanted[core], true);
}

void platform_serve_while_stopped(void)
{
    if (atomic_exchange(&eom_wanted[core_id()], false))
        wrmsr(HV_MSR_EOM, 0);
}

// Empties the slot so that the host can fill it, and asks for the next message if one waits. The
// order matters: the host sets the flag after it found the slot full, so empty first, then look.
static void free_slot(unsigned core, struct hv_message_slot *slot, uint32_t type)
{
    __atomic_compare_exchange_n(&slot->type, &type, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_seq_cst);
    if (__atomic_load_n(&slot->flags, __ATOMIC_RELAXED) & HV_MESSAGE_PENDING)
        end_of_message(core);
}

static bool take(unsigned core, struct hv_message_slot *slot, struct hv_message *out)
{
    uint32_t type = __atomic_load_n(&slot->type, __ATOMIC_ACQUIRE);
    struct hv_message_slot copy;

    if (type == 0)
        return false;
    memcpy(&copy, slot, sizeof(copy));
    free_slot(core, slot, type);
    if (copy.payload_size > HV_MESSAGE_PAYLOAD_MAX)
        return false; // no such message exists; the next one interrupts again
    out->type = type;
    out->size = copy.payload_size;
    out->sender = copy.sender;
    memcpy(out->payload, copy.payload, sizeof(out->payload));
    return true;
}

bool synic_take_message_of(unsigned core, struct hv_message *out)
{
    return messages[core] && take(core, &messages[core][HV_SINT_VMBUS], out);
}

bool synic_take_message(struct hv_message *out)
{
    return synic_take_message_of(core_id(), out);
}

void synic_free_timer_message(void)
{
    struct hv_message_slot *slot = &messages[core_id()][HV_SINT_TIMER];
    uint32_t type = __atomic_load_n(&slot->type, __ATOMIC_ACQUIRE);

    if (type)
        free_slot(core_id(), slot, type);
}

bool synic_take_events(uint64_t flags[HV_EVENT_FLAG_WORDS], unsigned words_used)
{
    uint64_t *words = events[HV_SINT_VMBUS].words;
    uint64_t any = 0;

    for (unsigned i = 0; i < words_used; i++) {
        // Reading first keeps the cache line shared while nothing happens.
        flags[i] = __atomic_load_n(&words[i], __ATOMIC_RELAXED)
                       ? __atomic_exchange_n(&words[i], 0, __ATOMIC_ACQ_REL)
                       : 0;
        any |= flags[i];
    }
    return any;
}
