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

/* The same with the pipe of a log thread before this one, and what lies in it; on failure it stays the caller's. */
int vb_logger_adopt(struct vb_logger **ret_logger, const int pipe[2], vb_u64 *lost);

/* The pipe, read end first. */
const int *vb_logger_pipe(const struct vb_logger *logger);

/*
 * The thread takes no more out of the pipe, and has written all that it took, until it is told to go on. False: within
 * a second that could not be; it goes on.
 */
bool vb_logger_pause(struct vb_logger *logger);
void vb_logger_resume(struct vb_logger *logger);

/* The pipe's write end, for the master's own log and for workers to inherit. Owned by the logger. */
int vb_logger_fd(const struct vb_logger *logger);

/*
 * Closes the write end and waits until everything has been written, for a second at most: whoever does not read our log
 * must not keep us from ending. All workers must be gone. Sets NULL. False: the thread is still at it; then the process
 * must leave with _exit.
 */
bool vb_logger_stop(struct vb_logger **logger);

#endif
