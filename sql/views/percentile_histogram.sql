-- percentile_histogram: how the percentiles of each scale spread; flat if the norms fit the sessions
-- grain: one row per scale and bucket that has sessions
-- columns:
--   scale     text    ce, ro, ac, ae, acce, aero or lfi
--   bucket    bigint  the lowest percentile of ten: 0, 10, … 90; 100 is in 90
--   sessions  bigint  scored sessions
--   share     double  of the scored sessions, 0 to 1
WITH percentiles AS (
    SELECT 'ce' AS scale, ce_percentile AS percentile FROM results WHERE ok
    UNION ALL SELECT 'ro', ro_percentile FROM results WHERE ok
    UNION ALL SELECT 'ac', ac_percentile FROM results WHERE ok
    UNION ALL SELECT 'ae', ae_percentile FROM results WHERE ok
    UNION ALL SELECT 'acce', acce_percentile FROM results WHERE ok
    UNION ALL SELECT 'aero', aero_percentile FROM results WHERE ok
    UNION ALL SELECT 'lfi', lfi_percentile FROM results WHERE ok
),
buckets AS (
    SELECT scale, CASE WHEN percentile >= 90 THEN 90 ELSE 10 * CAST(floor(percentile / 10) AS BIGINT) END AS bucket
    FROM percentiles
)
SELECT
    scale,
    bucket,
    count(*) AS sessions,
    CAST(count(*) AS DOUBLE) / sum(count(*)) OVER (PARTITION BY scale) AS share
FROM buckets
GROUP BY scale, bucket
