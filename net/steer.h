// SPDX-License-Identifier: BSD-2-Clause
// Spreads connections evenly over the cores: hashing alone gives the busiest of 8 cores half as many
// again of 64 connections as the average. Buckets (flow.h) without a connection go from a core that has
// many connections to those that have few, and then the host's table follows.
#pragma once

#include <stdint.h>

struct interface;

// Core 0, once, if there are other cores.
void steer_start(void);

// A connection came into a bucket of this core, or the last of one may be gone. From flow.c.
void steer_opened(struct interface *interface);
void steer_closed(struct interface *interface); // NULL: that is gone already
// This core has other buckets than before.
void steer_changed(struct interface *interface);
