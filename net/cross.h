// SPDX-License-Identifier: BSD-2-Clause
// Received packets that landed on a wrong core: handed to the right one as a copy. For what the host
// cannot sort by flow (datagrams that came in fragments, messages about a flow, a table that just
// changed), not for the packet path.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lwip/pbuf.h"

struct interface;

// Gives a copy of an IP packet (p begins with its header; stays the caller's) to lwIP on another core
// that has an interface of the same NIC, with the next cross_flush(). False: dropped, because too much
// is under way, or it has been handed on too often. To be called while a received batch is looked at.
bool cross_send(const struct interface *interface, unsigned core, const struct pbuf *p);

// At the end of a batch: what goes to one core goes with one message.
void cross_flush(void);
