/*
 * A connection takes one of a few places: its request is read to its end, its answer written, and it is closed. When
 * all places are taken the oldest connection is cut as soon as it has had a fair chance to speak, so that whoever
 * connects and says nothing does not keep others away. The newcomer sits in libuv's listener meanwhile, which accepts
 * no more until it was taken over.
 *
 * A connection whose request is a reload, or has to wait for one, keeps its place until that has ended, or its client
 * hangs up; some places are for others.
 *
 * All of it is one piece of memory, which outlives the loop: the end of the loop closes handles without asking their
 * owners.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "commands.h"
#include "json.h"
#include "vb/listen.h"
#include "vb/log.h"
#include "vb/str.h"

#define CONTROL_MAGIC 0x43544c53u /* "CTLS" */
#define CONN_MAGIC    0x43544c43u /* "CTLC" */
#define CONNECTIONS   64
#define WAITERS       48 /* of these, that may wait for a reload */
#define BACKLOG       128
#define CHANCE_MS     200

struct conn {
    uint32_t magic;
    unsigned handles; /* that are not closed yet; 0: the place is free */
    uint64_t reload;  /* waits for the end of the one of this number; 0: for none */
    bool asks_again;  /* then it has its request done; else the outcome is its answer */
    uint64_t number;  /* the least is the oldest */
    uint64_t since_ms;
    struct vb_control *control;
    uv_pipe_t pipe;
    uv_timer_t timer;
    uv_poll_t hangup; /* while it waits for a reload; of a copy of its socket, as libuv wants it: */
    int hangup_fd;
    uv_write_t write;
    char bytes[VB_CTL_REQUEST_MAX + 1]; /* the request, then its answer */
    size_t n;
};

struct vb_control {
    uint32_t magic;
    struct vb_master *master;
    struct sockaddr_un address;
    int fd; /* listens; the loop has a copy, which it closes as it likes */
    uv_pipe_t listener;
    bool waiting; /* a connection for a place */
    uint64_t accepted;
    struct conn conns[CONNECTIONS];
};

static struct conn *conn_of(void *data)
{
    return vb_cast(struct conn, CONN_MAGIC, data);
}

/* ---- one connection ---------------------------------------------------------------------------------------------- */

static void accept_one(struct vb_control *control);

static void on_closed(uv_handle_t *handle)
{
    struct conn *conn = conn_of(handle->data);
    if (--conn->handles == 0 && conn->control->waiting)
        accept_one(conn->control);
}

static void stop_waiting(struct conn *conn)
{
    if (conn->reload == 0)
        return;
    conn->reload = 0;
    uv_close((uv_handle_t *)&conn->hangup, on_closed);
    close(conn->hangup_fd);
}

static void close_conn(struct conn *conn)
{
    if (uv_is_closing((uv_handle_t *)&conn->pipe))
        return; /* the loop may have done it, at its end */
    stop_waiting(conn);
    uv_close((uv_handle_t *)&conn->pipe, on_closed);
    uv_close((uv_handle_t *)&conn->timer, on_closed);
}

static void on_silence(uv_timer_t *timer)
{
    close_conn(conn_of(timer->data));
}

static void on_written(uv_write_t *write, int status)
{
    close_conn(conn_of(write->data));
}

static void send_answer(struct conn *conn, const struct vb_ctl_answer *answer)
{
    static_assert(sizeof(conn->bytes) >= VB_CTL_TEXT_MAX, "an answer fits where the request was");
    uv_buf_t buf = uv_buf_init(conn->bytes, (unsigned)vb_ctl_pack_answer(conn->bytes, answer));
    if (uv_write(&conn->write, (uv_stream_t *)&conn->pipe, &buf, 1, on_written) < 0)
        close_conn(conn);
}

static void on_hangup(uv_poll_t *hangup, int status, int events)
{
    close_conn(conn_of(hangup->data));
}

/*
 * The client has ended what it sends, so there is nothing to read that would show that it has gone; but a hang-up is
 * reported whatever one asks for. So we ask for what does not come: urgent data.
 */
static int wait_for_reload(struct conn *conn, uint64_t number)
{
    uv_os_fd_t fd;
    uv_fileno((uv_handle_t *)&conn->pipe, &fd);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -errno;
    int r = uv_poll_init(&conn->control->master->loop, &conn->hangup, copy);
    if (r < 0) {
        close(copy);
        return r;
    }
    conn->hangup_fd = copy;
    conn->hangup.data = conn;
    conn->handles++;
    conn->reload = number;
    uv_timer_stop(&conn->timer);
    return uv_poll_start(&conn->hangup, UV_PRIORITIZED, on_hangup);
}

static unsigned count_waiters(const struct vb_control *control)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        n += control->conns[i].reload != 0;
    return n;
}

static void run_request(struct conn *conn)
{
    struct vb_control *control = conn->control;
    struct vb_ctl_answer answer;
    const char *args[VB_CTL_ARGS_MAX];
    enum vb_command_state state = VB_COMMAND_DONE;
    uint64_t reload;
    int n_args = vb_ctl_unpack_request(conn->bytes, conn->n, args);
    uv_read_stop((uv_stream_t *)&conn->pipe);
    if (n_args < 0)
        vb_ctl_refuse(&answer, "this is no request");
    else
        state = vb_command_run(control->master, (unsigned)n_args, args, &answer, &reload);
    if (state != VB_COMMAND_DONE && count_waiters(control) >= WAITERS) {
        vb_ctl_refuse(&answer, "too many others wait for this reload%s",
                      state == VB_COMMAND_WAITS ? "; nothing was changed" : ", which goes on: see vbctl status");
        state = VB_COMMAND_DONE;
    }
    conn->asks_again = state == VB_COMMAND_WAITS;
    if (state == VB_COMMAND_DONE)
        send_answer(conn, &answer);
    else if (wait_for_reload(conn, reload) < 0)
        close_conn(conn);
    else if (control->waiting)
        accept_one(control); /* it may have been the one to be cut */
}

/* One byte more than a request may have is read, and shows that it is too long. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *conn = conn_of(handle->data);
    *buf = uv_buf_init(conn->bytes + conn->n, (unsigned)(sizeof(conn->bytes) - conn->n));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *conn = conn_of(stream->data);
    if (n > 0)
        conn->n += (size_t)n;
    if (n == UV_EOF || conn->n == sizeof(conn->bytes))
        run_request(conn);
    else if (n < 0)
        close_conn(conn);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static void init_conn(struct conn *conn, struct vb_control *control)
{
    uv_loop_t *loop = &control->master->loop;
    conn->magic = CONN_MAGIC;
    conn->handles = 2;
    conn->reload = 0;
    conn->number = control->accepted++;
    conn->since_ms = uv_now(loop);
    conn->control = control;
    conn->n = 0;
    uv_pipe_init(loop, &conn->pipe, 0);
    uv_timer_init(loop, &conn->timer);
    conn->pipe.data = conn->timer.data = conn->write.data = conn;
    uv_timer_start(&conn->timer, on_silence, VB_CTL_SILENCE_MS, 0);
}

static void open_conn(struct conn *conn, struct vb_control *control)
{
    init_conn(conn, control);
    if (uv_accept((uv_stream_t *)&control->listener, (uv_stream_t *)&conn->pipe) < 0 ||
        uv_read_start((uv_stream_t *)&conn->pipe, on_alloc, on_read) < 0)
        close_conn(conn);
}

/* Takes the connection over that waits, now or when the oldest one has made room. */
static void accept_one(struct vb_control *control)
{
    struct conn *oldest = NULL; /* of those that may be cut */
    control->waiting = false;
    if (uv_is_closing((uv_handle_t *)&control->listener))
        return;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct conn *conn = &control->conns[i];
        if (conn->handles == 0) {
            open_conn(conn, control);
            return;
        }
        if (conn->reload == 0 && (oldest == NULL || conn->number < oldest->number))
            oldest = conn;
    }
    assert(oldest != NULL); /* there are more places than waiters */
    control->waiting = true;
    uint64_t chance_ends = oldest->since_ms + CHANCE_MS, now = uv_now(&control->master->loop);
    if (!uv_is_closing((uv_handle_t *)&oldest->timer))
        uv_timer_start(&oldest->timer, on_silence, chance_ends > now ? chance_ends - now : 0, 0);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        accept_one(vb_cast(struct vb_control, CONTROL_MAGIC, listener->data));
}

/* ---- the socket -------------------------------------------------------------------------------------------------- */

/* Where it is to be: as configured, else beside the segment; its path must not depend on who looks from where. */
static int find_path(const char *configured, const char *segment, char *to, size_t size)
{
    if (configured != NULL)
        return vb_copy(to, size, configured) ? 0 : -ENAMETOOLONG;
    char *real = realpath(segment, NULL);
    if (real == NULL)
        return -errno;
    int n = snprintf(to, size, "%s.sock", real);
    free(real);
    return n >= 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int open_socket(struct vb_control *control, const char *configured, const char *segment, struct vb_error *err)
{
    char path[sizeof(control->address.sun_path)];
    int r = find_path(configured, segment, path, sizeof(path));
    if (r == -ENAMETOOLONG)
        return vb_fail(err, r,
                       "the path of the control socket would be longer than the %zu bytes that it may have; let "
                       "`admin.socket` name a shorter one",
                       sizeof(path) - 1);
    if (r < 0)
        return vb_fail(err, r, "cannot find a place for the control socket: %s", vb_strerror(r));
    vb_ctl_address(path, &control->address);
    do
        r = vb_listen_open_private(&control->fd, &control->address, err);
    while (r == -EADDRINUSE && vb_orphans_wait(&control->master->orphans));
    return r;
}

static struct vb_control *new_control(struct vb_master *master)
{
    struct vb_control *control = calloc(1, sizeof(*control));
    if (control == NULL)
        return NULL;
    control->magic = CONTROL_MAGIC;
    control->master = master;
    return control;
}

struct vb_control *vb_control_open(struct vb_master *master, const char *configured, const char *segment)
{
    struct vb_error err;
    if (configured != NULL && configured[0] == '\0')
        return NULL;
    struct vb_control *control = new_control(master);
    if (control == NULL) {
        vb_log_warn("no memory for the control socket: vbctl can change nothing");
        return NULL;
    }
    if (open_socket(control, configured, segment, &err) < 0) {
        vb_log_warn("vbctl can change nothing: %s", err.text);
        free(control);
        return NULL;
    }
    struct vb_shm_header *header = vb_shm_header(master->shm);
    vb_copy(header->control_path, sizeof(header->control_path), control->address.sun_path);
    return control;
}

/* ---- handed over ------------------------------------------------------------------------------------------------- */

/* Of others a part of what they said has been read, or of what they are told has been written. */
static bool can_be_handed_over(const struct conn *conn)
{
    return conn->handles > 0 && !uv_is_closing((const uv_handle_t *)&conn->pipe) && (conn->reload != 0 || conn->n == 0);
}

json_t *vb_control_pack(const struct vb_control *control, json_t **fds)
{
    if (control == NULL)
        return json_null();
    json_t *clients = json_array();
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        const struct conn *conn = &control->conns[i];
        uv_os_fd_t fd;
        if (can_be_handed_over(conn) && uv_fileno((const uv_handle_t *)&conn->pipe, &fd) == 0)
            vb_json_add(&clients, json_pack("[o, I]", vb_json_fd(fds, fd), (json_int_t)conn->reload));
    }
    return json_pack("{s:o, s:o}", "socket", vb_json_fd(fds, control->fd), "clients", clients);
}

static int adopt_conn(struct vb_control *control, const json_t *packed, struct vb_error *err)
{
    struct conn *conn = &control->conns[control->accepted];
    int fd;
    json_int_t reload;
    json_error_t error;
    if (json_unpack_ex((json_t *)packed, &error, 0, "[i, I]", &fd, &reload) != 0)
        return vb_json_wrong(&error, err);
    init_conn(conn, control);
    int r = uv_pipe_open(&conn->pipe, fd);
    if (r == 0)
        r = reload != 0 ? wait_for_reload(conn, (uint64_t)reload)
                        : uv_read_start((uv_stream_t *)&conn->pipe, on_alloc, on_read);
    return r < 0 ? vb_fail(err, r, "cannot go on with a client of the control socket: %s", vb_strerror(r)) : 0;
}

int vb_control_adopt(struct vb_control **ret_control, struct vb_master *master, const json_t *packed, bool rehearsal,
                     struct vb_error *err)
{
    json_t *clients;
    json_error_t error;
    if (json_is_null(packed))
        return 0;
    struct vb_control *control = new_control(master);
    if (control == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    *ret_control = control;
    vb_ctl_address(vb_shm_header(master->shm)->control_path, &control->address);
    if (json_unpack_ex((json_t *)packed, &error, 0, "{s:i, s:o}", "socket", &control->fd, "clients", &clients) != 0)
        return vb_json_wrong(&error, err);
    int r = 0;
    for (size_t i = 0; r == 0 && !rehearsal && i < VB_MIN(json_array_size(clients), (size_t)CONNECTIONS); i++)
        r = adopt_conn(control, json_array_get(clients, i), err);
    return r;
}

/* ---- serving ----------------------------------------------------------------------------------------------------- */

int vb_control_start(struct vb_control *control)
{
    int fd = fcntl(control->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    uv_pipe_init(&control->master->loop, &control->listener, 0);
    control->listener.data = control;
    int r = uv_pipe_open(&control->listener, fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    return uv_listen((uv_stream_t *)&control->listener, BACKLOG, on_connection);
}

void vb_control_reloaded(struct vb_control *control, uint64_t number, const struct vb_ctl_answer *answer)
{
    if (control == NULL)
        return;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct conn *conn = &control->conns[i];
        if (conn->reload == 0 || conn->reload > number || uv_is_closing((uv_handle_t *)&conn->pipe))
            continue;
        stop_waiting(conn);
        uv_timer_start(&conn->timer, on_silence, VB_CTL_SILENCE_MS, 0);
        if (conn->asks_again)
            run_request(conn);
        else
            send_answer(conn, answer);
    }
}

void vb_control_close(struct vb_control **control_ptr)
{
    struct vb_control *control = *control_ptr;
    if (control == NULL)
        return;
    *control_ptr = NULL;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        if (control->conns[i].reload != 0) /* the loop has ended before its reload */
            close(control->conns[i].hangup_fd);
    vb_listen_unlink(control->fd, (const struct sockaddr *)&control->address);
    close(control->fd);
    free(control);
}
