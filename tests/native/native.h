// SPDX-License-Identifier: BSD-2-Clause
// Between the files of the native build: the options of the program and what its loop waits for.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NATIVE_NICS 2

struct native_options {
    const char *taps[NATIVE_NICS];  // names of existing TAP devices (with vnet headers)
    bool offload;                   // checksums both ways,
    bool large_send, large_receive; // and with that, frames of up to 64 KiB
    unsigned faults; // one in so many sends is refused, one in so many is held; 0: none
    unsigned losses; // one in so many frames sent is lost on the way; 0: none
};
extern struct native_options native_options;

// The file descriptor of a TAP device, -1: there is none; and whether a frame from it could be taken
// now.
int native_nic_fd(unsigned number);
bool native_nic_can_receive(unsigned number);

// Messages from now on.
void native_cores_start(void);

// Undoes loop_add().
struct poller;
void native_loop_remove(struct poller *p);

// Removes a NIC as if the host had.
void native_nic_remove(unsigned number);
