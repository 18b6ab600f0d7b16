/*
 * What runs on the machine and in the containers of these tests; one static program, so that an image is this one file.
 *
 *     probe init               PID 1 of a machine: waits for processes that lost their parents, and ends with its standard input
 *     probe pause              nothing, until SIGTERM
 *     probe serve PORT         HTTP over IPv4 and IPv6: tells each client the address that it comes from
 *     probe ask ADDRESS PORT SECONDS   prints what such a server says; exit status 1, and why, when it says nothing for so long
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number)
{
	(void)number;
	_exit(0);
}

static void reap(int number)
{
	(void)number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int init(void)
{
	char byte;

	signal(SIGCHLD, reap);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}

static int idle(void)
{
	signal(SIGCHLD, reap);
	for (;;)
		pause();
}

/* The address as text; that of an IPv4 client without the prefix by which the socket shows it. */
static const char *text_of(const struct sockaddr_in6 *client)
{
	static char text[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, &client->sin6_addr, text, sizeof(text));
	return IN6_IS_ADDR_V4MAPPED(&client->sin6_addr) ? strrchr(text, ':') + 1 : text;
}

static int serve(const char *port)
{
	struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)atoi(port))}, client;
	int listener = socket(AF_INET6, SOCK_STREAM, 0), yes = 1, no = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 1024) < 0) {
		perror("serve");
		return 1;
	}
	for (;;) {
		socklen_t size = sizeof(client);
		int one = accept(listener, (struct sockaddr *)&client, &size);
		char request[2048];

		if (one < 0)
			continue;
		if (read(one, request, sizeof(request)) > 0)
			dprintf(one, "HTTP/1.0 200 OK\r\n\r\n%s\n", text_of(&client));
		close(one);
	}
}

static int ask(const char *address, const char *port, const char *seconds)
{
	struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
	struct sockaddr_in6 new = {.sin6_family = AF_INET6, .sin6_port = old.sin_port};
	int is_new = inet_pton(AF_INET6, address, &new.sin6_addr) == 1, one = socket(is_new ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {.tv_sec = atoi(seconds)};
	char answer[8192], *body;
	size_t size = 0;
	ssize_t got;

	inet_pton(AF_INET, address, &old.sin_addr);
	setsockopt(one, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(one, is_new ? (struct sockaddr *)&new : (struct sockaddr *)&old, is_new ? sizeof(new) : sizeof(old)) < 0) {
		perror("connect");
		return 1;
	}
	dprintf(one, "GET / HTTP/1.0\r\nHost: probe\r\n\r\n");
	while (size < sizeof(answer) - 1 && (got = read(one, answer + size, sizeof(answer) - 1 - size)) > 0)
		size += (size_t)got;
	answer[size] = '\0';
	body = strstr(answer, "\r\n\r\n");
	if (body == NULL) {
		fputs("no answer\n", stderr);
		return 1;
	}
	fputs(body + 4, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	signal(SIGTERM, end);
	signal(SIGINT, end);
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(what, "init") == 0)
		return init();
	if (strcmp(what, "pause") == 0)
		return idle();
	if (strcmp(what, "serve") == 0 && argc == 3)
		return serve(argv[2]);
	if (strcmp(what, "ask") == 0 && argc == 5)
		return ask(argv[2], argv[3], argv[4]);
	fputs("probe init | pause | serve PORT | ask ADDRESS PORT SECONDS\n", stderr);
	return 2;
}
