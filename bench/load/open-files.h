/* The open file limit. */
#pragma once

/** Raises the soft limit as far as needs no privilege, and returns it. */
long raise_open_files(void);
