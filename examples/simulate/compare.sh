#!/bin/sh
# All policies over all scenarios here, as one markdown table: p99 in ms, and errors where there were any.
#   sh examples/simulate/compare.sh [PATH OF vbctl]
set -eu
vbctl=${1:-build/vbctl}
folder=$(dirname "$0")
rows=$(
    for name in equal one_slow failing_fast cold_restart heavy_tail thousand; do
        tables=$("$vbctl" simulate "$folder/$name.yaml")
        echo "$tables" | awk -v name="$name" '
            $1 == "POLICY" { for (i = 1; i <= NF; i++) if ($i != "ms") column[$i] = ++n; rows = 1; next }
            NF == 0 { rows = 0 }
            rows { print name, $1, $column["P99"], $column["ERRORS"] }'
    done
)
echo "$rows" | awk '
    !($1 in seen) { seen[$1] = 1; scenarios[++n] = $1 }
    !($2 in known) { known[$2] = 1; policies[++m] = $2 }
    { cell[$1, $2] = $3 " ms" ($4 > 0 ? ", " $4 " errors" : "") }
    END {
        printf "| |"
        for (i = 1; i <= n; i++) { gsub("_", " ", scenarios[i]); printf " %s |", scenarios[i] }
        printf "\n|---|"
        for (i = 1; i <= n; i++) { gsub(" ", "_", scenarios[i]); printf "---:|" }
        printf "\n"
        for (j = 1; j <= m; j++) {
            printf "| `%s` |", policies[j]
            for (i = 1; i <= n; i++) printf " %s |", cell[scenarios[i], policies[j]]
            printf "\n"
        }
    }'
