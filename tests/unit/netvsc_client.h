// SPDX-License-Identifier: BSD-2-Clause
// The client of netvsc that the unit tests of a NIC share: it counts what it is told, keeps what it
// gets, and sends. The drivers keep their state for the life of the machine, so each test is a process
// of its own; CHECK ends it.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "drivers/netvsc/netvsc.h"
#include "fake_host.h"
#include "kernel/time.h"

#define LONG (200 * TIME_S)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s (question %u: %s)\n", __FILE__, __LINE__, #cond,            \
                    host.questions, host.question);                                                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// A cmocka test `name` that runs child_name() as a process.
#define CHILD_TEST(name)                                                                           \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        in_child(child_##name);                                                                    \
    }

struct client {
    struct nic *nic;
    unsigned attached, detached, links, batches, ready; // on core 0
    unsigned on_core[8];                                // frames received
    unsigned attached_cores, detached_cores, linked_cores, done_core;
    unsigned balanced;
    uint8_t wish[NIC_TABLE_SIZE];
    unsigned frames;
    void *tokens[256];
    struct nic_frame last; // its pieces are gone
    const uint8_t *data;   // where it began
    uint8_t bytes[4096];
    void *done[2048];
    unsigned done_count;
    bool release;             // at once
    bool copy;                // when it should: then release at once
    bool send;                // when attached
    void (*table)(void *arg); // the same: in a fiber of its own
    unsigned closes_at_done;
};

extern struct client client;

// What the next processes are to try; set before in_child().
extern uint32_t want_version;
extern unsigned fault_number;
extern enum fault fault_kind;

// Cores of the machine that start() makes; 1 unless a test says otherwise.
extern unsigned machine_cores;

// So many cores, and a NIC that can have so many channels.
void want_cores(unsigned count, unsigned queues);

// Makes the machine with VMBus and netvsc; nothing has happened yet.
void start_machine(void);

// The same, and runs until nothing happens any more.
void start(void);

// The same; the NIC has to come up.
void start_up(void);

// The same as start(), but only until the NIC has failed.
void start_in_vain(void);

// Runs until the NIC has failed and been let go of; it is not tried again before a second is over.
void run_until_idle(void);

// Everything that the NIC had is back, but for what the host may still have.
void check_all_freed(void);

// Runs test() in a process of its own; fails the cmocka test if it does not end well.
void in_child(void (*test)(void));

// What run() returns in a process of its own.
unsigned number_in_child(uint32_t (*run)(void));

// How many questions a machine with a NIC of so many channels asks the host, one core for each.
int questions_of_a_good_run(unsigned channels);

// The bytes that client_send() sends; fill_frame() gives each a value.
extern uint8_t frame_bytes[65536];
void fill_frame(void);

// Sends a frame of len bytes in two pieces.
enum nic_tx_result client_send(uint32_t len, uint8_t csum, void *ctx);

// A little-endian word in what the host got.
uint32_t word(const void *p, unsigned offset);
