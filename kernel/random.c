// SPDX-License-Identifier: BSD-2-Clause
// The CSPRNG of each core: ChaCha20 with its key replaced after every request, so that what was
// given out cannot be computed from a later state. Every source of entropy is mixed in, none is
// trusted alone; a machine without any hardware source says so in the log.
#include "kernel/random.h"

#include <stdbool.h>
#include <string.h>

#include "boot/boot_info.h"
#include "kernel/cipher.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/machine.h"
#include "kernel/time.h"

#define HARDWARE_TRIES 64
#define SEED_WORDS 8

static uint64_t boot_seed[SEED_WORDS]; // EFI's, read-only after random_init()
static bool have_rdrand, have_rdseed;
static PERCORE uint32_t key[8];
static PERCORE bool seeded;

static bool rdrand(uint64_t *out)
{
    bool ok;
    __asm__ volatile("rdrand %0" : "=r"(*out), "=@ccc"(ok));
    return ok;
}

static bool rdseed(uint64_t *out)
{
    bool ok;
    __asm__ volatile("rdseed %0" : "=r"(*out), "=@ccc"(ok));
    return ok;
}

static bool hardware_word(uint64_t *out)
{
    for (unsigned i = 0; i < HARDWARE_TRIES; i++) {
        if ((have_rdseed && rdseed(out)) || (have_rdrand && rdrand(out)))
            return true;
        cpu_pause();
    }
    return false;
}

// key = first half of ChaCha20(key xor word)
static void mix(uint64_t word)
{
    static const uint32_t nonce[3];
    uint32_t block[16];

    key[0] ^= (uint32_t)word;
    key[1] ^= (uint32_t)(word >> 32);
    chacha20_block(key, 0, nonce, block);
    memcpy(key, block, sizeof(key));
}

void random_init_core(void)
{
    unsigned hardware = 0;

    for (unsigned i = 0; i < SEED_WORDS; i++) {
        uint64_t word;
        mix(boot_seed[i]);
        if (hardware_word(&word)) {
            mix(word);
            hardware++;
        }
        mix(rdtsc());
    }
    mix(time_now());
    mix(core_id());
    seeded = true;
    if (hardware == 0 && core_id() == 0)
        log_warn("random: no RDSEED or RDRAND: seeded from the firmware and the clock only");
}

void random_init(const struct boot_info *info)
{
    have_rdrand = cpuid(1, 0).ecx & 1u << 30;
    have_rdseed = cpuid(0, 0).eax >= 7 && (cpuid(7, 0).ebx & 1u << 18);
    memcpy(boot_seed, info->entropy, sizeof(boot_seed));
    random_init_core();
}

void random_bytes(void *out, size_t len)
{
    static const uint32_t nonce[3] = {1, 0, 0};
    uint32_t block[16];
    uint32_t next[16];
    uint8_t *p = out;

    if (!seeded)
        random_init_core();
    chacha20_block(key, 0, nonce, next);
    for (uint32_t counter = 1; len; counter++) {
        size_t n = len < sizeof(block) ? len : sizeof(block);
        chacha20_block(key, counter, nonce, block);
        memcpy(p, block, n);
        p += n;
        len -= n;
    }
    memcpy(key, next, sizeof(key));
}

uint32_t random_u32(void)
{
    uint32_t value;

    random_bytes(&value, sizeof(value));
    return value;
}
