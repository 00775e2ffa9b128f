-- norm_coverage: which norm groups gave the percentiles, how often the published table had to answer, and what was truncated
-- grain: one row per scale and norm group
-- columns:
--   scale        text    ce, ro, ac, ae, acce, aero or lfi
--   norm_group   text    the group that answered; 'published' for the published table
--   is_fallback  bool    whether it is the published table
--   sessions     bigint  scored sessions
--   share        double  of the scored sessions, 0 to 1; that of 'published' is the scale's fallback rate
--   truncated    bigint  sessions whose raw score lies outside the published range of the scale
WITH answers AS (
    SELECT 'ce' AS scale, ce_norm_group AS norm_group, array_has(truncated_scales, 'ce') AS is_truncated FROM results WHERE ok
    UNION ALL SELECT 'ro', ro_norm_group, array_has(truncated_scales, 'ro') FROM results WHERE ok
    UNION ALL SELECT 'ac', ac_norm_group, array_has(truncated_scales, 'ac') FROM results WHERE ok
    UNION ALL SELECT 'ae', ae_norm_group, array_has(truncated_scales, 'ae') FROM results WHERE ok
    UNION ALL SELECT 'acce', acce_norm_group, array_has(truncated_scales, 'acce') FROM results WHERE ok
    UNION ALL SELECT 'aero', aero_norm_group, array_has(truncated_scales, 'aero') FROM results WHERE ok
    UNION ALL SELECT 'lfi', lfi_norm_group, false FROM results WHERE ok
)
SELECT
    scale,
    norm_group,
    norm_group = 'published' AS is_fallback,
    count(*) AS sessions,
    CAST(count(*) AS DOUBLE) / sum(count(*)) OVER (PARTITION BY scale) AS share,
    count(CASE WHEN is_truncated THEN 1 END) AS truncated
FROM answers
GROUP BY scale, norm_group
