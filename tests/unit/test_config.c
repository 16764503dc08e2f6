// SPDX-License-Identifier: BSD-2-Clause
// dunlin.conf: every key, every refusal, defaults kept on a bad line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/config.h"
#include "kernel/log.h"

struct reports {
    unsigned count;
    unsigned lines[16];
    char reasons[16][96];
};

static void collect(unsigned line, const char *reason, void *ctx)
{
    struct reports *r = ctx;

    assert_true(r->count < 16);
    r->lines[r->count] = line;
    strncpy(r->reasons[r->count], reason, sizeof(r->reasons[0]) - 1);
    r->count++;
}

static struct reports parse(const char *text, struct config *c)
{
    struct reports r = {0};
    unsigned bad = config_parse(text, c, collect, &r);
    assert_int_equal(bad, r.count);
    return r;
}

static uint32_t ip(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    uint8_t bytes[4] = {a, b, c, d};
    uint32_t value;
    memcpy(&value, bytes, 4);
    return value;
}

static void test_empty_gives_defaults(void **state)
{
    struct config c;

    (void)state;
    assert_int_equal(parse("", &c).count, 0);
    assert_true(c.net.dhcp);
    assert_int_equal(c.net.mtu, 1500);
    assert_int_equal(c.mtu, 1500);
    assert_int_equal(c.nic_count, 0);
    assert_int_equal(c.iperf3_port, 5201);
    assert_true(c.net.checksum && c.net.lso && c.net.rsc && c.rsc);
    assert_int_equal(c.log_level, LOG_INFO);
    assert_false(c.echo || c.discard);
    assert_int_equal(c.on_panic, PANIC_HALT);
    assert_int_equal(c.spin, 0);
    assert_int_equal(c.shutdown_timeout, 10);
}

static void test_every_key(void **state)
{
    struct config c;

    (void)state;
    struct reports r =
        parse("# all\n[net]\naddress6 = 2001:db8::5/64\ngateway6 = fe80::1\n"
              "[log]\nlevel = debug\n[net]\naddress = 192.168.7.9/20\n"
              "gateway=192.168.0.1\nmtu = 9000\n[tcp]\ncongestion = reno\n"
              "[netvsc]\nreceive-buffer = 31m\n"
              "send-buffer = 64k\nring = 65536\nchecksum = off\n"
              "lso = off\nrsc = off\n[iperf3]\nport = 65535\n"
              "[services]\necho = on\ndiscard = on\n"
              "[system]\nspin = 50\nshutdown-timeout = 3600\non-panic = restart ; comment\n",
              &c);
    assert_int_equal(r.count, 0);
    assert_int_equal(c.log_level, LOG_DEBUG);
    assert_false(c.net.dhcp);
    assert_int_equal(c.net.address, ip(192, 168, 7, 9));
    assert_int_equal(c.net.netmask, ip(255, 255, 240, 0));
    assert_int_equal(c.net.gateway, ip(192, 168, 0, 1));
    assert_int_equal(c.net.ip6, CONFIG_IP6_STATIC);
    assert_memory_equal(c.net.address6, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05", 16);
    assert_memory_equal(c.net.gateway6, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
    assert_int_equal(c.mtu, 9000);
    assert_true(c.reno);
    assert_int_equal(c.receive_buffer, 31u << 20);
    assert_int_equal(c.send_buffer, 64u << 10);
    assert_int_equal(c.ring, 65536);
    assert_false(c.net.checksum || c.net.lso || c.net.rsc || c.rsc);
    assert_int_equal(c.iperf3_port, 65535);
    assert_true(c.echo && c.discard);
    assert_int_equal(c.on_panic, PANIC_RESTART);
    assert_int_equal(c.spin, 50);
    assert_int_equal(c.shutdown_timeout, 3600);
}

static void test_bad_values_keep_defaults(void **state)
{
    static const char *const lines[] = {
        "[net]\nmtu = 575\n",
        "[net]\nmtu = 9001\n",
        "[net]\nmtu = 15oo\n",
        "[net]\nmtu =\n",
        "[net]\naddress = 1.2.3\n",
        "[net]\naddress = 1.2.3.4\n",
        "[net]\naddress = 1.2.3.256/8\n",
        "[net]\naddress = 1.2.3.4/31\n",
        "[net]\naddress = 0.0.0.0/8\n",
        "[net]\naddress = 224.0.0.1/8\n",
        "[net]\naddress = 127.0.0.1/8\n",
        "[net]\naddress = 10.1.0.0/24\n",
        "[net]\naddress = 10.1.255.255/16\n",
        "[net]\ngateway = 1.2.3.4.5\n",
        "[net]\naddress6 = yes\n",
        "[net]\naddress6 = 2001:db8::5\n",
        "[net]\naddress6 = 2001:db8::5/63\n",
        "[net]\naddress6 = 2001:db8::5/64x\n",
        "[net]\naddress6 = fe80::5/64\n",
        "[net]\naddress6 = ff02::5/64\n",
        "[net]\naddress6 = ::1/64\n",
        "[net]\naddress6 = ::ffff:1:2/64\n",
        "[net]\ngateway6 = ::\n",
        "[net]\ngateway6 = ff02::1\n",
        "[net]\ngateway6 = fe80::1/64\n",
        "[netvsc]\nring = 15k\n",
        "[netvsc]\nring = 20001\n",
        "[netvsc]\nreceive-buffer = 32m\n",
        "[netvsc]\nsend-buffer = 99999999999999999999\n",
        "[tcp]\ncongestion = cubic\n",
        "[iperf3]\nport = 0\n",
        "[iperf3]\nport = 65536\n",
        "[iperf3]\nport = -1\n",
        "[log]\nlevel = loud\n",
        "[services]\necho = yes\n",
        "[services]\ndiscard =\n",
        "[system]\non-panic = cry\n",
        "[system]\nspin = 1000001\n",
        "[net]\nmetric = 10000\n",
        "[net]\nlso = off\n",
        "[netvsc]\nmtu = 1400\n",
        "[nic 00:15:5d:01:02:03]\nring = 64k\n",
        "[nic]\nmtu = 1500\n",
        "[nic 00:15:5d:01:02]\nmtu = 1500\n",
        "[nic 00:15-5d:01-02:03]\nmtu = 1500\n",
        "[nic 00:15:5d:01:02:03:]\nmtu = 1500\n",
        "[nic 00155d01020g]\nmtu = 1500\n",
        "[system]\nshutdown-timeout = 3601\n",
        "[net]\nmut = 1500\n",
        "[net]\njust words\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct config c, plain;
        struct reports r = parse(lines[i], &c);
        parse("", &plain);
        assert_int_equal(r.count, 1);
        assert_int_equal(r.lines[0], 2);
        assert_true(r.reasons[0][0] != '\0');
        assert_memory_equal(&c, &plain, sizeof(c));
    }
}

static void test_ip6_addresses(void **state)
{
    static const struct {
        const char *text;
        uint8_t bytes[16]; // all zero: refused
    } cases[] = {
        {"1:2:3:4:5:6:7:8", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8}},
        {"1:2:3:4:5:6:7::", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 0}},
        {"2001:DB8::", {0x20, 0x01, 0x0d, 0xb8}},
        {"fd00::a:b", {0xfd, [13] = 0x0a, [15] = 0x0b}},
        {"abcd:0ef0::1:0:1", {0xab, 0xcd, 0x0e, 0xf0, [11] = 1, [15] = 1}},
        {"", {0}},
        {":", {0}},
        {"1", {0}},
        {"1:2:3:4:5:6:7", {0}},
        {"1:2:3:4:5:6:7:8:9", {0}},
        {"1:2:3:4:5:6:7:8::", {0}},
        {"1::2::3", {0}},
        {"1:::2", {0}},
        {":1:2::3", {0}},
        {"1:2:", {0}},
        {"12345::1", {0}},
        {"1::g", {0}},
        {"1:2:3:4:5:6:1.2.3.4", {0}},
    };
    static const uint8_t refused[16];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config c;
        char text[96] = "[net]\ngateway6 = ";
        strcat(text, cases[i].text);
        unsigned bad = parse(text, &c).count;
        assert_int_equal(bad, memcmp(cases[i].bytes, refused, 16) ? 0 : 1);
        assert_memory_equal(c.net.gateway6, cases[i].bytes, 16);
    }
}

static void test_a_bad_line_does_not_hide_the_rest(void **state)
{
    struct config c;

    (void)state;
    struct reports r = parse("key = 1\n[nte]\nmtu = 600\n[net]\nmtu = 1\nwords\nmtu = 1400\n", &c);
    assert_int_equal(r.count, 4);
    assert_int_equal(r.lines[0], 1); // before any section
    assert_int_equal(r.lines[1], 3); // unknown section
    assert_int_equal(r.lines[2], 5);
    assert_int_equal(r.lines[3], 6);
    assert_int_equal(c.mtu, 1400);
}

static void test_malformed_syntax(void **state)
{
    struct config c;
    char text[1200];

    (void)state;
    struct reports r = parse("[net\nmtu = 1400\n", &c);
    assert_true(r.count >= 1);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    r = parse(text, &c);
    assert_true(r.count >= 1);
    assert_int_equal(r.lines[0], 1);
}

static struct nic_config of(const struct config *c, uint8_t last_byte, bool first, bool gets)
{
    const uint8_t mac[6] = {0x00, 0x15, 0x5d, 0x01, 0x02, last_byte};
    struct nic_config nic;

    assert_int_equal(config_of_nic(c, mac, first, &nic), gets);
    return nic;
}

static void test_sections_of_nics(void **state)
{
    static const char text[] = "[nic 00:15:5d:01:02:03]\naddress = 10.0.0.3/8\nmtu = 9000\n"
                               "[nic 00-15-5D-01-02-04]\nmetric = 7\naddress6 = off\n"
                               "[nic 00155D010205]\ngateway = 1.2.3.4\n"
                               "[net]\naddress = 10.9.0.1/16\ngateway = 10.9.0.2\nmtu = 1400\n"
                               "address6 = fd00::1/64\nmetric = 3\n";
    struct config c;

    (void)state;
    assert_int_equal(parse(text, &c).count, 0);
    assert_int_equal(c.nic_count, 3);
    assert_int_equal(c.mtu, 9000);
    struct nic_config nic = of(&c, 3, true, false);
    assert_false(nic.dhcp);
    assert_int_equal(nic.address, ip(10, 0, 0, 3));
    assert_int_equal(nic.gateway, 0); // that of [net] goes with its address
    assert_int_equal(nic.mtu, 9000);
    assert_int_equal(nic.metric, 3);
    assert_int_equal(nic.ip6, CONFIG_IP6_AUTO);
    nic = of(&c, 4, true, false);
    assert_true(nic.dhcp && nic.ip6 == CONFIG_IP6_OFF && nic.metric == 7 && nic.mtu == 1400);
    nic = of(&c, 5, true, true);
    assert_int_equal(nic.address, ip(10, 9, 0, 1));
    assert_int_equal(nic.gateway, ip(1, 2, 3, 4));
    nic = of(&c, 6, true, true); // no section
    assert_int_equal(nic.address, ip(10, 9, 0, 1));
    assert_int_equal(nic.gateway, ip(10, 9, 0, 2));
    assert_int_equal(nic.ip6, CONFIG_IP6_STATIC);
    nic = of(&c, 6, false, false);
    assert_true(nic.dhcp && !nic.address && !nic.gateway && nic.ip6 == CONFIG_IP6_AUTO);
}

static void test_offloads_of_nics(void **state)
{
    struct config c;

    (void)state;
    assert_int_equal(
        parse("[netvsc]\nlso = off\nrsc = off\n[nic 00155d010203]\nlso = on\nrsc = on\n"
              "[nic 00155d010204]\nchecksum = off\nmtu = 600\n",
              &c)
            .count,
        0);
    assert_true(c.rsc && !c.net.rsc);
    struct nic_config nic = of(&c, 3, false, false);
    assert_true(nic.checksum && nic.lso && nic.rsc);
    nic = of(&c, 4, true, true);
    assert_true(!nic.checksum && !nic.lso && !nic.rsc && nic.mtu == 600);
    nic = of(&c, 5, true, true);
    assert_true(nic.checksum && !nic.lso && !nic.rsc);
}

static void test_more_nics_than_room(void **state)
{
    char text[(CONFIG_NICS + 1) * 48], *at = text;
    struct config c;

    (void)state;
    for (unsigned i = 0; i <= CONFIG_NICS; i++)
        at += sprintf(at, "[nic 00155d0102%02x]\nmetric = %u\n", i, i);
    struct reports r = parse(text, &c);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.lines[0], 2 * (CONFIG_NICS + 1));
    assert_int_equal(c.nic_count, CONFIG_NICS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_gives_defaults),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_bad_values_keep_defaults),
        cmocka_unit_test(test_ip6_addresses),
        cmocka_unit_test(test_sections_of_nics),
        cmocka_unit_test(test_offloads_of_nics),
        cmocka_unit_test(test_more_nics_than_room),
        cmocka_unit_test(test_a_bad_line_does_not_hide_the_rest),
        cmocka_unit_test(test_malformed_syntax),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
