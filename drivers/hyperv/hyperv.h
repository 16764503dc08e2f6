// SPDX-License-Identifier: BSD-2-Clause
// The hypervisor interface: hypercalls and SynIC, as VMBus needs them. Above this nothing touches
// an MSR. Sources: TLFS; layouts in hyperv_regs.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_MESSAGE_PAYLOAD_MAX 240
#define HV_EVENT_FLAG_WORDS 32 // 2048 flags of one SINT, as 64 bit words

enum hv_status { // low 16 bits of a hypercall's result, those that callers tell apart
    HV_STATUS_SUCCESS = 0,
    HV_STATUS_INSUFFICIENT_MEMORY = 0x0b,
    HV_STATUS_INVALID_CONNECTION_ID = 0x12,
    HV_STATUS_INSUFFICIENT_BUFFERS = 0x13,
    HV_STATUS_TIMEOUT = 0x78,
};

struct hv_message { // a private copy; already checked: size <= 240
    uint32_t type;
    uint8_t size;
    uint64_t sender;
    uint8_t payload[HV_MESSAGE_PAYLOAD_MAX];
};

// HvPostMessage by this core's own input page. len <= 240. Returns the hypercall's status.
uint16_t hv_post_message(uint32_t connection_id, uint32_t type, const void *payload, size_t len);

// HvSignalEvent, fast form, flag 0. Returns the hypercall's status.
uint16_t hv_signal_event(uint32_t connection_id);

// True once since the VMBus SINT last interrupted this core; clears the note. Cheap: call it from a
// poller's poll() and arm() before looking at messages and events.
bool synic_interrupted(void);

// Takes the next VMBus message from this core's SIMP slot: copies it out, frees the slot, EOMs by
// the rule of the TLFS. False if there is none.
bool synic_take_message(struct hv_message *out);

// The same for any core's slot; only for panic, when the other cores are stopped.
bool synic_take_message_of(unsigned core, struct hv_message *out);

// Takes and clears (atomically, word by word) the first `words` * 64 of this core's VMBus event flags.
// False if none of them was set.
bool synic_take_events(uint64_t flags[HV_EVENT_FLAG_WORDS], unsigned words);
