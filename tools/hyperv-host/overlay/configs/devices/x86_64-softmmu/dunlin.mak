# SPDX-License-Identifier: GPL-2.0-or-later
# The devices the emulated Hyper-V host needs, and no others.
CONFIG_PCI_DEVICES=n
CONFIG_Q35=y
CONFIG_HYPERV=y
CONFIG_VMBUS=y
CONFIG_HV_NET=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_RNG=y
