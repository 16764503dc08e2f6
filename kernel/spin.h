// SPDX-License-Identifier: BSD-2-Clause
// Whether a core without work should look on for a while before it halts: it should while most of its
// last pauses were shorter than that while. Then it is spared an interrupt, and the host a halt; where
// pauses are long, as on an idle machine, it halts at once. Used by the loop; no state but struct spin.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SPIN_PAUSES 8u // that are remembered
#define SPIN_SHORT 6u  // so many of them have to have been short

struct spin {       // one core's
    uint8_t shorts; // a bit for each of the last pauses, 1: it was short; the last one is bit 0
};

static inline bool spin_pays(const struct spin *s)
{
    return (unsigned)__builtin_popcount(s->shorts) >= SPIN_SHORT;
}

// A pause has ended that took `pause`; looking on for `most` (any unit of time) would have met its end
// or did so.
static inline void spin_learn(struct spin *s, uint64_t pause, uint64_t most)
{
    s->shorts = (uint8_t)(s->shorts << 1 | (pause < most));
}
