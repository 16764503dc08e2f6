// SPDX-License-Identifier: BSD-2-Clause
// The sum that the checksums of IP and TCP are made of, where the headers lie in one piece. Pure.
#pragma once

#include <stdint.h>
#include <string.h>

// The one's complement sum of `len` bytes, an even number; not folded. At most 64 KiB.
static inline uint32_t sum_words(const void *data, unsigned len)
{
    const uint8_t *bytes = data;
    uint32_t sum = 0;
    for (unsigned i = 0; i < len; i += 2) {
        uint16_t word;
        memcpy(&word, bytes + i, sizeof(word));
        sum += word;
    }
    return sum;
}
