-- score_summary: how each score is distributed over the scored sessions
-- grain: one row per score
-- columns:
--   score     text    the column of the results
--   sessions  bigint  sessions that have it
--   mean      double  in the score's own unit
--   std_dev   double  standard deviation of the sample
--   lowest    double
--   p25       double  the lowest value that at least a quarter of the sessions do not exceed
--   median    double  the same with a half
--   p75       double  the same with three quarters
--   highest   double
WITH scores AS (
    SELECT 'ce_raw' AS score, CAST(ce_raw AS DOUBLE) AS value FROM results WHERE ok
    UNION ALL SELECT 'ro_raw', CAST(ro_raw AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'ac_raw', CAST(ac_raw AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'ae_raw', CAST(ae_raw AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'acce', CAST(acce AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'aero', CAST(aero AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'assimilation_accommodation', CAST(assimilation_accommodation AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'converging_diverging', CAST(converging_diverging AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'balance_acce', CAST(balance_acce AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'balance_aero', CAST(balance_aero AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'intensity', CAST(intensity AS DOUBLE) FROM results WHERE ok
    UNION ALL SELECT 'kendall_w', kendall_w FROM results WHERE ok
    UNION ALL SELECT 'lfi', lfi FROM results WHERE ok
),
-- Scores take few values: what follows works on one row per value, not per session.
counted AS (
    SELECT score, value, count(*) AS sessions FROM scores GROUP BY score, value
),
ranked AS (
    SELECT
        score,
        value,
        sessions,
        sum(sessions) OVER (PARTITION BY score ORDER BY value ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS up_to,
        sum(sessions) OVER (PARTITION BY score) AS total,
        sum(sessions * value) OVER (PARTITION BY score) / sum(sessions) OVER (PARTITION BY score) AS mean
    FROM counted
)
SELECT
    score,
    CAST(max(total) AS BIGINT) AS sessions,
    max(mean) AS mean,
    CASE WHEN max(total) > 1 THEN sqrt(sum(sessions * (value - mean) * (value - mean)) / (max(total) - 1)) END AS std_dev,
    min(value) AS lowest,
    min(CASE WHEN 4 * up_to >= total THEN value END) AS p25,
    min(CASE WHEN 2 * up_to >= total THEN value END) AS median,
    min(CASE WHEN 4 * up_to >= 3 * total THEN value END) AS p75,
    max(value) AS highest
FROM ranked
GROUP BY score
