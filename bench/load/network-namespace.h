/* In which network namespace sockets are made. */
#pragma once

/** A descriptor of the namespace at `path`, or of the current one if it is NULL. */
int open_namespace(const char *path);

/** Sockets that this thread makes from now on are in it. */
void enter_namespace(int fd);
