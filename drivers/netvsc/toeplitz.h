// SPDX-License-Identifier: BSD-2-Clause
// The Toeplitz hash of receive side scaling, as the host computes it to choose a channel. Pure.
#pragma once

#include <stdint.h>

#define TOEPLITZ_KEY 40   // bytes
#define TOEPLITZ_INPUT 36 // bytes at most: two IPv6 addresses and two ports

struct toeplitz { // a key, prepared: what each value of each half byte of the input contributes
    uint32_t part[2 * TOEPLITZ_INPUT][16];
};

void toeplitz_prepare(struct toeplitz *t, const uint8_t key[TOEPLITZ_KEY]);

// Of at most TOEPLITZ_INPUT bytes: source address, destination address, then the ports, if they count,
// in the same order; all as on the wire.
uint32_t toeplitz(const struct toeplitz *t, const uint8_t *input, unsigned bytes);
