// SPDX-License-Identifier: BSD-2-Clause
// What gpadl.c needs of connection.c where a test looks at layouts only: nothing is ever posted.
#include <errno.h>

#include "drivers/vmbus/connection.h"

struct vmbus_counters vmbus_counters;

int vmbus_post(const void *message, size_t len, const struct vmbus_device *device)
{
    (void)message, (void)len, (void)device;
    return -ENOTCONN;
}

void vmbus_call_begin(struct vmbus_call *call)
{
    (void)call;
}

int vmbus_call_wait(struct vmbus_call *call, struct vmbus_device *device, uint64_t timeout)
{
    (void)call, (void)device, (void)timeout;
    return -ENOTCONN;
}

void vmbus_call_end(struct vmbus_call *call)
{
    (void)call;
}
