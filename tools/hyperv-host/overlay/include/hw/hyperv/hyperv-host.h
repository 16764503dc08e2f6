/*
 * Services the emulated Hyper-V offers to its own parts: counters that are
 * readable over QMP and the log of rules a guest has broken.
 *
 * Used by the SynIC and hypercall code, the VMBus and every VMBus device.
 * Works whether or not hyperv=on was given; nothing here needs a guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HYPERV_HOST_H
#define HW_HYPERV_HYPERV_HOST_H

#include "qapi/qmp/qdict.h"

/*
 * Adds the caller's counters to @out.  Runs in the main loop under the BQL,
 * each time somebody reads /machine/hyperv "stats".
 */
typedef void (*HvStatsFn)(QDict *out, void *opaque);

/*
 * Have @fn fill "devices.<name>" of the stats object.  @name is copied; it is
 * the device's id and must be unique.  BQL held.
 */
void hyperv_stats_register(const char *name, HvStatsFn fn, void *opaque);
/* The same for "services.<name>": integration components.  BQL held. */
void hyperv_stats_register_service(const char *name, HvStatsFn fn,
                                   void *opaque);
/* Undo either of them; unknown names are ignored.  BQL held. */
void hyperv_stats_unregister(const char *name);

/*
 * The guest broke @rule (kebab-case, listed in tools/hyperv-host/RULES.md):
 * prints "hyperv-host: violation: <rule>: <detail>" on stderr and counts it.
 * Any thread, with or without the BQL.  Every violation is counted; after the
 * first hundred lines of one rule the lines stop, so that a hostile guest
 * cannot fill the disk.
 */
void hyperv_violation(const char *rule, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * The GUEST_OS_ID MSR as the guest last wrote it (0 before that).  Any thread.
 */
uint64_t hyperv_guest_os_id(void);

/*
 * Reference time in units of 100 ns since the machine was started.  Any
 * thread.
 */
uint64_t hyperv_reference_time(void);

#endif
