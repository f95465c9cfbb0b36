// What nginx answered, for Prometheus: also what never got as far as the application, its own 502, 429
// or 408, which no other place counts. In the zone `metrics`, which all workers share and a reload keeps.
// https://nginx.org/en/docs/njs/reference.html

const PREFIX = 'nginx_http_';

// Upper bounds in seconds, as in app/webapp/metrics.py.
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, '+Inf'];
const DURATION = 'request_duration_seconds';

// What limits.conf calls zones, by nginx's name for the variable.
const LIMITS = {req: 'requests', conn: 'connections'};

const HELP = {
    requests_total: 'Answers, by status; 000 to clients that were gone before.',
    cache_total: 'Answers of the application, by what the cache had to do with them.',
    rejected_total: 'Requests refused with 429, by the limit they met (limits.conf).',
    response_bytes_total: 'Bytes sent to clients, headers too.',
    unlogged_total: 'Requests without a line in the access log, beyond what one client may have (log.conf).',
};

// There from the start, because a rate over a counter does not see the value it begins with.
const FROM_THE_START = ['500', '502', '503', '504', '429'].map((status) => `requests_total{status="${status}"}`)
    .concat(Object.values(LIMITS).map((limit) => `rejected_total{limit="${limit}"}`), 'unlogged_total');

// Asked for by an access log (log.conf) when a request is over. Empty, so that no line is written.
// Every request pays for what is here: `make bench WHAT=edge`.
function count(r) {
    const values = r.variables;
    const zone = ngx.shared.metrics;
    const seconds = Number(values.request_time);
    let bucket = 0;
    while (seconds > BUCKETS[bucket]) { // never above the last, which is no number
        bucket += 1;
    }
    zone.incr(`requests_total{status="${values.status}"}`, 1, 0);
    zone.incr('response_bytes_total', Number(values.bytes_sent), 0);
    zone.incr(`${DURATION}_sum`, seconds, 0);
    zone.incr(`${DURATION}_bucket{le="${BUCKETS[bucket]}"}`, 1, 0);
    const state = values.cache_status;
    if (state) {
        zone.incr(`cache_total{state="${state}"}`, 1, 0);
    }
    if (r.status === 429) {
        ['req', 'conn'].filter((kind) => values[`limit_${kind}_status`] === 'REJECTED')
            .forEach((kind) => zone.incr(`rejected_total{limit="${LIMITS[kind]}"}`, 1, 0));
    }
    return '';
}

// In Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/
function show(r) {
    FROM_THE_START.forEach((series) => ngx.shared.metrics.incr(series, 0, 0));
    const counted = ngx.shared.metrics.items();
    const lines = [];
    Object.keys(HELP).forEach((name) => {
        lines.push(`# HELP ${PREFIX}${name} ${HELP[name]}`, `# TYPE ${PREFIX}${name} counter`);
        counted
            .filter((item) => item[0].split('{')[0] === name)
            .forEach((item) => lines.push(`${PREFIX}${item[0]} ${item[1]}`));
    });
    lines.push(`# HELP ${PREFIX}${DURATION} From a request's first byte to its answer's last.`);
    lines.push(`# TYPE ${PREFIX}${DURATION} histogram`);
    let below = 0;
    BUCKETS.forEach((bound) => {
        const series = `${DURATION}_bucket{le="${bound}"}`;
        below += ngx.shared.metrics.get(series) || 0;
        lines.push(`${PREFIX}${series} ${below}`);
    });
    lines.push(`${PREFIX}${DURATION}_count ${below}`);
    lines.push(`${PREFIX}${DURATION}_sum ${ngx.shared.metrics.get(`${DURATION}_sum`) || 0}`);
    lines.push('# HELP nginx_connections Connections of clients, by what nginx does with them.');
    lines.push('# TYPE nginx_connections gauge');
    ['active', 'reading', 'writing', 'waiting'].forEach((state) => {
        lines.push(`nginx_connections{state="${state}"} ${r.variables[`connections_${state}`]}`);
    });
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4';
    r.return(200, `${lines.join('\n')}\n`);
}

export default { count, show };
