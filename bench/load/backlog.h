/* Bytes of one connection that were read and could not be written yet. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { BACKLOG_LIMIT = 16 * 1024 * 1024 };

struct backlog {
	unsigned char *bytes;
	size_t start;
	size_t end;
	size_t room;
	/** The peer has sent all it will. */
	bool ended;
};

/** Once: lets freed memory go back to the kernel. */
void prepare_backlogs(void);

struct backlog *make_backlog(void);

void free_backlog(struct backlog *backlog);

size_t backlog_length(const struct backlog *backlog);

/** Keeps `length` bytes; the caller stays within BACKLOG_LIMIT. */
void backlog_add(struct backlog *backlog, const unsigned char *bytes, size_t length);
