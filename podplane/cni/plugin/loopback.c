/*
 * loopback: the CNI plugin that sets the interface lo of a container up (ADD) and down (DEL), and looks whether it is up (CHECK). containerd
 * 1.6 calls it for each pod before the network's own plugin, and finds no pod network ready without it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "podplane-cni.h"

enum { INCOMPATIBLE_VERSION = 1, INVALID_ENVIRONMENT = 4, REFUSED = 100, FAULTY = 102 };

/* Enter the container's network namespace; what could not be done, NULL for nothing. */
static const char *enter(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return "CNI_NETNS can't be opened";
	return setns(fd, CLONE_NEWNET) < 0 ? "CNI_NETNS can't be entered" : NULL;	/* the process ends soon, and fd with it */
}

/* Read the flags of lo, and write them where they are to be others. */
static int flags(int set, int clear, short *found)
{
	struct ifreq lo = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;

	if (fd < 0)
		return -1;
	result = ioctl(fd, SIOCGIFFLAGS, &lo);
	*found = lo.ifr_flags;
	lo.ifr_flags = (short)((lo.ifr_flags | set) & ~clear);
	if (result == 0 && lo.ifr_flags != *found)
		result = ioctl(fd, SIOCSIFFLAGS, &lo);
	close(fd);
	return result;
}

static int print_result(const char *path)
{
	char quoted[4096], text[8192];
	const char *version = version_said();
	int is_old = version[0] == '0';

	quote(quoted, sizeof(quoted), path);
	snprintf(text, sizeof(text),
		 "{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:00\",\"sandbox\":\"%s\"}],"
		 "\"ips\":[{\"address\":\"127.0.0.1/8\",\"interface\":0%s},{\"address\":\"::1/128\",\"interface\":0%s}]}",
		 version, quoted, is_old ? ",\"version\":\"4\"" : "", is_old ? ",\"version\":\"6\"" : "");
	return write_all(text, strlen(text)) < 0;
}

static int is_spoken(const char *version)
{
	static const char *const spoken[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
	size_t i;

	for (i = 0; i < sizeof(spoken) / sizeof(*spoken); i++)
		if (strcmp(version, spoken[i]) == 0)
			return 1;
	return 0;
}

int loopback(const char *command)
{
	const char *path = getenv("CNI_NETNS"), *problem;
	int is_add = strcmp(command, "ADD") == 0, is_del = strcmp(command, "DEL") == 0, is_check = strcmp(command, "CHECK") == 0;
	short found = 0;

	if (strcmp(command, "VERSION") == 0)
		return print_versions();
	if (!is_spoken(version_said()))
		return fail(INCOMPATIBLE_VERSION, "cniVersion is none of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0", version_said());
	if (strcmp(command, "GC") == 0 || strcmp(command, "STATUS") == 0)
		return 0;
	if (path == NULL || *path == '\0')
		return is_del ? 0 : fail(INVALID_ENVIRONMENT, "CNI_NETNS is missing", "");
	problem = enter(path);
	if (problem != NULL)
		return is_del ? 0 : fail(INVALID_ENVIRONMENT, problem, strerror(errno));
	if (flags(is_add ? IFF_UP : 0, is_del ? IFF_UP : 0, &found) < 0)
		return is_del ? 0 : fail(REFUSED, "lo can't be set up", strerror(errno));
	if (is_check && !(found & IFF_UP))
		return fail(FAULTY, "lo is down", "");
	return is_add ? print_result(path) : 0;
}
