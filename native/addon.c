/*
 * The core for JavaScript: translates numbers, byte arrays and the shared memory, and decides nothing. Types are in
 * src/engine/linux/native.ts. What a call gets is checked only as far as memory is concerned; the caller is TypeScript.
 *
 * A core is an external value. Its memory, its counter blocks and, while it is watched, the value itself are kept alive
 * by references; when it is collected, or its thread ends, it is shut.
 *
 *   watch: uv_poll on core_epoll ──► core_poll ──► onEvents, only if there are any ──► again, for up to 2 ms
 *
 * libuv gives a handle back in a callback of its loop, which must still run when a worker ends: that is what the
 * asynchronous cleanup hook waits for. There is no other state: every thread has its own.
 */
#include "core.h"

#include <errno.h>
#include <limits.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { MAX_ARGUMENTS = 8, ARGUMENT_ENDPOINTS = 4, COUNTER_PLACES = 9, LINGER_MS = 2, QUIET_LINGER_MS = 10 };

struct watcher {
  struct handle *handle; /* NULL once it is closing */
  napi_env env;
  napi_ref on_events, keeps_handle;
  napi_async_context context;
  napi_async_cleanup_hook_handle hook;
  uv_poll_t *poll;
};

struct counter_block {
  struct counters counters;
  napi_ref keeps; /* NULL when forgotten */
  double nowhere;
};

struct handle {
  struct core *core; /* NULL once it is shut */
  struct endpoint *endpoints;
  napi_ref keeps_memory;
  struct watcher *watcher;
  struct counter_block **blocks;
  int32_t block_count;
};

/* Arguments and results */

struct call {
  napi_env env;
  size_t count;
  napi_value arguments[MAX_ARGUMENTS];
  struct handle *handle;
  struct core *core;
};

struct bytes {
  uint8_t *data;
  size_t length; /* in elements */
  napi_typedarray_type type;
};

static struct call call_of(napi_env env, napi_callback_info info) {
  struct call call = {.env = env, .count = MAX_ARGUMENTS};
  void *handle = NULL;
  napi_get_cb_info(env, info, &call.count, call.arguments, NULL, NULL);
  if (napi_get_value_external(env, call.arguments[0], &handle) == napi_ok) {
    call.handle = handle;
    call.core = call.handle->core;
  }
  return call;
}

static int32_t number(const struct call *call, int index) {
  int32_t value = 0;
  napi_get_value_int32(call->env, call->arguments[index], &value);
  return value;
}

static bool flag(const struct call *call, int index) {
  bool value = false;
  napi_get_value_bool(call->env, call->arguments[index], &value);
  return value;
}

/* undefined is no bytes. */
static struct bytes bytes(const struct call *call, int index) {
  struct bytes bytes = {.type = napi_uint8_array};
  void *data = NULL;
  if (napi_get_typedarray_info(call->env, call->arguments[index], &bytes.type, &bytes.length, &data, NULL, NULL) !=
      napi_ok)
    return (struct bytes){.type = napi_uint8_array};
  bytes.data = data;
  return bytes;
}

static napi_value result(napi_env env, int value) {
  napi_value result;
  return napi_create_int32(env, value, &result) == napi_ok ? result : NULL;
}

static struct counters *counters(const struct call *call, int index) {
  int32_t id = number(call, index);
  return id >= 0 && id < call->handle->block_count ? &call->handle->blocks[id]->counters : NULL;
}

/* Watching */

static void watcher_freed(uv_handle_t *poll) {
  struct watcher *watcher = poll->data;
  napi_remove_async_cleanup_hook(watcher->hook);
  free(watcher->poll);
  free(watcher);
}

static void unwatch(struct handle *handle) {
  struct watcher *watcher = handle->watcher;
  if (watcher == NULL) return;
  handle->watcher = NULL;
  watcher->handle = NULL;
  napi_delete_reference(watcher->env, watcher->on_events);
  napi_delete_reference(watcher->env, watcher->keeps_handle);
  napi_async_destroy(watcher->env, watcher->context);
  uv_close((uv_handle_t *)watcher->poll, watcher_freed);
}

static void on_thread_end(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook; /* removed by watcher_freed, also when that was on its way already */
  struct watcher *watcher = data;
  if (watcher->handle != NULL) unwatch(watcher->handle);
}

static void tell(const struct watcher *watcher, int count) {
  napi_env env = watcher->env;
  napi_handle_scope scope;
  napi_value receiver, function, argument, error;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_global(env, &receiver) == napi_ok &&
      napi_get_reference_value(env, watcher->on_events, &function) == napi_ok &&
      napi_create_int32(env, count, &argument) == napi_ok &&
      napi_make_callback(env, watcher->context, receiver, function, 1, &argument, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error); /* 'uncaughtException' */
  napi_close_handle_scope(env, scope);
}

/*
 * While there is traffic the thread waits in the core: to go back to libuv for each wake-up would be a second epoll_wait
 * for the same event, and an object on JavaScript's heap, which Node makes in every turn of its loop. libuv has its turn
 * when nothing has come for a millisecond, and after LINGER_MS at the latest; where nothing had to be told, so that
 * JavaScript has begun nothing either, after QUIET_LINGER_MS.
 */
static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  const struct watcher *watcher = poll->data;
  const double began = core_now();
  double linger_ms = QUIET_LINGER_MS;
  for (int wait_ms = 0; watcher->handle != NULL; wait_ms = 1) {
    struct core *core = watcher->handle->core;
    int count = core_poll(core, wait_ms);
    bool was_idle = core_was_idle(core);
    if (count > 0) {
      tell(watcher, count);
      linger_ms = LINGER_MS;
    }
    if (was_idle || core_now() - began >= linger_ms) return;
  }
}

static bool start_watching(struct watcher *watcher, const struct call *call) {
  napi_env env = call->env;
  uv_loop_t *loop;
  napi_value name;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return false;
  watcher->poll = calloc(1, uv_handle_size(UV_POLL));
  if (watcher->poll == NULL || uv_poll_init(loop, watcher->poll, core_epoll(call->core)) != 0) return false;
  uv_handle_set_data((uv_handle_t *)watcher->poll, watcher);
  napi_create_string_utf8(env, "dualport", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &watcher->context);
  napi_create_reference(env, call->arguments[1], 1, &watcher->on_events);
  napi_create_reference(env, call->arguments[0], 1, &watcher->keeps_handle);
  napi_add_async_cleanup_hook(env, on_thread_end, watcher, &watcher->hook);
  uv_poll_start(watcher->poll, UV_READABLE, on_readable);
  return true;
}

static napi_value api_watch(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  if (call.core == NULL || call.handle->watcher != NULL) return NULL;
  struct watcher *watcher = calloc(1, sizeof *watcher);
  if (watcher != NULL) {
    *watcher = (struct watcher){.handle = call.handle, .env = env};
    if (start_watching(watcher, &call)) {
      call.handle->watcher = watcher;
      return NULL;
    }
    free(watcher->poll);
    free(watcher);
  }
  napi_throw_error(env, "ENOMEM", "the event loop cannot wait for the core");
  return NULL;
}

static napi_value api_unwatch(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  if (call.handle != NULL) unwatch(call.handle);
  return NULL;
}

/* Opening and shutting */

enum { EVENTS, ENDPOINTS, BYTES, ANSWER_BYTES, ACTIVE_MS, ENDED, ARENA, TOTAL, LAYOUT_PARTS };

/* As src/engine/linux/layout.ts has it. */
static void layout(size_t slots, size_t offsets[LAYOUT_PARTS]) {
  offsets[EVENTS] = 0;
  offsets[ENDPOINTS] = MAX_EVENTS * sizeof(struct event);
  offsets[BYTES] = offsets[ENDPOINTS] + ARGUMENT_ENDPOINTS * sizeof(struct endpoint);
  offsets[ANSWER_BYTES] = offsets[BYTES] + slots * sizeof(double);
  offsets[ACTIVE_MS] = offsets[ANSWER_BYTES] + slots * sizeof(double);
  offsets[ENDED] = offsets[ACTIVE_MS] + slots * sizeof(double);
  offsets[ARENA] = (offsets[ENDED] + slots + 63) / 64 * 64;
  offsets[TOTAL] = offsets[ARENA] + ARENA_BYTES;
}

static void shut(napi_env env, struct handle *handle) {
  if (handle->core == NULL) return;
  unwatch(handle);
  core_shut(handle->core);
  handle->core = NULL;
  napi_delete_reference(env, handle->keeps_memory);
  for (int32_t i = 0; i < handle->block_count; i++) {
    if (handle->blocks[i]->keeps != NULL) napi_delete_reference(env, handle->blocks[i]->keeps);
    free(handle->blocks[i]);
  }
  free(handle->blocks);
  handle->blocks = NULL;
  handle->block_count = 0;
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)hint;
  shut(env, data);
  free(data);
}

static struct core *open_core(uint8_t *memory, int32_t slots, const size_t offsets[LAYOUT_PARTS]) {
  const struct shared shared = {
      .events = (struct event *)(memory + offsets[EVENTS]),
      .arena = memory + offsets[ARENA],
      .bytes = (double *)(memory + offsets[BYTES]),
      .answer_bytes = (double *)(memory + offsets[ANSWER_BYTES]),
      .active_ms = (double *)(memory + offsets[ACTIVE_MS]),
      .ended = memory + offsets[ENDED],
      .slots = slots,
  };
  return core_open(&shared);
}

static napi_value api_open(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes memory = bytes(&call, 0);
  int32_t slots = number(&call, 1);
  size_t offsets[LAYOUT_PARTS];
  layout(slots > 0 ? (size_t)slots : 0, offsets);
  if (slots <= 0 || memory.type != napi_uint8_array || memory.length < offsets[TOTAL] || (uintptr_t)memory.data % 8 != 0) {
    napi_throw_range_error(env, "EINVAL", "the memory does not fit the slots");
    return NULL;
  }
  struct handle *handle = calloc(1, sizeof *handle);
  if (handle != NULL) handle->core = open_core(memory.data, slots, offsets);
  napi_value external;
  if (handle == NULL || handle->core == NULL) {
    napi_throw_error(env, "ENOMEM", strerror(errno));
    free(handle);
    return NULL;
  }
  handle->endpoints = (struct endpoint *)(memory.data + offsets[ENDPOINTS]);
  napi_create_reference(env, call.arguments[0], 1, &handle->keeps_memory);
  if (napi_create_external(env, handle, finalize, NULL, &external) == napi_ok) return external;
  finalize(env, handle, NULL);
  return NULL;
}

static napi_value api_shut(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  if (call.core != NULL) shut(env, call.handle);
  return NULL;
}

static napi_value api_layout(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  size_t offsets[LAYOUT_PARTS];
  layout((size_t)number(&call, 0), offsets);
  napi_value array, offset;
  napi_create_array_with_length(env, LAYOUT_PARTS, &array);
  for (uint32_t i = 0; i < LAYOUT_PARTS; i++) {
    napi_create_int64(env, (int64_t)offsets[i], &offset);
    napi_set_element(env, array, i, offset);
  }
  return array;
}

static napi_value api_allows_foreign(napi_env env, napi_callback_info info) {
  (void)info;
  return result(env, core_allows_foreign());
}

/* Without a core: an endpoint as 24 bytes, its source_kind, and whether TCP. */
static napi_value api_socket_from(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes at = bytes(&call, 0);
  struct source from = {.kind = number(&call, 1)};
  if (at.length != sizeof from.at) return result(env, -EINVAL);
  memcpy(&from.at, at.data, sizeof from.at);
  return result(env, core_socket_from(&from, flag(&call, 2)));
}

static napi_value api_now(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value now;
  return napi_create_double(env, core_now(), &now) == napi_ok ? now : NULL;
}

/* Counters */

static int32_t add_block(struct handle *handle, struct counter_block *block) {
  size_t count = (size_t)handle->block_count + 1;
  struct counter_block **blocks = realloc(handle->blocks, count * sizeof *blocks);
  if (blocks == NULL) return -ENOMEM;
  handle->blocks = blocks;
  blocks[handle->block_count] = block;
  return handle->block_count++;
}

static napi_value api_count_into(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes values = bytes(&call, 1), places = bytes(&call, 2);
  if (call.core == NULL || values.type != napi_float64_array || places.type != napi_int32_array ||
      places.length != COUNTER_PLACES)
    return result(env, -EINVAL);
  int32_t at[COUNTER_PLACES];
  memcpy(at, places.data, sizeof at);
  for (int i = 0; i < COUNTER_PLACES; i++) {
    if (at[i] < 0 || (size_t)at[i] >= values.length) return result(env, -EINVAL);
  }
  struct counter_block *block = calloc(1, sizeof *block);
  if (block == NULL) return result(env, -ENOMEM);
  block->counters = (struct counters){(double *)values.data, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]};
  int32_t id = add_block(call.handle, block);
  if (id < 0) free(block);
  else napi_create_reference(env, call.arguments[1], 1, &block->keeps);
  return result(env, id);
}

/* The number is not given again, and a flow that still counts does so into nothing. */
static napi_value api_forget_counters(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int32_t id = number(&call, 1);
  if (call.core == NULL || id < 0 || id >= call.handle->block_count) return NULL;
  struct counter_block *block = call.handle->blocks[id];
  if (block->keeps == NULL) return NULL;
  napi_delete_reference(env, block->keeps);
  block->keeps = NULL;
  block->counters = (struct counters){.values = &block->nowhere};
  return NULL;
}

/* One function of the core each. `e` are the endpoints that the caller has written. */

#define API(name, expression)                                                   \
  static napi_value api_##name(napi_env env, napi_callback_info info) {         \
    struct call call = call_of(env, info), *const c = &call;                    \
    if (c->core == NULL) return result(env, -EBADF);                            \
    struct endpoint *const e = c->handle->endpoints;                            \
    (void)e;                                                                    \
    return result(env, expression);                                             \
  }

static int read_into(const struct call *c) {
  struct bytes to = bytes(c, 2);
  return core_read(c->core, number(c, 1), to.data, to.length);
}

static int write_from(const struct call *c) {
  struct bytes from = bytes(c, 2);
  return core_write(c->core, number(c, 1), from.data, from.length);
}

static int relay(const struct call *c) {
  struct bytes early = bytes(c, 3);
  return core_relay(c->core, number(c, 1), number(c, 2), early.data, early.length, (size_t)number(c, 4), flag(c, 5),
                    counters(c, 6));
}

enum { SOURCE_ENDPOINT = ARGUMENT_ENDPOINTS - 1 };

/* The argument is a source_kind, or 0 for the kernel's choice. */
static const struct source *source(const struct call *c, int index, struct source *from) {
  *from = (struct source){.at = c->handle->endpoints[SOURCE_ENDPOINT], .kind = number(c, index)};
  return from->kind == 0 ? NULL : from;
}

static int connect_from(const struct call *c) {
  struct source from;
  return core_connect(c->core, &c->handle->endpoints[0], source(c, 1, &from));
}

static int udp_flow(const struct call *c) {
  const struct endpoint *e = c->handle->endpoints;
  struct source from;
  return core_udp_flow(c->core, number(c, 1), &e[0], &e[1], &e[2], source(c, 3, &from), counters(c, 2));
}

static int udp_connect(const struct call *c) {
  struct source from;
  return core_udp_connect(c->core, number(c, 1), &c->handle->endpoints[0], source(c, 2, &from));
}

static int udp_budget(const struct call *c) {
  const struct reply_budget budget = {(uint32_t)number(c, 2), (uint32_t)number(c, 3), (uint32_t)number(c, 4),
                                      number(c, 5) / 1000.0};
  return core_udp_budget(c->core, number(c, 1), &budget);
}

static int bind_group(const struct call *c, const struct endpoint *at) {
  struct bytes fds = bytes(c, 3);
  if (fds.type != napi_int32_array || fds.length > INT_MAX) return -EINVAL;
  return core_bind_group(at, flag(c, 1), number(c, 2), (int *)fds.data, (int)fds.length);
}

static int udp_prefix(const struct call *c) {
  struct bytes header = bytes(c, 2);
  return core_udp_prefix(c->core, number(c, 1), header.data, header.length);
}

static int udp_send(const struct call *c) {
  struct bytes header = bytes(c, 2), payload = bytes(c, 3);
  return core_udp_send(c->core, number(c, 1), header.data, header.length, payload.data, payload.length);
}

static int handover_listen(const struct call *c) {
  struct bytes path = bytes(c, 1);
  return core_handover_listen(c->core, (const char *)path.data, path.length, number(c, 2));
}

static int handover_answer(const struct call *c) {
  struct bytes record = bytes(c, 2);
  return core_handover_answer(c->core, number(c, 1), record.data, record.length);
}

API(poll, core_poll(c->core, number(c, 1)))
API(tcp_listen, core_tcp_listen(c->core, &e[0], number(c, 1)))
API(udp_listen, core_udp_listen(c->core, &e[0], counters(c, 1)))
API(bind_group, bind_group(c, &e[0]))
API(adopt, core_adopt(c->core, number(c, 1), flag(c, 2), counters(c, 3)))
API(handover_listen, handover_listen(c))
API(handover_take, core_handover_take(c->core, number(c, 1)))
API(handover_answer, handover_answer(c))
API(local, core_local(c->core, number(c, 1), &e[0]))
API(accepting, core_accepting(c->core, number(c, 1), flag(c, 2)))
API(close, (core_close(c->core, number(c, 1), flag(c, 2)), 0))
API(connect, connect_from(c))
API(read, read_into(c))
API(write, write_from(c))
API(relay, relay(c))
API(relay_abort, core_relay_abort(c->core, number(c, 1)))
API(keep_alive, core_keep_alive(c->core, number(c, 1)))
API(udp_flow, udp_flow(c))
API(udp_connect, udp_connect(c))
API(udp_inspect, core_udp_inspect(c->core, number(c, 1), flag(c, 2)))
API(udp_budget, udp_budget(c))
API(udp_prefix, udp_prefix(c))
API(udp_send, udp_send(c))
API(fallbacks, core_fallbacks(c->core))

static const struct {
  const char *name;
  napi_callback function;
} exports_of_addon[] = {
    {"open", api_open},
    {"shut", api_shut},
    {"watch", api_watch},
    {"unwatch", api_unwatch},
    {"poll", api_poll},
    {"now", api_now},
    {"allowsForeign", api_allows_foreign},
    {"socketFrom", api_socket_from},
    {"layout", api_layout},
    {"tcpListen", api_tcp_listen},
    {"udpListen", api_udp_listen},
    {"bindGroup", api_bind_group},
    {"adopt", api_adopt},
    {"handoverListen", api_handover_listen},
    {"handoverTake", api_handover_take},
    {"handoverAnswer", api_handover_answer},
    {"local", api_local},
    {"accepting", api_accepting},
    {"close", api_close},
    {"connect", api_connect},
    {"read", api_read},
    {"write", api_write},
    {"relay", api_relay},
    {"relayAbort", api_relay_abort},
    {"keepAlive", api_keep_alive},
    {"udpFlow", api_udp_flow},
    {"udpConnect", api_udp_connect},
    {"udpInspect", api_udp_inspect},
    {"udpBudget", api_udp_budget},
    {"udpPrefix", api_udp_prefix},
    {"udpSend", api_udp_send},
    {"countInto", api_count_into},
    {"forgetCounters", api_forget_counters},
    {"fallbacks", api_fallbacks},
};

NAPI_MODULE_INIT() {
  for (size_t i = 0; i < sizeof exports_of_addon / sizeof *exports_of_addon; i++) {
    napi_value function;
    const char *name = exports_of_addon[i].name;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, exports_of_addon[i].function, NULL, &function);
    napi_set_named_property(env, exports, name, function);
  }
  return exports;
}
