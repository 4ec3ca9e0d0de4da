/* SPDX-License-Identifier: Apache-2.0 */
/* The names in an image's list of children: see fs/image.h. */
#ifndef LUNFS_FS_IMAGE_LIST_H
#define LUNFS_FS_IMAGE_LIST_H

#include <stdint.h>
#include <stdio.h>

#define IMAGE_LIST_NAME	17	/* bytes of a name with its NUL */

/** image_list_name() - the name of child @id: its id, 16 hex digits. */
static inline void image_list_name(uint64_t id, char name[IMAGE_LIST_NAME])
{
	snprintf(name, IMAGE_LIST_NAME, "%016llx", (unsigned long long)id);
}

#endif
