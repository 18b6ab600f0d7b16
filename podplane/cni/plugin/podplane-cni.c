/*
 * podplane-cni: what a container engine runs as a CNI plugin. It hands its environment and standard input to the agent of the node over a
 * Unix socket, and copies the answer; podplane/cni/wire.py says what goes over it. It opens CNI_NETNS itself and passes the descriptor
 * (SCM_RIGHTS), so that the agent needs neither the engine's mounts nor the path; and it enters that namespace, and passes what it opens
 * there, so that the agent need not be able to enter it (CAP_SYS_ADMIN). Nothing that this program does later depends on its own namespace:
 * a Unix socket with a path is found from all.
 *
 *     connect ── refused, nobody there ──► wait a little, again          for 30 s at most, then "try again later" (11)
 *     the same of a DEL, and the agent has not attached it (journal.c) ──► done
 *     sent, and the agent ended before it answered ──► connect, and say that the request is sent again
 *     the engine ended before it read the answer of an ADD ──► DEL in this namespace: nobody else would ask for that
 *
 * Run by the name `loopback` it is that plugin, which containerd 1.6 wants beside any network: it asks nobody (loopback.c).
 *
 *     PODPLANE_CNI_SOCKET     where the agent listens, else /run/podplane/cni.sock
 *     PODPLANE_CNI_WAIT       seconds to wait for an agent that is away: 0 to 3600
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "podplane-cni.h"

#define SOCKET "/run/podplane/cni.sock"
#define REQUEST_BYTES (1 << 20)		/* of the agent's own limit */
#define ANSWER_BYTES (1 << 20)
#define WAIT_MS 30000			/* for an agent that is away */
#define MOST_WAIT_SECONDS 3600		/* that PODPLANE_CNI_WAIT may say */
#define STATUS_WAIT_MS 1000		/* an agent that is replaced is back within that */
#define ANSWER_MS 120000		/* an agent that is at work */
#define LOOK_MS 10			/* from one try to the next, at first */
#define LONGEST_LOOK_MS 250
#define MOST_PASSED 4

enum { NETLINK_ROUTE = 0, NETLINK_SOCK_DIAG = 4 };	/* linux/netlink.h, which musl has not */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, TRY_AGAIN = 11, NOT_AVAILABLE = 50 };
enum { DONE, AWAY, LOST, FAILED };	/* how a try ended */

struct problems {
	int open, enter;		/* errno: CNI_NETNS can't be opened, or not be entered; 0 for none */
};

extern char **environ;

static char stdin_data[REQUEST_BYTES];
static size_t stdin_size;
static char answer[ANSWER_BYTES];
static size_t answer_size;
static char request[REQUEST_BYTES + 4];
static size_t request_size;
static int passed[MOST_PASSED];		/* descriptors, and what they are */
static const char *passed_names[MOST_PASSED];
static size_t passed_count;

static int64_t now_ms(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

int write_all(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t done = write(STDOUT_FILENO, data, size);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		data += done;
		size -= (size_t)done;
	}
	return 0;
}

/* The value of "cniVersion" in the configuration, if it has nothing but digits and dots. The agent reads the configuration; this is for
 * errors and answers that are given without it. */
const char *version_said(void)
{
	static char version[16];
	static const char key[] = "\"cniVersion\"";
	const char *at = memmem(stdin_data, stdin_size, key, sizeof(key) - 1), *end = stdin_data + stdin_size;
	size_t size = 0;

	if (at == NULL)
		return "1.1.0";
	at += sizeof(key) - 1;
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r' || *at == ':'))
		at++;
	if (at < end && *at == '"')
		for (at++; at < end && size < sizeof(version) - 1 && (*at == '.' || (*at >= '0' && *at <= '9')); at++)
			version[size++] = *at;
	return size > 0 && at < end && *at == '"' ? version : "1.1.0";
}

/* Copy a string for JSON; what is longer is cut. */
void quote(char *to, size_t size, const char *from)
{
	char *end = to + size - 7;

	for (; *from != '\0' && to < end; from++) {
		unsigned char c = (unsigned char)*from;

		if (c == '"' || c == '\\') {
			*to++ = '\\';
			*to++ = (char)c;
		} else if (c < 0x20) {
			to += sprintf(to, "\\u%04x", c);
		} else {
			*to++ = (char)c;
		}
	}
	*to = '\0';
}

int fail(int code, const char *message, const char *details)
{
	char quoted_message[2048], quoted_details[2048], text[8192];

	quote(quoted_message, sizeof(quoted_message), message);
	quote(quoted_details, sizeof(quoted_details), details);
	snprintf(text, sizeof(text), "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}", version_said(), code,
		 quoted_message, quoted_details);
	write_all(text, strlen(text));
	return 1;
}

static int read_stdin(void)
{
	while (stdin_size < sizeof(stdin_data)) {
		ssize_t got = read(STDIN_FILENO, stdin_data + stdin_size, sizeof(stdin_data) - stdin_size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			return 0;
		stdin_size += (size_t)got;
	}
	errno = EFBIG;
	return -1;
}

static int put(const void *data, size_t size)
{
	if (size > sizeof(request) - request_size)
		return -1;
	memcpy(request + request_size, data, size);
	request_size += size;
	return 0;
}

static int put_variable(const char *text)
{
	return put(text, strlen(text) + 1);
}

static int put_number(const char *name, int number)
{
	char said[64];

	if (number == 0)
		return 0;
	snprintf(said, sizeof(said), "%s=%d", name, number);
	return put_variable(said);
}

/* What the descriptors are. */
static int put_names(void)
{
	char said[64] = "PODPLANE_FDS=";
	size_t i;

	if (passed_count == 0)
		return 0;
	for (i = 0; i < passed_count; i++) {
		if (i > 0)
			strcat(said, ",");
		strcat(said, passed_names[i]);
	}
	return put_variable(said);
}

/* The request: length, variables, standard input. */
static int make_request(struct problems problems, int is_again)
{
	uint32_t length;
	char **one;

	request_size = sizeof(length);
	for (one = environ; *one != NULL; one++)
		if (strncmp(*one, "CNI_", 4) == 0 && strchr(*one, '=') != NULL && put_variable(*one) < 0)
			return -1;
	if (put_names() < 0 || put_number("PODPLANE_NETNS_ERROR", problems.open) < 0 ||
	    put_number("PODPLANE_ENTER_ERROR", problems.enter) < 0)
		return -1;
	if (is_again && put_variable("PODPLANE_AGAIN=1") < 0)
		return -1;
	if (put_variable("") < 0 || put(stdin_data, stdin_size) < 0)
		return -1;
	length = (uint32_t)(request_size - sizeof(length));
	request[0] = (char)(length >> 24);
	request[1] = (char)(length >> 16);
	request[2] = (char)(length >> 8);
	request[3] = (char)length;
	return 0;
}

/* Pass a descriptor, if it could be opened. */
static void pass(const char *name, int fd)
{
	if (fd < 0)
		return;
	passed_names[passed_count] = name;
	passed[passed_count++] = fd;
}

/* Open the container's network namespace, and in it what the agent works with there. */
static struct problems open_namespace(const char *path)
{
	int netns = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (netns < 0)
		return (struct problems){.open = errno};
	pass("netns", netns);
	if (setns(netns, CLONE_NEWNET) < 0)
		return (struct problems){.enter = errno};
	pass("route", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	pass("diag", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
	pass("ipv6", open("/proc/sys/net/ipv6", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	return (struct problems){0};
}

static int open_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int reason = errno;

		close(fd);
		errno = reason;
		return -1;
	}
	return fd;
}

/* Wait until the socket can be read or written; -1 with ETIMEDOUT when it can't by then. */
static int await(int fd, short events, int64_t until)
{
	struct pollfd one = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = until - now_ms();
		int ready = poll(&one, 1, left > 0 ? (int)left : 0);

		if (ready > 0)
			return 0;
		if (ready == 0 && left <= 0) {
			errno = ETIMEDOUT;
			return -1;
		}
		if (ready < 0 && errno != EINTR)
			return -1;
	}
}

static int send_request(int fd, int64_t until)
{
	size_t sent = 0;

	while (sent < request_size) {
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(passed))];
		} control = {0};
		struct iovec part = {.iov_base = request + sent, .iov_len = request_size - sent};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
		ssize_t done;

		if (sent == 0 && passed_count > 0) {
			size_t size = passed_count * sizeof(*passed);

			message.msg_control = &control;
			message.msg_controllen = CMSG_SPACE(size);
			CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
			CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
			CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(size);
			memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), passed, size);
		}
		done = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (done >= 0)
			sent += (size_t)done;
		else if (errno == EAGAIN ? await(fd, POLLOUT, until) < 0 : errno != EINTR)
			return -1;
	}
	return 0;
}

/* Read the answer until its end. */
static int receive_answer(int fd, int64_t until)
{
	answer_size = 0;
	while (answer_size < sizeof(answer)) {
		ssize_t got = recv(fd, answer + answer_size, sizeof(answer) - answer_size, 0);

		if (got == 0)
			return 0;
		if (got > 0)
			answer_size += (size_t)got;
		else if (errno == EAGAIN ? await(fd, POLLIN, until) < 0 : errno != EINTR)
			return -1;
	}
	errno = EFBIG;
	return -1;
}

/* One try to be answered; errno says why it was not. */
static int try_once(const char *path)
{
	int64_t until = now_ms() + ANSWER_MS;
	int fd = open_socket(path), is_answered, reason;

	if (fd < 0)
		return errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN ? AWAY : FAILED;
	is_answered = send_request(fd, until) == 0 && receive_answer(fd, until) == 0;
	reason = errno;
	close(fd);
	if (is_answered && answer_size > 0)
		return DONE;
	errno = is_answered ? ECONNRESET : reason;
	return errno == ECONNRESET || errno == EPIPE ? LOST : FAILED;
}

/* How long an agent that is away is waited for; -1 when PODPLANE_CNI_WAIT says no number of seconds. */
static int64_t patience_ms(const char *command)
{
	const char *said = getenv("PODPLANE_CNI_WAIT");
	char *end;
	double seconds;

	if (strcmp(command, "VERSION") == 0)
		return 0;
	if (said == NULL || *said == '\0')
		return strcmp(command, "STATUS") == 0 ? STATUS_WAIT_MS : WAIT_MS;
	seconds = strtod(said, &end);
	if (said[strspn(said, "0123456789.")] != '\0' || *end != '\0' || seconds > MOST_WAIT_SECONDS)
		return -1;
	return (int64_t)(seconds * 1000);
}

/* What is said of an agent that can't be asked. */
static int away(const char *command, const char *path, int reason)
{
	char details[512];

	if (strcmp(command, "VERSION") == 0)
		return print_versions();
	snprintf(details, sizeof(details), "%s: %s", path, strerror(reason));
	return fail(strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN, "the podplane agent of this node does not answer", details);
}

/* Does nobody read the answer any more? Waits so long for that; only of an ADD it matters. */
static int is_unheard(int is_add, int ms)
{
	struct pollfd out = {.fd = is_add ? STDOUT_FILENO : -1};

	return poll(&out, 1, ms) > 0;
}

static int ask(const char *command, struct problems problems);

/* Have detached what an ADD made: the engine that asked for it has ended, and will not ask for that. The namespace goes with the request:
 * in another one it would be what a later engine has attached. */
static int take_back(void)
{
	if (setenv("CNI_COMMAND", "DEL", 1) == 0)
		ask("DEL", (struct problems){0});
	return 1;
}

static int ask(const char *command, struct problems problems)
{
	const char *said = getenv("PODPLANE_CNI_SOCKET"), *path = said != NULL && *said != '\0' ? said : SOCKET;
	int64_t patience = patience_ms(command), until = now_ms() + patience;
	int pause = LOOK_MS, is_add = strcmp(command, "ADD") == 0, was_sent = 0, ended;

	if (patience < 0)
		return fail(INVALID_ENVIRONMENT, "PODPLANE_CNI_WAIT is no number of seconds from 0 to 3600", getenv("PODPLANE_CNI_WAIT"));
	if (make_request(problems, 0) < 0)
		return fail(IO_FAILURE, "environment and configuration are too long", "1 MiB is the most");
	while ((ended = try_once(path)) != DONE) {
		int reason = errno;

		was_sent |= ended != AWAY;
		if (ended == FAILED && strcmp(command, "VERSION") != 0) {
			char details[512];

			snprintf(details, sizeof(details), "%s: %s", path, strerror(reason));
			return fail(IO_FAILURE, "the podplane agent of this node can't be asked", details);
		}
		if (strcmp(command, "DEL") == 0 && (reason == ENOENT || reason == ECONNREFUSED) && !may_be_attached(path))
			return 0;
		if (now_ms() + pause > until)
			return away(command, path, reason);
		if (ended == LOST && make_request(problems, 1) < 0)
			return fail(IO_FAILURE, "environment and configuration are too long", "1 MiB is the most");
		if (is_unheard(is_add, pause))
			return was_sent ? take_back() : 1;
		pause = pause * 2 > LONGEST_LOOK_MS ? LONGEST_LOOK_MS : pause * 2;
	}
	if (is_unheard(is_add, 0) || write_all(answer + 1, answer_size - 1) < 0)
		return is_add && answer[0] == 0 ? take_back() : 1;	/* what was refused may be attached since an ADD before */
	return (unsigned char)answer[0];
}

int print_versions(void)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}", version_said());
	return write_all(text, strlen(text)) < 0;
}

static int is_verb(const char *command)
{
	static const char *const verbs[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};
	size_t i;

	for (i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strcmp(command, verbs[i]) == 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = getenv("CNI_COMMAND"), *path = getenv("CNI_NETNS");
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
	struct problems problems = {0};

	signal(SIGPIPE, SIG_IGN);
	name = name != NULL ? name + 1 : argc > 0 ? argv[0] : "";
	if (command == NULL) {
		fputs("podplane-cni is a CNI plugin, which container engines run; it speaks 0.3.0 to 1.1.0. See docs/cni.md of podplane.\n", stderr);
		return 1;
	}
	if (read_stdin() < 0)
		return fail(IO_FAILURE, "the configuration on standard input can't be read", strerror(errno));
	if (!is_verb(command))
		return fail(INVALID_ENVIRONMENT, "CNI_COMMAND is none of ADD, DEL, CHECK, GC, STATUS, VERSION", command);
	if (strcmp(name, "loopback") == 0)
		return loopback(command);
	if (path != NULL && *path != '\0' && (strcmp(command, "ADD") == 0 || strcmp(command, "CHECK") == 0))
		problems = open_namespace(path);
	return ask(command, problems);
}
