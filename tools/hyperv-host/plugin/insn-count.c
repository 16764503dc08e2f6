/*
 * QEMU TCG plugin: how many instructions each vCPU has executed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   -plugin OUT/insn-count.so,counters=FILE[,exact=on][,profile=on]
 *           [,mark=ADDRESS]...
 *
 * FILE (created, best on a tmpfs) holds the counters and is shared memory, so
 * that anybody may read them at any moment; its layout is struct counters.
 *
 * A repeated string instruction counts once, however often it repeats; the
 * repetitions are counted separately.  (QEMU runs each as a block of its own.)
 *
 * Normally the instructions of a translated block are added when it is
 * entered, so what a fault leaves behind in a block is counted too much.
 * exact=on counts one by one, which is several times slower.
 *
 * profile=on: after the counters come struct block, up to MAX_BLOCKS of them,
 * with how often each translated block was entered.  Meant for one vCPU: with
 * more they may lose counts to each other.
 *
 * mark: an address of guest code; the count of the vCPU when it gets there for
 * the first time is kept.  Used to see how long a guest takes from one
 * function to another.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <qemu-plugin.h>

#define MAX_VCPUS 64
#define MAX_MARKS 8
#define MAX_BLOCKS (1 << 17)
#define MAGIC 0x31636e73696e7564ULL /* "dunsinc1" */

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* Each in a cache line of its own: written by one vCPU's thread. */
struct vcpu {
    uint64_t instructions;
    uint64_t repetitions;   /* of string instructions, after the first */
    uint64_t blocks;        /* translated blocks entered */
    uint64_t last_string;   /* where the last block ended, if in one; else 0 */
    uint64_t unused[4];
};

struct mark {
    uint64_t address;
    uint64_t instructions;  /* of that vCPU; 0: not reached */
    uint64_t nanoseconds;   /* CLOCK_MONOTONIC */
    uint64_t vcpu;
};

struct block {
    uint64_t address;
    uint64_t size;          /* instructions in it */
    uint64_t entered;
};

struct counters {
    uint64_t magic;
    uint64_t max_vcpus;
    uint64_t max_marks;
    uint64_t max_blocks;    /* 0 without profile=on */
    uint64_t used_blocks;
    uint64_t unused[3];
    struct vcpu vcpus[MAX_VCPUS];
    struct mark marks[MAX_MARKS];
    struct block blocks[];
};

static struct counters *counters;
static unsigned mark_count;
static bool exact;
static bool profile;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * What a block's callback has to know fits in its argument: in the upper bits
 * how many instructions, in the lower ones the address of the string
 * instruction at its end, if there is one.
 */
#define ADDRESS_BITS 48

static uint64_t pack(uint64_t count, uint64_t address)
{
    return count << ADDRESS_BITS |
           (address & ((UINT64_C(1) << ADDRESS_BITS) - 1));
}

static void on_block(unsigned int index, void *argument)
{
    uint64_t packed = (uintptr_t)argument;
    uint64_t count = packed >> ADDRESS_BITS;
    uint64_t string = packed & ((UINT64_C(1) << ADDRESS_BITS) - 1);
    struct vcpu *vcpu = &counters->vcpus[index % MAX_VCPUS];

    vcpu->blocks++;
    if (string && count == 1 && vcpu->last_string == string) {
        vcpu->repetitions++;
        return;
    }
    vcpu->last_string = string;
    if (!exact) {
        vcpu->instructions += count;
    }
}

static void on_instruction(unsigned int index, void *argument)
{
    counters->vcpus[index % MAX_VCPUS].instructions++;
}

static void on_lone_string(unsigned int index, void *argument)
{
    struct vcpu *vcpu = &counters->vcpus[index % MAX_VCPUS];
    uint64_t packed = (uintptr_t)argument;

    vcpu->blocks++;
    if (vcpu->last_string == packed) {
        vcpu->repetitions++;
        return;
    }
    vcpu->last_string = packed;
    vcpu->instructions++;
}

static void on_mark(unsigned int index, void *argument)
{
    struct mark *mark = argument;
    struct timespec now;

    if (mark->instructions) {
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    mark->vcpu = index;
    mark->nanoseconds = now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
    mark->instructions = counters->vcpus[index % MAX_VCPUS].instructions;
}

/* Whether it is a string instruction with a repeat prefix. */
static bool repeats(const struct qemu_plugin_insn *insn)
{
    const uint8_t *byte = qemu_plugin_insn_data(insn);
    size_t size = qemu_plugin_insn_size(insn);
    bool prefix = false;

    for (size_t i = 0; i < size; i++) {
        uint8_t b = byte[i];

        if (b == 0xf2 || b == 0xf3) {
            prefix = true;
        } else if (b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e ||
                   b == 0x64 || b == 0x65 || b == 0x66 || b == 0x67 ||
                   (b & 0xf0) == 0x40) {
            continue;
        } else {
            return prefix && ((b >= 0xa4 && b <= 0xa7) ||
                              (b >= 0xaa && b <= 0xaf) ||
                              (b >= 0x6c && b <= 0x6f));
        }
    }
    return false;
}

/*
 * The entry of a block; the same for every translation of it.  The table is
 * open-addressed, so a block's first place is its hash.
 */
static struct block *find_block(uint64_t address, uint64_t size)
{
    uint64_t hash = (address * 2 + size) * UINT64_C(0x9e3779b97f4a7c15);
    struct block *found = NULL;

    pthread_mutex_lock(&blocks_lock);
    for (unsigned i = 0; i < 64 && !found; i++) {
        struct block *block =
            &counters->blocks[((hash >> 32) + i) % MAX_BLOCKS];

        if (!block->size) {
            counters->used_blocks++;
            block->address = address;
            block->size = size;
        }
        if (block->address == address && block->size == size) {
            found = block;
        }
    }
    pthread_mutex_unlock(&blocks_lock);
    return found;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    uint64_t string = repeats(last) ? qemu_plugin_insn_vaddr(last) : 0;
    bool lone = exact && string && count == 1;

    qemu_plugin_register_vcpu_tb_exec_cb(
        tb, lone ? on_lone_string : on_block, QEMU_PLUGIN_CB_NO_REGS,
        (void *)(uintptr_t)pack(lone ? 0 : count, string));
    if (profile && !(string && count == 1)) {
        struct block *block = find_block(qemu_plugin_tb_vaddr(tb), count);

        if (block) {
            qemu_plugin_register_vcpu_tb_exec_inline(
                tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->entered, 1);
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

        if (exact && !lone) {
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, on_instruction, QEMU_PLUGIN_CB_NO_REGS, NULL);
        }
        for (unsigned m = 0; m < mark_count; m++) {
            if (counters->marks[m].address == qemu_plugin_insn_vaddr(insn)) {
                qemu_plugin_register_vcpu_insn_exec_cb(
                    insn, on_mark, QEMU_PLUGIN_CB_NO_REGS,
                    &counters->marks[m]);
            }
        }
    }
}

static int share(const char *file)
{
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t size = sizeof(*counters) +
                  (profile ? MAX_BLOCKS * sizeof(struct block) : 0);

    if (fd < 0 || ftruncate(fd, size) < 0) {
        perror(file);
        return -1;
    }
    counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (counters == MAP_FAILED) {
        perror(file);
        return -1;
    }
    counters->max_vcpus = MAX_VCPUS;
    counters->max_marks = MAX_MARKS;
    counters->max_blocks = profile ? MAX_BLOCKS : 0;
    counters->magic = MAGIC;
    return 0;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info, int argc,
                                           char **argv)
{
    uint64_t marks[MAX_MARKS];
    const char *file = NULL;

    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "counters=", 9)) {
            file = argv[i] + 9;
        } else if (!strncmp(argv[i], "mark=", 5) && mark_count < MAX_MARKS) {
            marks[mark_count++] = strtoull(argv[i] + 5, NULL, 0);
        } else if (!strcmp(argv[i], "exact=on")) {
            exact = true;
        } else if (!strcmp(argv[i], "profile=on")) {
            profile = true;
        } else if (strcmp(argv[i], "exact=off")) {
            fprintf(stderr, "insn-count: unknown option %s\n", argv[i]);
            return -1;
        }
    }
    if (!file || !info->system_emulation ||
        info->system.max_vcpus > MAX_VCPUS) {
        fprintf(stderr, "insn-count: counters=FILE is needed, and a system with at "
                "most %d vCPUs\n", MAX_VCPUS);
        return -1;
    }
    if (share(file) < 0) {
        return -1;
    }
    for (unsigned i = 0; i < mark_count; i++) {
        counters->marks[i].address = marks[i];
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
