// SPDX-License-Identifier: BSD-2-Clause
// Inside drivers/vmbus: posting control messages and waiting for their answers. Core 0 only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/vmbus/device.h"
#include "kernel/time.h"

#define VMBUS_CONNECT_TIMEOUT (30 * TIME_S)  // the host may first have to tear down the firmware's
#define VMBUS_ANSWER_TIMEOUT (10 * TIME_S)   // GPADL_CREATED, OPEN_RESULT, GPADL_TORNDOWN
#define VMBUS_RESCINDED_TIMEOUT (1 * TIME_S) // GPADL_TORNDOWN of a rescinded device
#define VMBUS_POST_TIMEOUT (10 * TIME_S)     // host refuses the message with "no buffers"
#define VMBUS_UNLOAD_TIMEOUT (5 * TIME_S)

struct vmbus_call {  // a question to the host; on the stack of the fiber that asks
    uint32_t answer; // message type
    uint32_t relid;  // that the answer must carry, where it has one
    uint32_t id;     // open id or GPADL that the answer must carry, where it has one
    bool done;
    struct event event;
    union {
        struct vmbus_version_response version;
        struct vmbus_result result;
    };
    struct vmbus_call *next;
};

struct vmbus_counters {
    uint64_t messages, bad_messages, unexpected_messages;
    uint64_t posts, post_retries;
    uint64_t offers, offers_dropped, rescinds, released;
    uint64_t leaked_pages;    // shared memory that the host did not confirm to have let go
    uint64_t leaked_requests; // the same of memory that packets referred to
};
extern struct vmbus_counters vmbus_counters;

// The negotiated enum vmbus_version; 0 when not connected.
uint32_t vmbus_version(void);

// The GPA page with the bits of non-dedicated channels.
void vmbus_set_send_bit(uint32_t relid);

// Posts a message, retrying while the host is out of buffers. `device` (or NULL) ends the retries when
// it is rescinded. From a fiber. 0, -ETIMEDOUT, -ENODEV, -ENXIO (no such connection), -EIO, -ENOTCONN.
int vmbus_post(const void *message, size_t len, const struct vmbus_device *device);

// A call in three steps, so that a question can take several messages: begin (before posting), wait,
// end. vmbus_call_wait: 0 with the answer in the call, -ETIMEDOUT, or -ENODEV if `device` (or NULL)
// was rescinded first.
void vmbus_call_begin(struct vmbus_call *call);
int vmbus_call_wait(struct vmbus_call *call, struct vmbus_device *device, uint64_t timeout);
void vmbus_call_end(struct vmbus_call *call);

// What a call asks in one message.
int vmbus_call(struct vmbus_call *call, const void *message, size_t len,
               struct vmbus_device *device, uint64_t timeout);

// A message from the host, as taken from the slot. From the loop.
void vmbus_message(const struct hv_message *message);

// True if the payload is a host-to-guest message that is long enough for its type.
bool vmbus_message_valid(const void *payload, size_t len);

// What each core counts for itself; read by core 0.
struct bus_counters {
    uint64_t events, unknown_events, signals, signals_refused;
};
const struct bus_counters *vmbus_core_counters(unsigned core); // channel.c

// offers.c
void vmbus_offer(const struct vmbus_offer *offer);
void vmbus_rescind(uint32_t relid);
unsigned vmbus_devices_in(enum device_state state); // how many
_Noreturn void vmbus_offers_run(void);              // rest of the life of the control fiber
