/*
 * What an agent that is away has left attached, by its journal beside its socket (podplane/machine/journal.py): one line of JSON for each
 * record, written before anything is made (attach) or after it was removed (detach). So a DEL of what the journal does not have has nothing
 * to do: the machine has booted since then, the agent was removed, or it is the second DEL. What can't be read counts as attached.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "podplane-cni.h"

#define JOURNAL "attachments.journal"
#define NAME_BYTES 512

/* Is this string in the text? Then where it ends. */
static const char *behind(const char *text, const char *end, const char *wanted)
{
	const char *found = text < end ? memmem(text, (size_t)(end - text), wanted, strlen(wanted)) : NULL;

	return found != NULL ? found + strlen(wanted) : NULL;
}

/* Does a later record say that this interface is detached? */
static int is_detached(const char *rest, const char *end, const char *container, const char *name, size_t size)
{
	char wanted[2 * NAME_BYTES];

	if (size >= NAME_BYTES)
		return 0;
	snprintf(wanted, sizeof(wanted), "{\"detach\":[\"%s\",\"%.*s\"]}\n", container, (int)size, name);
	return behind(rest, end, wanted) != NULL;
}

/* Does the text leave an interface of this container attached? */
static int has_attached(const char *text, const char *end, const char *container)
{
	char wanted[2 * NAME_BYTES];

	snprintf(wanted, sizeof(wanted), "\"container_id\":\"%s\"", container);
	for (const char *found = text; (found = behind(found, end, wanted)) != NULL;) {
		const char *line_end = memchr(found, '\n', (size_t)(end - found)), *line = found, *name, *name_end;

		if (line_end == NULL)
			return 1;
		while (line > text && line[-1] != '\n')
			line--;
		name = behind(line, line_end, "\"ifname\":\"");
		name_end = name != NULL ? memchr(name, '"', (size_t)(line_end - name)) : NULL;
		if (name_end == NULL || !is_detached(line_end, end, container, name, (size_t)(name_end - name)))
			return 1;
		found = line_end;
	}
	return 0;
}

int may_be_attached(const char *socket_path)
{
	const char *container = getenv("CNI_CONTAINERID"), *last = strrchr(socket_path, '/');
	char path[4096];
	struct stat found;
	void *text;
	int fd, is_attached;

	if (container == NULL || *container == '\0' || strlen(container) >= NAME_BYTES || strpbrk(container, "\"\\") != NULL)
		return 1;
	if (snprintf(path, sizeof(path), "%.*s%s", last != NULL ? (int)(last + 1 - socket_path) : 0, socket_path, JOURNAL) >= (int)sizeof(path))
		return 1;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return errno != ENOENT;
	if (fstat(fd, &found) < 0)
		found.st_size = -1;
	text = found.st_size > 0 ? mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	close(fd);
	if (text == MAP_FAILED)
		return found.st_size != 0;
	is_attached = has_attached(text, (const char *)text + found.st_size, container);
	munmap(text, (size_t)found.st_size);
	return is_attached;
}
