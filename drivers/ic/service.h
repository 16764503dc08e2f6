// SPDX-License-Identifier: BSD-2-Clause
// Inside drivers/ic: a service is a driver of one device, a list of versions and a function that answers
// a message. ic.c carries the messages. Core 0 only: probe and remove in the device's fiber, the rest
// from the loop.
#pragma once

#include "drivers/ic/ic.h"
#include "drivers/ic/ic_proto.h"
#include "drivers/vmbus/channel.h"

#define IC_VERSIONS 4

struct ic_message {           // a private copy
    struct ic_version agreed; // of the service's messages
    uint8_t *body;            // to be changed into that of the answer, of the same length
    uint32_t size;
};

struct ic_service {
    const char *name;
    uint16_t type;                            // enum ic_message_type
    struct ic_version versions[IC_VERSIONS];  // best first, 0.0 behind the last
    uint32_t (*answer)(struct ic_message *m); // returns enum ic_status
    void (*after)(void);                      // the answer is with the host; may be NULL
    struct vmbus_driver driver;

    // While there is a device:
    struct vmbus_device *device; // NULL: none
    struct channel channel;
    uint8_t *message;    // IC_MESSAGE_PAGES
    uint32_t reply_size; // an answer waits in it for room on the ring; 0: none
    bool agreed;
    struct ic_version framework, version;
    uint64_t requests, bad, failed; // answered; dropped; answered with a failure
};

#define IC_MESSAGE_PAGES 3u

extern struct ic_service ic_shutdown_service;
extern struct ic_service ic_heartbeat_service;
extern struct ic_service ic_timesync_service;
extern struct ic_service ic_kvp_service;

extern const struct ic_client *ic_client;

// The host has read all that it was told, or never will.
bool ic_answer_read(struct ic_service *s);
