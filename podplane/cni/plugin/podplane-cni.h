/* What podplane-cni and its loopback plugin share. */
#include <stddef.h>

/* Print an error of the CNI specification; the exit status. */
int fail(int code, const char *message, const char *details);
/* Print the answer to VERSION; the exit status. */
int print_versions(void);
/* The version of the specification that the caller speaks. */
const char *version_said(void);
/* Copy a string as the inside of one of JSON; what is longer is cut. */
void quote(char *to, size_t size, const char *from);
/* Write to standard output. */
int write_all(const char *data, size_t size);
/* Is there anything that an agent, which listens here and is away, may have attached for the container? */
int may_be_attached(const char *socket_path);
/* The plugin `loopback`; the exit status. */
int loopback(const char *command);
