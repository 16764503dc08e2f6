// SPDX-License-Identifier: BSD-2-Clause
// Between the files of the native build: the options of the program and what its loop waits for.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct native_options {
    const char *tap; // name of an existing TAP device (with vnet headers)
    uint8_t mac[6];
    bool offload;    // checksums both ways
    unsigned faults; // one in so many sends is refused, one in so many is held; 0: none
};
extern struct native_options native_options;

// The file descriptor of the TAP device, -1 before the NIC was started; and whether a frame from it
// could be taken now.
int native_nic_fd(void);
bool native_nic_can_receive(void);
