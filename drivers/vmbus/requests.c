// SPDX-License-Identifier: BSD-2-Clause
// The transaction table: a stack of free ids and a bitmap of those in use. See requests.h.
#include "drivers/vmbus/requests.h"

#include "kernel/panic.h"

void requests_init(struct requests *table, uint32_t capacity)
{
    ASSERT(capacity <= REQUESTS_MAX);
    *table = (struct requests){.capacity = capacity, .free_count = capacity};
    for (uint32_t i = 0; i < capacity; i++)
        table->free[i] = (uint16_t)(capacity - i); // 1 is taken first
}

uint32_t requests_take(struct requests *table)
{
    if (table->free_count == 0)
        return 0;
    uint32_t id = table->free[--table->free_count];
    table->in_use[(id - 1) / 64] |= 1ull << ((id - 1) % 64);
    return id;
}

bool requests_used(const struct requests *table, uint64_t id)
{
    if (id == 0 || id > table->capacity)
        return false;
    return table->in_use[(id - 1) / 64] >> ((id - 1) % 64) & 1;
}

bool requests_give(struct requests *table, uint64_t id)
{
    if (!requests_used(table, id))
        return false;
    table->in_use[(id - 1) / 64] &= ~(1ull << ((id - 1) % 64));
    table->free[table->free_count++] = (uint16_t)id;
    return true;
}
