/*
 * The log: one line for each event, `TIME LEVEL PROCESS: text`, each line one write(2) of at most VB_LOG_LINE_MAX
 * bytes, so that lines of several processes never mix in a pipe. Process-level code logs; libraries below return
 * errors.
 *
 * Writing never blocks a worker: its descriptor is a non-blocking pipe that the master's log thread empties. A line
 * that does not fit in the pipe is dropped and counted.
 */
#ifndef VB_LOG_H
#define VB_LOG_H

#include "vb/base.h"

enum vb_log_level { VB_LOG_ERROR, VB_LOG_WARN, VB_LOG_INFO, VB_LOG_DEBUG };

#define VB_LOG_LINE_MAX 2048 /* below PIPE_BUF: a write is all or nothing */

/* Lines of this process go to `fd` (not owned) under the name `process`; until then they go to standard error. */
void vb_log_open(int fd, const char *process, enum vb_log_level level);

void vb_log(enum vb_log_level level, const char *fmt, ...) VB_PRINTF(2, 3);

/* Would a line of this level be written? For callers whose arguments cost something. */
bool vb_log_enabled(enum vb_log_level level);

/* Lines that found no room since the process started. */
uint64_t vb_log_dropped(void);

/* "error" ... "debug" -> level; -EINVAL for other words. */
int vb_log_level_parse(const char *word, enum vb_log_level *ret_level);
const char *vb_log_level_name(enum vb_log_level level);

#define vb_log_error(...) vb_log(VB_LOG_ERROR, __VA_ARGS__)
#define vb_log_warn(...)  vb_log(VB_LOG_WARN, __VA_ARGS__)
#define vb_log_info(...)  vb_log(VB_LOG_INFO, __VA_ARGS__)
#define vb_log_debug(...) vb_log(VB_LOG_DEBUG, __VA_ARGS__)

#endif
