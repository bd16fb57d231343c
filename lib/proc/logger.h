/*
 * The log thread: the only place that waits for the log's reader. Master and workers write their lines into one
 * non-blocking pipe; the thread carries them to standard error, so that a stalled disk or terminal never reaches them.
 */
#ifndef VB_PROC_LOGGER_H
#define VB_PROC_LOGGER_H

#include "vb/shm.h"

struct vb_logger;

/* `lost` counts the lines that standard error did not take; it must live until vb_logger_stop has returned true. */
int vb_logger_start(struct vb_logger **ret_logger, vb_u64 *lost);

/* The pipe's write end, for the master's own log and for workers to inherit. Owned by the logger. */
int vb_logger_fd(const struct vb_logger *logger);

/*
 * Closes the write end and waits until everything has been written, for a second at most: whoever does not read our log
 * must not keep us from ending. All workers must be gone. Sets NULL. False: the thread is still at it; then the process
 * must leave with _exit.
 */
bool vb_logger_stop(struct vb_logger **logger);

#endif
