-- For run.py: arguments are nothing (GET), or the size of a body to POST. The last line is for it to read.
init = function(args)
    if args[1] then
        wrk.method = "POST"
        wrk.body = string.rep("x", tonumber(args[1]))
    end
end

done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("figures %d %d %d\n", summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
