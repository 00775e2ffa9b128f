-- flexibility_summary: the levels of learning flexibility
-- grain: one row per level of flexibility
-- columns:
--   flexibility_level  text    low, moderate or high: tertiles of the LFI percentile
--   sessions           bigint  scored sessions
--   share              double  of the scored sessions, 0 to 1
--   mean_lfi           double  learning flexibility, 0 to 1
--   lowest_lfi         double
--   highest_lfi        double
--   mean_percentile    double  of LFI, 0 to 100
--   low_w              bigint  sessions flagged low_w: the contexts hardly agree
--   high_w             bigint  sessions flagged high_w: the contexts are nearly alike
SELECT
    flexibility_level,
    count(*) AS sessions,
    CAST(count(*) AS DOUBLE) / sum(count(*)) OVER () AS share,
    avg(lfi) AS mean_lfi,
    min(lfi) AS lowest_lfi,
    max(lfi) AS highest_lfi,
    avg(lfi_percentile) AS mean_percentile,
    count(CASE WHEN array_has(flags, 'low_w') THEN 1 END) AS low_w,
    count(CASE WHEN array_has(flags, 'high_w') THEN 1 END) AS high_w
FROM results
WHERE ok
GROUP BY flexibility_level
