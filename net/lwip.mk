# SPDX-License-Identifier: BSD-2-Clause
# Which files of lwIP are compiled (below build/src/lwip-2.2.1/src) and where its headers are. Used
# by the kernel's build and by the native build of the tests, so that both run the same stack.
LWIP_DIR ?= build/src/lwip-2.2.1/src
LWIP_SOURCES := \
	core/def.c core/inet_chksum.c core/init.c core/ip.c core/mem.c core/memp.c core/netif.c \
	core/pbuf.c core/stats.c core/tcp.c core/tcp_in.c core/tcp_out.c core/timeouts.c core/udp.c \
	core/ipv4/dhcp.c core/ipv4/etharp.c core/ipv4/icmp.c core/ipv4/ip4.c \
	core/ipv4/ip4_addr.c core/ipv4/ip4_frag.c \
	core/ipv6/ethip6.c core/ipv6/icmp6.c core/ipv6/ip6.c core/ipv6/ip6_addr.c \
	core/ipv6/ip6_frag.c core/ipv6/mld6.c core/ipv6/nd6.c netif/ethernet.c
# lwipopts.h and arch/ are in net/; -I. lets the port name its own headers from the project's root.
LWIP_INCLUDES := -Inet -I$(LWIP_DIR)/include
# Comparisons that are always true with our options; lwIP is compiled as it comes.
LWIP_CFLAGS := -Wno-address -Wno-tautological-constant-out-of-range-compare
