/*
 * How the accelerator sets up /machine/hyperv.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HYPERV_HOST_INTERNAL_H
#define HW_HYPERV_HYPERV_HOST_INTERNAL_H

#include "qapi/qmp/qdict.h"

/* What the accelerator knows.  All in the main loop with the BQL held. */
typedef struct HvPartitionOps {
    /* Adds "vps" and "crash" to the stats. */
    void (*stats)(QDict *out);
    uint64_t (*get_tsc_khz)(void);
    /* Go on with another frequency; the VM has to be stopped. */
    void (*set_tsc_khz)(uint64_t khz, Error **errp);
    /* TSC and reference time of a stopped VM leap ahead. */
    void (*leap)(uint64_t ms, Error **errp);
} HvPartitionOps;

/* Make the object unless it exists.  BQL held. */
void hyperv_host_create(const HvPartitionOps *ops);

#endif
