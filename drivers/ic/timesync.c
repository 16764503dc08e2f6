// SPDX-License-Identifier: BSD-2-Clause
// Time synchronization: the host tells what time it is, on its own account when the VM starts or goes on
// after a pause ("set the clock"), and every few seconds as a sample. kernel/utc.c judges both.
#include <string.h>

#include "drivers/ic/service.h"
#include "kernel/time.h"
#include "kernel/utc.h"

// Which moment of reference time a message speaks of: older ones do not say, so that they come.
static bool read_body(const struct ic_message *m, uint64_t *host, uint64_t *at, uint8_t *flags)
{
    struct ic_timesync t;
    struct ic_timesync_old old;

    if (m->agreed.major >= 4) {
        if (m->size < sizeof(t))
            return false;
        memcpy(&t, m->body, sizeof(t));
        *host = t.host_time, *at = t.reference, *flags = t.flags;
        return true;
    }
    if (m->size < sizeof(old))
        return false;
    memcpy(&old, m->body, sizeof(old));
    *host = old.host_time, *at = time_now(), *flags = old.flags;
    return true;
}

static uint32_t take_time(struct ic_message *m)
{
    uint64_t host, at;
    uint8_t flags;

    if (!read_body(m, &host, &at, &flags) || host < IC_UNIX_EPOCH)
        return IC_INVALID;
    if (!(flags & (IC_TIME_SYNC | IC_TIME_SAMPLE)))
        return IC_OK; // nothing that we should do
    return utc_take(host - IC_UNIX_EPOCH, at, flags & IC_TIME_SYNC) ? IC_OK : IC_INVALID;
}

struct ic_service ic_timesync_service = {
    .name = "timesync",
    .type = IC_TIMESYNC,
    .versions = {{4, 0}, {3, 0}, {1, 0}},
    .answer = take_time,
    .driver.class_id = {{0x30, 0xe6, 0x27, 0x95, 0xae, 0xd0, 0x7b, 0x49, 0xad, 0xce, 0xe8, 0x0a,
                         0xb0, 0x17, 0x5c, 0xaf}},
};
