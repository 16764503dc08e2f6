// SPDX-License-Identifier: BSD-2-Clause
// The integration service of key-value pairs: the pools, what we say of ourselves, the configuration of
// a NIC, and the text of Windows.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/ic/kvp.h"
#include "drivers/ic/utf16.h"
#include "fake_ic.h"

// The pools.

static struct kvp_enumerate kvp; // the largest: all but those of IP have its size

static uint32_t ask_kvp(unsigned operation, unsigned pool)
{
    kvp.header = (struct kvp_header){.operation = (uint8_t)operation, .pool = (uint8_t)pool};
    uint32_t status = ask(IC_KVP, &kvp, sizeof(kvp));
    memcpy(&kvp, host.reply.body, sizeof(kvp));
    return status;
}

// The body of get and set begins where that of enumerate has its index.
static struct kvp_exchange *pair(void)
{
    return (struct kvp_exchange *)&kvp;
}

static void set_key(const char *key)
{
    struct kvp_exchange *e = pair();

    memset(&e->data, 0, sizeof(e->data));
    e->data.key_size = (uint32_t)utf16_from_ascii(e->data.key, KVP_KEY_BYTES, key);
}

static uint32_t set_pair(unsigned pool, const char *key, const char *value)
{
    struct kvp_exchange *e = pair();

    set_key(key);
    e->data.type = KVP_STRING;
    e->data.value_size = (uint32_t)utf16_from_ascii(e->data.value, KVP_VALUE_BYTES, value);
    return ask_kvp(KVP_SET, pool);
}

static const char *text_of(const uint8_t *field, size_t size)
{
    static char text[KVP_VALUE_BYTES];

    assert_true(utf16_to_ascii(field, size, text, sizeof(text)));
    assert_int_equal(utf16_size(field, size), size);
    return text;
}

static uint32_t get_pair(unsigned pool, const char *key, const char *expected)
{
    set_key(key);
    uint32_t status = ask_kvp(KVP_GET, pool);
    if (status == IC_OK) {
        assert_int_equal(pair()->data.type, KVP_STRING);
        assert_string_equal(text_of(pair()->data.value, pair()->data.value_size), expected);
    }
    return status;
}

static void delete_pair(unsigned pool, const char *key, uint32_t expected)
{
    struct kvp_delete *d = (struct kvp_delete *)&kvp;

    d->key_size = (uint32_t)utf16_from_ascii(d->key, sizeof(d->key), key);
    assert_int_equal(ask_kvp(KVP_DELETE, pool), expected);
}

static void test_pools(void **state)
{
    unsigned entries, bytes;

    (void)state;
    ready(&ic_kvp_service, 4);
    assert_int_equal(get_pair(KVP_EXTERNAL, "color", ""), IC_NO_MORE);
    assert_int_equal(set_pair(KVP_EXTERNAL, "color", "red"), IC_OK);
    assert_int_equal(set_pair(KVP_AUTO_EXTERNAL, "color", "green"), IC_OK);
    assert_int_equal(set_pair(KVP_EXTERNAL, "size", ""), IC_OK);
    assert_int_equal(set_pair(KVP_EXTERNAL, "color", "dark blue"), IC_OK); // replaces
    assert_int_equal(get_pair(KVP_EXTERNAL, "color", "dark blue"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO_EXTERNAL, "color", "green"), IC_OK);
    assert_int_equal(get_pair(KVP_EXTERNAL, "colo", ""), IC_NO_MORE);
    assert_int_equal(set_pair(KVP_GUEST, "color", "red"), IC_FAIL);
    assert_int_equal(set_pair(KVP_AUTO, "OSName", "Linux"), IC_FAIL);
    assert_int_equal(set_pair(KVP_POOLS, "color", "red"), IC_INVALID);
    kvp.index = 0;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_OK);
    assert_string_equal(text_of(kvp.data.key, kvp.data.key_size), "color");
    assert_string_equal(text_of(kvp.data.value, kvp.data.value_size), "dark blue");
    kvp.index = 1;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_OK);
    assert_string_equal(text_of(kvp.data.key, kvp.data.key_size), "size");
    kvp.index = 2;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_NO_MORE);
    kvp.index = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_NO_MORE);
    kvp.index = 0;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_GUEST), IC_NO_MORE);
    delete_pair(KVP_EXTERNAL, "size", IC_OK);
    delete_pair(KVP_EXTERNAL, "size", IC_NO_MORE);
    delete_pair(KVP_AUTO, "OSName", IC_FAIL);
    delete_pair(KVP_EXTERNAL, "", IC_INVALID);
    delete_pair(KVP_EXTERNAL, "color", IC_OK);
    delete_pair(KVP_AUTO_EXTERNAL, "color", IC_OK);
    kvp_pool_sizes(&entries, &bytes);
    assert_int_equal(entries, 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(host.objects, 0);
    go();
}

// Numbers are kept as they come; what a pair says about its own size is not believed.
static void test_odd_pairs(void **state)
{
    struct kvp_exchange *e = pair();
    uint64_t number = 0x1122334455667788;

    (void)state;
    ready(&ic_kvp_service, 4);
    set_key("n");
    e->data.type = KVP_QWORD;
    memcpy(e->data.value, &number, 8);
    e->data.value_size = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_OK);
    set_key("n");
    assert_int_equal(ask_kvp(KVP_GET, KVP_EXTERNAL), IC_OK);
    assert_int_equal(e->data.type, KVP_QWORD);
    assert_int_equal(e->data.value_size, 8);
    assert_memory_equal(e->data.value, &number, 8);
    delete_pair(KVP_EXTERNAL, "n", IC_OK);

    static const uint32_t sizes[] = {2049, 2050, 5, UINT32_MAX};
    for (unsigned i = 0; i < 4; i++) {
        set_key("k");
        e->data.type = KVP_STRING;
        e->data.value_size = sizes[i];
        assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    }
    set_key("k");
    e->data.type = 3;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    set_key("k");
    e->data.type = KVP_STRING;
    memset(e->data.key, 'x', KVP_KEY_BYTES); // no end
    e->data.key_size = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    e->data.key_size = 0;
    assert_int_equal(ask_kvp(KVP_GET, KVP_EXTERNAL), IC_INVALID);
    assert_int_equal(ask_kvp(6, KVP_EXTERNAL), IC_FAIL);
    kvp.header.operation = KVP_GET;
    assert_int_equal(ask(IC_KVP, &kvp, 100), IC_INVALID);
    assert_int_equal(ask(IC_KVP, &kvp, 0), IC_INVALID);
    assert_int_equal(host.objects, 0);
    go();
}

static void test_pools_are_bounded(void **state)
{
    unsigned count = 0, entries, bytes;
    char key[16], value[1024];

    (void)state;
    memset(value, 'v', 1000);
    value[1000] = '\0';
    ready(&ic_kvp_service, 4);
    do
        snprintf(key, sizeof(key), "key %u", count++);
    while (set_pair(count % 2 ? KVP_EXTERNAL : KVP_AUTO_EXTERNAL, key, value) == IC_OK);
    assert_in_range(count, 50, 66);
    assert_int_equal(host.reply.header.status, IC_FULL);
    kvp_pool_sizes(&entries, &bytes);
    assert_int_equal(entries, count - 1);
    assert_true(bytes <= KVP_POOL_BYTES);
    value[999] = 'w'; // what is there can still be changed
    value[1000] = '\0';
    assert_int_equal(set_pair(KVP_EXTERNAL, "key 0", value), IC_OK);
    assert_int_equal(get_pair(KVP_EXTERNAL, "key 0", value), IC_OK);
    for (unsigned i = 0; i + 1 < count; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        delete_pair(i % 2 ? KVP_AUTO_EXTERNAL : KVP_EXTERNAL, key, IC_OK);
    }
    assert_int_equal(host.objects, 0);
    go();
}

static void test_about_ourselves(void **state)
{
    unsigned names = 0;

    (void)state;
    ready(&ic_kvp_service, 4);
    assert_int_equal(get_pair(KVP_AUTO, "OSName", "Dunlin"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "NetworkAddressIPv4", "10.0.0.5;10.1.0.5"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "NetworkAddressIPv6", "fe80::1"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "Nothing", ""), IC_NO_MORE);
    for (kvp.index = 0; ask_kvp(KVP_ENUMERATE, KVP_AUTO) == IC_OK; kvp.index = ++names) {
        text_of(kvp.data.key, kvp.data.key_size);
        text_of(kvp.data.value, kvp.data.value_size);
    }
    assert_int_equal(host.reply.header.status, IC_NO_MORE);
    assert_int_equal(names, 10);
    go();
}

// The configuration of a NIC.

static struct kvp_ip ip;

static uint32_t ask_ip(unsigned operation, const char *adapter)
{
    ip.operation = (uint8_t)operation;
    utf16_from_ascii((uint8_t *)&ip + offsetof(struct kvp_ip, adapter), sizeof(ip.adapter),
                     adapter);
    uint32_t status = ask(IC_KVP, &ip, sizeof(ip));
    memcpy(&ip, host.reply.body, sizeof(ip));
    return status;
}

static void check_list(size_t at, size_t size, const char *expected)
{
    char text[1024];

    assert_true(utf16_to_ascii((uint8_t *)&ip + at, size, text, sizeof(text)));
    assert_string_equal(text, expected);
}

static void test_get_ip(void **state)
{
    (void)state;
    ready(&ic_kvp_service, 4);
    host.nic = (struct ic_ip_info){.families = IC_IP4 | IC_IP6,
                                   .dhcp = true,
                                   .addresses = "10.0.0.5;fe80::1",
                                   .subnets = "255.255.255.0;/64",
                                   .gateways = "10.0.0.1",
                                   .dns = "10.0.0.2;10.0.0.3"};
    assert_int_equal(ask_ip(KVP_GET_IP, "00:15:5D:44:4C:00"), IC_OK);
    assert_int_equal(ip.families, 3);
    assert_int_equal(ip.dhcp, 1);
    check_list(offsetof(struct kvp_ip, addresses), sizeof(ip.addresses), "10.0.0.5;fe80::1");
    check_list(offsetof(struct kvp_ip, subnets), sizeof(ip.subnets), "255.255.255.0;/64");
    check_list(offsetof(struct kvp_ip, gateways), sizeof(ip.gateways), "10.0.0.1");
    check_list(offsetof(struct kvp_ip, dns), sizeof(ip.dns), "10.0.0.2;10.0.0.3");
    assert_int_equal(ask_ip(KVP_GET_IP, "00:15:5D:44:4C:01"), IC_NO_ADAPTER);
    assert_int_equal(ask(IC_KVP, &ip, 7000), IC_INVALID);
    go();
}

static void put_list(size_t at, size_t size, const char *text)
{
    utf16_from_ascii((uint8_t *)&ip + at, size, text);
}

static void test_set_ip(void **state)
{
    static const char guid[] = "{4e494300-6876-4e45-9401-00155d444c00}";

    (void)state;
    ready(&ic_kvp_service, 4);
    memset(&ip, 0, sizeof(ip));
    ip.families = IC_IP4;
    put_list(offsetof(struct kvp_ip, addresses), sizeof(ip.addresses), "192.0.2.7");
    put_list(offsetof(struct kvp_ip, subnets), sizeof(ip.subnets), "255.255.0.0");
    put_list(offsetof(struct kvp_ip, gateways), sizeof(ip.gateways), "192.0.2.1");
    put_list(offsetof(struct kvp_ip, dns), sizeof(ip.dns), "");
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_OK);
    assert_false(host.configured.dhcp);
    assert_int_equal(host.configured.families, IC_IP4);
    assert_string_equal(host.configured.addresses, "192.0.2.7");
    assert_string_equal(host.configured.subnets, "255.255.0.0");
    assert_string_equal(host.configured.gateways, "192.0.2.1");
    assert_string_equal(host.configured.dns, "");
    assert_int_equal(ask_ip(KVP_SET_IP, "{00000000-0000-0000-0000-000000000000}"), IC_NO_ADAPTER);
    host.configure_result = -EINVAL;
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_INVALID);
    host.configure_result = 0;
    memset((uint8_t *)&ip + offsetof(struct kvp_ip, dns), 'x', sizeof(ip.dns)); // no end, not ASCII
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_INVALID);
    go();
}

// Addresses are of version 4.0; before it nothing is told or changed.
static void test_ip_before_its_version(void **state)
{
    (void)state;
    for (uint16_t major = 1; major <= 3; major += 2) {
        ready(&ic_kvp_service, major);
        memset(&ip, 0, sizeof(ip));
        ip.dhcp = 1;
        host.configured.dhcp = false;
        assert_int_equal(ask_ip(KVP_SET_IP, "{4e494300-6876-4e45-9401-00155d444c00}"), IC_FAIL);
        assert_false(host.configured.dhcp);
        assert_int_equal(ask_ip(KVP_GET_IP, "00:15:5D:44:4C:00"), IC_FAIL);
        go();
    }
}

static void test_utf16(void **state)
{
    uint8_t field[8];
    char text[8];

    (void)state;
    assert_int_equal(utf16_from_ascii(field, 8, "abcdef"), 8); // cut off
    assert_true(utf16_to_ascii(field, 8, text, sizeof(text)));
    assert_string_equal(text, "abc");
    assert_false(utf16_to_ascii(field, 8, text, 3));
    assert_false(utf16_to_ascii(field, 6, text, sizeof(text))); // its end lies outside
    assert_int_equal(utf16_size(field, 7), 0);
    field[1] = 1; // no ASCII
    assert_false(utf16_to_ascii(field, 8, text, sizeof(text)));
    assert_int_equal(utf16_from_ascii(field, 2, "x"), 2);
    assert_int_equal(utf16_size(field, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_odd_pairs),
        cmocka_unit_test(test_pools_are_bounded),
        cmocka_unit_test(test_about_ourselves),
        cmocka_unit_test(test_get_ip),
        cmocka_unit_test(test_set_ip),
        cmocka_unit_test(test_ip_before_its_version),
        cmocka_unit_test(test_utf16),
    };

    ic_start(&fake_ic_client);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
