// SPDX-License-Identifier: BSD-2-Clause
// So many lines at once, and one more each interval. The rest is counted.
#include "net/services/iperf3/client_log.h"

#include "kernel/core.h"
#include "kernel/time.h"

#define LOG_BURST 50u // of all cores together
#define LOG_INTERVAL (50 * TIME_MS)

static PERCORE uint64_t filled; // when the allowance was last added to
static PERCORE unsigned allowance, left_out;

bool client_log_allowed(void)
{
    uint64_t intervals = (time_now() - filled) / LOG_INTERVAL;
    if (intervals) {
        filled += intervals * LOG_INTERVAL;
        unsigned most = LOG_BURST / core_count() + 1;
        allowance = intervals < most - allowance ? allowance + (unsigned)intervals : most;
    }
    if (!allowance) {
        left_out++;
        return false;
    }
    allowance--;
    if (left_out)
        log_warn("iperf3: %u lines left out", left_out);
    left_out = 0;
    return true;
}
