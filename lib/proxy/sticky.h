/*
 * Sticky sessions: a cookie that names the backend which served its client, so that the client comes back there. Nobody
 * can read from it which that is, or make one: it is signed. It says
 *
 *   fingerprint    8 bytes   of the pool's and the backend's name, under the key
 *   issued         4 bytes   seconds since 1970
 *   signature      8 bytes   of these two, under the key
 *
 * in base64url. The key is made from the pool's `secret`, or is the instance's own, which workers, reloads and upgrades
 * share, but not the next start. SipHash does all three: it is a pseudo-random function, and 64 bits of signature that
 * can only be tried against us are plenty for what a forger would gain.
 */
#ifndef VB_PROXY_STICKY_H
#define VB_PROXY_STICKY_H

#include "vb/conf.h"
#include "vb/http.h"
#include "vb/shm.h"

/* A worker's picture of the cookies of one pool. */
struct vb_sticky;

/* For a pool whose cookies are enabled, in the slot `pool`. `shm` and `conf` must outlive it. -ENOMEM. */
int vb_sticky_open(struct vb_sticky **ret_sticky, const struct vb_shm *shm, unsigned pool,
                   const struct vb_conf_pool *conf);
void vb_sticky_close(struct vb_sticky **sticky);

/*
 * The slot of the backend that the request's cookie names. Whether that may be picked is lb's business. -ENOENT: there
 * is no cookie, or one that is forged, too old, or of a backend that is not there. `ret_is_old`: more than half of its
 * time is over.
 */
int vb_sticky_read(struct vb_sticky *sticky, const struct vb_head *head, uint64_t now_wall_us, bool *ret_is_old);

/* May a client be bound to it now? One that is drained would keep its clients for ever. */
bool vb_sticky_binds(const struct vb_sticky *sticky, unsigned backend);

/* The value of a Set-Cookie field that binds a client to the backend, written to `to`. */
#define VB_STICKY_MAX (VB_NAME_MAX + 128)
struct vb_str vb_sticky_write(const struct vb_sticky *sticky, unsigned backend, uint64_t now_wall_us,
                              char to[VB_STICKY_MAX]);

#endif
