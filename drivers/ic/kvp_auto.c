// SPDX-License-Identifier: BSD-2-Clause
// The pool that every guest fills about itself; Hyper-V's tools know these names and show them.
#include <string.h>

#include "drivers/ic/kvp.h"
#include "drivers/ic/service.h"
#include "drivers/ic/utf16.h"
#include "kernel/version.h"

static const struct {
    const char *key, *value;  // value NULL: addresses
    enum ic_family addresses; // of this family
} items[] = {
    {"FullyQualifiedDomainName", "dunlin", 0}, {"IntegrationServicesVersion", DUNLIN_VERSION, 0},
    {"NetworkAddressIPv4", NULL, IC_IP4},      {"NetworkAddressIPv6", NULL, IC_IP6},
    {"OSBuildNumber", DUNLIN_BUILD, 0},        {"OSName", "Dunlin", 0},
    {"OSMajorVersion", DUNLIN_MAJOR, 0},       {"OSMinorVersion", DUNLIN_MINOR, 0},
    {"OSVersion", DUNLIN_VERSION, 0},          {"ProcessorArchitecture", "x86_64", 0},
};
#define ITEMS (sizeof(items) / sizeof(items[0]))

bool kvp_auto_at(uint32_t index, struct kvp_value *v)
{
    char list[KVP_VALUE_BYTES / 2];

    if (index >= ITEMS)
        return false;
    const char *value = items[index].value;
    if (!value) {
        ic_client->addresses(items[index].addresses, list, sizeof(list));
        value = list;
    }
    v->type = KVP_STRING;
    v->key_size = (uint32_t)utf16_from_ascii(v->key, sizeof(v->key), items[index].key);
    v->value_size = (uint32_t)utf16_from_ascii(v->value, sizeof(v->value), value);
    return true;
}

bool kvp_auto_get(struct kvp_value *v)
{
    char key[KVP_KEY_BYTES / 2];

    if (!utf16_to_ascii(v->key, v->key_size, key, sizeof(key)))
        return false;
    for (uint32_t i = 0; i < ITEMS; i++) {
        if (strcmp(key, items[i].key) == 0)
            return kvp_auto_at(i, v);
    }
    return false;
}
