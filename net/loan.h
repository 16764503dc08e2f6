// SPDX-License-Identifier: BSD-2-Clause
// Received frames that lwIP is lent instead of a copy. Used by rx.c, on the core of the NIC's channel.
#pragma once

#include "drivers/netvsc/netvsc.h"
#include "lwip/pbuf.h"

struct interface;

// The frame (of more than LOAN_HEADER bytes) with private headers and a payload that stays where it is
// until lwIP frees it; then the `count` tokens are given back. NULL: there is no memory, or it
// is a fragment or anything else of which lwIP might look at more than the headers.
struct pbuf *loan_frame(struct interface *interface, const struct nic_frame *in,
                        void *const *tokens, unsigned count);

// Headers that are read in place: Ethernet, IPv4 and TCP, each as long as it can be. IPv6 packets with
// other headers before TCP's or UDP's are not lent.
#define LOAN_HEADER (14 + 60 + 60)
