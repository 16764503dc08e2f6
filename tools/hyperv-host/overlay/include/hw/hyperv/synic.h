/*
 * The SynIC as the accelerator sees it: the MSRs of one virtual processor and
 * the message queues behind them.  Devices use hw/hyperv/hyperv.h instead.
 *
 * Unless said otherwise every function may be called from any thread, with or
 * without the BQL, but with no lock held that the BQL's owner may want: an
 * interrupt may have to be injected, and that takes the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_SYNIC_H
#define HW_HYPERV_SYNIC_H

#include "qemu/queue.h"
#include "qapi/qmp/qdict.h"
#include "exec/memory.h"
#include "hw/core/cpu.h"
#include "hw/hyperv/hyperv-proto.h"

#define HYPERV_MAX_VPS 64

/*
 * A message on its way to a SINT.  Owned by the caller, who may not touch it
 * between hyperv_synic_post() and @done.
 */
typedef struct HvSintPost HvSintPost;
struct HvSintPost {
    struct hyperv_message msg;
    /*
     * Called once, without locks of the SynIC: 0 when the message is in the
     * guest's slot, -ENXIO when the SynIC, its page or the SINT is off.
     */
    void (*done)(HvSintPost *post, int status);
    QSIMPLEQ_ENTRY(HvSintPost) link;
};

/* Queue @post for SINT @sint of virtual processor @vp; messages are FIFO. */
void hyperv_synic_post(uint32_t vp, unsigned sint, HvSintPost *post);

/* MSRs.  Writers run on the vCPU's own thread; values are already checked. */
uint64_t hyperv_synic_get_control(uint32_t vp);
void hyperv_synic_set_control(uint32_t vp, uint64_t value);
uint64_t hyperv_synic_get_simp(uint32_t vp);
void hyperv_synic_set_simp(uint32_t vp, uint64_t value);
uint64_t hyperv_synic_get_siefp(uint32_t vp);
void hyperv_synic_set_siefp(uint32_t vp, uint64_t value);
uint64_t hyperv_synic_get_sint(uint32_t vp, unsigned sint);
void hyperv_synic_set_sint(uint32_t vp, unsigned sint, uint64_t value);
void hyperv_synic_eom(uint32_t vp);

/*
 * Belongs to the accelerator: whether interrupts that this thread raises do
 * not wake their vCPU, because the SynIC does it as soon as the BQL is free.
 */
extern __thread bool hyperv_kick_deferred;

/* Inject @vector into @vp's local APIC. */
void hyperv_synic_inject(uint32_t vp, uint8_t vector);

/* True if @vector belongs to an unmasked auto-EOI SINT. */
bool hyperv_synic_auto_eoi(uint32_t vp, uint8_t vector);

/*
 * A guest-placed page that lies over guest RAM while it is enabled.  Initialize
 * once under the BQL; set from a vCPU thread, takes effect before that vCPU's
 * next instruction block.
 */
typedef struct HvOverlay {
    MemoryRegion mr;
    void *page;
    bool mapped;
    hwaddr gpa;
} HvOverlay;

void hyperv_overlay_init(HvOverlay *overlay, Object *owner, const char *name, bool readonly);
/* @msr: bit 0 enables, bits 63:12 are the page number.  vCPU thread @cs. */
void hyperv_overlay_set(HvOverlay *overlay, CPUState *cs, uint64_t msr);
/* Unmap at once: system reset, vCPUs stopped, BQL held. */
void hyperv_overlay_reset(HvOverlay *overlay);
/* True if there is RAM at the page that the value of an overlay MSR names. */
bool hyperv_overlay_mappable(uint64_t msr);

/*
 * Copy @len bytes of guest RAM at @gpa; false if any of it is not RAM.  Never
 * touches a device.
 */
bool hyperv_read_ram(hwaddr gpa, void *buf, hwaddr len);

/* Message and event counters, added to @vp's part of the stats. */
void hyperv_synic_stats(uint32_t vp, QDict *out);

#endif
