// SPDX-License-Identifier: BSD-2-Clause
// Shutdown: the host wants the machine off or started again. It gets its answer first; then
// kernel/power.c ends what runs, within the time that the host and dunlin.conf allow, or at once if the
// host insists.
#include <string.h>

#include "drivers/ic/service.h"
#include "drivers/ic/utf16.h"
#include "kernel/fiber.h"
#include "kernel/log.h"
#include "kernel/power.h"
#include "kernel/time.h"

static struct {
    bool asked; // and not begun
    enum power_end end;
    bool forced;
    uint32_t timeout; // seconds, 0: not said
} wish;

#define HEAR_WAIT (200 * TIME_MS) // for the host to read its answer
#define TEXT_MAX 128              // of a reason that is longer, or no ASCII, nothing is said

static uint32_t shut_down(struct ic_message *m)
{
    struct ic_shutdown s;
    size_t head = offsetof(struct ic_shutdown, text);
    char text[TEXT_MAX];

    if (m->size < head)
        return IC_INVALID;
    memcpy(&s, m->body, head);
    if (s.flags > IC_RESTART_FORCED) {
        log_warn("ic: shutdown: the host asks for what we cannot do (%u)", s.flags);
        return IC_FAIL; // to hibernate, and what newer hosts think of
    }
    if (!utf16_to_ascii(m->body + head, m->size - head, text, sizeof(text)))
        *text = '\0';
    wish.asked = true;
    wish.end = s.flags >= IC_RESTART ? POWER_RESTART : POWER_OFF;
    wish.forced = s.flags & 1;
    wish.timeout = s.timeout;
    log_info("ic: shutdown: the host asks for %s%s, reason %#x, within %u s%s%s%s",
             wish.forced ? "forced " : "", wish.end == POWER_OFF ? "power off" : "restart",
             s.reason, s.timeout, *text ? ": \"" : "", text, *text ? "\"" : "");
    return IC_OK;
}

// The end closes the channel; what the host has not read by then it never hears.
static void end_fiber(void *arg)
{
    uint64_t deadline = time_now() + HEAR_WAIT;

    (void)arg;
    while (!ic_answer_read(&ic_shutdown_service) && time_now() < deadline)
        fiber_sleep(TIME_MS);
    power_end(wish.end, wish.forced, wish.timeout * TIME_S);
}

static void begin(void)
{
    if (!wish.asked)
        return;
    wish.asked = false;
    if (fiber_spawn("shutdown", end_fiber, NULL) != 0)
        power_end(wish.end, wish.forced, wish.timeout * TIME_S);
}

struct ic_service ic_shutdown_service = {
    .name = "shutdown",
    .type = IC_SHUTDOWN,
    .versions = {{3, 2}, {3, 1}, {3, 0}, {1, 0}},
    .answer = shut_down,
    .after = begin,
    .driver.class_id = {{0x31, 0x60, 0x0b, 0x0e, 0x13, 0x52, 0x34, 0x49, 0x81, 0x8b, 0x38, 0xd9,
                         0x0c, 0xed, 0x39, 0xdb}},
};
