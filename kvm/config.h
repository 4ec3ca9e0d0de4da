/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's configuration, from a file (lunvm.conf(5)) and from options of the same names. */
#ifndef LUNFS_KVM_CONFIG_H
#define LUNFS_KVM_CONFIG_H

#include <limits.h>
#include <stdio.h>

#include "kvm/plan.h"

#define VM_CONFIG_BYTES_MAX	(64u << 10)

struct config_disk {
	char	source[VM_DISK_NAME_MAX + 1];	/* "DS:/PATH", or "unix:SOCKET" */
	bool	read_only;
};

struct vm_config {
	char		name[VM_NAME_MAX + 1];
	uint64_t	memory;
	unsigned int	cpus;
	char		kernel[PATH_MAX], initrd[PATH_MAX];	/* "/PATH" or "DS:/PATH"; "" */
	char		cmdline[VM_CMDLINE_MAX + 1];
	struct config_disk disks[VM_DISKS_MAX];
	unsigned int	disk_count;
	bool		restart;	/* on-reset = restart */
	bool		autostart;
	/* While it is read: where names without a path are looked for; "" nowhere. */
	char		base[PATH_MAX];
};

/** vm_config_init() - what holds if nothing is said. */
void vm_config_init(struct vm_config *c);

/**
 * vm_config_set() - one setting, as in a file: "memory", "512M".  "disk" adds one.
 * Return: 0; -ENOENT there is none of that name; -EINVAL, with @why.
 */
int vm_config_set(struct vm_config *c, const char *key, const char *value, char *why,
	       size_t why_size);

/**
 * vm_config_read() - all of @in, which is called @name in messages.
 * @base: the folder that the file is in: "DS:/vm1", "/etc/lunvm".
 * Return: 0; -EINVAL with @why: "NAME:LINE:COLUMN: …"; -EIO.
 */
int vm_config_read(struct vm_config *c, FILE *in, const char *name, const char *base, char *why,
		size_t why_size);

/** vm_config_check() - whether a machine can be made of it.  Return: 0; -EINVAL with @why. */
int vm_config_check(const struct vm_config *c, char *why, size_t why_size);

/** vm_config_name_is_fine() - letters, digits, "-", "_" and "."; it becomes a file's name. */
bool vm_config_name_is_fine(const char *name);

#endif
