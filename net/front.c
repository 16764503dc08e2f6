// SPDX-License-Identifier: BSD-2-Clause
// See front.h. lwIP puts the connection that received last in front of its list and looks there first.
// So it is enough to do the same just before, from a table. The table only changes what order lwIP
// searches in: what it does not know, or takes for another, costs time and nothing else.
//
// Where a connection's place is nobody else may know, or a peer could choose ports that all meet there:
// the key of the hash is random.
//
// The list has no way back. So each entry remembers which entry's connection was before its own; that is
// checked, and where others have come or gone between the list is searched once.
#include "net/front.h"

#include <stddef.h>

#include "kernel/core.h"
#include "kernel/random.h"
#include "lwip/priv/tcp_priv.h"

#define PLACES 512 // in pairs: of more connections that meet in one pair not all are known

struct place {
    struct tcp_pcb *pcb; // lives
    struct place *before;
    uint32_t key;
};

static PERCORE struct place places[PLACES];
static PERCORE uint64_t secret[6];
static PERCORE uint8_t slot; // which of a pcb's extra arguments is its place, NULL: none

// Multilinear: two connections meet in a pair with the chance that the size of the table gives, whatever
// their addresses are.
static uint32_t key_of(const uint32_t *remote, unsigned words, uint16_t remote_port,
                       uint16_t local_port)
{
    uint64_t sum = secret[0] + secret[1] * ((uint32_t)remote_port << 16 | local_port);
    for (unsigned i = 0; i < words; i++)
        sum += secret[2 + i] * remote[i];
    return (uint32_t)(sum >> 32);
}

static struct place *pair_for(uint32_t key)
{
    _Static_assert(PLACES / 2 == 256, "24 bits of 32 are shifted out");
    return &places[key >> 24 << 1];
}

static struct place *place_of(const struct tcp_pcb *pcb)
{
    return tcp_ext_arg_get(pcb, slot);
}

static void forget(u8_t id, void *data)
{
    (void)id;
    if (data)
        ((struct place *)data)->pcb = NULL;
}

void front_start(void)
{
    slot = tcp_ext_arg_alloc_id();
    random_bytes(secret, sizeof(secret));
}

void front_learn(struct tcp_pcb *pcb)
{
    static const struct tcp_ext_arg_callbacks callbacks = {.destroy = forget};
    if (place_of(pcb))
        return;
    const ip_addr_t *remote = &pcb->remote_ip;
    const uint32_t *words = IP_IS_V6(remote) ? ip_2_ip6(remote)->addr : &ip_2_ip4(remote)->addr;
    uint32_t key = key_of(words, IP_IS_V6(remote) ? 4 : 1, lwip_htons(pcb->remote_port),
                          lwip_htons(pcb->local_port));
    struct place *place = pair_for(key);
    if (place->pcb)
        place++;
    if (place->pcb)
        tcp_ext_arg_set(place->pcb, slot, NULL);
    *place = (struct place){.pcb = pcb, .key = key};
    tcp_ext_arg_set(pcb, slot, place);
    tcp_ext_arg_set_callbacks(pcb, slot, &callbacks);
}

// The one before it in the list, NULL if it is not in it.
static struct tcp_pcb *search_before(const struct tcp_pcb *pcb)
{
    struct tcp_pcb *before = tcp_active_pcbs;
    while (before && before->next != pcb)
        before = before->next;
    return before;
}

void front_bring(const uint32_t *remote, unsigned words, uint16_t remote_port, uint16_t local_port)
{
    struct tcp_pcb *first = tcp_active_pcbs;
    uint32_t key = key_of(remote, words, remote_port, local_port);
    struct place *place = pair_for(key);
    if (place->key != key)
        place++;
    struct tcp_pcb *pcb = place->key == key ? place->pcb : NULL;
    if (!pcb || pcb == first || pcb->state == TIME_WAIT)
        return;
    struct tcp_pcb *before = place->before ? place->before->pcb : NULL;
    if (!before || before->next != pcb)
        before = search_before(pcb);
    if (!before)
        return;
    struct tcp_pcb *next = pcb->next;
    struct place *place_of_next = next ? place_of(next) : NULL;
    struct place *place_of_first = place_of(first);
    before->next = next;
    pcb->next = first;
    tcp_active_pcbs = pcb;
    if (place_of_next)
        place_of_next->before = place_of(before);
    if (place_of_first)
        place_of_first->before = place;
}
