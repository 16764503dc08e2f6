// SPDX-License-Identifier: BSD-2-Clause
// The pools that the host writes; see kvp.h. Kept in memory only, like everything here.
#include <string.h>

#include "drivers/ic/kvp.h"
#include "kernel/alloc.h"

struct entry {
    struct entry *next;
    unsigned pool;
    uint32_t type, key_size, value_size;
    uint8_t bytes[]; // key, value
};

static struct entry *entries;
static unsigned bytes_used;

static struct entry **find(unsigned pool, const uint8_t *key, uint32_t key_size)
{
    struct entry **at = &entries;

    while (*at && ((*at)->pool != pool || (*at)->key_size != key_size ||
                   memcmp((*at)->bytes, key, key_size) != 0))
        at = &(*at)->next;
    return at;
}

static unsigned size_of(const struct entry *e)
{
    return (unsigned)sizeof(*e) + e->key_size + e->value_size;
}

static void unlink_entry(struct entry **at)
{
    struct entry *e = *at;

    *at = e->next;
    bytes_used -= size_of(e);
    heap_free(e);
}

bool kvp_pool_set(unsigned pool, const struct kvp_value *v)
{
    struct entry **at = find(pool, v->key, v->key_size), *old = *at;
    unsigned size = (unsigned)sizeof(struct entry) + v->key_size + v->value_size;

    if (bytes_used - (old ? size_of(old) : 0) + size > KVP_POOL_BYTES)
        return false;
    struct entry *e = heap_alloc(size);
    if (!e)
        return false;
    *e = (struct entry){.next = old,
                        .pool = pool,
                        .type = v->type,
                        .key_size = v->key_size,
                        .value_size = v->value_size};
    memcpy(e->bytes, v->key, v->key_size);
    memcpy(e->bytes + v->key_size, v->value, v->value_size);
    *at = e;
    bytes_used += size;
    if (old)
        unlink_entry(&e->next);
    return true;
}

static bool copy_out(const struct entry *e, struct kvp_value *v)
{
    if (!e)
        return false;
    memset(v, 0, sizeof(*v));
    v->type = e->type;
    v->key_size = e->key_size;
    v->value_size = e->value_size;
    memcpy(v->key, e->bytes, e->key_size);
    memcpy(v->value, e->bytes + e->key_size, e->value_size);
    return true;
}

bool kvp_pool_get(unsigned pool, struct kvp_value *v)
{
    return copy_out(*find(pool, v->key, v->key_size), v);
}

bool kvp_pool_at(unsigned pool, uint32_t index, struct kvp_value *v)
{
    const struct entry *e = entries;

    while (e && (e->pool != pool || index-- > 0))
        e = e->next;
    return copy_out(e, v);
}

bool kvp_pool_delete(unsigned pool, const uint8_t *key, uint32_t key_size)
{
    struct entry **at = find(pool, key, key_size);

    if (!*at)
        return false;
    unlink_entry(at);
    return true;
}

void kvp_pool_sizes(unsigned *count, unsigned *bytes)
{
    *count = 0;
    for (const struct entry *e = entries; e; e = e->next)
        ++*count;
    *bytes = bytes_used;
}
