/*
 * Pipes for splice. A direction has one only while bytes are in it, so a few serve many flows. A pipe that is given back
 * with bytes in it is closed: its next user would send them.
 *
 * Past the user's budget of pipe pages the kernel still makes pipes, of two pages, which are slower than copying; that
 * is why the size is asked for.
 */
#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void close_pipe(struct tcp *tcp, struct pipe *pipe) {
  close(pipe->read);
  close(pipe->write);
  tcp->pipes--;
}

static bool make_pipe(struct tcp *tcp, struct pipe *pipe) {
  int ends[2];
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return false;
  tcp->pipes++;
  if (fcntl(ends[1], F_SETPIPE_SZ, 1024 * 1024) < 0) fcntl(ends[1], F_SETPIPE_SZ, 256 * 1024);
  int size = fcntl(ends[1], F_GETPIPE_SZ);
  *pipe = (struct pipe){.read = ends[0], .write = ends[1], .size = size > 0 ? (size_t)size : 0};
  if (size >= COPY_BYTES) return true;
  close_pipe(tcp, pipe);
  pipe->size = 0;
  return false;
}

bool pipe_take(struct core *core, struct pipe *pipe) {
  struct tcp *tcp = core->tcp;
  if (tcp->idle_pipes > 0) {
    *pipe = tcp->idle[--tcp->idle_pipes];
    return true;
  }
  if (tcp->pipes == MAX_PIPES) return false;
  if (make_pipe(tcp, pipe)) return true;
  core->fallbacks |= FALLBACK_PIPES;
  return false;
}

void pipe_give(struct tcp *tcp, struct pipe *pipe, bool empty) {
  if (pipe->size == 0) return;
  if (empty && tcp->idle_pipes < MAX_IDLE_PIPES) tcp->idle[tcp->idle_pipes++] = *pipe;
  else close_pipe(tcp, pipe);
  pipe->size = 0;
}

void pipes_close(struct tcp *tcp) {
  while (tcp->idle_pipes > 0) close_pipe(tcp, &tcp->idle[--tcp->idle_pipes]);
}
