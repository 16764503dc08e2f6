/*
 * The Toeplitz hash of receive side scaling.  Used by hv-net-rss.c for each
 * received frame, and by a unit test against the published vectors; depends
 * on nothing but the C library.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_NET_TOEPLITZ_H
#define HW_HYPERV_HV_NET_TOEPLITZ_H

#include <stddef.h>
#include <stdint.h>

#define TOEPLITZ_KEY_BYTES 40

/*
 * The hash of @bytes (at most 36, an IPv6 4-tuple) at @input, addresses and
 * ports as they are in the packet, source first.
 */
static inline uint32_t toeplitz_hash(const uint8_t key[TOEPLITZ_KEY_BYTES],
                                     const uint8_t *input, size_t bytes)
{
    uint32_t window = (uint32_t)key[0] << 24 | key[1] << 16 | key[2] << 8 |
                      key[3];
    uint32_t hash = 0;
    size_t i;
    int bit;

    for (i = 0; i < bytes; i++) {
        for (bit = 7; bit >= 0; bit--) {
            hash ^= input[i] >> bit & 1 ? window : 0;
            window = window << 1 | (key[i + 4] >> bit & 1);
        }
    }
    return hash;
}

#endif
