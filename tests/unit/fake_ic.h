// SPDX-License-Identifier: BSD-2-Clause
// What the unit tests of the integration services share: VMBus, memory, time and power below the services
// are replaced, their client above them too, and the host's side of the ring is played. One service and
// one message at a time; what does not hold fails the running cmocka test.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/ic/ic.h"
#include "drivers/ic/service.h"
#include "drivers/vmbus/ring.h"
#include "kernel/alloc.h"
#include "kernel/power.h"

struct fake_message {
    struct ic_header header;
    uint8_t body[3 * PAGE_SIZE];
};

struct fake_ic {
    struct ring_in in;   // what the guest says
    struct ring_out out; // what the host says
    struct channel *channel;
    bool open_fails, fibers_fail, rescinded;
    unsigned failed;       // channels
    size_t pages, objects; // that the guest has
    const char *order[8];  // what happened, in this order
    unsigned orders;
    uint64_t now;
    void (*fiber)(void *arg); // the last one that was spawned
    struct {
        uint64_t utc, at;
        bool sync;
    } taken; // the time
    struct {
        enum power_end end;
        bool forced;
        uint64_t within;
    } ended;
    enum ic_state state; // what the client says
    struct ic_ip_info nic, configured;
    int configure_result;
    struct fake_message message, reply; // the next one, and the last answer
    uint32_t reply_size;                // 0: there is none
};

extern struct fake_ic host;
extern const struct ic_client fake_ic_client;
extern const struct ic_version both[2]; // frameworks

// The host offers the service's device, and takes it back; all memory has to come back, too.
void come(struct ic_service *s);
void go(void);

// Polls the guest until it has nothing to do.
void turn(void);

// Puts a packet on the ring; takes the answer off the other one into host.reply.
void put(uint16_t type, const void *payload, uint32_t size);
void take_reply(void);

// Makes host.message of a body; puts it (size: of the body) on the ring and takes the answer.
void prepare(uint16_t type, const void *body, uint32_t size);
void send_message(uint32_t size);

// Both, and checks what all answers have in common. Returns the status.
uint32_t ask(uint16_t type, const void *body, uint32_t size);

// Offers versions; answered(): which framework (0) and which messages (1) the guest has chosen. False:
// none.
bool negotiate(const struct ic_version *frameworks, unsigned framework_count,
               const struct ic_version *versions, unsigned count);
struct ic_version answered(unsigned i);

// come(), and the guest agrees on this version.
void ready(struct ic_service *s, uint16_t major);
