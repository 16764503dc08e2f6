// SPDX-License-Identifier: BSD-2-Clause
// lwIP's options: one instance per core, raw API, no threads. Read by every file of lwIP and by all
// that include it. What is not named here has lwIP's default.
#pragma once

// One core, one loop, no operating system.
#define NO_SYS 1               // no threads: everything runs from the core's loop
#define LWIP_TIMERS 1          // sys_check_timeouts() is called by net/stack.c
#define LWIP_TESTMODE 1        // only makes lwip_cyclic_timer() public: net/stack.c stops some
#define SYS_LIGHTWEIGHT_PROT 0 // interrupt handlers never call lwIP, nothing to protect
#define LWIP_NETCONN 0         // raw API only
#define LWIP_SOCKET 0          // raw API only

// Memory: every object comes from the core's heap, so pbufs are identity mapped and may be shown to
// the host, and an idle core holds nothing. The MEMP_NUM_* limits do not apply; what bounds each
// kind is said where it is made, and net_alloc() keeps the rest of the machine alive.
#define MEM_CUSTOM_ALLOCATOR 1
#define MEM_CUSTOM_MALLOC net_alloc
#define MEM_CUSTOM_FREE heap_free
#define MEM_CUSTOM_CALLOC net_calloc
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 16           // heap_alloc()'s
#define PBUF_POOL_BUFSIZE 1536     // pool pbufs serve only a few control packets
#define LWIP_SUPPORT_CUSTOM_PBUF 1 // received frames are lent to lwIP (net/rx.c)

// Link and addresses.
#define LWIP_ARP 1
#define ARP_TABLE_SIZE 120 // neighbours known at a time, of all NICs
#define ARP_QUEUEING 1     // keep packets while an address is being resolved,
#define ARP_QUEUE_LEN 8    // at most so many for one neighbour
#define ETHARP_SUPPORT_STATIC_ENTRIES 0
#define LWIP_NETIF_EXT_STATUS_CALLBACK 1 // tells net/settings.c and net/address6.c of addresses
#define LWIP_NETIF_HWADDRHINT 1 // a connection remembers its neighbour's place in the table
#define LWIP_NETIF_HOSTNAME 1   // sent by DHCP
#define LWIP_SINGLE_NETIF 0     // a guest may have several NICs

// IPv4. Fragments are reassembled and made (a ping of 8000 bytes needs both).
#define LWIP_IPV4 1
#define IP_FORWARD 0
#define IP_REASSEMBLY 1
#define IP_FRAG 1
#define IP_REASS_MAX_PBUFS 128 // bound for all datagrams being put together, one for each fragment
#define IP_REASS_MAXAGE 5      // seconds
#define LWIP_ICMP 1
#define LWIP_RAW 0
#define LWIP_UDP 1
#define LWIP_DHCP 1
#define LWIP_ACD 0 // no probing of the leased address: it would delay the start by 7 s
#define LWIP_DHCP_DOES_ACD_CHECK 0
#define LWIP_DNS 0

// IPv6, with addresses from router advertisements and by hand; no DHCPv6. All tables are small and
// lwIP takes the least needed entry of a full one.
#define LWIP_IPV6 1
#define LWIP_IPV6_NUM_ADDRESSES 4 // link-local, and three more
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 1
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_FRAG 1
#define LWIP_IPV6_REASS 1      // with IP_REASS_MAX_PBUFS of its own
#define IPV6_REASS_MAXAGE 5    // seconds
#define IPV6_FRAG_COPYHEADER 1 // pointers are longer than a fragment header's spare room
#define LWIP_ND6_NUM_NEIGHBORS 64
#define LWIP_ND6_NUM_DESTINATIONS 64
#define LWIP_ND6_NUM_PREFIXES 24 // of all NICs
#define LWIP_ND6_NUM_ROUTERS 16
#define MEMP_NUM_ND6_QUEUE 64 // packets that wait for any neighbour's address

// TCP.
#define LWIP_TCP 1
#define TCP_MSS 8960 // for jumbo frames; each connection uses the MTU's
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 7 // windows up to 8 MB in units of 128
#define TCP_WND (2 * 1024 * 1024)
// Every ACK tells the window; apart from those it is told so late.
#define TCP_WND_UPDATE_THRESHOLD (TCP_WND / 4)
#define TCP_SND_BUF                                                                                \
    (512 * 1024)           // longer queues of MSS-sized segments cost more to walk than they give
#define TCP_SNDLOWAT 16384 // for sockets, but checked even without them
#define TCP_SND_QUEUELEN 4096 // pbufs, two a segment: enough for TCP_SND_BUF down to an MSS of 256
#define TCP_OVERSIZE 0        // what is sent in bulk is sent by reference
#define TCP_QUEUE_OOSEQ 1     // keep what arrives out of order,
#define TCP_OOSEQ_BYTES_LIMIT(pcb) net_ooseq_limit() // at most so much of it on each connection,
#define TCP_OOSEQ_MAX_PBUFS 4096                     // in so many pbufs
#define LWIP_TCP_SACK_OUT 1                          // tell the sender what did arrive
#define LWIP_TCP_TIMESTAMPS 1
#define LWIP_TCP_KEEPALIVE 1           // services set their own times
#define TCP_LISTEN_BACKLOG 1           // bounds half-open connections,
#define TCP_DEFAULT_LISTEN_BACKLOG 255 // to the most lwIP can count
#define TCP_TMR_INTERVAL 50    // ms; delayed ACK 50 ms, retransmission no sooner than about 200 ms
#define LWIP_TCP_RTO_TIME 1000 // ms; first retransmission time-out, as RFC 6298 has it
#define TCP_MSL 1000           // ms; TIME-WAIT holds 2 s only: keyed ISNs move on by the clock
// Of each connection, for: net/stack.c (counts retransmissions), net/narrow.c, net/sender.c, net/flow.c,
// net/front.c, net/services/listen.c (when it came).
#define LWIP_TCP_PCB_NUM_EXT_ARGS 6

// Checksums: each interface says which are done by its NIC; a received frame that the host did not
// vouch for is checked by lwIP (net/rx.c switches per frame).
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY 0
#define LWIP_CHKSUM_ALGORITHM 3 // the fastest of lwIP's own

// Numbers for the `stats` command.
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1 // 32 bit counters
#define LWIP_STATS_DISPLAY 0
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0

#define LWIP_HOOK_FILENAME "net/hooks.h"
#define LWIP_HOOK_IP4_ROUTE_SRC net_ip4_route // makes ip4_route_src() a function
