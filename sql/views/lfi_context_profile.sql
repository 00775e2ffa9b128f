-- lfi_context_profile: which regions of the grid sessions take in each learning context
-- grain: one row per context and region
-- columns:
--   context   bigint  the learning context, from 1, in the order of the instrument
--   region    text    the region of the grid: a style's name
--   sessions  bigint  scored sessions
--   share     double  of the scored sessions, 0 to 1
--   mean_lfi  double  learning flexibility of these sessions
WITH regions AS (
    SELECT 1 AS context, context_styles[1] AS region, lfi FROM results WHERE ok
    UNION ALL SELECT 2, context_styles[2], lfi FROM results WHERE ok
    UNION ALL SELECT 3, context_styles[3], lfi FROM results WHERE ok
    UNION ALL SELECT 4, context_styles[4], lfi FROM results WHERE ok
    UNION ALL SELECT 5, context_styles[5], lfi FROM results WHERE ok
    UNION ALL SELECT 6, context_styles[6], lfi FROM results WHERE ok
    UNION ALL SELECT 7, context_styles[7], lfi FROM results WHERE ok
    UNION ALL SELECT 8, context_styles[8], lfi FROM results WHERE ok
)
SELECT
    context,
    region,
    count(*) AS sessions,
    CAST(count(*) AS DOUBLE) / sum(count(*)) OVER (PARTITION BY context) AS share,
    avg(lfi) AS mean_lfi
FROM regions
GROUP BY context, region
