/* How the backend behaves at the moment: what `POST /control` changes while it runs. */
#ifndef VBDEMO_SETTINGS_H
#define VBDEMO_SETTINGS_H

#include "text.h"
#include "vb/err.h"

#define SETTINGS_DELAY_MAX_MS (3600ull * 1000)

/* A share of the requests, spread evenly and not at random: 50% is every second one. */
struct share {
    unsigned percent;
    unsigned due; /* hundredths of a request that have gathered; at 100 one is taken */
};

struct settings {
    uint64_t usual_delay_ms; /* of the command line; `normal=1` goes back to it */
    uint64_t delay_ms;
    unsigned status; /* what every request is answered with; 0: what it asks for */
    struct share fail, reset;
    bool hang, unhealthy;
};

/* What becomes of a request. */
enum fate { FATE_ANSWER, FATE_STATUS, FATE_RESET, FATE_HANG };

/* Decides about the next request. With FATE_STATUS it is answered with *ret_status. */
enum fate settings_decide(struct settings *settings, unsigned *ret_status);

/* Applies a query such as `delay=5s&fail=50%`: all of it or, with -EINVAL and a sentence, nothing. */
int settings_apply(struct settings *settings, struct vb_str query, struct vb_error *err);

/* As JSON members, without the braces. */
void settings_print(const struct settings *settings, struct text *text);

#endif
