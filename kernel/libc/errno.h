// SPDX-License-Identifier: BSD-2-Clause
// The error numbers that functions return negated; values as on Linux, so that unit tests agree.
#pragma once

#define EPERM 1
#define ENOENT 2
#define EIO 5
#define ENXIO 6
#define EAGAIN 11
#define ENOMEM 12
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define ERANGE 34
#define ENODATA 61
#define EPROTO 71
#define EBADMSG 74
#define EMSGSIZE 90
#define EPROTONOSUPPORT 93
#define EOPNOTSUPP 95
#define EADDRINUSE 98
#define ENOBUFS 105
#define ENOTCONN 107
#define ETIMEDOUT 110
#define ECANCELED 125
