// SPDX-License-Identifier: BSD-2-Clause
// Key-value pairs: the host reads what we say about ourselves (kvp_auto.c), keeps pairs of its own here
// (kvp_pool.c), and asks for and changes the configuration of each NIC. The host may write the pools
// External and Auto External; Guest is for programs of a guest, of which there are none here.
#include <errno.h>
#include <string.h>

#include "drivers/ic/kvp.h"
#include "drivers/ic/service.h"
#include "drivers/ic/utf16.h"
#include "kernel/log.h"

static bool writable(unsigned pool)
{
    return pool == KVP_EXTERNAL || pool == KVP_AUTO_EXTERNAL;
}

// A key's bytes with its terminator; 0: it is empty, or not terminated.
static uint32_t key_bytes(const uint8_t *key, uint32_t size)
{
    size_t bytes = utf16_size(key, size < KVP_KEY_BYTES ? size : KVP_KEY_BYTES);

    return bytes > 2 ? (uint32_t)bytes : 0;
}

// Numbers have a size of their own, whatever the message says.
static bool value_valid(struct kvp_value *v)
{
    switch (v->type) {
    case KVP_DWORD:
        v->value_size = 4;
        return true;
    case KVP_QWORD:
        v->value_size = 8;
        return true;
    case KVP_STRING:
    case KVP_EXPAND_STRING:
        return v->value_size <= sizeof(v->value) && v->value_size % 2 == 0;
    default:
        return false;
    }
}

static uint32_t exchange(struct ic_message *m, const struct kvp_header *h)
{
    struct kvp_exchange e;
    struct kvp_value *v = &e.data;
    bool done;

    if (m->size < sizeof(e))
        return IC_INVALID;
    memcpy(&e, m->body, sizeof(e));
    v->key_size = key_bytes(v->key, v->key_size);
    if (v->key_size == 0)
        return IC_INVALID;
    if (h->operation == KVP_SET) {
        if (!writable(h->pool))
            return IC_FAIL;
        if (!value_valid(v))
            return IC_INVALID;
        return kvp_pool_set(h->pool, v) ? IC_OK : IC_FULL;
    }
    done = h->pool == KVP_AUTO ? kvp_auto_get(v) : kvp_pool_get(h->pool, v);
    memcpy(m->body, &e, sizeof(e));
    return done ? IC_OK : IC_NO_MORE;
}

static uint32_t delete_key(const struct ic_message *m, const struct kvp_header *h)
{
    struct kvp_delete d;

    if (m->size < sizeof(d))
        return IC_INVALID;
    memcpy(&d, m->body, sizeof(d));
    if (!writable(h->pool))
        return IC_FAIL;
    d.key_size = key_bytes(d.key, d.key_size);
    if (d.key_size == 0)
        return IC_INVALID;
    return kvp_pool_delete(h->pool, d.key, d.key_size) ? IC_OK : IC_NO_MORE;
}

static uint32_t enumerate(struct ic_message *m, const struct kvp_header *h)
{
    struct kvp_enumerate e;

    if (m->size < sizeof(e))
        return IC_INVALID;
    memcpy(&e, m->body, sizeof(e));
    bool there = h->pool == KVP_AUTO ? kvp_auto_at(e.index, &e.data)
                                     : kvp_pool_at(h->pool, e.index, &e.data);
    memcpy(m->body, &e, sizeof(e));
    return there ? IC_OK : IC_NO_MORE;
}

// Both are large: on neither stack.
static struct kvp_ip wire;
static struct ic_ip_info info;

static uint32_t get_ip(struct ic_message *m)
{
    char adapter[sizeof(wire.adapter) / 2];

    if (m->size < sizeof(wire))
        return IC_INVALID;
    memcpy(&wire, m->body, sizeof(wire));
    if (!utf16_to_ascii(wire.adapter, sizeof(wire.adapter), adapter, sizeof(adapter)))
        return IC_INVALID;
    if (!ic_client->ip_info(adapter, &info))
        return IC_NO_ADAPTER;
    wire.families = info.families;
    wire.dhcp = info.dhcp;
    utf16_from_ascii(wire.addresses, sizeof(wire.addresses), info.addresses);
    utf16_from_ascii(wire.subnets, sizeof(wire.subnets), info.subnets);
    utf16_from_ascii(wire.gateways, sizeof(wire.gateways), info.gateways);
    utf16_from_ascii(wire.dns, sizeof(wire.dns), info.dns);
    memcpy(m->body, &wire, sizeof(wire));
    return IC_OK;
}

static uint32_t set_ip(const struct ic_message *m)
{
    char adapter[sizeof(wire.adapter) / 2];

    if (m->size < sizeof(wire))
        return IC_INVALID;
    memcpy(&wire, m->body, sizeof(wire));
    info.families = wire.families;
    info.dhcp = wire.dhcp;
    if (!utf16_to_ascii(wire.adapter, sizeof(wire.adapter), adapter, sizeof(adapter)) ||
        !utf16_to_ascii(wire.addresses, sizeof(wire.addresses), info.addresses,
                        sizeof(info.addresses)) ||
        !utf16_to_ascii(wire.subnets, sizeof(wire.subnets), info.subnets, sizeof(info.subnets)) ||
        !utf16_to_ascii(wire.gateways, sizeof(wire.gateways), info.gateways,
                        sizeof(info.gateways)) ||
        !utf16_to_ascii(wire.dns, sizeof(wire.dns), info.dns, sizeof(info.dns)))
        return IC_INVALID;
    int r = ic_client->set_ip_info(adapter, &info);
    log_info("ic: kvp: the host configures %.40s: %.80s%s", adapter,
             info.dhcp ? "DHCP" : info.addresses, r ? " (refused)" : "");
    return r == 0 ? IC_OK : r == -ENODEV ? IC_NO_ADAPTER : IC_INVALID;
}

static uint32_t take(struct ic_message *m)
{
    struct kvp_header h;

    if (m->size < sizeof(h))
        return IC_INVALID;
    memcpy(&h, m->body, sizeof(h));
    if (h.operation == KVP_GET_IP || h.operation == KVP_SET_IP) {
        if (m->agreed.major < 4)
            return IC_FAIL; // as any operation that a version does not have
        return h.operation == KVP_GET_IP ? get_ip(m) : set_ip(m);
    }
    if (h.pool >= KVP_POOLS)
        return IC_INVALID;
    switch (h.operation) {
    case KVP_GET:
    case KVP_SET:
        return exchange(m, &h);
    case KVP_DELETE:
        return delete_key(m, &h);
    case KVP_ENUMERATE:
        return enumerate(m, &h);
    default:
        return IC_FAIL;
    }
}

struct ic_service ic_kvp_service = {
    .name = "kvp",
    .type = IC_KVP,
    .versions = {{4, 0}, {3, 0}, {1, 0}},
    .answer = take,
    .driver.class_id = {{0xe7, 0xf4, 0xa0, 0xa9, 0x45, 0x5a, 0x96, 0x4d, 0xb8, 0x27, 0x8a, 0x84,
                         0x1e, 0x8c, 0x03, 0xe6}},
};
