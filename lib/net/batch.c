/*
 * What several streams have read, and what their owners write to that. See struct loop_batch, which owns the bytes.
 */
#include "net_priv.h"

#define ALIGN 64u /* each stream's bytes begin in a cache line of their own */

void batch_read(struct vb_loop *loop, struct vb_stream *stream, ssize_t n)
{
    struct loop_batch *batch = &loop->batch;
    batch->reads[batch->n_reads++] = (struct batch_read){stream, batch_room(loop), n};
    if (n > 0)
        batch->read_bytes += ((size_t)n + ALIGN - 1) / ALIGN * ALIGN;
    if (batch->n_reads == BATCH_STREAMS || batch->read_bytes > BATCH_READ_BYTES)
        batch_run(loop);
}

unsigned batch_write(struct vb_loop *loop, struct vb_stream *stream, const char *bytes, size_t n)
{
    struct loop_batch *batch = &loop->batch;
    if (!batch->takes_writes || batch->n_writes == BATCH_STREAMS)
        return 0;
    batch->writes[batch->n_writes++] = (struct batch_write){stream, bytes, n};
    return batch->n_writes;
}

unsigned vb_loop_batch(const struct vb_loop *loop)
{
    return loop->batch.number;
}

void batch_run(struct vb_loop *loop)
{
    struct loop_batch *batch = &loop->batch;
    batch->takes_writes = batch->n_reads > 1; /* one alone need not wait for anybody */
    for (unsigned i = 0; i < batch->n_reads; i++)
        stream_hand_over(batch->reads[i].stream, batch->reads[i].bytes, batch->reads[i].n);
    batch->takes_writes = false;
    batch->n_reads = 0;
    batch->read_bytes = 0;
    for (unsigned i = 0; i < batch->n_writes; i++)
        if (batch->writes[i].stream != NULL)
            stream_write_late(batch->writes[i].stream);
    batch->n_writes = 0;
    batch->number++;
}
