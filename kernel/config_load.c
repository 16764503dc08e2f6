// SPDX-License-Identifier: BSD-2-Clause
// Reads the dunlin.conf that the boot program found into `config`. Core 0, once, before anybody
// looks at it.
#include "kernel/config.h"
#include "kernel/log.h"
#include "kernel/machine.h"

static void report(unsigned line, const char *reason, void *ctx)
{
    (void)ctx;
    log_error("dunlin.conf:%u: %s; the default stays", line, reason);
}

void config_init(const struct boot_info *info)
{
    config_parse(info->config, &config, report, NULL);
    if (info->config_truncated)
        log_error("dunlin.conf: longer than %u bytes: the rest is ignored",
                  (unsigned)BOOT_CONFIG_MAX);
    log_set_level(config.log_level);
}
