// SPDX-License-Identifier: BSD-2-Clause
// Random numbers: a CSPRNG per core, each seeded from RDSEED/RDRAND, boot entropy and the TSC.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Fills with unpredictable bytes. Any core, not from an interrupt handler. Cannot fail.
void random_bytes(void *out, size_t len);

uint32_t random_u32(void);

// Keyed hash (SipHash-2-4) for sequence numbers, ports and hash tables.
uint64_t siphash24(const uint8_t key[16], const void *data, size_t len);
