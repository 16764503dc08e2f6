// SPDX-License-Identifier: BSD-2-Clause
// Heartbeat: every other second the host asks whether we live, and we say also how the network stack
// does (net/manage.c says what healthy and critical mean).
#include <string.h>

#include "drivers/ic/service.h"

static uint32_t beat(struct ic_message *m)
{
    struct ic_heartbeat h;

    if (m->size < sizeof(h))
        return IC_INVALID;
    memcpy(&h, m->body, sizeof(h));
    h.sequence++;
    h.state = ic_client->state();
    memcpy(m->body, &h, sizeof(h));
    return IC_OK;
}

struct ic_service ic_heartbeat_service = {
    .name = "heartbeat",
    .type = IC_HEARTBEAT,
    .versions = {{3, 0}, {1, 0}},
    .answer = beat,
    .driver.class_id = {{0x39, 0x4f, 0x16, 0x57, 0x15, 0x91, 0x78, 0x4e, 0xab, 0x55, 0x38, 0x2f,
                         0x3b, 0xd5, 0x42, 0x2d}},
};
