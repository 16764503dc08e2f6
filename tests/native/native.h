// SPDX-License-Identifier: BSD-2-Clause
// Between the files of the native build: the options of the program and what its loop waits for.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NATIVE_NICS 8 // NIC N has the MAC address 02:00:00:5e:00:02 + N
#define NATIVE_CORES 8

struct native_wire { // what happens to segments on their way out, by wire.c
    bool on;
    uint64_t delay;                    // time_now() units
    uint64_t rate;                     // bytes a second, 0: no limit
    uint32_t queue;                    // bytes that wait for it, 0: no limit
    unsigned loss, reorder, duplicate; // of a million
};

struct native_options {
    const char *taps[NATIVE_NICS];  // names of existing TAP devices (with vnet headers)
    bool offload;                   // checksums both ways,
    bool large_send, large_receive; // and with that, frames of up to 64 KiB
    unsigned faults;    // one in so many sends is refused, one in so many is held; 0: none
    unsigned losses;    // one in so many frames sent is lost on the way; 0: none
    unsigned rx_losses; // the same of those received
    unsigned refuse;    // one in so many messages between cores is refused; 0: none
    struct native_wire wire;
    unsigned cores; // each has a channel of every NIC
};
extern struct native_options native_options;

// The file descriptor of a TAP device, -1: there is none; and whether a frame from it could be taken
// now.
int native_nic_fd(unsigned number);
bool native_nic_can_receive(unsigned number);

// So many cores and messages between them from now on.
void native_cores_start(unsigned n);

// wire.c: sends what iov[1] and what follows hold, iov[0] is a struct virtio_net_hdr; to be polled; and
// the option's value, "delay=MS,rate=KBIT,queue=KIB,loss=PPM,reorder=PPM,duplicate=PPM".
struct iovec;
void native_wire_send(int fd, const struct iovec *iov, int count);
void native_wire_poll(void);
uint64_t native_wire_deadline(void *ctx);
bool native_wire_parse(char *text);

// From now on another core runs.
void native_core(unsigned core);

// Undoes loop_add() on the calling core.
struct poller;
void native_loop_remove(struct poller *p);

// As if the host wanted all flows of a NIC on one core.
void native_nic_wish(unsigned number, unsigned core);

// Removes a NIC as if the host had; plugs it in again; takes its cable out or puts it in.
void native_nic_remove(unsigned number);
void native_nic_add(unsigned number);
void native_nic_link(unsigned number, bool up);
