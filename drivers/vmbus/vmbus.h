// SPDX-License-Identifier: BSD-2-Clause
// VMBus as the kernel sees it. What drivers of devices use is in channel.h and device.h.
#pragma once

#include <stdbool.h>

// Starts the control fiber on core 0: connects, requests offers, then lives as long as the machine.
// Drivers must have registered before. Core 0, once, after vmbus_start_core().
void vmbus_start(void);

// Adds the calling core's VMBus poller to its loop. Each core, once, before whatever works on what the
// channels bring.
void vmbus_start_core(void);

// Says goodbye to the host: closes everything on its side, waits for UNLOAD_RESPONSE by polling the
// message slots for at most a few seconds. Core 0 at shutdown, or any core in panic when all others
// are stopped; needs no interrupts, no allocation, no fiber. At most once; later calls do nothing.
void vmbus_unload(void);
