#include "vb/inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define INBOX_MAGIC 0x494e4258
#define TAKE_MAX    64   /* in one turn of the loop */
#define REST_MS     100  /* when there is no descriptor to be had */
#define UNREAD_MAX  4096 /* in the kernel's measure, which is some hundred bytes for each: a handful */

struct vb_inbox {
    uint32_t magic;
    int fd; /* the caller's */
    void (*arrived)(void *owner, int fd, unsigned number);
    void *owner;
    uv_poll_t poll;
    uv_timer_t rest;
    unsigned handles; /* open libuv handles; the memory goes with the last one */
};

/* A message is a number, and perhaps a descriptor beside it. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int vb_inbox_pair(int ret_ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret_ends) == 0 ? 0 : -errno;
}

static void enclose(struct msghdr *message, union control *control, int descriptor)
{
    message->msg_control = control;
    message->msg_controllen = sizeof(*control);
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(descriptor));
    memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
}

int vb_inbox_put(int fd, int descriptor, unsigned number)
{
    union control control = {{0}};
    struct iovec iov = {&number, sizeof(number)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    int unread = 0;
    if (ioctl(fd, SIOCOUTQ, &unread) != 0)
        return -errno;
    if (unread >= UNREAD_MAX)
        return -EAGAIN;
    if (descriptor >= 0)
        enclose(&message, &control, descriptor);
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(number) ? 0 : -errno;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_rested(uv_timer_t *timer)
{
    struct vb_inbox *inbox = vb_cast(struct vb_inbox, INBOX_MAGIC, timer->data);
    uv_poll_start(&inbox->poll, UV_READABLE, on_readable);
}

/* A descriptor that finds no room in this process is lost when its message is read. So room is asked for first. */
static bool has_room(struct vb_inbox *inbox)
{
    int room = fcntl(inbox->fd, F_DUPFD_CLOEXEC, 0);
    if (room >= 0) {
        close(room);
        return true;
    }
    uv_poll_stop(&inbox->poll);
    uv_timer_start(&inbox->rest, on_rested, REST_MS, 0);
    return false;
}

/* False when nothing waits. */
static bool take_one(struct vb_inbox *inbox)
{
    union control control;
    unsigned number;
    struct iovec iov = {&number, sizeof(number)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(inbox->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (n != (ssize_t)sizeof(number) || (message.msg_flags & MSG_CTRUNC) != 0)
        return true;
    if (header == NULL) {
        inbox->arrived(inbox->owner, -1, number);
    } else if (header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int))) {
        int descriptor;
        memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
        inbox->arrived(inbox->owner, descriptor, number);
    }
    return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct vb_inbox *inbox = vb_cast(struct vb_inbox, INBOX_MAGIC, poll->data);
    for (unsigned i = 0; i < TAKE_MAX && has_room(inbox) && take_one(inbox); i++)
        ;
}

int vb_inbox_open(struct vb_inbox **ret_inbox, struct vb_loop *loop, int fd,
                  void (*arrived)(void *owner, int fd, unsigned number), void *owner)
{
    struct vb_inbox *inbox = calloc(1, sizeof(*inbox));
    if (inbox == NULL)
        return -ENOMEM;
    inbox->magic = INBOX_MAGIC;
    inbox->fd = fd;
    inbox->arrived = arrived;
    inbox->owner = owner;
    int r = uv_poll_init(vb_loop_uv(loop), &inbox->poll, fd);
    if (r < 0) {
        free(inbox);
        return r;
    }
    uv_timer_init(vb_loop_uv(loop), &inbox->rest);
    inbox->handles = 2;
    inbox->poll.data = inbox->rest.data = inbox;
    uv_poll_start(&inbox->poll, UV_READABLE, on_readable);
    *ret_inbox = inbox;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct vb_inbox *inbox = vb_cast(struct vb_inbox, INBOX_MAGIC, handle->data);
    if (--inbox->handles == 0)
        free(inbox);
}

void vb_inbox_close(struct vb_inbox **inbox_ptr)
{
    struct vb_inbox *inbox = *inbox_ptr;
    if (inbox == NULL)
        return;
    *inbox_ptr = NULL;
    while (take_one(inbox))
        ;
    uv_close((uv_handle_t *)&inbox->poll, on_closed);
    uv_close((uv_handle_t *)&inbox->rest, on_closed);
}
