// SPDX-License-Identifier: BSD-2-Clause
// See toeplitz.h. The hash is a sum without carry: each bit of the input that is set adds the 32 bits
// of the key that begin at its place. So each half byte adds a number that depends on it alone.
#include "drivers/netvsc/toeplitz.h"

// 32 bits of the key from bit `at` on.
static uint32_t window(const uint8_t key[TOEPLITZ_KEY], unsigned at)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < 5; i++)
        bits = bits << 8 | (at / 8 + i < TOEPLITZ_KEY ? key[at / 8 + i] : 0);
    return (uint32_t)(bits >> (8 - at % 8));
}

void toeplitz_prepare(struct toeplitz *t, const uint8_t key[TOEPLITZ_KEY])
{
    for (unsigned half = 0; half < 2 * TOEPLITZ_INPUT; half++) {
        for (unsigned value = 0; value < 16; value++) {
            t->part[half][value] = 0;
            for (unsigned bit = 0; bit < 4; bit++) {
                if (value & 8u >> bit)
                    t->part[half][value] ^= window(key, 4 * half + bit);
            }
        }
    }
}

uint32_t toeplitz(const struct toeplitz *t, const uint8_t *input, unsigned bytes)
{
    uint32_t hash = 0;

    for (unsigned i = 0; i < bytes; i++)
        hash ^= t->part[2 * i][input[i] >> 4] ^ t->part[2 * i + 1][input[i] & 15];
    return hash;
}
