/*
 * The device that gives a machine its VMBus.  acpi-build.c looks for it, to
 * describe it to the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_VMBUS_BRIDGE_H
#define HW_HYPERV_VMBUS_BRIDGE_H

#include "hw/sysbus.h"
#include "hw/hyperv/vmbus.h"
#include "qom/object.h"

#define TYPE_VMBUS_BRIDGE "vmbus-bridge"
OBJECT_DECLARE_SIMPLE_TYPE(VMBusBridge, VMBUS_BRIDGE)

struct VMBusBridge {
    SysBusDevice parent_obj;

    uint8_t irq;            /* named in the ACPI device, never raised */
    uint32_t max_version;   /* highest protocol version spoken */
    VMBus *bus;
};

static inline VMBusBridge *vmbus_bridge_find(void)
{
    return VMBUS_BRIDGE(object_resolve_path_type("", TYPE_VMBUS_BRIDGE, NULL));
}

#endif
