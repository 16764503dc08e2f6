// SPDX-License-Identifier: BSD-2-Clause
// Spreads connections evenly over the cores: hashing alone gives the busiest of 8 cores half as many
// again of 64 connections as the average. Buckets (flow.h) without a connection go from a core that has
// many connections to those that have few, and then the host's table follows. A wish of the host not to
// use some of its channels is obeyed as far as that goes: connections stay where they are, and their
// buckets go when they end.
#pragma once

#include <stdint.h>

#include "drivers/netvsc/netvsc.h"

struct interface;
struct nic;

// Core 0, once, if there are other cores.
void steer_start(void);

// A connection came into a bucket of this core, or the last of one may be gone. From flow.c.
void steer_opened(struct interface *interface);
void steer_closed(struct interface *interface); // NULL: that is gone already
// nic_client.balance: the host would like these cores to be used. Core 0.
void steer_wish(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE]);
// An interface is there, with the buckets that the host gives it.
void steer_join(struct interface *interface);
// This core has other buckets than before; it got some from another core.
void steer_changed(struct interface *interface);
void steer_taken(struct interface *interface);
