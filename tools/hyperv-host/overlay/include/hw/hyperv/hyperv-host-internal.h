/*
 * How the accelerator sets up /machine/hyperv.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HYPERV_HOST_INTERNAL_H
#define HW_HYPERV_HYPERV_HOST_INTERNAL_H

#include "qapi/qmp/qdict.h"

/* Adds "vps" and "crash" to the stats.  Main loop, BQL held. */
typedef void (*HvPartitionStatsFn)(QDict *out);

/* Make the object unless it exists.  BQL held. */
void hyperv_host_create(HvPartitionStatsFn fn);

#endif
