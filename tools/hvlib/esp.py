# SPDX-License-Identifier: BSD-2-Clause
"""Makes EFI System Partitions with mtools: no root, no loop device. Used by the runner (a bare FAT
disk to boot from) and by tools/image (the partition inside the GPT disk and the ISO)."""

import os
import shutil
import subprocess

from . import HvError


def _mtool(*command):
    if not shutil.which(command[0], path="/usr/bin:/bin"):
        raise HvError(f"{command[0]} is missing: apt-get install mtools")
    env = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    done = subprocess.run([str(c) for c in command], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise HvError(f"{command[0]} failed: {done.stdout.strip()}")


def make_esp(image, efi, config=None, size_kib=34 * 1024):
    """Writes a FAT32 file system (FAT12/16 below 33 MiB) with EFI/BOOT/BOOTX64.EFI to `image`."""
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(size_kib * 1024)
    fat32 = ["-F"] if size_kib >= 33 * 1024 else []
    _mtool("mformat", "-i", image, *fat32, "-h", 64, "-s", 32, "-t", size_kib // 1024, "-v",
           "DUNLIN", "::")
    _mtool("mmd", "-i", image, "::/EFI", "::/EFI/BOOT")
    _mtool("mcopy", "-i", image, efi, "::/EFI/BOOT/BOOTX64.EFI")
    if config:
        _mtool("mcopy", "-i", image, config, "::/dunlin.conf")
