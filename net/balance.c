// SPDX-License-Identifier: BSD-2-Clause
// See balance.h. A connection weighs as much as WEIGHT free buckets: so much that in the end the free
// buckets are with the least loaded cores, yet equal loads share them equally.
#include "net/balance.h"

#include <stdbool.h>

#define WEIGHT 64
#define SLACK 8 // a difference below one in so many of the average is not worth a change

static uint64_t cost(const struct balance_load *load)
{
    return (uint64_t)load->connections * WEIGHT + load->free;
}

static unsigned least(const struct balance_load loads[], uint64_t cores)
{
    unsigned best = (unsigned)__builtin_ctzll(cores);
    for (; cores; cores &= cores - 1) {
        unsigned core = (unsigned)__builtin_ctzll(cores);
        if (cost(&loads[core]) < cost(&loads[best]))
            best = core;
    }
    return best;
}

// Of one connection more than the least loaded core has it is worth to take notice, of more when there
// are many.
static bool worth_it(const struct balance_load loads[], uint64_t cores, unsigned self)
{
    uint64_t sum = 0;
    uint32_t fewest = UINT32_MAX;
    for (uint64_t left = cores; left; left &= left - 1) {
        const struct balance_load *load = &loads[__builtin_ctzll(left)];
        sum += load->connections;
        fewest = load->connections < fewest ? load->connections : fewest;
    }
    uint64_t average = sum / (unsigned)__builtin_popcountll(cores);
    return loads[self].connections >= fewest + 1 + average / SLACK;
}

unsigned balance(struct balance_load loads[], uint64_t cores, unsigned self, const uint64_t mine[2],
                 uint64_t gifts[][2])
{
    unsigned given = 0;
    if (!worth_it(loads, cores, self))
        return 0;
    for (unsigned word = 0; word < 2; word++) {
        for (uint64_t left = mine[word]; left; left &= left - 1) {
            unsigned to = least(loads, cores);
            if (cost(&loads[to]) + 1 >= cost(&loads[self]))
                return given;
            gifts[to][word] |= left & -left;
            loads[to].free++;
            loads[self].free--;
            given++;
        }
    }
    return given;
}
