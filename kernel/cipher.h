// SPDX-License-Identifier: BSD-2-Clause
// The two primitives behind kernel/random.h. Pure functions; the unit tests hold them to the
// published vectors.
#pragma once

#include <stdint.h>

// One block of the ChaCha20 key stream (RFC 8439, 2.3). Words are in the machine's byte order.
void chacha20_block(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3],
                    uint32_t out[16]);
